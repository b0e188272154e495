//! What templates take from Python and Jinja and this engine has not, or otherwise: methods of strings and lists, tests, filters.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use crate::prompt::json::{JsonLayout, dumps, python_str};

/// Characters that a text may be filled up to.
const WIDEST: usize = 65_536;

/// Adds all of it.
pub fn add(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", text);
    environment.add_filter("join", join);
    for name in ["length", "count"] {
        environment.add_filter(name, length);
    }
    environment.add_test("iterable", |value: &Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
}

fn text(value: &Value) -> String {
    python_str(value).unwrap_or_else(|| value.to_string())
}

// By value: that is how a filter takes its named arguments.
#[allow(clippy::needless_pass_by_value)]
fn join(items: &Value, between: Option<String>, named: Kwargs) -> Result<String, Error> {
    let attribute: Option<String> = named.get("attribute")?;
    let between = match between {
        Some(between) => between,
        None => named.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    named.assert_all_used()?;
    let mut parts = Vec::new();
    for item in items.try_iter()? {
        let item = match &attribute {
            Some(path) => path.split('.').try_fold(item, |item, key| item.get_attr(key))?,
            None => item,
        };
        parts.push(text(&item));
    }
    Ok(parts.join(&between))
}

/// What is undefined is as long as what is empty.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value
        .len()
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{} has no length", value.kind())))
}

// By value: that is how a filter takes its named arguments.
#[allow(clippy::needless_pass_by_value)]
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let separators =
        separators.and_then(|pair| <[String; 2]>::try_from(pair).ok()).map(|[item, key]| (item, key));
    let layout = JsonLayout {
        indent,
        separators,
        sort_keys: sort_keys.unwrap_or(false),
        ascii: ascii.unwrap_or(false),
    };
    dumps(value, &layout).map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))
}

/// A method that the engine does not know.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq if name == "index" => {
            let (wanted,): (Value,) = from_args(args)?;
            let found = value.try_iter()?.position(|item| item == wanted);
            Some(Value::from(found.ok_or_else(|| missing(&wanted))?))
        }
        ValueKind::Seq | ValueKind::Map if name == "copy" => Some(value.clone()),
        _ => None,
    };
    match known {
        Some(value) => Ok(value),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn missing(wanted: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{wanted} is not in what is looked through"))
}

fn of_text(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let one = || -> Result<String, Error> { from_args(args).map(|(argument,): (String,)| argument) };
    Ok(Some(match name {
        "removeprefix" => Value::from(text.strip_prefix(&*one()?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(&*one()?).unwrap_or(text)),
        "partition" | "rpartition" => {
            let mark = &*one()?;
            let parts = if name == "partition" { text.split_once(mark) } else { text.rsplit_once(mark) };
            let parts = match parts {
                Some((before, behind)) => [before, mark, behind],
                None if name == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            parts.into_iter().map(Value::from).collect()
        }
        "index" => {
            let mark = one()?;
            let at = text.find(&mark).ok_or_else(|| missing(&Value::from(mark)))?;
            Value::from(text[..at].chars().count())
        }
        "split" | "rsplit" => {
            let (given, named): (Rest<Value>, Kwargs) = from_args(args)?;
            let mark: Option<String> =
                given.first().filter(|mark| !mark.is_none()).map(ToString::to_string).or(named.get("sep")?);
            let most: Option<i64> = match given.get(1) {
                Some(most) => Some(i64::try_from(most.clone())?),
                None => named.get("maxsplit")?,
            };
            named.assert_all_used()?;
            split(text, mark.as_deref(), most, name == "rsplit").into_iter().map(Value::from).collect()
        }
        "zfill" | "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            if width > WIDEST {
                let text = format!("{name} to {width} characters; expected at most {WIDEST}");
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
            let fill = fill.unwrap_or(if name == "zfill" { "0" } else { " " });
            let fill = fill.repeat(width.saturating_sub(text.chars().count()));
            Value::from(if name == "ljust" { format!("{text}{fill}") } else { format!("{fill}{text}") })
        }
        _ => return Ok(None),
    }))
}

/// `text` cut at `mark`, or at runs of white space, `most` times at most, from the right where that is `last`.
fn split<'a>(text: &'a str, mark: Option<&str>, most: Option<i64>, last: bool) -> Vec<&'a str> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match (mark, last) {
        (Some(mark), false) => text.splitn(most + 1, mark).collect(),
        (Some(mark), true) => text.rsplitn(most + 1, mark).collect(),
        (None, _) => {
            let next = |rest: &'a str| if last { rest.trim_end() } else { rest.trim_start() };
            let (mut parts, mut rest) = (Vec::new(), next(text));
            while !rest.is_empty() {
                let cut = if last { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
                let Some(at) = cut.filter(|_| parts.len() < most) else {
                    parts.push(rest);
                    break;
                };
                let (part, more) = if last { (&rest[at..], &rest[..at]) } else { rest.split_at(at) };
                parts.push(part.trim());
                rest = next(more);
            }
            parts
        }
    };
    if last {
        parts.reverse();
    }
    parts
}
