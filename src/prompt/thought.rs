//! A model's thoughts, told apart from its answer while both stream.
//!
//! 1. Thoughts come first, between `<think>` and `</think>`; the prompt may have opened them already, and the model do so once
//!    more. No part of a mark is shown, nor the white space around thoughts and marks.
//! 2. An answer that does not begin with a thought is let through at once, to the byte.
//! 3. What is thought and what is said do not depend on the pieces they come in.

use super::channels::Channels;
use super::stop::held_suffix;
use super::tool_call::harmony;

/// What stands before and after a thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThoughtMarks {
    /// `<think>` and `</think>`
    #[default]
    Think,
    /// `[THINK]` and `[/THINK]`, Mistral's.
    Brackets,
    /// `<|channel>thought` and `<channel|>`, Gemma 4's.
    Gemma,
}

impl ThoughtMarks {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Think, Self::Brackets, Self::Gemma];

    /// Before a thought.
    pub fn open(self) -> &'static str {
        match self {
            Self::Think => "<think>",
            Self::Brackets => "[THINK]",
            Self::Gemma => "<|channel>thought",
        }
    }

    /// Behind it.
    pub fn close(self) -> &'static str {
        match self {
            Self::Think => "</think>",
            Self::Brackets => "[/THINK]",
            Self::Gemma => "<channel|>",
        }
    }
}

/// Whether an answer begins with a thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThoughtStart {
    /// The model does not think, or was told not to.
    #[default]
    Never,
    /// It may open one.
    Possible(ThoughtMarks),
    /// The prompt opened one.
    Open(ThoughtMarks),
    /// Thoughts have a channel of their own.
    Channels,
}

impl ThoughtStart {
    /// What a rendered prompt leads to, under the template `source`.
    pub fn of_prompt(source: &str, prompt: &str) -> Self {
        let prompt = prompt.trim_end();
        let shown =
            |fits: &dyn Fn(ThoughtMarks) -> bool| ThoughtMarks::ALL.into_iter().find(|marks| fits(*marks));
        if harmony::is_shown(source) {
            // Behind anything else a message goes on that the prompt began.
            let begins = prompt.rsplit_once(harmony::START).is_some_and(|(_, role)| !role.contains("<|"));
            if begins { Self::Channels } else { Self::Never }
        } else if let Some(marks) = shown(&|marks| prompt.ends_with(marks.open())) {
            Self::Open(marks)
        } else if shown(&|marks| prompt.ends_with(marks.close())).is_some() {
            Self::Never
        } else {
            shown(&|marks| source.contains(marks.close())).map_or(Self::Never, Self::Possible)
        }
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Thought.
    Thought(String),
    /// Said.
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing but white space and the start of a mark has come.
    Before,
    /// The same, in a thought that the prompt opened.
    Opened,
    /// In the thought; `true` once it has a character that is not white space.
    Inside(bool),
    /// Behind it, in the white space.
    After,
    Done,
}

/// Tells thoughts apart.
#[derive(Debug)]
pub struct ThoughtFilter {
    marks: ThoughtMarks,
    state: State,
    held: String,
    /// Does the work where there are channels.
    channels: Option<Channels>,
}

impl ThoughtFilter {
    /// For an answer that begins so.
    pub fn new(start: ThoughtStart) -> Self {
        let state = match start {
            ThoughtStart::Never | ThoughtStart::Channels => State::Done,
            ThoughtStart::Possible(_) => State::Before,
            ThoughtStart::Open(_) => State::Opened,
        };
        let channels = (start == ThoughtStart::Channels).then(Channels::default);
        let marks = match start {
            ThoughtStart::Possible(marks) | ThoughtStart::Open(marks) => marks,
            ThoughtStart::Never | ThoughtStart::Channels => ThoughtMarks::default(),
        };
        Self { marks, state, held: String::new(), channels }
    }

    /// The model is thinking.
    pub fn inside(&self) -> bool {
        self.channels
            .as_ref()
            .map_or(matches!(self.state, State::Opened | State::Inside(_)), Channels::inside)
    }

    /// Takes a piece of text; returns what is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Told> {
        if let Some(channels) = &mut self.channels {
            return channels.push(text);
        }
        self.held.push_str(text);
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Vec<Told> {
        if let Some(channels) = &mut self.channels {
            return channels.finish();
        }
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::new();
        match self.state {
            State::Before | State::Done => say(&mut out, held),
            State::Opened => think(&mut out, held.trim().to_owned()),
            State::Inside(_) => think(&mut out, held.trim_end().to_owned()),
            State::After => {}
        }
        self.state = State::Done;
        out
    }

    /// One state's worth of progress; false when more text is needed.
    fn step(&mut self, out: &mut Vec<Told>) -> bool {
        let (open, close) = (self.marks.open(), self.marks.close());
        match self.state {
            State::Before => {
                let begun = self.held.trim_start();
                if let Some(rest) = begun.strip_prefix(open) {
                    self.held = rest.to_owned();
                    self.state = State::Inside(false);
                    return true;
                }
                if open.starts_with(begun) {
                    return false;
                }
                self.state = State::Done;
                true
            }
            State::Opened => {
                let begun = self.held.trim_start();
                if let Some(rest) = begun.strip_prefix(open) {
                    self.held = rest.to_owned();
                } else if open.starts_with(begun) {
                    return false;
                }
                self.state = State::Inside(false);
                true
            }
            State::Inside(begun) => {
                if !begun {
                    self.held = self.held.trim_start().to_owned();
                    self.state = State::Inside(!self.held.is_empty());
                }
                if let Some(at) = self.held.find(close) {
                    think(out, self.held[..at].trim_end().to_owned());
                    self.held.drain(..at + close.len());
                    self.state = State::After;
                    return true;
                }
                // White space before the closing mark belongs to it, so it waits with the mark's first characters.
                let certain = self.held.len() - held_suffix(&self.held, close);
                let certain = self.held[..certain].trim_end().len();
                let rest = self.held.split_off(certain);
                think(out, std::mem::replace(&mut self.held, rest));
                false
            }
            State::After => {
                self.held = self.held.trim_start().to_owned();
                if self.held.is_empty() {
                    return false;
                }
                self.state = State::Done;
                true
            }
            State::Done => {
                say(out, std::mem::take(&mut self.held));
                false
            }
        }
    }
}

fn say(out: &mut Vec<Told>, text: String) {
    if !text.is_empty() {
        out.push(Told::Text(text));
    }
}

fn think(out: &mut Vec<Told>, text: String) {
    if !text.is_empty() {
        out.push(Told::Thought(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::testing::cut;
    use proptest::prelude::*;

    fn run<'a>(start: ThoughtStart, pieces: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut filter = ThoughtFilter::new(start);
        let mut all: Vec<Told> = pieces.into_iter().flat_map(|piece| filter.push(piece)).collect();
        all.extend(filter.finish());
        let (mut thought, mut said) = (String::new(), String::new());
        for told in all {
            match told {
                Told::Thought(text) => thought.push_str(&text),
                Told::Text(text) => said.push_str(&text),
            }
        }
        (thought, said)
    }

    fn starts() -> (ThoughtStart, ThoughtStart, ThoughtStart) {
        (
            ThoughtStart::Never,
            ThoughtStart::Open(ThoughtMarks::Think),
            ThoughtStart::Possible(ThoughtMarks::Think),
        )
    }

    #[test]
    fn thoughts_in_brackets_are_told_apart_wherever_they_are_cut() {
        let text = "[THINK]Hm, [TOOL_CALLS]a[ARGS] or </think>?[/THINK]Sure.";
        let start = ThoughtStart::of_prompt("[THINK]...[/THINK]", "[/INST]");
        let said = ("Hm, [TOOL_CALLS]a[ARGS] or </think>?".to_owned(), "Sure.".to_owned());
        for at in 0..=text.len() {
            assert_eq!(run(start, [&text[..at], &text[at..]]), said, "cut at {at}");
        }
    }

    #[test]
    fn thoughts_of_gemma_4_are_told_apart_wherever_they_are_cut() {
        let (source, text) =
            ("{{ '<|channel>thought' }}...<channel|>", "<|channel>thought\nHm.\n<channel|>Sure.");
        let start = ThoughtStart::of_prompt(source, "<|turn>model\n");
        for at in 0..=text.len() {
            let said = ("Hm.".to_owned(), "Sure.".to_owned());
            assert_eq!(run(start, [&text[..at], &text[at..]]), said, "cut at {at}");
        }
        let none = ThoughtStart::of_prompt(source, "<|turn>model\n<|channel>thought\n<channel|>");
        assert_eq!(none, ThoughtStart::Never);
    }

    #[test]
    fn thoughts_are_told_apart_wherever_they_were_opened() {
        let (never, open, possible) = starts();
        for (start, text, thought, said) in [
            (possible, "<think>\nHm, 2 < 3.\n\nYes.\n</think>\n\nSure. ", "Hm, 2 < 3.\n\nYes.", "Sure. "),
            (open, "\nHm.\n</think>\n\nSure.", "Hm.", "Sure."),
            (open, "<think>\nHm, <think>?\n</think>\n\nSure.", "Hm, <think>?", "Sure."),
            (open, "<think></think><think>", "", "<think>"),
            (open, "<thi", "<thi", ""),
            (open, "<thin</think>Sure.", "<thin", "Sure."),
            (possible, "<think>\n\n</think>\n\nSure.", "", "Sure."),
            (possible, "Sure <think>x</think>", "", "Sure <think>x</think>"),
            (never, "<think>x</think>y", "", "<think>x</think>y"),
            (possible, "<think>cut off ", "cut off", ""),
            (open, "a </thin", "a </thin", ""),
            (possible, " <thi", "", " <thi"),
            (possible, "<think>a</think>", "a", ""),
            (possible, "  spaces stay", "", "  spaces stay"),
        ] {
            assert_eq!(run(start, [text]), (thought.to_owned(), said.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn the_prompt_tells_what_comes() {
        let source = "{{ '<think>' }}...</think>";
        for (prompt, start) in [
            ("<|im_start|>assistant\n", ThoughtStart::Possible(ThoughtMarks::Think)),
            ("<|im_start|>assistant\n<think>\n", ThoughtStart::Open(ThoughtMarks::Think)),
            ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ThoughtStart::Never),
        ] {
            assert_eq!(ThoughtStart::of_prompt(source, prompt), start, "{prompt}");
        }
        assert_eq!(ThoughtStart::of_prompt("plain", "assistant\n"), ThoughtStart::Never);
    }

    #[test]
    fn nothing_is_kept_waiting_without_need() {
        let mut filter = ThoughtFilter::new(ThoughtStart::Possible(ThoughtMarks::Think));
        assert_eq!(filter.push("<think>a "), [Told::Thought("a".into())]);
        assert_eq!(filter.push("b<"), [Told::Thought(" b".into())]);
        assert_eq!(filter.push("c"), [Told::Thought("<c".into())]);
        assert_eq!(filter.push("</think>\n\nSure"), [Told::Text("Sure".into())]);
        assert_eq!(filter.push(" \n"), [Told::Text(" \n".into())]);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_pieces(text in "(<think>|\n){0,3}[ab <\n]{0,8}(</think>)?[ab <\n]{0,8}", cuts in prop::collection::vec(1_usize..6, 0..30), open: bool) {
            let start = if open { ThoughtStart::Open(ThoughtMarks::Think) } else { ThoughtStart::Possible(ThoughtMarks::Think) };
            prop_assert_eq!(run(start, cut(&text, &cuts)), run(start, [text.as_str()]));
        }
    }
}
