//! Calls with Python's named arguments in llguidance's dialect of Lark, made from the schemas of their arguments.
//!
//! 1. Arguments come in the schema's order. Others than those declared come only where none is declared.
//! 2. Held of a schema: keys, which of them are needed, types, `enum`, `const`, `items`, `minItems`, `maxItems`, the keywords of
//!    strings and numbers, `anyOf`, `oneOf`, `$ref`.
//! 3. Strings stand in double quotes, with the escapes that Python and JSON share.

use serde_json::{Map, Value};

use super::{FormatError, literal};
use crate::prompt::tool_call::written::python;

/// Schemas within each other at most.
const DEPTH: usize = 16;

/// Rules that every tool's use.
pub fn common(text: &mut String) {
    text.push_str(
        r#"KEY: /[A-Za-z_][A-Za-z0-9_]{0,63}/
any: any_string | any_number | any_list | any_dict | "True" | "False" | "None"
any_string: %json {"type":"string"}
any_number: %json {"type":"number"}
any_list: "[" (any ("," /\x20?/ any)*)? "]"
any_dict: "{" (any_string ":" /\x20?/ any ("," /\x20?/ any_string ":" /\x20?/ any)*)? "}"
any_arguments: (KEY "=" any ("," /\x20?/ KEY "=" any)*)?
"#,
    );
}

/// Writes the rule `rule`: a call of the tool `name` with arguments of `schema`.
pub fn call(rule: &str, (name, schema): (&str, &Value), text: &mut String) -> Result<(), FormatError> {
    if name.is_empty() || name.trim() != name || name.contains(['(', ')', '[', ']', ',', '\n']) {
        return Err(FormatError(format!("the model's calls cannot name {name:?}")));
    }
    let mut writer = LiteralWriter { root: schema, prefix: rule, rules: 0, text };
    let arguments = match schema {
        Value::Null => "any_arguments".to_owned(),
        Value::Object(fields) => writer.pairs(fields, ["any_arguments", "="], DEPTH)?,
        other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
    };
    text.extend([rule, ": ", &literal(&format!("{name}(")), " ", &arguments, " \")\"\n"]);
    Ok(())
}

/// Writes the rules of one tool's call.
struct LiteralWriter<'a> {
    root: &'a Value,
    /// Begins the names of this tool's rules.
    prefix: &'a str,
    rules: usize,
    text: &'a mut String,
}

impl LiteralWriter<'_> {
    /// Writes a rule, returns its name.
    fn rule(&mut self, body: &str) -> String {
        self.rules += 1;
        let name = format!("{}_{}", self.prefix, self.rules);
        self.text.extend([&name, ": ", body, "\n"]);
        name
    }

    /// The rule of the arguments of a call, or of what is in a dictionary: `any` where nothing is declared; `sign` stands behind
    /// keys.
    fn pairs(
        &mut self,
        fields: &Map<String, Value>,
        [any, sign]: [&str; 2],
        depth: usize,
    ) -> Result<String, FormatError> {
        let declared = fields.get("properties").and_then(Value::as_object);
        let declared: Vec<(&String, &Value)> =
            declared.into_iter().flatten().filter(|(_, schema)| **schema != Value::Bool(false)).collect();
        let needed = fields.get("required").and_then(Value::as_array);
        let needed: Vec<&str> = needed.into_iter().flatten().filter_map(Value::as_str).collect();
        if declared.is_empty() && needed.is_empty() {
            let none = fields.get("additionalProperties") == Some(&Value::Bool(false));
            return Ok(if none { "\"\"".into() } else { any.into() });
        }
        let mut pairs = Vec::new();
        for (key, schema) in declared {
            pairs.push((self.pair(key, sign, schema, depth)?, needed.contains(&key.as_str())));
        }
        for key in needed.iter().filter(|key| {
            let known = fields.get("properties").and_then(|declared| declared.get(**key));
            known.is_none()
        }) {
            pairs.push((self.pair(key, sign, &Value::Bool(true), depth)?, true));
        }
        // What may come behind a pair, and where none has come.
        let (mut behind, mut first) = ("\"\"".to_owned(), "\"\"".to_owned());
        for (pair, needed) in pairs.iter().rev() {
            let begun = format!("{pair} {behind}");
            let [skipped, left_out] =
                [&behind, &first].map(|rest| if *needed { String::new() } else { format!(" | {rest}") });
            let more = self.rule(&format!("\",\" /\\x20?/ {begun}{skipped}"));
            first = self.rule(&format!("{begun}{left_out}"));
            behind = more;
        }
        Ok(first)
    }

    fn pair(&mut self, key: &str, sign: &str, schema: &Value, depth: usize) -> Result<String, FormatError> {
        let is_name = !key.is_empty() && key.chars().all(|c| c == '_' || c == '-' || c.is_alphanumeric());
        let head = match sign {
            "=" if is_name => literal(&format!("{key}=")),
            "=" => return Err(FormatError(format!("the model's calls cannot have the key {key:?}"))),
            _ => format!("{} /\\x20?/", literal(&format!("{}:", Value::from(key)))),
        };
        let value = self.value(schema, depth)?;
        Ok(self.rule(&format!("{head} {value}")))
    }

    /// The rule of a value.
    fn value(&mut self, schema: &Value, depth: usize) -> Result<String, FormatError> {
        let depth = depth.checked_sub(1).ok_or_else(|| {
            FormatError(format!("its schemas are within each other more than {DEPTH} times"))
        })?;
        let fields = match schema {
            Value::Bool(true) => return Ok("any".into()),
            Value::Object(fields) => fields,
            other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
        };
        if let Some(target) = fields.get("$ref") {
            let pointer = target.as_str().and_then(|target| target.strip_prefix('#'));
            let found = pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or_else(|| {
                FormatError(format!(
                    "$ref is {target}; expected a schema within the tool's, named by # and its path"
                ))
            })?;
            return self.value(found, depth);
        }
        let listed = fields.get("enum").and_then(Value::as_array).map(Vec::as_slice);
        if let Some(values) = listed.or_else(|| fields.get("const").map(std::slice::from_ref)) {
            let ways: Vec<String> = values.iter().map(|value| literal(&python(value))).collect();
            return Ok(self.rule(&ways.join(" | ")));
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            let schemas = fields.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            if !schemas.is_empty() && (key != "allOf" || schemas.len() == 1) {
                let ways: Vec<String> =
                    schemas.iter().map(|schema| self.value(schema, depth)).collect::<Result<_, _>>()?;
                return Ok(self.rule(&ways.join(" | ")));
            }
        }
        match fields.get("type") {
            Some(Value::String(kind)) => self.of_type(kind, fields, depth),
            Some(Value::Array(kinds)) if !kinds.is_empty() => {
                let kinds = kinds.iter().map(|kind| kind.as_str().unwrap_or_default());
                let ways: Vec<String> =
                    kinds.map(|kind| self.of_type(kind, fields, depth)).collect::<Result<_, _>>()?;
                Ok(self.rule(&ways.join(" | ")))
            }
            _ if fields.contains_key("properties") => self.of_type("object", fields, depth),
            _ if fields.contains_key("items") => self.of_type("array", fields, depth),
            _ => Ok("any".into()),
        }
    }

    fn of_type(
        &mut self,
        kind: &str,
        fields: &Map<String, Value>,
        depth: usize,
    ) -> Result<String, FormatError> {
        match kind {
            "string" | "number" | "integer" => {
                let mut schema = fields.clone();
                schema.insert("type".into(), kind.into());
                Ok(self.rule(&format!("%json {}", Value::Object(schema))))
            }
            "boolean" => Ok("(\"True\" | \"False\")".into()),
            "null" => Ok("\"None\"".into()),
            "array" => {
                let item = self.value(fields.get("items").unwrap_or(&Value::Bool(true)), depth)?;
                let count = |key: &str| fields.get(key).and_then(Value::as_u64);
                let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
                if most == Some(0) {
                    return Ok("\"[]\"".into());
                }
                let further = match most.map(|most| most - 1) {
                    Some(0) if least <= 1 => String::new(),
                    most => {
                        let most = most.map_or_else(String::new, |most| most.to_string());
                        format!("(\",\" /\\x20?/ {item}){{{},{most}}}", least.saturating_sub(1))
                    }
                };
                let items = format!("{item} {further}");
                let items = if least == 0 { format!("({items})?") } else { items };
                Ok(self.rule(&format!("\"[\" {items} \"]\"")))
            }
            "object" => {
                let pairs = self.pairs(fields, ["", ":"], depth)?;
                Ok(if pairs.is_empty() {
                    "any_dict".into()
                } else {
                    self.rule(&format!("\"{{\" {pairs} \"}}\""))
                })
            }
            other => Err(FormatError(format!("a type is {other:?}; expected one of JSON's"))),
        }
    }
}
