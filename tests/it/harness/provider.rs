//! A provider's software, as far as it asks for a profile: the simulator's, with everything it says chosen.

use attestd::time::Timestamp;
use attestd_sim::keys::random;
use attestd_sim::{Clock, KeyText};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A provider with its key.
#[derive(Debug, Clone)]
pub struct Provider(attestd_sim::Provider);

impl Provider {
    pub fn new() -> Self {
        Self(attestd_sim::Provider::new("FXSYNTH0001", &Clock::system()).expect("a provider"))
    }

    /// The key as CryptoKit writes it: 64 bytes.
    pub fn se_public_key(&self) -> String {
        self.0.public_key().expect("a key")
    }

    /// The same key, in 65 bytes.
    pub fn se_public_key_65(&self) -> String {
        let mut longer = self.0.clone();
        longer.key_text = KeyText::Bytes65;
        longer.public_key().expect("a key")
    }

    pub fn sign(&self, message: &[u8]) -> String {
        self.0.sign(message).expect("a signature")
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
