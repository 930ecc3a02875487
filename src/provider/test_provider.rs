//! A provider for unit tests: a P-256 key held by OpenSSL, another implementation than the one
//! tested.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::challenge::Challenge;
use super::se_key::SePublicKey;
use super::status::Status;
use crate::pki::Signer as _;
use crate::pki::test_key::TestKey;

pub(super) const NONCE_SCHEMES: &str =
    include_str!("../../tests/fixtures/provider/nonce_schemes.json");
pub(super) const STATUS_VECTORS: &str =
    include_str!("../../tests/fixtures/provider/status_canonical_vectors.json");
pub(super) const REGISTER: &str =
    include_str!("../../tests/fixtures/provider/register.attestation.json");
pub(super) const CHALLENGE: &str = include_str!("../../tests/fixtures/provider/challenge.json");
/// The Secure Enclave key of the fixtures.
pub(super) const SE_KEY: &str =
    "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";
/// The encryption key of the fixtures.
pub(super) const K: &str = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";

pub(super) struct Provider(TestKey);

impl Provider {
    pub(super) fn new() -> Self {
        Self(TestKey::p256())
    }

    /// `04‖X‖Y`.
    fn point(&self) -> Vec<u8> {
        let spki = self.0.public_key_spki();
        spki[spki.len() - 65..].to_vec()
    }

    pub(super) fn key(&self) -> SePublicKey {
        SePublicKey::parse(&STANDARD.encode(&self.point()[1..])).expect("a key")
    }

    /// The same key by its other text.
    pub(super) fn key_65(&self) -> SePublicKey {
        SePublicKey::parse(&STANDARD.encode(self.point())).expect("a key")
    }

    pub(super) fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.sign(message).expect("signed"))
    }

    /// A blob as honest software writes it, before it is changed.
    pub(super) fn blob(&self) -> Value {
        json!({
            "authenticatedRootEnabled": true,
            "chipName": "Apple M4 Max",
            "encryptionPublicKey": K,
            "hardwareModel": "Mac16,5",
            "osVersion": "Version 26.4.1 (Build 25E253)",
            "publicKey": self.key().text(),
            "rdmaDisabled": true,
            "secureBootEnabled": true,
            "secureEnclaveAvailable": true,
            "serialNumber": "SIMQ4T2W7P",
            "sipEnabled": true,
            "timestamp": "2026-09-20T11:59:30Z",
        })
    }
}

impl Provider {
    /// An answer to `challenge` as honest software writes it, with these members changed before it
    /// is signed (`null` leaves one out).
    pub(super) fn answer(&self, challenge: &Challenge, changes: Value) -> Value {
        let mut answer = json!({
            "type": "attestation_response",
            "nonce": challenge.nonce(),
            "public_key": K,
            "binary_hash": "a1".repeat(32),
            "model_hashes": {"b/model": "02", "A.Model": "01"},
            "rdma_disabled": true,
            "secure_boot_enabled": true,
            "sip_enabled": true,
        });
        for (name, value) in changes.as_object().expect("an object") {
            answer[name] = value.clone();
        }
        let mut status = answer.clone();
        status["timestamp"] = json!(challenge.timestamp());
        let status = Status::read(status.to_string().as_bytes(), 100_000).expect("a status");
        let signed = format!("{}{}", challenge.nonce(), challenge.timestamp());
        answer["signature"] = json!(self.sign(signed.as_bytes()));
        answer["status_signature"] = json!(self.sign(status.canonical().as_bytes()));
        answer
    }
}
