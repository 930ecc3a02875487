//! `attestd verify feed` and `attestd verify response` over the cases that docs/verify/response.py must
//! judge the same.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::bundles::{Edit, edited, folder};
use crate::harness::scene::attestd;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    what: String,
    at: String,
    #[serde(default)]
    reply: Option<String>,
    #[serde(default)]
    trust: Vec<Edit>,
    #[serde(default)]
    feed: Vec<Edit>,
    #[serde(default)]
    headers: Vec<Edit>,
    #[serde(default)]
    body: Vec<Edit>,
    evidence: Option<Vec<Edit>>,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    exit: i32,
    claims: BTreeMap<String, String>,
}

/// Each standing by the place and the name of its claim.
fn standings(said: &Value) -> BTreeMap<String, String> {
    let mut standings = BTreeMap::new();
    let mut found = |place: &str, findings: &Value| {
        for finding in findings.as_array().into_iter().flatten() {
            let word = |name: &str| finding[name].as_str();
            let place = word("in").unwrap_or(place);
            let claim = word("claim").expect("a claim");
            let name = match place {
                "" => claim.to_owned(),
                place => format!("{place}/{claim}"),
            };
            let standing = word("standing").expect("a standing").to_owned();
            assert_eq!(standings.insert(name, standing), None, "{said:#}");
        }
    };
    found("", &said["findings"]);
    for (number, provider) in said["providers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        found(&number.to_string(), &provider["findings"]);
    }
    standings
}

/// What differs from what is expected.
fn fault(case: &Case, files: &Path) -> Option<String> {
    let path = |name: &str| files.join(name).to_str().expect("text").to_owned();
    let write = |name: &str, source: &str, edits: &[Edit]| {
        std::fs::write(path(name), edited(source, edits)).expect("written");
        path(name)
    };
    let trust = write("made_trust.json", "made_trust.json", &case.trust);
    let feed = write("feed.json", "feed.json", &case.feed);
    let (headers, body) = match case.reply.as_deref() {
        Some("stream") => ("stream_headers", "stream"),
        _ => ("headers", "body"),
    };
    let headers = write("headers", headers, &case.headers);
    let body = write("body", body, &case.body);
    let evidence = case.evidence.as_ref();
    let evidence = evidence.map(|edits| write("evidence.json", "sealed.json", edits));
    let mut words = match case.what.as_str() {
        "feed" => vec!["verify", "feed", &feed],
        _ => vec![
            "verify",
            "response",
            "--headers",
            &headers,
            "--body",
            &body,
            "--feed",
            &feed,
        ],
    };
    if let Some(evidence) = &evidence {
        words.extend(["--evidence", evidence]);
    }
    words.extend(["--trust", &trust, "--at", &case.at, "--json"]);
    let ended = attestd(&words);
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    let found = standings(&said);
    let wanted = |(name, wanted): (&String, &String)| {
        found.get(name).map_or("absent", String::as_str) == wanted
    };
    // Where an input cannot be read there is no answer.
    let is_right = ended.status.code() == Some(case.expect.exit)
        && (case.expect.exit == 2
            || said["verdict"] == case.expect.verdict && case.expect.claims.iter().all(wanted));
    (!is_right).then(|| format!("{}: {said:#}", case.name))
}

#[test]
fn both_verifiers_of_feeds_and_replies_judge_every_case_alike() {
    let cases = std::fs::read(folder().join("reply_cases.json")).expect("cases");
    let cases: Vec<Case> = serde_json::from_slice(&cases).expect("cases");
    assert!(cases.len() > 120);
    let files = tempfile::tempdir().expect("a folder");
    let root = "made_root.pem";
    std::fs::copy(folder().join(root), files.path().join(root)).expect("copied");
    let faults: Vec<_> = cases
        .iter()
        .filter_map(|case| fault(case, files.path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
}
