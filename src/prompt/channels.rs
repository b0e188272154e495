//! Harmony's channels, told apart while an answer streams: messages of a header and a text each.
//!
//! 1. The channel `analysis` is thought. A message to a function is a call, which is handed on with its header in one form. Everything
//!    else is said. No part of a header is.
//! 2. Several thoughts, and several texts, are paragraphs.
//! 3. An answer without headers is text, to the byte.

use super::stop::held_suffix;
use super::thought::Told;
use super::tool_call::harmony::{CALL, CHANNEL, END, MESSAGE, OPEN, RETURN, START};

/// What a header may begin with.
const OPENERS: [&str; 4] = [START, CHANNEL, MESSAGE, RECIPIENT];
/// Before the one to whom a message goes.
const RECIPIENT: &str = "to=";
/// What ends a text.
const ENDS: [&str; 3] = [END, CALL, RETURN];
/// Bytes of a header at most.
const MOST: usize = 512;
const PARAGRAPH: &str = "\n\n";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thought,
    Text,
    Call,
}

/// Tells channels apart.
#[derive(Debug, Default)]
pub struct Channels {
    held: String,
    /// The message whose text comes; `None` within a header.
    message: Option<Kind>,
    /// The message has some text.
    begun: bool,
    thought: bool,
    said: bool,
}

impl Channels {
    /// The model is thinking.
    pub fn inside(&self) -> bool {
        self.message == Some(Kind::Thought)
    }

    /// Takes a piece of text; returns what is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Told> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Vec<Told> {
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match self.message {
            Some(kind) => self.tell(kind, &held, &mut out),
            // A call that is cut off within its header.
            None if held.contains(RECIPIENT) => out.push(Told::Text(OPEN.into())),
            None if self.thought || self.said || held.trim_start().starts_with("<|") => {}
            None => self.tell(Kind::Text, &held, &mut out),
        }
        out
    }

    /// One mark's worth of progress; false when more text is needed.
    fn step(&mut self, out: &mut Vec<Told>) -> bool {
        let Some(kind) = self.message else { return self.header(out) };
        let end = ENDS.iter().filter_map(|mark| Some((self.held.find(mark)?, mark.len()))).min();
        let Some((at, length)) = end else {
            let kept = ENDS.iter().map(|mark| held_suffix(&self.held, mark)).max().unwrap_or(0);
            let rest = self.held.split_off(self.held.len() - kept);
            let certain = std::mem::replace(&mut self.held, rest);
            self.tell(kind, &certain, out);
            return false;
        };
        let text: String = self.held.drain(..at + length).collect();
        self.tell(kind, &text[..at], out);
        if kind == Kind::Call {
            out.push(Told::Text(CALL.into()));
        }
        self.message = None;
        true
    }

    fn header(&mut self, out: &mut Vec<Told>) -> bool {
        let begun = self.held.trim_start();
        if begun.is_empty() {
            return false;
        }
        let end = self.held.find(MESSAGE).filter(|at| *at <= MOST);
        let possible = OPENERS.iter().any(|mark| begun.starts_with(mark) || mark.starts_with(begun));
        self.begun = false;
        if let Some(end) = end.filter(|_| possible) {
            let header: String = self.held.drain(..end + MESSAGE.len()).collect();
            let kind = match recipient(&header[..end]) {
                Some(name) => {
                    out.push(Told::Text(format!("{OPEN}{name}{MESSAGE}")));
                    Kind::Call
                }
                None if header.contains("<|channel|>analysis") => Kind::Thought,
                None => Kind::Text,
            };
            self.message = Some(kind);
            return true;
        }
        if possible && self.held.len() < MOST + MESSAGE.len() {
            return false;
        }
        self.message = Some(Kind::Text);
        true
    }

    fn tell(&mut self, kind: Kind, text: &str, out: &mut Vec<Told>) {
        if text.is_empty() {
            return;
        }
        let before = match kind {
            Kind::Thought => std::mem::replace(&mut self.thought, true),
            Kind::Text => std::mem::replace(&mut self.said, true),
            Kind::Call => false,
        };
        let apart = if before && !self.begun { PARAGRAPH } else { "" };
        self.begun = true;
        let text = format!("{apart}{text}");
        out.push(if kind == Kind::Thought { Told::Thought(text) } else { Told::Text(text) });
    }
}

/// The function to which a message with this header goes.
fn recipient(header: &str) -> Option<&str> {
    let (_, name) = header.split_once(RECIPIENT)?;
    let name = name.split("<|").next().unwrap_or(name).trim();
    // The type of the text may follow without a mark.
    let name = [" json", " code"].iter().find_map(|kind| name.strip_suffix(kind)).unwrap_or(name);
    Some(name.strip_prefix("functions.").unwrap_or(name))
}

#[cfg(test)]
mod tests;
