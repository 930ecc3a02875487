use std::time::Duration;

use super::labels;
use super::metrics::*;

/// The value of a series, as it is read.
fn value<'a>(text: &'a str, series: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find_map(|(name, value)| (name == series).then_some(value))
}

#[test]
fn what_can_be_listed_begins_at_zero() {
    let text = Metrics::new().text();
    for (family, label, words) in [
        ("pushes_total", "outcome", &labels::PUSHES[..]),
        (
            "webhook_messages_total",
            "outcome",
            &labels::WEBHOOK_MESSAGES[..],
        ),
        ("shared_signals_total", "outcome", &labels::SIGNALS[..]),
        ("issuer_answers_total", "outcome", labels::ISSUER_ANSWERS),
        (
            "log_witness_answers_total",
            "outcome",
            labels::WITNESS_ANSWERS,
        ),
        (
            "verdicts_total",
            "verdict",
            &["affirming", "warning", "contraindicated", "unknown"],
        ),
        ("enrolment_step_seconds_count", "step", &["verdict"]),
        ("command_age_seconds_count", "kind", &["mda"]),
        (
            "standing_still",
            "cause",
            &["verdicts_stand_still", "worker_silent"],
        ),
    ] {
        for word in words {
            let series = format!("attestd_{family}{{{label}=\"{word}\"}}");
            assert_eq!(value(&text, &series), Some("0"), "{series}");
        }
    }
    let of_macs = "attestd_messages_total{surface=\"connect\",kind=\"NotNow\"}";
    assert_eq!(value(&text, of_macs), Some("0"));
}

#[test]
fn quantiles_are_of_what_there_is() {
    let metrics = Metrics::new();
    for (ages, expected) in [
        (vec![], ["0", "0", "0"]),
        (vec![7], ["7", "7", "7"]),
        ((1..=200).rev().collect(), ["100", "198", "200"]),
        (vec![], ["0", "0", "0"]),
    ] {
        metrics.verdict_ages(ages.into_iter().map(Duration::from_secs).collect());
        let text = metrics.text();
        let found = ["0.5", "0.99", "1"].map(|quantile| {
            let series = format!("attestd_verdict_age_seconds{{quantile=\"{quantile}\"}}");
            value(&text, &series).expect("measured").to_owned()
        });
        assert_eq!(found, expected.map(str::to_owned));
    }
}
