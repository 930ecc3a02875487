//! The documents say what is there.

use std::collections::BTreeSet;

use super::source::read;
use super::{NOUNS, OTHERS, WORDS, none_of, tested};

/// The part of a document between a heading and the next of the same rank.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let (_, rest) = document
        .split_once(&format!("\n{heading}\n"))
        .expect(heading);
    let rank = heading.split(' ').next().unwrap_or_default();
    rest.split(&format!("\n{rank} ")).next().unwrap_or(rest)
}

#[test]
fn every_invariant_names_a_test_that_exists() {
    let names: BTreeSet<String> = tested().iter().flat_map(super::SourceFile::tests).collect();
    let document = read("ARCHITECTURE.md");
    let mut faults = Vec::new();
    let mut count = 0;
    for item in section(&document, "## Invariants").split("\n\n") {
        // Lines break anywhere.
        let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((number, text)) = item.split_once(". ") else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        count += 1;
        if number != count {
            faults.push(format!("invariant {number} stands where {count} should"));
        }
        let Some((_, proofs)) = text.split_once("Proved by") else {
            faults.push(format!("invariant {number} names no test"));
            continue;
        };
        let proofs: Vec<_> = proofs.split('`').skip(1).step_by(2).collect();
        if proofs.is_empty() {
            faults.push(format!("invariant {number} names no test"));
        }
        for proof in proofs.iter().filter(|proof| !names.contains(**proof)) {
            faults.push(format!("invariant {number}: there is no test {proof}"));
        }
    }
    none_of("ARCHITECTURE.md is out of step", &faults);
    assert!(count >= 10, "{count} invariants were read");
}

#[test]
fn the_code_map_names_every_module() {
    let lib = read("src/lib.rs");
    let document = read("ARCHITECTURE.md");
    let map = section(&document, "## Code map");
    let modules = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let missing: Vec<_> = modules
        .filter(|module| !map.contains(&format!("`{module}`")))
        .map(str::to_owned)
        .collect();
    none_of(
        "modules that the code map of ARCHITECTURE.md does not name",
        &missing,
    );
}

#[test]
fn every_module_of_the_picture_has_its_row() {
    let lib = read("src/lib.rs");
    let rows: BTreeSet<_> = WORDS
        .iter()
        .chain(NOUNS.iter().map(|(name, _)| name))
        .chain(OTHERS.iter().map(|(name, _)| name))
        .collect();
    let modules = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let missing: Vec<_> = modules
        .filter(|module| !rows.contains(module))
        .map(str::to_owned)
        .collect();
    none_of(
        "modules without a row in tests/it/architecture/mod.rs",
        &missing,
    );
}

#[test]
fn every_flow_stands_in_the_table_of_flows() {
    let flows = read("src/flows/mod.rs");
    let missing: Vec<_> = flows
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|flow| !flows.contains(&format!("[`{flow}`]")))
        .map(str::to_owned)
        .collect();
    none_of(
        "flows that the table in src/flows/mod.rs does not name",
        &missing,
    );
}

#[test]
fn the_conformance_document_names_tests_that_exist_and_every_conformance_test() {
    let names: BTreeSet<String> = tested().iter().flat_map(super::SourceFile::tests).collect();
    let document = read("docs/conformance.md");
    let mut faults = Vec::new();
    let mut named = BTreeSet::new();
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [subject, standing, why, tests] = columns[..] else {
            faults.push(format!("a row without four columns: {row}"));
            continue;
        };
        if subject == "---" || tests == "tests" {
            continue;
        }
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let complete = match standing {
            "done" => !tests.is_empty(),
            "different" => !tests.is_empty() && !why.is_empty(),
            "refused" => !why.is_empty(),
            _ => false,
        };
        if !complete {
            faults.push(format!("{subject}: {standing} without a test or a reason"));
        }
        for test in tests {
            named.insert(test.to_owned());
            if !names.contains(test) {
                faults.push(format!("{subject}: there is no test {test}"));
            }
        }
    }
    let conformance = tested().into_iter();
    let conformance = conformance.filter(|file| file.path.contains("tests/it/conformance/"));
    let written: Vec<_> = conformance.flat_map(|file| file.tests()).collect();
    assert!(written.len() >= 30, "{} conformance tests", written.len());
    for test in written.iter().filter(|test| !named.contains(*test)) {
        faults.push(format!("no row names {test}"));
    }
    none_of("docs/conformance.md is out of step", &faults);
}

#[test]
fn every_row_of_the_threat_model_names_tests_that_exist() {
    let names: BTreeSet<String> = tested().iter().flat_map(super::SourceFile::tests).collect();
    let document = read("docs/threat-model.md");
    let mut faults = Vec::new();
    for (heading, least) in [("## Step by step", 40), ("## Attacks on trust", 8)] {
        let rows = section(&document, heading).lines();
        let rows = rows.filter(|line| line.starts_with("| ")).skip(2);
        let mut count = 0;
        for row in rows {
            let columns: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [what, how, defence, tests] = columns[..] else {
                faults.push(format!("a row without four columns: {row}"));
                continue;
            };
            count += 1;
            let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
            if how.is_empty() || defence.is_empty() || tests.is_empty() {
                faults.push(format!("{what}: {how}: no defence, or no test"));
            }
            for test in tests.into_iter().filter(|test| !names.contains(*test)) {
                faults.push(format!("{what}: there is no test {test}"));
            }
        }
        assert!(count >= least, "{heading}: {count} rows were read");
    }
    none_of("docs/threat-model.md is out of step", &faults);
}
