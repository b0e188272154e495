//! The tables that a run prints: every row measured, and with two servers each row side by side.

use comfy_table::{CellAlignment, Table, presets};

use super::compare::Pair;
use super::stats::{Quantiles, Row};

/// Of an unknown figure.
const UNKNOWN: &str = "-";

/// Every row of every server.
pub fn measured(rows: &[Row], servers: &[String]) -> Table {
    let mut table = with_header(
        &[
            "server",
            "scenario",
            "row",
            "requests",
            "prompt\ntokens",
            "cached\ntokens",
            "TTFT ms\np50 / p95 / p99",
            "inter-token ms\np50 / p95 / p99",
            "end to end ms\np50 / p95 / p99",
            "output\ntokens/s",
            "empty",
            "early",
            "errors",
            "digest",
        ],
        3..13,
    );
    for row in rows {
        let errors: Vec<_> = row.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let per_answer = |tokens: Option<u64>| {
            tokens
                .map_or(UNKNOWN.into(), |tokens| format!("{:.0}", tokens as f64 / row.answered.max(1) as f64))
        };
        table.add_row([
            servers[row.server].clone(),
            row.scenario.to_owned(),
            row.name.clone(),
            row.requests.to_string(),
            per_answer(row.prompt_tokens),
            per_answer(row.cached_tokens),
            three(row.ttft_ms.as_ref()),
            three(row.inter_token_ms.as_ref()),
            three(row.end_to_end_ms.as_ref()),
            row.output_tokens_per_s.map_or(UNKNOWN.into(), |rate| format!("{rate:.1}")),
            row.empty.to_string(),
            row.early.to_string(),
            if errors.is_empty() { "0".into() } else { errors.join("\n") },
            row.digest.chars().take(8).collect(),
        ]);
    }
    table
}

/// Two servers row by row: medians of both, and the median of the ratios of the same request to both.
pub fn side_by_side(pairs: &[Pair], servers: &[String]) -> Table {
    let [one, two] = servers else { return Table::new() };
    let both = |what: &str| format!("{what}\n{one} : {two} = ratio");
    let heads = [
        "scenario".to_owned(),
        "row".to_owned(),
        both("TTFT ms"),
        both("ms per further token"),
        both("end to end ms"),
        both("output tokens/s"),
        "same answers".to_owned(),
    ];
    let mut table = with_header(&heads.each_ref().map(String::as_str), 2..7);
    for pair in pairs {
        let times = |found: &super::compare::Ratio| match found.median {
            Some([one, two]) => format!("{} : {} = {}", number(one), number(two), ratio(found.ratio)),
            None => UNKNOWN.into(),
        };
        table.add_row([
            pair.scenario.to_owned(),
            pair.row.clone(),
            times(&pair.ttft_ms),
            times(&pair.per_token_ms),
            times(&pair.end_to_end_ms),
            times(&pair.output_tokens_per_s),
            format!("{} of {}", pair.same_answers, pair.both_answered),
        ]);
    }
    table
}

fn with_header(heads: &[&str], right: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(heads);
    for column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn three(quantiles: Option<&Quantiles>) -> String {
    quantiles.map_or(UNKNOWN.into(), |q| format!("{} / {} / {}", number(q.p50), number(q.p95), number(q.p99)))
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
