//! Tools in one order of keys: what a client's JSON library does with the order must not cost the cache a prefix.
//!
//! Names that the tool's author chose, properties and definitions, stay in the author's order: models write arguments in the
//! order in which they are declared, and were trained that way.

use serde_json::{Map, Value};

/// The order that models are used to; whatever else there is follows by name.
const KNOWN: [&str; 10] = [
    "type",
    "function",
    "name",
    "title",
    "description",
    "parameters",
    "enum",
    "properties",
    "required",
    "items",
];

/// Keys whose objects have names of the author's in them.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// The same value with the keys of every object in one order. Lists and the author's names stay as they are.
pub fn in_order(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(in_order).collect(),
        Value::Object(object) => {
            let mut entries: Vec<(String, Value)> = object.into_iter().collect();
            let place = |key: &str| KNOWN.iter().position(|known| *known == key).unwrap_or(KNOWN.len());
            entries.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
            let entries = entries.into_iter().map(|(key, value)| match value {
                Value::Object(names) if NAMED.contains(&key.as_str()) => (key, each_in_order(names)),
                other => (key, in_order(other)),
            });
            entries.collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

fn each_in_order(names: Map<String, Value>) -> Value {
    names.into_iter().map(|(name, value)| (name, in_order(value))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_is_one_and_names_and_lists_keep_theirs() {
        let one = json!({"function": {"parameters": {"required": ["b", "a"], "properties": {"b": {}, "name": {"x": 1}, "a": {"type": "string", "x": 1, "enum": [2, 1]}}, "type": "object"}, "name": "f"}, "type": "function"});
        let other = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"b": {}, "name": {"x": 1}, "a": {"x": 1, "enum": [2, 1], "type": "string"}}, "required": ["b", "a"]}}});
        assert_ne!(one.to_string(), other.to_string());
        assert_eq!(in_order(one.clone()).to_string(), in_order(other).to_string());
        assert_eq!(
            in_order(one).to_string(),
            r#"{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"b":{},"name":{"x":1},"a":{"type":"string","enum":[2,1],"x":1}},"required":["b","a"]}}}"#
        );
    }
}
