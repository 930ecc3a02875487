//! `attestd verify bundle` over the cases that docs/verify/verify.py must judge the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::harness::scene::attestd;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    bundle: String,
    trust: String,
    at: String,
    edits: Vec<Edit>,
    #[serde(default)]
    trust_edits: Vec<Edit>,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Edit {
    Set(Map<String, Value>),
    Remove(Vec<String>),
    Raw {
        find: String,
        #[serde(default)]
        replace: Option<String>,
        #[serde(default)]
        replace_b64: Option<String>,
        #[serde(default)]
        times: Option<usize>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    exit: i32,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default)]
    by: BTreeMap<String, String>,
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/verify")
}

/// The bytes of a file after the edits of a case, in their order.
pub(super) fn edited(name: &str, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = std::fs::read(folder().join(name)).expect(name);
    for edit in edits {
        bytes = match edit {
            Edit::Raw {
                find,
                replace,
                replace_b64,
                times,
            } => {
                let by = match (replace, replace_b64) {
                    (_, Some(text)) => STANDARD.decode(text).expect("base64"),
                    (text, None) => text.clone().unwrap_or_default().into_bytes(),
                };
                let by = by.repeat(times.unwrap_or(1));
                let find = find.as_bytes();
                let at = bytes.windows(find.len()).position(|window| window == find);
                let at = at.expect("is there");
                [&bytes[..at], &by, &bytes[at + find.len()..]].concat()
            }
            Edit::Set(values) => on_json(&bytes, |json| {
                for (pointer, value) in values {
                    put(json, pointer, Some(value.clone()));
                }
            }),
            Edit::Remove(pointers) => on_json(&bytes, |json| {
                for pointer in pointers {
                    put(json, pointer, None);
                }
            }),
        };
    }
    bytes
}

fn on_json(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json = serde_json::from_slice(bytes).expect("JSON");
    change(&mut json);
    json.to_string().into_bytes()
}

/// Sets what a JSON pointer (RFC 6901) names, or takes it away.
fn put(json: &mut Value, pointer: &str, value: Option<Value>) {
    let (outside, name) = pointer.rsplit_once('/').expect("a pointer");
    let name = name.replace("~1", "/").replace("~0", "~");
    match (json.pointer_mut(outside).expect(pointer), value) {
        (Value::Object(members), Some(value)) => {
            members.insert(name, value);
        }
        (Value::Object(members), None) => {
            members.remove(&name);
        }
        (Value::Array(values), Some(value)) => {
            let at: usize = name.parse().expect("an index");
            if at == values.len() {
                values.push(value);
            } else {
                values[at] = value;
            }
        }
        (Value::Array(values), None) => {
            values.remove(name.parse().expect("an index"));
        }
        (other, _) => assert!(other.is_object(), "{pointer}: {other}"),
    }
}

/// What differs from what is expected.
fn faults(case: &Case, files: &Path) -> Vec<String> {
    let path = |name: &str| files.join(name).to_str().expect("text").to_owned();
    let (bundle, trust) = (path("bundle.json"), path("trust.json"));
    std::fs::write(&bundle, edited(&case.bundle, &case.edits)).expect("written");
    std::fs::write(&trust, edited(&case.trust, &case.trust_edits)).expect("written");
    let ended = attestd(&[
        "verify", "bundle", &bundle, "--trust", &trust, "--at", &case.at, "--json",
    ]);
    let status = ended.status.code().expect("ends by itself");
    let said: Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    let mut faults = Vec::new();
    let mut differs = |what: &str, found: &str, wanted: &str| {
        if found != wanted {
            faults.push(format!(
                "{}: {what} is {found}, not {wanted}: {said}",
                case.name
            ));
        }
    };
    differs("exit", &status.to_string(), &case.expect.exit.to_string());
    if case.expect.exit == 2 {
        return faults;
    }
    differs(
        "verdict",
        said["verdict"].as_str().unwrap_or("-"),
        &case.expect.verdict,
    );
    let findings = said["findings"].as_array().cloned().unwrap_or_default();
    let found = |claim: &str, member: &str| {
        let finding = findings.iter().find(|finding| finding["claim"] == claim);
        let word = finding.and_then(|finding| finding[member].as_str());
        word.unwrap_or("absent").to_owned()
    };
    for (claim, wanted) in &case.expect.claims {
        differs(claim, &found(claim, "standing"), wanted);
    }
    for (claim, wanted) in &case.expect.by {
        differs(claim, &found(claim, "by"), wanted);
    }
    faults
}

#[test]
fn both_verifiers_of_bundles_judge_every_case_alike() {
    let cases = std::fs::read(folder().join("cases.json")).expect("cases");
    let cases: Vec<Case> = serde_json::from_slice(&cases).expect("cases");
    assert!(cases.len() > 300);
    let files = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder()).expect("vectors") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), files.path().join(entry.file_name())).expect("copied");
    }
    let faults: Vec<_> = cases
        .iter()
        .flat_map(|case| faults(case, files.path()))
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        cases.len(),
        faults.join("\n")
    );
}
