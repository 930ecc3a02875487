//! The fields of the log are an interface: what alerts and searches are made of.

use std::collections::{BTreeMap, BTreeSet};

use super::none_of;
use super::source::{SourceFile, read, sources};

const MACROS: [&str; 5] = [
    "tracing::trace!(",
    "tracing::debug!(",
    "tracing::info!(",
    "tracing::warn!(",
    "tracing::error!(",
];

/// What stands between the parentheses of each call that writes to the log.
fn lines(file: &SourceFile) -> Vec<String> {
    let code = &file.without_tests().code;
    let inside = |name: &&str| {
        code.split(name)
            .skip(1)
            .map(|rest| {
                let mut open = 1_usize;
                let end = rest.find(|c| {
                    match c {
                        '(' | '[' | '{' => open += 1,
                        ')' | ']' | '}' => open -= 1,
                        _ => {}
                    }
                    open == 0
                });
                rest[..end.expect("an end")].to_owned()
            })
            .collect::<Vec<_>>()
    };
    MACROS.iter().flat_map(inside).collect()
}

/// The names of the fields of one line: `name = value`, `%name`, `?name` or `name`.
fn fields(line: &str) -> Vec<String> {
    let mut open = 0_usize;
    let parts = line.split(|c| {
        match c {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open -= 1,
            _ => {}
        }
        c == ',' && open == 0
    });
    let name = |part: &str| {
        let name = part.split('=').next().unwrap_or(part).trim();
        name.trim_start_matches(['%', '?']).trim().to_owned()
    };
    let is_name = |name: &String| !name.is_empty() && !name.contains('"');
    parts.map(name).filter(is_name).collect()
}

fn written() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources("src").iter().filter(|file| !file.is_test) {
        for field in lines(file).iter().flat_map(|line| fields(line)) {
            found.entry(field).or_default().insert(file.path.clone());
        }
    }
    found
}

/// The first column of the table of docs/logs.md.
fn listed() -> BTreeSet<String> {
    let document = read("docs/logs.md");
    let (_, table) = document
        .split_once("\n## Fields\n")
        .expect("a section of fields");
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    table.lines().filter_map(cell).collect()
}

#[test]
fn every_field_of_the_log_is_listed() {
    let (written, listed) = (written(), listed());
    let unlisted = written
        .iter()
        .filter(|(field, _)| !listed.contains(*field))
        .map(|(field, files)| format!("{field} of {files:?} is not in docs/logs.md"));
    let unwritten = listed
        .iter()
        .filter(|field| !written.contains_key(*field))
        .map(|field| format!("{field} is in docs/logs.md, and nothing writes it"));
    none_of(
        "the list of the log's fields is out of step",
        &unlisted.chain(unwritten).collect::<Vec<_>>(),
    );
    assert!(listed.len() > 30, "{} fields were read", listed.len());
}

#[test]
fn fields_are_told_from_values() {
    let line = r#" device.id = id.as_str(), %error, ?causes, days, seq = given(a, b).seq, "  " "#;
    assert_eq!(
        fields(line),
        ["device.id", "error", "causes", "days", "seq"]
    );
}
