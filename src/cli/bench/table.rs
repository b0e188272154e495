//! The tables that a run prints: of every row its times and its counts, and with two servers each row side by side.

use super::compare::Pair;
use super::stats::{Quantiles, Row};
use crate::cli::table::Table;

/// Of an unknown figure.
const UNKNOWN: &str = "-";

/// How long every row of every server took.
pub fn times(rows: &[Row], servers: &[String]) -> Table {
    let three = |what: &str| format!("{what}\np50 p95 p99");
    let heads =
        [String::new(), "requests".into(), three("TTFT ms"), three("inter-token ms"), three("end to end ms")];
    let mut table = Table::new(&heads.each_ref().map(String::as_str), &[1, 2, 3, 4]);
    for row in rows {
        table.add([
            name(row, servers),
            row.requests.to_string(),
            quantiles(row.ttft_ms.as_ref()),
            quantiles(row.inter_token_ms.as_ref()),
            quantiles(row.end_to_end_ms.as_ref()),
        ]);
    }
    table
}

/// What came of every row of every server.
pub fn counts(rows: &[Row], servers: &[String]) -> Table {
    let heads =
        ["", "prompt\ntokens", "cached\ntokens", "output\ntokens/s", "empty", "early", "errors", "digest"];
    let mut table = Table::new(&heads, &[1, 2, 3, 4, 5, 6, 7]);
    for row in rows {
        let per_answer = |tokens: Option<u64>| {
            tokens
                .map_or(UNKNOWN.into(), |tokens| format!("{:.0}", tokens as f64 / row.answered.max(1) as f64))
        };
        table.add([
            name(row, servers),
            per_answer(row.prompt_tokens),
            per_answer(row.cached_tokens),
            row.output_tokens_per_s.map_or(UNKNOWN.into(), number),
            row.empty.to_string(),
            row.early.to_string(),
            row.errors.values().sum::<usize>().to_string(),
            row.digest.chars().take(8).collect(),
        ]);
    }
    table
}

/// Scenario and row, and of several servers which.
fn name(row: &Row, servers: &[String]) -> String {
    let name = format!("{} {}", row.scenario, row.name);
    if servers.len() > 1 { format!("{} {name}", servers[row.server]) } else { name }
}

/// Two servers row by row: medians of both, and the median of the ratios of the same request to both.
pub fn side_by_side(pairs: &[Pair], servers: &[String]) -> Table {
    let [one, two] = servers else { return Table::new(&[], &[]) };
    let both = |what: &str| format!("{what}\n{one} : {two} = ratio");
    let heads = [
        String::new(),
        both("TTFT ms"),
        both("ms per token"),
        both("end to end ms"),
        both("tokens/s"),
        "same\nanswers".to_owned(),
    ];
    let mut table = Table::new(&heads.each_ref().map(String::as_str), &[1, 2, 3, 4, 5]);
    for pair in pairs {
        let times = |found: &super::compare::Ratio| match found.median {
            Some([one, two]) => format!("{} : {} = {}", number(one), number(two), ratio(found.ratio)),
            None => UNKNOWN.into(),
        };
        table.add([
            format!("{} {}", pair.scenario, pair.row),
            times(&pair.ttft_ms),
            times(&pair.per_token_ms),
            times(&pair.end_to_end_ms),
            times(&pair.output_tokens_per_s),
            format!("{} of {}", pair.same_answers, pair.both_answered),
        ]);
    }
    table
}

fn quantiles(found: Option<&Quantiles>) -> String {
    found.map_or(UNKNOWN.into(), |q| format!("{} {} {}", number(q.p50), number(q.p95), number(q.p99)))
}

/// Three digits are all that a measurement has.
fn number(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or(UNKNOWN.into(), |ratio| format!("{ratio:.2}"))
}
