//! The example bundle, whole and altered.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::pki::Signer as _;
use crate::pki::test_key::TestKey;
use crate::publication::ear::TYP;
use crate::publication::jwk::{Algorithm, Jwk};
use crate::publication::jws::compact;

use super::super::jws;
use super::trust::{LogTrust, Trust, TrustedKey};
use super::*;
use crate::transparency::note::NoteSigner;
use crate::transparency::{Checkpoint, Proof, tree};

const BUNDLE: &str = include_str!("../../../tests/vectors/verify/bundle.json");
const JWKS: &str = include_str!("../../../tests/vectors/verify/jwks.json");
const TRUST: &str = include_str!("../../../tests/vectors/verify/trust.json");
const ROOT: &[u8] = include_bytes!("../../../tests/vectors/verify/mda_test_root.pem");

fn trust() -> Trust {
    let keys: Value = serde_json::from_str(JWKS).expect("JSON");
    let said: Value = serde_json::from_str(TRUST).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    Trust {
        anchors: crate::attestation::Anchors::custom(ROOT).ok(),
        keys: serde_json::from_value::<Vec<TrustedKey>>(keys["keys"].clone()).expect("keys"),
        issuer: Some(text(&said["issuer"])),
        log: Some(LogTrust {
            log: text(&said["log_vkey"]),
            witnesses: vec![text(&said["witness_vkeys"][0])],
            quorum: 1,
        }),
    }
}

fn at() -> Timestamp {
    Timestamp::parse("2026-09-20T12:00:30Z").expect("a time")
}

fn is_refused(bundle: &Value, trust: &Trust) -> bool {
    let found = examine(bundle.to_string().as_bytes(), trust, at());
    found.iter().any(|finding| finding.failure().is_some())
}

fn bundle() -> Value {
    serde_json::from_str(BUNDLE).expect("JSON")
}

#[test]
fn the_example_holds_claim_by_claim() {
    let standing = |finding: &Finding| match &finding.standing {
        Standing::Proved { by } => format!("{} proved {by:?}", finding.claim),
        Standing::Asserted { by } => format!("{} asserted {by:?}", finding.claim),
        Standing::Failed { detail, .. } => format!("{} failed: {detail}", finding.claim),
    };
    let found: Vec<_> = examine(BUNDLE.as_bytes(), &trust(), at())
        .iter()
        .map(standing)
        .collect();
    assert_eq!(
        found,
        [
            "subject proved Arithmetic",
            "registration proved SeKey",
            "challenge proved SeKey",
            "status proved SeKey",
            "apple proved Custom",
            "key_named proved Custom",
            "apple_posture proved Custom",
            "security_info asserted Service",
            "ear proved Service",
            "log proved Log",
        ]
    );
}

#[test]
fn what_is_not_trusted_fails() {
    let failed = |trust: &Trust| -> Vec<&'static str> {
        let found = examine(BUNDLE.as_bytes(), trust, at());
        found
            .iter()
            .filter(|finding| finding.failure().is_some())
            .map(|finding| finding.claim)
            .collect()
    };
    let mut apple = trust();
    apple.anchors = crate::attestation::Anchors::apple().ok();
    assert_eq!(failed(&apple), ["apple", "key_named", "apple_posture"]);
    let mut nobody = trust();
    nobody.keys.clear();
    assert_eq!(failed(&nobody), ["ear"]);
    let mut withdrawn = trust();
    withdrawn.keys[0].revoked_at = Some(i64::MAX);
    assert_eq!(failed(&withdrawn), ["ear"]);
}

/// The release that the example's provider runs, in a log of two entries.
fn release() -> (Value, LogTrust) {
    let about =
        json!({ "version": "0.8.16", "platform": "macos-arm64", "binary_hash": "a1".repeat(32) });
    let mut entry = about.clone();
    entry["v"] = json!(1);
    entry["type"] = json!("release");
    entry["revoked"] = json!(false);
    let entry = entry.to_string().into_bytes();
    let other = tree::leaf(b"{}");
    let head = Checkpoint {
        origin: "log.example/log".to_owned(),
        size: 2,
        root: tree::node(&other, &tree::leaf(&entry)),
    };
    let signer = NoteSigner::new(&head.origin, &[7; 32]).expect("a signer");
    let proof = Proof {
        index: 1,
        hashes: vec![other],
        checkpoint: &head.sign(&signer),
    };
    let mut part = about;
    part["log_entry_b64"] = json!(STANDARD.encode(entry));
    part["tlog_proof"] = json!(proof.to_string());
    let trust = LogTrust {
        log: signer.verifier_key(),
        witnesses: Vec::new(),
        quorum: 0,
    };
    (part, trust)
}

/// The example with a result that seals it, and the key of that result.
fn sealed() -> (Value, Trust) {
    let mut bundle = bundle();
    let members = bundle.as_object_mut().expect("an object");
    let example = members.remove("ear").expect("a result");
    members.remove("log_entry_b64");
    members.remove("tlog_proof");
    members.insert(
        "policy".to_owned(),
        json!({ "id": "strict/0", "text": "rules" }),
    );
    let (part, log) = release();
    members.insert("release".to_owned(), part);
    let token = jws::Token::parse(example.as_str().expect("text"), TYP).expect("a token");
    let mut claims = token.payload;
    claims.insert(
        "attestd".to_owned(),
        json!({ "evidence_sha256": result::seal_of(members) }),
    );
    claims["submods"]["device"]["ear_appraisal_policy_ids"] = json!([format!(
        "https://mdm.example.org/v1/policies/{}",
        hex::encode(crate::ids::sha256(b"rules"))
    )]);
    let key = TestKey::p256();
    let jwk = Jwk::of(key.public_key_spki()).expect("a key");
    let ear = compact(&claims, TYP, &jwk.kid, Algorithm::Es256, &key).expect("signed");
    members.insert("ear".to_owned(), json!(ear));
    let mut trust = trust();
    trust.log = Some(log);
    trust.keys = vec![TrustedKey {
        jwk,
        nbf: Some(0),
        exp: None,
        revoked_at: None,
    }];
    (bundle, trust)
}

/// Where the values are that have no members.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            leaves(
                value,
                &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
                found,
            );
        }),
        Value::Array(values) => values.iter().enumerate().for_each(|(index, value)| {
            leaves(value, &format!("{at}/{index}"), found);
        }),
        _ => found.push(at.to_owned()),
    }
}

/// One value with something changed in it: a character, a truth, a number.
fn change(value: &mut Value, position: usize, by: u8) {
    *value = match value.take() {
        Value::String(text) => {
            let mut characters: Vec<char> = text.chars().collect();
            if characters.is_empty() {
                characters.push('x');
            } else {
                let at = position % characters.len();
                let other = char::from(b' ' + by);
                characters[at] = if characters[at] == other { '~' } else { other };
            }
            Value::String(characters.into_iter().collect())
        }
        Value::Bool(flag) => Value::Bool(!flag),
        _ => json!("something else"),
    };
}

#[test]
fn a_sealed_bundle_holds_and_names_its_policy() {
    let (bundle, trust) = sealed();
    let found = examine(bundle.to_string().as_bytes(), &trust, at());
    let claims: Vec<_> = found
        .iter()
        .filter(|it| it.failure().is_none())
        .map(|it| it.claim)
        .collect();
    assert_eq!(claims.len(), found.len(), "{found:#?}");
    assert_eq!(
        claims[claims.len() - 4..],
        ["ear", "sealed", "policy", "release"]
    );
}

proptest! {
    /// Whatever is changed in a bundle that the service sealed, wherever: it is refused.
    #[test]
    fn one_changed_character_anywhere_is_refused(which: prop::sample::Index, position: usize, by in 0..94_u8) {
        let (mut bundle, trust) = sealed();
        let mut all = Vec::new();
        leaves(&bundle, "", &mut all);
        let pointer = &all[which.index(all.len())];
        let value = bundle.pointer_mut(pointer).expect("is there");
        change(value, position, by);
        prop_assert!(is_refused(&bundle, &trust), "{pointer}");
    }

    #[test]
    fn one_part_left_out_or_renamed_is_refused(which: prop::sample::Index, renamed: bool) {
        let (mut bundle, trust) = sealed();
        let members = bundle.as_object_mut().expect("an object");
        let names: Vec<_> = members.keys().filter(|name| *name != "ear").cloned().collect();
        let name = &names[which.index(names.len())];
        let value = members.remove(name).expect("is there");
        if renamed {
            members.insert(format!("{name}_"), value);
        }
        prop_assert!(is_refused(&bundle, &trust), "{name}");
    }

    /// The claim stands by itself: nothing in its part can be changed, seal or not.
    #[test]
    fn one_changed_character_of_a_release_is_refused(which: prop::sample::Index, position: usize, by in 0..94_u8) {
        let mut bundle = bundle();
        let (part, log) = release();
        let trust = Trust { log: Some(log), ..trust() };
        for member in ["log_entry_b64", "tlog_proof"] {
            bundle.as_object_mut().expect("an object").remove(member);
        }
        bundle["release"] = part;
        prop_assert!(!is_refused(&bundle, &trust));
        let mut all = Vec::new();
        leaves(&bundle["release"], "", &mut all);
        let pointer = &all[which.index(all.len())];
        let value = bundle["release"].pointer_mut(pointer).expect("is there");
        change(value, position, by);
        prop_assert!(is_refused(&bundle, &trust), "{pointer}");
    }

    /// What the log and its witnesses signed.
    #[test]
    fn one_changed_character_of_a_proof_is_refused(
        pointer in prop::sample::select(vec!["/tlog_proof", "/log_entry_b64", "/ear"]),
        position: usize,
        by in 0..94_u8,
    ) {
        let mut bundle = bundle();
        change(bundle.pointer_mut(pointer).expect("is there"), position, by);
        prop_assert!(is_refused(&bundle, &trust()), "{pointer}");
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0..BUNDLE.len()) {
        examine(&bytes, &trust(), at());
        examine(&BUNDLE.as_bytes()[..cut], &trust(), at());
    }
}

#[test]
fn what_reads_in_two_ways_is_refused() {
    for (bytes, reason) in [
        (BUNDLE.replacen('{', "{\"subject\":\"x\",", 1), "repeated"),
        (
            BUNDLE.replacen("\"bundle_version\": 1", "\"bundle_version\": 2", 1),
            "version",
        ),
        (BUNDLE.replacen('{', "{\"more\": 1,", 1), "unknown"),
        ("[".repeat(100_000), "nested"),
        (format!("{BUNDLE} {}", " ".repeat(MAX_BUNDLE)), "large"),
    ] {
        let found = examine(bytes.as_bytes(), &trust(), at());
        assert_eq!((found.len(), found[0].claim), (1, "form"), "{reason}");
        assert!(found[0].failure().is_some());
    }
    let late = at().plus(std::time::Duration::from_secs(3_600));
    let found = examine(BUNDLE.as_bytes(), &trust(), late);
    let failed = found
        .iter()
        .find(|it| it.failure().is_some())
        .expect("fails");
    assert_eq!(
        (failed.claim, failed.failure()),
        ("ear", Some(Reason::TimestampOutOfWindow))
    );
}
