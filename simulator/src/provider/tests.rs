use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::{KeyText, Provider, ProviderLie, canonical};
use crate::clock::Clock;

fn provider() -> Provider {
    Provider::new("FXSYNTH0001", &Clock::fixed(1_790_847_007_123)).unwrap()
}

fn verifies(provider: &Provider, message: &[u8], signature: &str) -> bool {
    let signature = STANDARD.decode(signature).unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &provider.key).unwrap();
    verifier
        .verify_oneshot(&signature, message)
        .unwrap_or(false)
}

#[test]
fn a_blob_is_written_as_swift_writes_it_and_signed_over_its_bytes() {
    let provider = provider();
    let (blob, signature) = provider.blob().unwrap();
    assert!(verifies(&provider, blob.as_bytes(), &signature));
    assert!(blob.starts_with("{\"authenticatedRootEnabled\":true,\"binaryHash\":\"a1a1"));
    assert!(
        blob.ends_with("\"timestamp\":\"2026-10-01T09:30:07Z\"}"),
        "{blob}"
    );
    assert!(!blob.contains(": ") && !blob.replace("\\/", "").contains('/'));
    let read: Value = serde_json::from_str(&blob).unwrap();
    assert_eq!(read["publicKey"], provider.public_key().unwrap());
    assert_eq!(read["encryptionPublicKey"], provider.encryption_key());
}

#[test]
fn the_status_has_one_form() {
    let status = json!({
        "timestamp": "t", "nonce": "n/<&>\u{2028}", "python_hash": "", "template_hashes": {},
        "sip_enabled": false, "model_hashes": {"b": "1", "B": "2", "a10": "3", "a9": "4"},
    });
    assert_eq!(
        canonical::status(&status),
        "{\"model_hashes\":{\"B\":\"2\",\"a10\":\"3\",\"a9\":\"4\",\"b\":\"1\"},\
         \"nonce\":\"n/<&>\\u2028\",\"sip_enabled\":false,\"timestamp\":\"t\"}"
    );
    assert_ne!(canonical::status(&status), canonical::foundation(&status));
}

#[test]
fn an_answer_is_signed_twice_and_does_not_repeat_the_time() {
    let provider = provider();
    let answer = provider.answer("bm9uY2U=", "2026-10-01T08:50:07Z").unwrap();
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    assert!(verifies(
        &provider,
        b"bm9uY2U=2026-10-01T08:50:07Z",
        &text("signature")
    ));
    assert_eq!(answer.get("timestamp"), None);
    let mut status = answer.clone();
    for name in ["type", "public_key", "signature", "status_signature"] {
        status.as_object_mut().unwrap().shift_remove(name);
    }
    status["timestamp"] = json!("2026-10-01T08:50:07Z");
    let signed = canonical::status(&status);
    assert!(verifies(
        &provider,
        signed.as_bytes(),
        &text("status_signature")
    ));
}

#[test]
fn each_lie_is_told_and_no_other() {
    let mut provider = provider();
    let low = STANDARD.decode(provider.sign(b"m").unwrap()).unwrap();
    provider.lie = Some(ProviderLie::HighS);
    let high = provider.sign(b"m").unwrap();
    assert!(verifies(&provider, b"m", &high));
    let s = |der: &[u8]| -> BigNum { EcdsaSig::from_der(der).unwrap().s().to_owned().unwrap() };
    assert!(s(&STANDARD.decode(&high).unwrap()) > s(&low));
    provider.lie = Some(ProviderLie::OtherKey);
    assert!(!verifies(&provider, b"m", &provider.sign(b"m").unwrap()));
    provider.lie = Some(ProviderLie::ChangedAfterwards);
    let (blob, signature) = provider.blob().unwrap();
    assert!(!verifies(&provider, blob.as_bytes(), &signature));
    provider.lie = Some(ProviderLie::StatusUnsigned);
    let answer = provider.answer("bg==", "t").unwrap();
    assert_eq!(answer.get("status_signature"), None);
    provider.lie = Some(ProviderLie::DuplicateMember);
    assert_eq!(provider.blob().unwrap().0.matches("sipEnabled").count(), 2);
    provider.lie = Some(ProviderLie::TrailingByte);
    let trailing = STANDARD.decode(provider.sign(b"m").unwrap()).unwrap();
    assert_eq!(trailing.last(), Some(&0));
    provider.lie = None;
    provider.key_text = KeyText::Bytes65;
    assert_eq!(
        STANDARD
            .decode(provider.public_key().unwrap())
            .unwrap()
            .len(),
        65
    );
}
