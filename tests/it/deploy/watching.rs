//! Alert rules and dashboard name what is measured.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use attestd::reason::Reason;
use attestd::telemetry::Metrics;
use attestd::time::Timestamp;

/// The names in the text form that Prometheus reads, of counters with their suffix.
fn measured() -> BTreeSet<String> {
    let metrics = Metrics::new();
    // Pairs that nobody can list begin with their first event, and a topic or worker when it is known.
    metrics.refused("connect", Reason::SignatureInvalid);
    metrics.answered("public", 200);
    metrics.worker_silent("sweep", Duration::ZERO);
    metrics.push_certificate("topic", 1, false);
    metrics.certificate("device_ca", Timestamp::from_seconds(1));
    let text = metrics.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .flat_map(|line| match line.split_once(' ').expect("a type") {
            (name, "counter") => vec![format!("{name}_total")],
            (name, "histogram") => {
                let parts = ["", "_bucket", "_count", "_sum"];
                parts.map(|part| format!("{name}{part}")).to_vec()
            }
            (name, _) => vec![name.to_owned()],
        })
        .collect()
}

/// The metrics of ours that a file names.
fn named(path: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(path).expect("it ships");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("attestd_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let measured = measured();
    assert!(
        measured.contains("attestd_pushes_total") && measured.contains("attestd_clock_believed")
    );
    for file in [
        "deploy/prometheus/alerts.yaml",
        "deploy/prometheus/alerts_test.yaml",
        "deploy/grafana/attestd.json",
    ] {
        let named = named(file);
        assert!(named.len() >= 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&measured).collect();
        assert!(
            unknown.is_empty(),
            "{file} names what is not measured: {unknown:?}"
        );
    }
}

/// What a line of a document begins with, and goes on with.
fn after<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix(beginning).map(str::trim))
        .collect()
}

#[test]
fn every_alert_is_played_and_says_what_to_do() {
    let read = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).expect("it ships")
    };
    let (rules, played) = (
        read("deploy/prometheus/alerts.yaml"),
        read("deploy/prometheus/alerts_test.yaml"),
    );
    let guide = read("docs/operations.md");
    let (_, by_alert) = guide.split_once("### By alert").expect("a chapter");
    let alerts = after(&rules, "- alert:");
    assert!(alerts.len() >= 15, "{alerts:?}");
    // Each is seen to fire, not only to be silent.
    let fires: BTreeSet<_> = played
        .split("- eval_time:")
        .filter(|case| case.contains("exp_alerts:"))
        .flat_map(|case| after(case, "alertname:"))
        .collect();
    for alert in &alerts {
        assert!(fires.contains(alert), "{alert} is never played");
        let row = format!("`{alert}`");
        assert!(by_alert.contains(&row), "no word on {alert}");
    }
    let known: BTreeSet<_> = alerts.into_iter().collect();
    for word in by_alert
        .split('`')
        .filter(|word| word.starts_with("Attestd"))
    {
        assert!(known.contains(word), "{word} is no alert");
    }
}
