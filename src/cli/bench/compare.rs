//! Two servers of one run, row by row: the same requests, paired.
//!
//! A ratio is the second server's figure over the first one's. For times it is the median of the ratios of pairs, each the
//! same request to both, made in turns: what slows the machine for a while slows both sides of a pair.

use serde::Serialize;

use super::record::{Record, ms};
use super::stats::Row;
use crate::cli::client::Answer;

/// One row of both.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// The scenario.
    pub scenario: &'static str,
    /// The row's name in it.
    pub row: String,
    /// Time to the first token.
    pub ttft_ms: Ratio,
    /// Time per token after the first.
    pub per_token_ms: Ratio,
    /// Time to the end.
    pub end_to_end_ms: Ratio,
    /// Output tokens over the time in which requests ran.
    pub output_tokens_per_s: Ratio,
    /// Requests that both answered.
    pub both_answered: usize,
    /// Of these, with the same text and calls.
    pub same_answers: usize,
}

/// Both servers' figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ratio {
    /// The first's and the second's median; `None`: not both have one.
    pub median: Option<[f64; 2]>,
    /// The second's over the first's.
    pub ratio: Option<f64>,
}

/// The pairs of a run with two servers.
pub fn pairs(rows: &[Row], records: &[Record]) -> Vec<Pair> {
    let firsts = rows.iter().filter(|row| row.server == 0);
    firsts
        .filter_map(|one| {
            let two = rows
                .iter()
                .find(|two| (two.server, two.scenario, &two.name) == (1, one.scenario, &one.name))?;
            let own = |server| {
                let mut own: Vec<&Record> = records
                    .iter()
                    .filter(|record| {
                        (record.server, record.scenario, &record.row) == (server, one.scenario, &one.name)
                    })
                    .collect();
                own.sort_by_key(|record| record.place);
                own
            };
            Some(Pair::of(one, two, &own(0), &own(1)))
        })
        .collect()
}

impl Pair {
    fn of(one: &Row, two: &Row, first: &[&Record], second: &[&Record]) -> Self {
        let answers: Vec<(&Answer, &Answer)> = first
            .iter()
            .filter_map(|a| {
                let b = second.iter().find(|b| b.place == a.place)?;
                Some((a.outcome.as_ref().ok()?, b.outcome.as_ref().ok()?))
            })
            .collect();
        let times = |of: fn(&Answer) -> Option<f64>| {
            let both = answers.iter().filter_map(|(a, b)| Some([of(a)?, of(b)?])).collect::<Vec<_>>();
            let side = |side: usize| median(both.iter().map(|pair| pair[side]).collect());
            Ratio {
                median: side(0).zip(side(1)).map(|(a, b)| [a, b]),
                ratio: median(both.iter().filter(|[a, _]| *a > 0.0).map(|[a, b]| b / a).collect()),
            }
        };
        let rates = one.output_tokens_per_s.zip(two.output_tokens_per_s);
        Self {
            scenario: one.scenario,
            row: one.name.clone(),
            ttft_ms: times(|answer| (!answer.is_empty()).then(|| ms(answer.ttft))),
            per_token_ms: times(Answer::per_token_ms),
            end_to_end_ms: times(|answer| Some(ms(answer.total))),
            output_tokens_per_s: Ratio {
                median: rates.map(|(a, b)| [a, b]),
                ratio: rates.filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a),
            },
            both_answered: answers.len(),
            same_answers: answers.iter().filter(|(a, b)| same(a, b)).count(),
        }
    }
}

fn same(a: &Answer, b: &Answer) -> bool {
    let calls = |answer: &Answer| -> Vec<(String, String)> {
        answer.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect()
    };
    (&a.text, calls(a)) == (&b.text, calls(b))
}

/// The middle one, or the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    let upper = *values.get(half)?;
    Some(if odd { upper } else { f64::midpoint(values[half - 1], upper) })
}
