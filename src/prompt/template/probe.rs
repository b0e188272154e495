//! What a template shows of a conversation, found out by asking it: short conversations, each with words to look for.

use serde_json::{Value as Json, json};

use super::{ChatTemplate, Conversation};
use crate::prompt::fold::{Kind, Shown};
use crate::prompt::message::{Message, Role, for_template};

/// An id that templates take which want nine letters and digits.
const SHORT: &str = "probe0001";
/// One as clients write it.
const LONG: &str = "call_0123456789abcdefghij";

/// A tool's name.
const TOOL: &str = "prefixd_probe";

/// A conversation under construction, each message with a word of its own.
#[derive(Clone, Default)]
struct Probe {
    messages: Vec<Json>,
    words: Vec<String>,
}

impl Probe {
    fn word(&mut self) -> String {
        self.words.push(format!("prefixd-probe-{}", self.words.len()));
        self.words.last().cloned().unwrap_or_default()
    }

    fn say(mut self, role: &str) -> Self {
        let word = self.word();
        self.messages.push(json!({"role": role, "content": word}));
        self
    }

    fn call(mut self, ids: &[&str]) -> Self {
        let calls: Vec<Json> = ids
            .iter()
            .map(|id| json!({"id": id, "function": {"name": TOOL, "arguments": {"word": self.word()}}}))
            .collect();
        self.messages.push(json!({"role": "assistant", "content": null, "tool_calls": calls}));
        self
    }

    /// A message of the assistant's with a text and a call.
    fn text_and_call(mut self, id: &str) -> Self {
        let text = self.word();
        self = self.call(&[id]);
        if let Some(message) = self.messages.last_mut() {
            message["content"] = text.into();
        }
        self
    }

    /// A message without a word.
    fn silence(mut self, role: &str) -> Self {
        self.messages.push(json!({"role": role, "content": ""}));
        self
    }

    fn result(mut self, id: &str) -> Self {
        let word = self.word();
        self.messages.push(json!({"role": "tool", "tool_call_id": id, "content": word}));
        self
    }

    /// One more of a kind; calls as text where the template does not show them.
    fn then(self, kind: Kind, shown: &Shown) -> Self {
        match kind {
            Kind::User => self.say("user"),
            Kind::Calls if shown.calls => self.call(&[SHORT]),
            Kind::Assistant | Kind::Calls => self.say("assistant"),
            Kind::Result => self.result(SHORT),
        }
    }
}

impl ChatTemplate {
    /// What it shows, with tools declared or without.
    pub(super) fn probe(&self, tools: bool) -> Shown {
        let shows = |probe: Probe, last: usize| self.shows(&probe, last, tools);
        let new = Probe::default;
        let mut shown = Shown::ALL;
        if !shows(new().say("user"), 1) {
            // Not even that: nothing can be found out, and the template's own words say why.
            return shown;
        }
        shown.first_system = shows(new().say("system").say("user"), 2);
        shown.later_system = shown.first_system
            && shows(new().say("system").say("user").say("assistant").say("system").say("user"), 5)
            && shows(new().say("system").say("user").say("system"), 3)
            && shows(new().say("system").say("system").say("user"), 3);
        let system = new().say("system");
        // At the end, not with the user going on: that is what is asked.
        shown.system_alone = !shown.first_system || self.shows_words(&system, &system.words, tools);
        shown.calls = shows(new().say("user").call(&[SHORT]), 2);
        let asked = |shown: &Shown| new().say("user").then(Kind::Calls, shown);
        shown.results = shows(asked(&shown).result(SHORT), 2);
        if shown.calls {
            let other = "probe0002";
            let one = shows(new().say("user").call(&[SHORT]), 2);
            let two = new().say("user").call(&[SHORT, other]);
            shown.several_calls = !one || shows(two.clone(), 3) || shows(two.result(SHORT).result(other), 5);
            shown.any_id = shows(new().say("user").call(&[LONG]), 2)
                && (!shown.results || shows(new().say("user").call(&[LONG]).result(LONG), 3));
        }
        if shown.calls {
            let asked = || new().say("user");
            shown.text_with_calls = self.shows_somewhere(&asked().text_and_call(SHORT), tools);
            let told = asked().say("assistant").call(&[SHORT]).result(SHORT).say("assistant");
            shown.text_before_calls = shown.text_with_calls || shown.results && shows(told, 4);
        }
        shown.empty_answer = shows(new().say("user").silence("assistant").say("user"), 2);
        for kind in Kind::ALL {
            shown.first[kind as usize] = shows(new().then(kind, &shown), 1);
        }
        for before in Kind::ALL {
            let start = match before {
                Kind::User => new(),
                Kind::Assistant | Kind::Calls => new().say("user"),
                Kind::Result => asked(&shown),
            };
            for kind in Kind::ALL {
                let pair = start.clone().then(before, &shown).then(kind, &shown);
                shown.next[before as usize][kind as usize] = shows(pair, 2);
            }
        }
        let behind = |start: Probe| start.then(Kind::Calls, &shown).result(SHORT).say("user");
        let answered = new().say("user").say("assistant");
        let skips = shown.calls
            && shown.results
            && !shows(behind(new().say("user")), 1)
            && shows(behind(answered), 1);
        shown.skips_calls = skips;
        shown
    }

    /// True when a declared tool is shown.
    pub(super) fn probe_tools(&self) -> bool {
        self.shows_words(&Probe::default().say("user"), &[TOOL.to_owned()], true)
    }

    /// True when the last words of a conversation are shown in their order, at its end or with the user going on.
    fn shows(&self, probe: &Probe, last: usize, tools: bool) -> bool {
        let words = &probe.words[probe.words.len().saturating_sub(last)..];
        let going_on = probe.clone().say("user");
        [probe, &going_on].into_iter().any(|probe| self.shows_words(probe, words, tools))
    }

    /// True when every word of a conversation is shown, wherever, at its end or with the user going on.
    fn shows_somewhere(&self, probe: &Probe, tools: bool) -> bool {
        let going_on = probe.clone().say("user");
        let shown = |at: &Probe| {
            probe.words.iter().all(|word| self.shows_words(at, std::slice::from_ref(word), tools))
        };
        shown(probe) || shown(&going_on)
    }

    /// True when these words of a conversation are shown, in their order.
    fn shows_words(&self, probe: &Probe, words: &[String], tools: bool) -> bool {
        let declared = || {
            json!({"type": "function", "function": {"name": TOOL, "description": "Probes.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "A word."}},
                "required": ["word"]}}})
        };
        let Ok(messages) = serde_json::from_value::<Vec<Message>>(Json::Array(probe.messages.clone())) else {
            return false;
        };
        let conversation = Conversation {
            tools: if tools { vec![declared()] } else { Vec::new() },
            add_generation_prompt: messages.last().is_some_and(|message| message.role != Role::Assistant),
            ..Conversation::default()
        };
        let text = self.run(for_template(&messages, self.wants_parts), &conversation).unwrap_or_default();
        let mut rest = text.as_str();
        words.iter().all(|word| match rest.split_once(word.as_str()) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    }
}
