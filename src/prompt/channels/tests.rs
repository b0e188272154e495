//! Laws of channels: what is told is the same wherever the answer is cut, and no mark of theirs is shown.

use super::*;
use crate::prompt::testing::{cut, read_until};
use crate::prompt::{CallEnd, Held, ThoughtFilter, ThoughtStart, ToolSyntax};

type Calls = Vec<(String, String)>;

/// Thoughts, what is said, and the calls in an answer that comes in these pieces.
fn read(pieces: Vec<&str>, calls_are: Held, end: CallEnd<'_>) -> (String, String, Calls, bool) {
    let mut filter = ThoughtFilter::new(ThoughtStart::Channels);
    let mut told: Vec<Told> = pieces.into_iter().flat_map(|piece| filter.push(piece)).collect();
    told.extend(filter.finish());
    let (mut thought, mut rest) = (String::new(), Vec::new());
    for part in told {
        match part {
            Told::Thought(text) => thought.push_str(&text),
            Told::Text(text) => rest.push(text),
        }
    }
    let mut reader = ToolSyntax::Harmony.reader(&[], calls_are);
    let (said, calls, was_cut) = read_until(&mut *reader, rest.iter().map(String::as_str), end);
    (thought, said, calls, was_cut)
}

fn whole(text: &str) -> (String, String, Calls) {
    let (thought, said, calls, was_cut) = read(vec![text], Held::ToNothing, CallEnd::Model);
    assert!(!was_cut);
    (thought, said, calls)
}

const ANSWER: &str = "<|channel|>analysis<|message|>Is <|call|er> to=functions.rm a call? N\u{f6}.<|end|><|start|>assistant\
<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>analysis<|message|>Now.<|end|>\
<|start|>assistant<|channel|>commentary to=functions.ls <|constrain|>json<|message|>{\"path\": \"/\u{e9}<|\"}";

#[test]
fn channels_are_told_apart_wherever_the_answer_is_cut() {
    let calls = vec![("ls".to_owned(), "{\"path\":\"/\u{e9}<|\"}".to_owned())];
    let expected =
        ("Is <|call|er> to=functions.rm a call? N\u{f6}.\n\nNow.".to_owned(), "I look.".to_owned(), calls);
    for ending in ["", "<|call|>"] {
        let text = format!("{ANSWER}{ending}");
        for calls_are in [Held::ToNothing, Held::Everywhere] {
            let of = |pieces: Vec<&str>| {
                let (thought, said, calls, was_cut) = read(pieces, calls_are, CallEnd::Model);
                assert!(!was_cut);
                (thought, said, calls)
            };
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (first, second) = text.split_at(at);
                assert_eq!(of(vec![first, second]), expected, "cut at {at}");
            }
            assert_eq!(of(cut(&text, &vec![1; text.chars().count()])), expected);
        }
    }
}

#[test]
fn headers_are_read_in_every_form() {
    let one = |name: &str| vec![(name.to_owned(), "{\"a\":1}".to_owned())];
    let none = Vec::new;
    for (text, thought, said, calls) in [
        ("<|channel|>final<|message|>Sure.", "", "Sure.", none()),
        ("<|channel|>final<|message|>Sure.<|return|>", "", "Sure.", none()),
        ("<|channel|>final <|constrain|>json<|message|>{}", "", "{}", none()),
        ("<|channel|>final<|message|> a <b> \n", "", " a <b> \n", none()),
        (" to=functions.f<|channel|>commentary json<|message|>{\"a\": 1}<|call|>", "", "", one("f")),
        (" to=functions.f<|channel|>commentary <|constrain|>json<|message|>{\"a\": 1}", "", "", one("f")),
        ("<|channel|>commentary to=functions.a.b<|message|>{\"a\": 1}<|call|>", "", "", one("a.b")),
        ("<|channel|>analysis to=python code<|message|>{\"a\": 1}<|call|>", "", "", one("python")),
        ("<|channel|>analysis<|message|>cut off", "cut off", "", none()),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant", "a", "", none()),
        ("Sure, no header.", "", "Sure, no header.", none()),
        ("<b>bold</b>", "", "<b>bold</b>", none()),
        ("  x", "", "  x", none()),
    ] {
        assert_eq!(whole(text), (thought.to_owned(), said.to_owned(), calls), "{text}");
    }
}

#[test]
fn a_call_that_is_cut_off_is_no_text() {
    let begins = ANSWER.rfind("<|start|>").unwrap();
    for at in (begins..ANSWER.len()).filter(|at| ANSWER.is_char_boundary(*at)) {
        for calls_are in [Held::ToNothing, Held::Everywhere] {
            let (_, said, calls, was_cut) = read(vec![&ANSWER[..at]], calls_are, CallEnd::Length);
            assert_eq!((said.as_str(), calls.len()), ("I look.", 0), "{}", &ANSWER[begins..at]);
            assert_eq!(was_cut, ANSWER[begins..at].contains("to="), "{}", &ANSWER[begins..at]);
        }
    }
}

#[test]
fn the_prompt_tells_whether_a_message_begins() {
    let source = "{{ '<|start|>assistant<|channel|>final<|message|>' }}";
    for (prompt, start) in [
        ("<|start|>user<|message|>Hi<|end|><|start|>assistant", ThoughtStart::Channels),
        ("<|start|>assistant<|channel|>final<|message|>So", ThoughtStart::Never),
    ] {
        assert_eq!(ThoughtStart::of_prompt(source, prompt), start, "{prompt}");
    }
}
