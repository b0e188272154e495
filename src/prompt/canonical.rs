//! Tools in one order of keys: what a client's JSON library does with the order must not cost the cache a prefix.

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

/// The same value with the keys of every object in one order. Lists stay as they are.
pub fn in_order(value: Value) -> Value {
    match value {
        Value::Array(list) => list.into_iter().map(in_order).collect(),
        Value::Object(object) => {
            let mut entries: Vec<(String, Value)> = object.into_iter().collect();
            let place = |key: &str| KNOWN.iter().position(|known| *known == key).unwrap_or(KNOWN.len());
            entries.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
            entries.into_iter().map(|(key, value)| (key, in_order(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_is_that_of_nobody_and_lists_keep_theirs() {
        let one = json!({"function": {"parameters": {"required": ["b", "a"], "properties": {"b": {}, "a": {"type": "string", "x": 1, "enum": [2, 1]}}, "type": "object"}, "name": "f"}, "type": "function"});
        let other = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"x": 1, "enum": [2, 1], "type": "string"}, "b": {}}, "required": ["b", "a"]}}});
        assert_ne!(one.to_string(), other.to_string());
        assert_eq!(in_order(one.clone()).to_string(), in_order(other).to_string());
        assert_eq!(
            in_order(one).to_string(),
            r#"{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string","enum":[2,1],"x":1},"b":{}},"required":["b","a"]}}}"#
        );
    }
}
