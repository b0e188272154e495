//! The run as one SVG picture: a line of panels per scenario, time to the first token left, per further token right.
//!
//! A dot is a request; where requests share places of the horizontal axis, a line joins their medians. Each server's series
//! has a colour of its own. Times are on a logarithmic axis, because warm and cold are powers of ten apart.

use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

use super::compare::median;
use super::record::{Record, ms};
use crate::cli::client::Answer;

/// Told apart by colour-blind people too (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(0, 0, 0),
];
const PANEL: (u32, u32) = (620, 330);
const HEAD: u32 = 64;

/// One scenario of the picture.
pub struct Panel<'a> {
    /// The scenario's name.
    pub scenario: &'a str,
    /// What its horizontal axis shows.
    pub axis: &'a str,
}

/// What a panel shows of an answer, in milliseconds.
type Figure = fn(&Answer) -> Option<f64>;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A name and its points, left to right.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Draws `records`. `title` and `subtitle` say what was measured where.
pub fn draw(
    panels: &[Panel<'_>],
    records: &[Record],
    servers: &[String],
    [title, subtitle]: [&str; 2],
) -> anyhow::Result<String> {
    let panels: Vec<_> =
        panels.iter().filter(|panel| records.iter().any(|r| r.scenario == panel.scenario)).collect();
    let size = (2 * PANEL.0, HEAD + PANEL.1 * panels.len().max(1) as u32);
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        page.fill(&WHITE).map_err(failed)?;
        let (head, body) = page.split_vertically(HEAD);
        head.draw_text(title, &("sans-serif", 20).into_text_style(&head), (20, 12)).map_err(failed)?;
        head.draw_text(subtitle, &("sans-serif", 13).into_text_style(&head), (20, 40)).map_err(failed)?;
        let areas = body.split_evenly((panels.len().max(1), 2));
        let figures: [(&str, Figure); 2] = [
            ("time to first token, ms", |answer| (!answer.is_empty()).then(|| ms(answer.ttft))),
            ("time per further token, ms", Answer::per_token_ms),
        ];
        for (line, panel) in panels.iter().enumerate() {
            for (column, (label, figure)) in figures.iter().enumerate() {
                let series = series(panel.scenario, records, servers, *figure);
                draw_panel(&areas[2 * line + column], panel, label, &series)?;
            }
        }
        page.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the plot could not be drawn: {error}")
}

fn series(scenario: &str, records: &[Record], servers: &[String], figure: Figure) -> Vec<Series> {
    let mut found = Vec::<Series>::new();
    let mut ordered: Vec<_> = records.iter().filter(|record| record.scenario == scenario).collect();
    ordered.sort_by_key(|record| (record.place, record.server));
    for record in ordered {
        let name = match servers {
            [_] => record.series.clone(),
            _ => format!("{}: {}", servers[record.server], record.series),
        };
        let value = record.outcome.as_ref().ok().and_then(figure);
        // Zero has no place on a logarithmic axis; clocks count microseconds.
        let Some(value) = value.map(|value| value.max(1e-3)) else { continue };
        match found.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push((record.x, value)),
            None => found.push(Series { name, points: vec![(record.x, value)] }),
        }
    }
    for series in &mut found {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    found
}

impl Series {
    /// The median at each place that has points.
    fn medians(&self) -> Vec<(f64, f64)> {
        let same_x = self.points.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq());
        same_x.filter_map(|at| Some((at[0].0, median(at.iter().map(|point| point.1).collect())?))).collect()
    }
}

/// The values' range with a margin; something drawable when there are none.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { 0.0..1.0 } else { low..high }
}

fn draw_panel(area: &Area<'_>, panel: &Panel<'_>, label: &str, series: &[Series]) -> anyhow::Result<()> {
    let points = || series.iter().flat_map(|series| &series.points);
    if points().next().is_none() {
        let text = format!("{}: no {label}", panel.scenario);
        area.draw_text(&text, &("sans-serif", 14).into_text_style(area), (60, 40)).map_err(failed)?;
        return Ok(());
    }
    let (x, y) = (range(points().map(|point| point.0)), range(points().map(|point| point.1)));
    let margin = (x.end - x.start).max(1.0) * 0.04;
    let (places, shared) = places(points().map(|point| point.0).collect());
    // Wide enough for a line of the 1, 2, 5 kind.
    let y = y.start * 0.6..y.end * 1.6;
    let lines = one_two_five(&y);
    let across = Axis { range: (x.start - margin)..(x.end + margin), marks: places, scale: |x| x };
    let up = Axis { range: y, marks: lines, scale: f64::ln };
    let area = draw_head(area, panel.scenario, series)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(across, up)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(panel.axis)
        .y_desc(label)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 15))
        .draw()
        .map_err(failed)?;
    for (at, one) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let medians = one.medians();
        if shared && medians.len() > 1 {
            chart.draw_series(LineSeries::new(medians, colour.stroke_width(2))).map_err(failed)?;
        }
        let dots = one.points.iter().map(|point| Circle::new(*point, 3, colour.mix(0.6).filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    Ok(())
}

/// Writes a panel's name and its series over it, in as many lines as they take; returns what is left of it.
fn draw_head<'a>(area: &Area<'a>, name: &str, series: &[Series]) -> anyhow::Result<Area<'a>> {
    const LINE: i32 = 18;
    const LEFT: i32 = 190;
    let (mut x, mut y) = (LEFT, 10);
    let style = ("sans-serif", 15).into_text_style(area);
    area.draw_text(name, &("sans-serif", 20).into_text_style(area), (80, y - 3)).map_err(failed)?;
    for (at, one) in series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        // No font is at hand to measure with; letters of this size are 7 wide on average.
        let width = 34 + 7 * one.name.chars().count() as i32;
        if x > LEFT && x + width > PANEL.0 as i32 {
            (x, y) = (LEFT, y + LINE);
        }
        let bar = Rectangle::new([(x, y + 4), (x + 14, y + 8)], colour.filled());
        area.draw(&bar).map_err(failed)?;
        area.draw_text(&one.name, &style, (x + 19, y)).map_err(failed)?;
        x += width;
    }
    Ok(area.margin((y + LINE) as u32, 0, 0, 0))
}

/// An axis that is marked where we say.
struct Axis {
    range: Range<f64>,
    marks: Vec<f64>,
    /// Equal steps of what it gives are equally long.
    scale: fn(f64) -> f64,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let [start, end, value] = [self.range.start, self.range.end, *value].map(self.scale);
        from + (f64::from(to - from) * (value - start) / (end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Lines between the marks would say nothing.
        if hint.weight().allow_light_points() { Vec::new() } else { self.marks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// Where the horizontal axis is marked, and whether requests share those places: at the points when they are few, or at
/// even round steps.
fn places(mut points: Vec<f64>) -> (Vec<f64>, bool) {
    points.sort_by(f64::total_cmp);
    points.dedup();
    let [first, .., last] = points[..] else { return (points, true) };
    let step = if points.len() > 10 { round_step((last - first) / 10.0) } else { None };
    match step {
        Some(step) => {
            let marks = (0..=12).map(|at| ((first / step).ceil() + f64::from(at)) * step);
            (marks.filter(|mark| *mark <= last).collect(), false)
        }
        None => (points, true),
    }
}

/// The first 1, 2 or 5 times a power of ten from `least` on.
fn round_step(least: f64) -> Option<f64> {
    one_two_five(&(least..f64::INFINITY)).first().copied()
}

/// As few digits as it takes.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the axis passes its values so")]
fn short(value: &f64) -> String {
    let text = format!("{value:.3}");
    if value.abs() < 0.01 {
        value.to_string()
    } else {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// 1, 2 and 5 times powers of ten within `range`.
fn one_two_five(range: &Range<f64>) -> Vec<f64> {
    // From nanoseconds to a century of milliseconds. Parsed, because powers computed in binary are not round.
    let all = (-6..=12).flat_map(|power| [1, 2, 5].map(|digit| format!("{digit}e{power}")));
    all.filter_map(|text| text.parse().ok()).filter(|value| range.contains(value)).collect()
}

#[cfg(test)]
#[path = "plot_tests.rs"]
mod tests;
