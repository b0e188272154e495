//! Calls whose arguments stand between marks in llguidance's dialect of Lark, made from the schemas of their arguments.
//!
//! 1. Each argument comes once at most, and those that are needed do. A few come in any order. Many come in the schema's order where
//!    a call is demanded; where the model chose to call, only those that are needed are counted, and ordered where they are many.
//! 2. Held of text: `enum`, `const`, `minLength`, `maxLength`. What is not text is JSON and held as that is.
//! 3. Other keys than those declared only where `additionalProperties` says so, none is declared, or the model chose to call.

use serde_json::{Map, Value};

use super::gemma::without;
use super::{FormatError, Spacing, Strictness, literal, with_options};
use crate::prompt::tool_call::tagged::Tags;

/// Arguments whose every order is let through: each set of them that has come makes a rule.
const FREE_ORDER: usize = 6;

/// Schemas within each other by `$ref` at most.
const DEPTH: usize = 16;

/// Rules that every tool's use: any text, any argument.
pub fn common(tags: &Tags, text: &mut String) {
    let [before, end] = around(tags);
    text.extend([
        "BODY: /",
        &without(tags.value_end),
        "/\nTEXT: ",
        &literal(&before),
        " BODY ",
        &literal(&end),
        "\n",
    ]);
    text.push_str("KEY: /[^\\x00-\\x20<>\"]{1,64}/\n");
}

/// What stands before and behind a value.
fn around(tags: &Tags) -> [String; 2] {
    let line = if tags.lines { "\n" } else { "" };
    [line.to_owned(), format!("{line}{}", tags.value_end)]
}

/// Where templates begin a new line. Those of forms in which nothing ends a name differ in that.
fn line(tags: &Tags) -> &'static str {
    if tags.name_end.is_some() { "\"\\n\"" } else { "blank?" }
}

/// Writes the rule `rule`: a call of the tool `name` with arguments of `schema`.
pub fn call(
    rule: &str,
    (name, schema): (&str, &Value),
    tags: &Tags,
    (spacing, strictness): (Spacing, Strictness),
    text: &mut String,
) -> Result<(), FormatError> {
    if name.is_empty() || name.contains(['\n', '<']) || tags.name_end.is_some_and(|mark| name.contains(mark))
    {
        return Err(FormatError(format!("the model's calls cannot name {name:?}")));
    }
    let fields = match schema {
        Value::Null => &Map::new(),
        Value::Object(fields) => fields,
        other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
    };
    let (closed, rules) = (spacing == Spacing::Templates, 0);
    let mut writer = ArgumentWriter { tags, root: schema, prefix: rule, spacing, strictness, rules, text };
    let first = writer.arguments(fields, closed)?;
    let head = literal(&format!("{}{name}{}", tags.call, tags.name_end.unwrap_or_default()));
    text.extend([rule, ": ", &head, " ", line(tags), " ", &first, "\n"]);
    Ok(())
}

/// Writes the rules of one tool's call.
struct ArgumentWriter<'a> {
    tags: &'a Tags,
    root: &'a Value,
    /// Begins the names of this tool's rules.
    prefix: &'a str,
    spacing: Spacing,
    strictness: Strictness,
    rules: usize,
    text: &'a mut String,
}

impl ArgumentWriter<'_> {
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

    /// The rule of all that may follow a call's name.
    fn arguments(&mut self, fields: &Map<String, Value>, closed: bool) -> Result<String, FormatError> {
        let declared = fields.get("properties").and_then(Value::as_object);
        let declared: Vec<(&String, &Value)> =
            declared.into_iter().flatten().filter(|(_, schema)| **schema != Value::Bool(false)).collect();
        let keys = fields.get("required").and_then(Value::as_array);
        let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        // Each with whether it is needed.
        let mut arguments = Vec::new();
        for (key, schema) in &declared {
            arguments.push((self.argument(key, schema)?, keys.contains(&key.as_str())));
        }
        for key in keys.iter().filter(|key| !declared.iter().any(|(known, _)| known == *key)) {
            arguments.push((self.argument(key, &Value::Bool(true))?, true));
        }
        let mut others = Vec::new();
        let further = match fields.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(schema),
            None if !closed || arguments.is_empty() => Some(&Value::Bool(true)),
            None => None,
        };
        if let Some(schema) = further {
            let names = declared.iter().map(|(key, _)| key.as_str()).chain(keys.iter().copied());
            let names: Vec<String> = names.map(literal).collect();
            let mut key = "KEY".to_owned();
            if !names.is_empty() {
                key = self.name().to_uppercase();
                self.text.extend([&key, ": KEY & ~(", &names.join(" | "), ")\n"]);
            }
            let value = self.value(schema, DEPTH)?;
            others.push(self.rule(&format!(
                "{} {key} {} {value} {}",
                literal(self.tags.key),
                self.behind_key(""),
                line(self.tags)
            )));
        }
        let many = arguments.len() > FREE_ORDER;
        if many && self.spacing == Spacing::Models {
            let (needed, free): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|(_, needed)| *needed);
            others.extend(free.into_iter().map(|(argument, _)| argument));
            arguments = needed;
        }
        let others = match others.as_slice() {
            [] => String::new(),
            some => format!("{}*", self.rule(&some.join(" | "))),
        };
        let end = self
            .rule(&format!("{others} {}", literal(if self.tags.shared_end { "" } else { self.tags.end })));
        if arguments.len() > FREE_ORDER {
            let in_order = arguments.iter().rev().fold(end, |rest, (argument, needed)| {
                let skipped = if *needed { String::new() } else { format!(" | {rest}") };
                self.rule(&format!("{others} {argument} {rest}{skipped}"))
            });
            return Ok(in_order);
        }
        // A rule for each set of those that have come: bit by bit, from all of them down to none.
        let count = 1_usize << arguments.len();
        let mut rests = vec![end.clone(); count];
        for come in (0..count - 1).rev() {
            let missing = || arguments.iter().enumerate().filter(|(at, _)| come >> at & 1 == 0);
            let next =
                missing().map(|(at, (argument, _))| format!("{others} {argument} {}", rests[come | 1 << at]));
            let mut next: Vec<String> = next.collect();
            if !missing().any(|(_, (_, needed))| *needed) {
                next.push(end.clone());
            }
            rests[come] = self.rule(&next.join(" | "));
        }
        Ok(rests.swap_remove(0))
    }

    /// The text `head`, the end of a key, and what begins its value.
    fn behind_key(&self, head: &str) -> String {
        let head = literal(&format!("{head}{}", self.tags.key_end));
        if self.tags.value.is_empty() { head } else { format!("{head} blank? {}", literal(self.tags.value)) }
    }

    /// The rule of one argument.
    fn argument(&mut self, key: &str, schema: &Value) -> Result<String, FormatError> {
        if key.is_empty() || key.contains(['>', '<', '\n']) || key.trim() != key {
            return Err(FormatError(format!("the model's calls cannot have the key {key:?}")));
        }
        let value = self.value(schema, DEPTH)?;
        let head = self.behind_key(&format!("{}{key}", self.tags.key));
        Ok(self.rule(&format!("{head} {value} {}", line(self.tags))))
    }

    /// What a value of this schema is written as, from the line break before it to the mark behind it.
    fn value(&mut self, schema: &Value, depth: usize) -> Result<String, FormatError> {
        let mut ways = Vec::new();
        self.ways(schema, depth, &mut ways)?;
        ways.dedup();
        // Any text is every other way, too.
        Ok(if ways.iter().any(|way| way == "TEXT") { "TEXT".into() } else { self.rule(&ways.join(" | ")) })
    }

    fn ways(&mut self, schema: &Value, depth: usize, ways: &mut Vec<String>) -> Result<(), FormatError> {
        let fields = match schema {
            Value::Bool(true) => {
                ways.push("TEXT".into());
                return Ok(());
            }
            Value::Object(fields) => fields,
            other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
        };
        if let Some(target) = fields.get("$ref") {
            let pointer = target.as_str().and_then(|target| target.strip_prefix('#'));
            let found = pointer.and_then(|pointer| self.root.pointer(pointer));
            let (Some(found), Some(depth)) = (found, depth.checked_sub(1)) else {
                return Err(FormatError(format!(
                    "$ref is {target}; expected a schema within the tool's, named by # and its path"
                )));
            };
            return self.ways(found, depth, ways);
        }
        let several = ["anyOf", "oneOf"].iter().find_map(|key| fields.get(*key)?.as_array());
        if let Some(schemas) = several.filter(|_| !fields.contains_key("properties")) {
            return schemas.iter().try_for_each(|schema| self.ways(schema, depth, ways));
        }
        if let Some([one]) = fields.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return self.ways(one, depth, ways);
        }
        let [before, end] = around(self.tags);
        let listed = fields.get("enum").and_then(Value::as_array).map(Vec::as_slice);
        let listed = listed.or_else(|| fields.get("const").map(std::slice::from_ref));
        if let Some(values) = listed {
            let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let texts = values.iter().map(written).filter(|text| !text.contains(self.tags.value_end));
            let texts: Vec<String> = texts.map(|text| literal(&format!("{before}{text}{end}"))).collect();
            if texts.is_empty() {
                let values = Value::from(values.to_vec());
                return Err(FormatError(format!("the model's calls can write none of the values {values}")));
            }
            ways.extend(texts);
            return Ok(());
        }
        match fields.get("type") {
            Some(Value::String(kind)) => self.of_type(kind, fields, ways),
            Some(Value::Array(kinds)) => kinds
                .iter()
                .try_for_each(|kind| self.of_type(kind.as_str().unwrap_or_default(), fields, ways)),
            _ if fields.contains_key("properties") => self.of_type("object", fields, ways),
            _ if fields.contains_key("items") => self.of_type("array", fields, ways),
            _ => {
                ways.push("TEXT".into());
                Ok(())
            }
        }
    }

    fn of_type(
        &mut self,
        kind: &str,
        fields: &Map<String, Value>,
        ways: &mut Vec<String>,
    ) -> Result<(), FormatError> {
        let [before, end] = around(self.tags).map(|mark| literal(&mark));
        if kind == "string" {
            let length = |key: &str| fields.get(key).and_then(Value::as_u64);
            let (least, most) = (length("minLength"), length("maxLength"));
            if least.is_none() && most.is_none() {
                ways.push("TEXT".into());
                return Ok(());
            }
            let name = self.name().to_uppercase();
            let (least, most) = (least.unwrap_or(0), most.map_or_else(String::new, |most| most.to_string()));
            let body = format!("(BODY & /(.|\\n){{{least},{most}}}/)");
            self.text.extend([&name, ": ", &before, " ", &body, " ", &end, "\n"]);
            ways.push(name);
            return Ok(());
        }
        let mut schema = Value::Object(fields.clone());
        schema["type"] = kind.into();
        // What it refers to is found from the tool's schema on.
        for key in ["$defs", "definitions"] {
            if let (Some(others), None) = (self.root.get(key), fields.get(key)) {
                schema[key] = others.clone();
            }
        }
        let schema = with_options(&schema, self.spacing.options(), self.strictness)?;
        let json = self.rule(&format!("%json {}", Value::Object(schema)));
        ways.push(format!("{before} {json} {end}"));
        Ok(())
    }
}
