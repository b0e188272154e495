//! What an argument may be, as the tool's schema says: it tells text from JSON where calls write both alike.

use serde_json::Value;
use serde_json::value::RawValue;

use super::compact;

/// A schema refers to others within each other at most so often.
const DEPTH: usize = 16;

/// Types of JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "a set of JSON's types")]
pub struct Kinds {
    text: bool,
    number: bool,
    boolean: bool,
    null: bool,
    object: bool,
    array: bool,
}

impl Kinds {
    /// What the tool's schema says of an argument.
    pub fn of_argument(schema: &Value, key: &str) -> Self {
        let declared = schema.get("properties").and_then(|declared| declared.get(key));
        let mut kinds = Self::default();
        if let Some(own) = declared.or_else(|| schema.get("additionalProperties")) {
            kinds.add(own, schema, DEPTH);
        }
        if kinds == Self::default() { Self { text: true, object: true, array: true, ..kinds } } else { kinds }
    }

    /// Text and nothing else.
    pub fn are_text(self) -> bool {
        self == Self { text: true, ..Self::default() }
    }

    fn add(&mut self, schema: &Value, root: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        if let Some(target) = pointer.and_then(|pointer| root.pointer(pointer)) {
            return self.add(target, root, depth);
        }
        if let Some(one) = schema.get("const") {
            return self.add_value(one);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().for_each(|value| self.add_value(value));
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            let schemas = schema.get(key).and_then(Value::as_array);
            schemas.into_iter().flatten().for_each(|schema| self.add(schema, root, depth));
        }
        match schema.get("type") {
            Some(Value::String(kind)) => self.add_kind(kind),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).for_each(|kind| self.add_kind(kind));
            }
            _ => {
                self.object |= schema.get("properties").is_some();
                self.array |= schema.get("items").is_some();
            }
        }
    }

    fn add_kind(&mut self, kind: &str) {
        match kind {
            "string" => self.text = true,
            "number" | "integer" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "object" => self.object = true,
            "array" => self.array = true,
            _ => {}
        }
    }

    fn add_value(&mut self, value: &Value) {
        self.add_kind(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
    }

    /// A value as JSON: text where it is nothing else that it may be. Names of JSON's may be written as Python does.
    pub fn read(self, value: &str) -> String {
        let word = value.trim();
        let flag = ["true", "false"].into_iter().find(|flag| word.eq_ignore_ascii_case(flag));
        if let Some(flag) = flag.filter(|_| self.boolean) {
            return flag.to_owned();
        }
        if self.null && (word == "null" || word == "None") {
            return "null".to_owned();
        }
        let may_be = match word.as_bytes().first() {
            Some(b'{') => self.object,
            Some(b'[') => self.array,
            Some(b'-' | b'0'..=b'9') => self.number,
            _ => false,
        };
        if may_be && serde_json::from_str::<&RawValue>(word).is_ok() {
            return compact(word);
        }
        Value::from(value).to_string()
    }
}
