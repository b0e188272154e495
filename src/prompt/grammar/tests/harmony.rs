//! Grammars of answers in channels.

use super::*;
use crate::prompt::{ThoughtFilter, Told};

const THOUGHT: &str = "<|channel|>analysis<|message|>Hm, <think> to=functions.pwd?<|end|><|start|>assistant";
const PWD: &str = "<|channel|>commentary to=functions.pwd <|constrain|>json<|message|>";

fn constraint(format: &Format) -> Box<dyn Constraint> {
    let grammars = grammars_of(ToolSyntax::Harmony);
    grammars.constraint(format, ThoughtStart::Channels, Strictness::Strict).unwrap()
}

fn takes(format: &Format, text: &str) -> bool {
    // Letter by letter: one of the marks is the end token of these tests.
    let (mut constraint, tokenizer) = (constraint(format), tokenizer());
    let mut fits = |c: char| {
        let ids = tokenizer.encode_rendered(&c.to_string()).unwrap();
        ids.into_iter().all(|id| constraint.advance(id).is_ok())
    };
    text.chars().all(&mut fits) && constraint.allowed().is_ok_and(|allowed| allowed.end)
}

#[test]
fn what_is_asked_for_has_its_channel() {
    let calls = || rules(CallCount::Several);
    let (json, demanded) = (Format::Json(json!({"type": "object"})), Format::Calls(calls()));
    let (free, none) = (Format::TextOrCalls(calls()), Format::NoCalls);
    let either = Format::JsonOrCalls(json!({"type": "object"}), calls());
    let turned = " to=functions.pwd<|channel|>commentary json<|message|>";
    for (text, taken) in [
        ("<|channel|>final<|message|>{}".to_owned(), [true, false, true, true, true]),
        ("<|channel|>final<|message|>Hi".to_owned(), [false, false, true, true, false]),
        ("<|channel|>commentary<|message|>Hi".to_owned(), [false, false, true, true, false]),
        (format!("{PWD}{{}}"), [false, true, true, false, true]),
        (format!("{turned}{{}}"), [false, false, true, false, false]),
        ("<|channel|>commentary to=functions.rm <|constrain|>json<|message|>{}".to_owned(), [false; 5]),
        ("<|channel|>final<|message|>x<|end|>".to_owned(), [false; 5]),
        ("Hi".to_owned(), [false; 5]),
    ] {
        for (format, taken) in [&json, &demanded, &free, &none, &either].into_iter().zip(taken) {
            assert_eq!(takes(format, &text), taken, "{format:?}: {text}");
            let thinking = format!("{THOUGHT}{THOUGHT}{text}");
            assert_eq!(takes(format, &thinking), taken, "{format:?}: {thinking}");
        }
    }
    let announced = format!("<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{PWD}{{}}");
    assert!(takes(&free, &announced) && !takes(&demanded, &announced));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn what_ends_is_read_as_what_was_demanded(seed: u64) {
        let mut constraint = constraint(&Format::Calls(rules(CallCount::Several)));
        for byte in PWD.bytes().take(20) {
            let token = tokenizer().encode_rendered(&char::from(byte).to_string()).unwrap();
            constraint.advance(token[0]).unwrap();
        }
        if let Some(text) = draw(&mut *constraint, seed, 600) {
            let mut filter = ThoughtFilter::new(ThoughtStart::Channels);
            let mut told = filter.push(&format!("{}{text}", &PWD[..20]));
            told.extend(filter.finish());
            let said = told.into_iter().map(|told| match told { Told::Text(text) | Told::Thought(text) => text });
            let (rest, calls) = calls(ToolSyntax::Harmony, &said.collect::<String>());
            prop_assert_eq!((rest.as_str(), calls.len()), ("", 1), "{}", text);
            prop_assert!(["pwd", "tell \"x\""].contains(&calls[0].0.as_str()) && is_object(&calls[0].1));
        }
    }
}
