//! Values as Python writes them, because chat templates were made and trained with Python: `json.dumps` and `str`.

use std::fmt::Write as _;
use std::io;

use minijinja::value::{Value, ValueKind};
use serde::Serialize;
use serde_json::ser::Formatter;

/// How `json.dumps` lays out its result.
pub struct JsonLayout {
    /// Spaces per level; `None` writes one line.
    pub indent: Option<usize>,
    /// Between items and between key and value; `None` is Python's default.
    pub separators: Option<(String, String)>,
    /// Order keys by name instead of as they came.
    pub sort_keys: bool,
    /// Escape what is not ASCII.
    pub ascii: bool,
}

/// `json.dumps(value, ...)`. Nothing is escaped for HTML.
pub fn dumps(value: &Value, layout: &JsonLayout) -> Result<String, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    if layout.sort_keys {
        value.sort_all_objects();
    }
    write(&value, layout)
}

/// A value on one line, as Python writes it.
pub fn to_python_json(value: &serde_json::Value) -> String {
    let line = JsonLayout { indent: None, separators: None, sort_keys: false, ascii: false };
    write(value, &line).unwrap_or_else(|_| value.to_string())
}

fn write(value: &serde_json::Value, layout: &JsonLayout) -> Result<String, serde_json::Error> {
    let (item, key) = layout.separators.clone().unwrap_or_else(|| {
        let item = if layout.indent.is_some() { "," } else { ", " };
        (item.to_owned(), ": ".to_owned())
    });
    let mut out = Vec::new();
    let python = Python { indent: layout.indent, ascii: layout.ascii, item, key, depth: 0, filled: false };
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, python))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

struct Python {
    indent: Option<usize>,
    ascii: bool,
    item: String,
    key: String,
    depth: usize,
    /// The innermost container that was closed or written to is not empty.
    filled: bool,
}

impl Python {
    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(&[bracket])
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(writer)?;
        }
        self.filled = true;
        writer.write_all(&[bracket])
    }

    fn next<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.line(writer)
    }

    fn line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        writer.write_all(" ".repeat(indent * self.depth).as_bytes())
    }
}

impl Formatter for Python {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'[')
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b']')
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'{')
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b'}')
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
}

/// `repr` of a float: an exponent below 1e-4 and from 1e16 on, of two digits at least.
fn float(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) || !value.is_finite() {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `str(value)` of what `{{ ... }}` prints, for everything that is not text or a whole number.
pub fn python_str(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => None,
        ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Seq | ValueKind::Map => {
            let mut out = String::new();
            repr(value, &mut out);
            Some(out)
        }
        _ => None,
    }
}

fn repr(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => drop(write!(out, "{value}")),
        },
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            out.push('[');
            for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(&item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(&key, out);
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        // Writing to a String cannot fail.
        _ => drop(write!(out, "{value}")),
    }
}

/// Single quotes, unless only double ones avoid an escape.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Serde;
    use serde_json::json;

    fn dump(value: serde_json::Value, indent: Option<usize>, sort_keys: bool) -> String {
        dumps(&Value::from(Serde(value)), &JsonLayout { indent, separators: None, sort_keys, ascii: false })
            .unwrap()
    }

    // The expected texts were printed by CPython 3.11.
    #[test]
    fn json_is_spaced_as_python_spaces_it() {
        let value = json!({"b": [1, 2.0, null, true], "a": {}, "c": [], "t": "<é\"\n&'>\u{7}"});
        let line = r#"{"b": [1, 2.0, null, true], "a": {}, "c": [], "t": "<é\"\n&'>\u0007"}"#;
        assert_eq!(dump(value.clone(), None, false), line);
        let lines = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    2.0,\n    null,\n    true\n  ],\n  \"c\": [],\n  \"t\": \"<é\\\"\\n&'>\\u0007\"\n}";
        assert_eq!(dump(value, Some(2), true), lines);
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let expected = [
            (1e16, "1e+16"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (123_456.75, "123456.75"),
            (-2.0, "-2.0"),
            (1e-10, "1e-10"),
        ];
        for (value, text) in expected {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn printed_values_look_like_python() {
        let value = Value::from(Serde(json!({"a": [true, null, "it's", "x\n"], "n": 1})));
        assert_eq!(python_str(&value).unwrap(), r#"{'a': [True, None, "it's", 'x\n'], 'n': 1}"#);
        assert_eq!(python_str(&Value::from("text")), None);
    }
}
