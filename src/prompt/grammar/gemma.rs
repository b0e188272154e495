//! Gemma's calls in llguidance's dialect of Lark, made from the schemas of their arguments.
//!
//! 1. Held of a schema: keys, which of them are needed, types, `enum`, `const`, `items`, `prefixItems`, `minItems`,
//!    `maxItems`, `minLength`, `maxLength`, the bounds of numbers, `anyOf`, `oneOf`, `$ref`. Not held: `pattern`, `format`,
//!    `allOf` of several, `not`, `if`, `patternProperties` and counts of properties.
//! 2. Keys come in the order in which Gemma's templates show them: by name, without regard to case.
//! 3. Other keys than those declared only where `additionalProperties` says so, none is declared, or the model chose to call.
//!
//! White space stands between the parts only where the model chose to call, as for calls in JSON.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{FormatError, Spacing, literal};
use crate::prompt::tool_call::gemma::CALL;
use crate::prompt::tool_call::written;

/// Keywords of numbers, which are written as in JSON.
const NUMBER: [&str; 6] =
    ["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];

const TYPES: [&str; 7] = ["object", "array", "string", "number", "integer", "boolean", "null"];

/// Writes the rules of one tool's call.
struct CallWriter<'a> {
    /// Around strings.
    quote: &'static str,
    /// Between the parts.
    blank: String,
    /// Objects whose schema is silent about further keys have none.
    closed: bool,
    root: &'a Value,
    /// Begins the names of this tool's rules.
    prefix: &'a str,
    rules: usize,
    /// Rules of what `$ref` names; `None` while it is only known to be another `$ref`.
    refs: HashMap<String, Option<String>>,
    text: &'a mut String,
}

/// Rules that every tool's use: any string, any value.
pub fn common(mark: &'static str, spacing: Spacing, text: &mut String) {
    let (quote, b) = (literal(mark), &spacing.blank(""));
    text.extend(["BODY: /", &without(mark), "/\nQUOTED: ", &quote, " BODY ", &quote, "\n"]);
    text.push_str("KEY: /[^\\x00-\\x20:,{}\\[\\]<\"]{1,64}/\n");
    text.push_str("any: QUOTED | any_object | any_array | any_number | \"true\" | \"false\" | \"null\"\n");
    text.push_str("any_number: %json {\"type\":\"number\"}\n");
    text.extend(["any_pair: KEY \":\" ", b, " any\n"]);
    for (name, item, [open, close]) in
        [("any_object", "any_pair", ["\"{\"", "\"}\""]), ("any_array", "any", ["\"[\"", "\"]\""])]
    {
        let items = format!("({item} ({b} \",\" {b} {item})*)?");
        text.extend([name, ": ", open, " ", b, " ", &items, " ", b, " ", close, "\n"]);
    }
}

/// Writes the rule `rule`: a call of the tool `name` with arguments of `schema`.
pub fn call(
    rule: &str,
    (name, schema): (&str, &Value),
    quote: &'static str,
    spacing: Spacing,
    text: &mut String,
) -> Result<(), FormatError> {
    if name.is_empty() || name.contains(['{', '\n']) {
        return Err(FormatError(format!("the model's calls cannot name {name:?}")));
    }
    let (prefix, refs) = (rule, HashMap::new());
    let closed = spacing == Spacing::Templates;
    let mut writer =
        CallWriter { quote, blank: spacing.blank(""), closed, root: schema, prefix, rules: 0, refs, text };
    let arguments = match schema {
        Value::Null => "any_object".to_owned(),
        Value::Object(fields) if fields.is_empty() => "any_object".to_owned(),
        Value::Object(_) => writer.value(schema)?,
        other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
    };
    text.extend([rule, ": ", &literal(&format!("{CALL}{name}")), " ", &arguments, "\n"]);
    Ok(())
}

/// A regular expression of all texts without `mark`, whose first character, `<`, is nowhere else in it. Spelled out rather than
/// as a complement, which leaves it open whether a text may go on behind its mark.
pub fn without(mark: &str) -> String {
    let mut expression = "[^<]*(<(".to_owned();
    let mut before = String::new();
    for c in mark.chars().skip(1) {
        // What begins like the mark and ends there, or goes on otherwise.
        expression.extend([before.as_str(), "|", &before, "[^<", &escaped(c), "][^<]*|"]);
        before.push_str(&escaped(c));
    }
    expression.truncate(expression.len() - 1);
    expression + "))*"
}

/// A character of a mark in a regular expression.
fn escaped(c: char) -> String {
    if ['|', '"', '/'].contains(&c) { format!("\\{c}") } else { c.into() }
}

impl CallWriter<'_> {
    /// The name of the next rule.
    fn name(&mut self) -> String {
        self.rules += 1;
        format!("{}_{}", self.prefix, self.rules)
    }

    /// Writes a rule, returns its name.
    fn rule(&mut self, body: &str) -> String {
        let name = self.name();
        self.text.extend([&name, ": ", body, "\n"]);
        name
    }

    /// What a value of this schema is written as: a rule or a terminal.
    fn value(&mut self, schema: &Value) -> Result<String, FormatError> {
        let fields = match schema {
            Value::Bool(true) => return Ok("any".into()),
            Value::Object(fields) => fields,
            other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
        };
        if let Some(target) = fields.get("$ref") {
            return self.referred(target);
        }
        if let Some(one) = fields.get("const") {
            return self.one_of(std::slice::from_ref(one));
        }
        if let Some(values) = fields.get("enum").and_then(Value::as_array) {
            return self.one_of(values);
        }
        let several = ["anyOf", "oneOf"].iter().find_map(|key| fields.get(*key)?.as_array());
        if let Some(schemas) = several.filter(|_| !fields.contains_key("properties")) {
            let values = schemas.iter().map(|schema| self.value(schema)).collect::<Result<Vec<_>, _>>()?;
            return Ok(self.rule(&values.join(" | ")));
        }
        if let Some([one]) = fields.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return self.value(one);
        }
        match fields.get("type") {
            Some(Value::String(kind)) => self.of_type(kind, fields),
            Some(Value::Array(kinds)) => {
                let kinds = kinds.iter().map(|kind| self.of_type(kind.as_str().unwrap_or_default(), fields));
                let values = kinds.collect::<Result<Vec<_>, _>>()?;
                Ok(self.rule(&values.join(" | ")))
            }
            _ if fields.contains_key("properties") => self.object(fields),
            _ if fields.contains_key("items") => self.array(fields),
            _ => Ok("any".into()),
        }
    }

    fn of_type(&mut self, kind: &str, fields: &Map<String, Value>) -> Result<String, FormatError> {
        match kind {
            "object" => self.object(fields),
            "array" => self.array(fields),
            "string" => Ok(self.string(fields)),
            "number" | "integer" => {
                let mut number: Map<String, Value> =
                    fields.iter().filter(|(key, _)| NUMBER.contains(&key.as_str())).map(owned).collect();
                number.insert("type".into(), kind.into());
                Ok(self.rule(&format!("%json {}", Value::Object(number))))
            }
            "boolean" => Ok(self.rule("\"true\" | \"false\"")),
            "null" => Ok(self.rule("\"null\"")),
            other => {
                Err(FormatError(format!("a schema has type {other:?}; expected one of {}", TYPES.join(", "))))
            }
        }
    }

    fn string(&mut self, fields: &Map<String, Value>) -> String {
        let length = |key: &str| fields.get(key).and_then(Value::as_u64);
        let (least, most) = (length("minLength"), length("maxLength"));
        if least.is_none() && most.is_none() {
            return "QUOTED".into();
        }
        let name = self.name().to_uppercase();
        let (least, most) = (least.unwrap_or(0), most.map_or_else(String::new, |most| most.to_string()));
        let quote = literal(self.quote);
        let body = format!("(BODY & /(.|\\n){{{least},{most}}}/)");
        self.text.extend([&name, ": ", &quote, " ", &body, " ", &quote, "\n"]);
        name
    }

    fn array(&mut self, fields: &Map<String, Value>) -> Result<String, FormatError> {
        let b = &self.blank.clone();
        let count = |key: &str| fields.get(key).and_then(Value::as_u64);
        let (least, most) = (count("minItems").unwrap_or(0), count("maxItems"));
        let first = fields.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let first = first.iter().map(|schema| self.value(schema)).collect::<Result<Vec<_>, _>>()?;
        let item = match fields.get("items") {
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(self.value(schema)?),
            None => Some("any".to_owned()),
        };
        let known = first.len() as u64;
        let most = if item.is_none() { Some(known.min(most.unwrap_or(known))) } else { most };
        if most.is_some_and(|most| most < least.max(known)) {
            return Err(FormatError(format!(
                "an array has maxItems {}; expected at least {}",
                most.unwrap_or_default(),
                least.max(known)
            )));
        }
        let mut parts = first;
        let mut may_be_empty = least == 0 && parts.is_empty();
        if let Some(item) = item {
            if parts.is_empty() && most != Some(0) {
                parts.push(item.clone());
            }
            // Those still to come, each with its comma.
            let placed = parts.len() as u64;
            let (least, most) = (least.saturating_sub(placed), most.map(|most| most.saturating_sub(placed)));
            if most != Some(0) {
                let most = most.map_or_else(String::new, |most| most.to_string());
                parts.push(format!("({b} \",\" {b} {item}){{{least},{most}}}"));
            }
        }
        may_be_empty |= parts.is_empty();
        let mut items = String::new();
        for (at, part) in parts.iter().enumerate() {
            let comma =
                if at == 0 || part.starts_with('(') { String::new() } else { format!("{b} \",\" {b} ") };
            items.extend([" ", &comma, part]);
        }
        let items = if may_be_empty { format!("({items} | \"\")") } else { items };
        Ok(self.rule(&format!("\"[\" {b} {items} {b} \"]\"")))
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Result<String, FormatError> {
        let b = &self.blank.clone();
        let anything = Value::Bool(true);
        let declared = fields.get("properties").and_then(Value::as_object);
        let mut pairs: Vec<(&str, &Value)> =
            declared.into_iter().flatten().map(|(key, schema)| (key.as_str(), schema)).collect();
        pairs.retain(|(_, schema)| **schema != Value::Bool(false));
        let needed: Vec<&str> = fields
            .get("required")
            .and_then(Value::as_array)
            .map_or_else(Vec::new, |keys| keys.iter().filter_map(Value::as_str).collect());
        for key in &needed {
            if !pairs.iter().any(|(declared, _)| declared == key) {
                pairs.push((key, &anything));
            }
        }
        pairs.sort_by_key(|(key, _)| key.to_lowercase());
        let extra = match fields.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(self.value(schema)?),
            None if pairs.is_empty() || !self.closed => Some("any".to_owned()),
            None => None,
        };
        let extra = extra.map(|value| self.extra_pair(&pairs, &value));
        // Each rule writes the pairs from one on, where others came before.
        let mut rest = match &extra {
            Some(pair) => self.rule(&format!("({b} \",\" {b} {pair})*")),
            None => "\"\"".to_owned(),
        };
        // Where none came before: the first is one that only optional pairs precede.
        let mut beginnings = vec!["\"\"".to_owned()];
        beginnings.extend(extra.map(|pair| format!("{pair} {rest}")));
        for (key, schema) in pairs.into_iter().rev() {
            let value = self.value(schema)?;
            let pair = self.rule(&format!("{} {b} {value}", literal(&self.key(key)?)));
            let beginning = format!("{pair} {rest}");
            if needed.contains(&key) {
                beginnings = vec![beginning];
                rest = self.rule(&format!("{b} \",\" {b} {pair} {rest}"));
            } else {
                beginnings.push(beginning);
                rest = self.rule(&format!("({b} \",\" {b} {pair})? {rest}"));
            }
        }
        Ok(self.rule(&format!("\"{{\" {b} ({}) {b} \"}}\"", beginnings.join(" | "))))
    }

    /// A pair whose key is none of those declared.
    fn extra_pair(&mut self, declared: &[(&str, &Value)], value: &str) -> String {
        let mut key = "KEY".to_owned();
        if !declared.is_empty() {
            let keys: Vec<String> = declared.iter().map(|(key, _)| literal(key)).collect();
            key = self.name().to_uppercase();
            self.text.extend([&key, ": KEY & ~(", &keys.join(" | "), ")\n"]);
        }
        let b = &self.blank.clone();
        self.rule(&format!("{key} \":\" {b} {value}"))
    }

    /// A key with its colon, in quotes where it cannot stand bare.
    fn key(&self, key: &str) -> Result<String, FormatError> {
        written::gemma_key(key, self.quote)
            .map(|key| format!("{key}:"))
            .ok_or_else(|| FormatError(format!("the model's calls cannot have the key {key:?}")))
    }

    /// What `$ref` names; itself again where schemas are within themselves.
    fn referred(&mut self, target: &Value) -> Result<String, FormatError> {
        let wrong = |what: &str| {
            FormatError(format!("$ref is {target}; expected a schema within the tool's, {what}"))
        };
        let pointer = target.as_str().and_then(|target| target.strip_prefix('#'));
        let pointer = pointer.ok_or_else(|| wrong("named by # and its path"))?;
        match self.refs.get(pointer) {
            Some(Some(rule)) => return Ok(rule.clone()),
            Some(None) => return Err(wrong("not itself")),
            None => {}
        }
        let root = self.root;
        let schema = root.pointer(pointer).ok_or_else(|| wrong("and there is nothing at that path"))?;
        if schema.get("$ref").is_some() {
            self.refs.insert(pointer.to_owned(), None);
            let rule = self.value(schema)?;
            self.refs.insert(pointer.to_owned(), Some(rule.clone()));
            return Ok(rule);
        }
        let rule = self.name();
        self.refs.insert(pointer.to_owned(), Some(rule.clone()));
        let value = self.value(schema)?;
        self.text.extend([&rule, ": ", &value, "\n"]);
        Ok(rule)
    }

    fn one_of(&mut self, values: &[Value]) -> Result<String, FormatError> {
        let written: Vec<String> = values
            .iter()
            .filter_map(|value| written::gemma(value, self.quote))
            .map(|text| literal(&text))
            .collect();
        if written.is_empty() {
            let values = Value::from(values.to_vec());
            return Err(FormatError(format!("the model's calls can write none of the values {values}")));
        }
        Ok(self.rule(&written.join(" | ")))
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}
