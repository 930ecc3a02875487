//! What a profile's ACME payload asks for (apple-protocol 1.4).

use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};

use crate::cms::SignatureDigest;
use crate::csr::{self, AlternativeName, Subject};

/// The settings of a com.apple.security.acme payload, as its rules allow them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    pub directory_url: String,
    /// The value of the permanent-identifier.
    pub client_identifier: String,
    pub key: KeyForm,
    /// The key is made in the Secure Enclave and never leaves it.
    pub hardware_bound: bool,
    /// Apple attests the key.
    pub attest: bool,
    pub subject: Subject,
    pub alternative_names: Vec<AlternativeName>,
    /// 1 signing, 4 encryption, 5 both, 0 unsaid.
    pub usage_flags: i64,
    /// Dotted OIDs.
    pub extended_key_usage: Vec<String>,
}

/// KeyType and KeySize together; the size in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    Rsa(u32),
    Ec(u32),
}

impl AcmeSettings {
    /// The PKCS #10 request for `key`: extensions only as the payload asks for them, and SHA-256
    /// even under P-384 (apple-protocol 7.1).
    pub fn csr(&self, key: &PKey<Private>) -> Result<Vec<u8>, ErrorStack> {
        let mut extensions = Vec::new();
        if !self.alternative_names.is_empty() {
            extensions.push(csr::subject_alt_name(&self.alternative_names)?);
        }
        extensions.extend(csr::key_usage(self.usage_flags)?);
        if !self.extended_key_usage.is_empty() {
            extensions.push(csr::extended_key_usage(&self.extended_key_usage)?);
        }
        let mut attributes = Vec::new();
        if !extensions.is_empty() {
            attributes.push(csr::extension_request(&extensions)?);
        }
        csr::request(key, &self.subject, attributes, SignatureDigest::Sha256)
    }
}

/// How long the client waits (apple-protocol 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcmeTiming {
    /// For one answer.
    pub request: Duration,
    /// Instead of polling, where a challenge or an order is not decided yet.
    pub pause: Duration,
    /// For the whole run.
    pub whole: Duration,
}

impl Default for AcmeTiming {
    /// Apple's: 15 seconds, 5 seconds, a minute.
    fn default() -> Self {
        Self {
            request: Duration::from_secs(15),
            pause: Duration::from_secs(5),
            whole: Duration::from_secs(60),
        }
    }
}
