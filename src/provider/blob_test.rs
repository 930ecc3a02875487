//! The attestation blob, and what is refused for one.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::blob::{Blob, BlobRefusal, MAX_BLOB, SignedBlob, Terms, VerifiedBlob};
use super::encryption_key::EncryptionKey;
use super::members::Malformed;
use super::se_key::SePublicKey;
use super::signature::BadSignature;
use super::test_provider::{K, Provider, REGISTER, SE_KEY};
use super::version::Version;
use crate::ids::SerialNumber;
use crate::json;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Shortly after the blobs of the fixtures and of [`Provider::blob`] were made.
fn now() -> Timestamp {
    Timestamp::parse("2026-09-20T12:00:00Z").expect("a time")
}

fn fixture() -> (String, String) {
    let members = json::members(REGISTER.as_bytes()).expect("an object");
    let signature: String = serde_json::from_str(members[1].1.get()).expect("a text");
    (members[0].1.get().to_owned(), signature)
}

fn k() -> EncryptionKey {
    EncryptionKey::parse(K).expect("a key")
}

fn signed(provider: &Provider, blob: &Value) -> SignedBlob {
    let raw = blob.to_string();
    let signature = provider.sign(raw.as_bytes());
    let blob = Blob::parse(raw.as_bytes()).expect("well-formed");
    blob.verify(&provider.key(), &signature).expect("signed")
}

fn accept(blob: SignedBlob, version: &str) -> Result<VerifiedBlob, Vec<Reason>> {
    let version = Version::parse(version).ok();
    let terms = Terms {
        encryption_key: &k(),
        provider_version: version.as_ref(),
        now: now(),
    };
    blob.accept(&terms).map_err(|refused| refused.reasons)
}

#[test]
fn the_blob_that_swift_wrote_is_verified_over_its_bytes() {
    let (raw, signature) = fixture();
    assert!(raw.contains("\\/"), "as Swift writes it");
    let key = SePublicKey::parse(SE_KEY).expect("a key");
    let blob = Blob::parse(raw.as_bytes()).expect("well-formed");
    let signed = blob.verify(&key, &signature).expect("signed");
    assert_eq!(signed.raw(), raw.as_bytes());
    let verified = accept(signed, "0.8.16").expect("accepted");
    let report = verified.report();
    assert_eq!(
        report.serial.as_ref().map(SerialNumber::as_str),
        Some("FXSYNTH0001")
    );
    assert_eq!(report.se_public_key.text(), SE_KEY);
    assert_eq!(report.encryption_public_key, Some(k()));
    assert_eq!(report.runtime_capabilities, ["mlx/gemma4_qat"]);
    assert_eq!(report.hardware_model, "Mac16,5");
    assert_eq!(report.binary_hash.as_deref(), Some(&*"a1".repeat(32)));
    assert_eq!(report.hypervisor_active, None);

    // The same values in the spelling of another writer are other bytes.
    let again = serde_json::from_str::<Value>(&raw)
        .expect("JSON")
        .to_string();
    assert_ne!(again, raw);
    let blob = Blob::parse(again.as_bytes()).expect("well-formed");
    let refused = blob.verify(&key, &signature).err();
    assert_eq!(refused, Some(BadSignature.into()));
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let raw = Provider::new().blob().to_string();
    for (name, text) in [
        ("an array", "[]".to_owned()),
        ("a text", "\"{}\"".to_owned()),
        ("nothing", String::new()),
        ("two objects", format!("{raw}{raw}")),
        (
            "a repeated name",
            raw.replace("{\"auth", "{\"sipEnabled\":true,\"auth"),
        ),
        ("a respelled name", raw.replace("sipEnabled", "SIPEnabled")),
        (
            "a respelled copy",
            raw.replace("{\"auth", "{\"SipEnabled\":false,\"auth"),
        ),
        (
            "a long s",
            raw.replace("{\"auth", "{\"\u{17f}ipEnabled\":false,\"auth"),
        ),
        (
            "a number for a flag",
            raw.replace("\"sipEnabled\":true", "\"sipEnabled\":1"),
        ),
        (
            "a text for a flag",
            raw.replace("\"sipEnabled\":true", "\"sipEnabled\":\"true\""),
        ),
        ("no time", raw.replace("2026-09-20T11:59:30Z", "yesterday")),
        ("no serial number", raw.replace("SIMQ4T2W7P", "sim q4")),
    ] {
        let refused = Blob::parse(text.as_bytes()).err();
        let reason = refused.as_ref().map(BlobRefusal::reason);
        assert_eq!(reason, Some(Reason::AnswerMalformed), "{name}: {refused:?}");
    }
    let large = raw.replace("Mac16,5", &"M".repeat(MAX_BLOB));
    let refused = Blob::parse(large.as_bytes()).err();
    assert_eq!(refused, Some(Malformed::TooLarge(MAX_BLOB).into()));
}

#[test]
fn what_the_rules_need_must_be_there() {
    for name in [
        "chipName",
        "hardwareModel",
        "osVersion",
        "publicKey",
        "secureBootEnabled",
        "secureEnclaveAvailable",
        "sipEnabled",
        "timestamp",
    ] {
        let mut blob = Provider::new().blob();
        blob[name] = Value::Null;
        let refused = Blob::parse(blob.to_string().as_bytes()).err();
        assert_eq!(refused, Some(Malformed::Missing(name).into()));
    }
    // Old provider software leaves these out, and what is unknown here is only signed.
    let provider = Provider::new();
    let mut blob = provider.blob();
    for name in ["authenticatedRootEnabled", "rdmaDisabled", "serialNumber"] {
        blob[name] = Value::Null;
    }
    blob["somethingNewer"] = json!({"sipEnabled": false});
    let report = accept(signed(&provider, &blob), "0.8.16")
        .expect("accepted")
        .report()
        .clone();
    assert_eq!((report.rdma_disabled, report.serial), (None, None));
    assert!(report.sip_enabled);
}

#[test]
fn a_blob_is_signed_by_the_key_it_names_in_the_same_text() {
    let provider = Provider::new();
    let raw = provider.blob().to_string();
    let signature = provider.sign(raw.as_bytes());
    let verify = |key: &SePublicKey, signature: &str| {
        let blob = Blob::parse(raw.as_bytes()).expect("well-formed");
        blob.verify(key, signature).err()
    };
    assert_eq!(verify(&provider.key(), &signature), None);
    // The same point in 65 bytes makes another nonce.
    assert_eq!(
        verify(&provider.key_65(), &signature),
        Some(BlobRefusal::OtherKey)
    );
    assert_eq!(BlobRefusal::OtherKey.reason(), Reason::KeyMismatch);
    let other = Provider::new();
    assert_eq!(
        verify(&other.key(), &signature),
        Some(BlobRefusal::OtherKey)
    );
    let forged = other.sign(raw.as_bytes());
    assert_eq!(verify(&provider.key(), &forged), Some(BadSignature.into()));
    let unsigned = verify(&provider.key(), "");
    assert_eq!(
        unsigned.as_ref().map(BlobRefusal::reason),
        Some(Reason::SignatureInvalid)
    );

    let mut blob = provider.blob();
    blob["publicKey"] = json!("AAAA");
    let refused = Blob::parse(blob.to_string().as_bytes()).err();
    assert_eq!(
        refused.map(|refusal| refusal.reason()),
        Some(Reason::KeyRejected)
    );
    let mut blob = provider.blob();
    blob["encryptionPublicKey"] = json!("AAAA");
    let refused = Blob::parse(blob.to_string().as_bytes()).err();
    assert_eq!(
        refused.map(|refusal| refusal.reason()),
        Some(Reason::KeyRejected)
    );
}

#[test]
fn a_mac_that_says_it_is_in_a_bad_state_is_not_a_forgery() {
    let provider = Provider::new();
    let mut blob = provider.blob();
    blob["sipEnabled"] = json!(false);
    blob["secureBootEnabled"] = json!(false);
    blob["secureEnclaveAvailable"] = json!(false);
    blob["encryptionPublicKey"] = Value::Null;
    let k = k();
    let terms = Terms {
        encryption_key: &k,
        provider_version: None,
        now: now().plus(Duration::from_secs(3600)),
    };
    let refused = signed(&provider, &blob)
        .accept(&terms)
        .expect_err("refused");
    let definite = [Reason::SipDisabled, Reason::SecureBootOff];
    assert_eq!(refused.blob.negatives(), definite);
    let further = [
        Reason::SecureEnclaveUnavailable,
        Reason::KeyMismatch,
        Reason::TimestampOutOfWindow,
    ];
    assert_eq!(refused.reasons, [&definite[..], &further[..]].concat());
}

#[test]
fn each_rule_refuses_by_itself() {
    let provider = Provider::new();
    for (name, value, reason) in [
        ("sipEnabled", json!(false), Reason::SipDisabled),
        ("secureBootEnabled", json!(false), Reason::SecureBootOff),
        (
            "secureEnclaveAvailable",
            json!(false),
            Reason::SecureEnclaveUnavailable,
        ),
        (
            "encryptionPublicKey",
            json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            Reason::KeyMismatch,
        ),
        (
            "timestamp",
            json!("2026-09-20T11:57:59Z"),
            Reason::TimestampOutOfWindow,
        ),
    ] {
        let mut blob = provider.blob();
        blob[name] = value;
        assert_eq!(
            accept(signed(&provider, &blob), "0.8.16").err(),
            Some(vec![reason])
        );
    }
    // Recorded, and held against nobody.
    for name in ["authenticatedRootEnabled", "rdmaDisabled"] {
        let mut blob = provider.blob();
        blob[name] = json!(false);
        assert!(accept(signed(&provider, &blob), "0.8.16").is_ok());
    }
}

#[test]
fn only_old_software_may_send_what_it_signed_before() {
    let provider = Provider::new();
    for (timestamp, version, expected) in [
        ("2026-09-20T11:58:00Z", "0.8.15", true),
        ("2026-09-20T11:57:59Z", "0.8.15", false),
        ("2026-09-20T12:02:00Z", "0.8.15", true),
        ("2026-09-20T12:02:01Z", "0.8.15", false),
        ("2026-09-20T13:58:00.5+02:00", "1.0.0", true),
        ("2026-09-20T11:00:00Z", "0.8.14", true),
        ("2026-09-20T11:00:00Z", "0.8.15-rc.1", true),
        ("2026-09-20T11:00:00Z", "no version", false),
        ("2026-09-06T12:00:00Z", "0.8.14", true),
        ("2026-09-06T11:59:59Z", "0.8.14", false),
        ("2026-09-20T12:02:01Z", "0.8.14", false),
    ] {
        let mut blob = provider.blob();
        blob["timestamp"] = json!(timestamp);
        let result = accept(signed(&provider, &blob), version);
        assert_eq!(result.is_ok(), expected, "{timestamp} of {version}");
    }
}

proptest! {
    #[test]
    fn no_single_changed_byte_of_a_blob_is_believed(at in 0_usize..2_000, bit in 0..8) {
        let (raw, signature) = fixture();
        let mut raw = raw.into_bytes();
        let at = at % raw.len();
        raw[at] ^= 1_u8 << bit;
        let key = SePublicKey::parse(SE_KEY).expect("a key");
        let believed = Blob::parse(&raw).and_then(|blob| blob.verify(&key, &signature));
        prop_assert!(believed.is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Blob::parse(&bytes).is_err());
    }
}
