//! The registry of releases.

use std::time::Duration;

use serde_json::{Value, json};

use super::members::Malformed;
use super::release::{Platform, Registration, Release, ReleaseRefusal, Standing, latest};
use crate::reason::Reason;
use crate::time::Timestamp;

fn now() -> Timestamp {
    Timestamp::parse("2026-09-20T12:00:00Z").expect("a time")
}

fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn full() -> Value {
    json!({
        "version": "0.8.16", "platform": "macos-arm64", "backend": "mlx-swift",
        "binary_hash": hash('a'), "bundle_hash": hash('b'), "metallib_hash": hash('c'),
        "python_hash": hash('d'), "runtime_hash": hash('e'),
        "template_hashes": format!("chatml={},gemma={}", hash('1'), hash('2')),
        "url": "https://releases.example.org/v0.8.16/bundle.tar.gz", "changelog": "Faster.",
    })
}

fn parse(registration: &Value) -> Result<Registration, ReleaseRefusal> {
    Registration::parse(registration.to_string().as_bytes())
}

fn release(version: &str, digit: char, platform: &str) -> Release {
    let registration = parse(&json!({
        "version": version, "binary_hash": hash(digit), "platform": platform,
    }));
    match registration.expect("well-formed").register(None, now()) {
        Ok(Some(release)) => release,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_registration_says_hash_version_and_platform_and_may_say_more() {
    let read = parse(&full()).expect("well-formed");
    assert_eq!(read.version.as_str(), "0.8.16");
    assert_eq!(read.binary_hash.to_string(), hash('a'));
    assert_eq!(read.details.template_hashes["gemma"].to_string(), hash('2'));
    let least = json!({"version": "0.8.16", "binary_hash": hash('a')});
    let read = parse(&least).expect("well-formed");
    assert_eq!(read.platform, Platform::default());
    assert_eq!(read.platform.as_str(), "macos-arm64");
    assert_eq!(read.details, super::release::Details::default());
}

#[test]
fn a_registration_that_is_not_understood_in_full_is_refused() {
    let wrong = [
        ("version", json!("v0.8.16")),
        ("version", json!(8)),
        ("platform", json!("macOS")),
        ("platform", json!("")),
        ("binary_hash", json!(hash('A'))),
        ("binary_hash", json!("a1")),
        ("bundle_hash", json!("latest")),
        ("url", json!("http://releases.example.org/")),
        ("url", json!(format!("https://{}", "a".repeat(3000)))),
        ("template_hashes", json!("chatml")),
        ("template_hashes", json!(format!("a={0},a={0}", hash('1')))),
        ("template_hashes", json!(format!("a={},", hash('1')))),
        ("template_hashes", json!(format!("={}", hash('1')))),
        ("changelog", json!("a\0b")),
    ];
    for (name, value) in wrong {
        let mut registration = full();
        registration[name] = value.clone();
        let refused = parse(&registration).expect_err(name);
        assert_eq!(refused, Malformed::Form(name).into(), "{value}");
        assert_eq!(refused.reason(), Reason::RequestMalformed);
    }
    for name in ["version", "binary_hash", "metallib_hash"] {
        let mut registration = full();
        registration[name] = Value::Null;
        assert_eq!(parse(&registration), Err(Malformed::Missing(name).into()));
    }
    let mut unknown = full();
    unknown["active"] = json!(true);
    assert_eq!(parse(&unknown), Err(Malformed::Unknown.into()));
    let twice = full()
        .to_string()
        .replacen('{', "{\"version\":\"9.9.9\",", 1);
    let refused = Registration::parse(twice.as_bytes());
    assert_eq!(refused, Err(Malformed::NotAnObject.into()));
    let mut large = full();
    large["changelog"] = json!("a".repeat(64 * 1024));
    let refused = parse(&large).expect_err("too large");
    assert_eq!(refused.reason(), Reason::RequestTooLarge);
}

#[test]
fn a_program_is_registered_once_and_never_after_it_was_withdrawn() {
    let registration = parse(&full()).expect("well-formed");
    let Ok(Some(mut known)) = registration.clone().register(None, now()) else {
        panic!("new");
    };
    assert_eq!((known.registered_at, &known.revoked), (now(), &None));
    let later = now().plus(Duration::from_secs(60));
    let again = registration.clone().register(Some(&known), later);
    assert_eq!(again, Ok(None));
    for (name, value) in [
        ("version", json!("0.8.17")),
        ("version", json!("0.8.16+rebuilt")),
        ("changelog", json!("Slower.")),
    ] {
        let mut other = full();
        other[name] = value;
        let refused = parse(&other)
            .expect("well-formed")
            .register(Some(&known), later);
        assert_eq!(refused, Err(ReleaseRefusal::Contradiction));
    }

    assert_eq!(known.revoke(" ", later), Err(ReleaseRefusal::NoReason));
    assert_eq!(
        known.revoke(&"a".repeat(3000), later),
        Err(ReleaseRefusal::NoReason)
    );
    assert_eq!(known.standing(), Standing::Active);
    assert_eq!(known.revoke("leaks prompts", later), Ok(()));
    assert_eq!(
        known.revoke("another reason", later.plus(Duration::from_secs(1))),
        Ok(())
    );
    assert_eq!(known.standing(), Standing::Revoked);
    let revoked = known.revoked.clone().expect("withdrawn");
    assert_eq!((revoked.at, &*revoked.reason), (later, "leaks prompts"));
    assert_eq!(
        registration.register(Some(&known), later),
        Err(ReleaseRefusal::Revoked)
    );
    let stored = serde_json::to_string(&known).expect("JSON");
    assert_eq!(serde_json::from_str::<Release>(&stored).ok(), Some(known));
}

#[test]
fn the_latest_is_the_newest_that_everybody_may_run() {
    let here = Platform::default();
    let mut registry = vec![
        release("0.8.9", '1', "macos-arm64"),
        release("0.8.16", '2', "macos-arm64"),
        release("0.9.0-rc.1", '3', "macos-arm64"),
        release("1.0.0", '4', "macos-x86-64"),
    ];
    let mut rebuilt = release("0.8.16", '5', "macos-arm64");
    rebuilt.registered_at = now().plus(Duration::from_secs(60));
    registry.insert(0, rebuilt);
    let hashes = |registry: &[Release]| {
        latest(registry, &here).map(|release| release.binary_hash.to_string())
    };
    assert_eq!(hashes(&registry), Some(hash('5')));
    for (at, expected) in [(0, Some('2')), (2, Some('1')), (1, None)] {
        registry[at]
            .revoke("leaks prompts", now())
            .expect("withdrawn");
        assert_eq!(hashes(&registry), expected.map(hash));
    }
    assert_eq!(latest(&[], &here), None);
}
