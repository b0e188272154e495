//! Calls whose arguments stand between marks, each by itself: Qwen3-Coder's, which Qwen3.5 and its like write too, GLM's and MiniMax's.
//!
//! A value is text as it is, everything else JSON. What it is only the tool's schema tells. Where that is silent, objects and
//! lists are read and the rest is text.

use serde_json::Value;

use super::ToolCall;
use super::kinds::Kinds;
use super::marked::Unread;
use crate::prompt::stop::held_suffix;

/// The marks of one form.
#[derive(Debug, PartialEq, Eq)]
pub struct Tags {
    /// Begins a call; its name follows.
    pub call: &'static str,
    /// Ends the name; `None`: what comes next does.
    pub name_end: Option<&'static str>,
    /// Begins an argument; its key follows.
    pub key: &'static str,
    /// Ends the key.
    pub key_end: &'static str,
    /// Begins the value, where that needs a mark.
    pub value: &'static str,
    /// Ends it.
    pub value_end: &'static str,
    /// Values stand on lines of their own.
    pub lines: bool,
    /// Ends the call.
    pub end: &'static str,
    /// That is the mark behind the call as well.
    pub shared_end: bool,
}

/// Qwen3-Coder's.
pub static CODER: Tags = Tags {
    call: "<function=",
    name_end: Some(">"),
    key: "<parameter=",
    key_end: ">",
    value: "",
    value_end: "</parameter>",
    lines: true,
    end: "</function>",
    shared_end: false,
};

/// GLM's.
pub static GLM: Tags = Tags {
    call: "",
    name_end: None,
    key: "<arg_key>",
    key_end: "</arg_key>",
    value: "<arg_value>",
    value_end: "</arg_value>",
    lines: false,
    end: "</tool_call>",
    shared_end: true,
};
/// Begins the answer of a tool; models go on with it, so it ends theirs.
pub const GLM_RESPONSE: &str = "<|observation|>";

/// MiniMax's.
pub static MINIMAX: Tags = Tags {
    call: "<invoke name=\"",
    name_end: Some("\">"),
    key: "<parameter name=\"",
    key_end: "\">",
    value: "",
    value_end: "</parameter>",
    lines: false,
    end: "</invoke>",
    shared_end: false,
};
/// Before and behind MiniMax's calls.
pub const MINIMAX_CALLS: [&str; 2] = ["<minimax:tool_call>", "</minimax:tool_call>"];

/// Tokens of these forms.
pub const MARKUP: [&str; 8] = [
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    MINIMAX_CALLS[0],
    MINIMAX_CALLS[1],
];

impl Tags {
    /// A template shows calls of this form.
    pub fn are_shown(&self, source: &str) -> bool {
        source.contains(self.key)
            && source.contains(if self.call.is_empty() { self.value } else { self.call })
    }

    /// Reads what stands between the marks of a call of `tools`, names and schemas.
    pub fn read(&'static self, body: &str, tools: &[(String, Value)]) -> Result<Vec<ToolCall>, Unread> {
        let end = if self.shared_end { self.end } else { "" };
        let mut rest = format!("{body}{end}");
        let mut calls = Vec::new();
        while let Some((name, at)) = self.head(&rest) {
            rest.drain(..at);
            let mut scan = Scan::new(self, &name, tools);
            let arguments = scan.push(&mut rest);
            calls.push(ToolCall { name, arguments });
            match scan.state {
                State::Done if rest.trim() == end => return Ok(calls),
                State::Done if self.several() => {}
                State::Done | State::Wrong => return Err(Unread::Wrong),
                State::Between | State::Value { .. } => return Err(Unread::Open),
            }
        }
        Err(Unread::Wrong)
    }

    /// Several calls may stand between two marks.
    pub fn several(&self) -> bool {
        !self.lines && !self.shared_end
    }

    /// The name of a call and where its arguments begin, as soon as that is known.
    pub fn head(&self, body: &str) -> Option<(String, usize)> {
        let behind = body.trim_start().strip_prefix(self.call)?;
        let end = self.name_end.map_or_else(|| behind.find(['\n', '<']), |mark| behind.find(mark))?;
        let name = behind[..end].trim();
        let at = body.len() - behind.len() + end + self.name_end.map_or(0, str::len);
        (!name.is_empty() && !name.contains(['\n', '{'])).then(|| (name.to_owned(), at))
    }
}

/// Arguments on their way to JSON.
#[derive(Debug)]
pub struct Scan {
    tags: &'static Tags,
    /// The tool's.
    schema: Value,
    state: State,
    /// Arguments so far.
    count: usize,
}

#[derive(Debug)]
enum State {
    /// Behind an argument, or before the first.
    Between,
    /// Within an argument.
    Value {
        kinds: Kinds,
        /// Some of its text is told.
        begun: bool,
    },
    Done,
    Wrong,
}

impl Scan {
    /// For a call of `name`.
    pub fn new(tags: &'static Tags, name: &str, tools: &[(String, Value)]) -> Self {
        let schema = tools.iter().find(|(tool, _)| tool == name).map(|(_, schema)| schema.clone());
        Self { tags, schema: schema.unwrap_or_default(), state: State::Between, count: 0 }
    }

    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    pub fn push(&mut self, text: &mut String) -> String {
        let mut json = String::new();
        while self.step(text, &mut json) {}
        json
    }

    /// They are whole.
    pub fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// One mark's worth of progress; false when more text is needed, or none.
    fn step(&mut self, text: &mut String, json: &mut String) -> bool {
        let Tags { value_end, lines, .. } = *self.tags;
        match &mut self.state {
            State::Done | State::Wrong => false,
            State::Between => self.between(text, json),
            State::Value { kinds, begun } => {
                let Some(end) = text.find(value_end) else {
                    if kinds.are_text() {
                        let line = if lines { held_suffix(text, &format!("\n{value_end}")) } else { 0 };
                        let kept = held_suffix(text, value_end).max(line);
                        let certain: String = text.drain(..text.len() - kept).collect();
                        tell(&certain, lines, begun, json);
                    }
                    return false;
                };
                let value: String = text.drain(..end + value_end.len()).collect();
                let value = &value[..end];
                let value = if lines { value.strip_suffix('\n').unwrap_or(value) } else { value };
                if kinds.are_text() {
                    tell(value, lines, begun, json);
                    json.push_str(if *begun { "\"" } else { "\"\"" });
                } else {
                    let value = if lines { value.strip_prefix('\n').unwrap_or(value) } else { value };
                    json.push_str(&kinds.read(value));
                }
                self.state = State::Between;
                true
            }
        }
    }

    fn between(&mut self, text: &mut String, json: &mut String) -> bool {
        let Tags { key: mark, key_end, value, end, shared_end, .. } = *self.tags;
        let rest = text.trim_start();
        if let Some(behind) = rest.strip_prefix(end) {
            json.push_str(if self.count == 0 { "{}" } else { "}" });
            *text = if shared_end { rest.to_owned() } else { behind.to_owned() };
            self.state = State::Done;
        } else if let Some(behind) = rest.strip_prefix(mark) {
            let Some((key, behind)) = behind.split_once(key_end) else { return false };
            let begun = if value.is_empty() { behind } else { behind.trim_start() };
            let Some(behind) = begun.strip_prefix(value) else {
                if value.starts_with(begun) {
                    return false;
                }
                self.state = State::Wrong;
                return true;
            };
            let key = key.trim();
            json.push(if self.count == 0 { '{' } else { ',' });
            json.push_str(&Value::from(key).to_string());
            json.push(':');
            self.count += 1;
            self.state = State::Value { kinds: Kinds::of_argument(&self.schema, key), begun: false };
            *text = behind.to_owned();
        } else if end.starts_with(rest) || mark.starts_with(rest) {
            return false;
        } else {
            self.state = State::Wrong;
        }
        true
    }
}

/// Writes more of a string. Where it stands on `lines`, the line break that it begins with is none of it.
fn tell(more: &str, lines: bool, begun: &mut bool, json: &mut String) {
    if more.is_empty() {
        return;
    }
    let more = if *begun || !lines { more } else { more.strip_prefix('\n').unwrap_or(more) };
    if !*begun {
        json.push('"');
        *begun = true;
    }
    let quoted = Value::from(more).to_string();
    json.push_str(&quoted[1..quoted.len() - 1]);
}

#[cfg(test)]
mod forms;
#[cfg(test)]
pub mod tests;
