//! The provider software on a Mac: a key in the Secure Enclave, the blob it signs when it starts, and
//! its answers to challenges (coordinator-and-standards A.2 to A.4).
//!
//! It speaks to its coordinator only, so this double makes what the coordinator would carry: frames,
//! and the body that registers a session.

mod canonical;
mod completion;
mod signing;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::completion::Completion;
use crate::clock::Clock;
use crate::keys::{KeyKind, generate, random};

/// How the provider writes its key: the same point has two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyText {
    /// `X‖Y`, as CryptoKit's `rawRepresentation`.
    #[default]
    Bytes64,
    /// `04‖X‖Y`.
    Bytes65,
}

/// The way in which a provider is not honest, or not well made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderLie {
    /// Signs with a key other than the one it names.
    OtherKey,
    /// Writes S in the upper half of the group's order. This is allowed.
    HighS,
    /// Adds a byte behind each signature.
    TrailingByte,
    /// Names a member of its blob twice.
    DuplicateMember,
    /// Signs something, then changes one word of it.
    ChangedAfterwards,
    /// Signs its status sorted without regard to case and by numbers, as Foundation's `sortedKeys`.
    FoundationOrder,
    /// Leaves the second signature out.
    StatusUnsigned,
}

/// What the provider says, and would say truthfully.
#[derive(Debug, Clone)]
pub struct Truth {
    pub serial: Option<String>,
    pub sip_enabled: bool,
    pub secure_boot_enabled: bool,
    pub secure_enclave_available: bool,
    pub rdma_disabled: bool,
    pub os_version: String,
    /// In hexadecimal digits.
    pub binary_hash: Option<String>,
    pub provider_version: String,
    pub model_hashes: Vec<(String, String)>,
}

/// One process of the provider software.
#[derive(Debug, Clone)]
pub struct Provider {
    pub truth: Truth,
    pub lie: Option<ProviderLie>,
    pub key_text: KeyText,
    key: PKey<Private>,
    other_key: PKey<Private>,
    encryption_key: String,
    clock: Clock,
}

impl Provider {
    /// Honest software of today on the Mac with this serial number.
    pub fn new(serial: &str, clock: &Clock) -> Result<Self, ErrorStack> {
        Ok(Self {
            truth: Truth {
                serial: Some(serial.to_owned()),
                sip_enabled: true,
                secure_boot_enabled: true,
                secure_enclave_available: true,
                rdma_disabled: true,
                os_version: "Version 26.4.1 (Build 25E253)".to_owned(),
                binary_hash: Some("a1".repeat(32)),
                provider_version: "0.8.16".to_owned(),
                model_hashes: vec![
                    ("gemma-4-26b-qat-4bit".to_owned(), "d4".repeat(32)),
                    ("Qwen3.5-9B".to_owned(), "e5".repeat(32)),
                ],
            },
            lie: None,
            key_text: KeyText::default(),
            key: generate(KeyKind::P256)?,
            other_key: generate(KeyKind::P256)?,
            encryption_key: encryption_key()?,
            clock: clock.clone(),
        })
    }

    /// The same software under the same Secure Enclave key, started again.
    pub fn restart(&mut self) -> Result<(), ErrorStack> {
        self.encryption_key = encryption_key()?;
        Ok(())
    }

    /// Another Secure Enclave key, as old software makes one at every start.
    pub fn rotate_key(&mut self) -> Result<(), ErrorStack> {
        self.key = generate(KeyKind::P256)?;
        self.restart()
    }

    /// The public key's text.
    pub fn public_key(&self) -> Result<String, ErrorStack> {
        let point = signing::point(&self.key)?;
        Ok(STANDARD.encode(match self.key_text {
            KeyText::Bytes64 => &point[1..],
            KeyText::Bytes65 => &point[..],
        }))
    }

    /// `K`.
    pub fn encryption_key(&self) -> &str {
        &self.encryption_key
    }

    /// The blob as it is signed, byte for byte, and the signature's text.
    pub fn blob(&self) -> Result<(String, String), ErrorStack> {
        let truth = &self.truth;
        let mut members = json!({
            "authenticatedRootEnabled": true,
            "chipFamily": "M4",
            "chipName": "Apple M4 Max",
            "encryptionPublicKey": self.encryption_key,
            "hardwareModel": "Mac16,5",
            "osVersion": truth.os_version,
            "publicKey": self.public_key()?,
            "rdmaDisabled": truth.rdma_disabled,
            "secureBootEnabled": truth.secure_boot_enabled,
            "secureEnclaveAvailable": truth.secure_enclave_available,
            "sipEnabled": truth.sip_enabled,
            "timestamp": self.now(),
        });
        if let Some(hash) = &truth.binary_hash {
            members["binaryHash"] = json!(hash);
        }
        if let Some(serial) = &truth.serial {
            members["serialNumber"] = json!(serial);
        }
        let mut blob = canonical::swift(&members);
        if self.lie == Some(ProviderLie::DuplicateMember) {
            blob = blob.replacen('{', "{\"sipEnabled\":true,", 1);
        }
        let signature = self.sign(blob.as_bytes())?;
        if self.lie == Some(ProviderLie::ChangedAfterwards) {
            blob = blob.replace("Apple M4 Max", "Apple M4 Min");
        }
        Ok((blob, signature))
    }

    /// What the coordinator sends to register this process as one of its sessions.
    pub fn binding_request(&self, account: Option<&str>) -> Result<Value, ErrorStack> {
        let (blob, signature) = self.blob()?;
        let mut request = json!({
            "se_public_key": self.public_key()?,
            "encryption_public_key": self.encryption_key,
            "attestation_raw_b64": STANDARD.encode(blob),
            "signature_b64": signature,
            "provider_version": self.truth.provider_version,
        });
        if let Some(serial) = &self.truth.serial {
            request["claimed_serial_number"] = json!(serial);
        }
        if let Some(account) = account {
            request["account"] = json!(account);
        }
        Ok(request)
    }

    /// What asks the server of this name for a profile, in the name of the Secure Enclave key (its
    /// documentation of `POST /v2/enroll`).
    pub fn enroll_request(&self, server: &str) -> Result<Value, ErrorStack> {
        let key = self.public_key()?;
        let nonce = STANDARD.encode(random::<32>()?);
        let timestamp = self.now();
        let mut signed = Vec::new();
        for field in ["attestd-enroll-v2", server, &key, &nonce, &timestamp] {
            let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
            signed.extend(length.to_be_bytes());
            signed.extend(field.as_bytes());
        }
        Ok(json!({
            "se_public_key": key,
            "nonce": nonce,
            "timestamp": timestamp,
            "signature": self.sign(&signed)?,
        }))
    }

    /// The frame that answers a challenge.
    pub fn answer(&self, nonce: &str, timestamp: &str) -> Result<Value, ErrorStack> {
        let truth = &self.truth;
        let models: Map<String, Value> = truth
            .model_hashes
            .iter()
            .map(|(name, hash)| (name.clone(), json!(hash)))
            .collect();
        let mut status = json!({
            "nonce": nonce,
            "timestamp": timestamp,
            "rdma_disabled": truth.rdma_disabled,
            "secure_boot_enabled": truth.secure_boot_enabled,
            "sip_enabled": truth.sip_enabled,
            "model_hashes": models,
        });
        if let Some(hash) = &truth.binary_hash {
            status["binary_hash"] = json!(hash);
        }
        let signed = match self.lie {
            Some(ProviderLie::FoundationOrder) => canonical::foundation(&status),
            _ => canonical::status(&status),
        };
        let mut frame = status;
        frame["type"] = json!("attestation_response");
        frame["public_key"] = json!(self.encryption_key);
        frame["signature"] = json!(self.sign(format!("{nonce}{timestamp}").as_bytes())?);
        if self.lie != Some(ProviderLie::StatusUnsigned) {
            frame["status_signature"] = json!(self.sign(signed.as_bytes())?);
        }
        if self.lie == Some(ProviderLie::ChangedAfterwards) {
            frame["sip_enabled"] = json!(!truth.sip_enabled);
        }
        if let Some(members) = frame.as_object_mut() {
            // An answer does not repeat it.
            members.shift_remove("timestamp");
        }
        Ok(frame)
    }

    /// The text of a signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Result<String, ErrorStack> {
        let key = match self.lie {
            Some(ProviderLie::OtherKey) => &self.other_key,
            _ => &self.key,
        };
        let high = self.lie == Some(ProviderLie::HighS);
        let mut signature = signing::sign(key, message, high)?;
        if self.lie == Some(ProviderLie::TrailingByte) {
            signature.push(0);
        }
        Ok(STANDARD.encode(signature))
    }

    /// Its clock, as it writes times.
    pub fn now(&self) -> String {
        let time = OffsetDateTime::from_unix_timestamp(self.clock.now_seconds());
        time.ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default()
    }

    /// Its clock runs fast (or, negative, slow) from now on.
    pub fn skew_clock(&mut self, by_ms: i64) {
        self.clock = self.clock.skewed_by(by_ms);
    }
}

fn encryption_key() -> Result<String, ErrorStack> {
    Ok(STANDARD.encode(random::<32>()?))
}
