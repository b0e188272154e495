//! `[f(a=1, b="x"), g()]`: a list of Python's calls with named arguments, as LFM2 writes it.
//!
//! Strings have Python's escapes, in either kind of quotes. Tuples are lists.

use serde_json::Value;
use serde_json::value::RawValue;

use super::ToolCall;
use super::marked::Unread;

/// Before the list.
pub const OPEN: &str = "<|tool_call_start|>";
/// Behind it, with its bracket.
pub const CLOSE: &str = "]<|tool_call_end|>";

/// Tokens that calls are written with.
pub const MARKUP: [&str; 2] = [OPEN, "<|tool_call_end|>"];

/// Values within each other at most, as in JSON's reader.
const DEPTH: usize = 128;

/// Before the list of tools, in templates that show no call.
const TOOLS: [&str; 2] = ["<|tool_list_start|>", "List of tools: ["];

/// A template shows calls of this form, or the list of tools whose calls have it.
pub fn is_shown(source: &str) -> bool {
    source.contains(OPEN) || TOOLS.iter().any(|tools| source.contains(tools))
}

/// Reads a list whose last bracket may be missing.
pub fn read(body: &str) -> Result<Vec<ToolCall>, Unread> {
    let mut rest = body.trim().strip_prefix('[').ok_or(Unread::Wrong)?;
    let mut calls = Vec::new();
    loop {
        let (name, at) = head(rest).ok_or(if rest.contains('(') { Unread::Wrong } else { Unread::Open })?;
        let mut values = Values { rest: &rest[at..], json: String::new() };
        values.arguments()?;
        calls.push(ToolCall { name, arguments: values.json });
        rest = values.rest.trim_start();
        if rest.is_empty() || rest == "]" {
            return Ok(calls);
        }
        if !rest.starts_with(',') {
            return Err(Unread::Wrong);
        }
    }
}

/// The name of a call and where its arguments begin, as soon as that is known. What stands before it in the list may be there.
pub fn head(body: &str) -> Option<(String, usize)> {
    let rest = body.trim_start();
    let rest = rest.strip_prefix(['[', ',']).unwrap_or(rest);
    let end = rest.find('(')?;
    let name = rest[..end].trim();
    let fine = !name.is_empty() && !name.contains(['\n', ')', ']', ',']);
    fine.then(|| (name.to_owned(), body.len() - rest.len() + end + 1))
}

/// Arguments on their way to JSON, from the start each time: a value's end shows in what follows it.
#[derive(Debug, Default)]
pub struct Scan {
    written: String,
    /// Bytes of JSON told so far.
    told: usize,
    done: bool,
}

impl Scan {
    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    pub fn push(&mut self, text: &mut String) -> String {
        if self.done {
            return String::new();
        }
        self.written.push_str(&std::mem::take(text));
        let mut values = Values { rest: &self.written, json: String::new() };
        self.done = values.arguments().is_ok();
        let (rest, json) = (values.rest.len(), values.json);
        if self.done {
            *text = self.written.split_off(self.written.len() - rest);
        }
        let more = json[self.told..].to_owned();
        self.told = json.len();
        more
    }

    /// They are whole.
    pub fn done(&self) -> bool {
        self.done
    }
}

/// Values on their way to JSON. What is written of it stands, whatever follows.
struct Values<'a> {
    rest: &'a str,
    json: String,
}

impl Values<'_> {
    /// Arguments up to the closing bracket; the opening one is behind.
    fn arguments(&mut self) -> Result<(), Unread> {
        self.list(['{', '}'], ')', |values| {
            let end = values.rest.find('=').ok_or(Unread::Open)?;
            let (key, rest) = (values.rest[..end].trim(), &values.rest[end + 1..]);
            let inner = |c: char| c == '_' || c == '-' || c.is_alphanumeric();
            if key.is_empty() || !key.chars().all(inner) {
                return Err(Unread::Wrong);
            }
            values.json.push_str(&Value::from(key).to_string());
            values.json.push(':');
            values.rest = rest;
            values.value(DEPTH)
        })
    }

    /// Items up to `end`, with commas between; one may be behind the last.
    fn list(
        &mut self,
        [open, close]: [char; 2],
        end: char,
        item: impl Fn(&mut Self) -> Result<(), Unread>,
    ) -> Result<(), Unread> {
        self.json.push(open);
        let mut first = true;
        loop {
            self.skip_space()?;
            if self.skip(end) {
                self.json.push(close);
                return Ok(());
            }
            if !first {
                self.json.push(',');
            }
            first = false;
            item(self)?;
            self.skip_space()?;
            if !self.skip(',') && !self.rest.starts_with(end) {
                return Err(Unread::Wrong);
            }
        }
    }

    /// One value; `depth` more may be within each other.
    fn value(&mut self, depth: usize) -> Result<(), Unread> {
        let depth = depth.checked_sub(1).ok_or(Unread::Wrong)?;
        self.skip_space()?;
        let item = |values: &mut Self| values.value(depth);
        match self.rest.chars().next() {
            Some('"' | '\'') => self.string(),
            Some('[') => {
                self.skip('[');
                self.list(['[', ']'], ']', item)
            }
            Some('(') => {
                self.skip('(');
                self.list(['[', ']'], ')', item)
            }
            Some('{') => {
                self.skip('{');
                self.list(['{', '}'], '}', |values| {
                    if !values.rest.starts_with(['"', '\'']) {
                        return Err(Unread::Wrong);
                    }
                    values.string()?;
                    values.skip_space()?;
                    if !values.skip(':') {
                        return Err(Unread::Wrong);
                    }
                    values.json.push(':');
                    values.value(depth)
                })
            }
            _ => self.word(),
        }
    }

    /// A number or a name of Python's, or JSON's.
    fn word(&mut self) -> Result<(), Unread> {
        let inner = |c: char| c.is_ascii_alphanumeric() || ['+', '-', '.', '_'].contains(&c);
        let end = self.rest.find(|c| !inner(c)).ok_or(Unread::Open)?;
        let (word, rest) = self.rest.split_at(end);
        let json = match word {
            "True" => "true",
            "False" => "false",
            "None" => "null",
            "true" | "false" | "null" => word,
            number if serde_json::from_str::<&RawValue>(number).is_ok() => number,
            _ => return Err(Unread::Wrong),
        };
        self.json.push_str(json);
        self.rest = rest;
        Ok(())
    }

    /// A string in quotes. What has come of it is written even where its end is missing.
    fn string(&mut self) -> Result<(), Unread> {
        let quote = if self.rest.starts_with('"') { '"' } else { '\'' };
        let mut rest = &self.rest[1..];
        let mut text = String::new();
        let ended = loop {
            let mut chars = rest.chars();
            match chars.next() {
                None => break Err(Unread::Open),
                Some(c) if c == quote => break Ok(chars.as_str()),
                Some('\\') => match escape(chars.as_str()) {
                    Ok((written, behind)) => {
                        text.push_str(&written);
                        rest = behind;
                    }
                    Err(unread) => break Err(unread),
                },
                Some(c) => {
                    text.push(c);
                    rest = chars.as_str();
                }
            }
        };
        let quoted = Value::from(text).to_string();
        match ended {
            Ok(behind) => {
                self.json.push_str(&quoted);
                self.rest = behind;
                Ok(())
            }
            Err(unread) => {
                self.json.push_str(&quoted[..quoted.len() - 1]);
                Err(unread)
            }
        }
    }

    /// Something must follow the white space.
    fn skip_space(&mut self) -> Result<(), Unread> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() { Err(Unread::Open) } else { Ok(()) }
    }

    fn skip(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

/// What the letters behind a backslash stand for, and what follows them. Unknown ones stand for themselves, with the backslash.
fn escape(letters: &str) -> Result<(String, &str), Unread> {
    let mut chars = letters.chars();
    let c = chars.next().ok_or(Unread::Open)?;
    let digits = match c {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => {
            let one = match c {
                'n' => "\n".to_owned(),
                't' => "\t".to_owned(),
                'r' => "\r".to_owned(),
                'b' => "\u{8}".to_owned(),
                'f' => "\u{c}".to_owned(),
                '0' => "\0".to_owned(),
                '\n' => String::new(),
                '\\' | '\'' | '"' | '/' => c.to_string(),
                other => format!("\\{other}"),
            };
            return Ok((one, chars.as_str()));
        }
    };
    let (code, rest) = hex(chars.as_str(), digits)?;
    if let Some(one) = char::from_u32(code) {
        return Ok((one.to_string(), rest));
    }
    // As JSON writes characters beyond 16 bits: two halves.
    let pair = rest.strip_prefix("\\u");
    if pair.is_none() && "\\u".starts_with(rest) {
        return Err(Unread::Open);
    }
    let Some(second) = pair else { return Ok(("\u{fffd}".to_owned(), rest)) };
    let (low, behind) = hex(second, 4)?;
    let both = char::decode_utf16([code as u16, low as u16]).next();
    match both {
        Some(Ok(one)) => Ok((one.to_string(), behind)),
        _ => Ok(("\u{fffd}".to_owned(), rest)),
    }
}

fn hex(text: &str, digits: usize) -> Result<(u32, &str), Unread> {
    let end = text.char_indices().nth(digits).map_or(text.len(), |(at, _)| at);
    let (number, rest) = text.split_at(end);
    if !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Unread::Wrong);
    }
    if number.len() < digits {
        return Err(Unread::Open);
    }
    Ok((u32::from_str_radix(number, 16).map_err(|_| Unread::Wrong)?, rest))
}

#[cfg(test)]
mod tests;
