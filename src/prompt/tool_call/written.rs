//! Calls as models write them, for conversations whose template does not show them and for people who read of a syntax.

use serde_json::{Map, Value};

use super::body::CallBody;
use super::gemma::{CALL, STRUCTURE};
use super::syntax::{Marks, ToolSyntax};
use super::tagged::Tags;
use crate::prompt::json::to_python_json;

/// Calls, names and arguments, with their marks.
pub fn written(syntax: ToolSyntax, calls: &[(&str, Value)]) -> String {
    let Marks { open, body, close, between, list } = syntax.marks();
    let calls = calls.iter().enumerate().map(|(at, (name, arguments))| one(body, name, arguments, at));
    let calls: Vec<String> = match list {
        Some(_) => calls.collect(),
        None => calls.map(|call| format!("{open}{call}{close}")).collect(),
    };
    let calls = calls.join(between);
    list.map_or_else(|| calls.clone(), |begin| format!("{open}{begin}{calls}{close}"))
}

/// The call number `at`, without the marks around it.
fn one(body: CallBody, name: &str, arguments: &Value, at: usize) -> String {
    let none = Map::new();
    let fields = arguments.as_object().unwrap_or(&none);
    let json = to_python_json(arguments);
    match body {
        CallBody::Json { arguments: key } => {
            format!("{{\"name\": {}, \"{key}\": {json}}}", Value::from(name))
        }
        CallBody::JsonList => one(CallBody::Json { arguments: "arguments" }, name, arguments, at),
        CallBody::Gemma { quote } => format!("{CALL}{name}{}", gemma(arguments, quote).unwrap_or(json)),
        CallBody::Python => {
            let pairs: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}={}", python(value))).collect();
            format!("{name}({})", pairs.join(", "))
        }
        CallBody::Tagged(tags) => tagged(tags, name, fields),
        CallBody::Named(named) => {
            let number = if named.numbered { format!(":{at}") } else { String::new() };
            format!("{}{name}{number}{}{json}{}", named.before, named.behind, named.after)
        }
    }
}

fn tagged(tags: &Tags, name: &str, fields: &Map<String, Value>) -> String {
    let line = if tags.lines { "\n" } else { "" };
    let mut text = format!("{}{name}{}\n", tags.call, tags.name_end.unwrap_or_default());
    for (key, value) in fields {
        let value = value.as_str().map_or_else(|| to_python_json(value), str::to_owned);
        let apart = if tags.value.is_empty() { "" } else { "\n" };
        text.extend([
            tags.key,
            key,
            tags.key_end,
            apart,
            tags.value,
            line,
            &value,
            line,
            tags.value_end,
            "\n",
        ]);
    }
    text + if tags.shared_end { "" } else { tags.end }
}

/// A value as Python writes it, strings as in JSON.
pub fn python(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(python).collect())),
        Value::Object(fields) => {
            let pairs =
                fields.iter().map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), python(value)));
            format!("{{{}}}", list(pairs.collect()))
        }
        other => other.to_string(),
    }
}

/// A value as Gemma's templates write it; `None` when the syntax has no way to.
pub fn gemma(value: &Value, quote: &str) -> Option<String> {
    Some(match value {
        Value::String(text) => quoted(text, quote)?,
        Value::Array(items) => {
            let items = items.iter().map(|item| gemma(item, quote)).collect::<Option<Vec<_>>>()?;
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.to_lowercase());
            let pair = |(key, value): (&String, &Value)| {
                Some(format!("{}:{}", gemma_key(key, quote)?, gemma(value, quote)?))
            };
            format!("{{{}}}", fields.into_iter().map(pair).collect::<Option<Vec<_>>>()?.join(","))
        }
        plain => plain.to_string(),
    })
}

/// A key in Gemma's way, in quote marks where it cannot stand bare.
pub fn gemma_key(key: &str, quote: &str) -> Option<String> {
    let bare = !key.is_empty() && key.trim() == key && !key.contains(STRUCTURE) && !key.starts_with('"');
    if bare && !key.contains(quote) { Some(key.to_owned()) } else { quoted(key, quote) }
}

fn quoted(text: &str, quote: &str) -> Option<String> {
    (!text.contains(quote)).then(|| format!("{quote}{text}{quote}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::prompt::testing::read_all;
    use crate::prompt::tool_call::Held;

    #[test]
    fn what_is_written_in_any_syntax_is_read_back() {
        let put = json!({"a": 5, "b": "5", "c": [true, null, {"d": 1.5}], "e": "it's \"x\"\n<y>"});
        let schema = json!({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {"type": "array"}, "e": {"type": "string"}}});
        let tools = [("put".to_owned(), schema), ("now".to_owned(), Value::Null)];
        for syntax in ToolSyntax::ALL {
            let mut calls = vec![("put", put.clone()), ("now", json!({}))];
            calls.truncate(if syntax.stops_behind_a_call() { 1 } else { 2 });
            let text = written(syntax, &calls);
            let (shown, found) = read_all(&mut *syntax.reader(&tools, Held::ToNothing), [text.as_str()]);
            let found: Vec<(&str, Value)> = found
                .iter()
                .map(|(name, arguments)| (name.as_str(), serde_json::from_str(arguments).unwrap()))
                .collect();
            assert_eq!((shown.as_str(), found), ("", calls), "{}: {text}", syntax.name());
        }
    }
}
