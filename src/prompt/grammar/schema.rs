//! Parts of schemas that no grammar can hold: found, and taken away where the rest is to be held without them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// References that lead to references alone, and back to themselves: no value is what they say.
pub fn endless_references(schema: &Map<String, Value>) -> BTreeSet<String> {
    let root = Value::Object(schema.clone());
    let mut names = BTreeSet::new();
    collect(&root, &mut names);
    names.into_iter().filter(|name| is_endless(&root, name)).collect()
}

fn collect(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            names.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            for field in fields.values() {
                collect(field, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        _ => {}
    }
}

fn is_endless(root: &Value, name: &str) -> bool {
    let (mut seen, mut name) = (BTreeSet::new(), name);
    loop {
        if !seen.insert(name) {
            return true;
        }
        let target = name.strip_prefix('#').and_then(|path| root.pointer(path));
        match target.and_then(|target| target["$ref"].as_str()) {
            Some(next) => name = next,
            None => return false,
        }
    }
}

/// Takes away these references, and patterns that look at what is around them, which no automaton can.
pub fn loosen(schema: &mut Map<String, Value>, endless: &BTreeSet<String>) {
    let looks = |pattern: &Value| {
        let pattern = pattern.as_str().unwrap_or_default();
        ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|sign| pattern.contains(sign))
    };
    schema.retain(|key, value| match key.as_str() {
        "pattern" => !looks(value),
        "$ref" => !value.as_str().is_some_and(|name| endless.contains(name)),
        _ => true,
    });
    for value in schema.values_mut() {
        loosen_value(value, endless);
    }
}

fn loosen_value(value: &mut Value, endless: &BTreeSet<String>) {
    match value {
        Value::Object(fields) => loosen(fields, endless),
        Value::Array(items) => {
            for item in items {
                loosen_value(item, endless);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endless(schema: &Value) -> Vec<String> {
        endless_references(schema.as_object().unwrap()).into_iter().collect()
    }

    #[test]
    fn references_that_lead_to_no_value_are_told_from_those_that_recur() {
        let tree = json!({"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}}});
        assert_eq!(endless(&tree), [""; 0]);
        let of = |defs: Value| json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": defs});
        let [a, b] = ["#/$defs/A", "#/$defs/B"].map(|name| json!({"$ref": name}));
        assert_eq!(endless(&of(json!({"A": a}))), ["#/$defs/A"]);
        assert_eq!(endless(&of(json!({"A": b, "B": a}))), ["#/$defs/A", "#/$defs/B"]);
        assert_eq!(endless(&of(json!({"A": b, "B": {"type": "null"}}))), [""; 0]);
        assert_eq!(endless(&of(json!({}))), [""; 0], "what is missing is somebody else's fault");
        assert_eq!(endless(&json!({"$ref": "#"})), ["#"]);
    }

    #[test]
    fn what_cannot_be_held_is_taken_away_and_nothing_else() {
        let mut schema = json!({"properties": {"x": {"$ref": "#/a"}, "y": {"pattern": "(?=a)b", "type": "string"}},
            "a": {"$ref": "#/a"}, "anyOf": [{"pattern": "ab"}, {"$ref": "#/b"}]});
        let schema = schema.as_object_mut().unwrap();
        loosen(schema, &endless_references(schema));
        let left = json!({"properties": {"x": {}, "y": {"type": "string"}}, "a": {}, "anyOf": [{"pattern": "ab"}, {"$ref": "#/b"}]});
        assert_eq!(Value::Object(schema.clone()), left);
    }
}
