//! Alert rules and dashboard name what is measured.

use std::collections::BTreeSet;
use std::path::Path;

use attestd::telemetry::Metrics;

/// The names in the text form that Prometheus reads, of counters with their suffix.
fn measured() -> BTreeSet<String> {
    let text = Metrics::new().text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| match line.split_once(' ').expect("a type") {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
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
