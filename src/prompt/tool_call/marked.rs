//! Calls between two marks, whatever is written between them.

use super::{ToolCall, ToolCallFormat, ToolText, text};
use crate::prompt::stop::held_suffix;

/// Why what stands between two marks is not a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not over: the closing mark is part of it.
    Open,
    /// It is something else.
    Wrong,
}

/// Reads what stands between two marks.
pub type Reader = fn(&str) -> Result<ToolCall, Unread>;

/// Calls between marks.
#[derive(Debug)]
pub struct MarkedFormat {
    open: &'static str,
    close: &'static str,
    read: Reader,
    /// Not yet decided: white space and the start of a marker, or a call whose end is missing.
    held: String,
    in_call: bool,
    /// White space before the open call; part of the text if it turns out not to be one.
    before: String,
    calls: usize,
}

impl MarkedFormat {
    /// For calls between these marks.
    pub fn new(open: &'static str, close: &'static str, read: Reader) -> Self {
        Self { open, close, read, held: String::new(), in_call: false, before: String::new(), calls: 0 }
    }

    /// One marker's worth of progress; false when more text is needed.
    fn step(&mut self, out: &mut Vec<ToolText>) -> bool {
        if !self.in_call {
            let Some(at) = self.held.find(self.open) else {
                // White space before a call belongs to the markup, so it waits with a marker's first characters.
                let certain = self.held.len() - held_suffix(&self.held, self.open);
                let certain = self.held[..certain].trim_end().len();
                let rest = self.held.split_off(certain);
                text(out, std::mem::replace(&mut self.held, rest));
                return false;
            };
            let shown = self.held[..at].trim_end().len();
            text(out, self.held[..shown].to_owned());
            self.before = self.held[shown..at].to_owned();
            self.held.drain(..at + self.open.len());
            self.in_call = true;
        }
        // A closing mark inside a string does not close; the call up to it is then incomplete.
        let mut from = 0;
        while let Some(at) = self.held[from..].find(self.close).map(|at| from + at) {
            let after = at + self.close.len();
            match (self.read)(&self.held[..at]) {
                Ok(call) => {
                    out.push(ToolText::Call(call));
                    self.calls += 1;
                }
                Err(Unread::Open) => {
                    from = after;
                    continue;
                }
                Err(Unread::Wrong) => {
                    text(out, format!("{}{}{}", self.before, self.open, &self.held[..after]));
                }
            }
            self.held.drain(..after);
            self.in_call = false;
            return true;
        }
        false
    }
}

impl ToolCallFormat for MarkedFormat {
    fn push(&mut self, text: &str) -> Vec<ToolText> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    fn finish(&mut self) -> Vec<ToolText> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        if self.in_call {
            // A model may end with the call itself, without the closing mark.
            match (self.read)(&held) {
                Ok(call) => out.push(ToolText::Call(call)),
                Err(_) => text(&mut out, format!("{}{}{held}", self.before, self.open)),
            }
        } else if self.calls == 0 || !held.trim().is_empty() {
            text(&mut out, held);
        }
        self.in_call = false;
        out
    }
}
