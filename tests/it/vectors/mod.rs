//! `attestd verify` against tables: the program as it is run by auditors, one process per row.
//!
//! A row of `tests/vectors/*.json` has a title, the arguments, and what must come out. In the
//! arguments `fixture:` names a file of `tests/fixtures`, `made:` one that [`made`] makes with the
//! simulator. What a row expects was decided from the contract (DESIGN section 5) and Apple's
//! documents, never copied from the program's answer. Members of `claims` and `unverified_claims`
//! that a row lists must be equal; those that it does not list are not compared.

mod bundles;
mod made;
mod replies;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// Without `verify` and the subcommand.
    args: Vec<String>,
    /// What standard input is; nothing when absent.
    stdin: Option<String>,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    exit: i32,
    #[serde(default)]
    reasons: Vec<String>,
    anchor: Option<String>,
    claims: Option<Map<String, Value>>,
    unverified_claims: Option<Map<String, Value>>,
    not_before: Option<String>,
    not_after: Option<String>,
    digest: Option<String>,
    /// The subject of the signer, when one must be named.
    signer: Option<String>,
    /// Members that must not be there.
    #[serde(default)]
    without: Vec<String>,
}

#[test]
fn mda() {
    judge("mda");
}

#[test]
fn security_info() {
    judge("security-info");
}

#[test]
fn device_information() {
    judge("device-information");
}

#[test]
fn mdm_signature() {
    judge("mdm-signature");
}

#[test]
fn acme() {
    judge("acme");
}

#[test]
fn blob() {
    judge("blob");
}

#[test]
fn status() {
    judge("status");
}

#[test]
fn every_subcommand_explains_itself() {
    for what in [
        "mda",
        "security-info",
        "device-information",
        "mdm-signature",
        "acme",
        "blob",
        "status",
    ] {
        let help = Command::new(env!("CARGO_BIN_EXE_attestd"))
            .args(["verify", what, "--help"])
            .output()
            .expect("runs");
        assert_eq!(help.status.code(), Some(0), "{what}");
        let text = String::from_utf8(help.stdout).expect("text");
        assert!(text.contains("--json"), "{what}: {text}");
    }
}

/// Every input of these kinds that ships in `tests/fixtures` is in a table.
#[test]
fn no_fixture_is_left_out() {
    let tables: String = [
        "mda",
        "security-info",
        "device-information",
        "mdm-signature",
        "acme",
        "blob",
        "status",
    ]
    .map(|what| std::fs::read_to_string(table(what)).expect("a table"))
    .concat();
    for folder in ["mda", "mdm", "acme", "provider"] {
        for entry in std::fs::read_dir(fixtures().join(folder)).expect("fixtures") {
            let name = entry.expect("a file").file_name();
            let name = name.to_str().expect("ASCII");
            // The exact OID bytes behind the leaves, and a leaf that is in an object too: for people.
            // The transcript is replayed, and what a server says is the server's, elsewhere; so are
            // challenges and nonces. The rows for status vectors name the entries.
            let elsewhere = [
                "sim-mda-oid-values.json",
                "sim-acme-attest-leaf.pem",
                "acme-transcript-good.json",
                "acme-error-badattestation.json",
                "challenge.json",
                "nonce_schemes.json",
                "status_canonical_vectors.json",
            ];
            if !elsewhere.contains(&name) {
                assert!(
                    tables.contains(&format!("\"fixture:{folder}/{name}\"")),
                    "{folder}/{name} is in no table"
                );
            }
        }
    }
}

fn judge(what: &str) {
    let rows = std::fs::read(table(what)).expect("a table");
    let rows: Vec<Row> = serde_json::from_slice(&rows).expect("rows");
    let made = made::folder();
    let mut wrong = Vec::new();
    for row in &rows {
        let output = run(what, row, &made);
        if let Err(difference) = compare(&output, &row.expect) {
            wrong.push(format!("{}: {difference}", row.title));
        }
    }
    assert!(
        wrong.is_empty(),
        "{what}, {} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

fn run(what: &str, row: &Row, made: &Path) -> Output {
    let stdin = match &row.stdin {
        None => Stdio::null(),
        Some(name) => File::open(resolve(name, made)).expect(name).into(),
    };
    Command::new(env!("CARGO_BIN_EXE_attestd"))
        .args(["verify", what])
        .args(row.args.iter().map(|argument| resolve(argument, made)))
        .stdin(stdin)
        .output()
        .expect("runs")
}

fn resolve(argument: &str, made: &Path) -> PathBuf {
    let path = match argument.split_once(':') {
        Some(("fixture", name)) => fixtures().join(name),
        Some(("made", name)) => made.join(name),
        Some(("repository", name)) => Path::new(env!("CARGO_MANIFEST_DIR")).join(name),
        _ => return argument.into(),
    };
    assert!(path.exists(), "{argument} does not exist");
    path
}

fn compare(output: &Output, expected: &Expected) -> Result<(), String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let differs = |what: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line: String = stdout.lines().map(str::trim).collect();
        Err(format!("{what}\n    {line}{}", stderr.trim_end()))
    };
    if output.status.code() != Some(expected.exit) {
        return differs(&format!("{}, not {}", output.status, expected.exit));
    }
    if expected.exit == 2 {
        return match (stdout.is_empty(), output.stderr.is_empty()) {
            (true, false) => Ok(()),
            _ => differs("exit 2 must say why on stderr, and nothing on stdout"),
        };
    }
    let Ok(Value::Object(answer)) = serde_json::from_str(&stdout) else {
        return differs("stdout must be exactly one JSON object");
    };
    let member = |name: &str| answer.get(name).and_then(Value::as_str);
    let (verdict, stands, must_not) = match expected.exit {
        0 => ("verified", "claims", "unverified_claims"),
        _ => ("refused", "unverified_claims", "claims"),
    };
    if member("verdict") != Some(verdict) || answer.contains_key(must_not) {
        return differs(&format!("must be {verdict} without {must_not}"));
    }
    let reasons: Vec<_> = expected.reasons.iter().map(String::as_str).collect();
    if answer.get("reasons") != Some(&serde_json::json!(reasons)) {
        return differs(&format!("reasons must be {reasons:?}"));
    }
    let signer = answer.get("signer");
    let subject = signer.and_then(|signer| signer.get("subject")?.as_str());
    let hashed = signer.is_none_or(|signer| {
        signer["sha256"]
            .as_str()
            .is_some_and(|hash| hash.len() == 64)
    });
    for (name, actual, wanted) in [
        ("anchor", member("anchor"), &expected.anchor),
        ("not_before", member("not_before"), &expected.not_before),
        ("not_after", member("not_after"), &expected.not_after),
        ("digest", member("digest"), &expected.digest),
        ("signer", subject.filter(|_| hashed), &expected.signer),
    ] {
        if wanted.is_some() && actual != wanted.as_deref() {
            return differs(&format!("{name} must be {wanted:?}"));
        }
    }
    for name in &expected.without {
        if answer.contains_key(name) {
            return differs(&format!("{name} must not be there"));
        }
    }
    let listed = if expected.exit == 0 {
        &expected.claims
    } else {
        &expected.unverified_claims
    };
    for (name, wanted) in listed.iter().flatten() {
        if answer.get(stands).and_then(|claims| claims.get(name)) != Some(wanted) {
            return differs(&format!("{stands}.{name} must be {wanted}"));
        }
    }
    Ok(())
}

fn table(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{what}.json"))
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}
