//! Conversations that a template refuses, written so that it shows them.
//!
//! 1. What a template shows is found out once, when it is loaded ([`Shown`]). What becomes of a message depends on that and
//!    on the messages before it, never on those behind it, so a longer conversation keeps the beginning of the shorter
//!    one. The one exception are several calls that the template wants one by one: they wait for their results.
//! 2. Every word is kept, in its order.

use super::dialect::THOUGHTS;
use super::message::{Content, Message, Role, ToolCallMessage};
use super::tool_call::ToolSyntax;
use super::tool_call::written::written;

const BREAK: &str = "\n\n";
/// Characters of a call's id in templates that ask for exactly so many.
const SHORT_ID: usize = 9;
/// What an answer without a word says where a template wants one.
const NOTHING: &str = "...";

/// What a message is to a template that looks at the order of messages; a system message is looked at by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The user's.
    User,
    /// The assistant's, without calls.
    Assistant,
    /// The assistant's, with calls.
    Calls,
    /// A tool's.
    Result,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::User, Self::Assistant, Self::Calls, Self::Result];

    fn of(message: &Message) -> Self {
        match message.role {
            Role::System | Role::User => Self::User,
            Role::Tool => Self::Result,
            Role::Assistant if message.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty()) => {
                Self::Calls
            }
            Role::Assistant => Self::Assistant,
        }
    }
}

/// What a template shows as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a question that the template answers")]
pub(super) struct Shown {
    /// A system message at the beginning.
    pub first_system: bool,
    /// Further system messages, anywhere.
    pub later_system: bool,
    /// A system message without a word of the user's.
    pub system_alone: bool,
    /// The assistant's calls.
    pub calls: bool,
    /// Several calls in one message.
    pub several_calls: bool,
    /// A text beside calls.
    pub text_with_calls: bool,
    /// A text in a message of its own before calls, their results and an answer.
    pub text_before_calls: bool,
    /// The assistant's message without a word.
    pub empty_answer: bool,
    /// Calls whose ids are not nine letters and digits.
    pub any_id: bool,
    /// A tool's result.
    pub results: bool,
    /// A message of each kind at the beginning, by the order of [`Kind::ALL`].
    pub first: [bool; 4],
    /// `next[a][b]`: a message of kind `b` right behind one of kind `a`.
    pub next: [[bool; 4]; 4],
    /// Messages that alternate do so as if calls and results were not there.
    pub skips_calls: bool,
}

impl Shown {
    /// Everything.
    pub(super) const ALL: Self = Self {
        first_system: true,
        later_system: true,
        system_alone: true,
        calls: true,
        several_calls: true,
        text_with_calls: true,
        text_before_calls: true,
        empty_answer: true,
        any_id: true,
        results: true,
        first: [true; 4],
        next: [[true; 4]; 4],
        skips_calls: false,
    };
}

/// What was done to a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    System,
    Joined,
    Opened,
    Between,
    CallsAsText,
    ResultsAsText,
    CallsOneByOne,
    TextBeforeCalls,
    TextHidden,
    ShortIds,
}

impl Change {
    /// For the log.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::System => "a system message where it refuses one is shown as part of the message beside it",
            Self::Joined => "neighbouring messages of one role are shown as one",
            Self::Opened => "a conversation without a user's message where it wants one gets an empty one",
            Self::Between => {
                "messages that must alternate and do not, get an empty message (or three dots) between"
            }
            Self::CallsAsText => "the assistant's calls are shown as text",
            Self::ResultsAsText => "results of tools are shown as messages of the user",
            Self::CallsOneByOne => "several calls of one message are shown one by one, each with its result",
            Self::TextBeforeCalls => "a text beside calls is shown as a message before them",
            Self::TextHidden => "a text beside calls is not shown, and there is no other place for it",
            Self::ShortIds => "ids of calls are shown as nine letters and digits",
        }
    }
}

/// The conversation as the template shows it, and what was done for that: nothing where it shows everything as it stands.
pub(super) fn fold(messages: &[Message], shown: &Shown, syntax: ToolSyntax) -> (Vec<Message>, Vec<Change>) {
    let out = Vec::with_capacity(messages.len());
    let mut fold = Fold { shown, syntax, messages, out, of_system: false, done: Vec::new() };
    let mut rest = messages;
    while let Some((message, behind)) = rest.split_first() {
        rest = behind;
        match (message.role, &message.tool_calls) {
            (Role::System, _) => fold.system(message),
            (Role::Tool, _) if !shown.results => fold.result_as_text(message),
            (Role::Assistant, Some(calls)) if !calls.is_empty() && !shown.calls => {
                fold.calls_as_text(message, calls);
            }
            (Role::Assistant, Some(calls)) if calls.len() > 1 && !shown.several_calls => {
                let message = &fold.text_first(message);
                let results = behind.iter().take_while(|message| message.role == Role::Tool).count();
                let (results, behind) = behind.split_at(results);
                fold.one_by_one(message, calls, results);
                rest = behind;
            }
            (Role::Assistant, Some(calls)) if !calls.is_empty() => {
                let message = fold.text_first(message);
                fold.say(message);
            }
            _ => fold.say(message.clone()),
        }
    }
    fold.end();
    (fold.out, fold.done)
}

struct Fold<'a> {
    shown: &'a Shown,
    syntax: ToolSyntax,
    messages: &'a [Message],
    out: Vec<Message>,
    /// The last message is a system message's text in the user's place: the user's next message belongs to it.
    of_system: bool,
    done: Vec<Change>,
}

impl Fold<'_> {
    fn note(&mut self, change: Change) {
        if !self.done.contains(&change) {
            self.done.push(change);
        }
    }

    fn system(&mut self, message: &Message) {
        let shown = if self.out.is_empty() { self.shown.first_system } else { self.shown.later_system };
        if shown {
            return self.out.push(message.clone());
        }
        self.note(Change::System);
        let text = message.plain_text();
        let last = self.out.last_mut().filter(|last| matches!(last.role, Role::System | Role::User));
        if let Some(last) = last {
            last.content = Some(Content::Text(joined(&last.plain_text(), &text)));
        } else {
            self.say(Message::text(Role::User, text));
            self.of_system = true;
        }
    }

    /// Puts a message behind the others, and what has to stand between.
    fn say(&mut self, mut message: Message) {
        let kind = Kind::of(&message);
        let of_system = std::mem::take(&mut self.of_system);
        if matches!(kind, Kind::Calls | Kind::Result) && !self.shown.any_id {
            self.shorten_ids(&mut message);
        }
        let before = self.before(kind);
        let fits = match before {
            None => self.shown.first[kind as usize] && (self.shown.system_alone || kind == Kind::User),
            Some(before) => self.shown.next[before as usize][kind as usize],
        };
        let neighbours = self.out.last().is_some_and(|last| last.role == message.role);
        match kind {
            _ if neighbours && (!fits || of_system) => {
                self.note(Change::Joined);
                return self.out.last_mut().map_or((), |last| append(last, message));
            }
            _ if fits => {}
            Kind::Result => return self.result_as_text(&message),
            Kind::User => self.between(Role::Assistant),
            Kind::Assistant | Kind::Calls if before.is_none() => {
                self.note(Change::Opened);
                self.out.push(Message::text(Role::User, ""));
            }
            Kind::Assistant | Kind::Calls => self.between(Role::User),
        }
        self.out.push(message);
    }

    /// The kind of the message that one of this kind follows; system messages do not count, nor calls and their results
    /// where the template skips them.
    fn before(&self, kind: Kind) -> Option<Kind> {
        let text = |kind: Kind| matches!(kind, Kind::User | Kind::Assistant);
        let skips = self.shown.skips_calls && text(kind);
        let said = self.out.iter().rev().filter(|message| message.role != Role::System);
        said.map(Kind::of).find(|kind| !skips || text(*kind))
    }

    fn between(&mut self, role: Role) {
        self.note(Change::Between);
        let refused = role == Role::Assistant && !self.shown.empty_answer;
        self.out.push(Message::text(role, if refused { NOTHING } else { "" }));
    }

    /// A message with calls, its text said before it where the template would hide it.
    fn text_first(&mut self, message: &Message) -> Message {
        let mut message = message.clone();
        if self.shown.text_with_calls || message.plain_text().is_empty() {
            return message;
        }
        if !self.shown.text_before_calls {
            self.note(Change::TextHidden);
            return message;
        }
        self.note(Change::TextBeforeCalls);
        let text = message.content.take();
        self.say(Message { content: text, tool_calls: None, ..message.clone() });
        // Thoughts were before the text.
        for thought in THOUGHTS {
            message.extra.remove(thought);
        }
        message
    }

    fn calls_as_text(&mut self, message: &Message, calls: &[ToolCallMessage]) {
        self.note(Change::CallsAsText);
        let calls: Vec<_> =
            calls.iter().map(|call| (call.function.name.as_str(), call.function.read_arguments())).collect();
        let (said, calls) = (message.plain_text(), written(self.syntax, &calls));
        let text = if said.is_empty() { calls } else { format!("{said}\n{calls}") };
        self.say(Message { content: Some(Content::Text(text)), tool_calls: None, ..message.clone() });
    }

    fn result_as_text(&mut self, message: &Message) {
        self.note(Change::ResultsAsText);
        let name = called(message, self.messages).map_or_else(String::new, |name| format!(" of {name}"));
        self.say(Message::text(Role::User, format!("Result{name}:\n{}", message.plain_text())));
    }

    /// A message for each call, and behind each the results that name it; results that name none in their order.
    fn one_by_one(&mut self, message: &Message, calls: &[ToolCallMessage], results: &[Message]) {
        self.note(Change::CallsOneByOne);
        let named = |result: &Message| {
            calls.iter().position(|call| call.id.is_some() && call.id.as_deref() == id(result))
        };
        // A result that names no call belongs to the first without one, or stands at the end.
        let mut answered = vec![false; calls.len()];
        let mut places = Vec::with_capacity(results.len());
        for result in results {
            let free = || answered.iter().position(|answered| !answered).unwrap_or(calls.len() - 1);
            let place = named(result).unwrap_or_else(free);
            answered[place] = true;
            places.push(place);
        }
        for (at, call) in calls.iter().enumerate() {
            let content = message.content.clone().filter(|_| at == 0);
            self.say(Message { content, tool_calls: Some(vec![call.clone()]), ..message.clone() });
            for (result, _) in results.iter().zip(&places).filter(|(_, place)| **place == at) {
                self.say(result.clone());
            }
        }
    }

    fn shorten_ids(&mut self, message: &mut Message) {
        let mut changed = false;
        for call in message.tool_calls.iter_mut().flatten() {
            changed |= shorten(call.id.as_mut());
        }
        if let Some(serde_json::Value::String(id)) = message.extra.get_mut("tool_call_id") {
            changed |= shorten(Some(id));
        }
        if changed {
            self.note(Change::ShortIds);
        }
    }

    fn end(&mut self) {
        let alone = self.out.iter().all(|message| message.role == Role::System) && !self.out.is_empty();
        if alone && !self.shown.system_alone {
            self.note(Change::Opened);
            self.out.push(Message::text(Role::User, ""));
        }
    }
}

/// The second of two messages of one role becomes part of the first.
fn append(first: &mut Message, second: Message) {
    first.content = Some(Content::Text(joined(&first.plain_text(), &second.plain_text())));
    if let Some(calls) = second.tool_calls {
        first.tool_calls.get_or_insert_default().extend(calls);
    }
    for (key, value) in second.extra {
        first.extra.entry(key).or_insert(value);
    }
}

fn joined(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_owned(),
        (_, true) => a.to_owned(),
        _ => format!("{a}{BREAK}{b}"),
    }
}

/// The call that a result answers.
fn id(result: &Message) -> Option<&str> {
    result.extra.get("tool_call_id").and_then(serde_json::Value::as_str)
}

/// The name of the function whose result this is.
fn called<'a>(result: &'a Message, conversation: &'a [Message]) -> Option<&'a str> {
    let named = result.extra.get("name").and_then(serde_json::Value::as_str);
    let calls = conversation.iter().flat_map(|message| message.tool_calls.iter().flatten());
    let mut calls = calls.filter(|call| call.id.is_some() && call.id.as_deref() == id(result));
    named.or_else(|| calls.next().map(|call| call.function.name.as_str()))
}

/// Another id of nine letters and digits; the same for the same id. True when it was another.
fn shorten(id: Option<&mut String>) -> bool {
    let long = |id: &str| id.len() != SHORT_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let Some(id) = id.filter(|id| long(id)) else { return false };
    blake3::hash(id.as_bytes()).to_hex()[..SHORT_ID].clone_into(id);
    true
}

#[cfg(test)]
mod tests;
