use proptest::prelude::*;

use super::super::plan::Ask;
use super::super::record::Failure;
use super::*;
use crate::cli::client::{Answer, ToolCall, Usage};

pub fn record(place: usize, outcome: Result<Answer, Failure>) -> Record {
    let ask = Ask { max_tokens: 8, row: "row".into(), series: "row".into(), ..Ask::default() };
    let unsent = Failure::after_failure();
    Record { outcome, took: Duration::from_millis(10), ..Record::new("chat", 0, place, &ask, unsent) }
}

pub fn answer(text: &str, tokens: Option<u64>) -> Answer {
    let usage = Usage { prompt_tokens: tokens, cached_tokens: None, completion_tokens: tokens };
    let (ttft, total) = (Duration::from_millis(4), Duration::from_millis(10));
    let gaps = vec![Duration::from_millis(2); 3];
    Answer {
        text: text.into(),
        finish_reason: "length".into(),
        usage,
        ttft,
        gaps,
        total,
        ..Answer::default()
    }
}

fn only_row(records: &[Record]) -> Row {
    let mut rows = rows(records);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

proptest! {
    #[test]
    fn quantiles_are_within_a_thousandth_of_the_ordered_values(
        mut values in proptest::collection::vec(1u64..10_000_000, 1..300)
    ) {
        let found = Quantiles::of(values.iter().map(|us| Duration::from_micros(*us))).unwrap();
        values.sort_unstable();
        for (share, found) in [(0.5, found.p50), (0.95, found.p95), (0.99, found.p99), (1.0, found.max)] {
            let rank = ((share * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64 / 1e3;
            prop_assert!((found - exact).abs() <= exact * 1e-3 + 1e-3, "{share}: {found}, exactly {exact}");
        }
        prop_assert_eq!(found.count, values.len() as u64);
    }

    #[test]
    fn busy_time_is_the_length_of_the_union(spans in proptest::collection::vec((0u64..60, 0u64..20), 0..12)) {
        let records: Vec<_> = spans
            .iter()
            .map(|(from, length)| Record {
                began: Duration::from_millis(*from),
                took: Duration::from_millis(*length),
                ..record(0, Ok(answer("x", None)))
            })
            .collect();
        let covered = (0..80).filter(|ms| spans.iter().any(|(from, length)| (*from..from + length).contains(ms)));
        let found = busy(&records.iter().collect::<Vec<_>>());
        prop_assert_eq!(found, Duration::from_millis(covered.count() as u64));
    }
}

#[test]
fn empty_short_and_failed_answers_are_counted_and_not_hidden() {
    let cut = Failure { kind: "no [DONE]".into(), text: String::new() };
    let row = only_row(&[
        record(0, Ok(answer("whole", Some(8)))),
        record(1, Ok(answer("short", Some(7)))),
        record(2, Ok(Answer { gaps: vec![], ..answer("", Some(0)) })),
        record(3, Err(cut.clone())),
        record(4, Err(cut)),
    ]);
    assert_eq!((row.requests, row.answered, row.empty, row.early), (5, 3, 1, 2));
    assert_eq!(row.errors, BTreeMap::from([("no [DONE]".to_owned(), 2)]));
    let counts =
        (row.ttft_ms.unwrap().count, row.inter_token_ms.unwrap().count, row.end_to_end_ms.unwrap().count);
    assert_eq!(counts, (2, 6, 3));
}

#[test]
fn what_the_server_does_not_say_is_unknown() {
    let row = only_row(&[record(0, Ok(answer("x", None)))]);
    assert_eq!((row.prompt_tokens, row.cached_tokens, row.output_tokens), (None, None, None));
    assert_eq!((row.output_tokens_per_s, row.early), (None, 0));
    let stopped = Answer { finish_reason: "stop".into(), ..answer("x", None) };
    assert_eq!(only_row(&[record(0, Ok(stopped))]).early, 1);
}

#[test]
fn tokens_per_second_count_time_in_which_requests_ran() {
    let later = Record { began: Duration::from_secs(9), ..record(1, Ok(answer("x", Some(5)))) };
    let row = only_row(&[record(0, Ok(answer("x", Some(5)))), later]);
    assert_eq!((row.busy_ms, row.output_tokens_per_s), (20.0, Some(500.0)));
}

#[test]
fn the_digest_depends_on_what_was_said_and_its_order_alone() {
    let digest = |records: &[Record]| only_row(records).digest;
    let (a, b) = (|place| record(place, Ok(answer("a", None))), |place| record(place, Ok(answer("b", None))));
    let one = digest(&[a(0), b(1)]);
    assert_eq!(digest(&[b(1), a(0)]), one, "the order in which requests end does not matter");
    assert_ne!(digest(&[b(0), a(1)]), one);
    let slow = Answer { ttft: Duration::from_secs(1), ..answer("a", Some(3)) };
    assert_eq!(digest(&[record(0, Ok(slow)), b(1)]), one);
    let call = |id: &str, arguments: &str| {
        let call = ToolCall { id: id.into(), name: "f".into(), arguments: arguments.into() };
        digest(&[record(0, Ok(Answer { tool_calls: vec![call], ..Answer::default() }))])
    };
    assert_eq!(call("1", "{}"), call("2", "{}"));
    assert_ne!(call("1", "{}"), call("1", "[]"));
}
