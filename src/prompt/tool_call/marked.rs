//! Calls between two marks, whatever is written between them.

use serde_json::Value;

use super::body::{Arguments, CallBody};
use super::{CallEnd, CallPart, Held, ToolCallFormat, ToolText, text, whole};
use crate::prompt::stop::held_suffix;

/// Why what stands between two marks is not a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not over: the closing mark is part of it.
    Open,
    /// It is something else.
    Wrong,
}

/// Calls between marks.
#[derive(Debug)]
pub struct MarkedFormat {
    open: &'static str,
    close: &'static str,
    body: CallBody,
    /// Names and schemas.
    tools: Vec<(String, Value)>,
    calls_are: Held,
    /// Not yet decided: white space and the start of a marker, or a call whose end is missing.
    held: String,
    in_call: bool,
    /// White space before the open call; part of the text if it turns out not to be one.
    before: String,
    /// Arguments of the open call, where they are told as they come.
    told: Option<Arguments>,
    calls: usize,
    /// Text was let through.
    spoke: bool,
}

impl MarkedFormat {
    /// For calls between these marks.
    pub fn new(
        [open, close]: [&'static str; 2],
        body: CallBody,
        tools: Vec<(String, Value)>,
        calls_are: Held,
    ) -> Self {
        Self {
            open,
            close,
            body,
            tools,
            calls_are,
            held: String::new(),
            in_call: false,
            before: String::new(),
            told: None,
            calls: 0,
            spoke: false,
        }
    }

    /// One marker's worth of progress; false when more text is needed.
    fn step(&mut self, out: &mut Vec<ToolText>) -> bool {
        if !self.in_call && !self.find_call(out) {
            return false;
        }
        if self.told.is_none()
            && self.is_certain()
            && let Some(head) = self.body.head(&self.held)
        {
            self.begin(head, out);
        }
        if self.told.is_some() {
            return self.tell(out);
        }
        let Some(end) = self.read_whole(out) else { return false };
        self.held.drain(..end);
        self.in_call = false;
        true
    }

    fn begin(&mut self, (name, at): (String, usize), out: &mut Vec<ToolText>) {
        self.held.drain(..at);
        self.told = Some(self.body.arguments(&name, &self.tools));
        out.push(ToolText::Call(CallPart::Begin(name)));
    }

    /// Tells what has come of the arguments; true when they are whole and what follows is known.
    fn tell(&mut self, out: &mut Vec<ToolText>) -> bool {
        let Some(arguments) = &mut self.told else { return false };
        let more = arguments.push(&mut self.held);
        if !more.is_empty() {
            out.push(ToolText::Call(CallPart::Arguments(more)));
        }
        if !arguments.done() {
            return false;
        }
        let end = self.held.find(self.close);
        let next = self.body.next(&self.held).filter(|(_, at)| end.is_none_or(|end| *at < end));
        if next.is_none() && end.is_none() {
            return false;
        }
        self.told = None;
        self.calls += 1;
        out.push(ToolText::Call(CallPart::End));
        if let Some(next) = next {
            self.begin(next, out);
        } else if let Some(end) = end {
            self.held.drain(..end + self.close.len());
            self.in_call = false;
        }
        true
    }

    /// Lets the text before the next call through; false when none begins in what is held.
    fn find_call(&mut self, out: &mut Vec<ToolText>) -> bool {
        let at = self.held.find(self.open);
        // White space before a call belongs to the markup, so it waits with a marker's first characters.
        let certain = at.unwrap_or_else(|| self.held.len() - held_suffix(&self.held, self.open));
        let shown = self.held[..certain].trim_end().len();
        self.spoke |= shown > 0;
        text(out, self.held[..shown].to_owned());
        if let Some(at) = at {
            self.before = self.held[shown..at].to_owned();
            self.held.drain(..at + self.open.len());
            self.in_call = true;
        } else {
            self.held.drain(..shown);
        }
        self.in_call
    }

    /// Where the call, or what stands in its place, ends behind its closing mark.
    fn read_whole(&mut self, out: &mut Vec<ToolText>) -> Option<usize> {
        // Without one, what follows the first mark is calls, to the end of the answer.
        if self.close.is_empty() {
            return None;
        }
        // A closing mark inside a string does not close; the call up to it is then incomplete.
        let mut from = 0;
        while let Some(at) = self.held[from..].find(self.close).map(|at| from + at) {
            let after = at + self.close.len();
            match self.body.read(&self.held[..at], &self.tools) {
                Ok(calls) => {
                    self.calls += calls.len();
                    for call in calls {
                        whole(out, call);
                    }
                }
                Err(Unread::Open) => {
                    from = after;
                    continue;
                }
                Err(Unread::Wrong) => {
                    self.spoke = true;
                    text(out, format!("{}{}{}", self.before, self.open, &self.held[..after]));
                }
            }
            return Some(after);
        }
        None
    }

    /// Whatever begins here with a mark is a call.
    fn is_certain(&self) -> bool {
        match self.calls_are {
            Held::ToNothing => false,
            Held::FromTheStart => !self.spoke,
            Held::Everywhere => true,
        }
    }

    /// What is held, cut off, is the beginning of a mark.
    fn mark_was_cut(&self, held: &str, end: CallEnd<'_>) -> bool {
        let mark = held.trim_start();
        match end {
            _ if mark.is_empty() => false,
            CallEnd::Model => false,
            CallEnd::Length => true,
            CallEnd::Stop(stop) => {
                let followed = format!("{mark}{stop}");
                followed.starts_with(self.open) || self.open.starts_with(&followed)
            }
        }
    }
}

impl ToolCallFormat for MarkedFormat {
    fn push(&mut self, text: &str) -> Vec<ToolText> {
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    fn finish(&mut self, end: CallEnd<'_>) -> Vec<ToolText> {
        let mut out = Vec::new();
        let held = std::mem::take(&mut self.held);
        let in_call = std::mem::take(&mut self.in_call);
        if let Some(arguments) = self.told.take() {
            out.push(if arguments.done() { ToolText::Call(CallPart::End) } else { ToolText::Cut });
        } else if in_call {
            // A model may end with the call itself, without the closing mark.
            let whole_without = end == CallEnd::Model || !self.body.needs_close();
            let read = if whole_without { self.body.read(&held, &self.tools).ok() } else { None };
            let calls = read.unwrap_or_else(|| match end {
                CallEnd::Model => Vec::new(),
                CallEnd::Length | CallEnd::Stop(_) => self.body.complete(&held, &self.tools),
            });
            match end {
                _ if !calls.is_empty() => calls.into_iter().for_each(|call| whole(&mut out, call)),
                CallEnd::Model => text(&mut out, format!("{}{}{held}", self.before, self.open)),
                CallEnd::Length | CallEnd::Stop(_) => out.push(ToolText::Cut),
            }
        } else if self.mark_was_cut(&held, end) {
            out.push(ToolText::Cut);
        } else if self.calls == 0 || !held.trim().is_empty() {
            text(&mut out, held);
        }
        out
    }
}
