//! A provider's software, as far as it asks for a profile: a key of its own, and what it signs.
//!
//! Written from the documents, and by OpenSSL: it shares nothing with the server.

use attestd::time::Timestamp;
use attestd_sim::keys::{KeyKind, generate, random};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::bn::BigNumContext;
use openssl::ec::PointConversionForm;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};

/// A provider with its key.
#[derive(Debug, Clone)]
pub struct Provider {
    key: PKey<Private>,
}

impl Provider {
    pub fn new() -> Self {
        Self {
            key: generate(KeyKind::P256).expect("a key"),
        }
    }

    fn point(&self) -> Vec<u8> {
        let key = self.key.ec_key().expect("an EC key");
        let mut context = BigNumContext::new().expect("a context");
        let form = PointConversionForm::UNCOMPRESSED;
        let point = key.public_key().to_bytes(key.group(), form, &mut context);
        point.expect("a point")
    }

    /// The key as CryptoKit writes it: 64 bytes.
    pub fn se_public_key(&self) -> String {
        STANDARD.encode(&self.point()[1..])
    }

    /// The same key, in 65 bytes.
    pub fn se_public_key_65(&self) -> String {
        STANDARD.encode(self.point())
    }

    pub fn sign(&self, message: &[u8]) -> String {
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).expect("a signer");
        STANDARD.encode(signer.sign_oneshot_to_vec(message).expect("a signature"))
    }

    /// A request for a profile from the server with this name, made at this time.
    pub fn asks(&self, server: &str, at: Timestamp) -> Value {
        let nonce = STANDARD.encode(random::<32>().expect("random bytes"));
        self.asks_with(&self.se_public_key(), server, &nonce, &at.to_string())
    }

    /// As [`Provider::asks`], with everything chosen.
    pub fn asks_with(&self, key: &str, server: &str, nonce: &str, timestamp: &str) -> Value {
        let mut signed = Vec::new();
        for field in ["attestd-enroll-v2", server, key, nonce, timestamp] {
            let length = u32::try_from(field.len()).expect("short");
            signed.extend(length.to_be_bytes());
            signed.extend(field.as_bytes());
        }
        json!({
            "se_public_key": key, "nonce": nonce, "timestamp": timestamp, "signature": self.sign(&signed),
        })
    }
}
