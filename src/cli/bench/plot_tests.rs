use std::time::Duration;

use super::super::stats::tests::{answer, record};
use super::*;

fn point(server: usize, series: &str, x: f64, ttft_ms: u64) -> Record {
    let answer = Answer { ttft: Duration::from_millis(ttft_ms), ..answer("x", None) };
    Record { server, series: series.into(), x, ..record(0, Ok(answer)) }
}

fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|node| Some(node.text()?.trim().to_owned())).collect()
}

#[test]
fn a_picture_names_its_axes_units_and_series() {
    let records = [point(0, "cold", 512.0, 900), point(1, "cold", 512.0, 90), point(0, "warm <&>", 512.0, 9)];
    let panels = [Panel { scenario: "chat", axis: "context, tokens" }];
    let servers = ["A".to_owned(), "B".to_owned()];
    let svg = draw(&panels, &records, &servers, ["a title & more", "below it"]).unwrap();
    let texts = texts(&svg);
    let expected = ["a title & more", "below it", "chat", "context, tokens", "time to first token, ms"];
    for text in
        expected.into_iter().chain(["A: cold", "B: cold", "A: warm <&>", "time per further token, ms"])
    {
        assert!(texts.iter().any(|found| found == text), "{text} is not among {texts:?}");
    }
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("circle")).count(), 6);
}

#[test]
fn a_run_without_an_answer_is_a_picture_too() {
    let failed = record(0, Err(super::super::record::Failure::after_failure()));
    let panels = [Panel { scenario: "chat", axis: "turn" }, Panel { scenario: "never played", axis: "turn" }];
    let svg = draw(&panels, &[failed], &["A".to_owned()], ["", ""]).unwrap();
    assert!(texts(&svg).iter().any(|text| text == "chat: no time to first token, ms"), "{svg}");
    assert!(roxmltree::Document::parse(&draw(&panels, &[], &[], ["", ""]).unwrap()).is_ok());
}

#[test]
fn one_point_and_extreme_points_can_be_drawn() {
    let panels = [Panel { scenario: "chat", axis: "turn" }];
    for points in [vec![point(0, "a", 1.0, 0)], vec![point(0, "a", 0.0, 1), point(0, "a", 1e9, 3_600_000)]] {
        let svg = draw(&panels, &points, &["A".to_owned()], ["", ""]).unwrap();
        assert!(texts(&svg).contains(&"time to first token, ms".to_owned()));
    }
}

#[test]
fn few_places_are_marked_as_they_are_and_many_at_round_steps() {
    assert_eq!(places(vec![2048.0, 512.0, 512.0]), (vec![512.0, 2048.0], true));
    let many = (1..=24).map(f64::from).collect();
    assert_eq!(places(many), ((1..=4).map(|at| f64::from(at) * 5.0).collect(), false));
    assert_eq!(one_two_five(&(0.9..55.0)), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
    assert_eq!(
        [0.001, 0.25, 1.0, 100.0, 1500.0].map(|value| short(&value)),
        ["0.001", "0.25", "1", "100", "1500"]
    );
}
