//! The plot of a run: pushes, ages and verdicts over the days, as an SVG without scripts or fonts of
//! its own.

use std::fmt::Write as _;

use crate::plan::Outcome;
use crate::record::Hour;
use crate::time::{DAY, HOUR, MINUTE, Ms, START};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 90.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 60.0;
const TOP: f64 = 40.0;

/// One curve of a panel.
struct Curve {
    name: &'static str,
    colour: &'static str,
    value: fn(&Hour) -> f64,
}

/// The plot.
pub fn svg(outcome: &Outcome) -> String {
    let days = ((outcome.ended_at - START) / DAY).max(1);
    let panels: [(&str, Vec<Curve>); 4] = [
        (
            "pushes an hour",
            vec![curve("taken by APNs", "#1f5fa8", |hour| {
                number(hour.pushes)
            })],
        ),
        (
            "age of SecurityInfo, hours",
            vec![
                curve("p99", "#c0392b", |hour| ratio(hour.report_p99, HOUR)),
                curve("p50", "#1f5fa8", |hour| ratio(hour.report_p50, HOUR)),
            ],
        ),
        (
            "age of the attestation, days",
            vec![
                curve("p99", "#c0392b", |hour| ratio(hour.chain_p99, DAY)),
                curve("p50", "#1f5fa8", |hour| ratio(hour.chain_p50, DAY)),
            ],
        ),
        (
            "Macs by verdict",
            vec![
                curve("affirming", "#2e8b57", |hour| number(hour.affirming)),
                curve("unknown", "#7f8c8d", |hour| number(hour.unknown)),
                curve("contraindicated", "#c0392b", |hour| {
                    number(hour.contraindicated)
                }),
                curve("warning", "#d68910", |hour| number(hour.warning)),
            ],
        ),
    ];
    let height = TOP + 4.0 * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (nth, (title, curves)) in panels.iter().enumerate() {
        let top = TOP + number(nth) * (PANEL + GAP);
        panel(&mut out, title, curves, &outcome.hours, days, top);
    }
    out.push_str("</svg>\n");
    out
}

fn curve(name: &'static str, colour: &'static str, value: fn(&Hour) -> f64) -> Curve {
    Curve {
        name,
        colour,
        value,
    }
}

fn panel(out: &mut String, title: &str, curves: &[Curve], hours: &[Hour], days: Ms, top: f64) {
    let most = curves
        .iter()
        .flat_map(|curve| hours.iter().map(curve.value))
        .fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.05 } else { 1.0 };
    let x = |at: Ms| LEFT + (WIDTH - LEFT - 20.0) * ratio(at - START, days * DAY);
    let y = |value: f64| top + PANEL * (1.0 - value / most);
    // Where APNs or the server was down.
    for hour in hours.iter().filter(|hour| hour.trouble) {
        let (from, to) = (x(hour.at - HOUR), x(hour.at));
        let width = to - from;
        line(
            out,
            format_args!(
                "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{width:.2}\" height=\"{PANEL}\" fill=\"#f5e6d3\"/>"
            ),
        );
    }
    line(
        out,
        format_args!(
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{title}</text>",
            top - 8.0
        ),
    );
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let at = y(value);
        line(
            out,
            format_args!(
                "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#dddddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
                WIDTH - 20.0,
                LEFT - 6.0,
                at + 4.0
            ),
        );
    }
    let every = (days / 15).max(1);
    for day in (0..=days).filter(|day| day % every == 0) {
        line(
            out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{day}</text>",
                x(START + day * DAY),
                top + PANEL + 16.0
            ),
        );
    }
    for (nth, curve) in curves.iter().enumerate() {
        let mut points = String::new();
        for hour in hours {
            // Writing to a String does not fail.
            let _ = write!(points, "{:.1},{:.1} ", x(hour.at), y((curve.value)(hour)));
        }
        line(
            out,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.2\"/>",
                curve.colour
            ),
        );
        line(
            out,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\" text-anchor=\"end\">{}</text>",
                WIDTH - 24.0 - 110.0 * number(nth),
                top - 8.0,
                curve.colour,
                curve.name
            ),
        );
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{text}");
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn ratio(span: Ms, unit: Ms) -> f64 {
    (span / MINUTE.min(unit)) as f64 / (unit / MINUTE.min(unit)) as f64
}
