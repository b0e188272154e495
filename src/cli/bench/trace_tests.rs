use super::super::scenario::tests::workload;
use super::super::workload::Workload;
use super::*;

fn rounds(text: &str, workload: &Workload) -> (&'static str, Vec<Round>) {
    let planner = Planner { workload, salt: "s", tokens_per_word: 1.0, can_restart: false, trace: None };
    Trace::parse(text).unwrap().rounds(&planner)
}

fn content(ask: &Ask) -> &str {
    ask.messages[0]["content"].as_str().unwrap()
}

const TWO: &str = r#"{"timestamp": 0, "input_length": 1200, "output_length": 50, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 1100, "output_length": 3, "hash_ids": [0, 1, 7]}"#;

#[test]
fn equal_hashes_are_equal_text_and_others_are_not() {
    let (axis, rounds) = rounds(TWO, &workload(""));
    let [one, two] = &rounds[0].asks[..] else { panic!("{rounds:?}") };
    let shared = content(one).bytes().zip(content(two).bytes()).take_while(|(a, b)| a == b).count();
    let words = |text: &str| text.split_whitespace().count();
    assert_eq!((words(content(one)), words(content(two))), (1200, 1100));
    let shared = words(&content(one)[..shared]);
    assert!((1024..1030).contains(&shared), "{shared}");
    assert_eq!((axis, rounds[0].pace), ("arrival, seconds", Pace::Schedule));
    assert_eq!((one.max_tokens, two.max_tokens), (50, 3));
    assert_eq!((one.due, two.due), (Duration::ZERO, Duration::from_secs(3)));
}

#[test]
fn a_block_that_is_cut_begins_like_the_whole_one() {
    let text = r#"{"input_length": 100, "hash_ids": [4]}
{"input_length": 512, "hash_ids": [4]}"#;
    let (_, rounds) = rounds(text, &workload("--clients 3"));
    let [one, two] = &rounds[0].asks[..] else { panic!("{rounds:?}") };
    assert!(content(two).starts_with(content(one).trim_end()), "{} {}", content(one), content(two));
    assert_eq!((rounds[0].pace, one.max_tokens), (Pace::Clients(3), 32));
}

#[test]
fn a_trace_can_be_shortened_sped_up_and_scaled() {
    let workload = workload("--trace-requests 1 --trace-lengths 0.1 --trace-speed 2");
    let (_, shorter) = rounds(TWO, &workload);
    assert_eq!(shorter[0].asks.len(), 1);
    assert_eq!(content(&shorter[0].asks[0]).split_whitespace().count(), 51 + 51 + 18);
    assert_eq!(shorter[0].asks[0].max_tokens, 5);
    let (_, faster) = rounds(TWO, &super::super::scenario::tests::workload("--trace-speed 2"));
    assert_eq!(faster[0].asks[1].due, Duration::from_millis(1500));
}

#[test]
fn whole_messages_are_sent_as_they_are() {
    let text = r#"{"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function"}], "output_length": 4}"#;
    let (axis, rounds) = rounds(text, &workload(""));
    let ask = &rounds[0].asks[0];
    assert_eq!((content(ask), ask.tools.len(), ask.max_tokens, axis), ("Hi", 1, 4, "request, in order"));
}

#[test]
fn a_bad_line_is_named_with_what_is_wrong() {
    let bad = [
        ("", "no request"),
        ("\n{", "line 2"),
        (r#"{"input_length": 600, "hash_ids": [1]}"#, "1 hash_ids; expected 2"),
        (r#"{"input_length": 0}"#, "input_length is 0"),
        (r#"{"hash_ids": [1]}"#, "neither messages nor input_length"),
        (r#"{"input_length": 1, "hash_ids": [1], "messages": [{}]}"#, "messages and input_length"),
        (r#"{"input_length": -1, "hash_ids": [1]}"#, "line 1"),
        (r#"{"messages": [{}], "session": "x"}"#, "unknown field `session`"),
        (r#"{"messages": [{}], "timestamp": -4}"#, "timestamp is -4"),
        (r#"{"messages": [{}], "timestamp": 1e300}"#, "timestamp is 1"),
        ("{\"messages\": [{}], \"timestamp\": 4}\n{\"messages\": [{}]}", "all or none"),
        (
            "{\"messages\": [{}], \"timestamp\": 4}\n{\"messages\": [{}], \"timestamp\": 3}",
            "order of arrival",
        ),
    ];
    for (text, expected) in bad {
        let error = format!("{:#}", Trace::parse(text).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
    }
}
