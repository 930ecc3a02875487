//! The provider plane on one thread: a challenge's answer against the two bare verifications in it.

use std::hint::black_box;
use std::time::Duration;

use attestd::provider::challenge::{Asked, StatusSignature};
use attestd::provider::{Challenge, EncryptionKey, Response, SePublicKey, Signature, Status};
use attestd::time::Timestamp;
use attestd_sim::keys::{KeyKind, generate};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::sign::Signer;
use serde_json::json;

use super::primitives::medians;
use super::report::Report;

const K: &str = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";

pub fn run(report: &mut Report) {
    let now = Timestamp::from_seconds(1_790_847_007);
    let private = generate(KeyKind::P256).expect("key");
    let spki = private.public_key_to_der().expect("key");
    let point = &spki[spki.len() - 65..];
    let sign = |message: &[u8]| {
        let mut signer = Signer::new(MessageDigest::sha256(), &private).expect("signer");
        STANDARD.encode(signer.sign_oneshot_to_vec(message).expect("signature"))
    };

    // An answer of the size that current provider software sends, with a few models loaded.
    let challenge = Challenge::mint([7; 32], now);
    let hash = |digit: &str| digit.repeat(64);
    let mut answer = json!({
        "type": "attestation_response", "nonce": challenge.nonce(), "public_key": K,
        "active_model_hash": hash("a"), "binary_hash": hash("b"),
        "model_hashes": {"model-a-4bit": hash("1"), "Model-B-9B": hash("2"), "model-c": hash("3")},
        "template_hashes": {"chatml": hash("4"), "gemma": hash("5")},
        "rdma_disabled": true, "secure_boot_enabled": true, "sip_enabled": true,
    });
    let mut status = answer.clone();
    status["timestamp"] = json!(challenge.timestamp());
    let status = Status::read(status.to_string().as_bytes(), 100_000).expect("a status");
    let canonical = status.canonical();
    let challenged = format!("{}{}", challenge.nonce(), challenge.timestamp());
    let signatures = [sign(challenged.as_bytes()), sign(canonical.as_bytes())];
    answer["signature"] = json!(signatures[0]);
    answer["status_signature"] = json!(signatures[1]);
    let body = answer.to_string();

    // The two verifications alone, with the key kept and everything decoded.
    let bare = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).expect("key");
    let decoded = signatures.map(|text| Signature::parse(&text).expect("a signature"));
    let mut two_bare = || {
        bare.verify_sig(challenged.as_bytes(), decoded[0].as_der())
            .expect("verified");
        bare.verify_sig(canonical.as_bytes(), decoded[1].as_der())
            .expect("verified");
    };

    let text = STANDARD.encode(&point[1..]);
    let encryption_key = EncryptionKey::parse(K).expect("key");
    let check = |key: &SePublicKey| {
        let response = Response::parse(body.as_bytes()).expect("an answer");
        let verified = response.verify(&Asked {
            challenge: &challenge,
            key,
            encryption_key: Some(&encryption_key),
            status_signature: StatusSignature::Required,
            answer_within: Duration::from_secs(30),
            received_at: now,
        });
        black_box(verified.expect("verified"));
    };
    let kept = SePublicKey::parse(&text).expect("key");
    let mut key_kept = || check(&kept);
    let mut key_read = || check(&SePublicKey::parse(&text).expect("key"));

    let figures = medians(&mut [
        ("two bare", &mut two_bare),
        ("key kept", &mut key_kept),
        ("key read", &mut key_read),
    ]);
    let [two_bare, key_kept, key_read] = figures[..] else {
        panic!("one figure per work");
    };
    report.figure("two P-256 verifications, aws-lc-rs (2 P)", two_bare);
    report.held(
        "challenge's answer, key kept",
        key_kept,
        two_bare,
        "x 2 P",
        1.3,
    );
    report.held(
        "challenge's answer, key read",
        key_read,
        two_bare,
        "x 2 P",
        1.3,
    );
}
