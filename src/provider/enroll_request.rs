//! `POST /v2/enroll`: a provider asks for a profile, signed by its Secure Enclave key.
//!
//! The ticket that is made for it names the key, so that when the Mac enrols it is known which key
//! asked for this Mac's profile. That keeps a stranger from claiming somebody's serial number; it
//! does not keep the owner of two Macs from using the key of one with the profile of the other.
//!
//! # What is signed
//! ECDSA on P-256 with SHA-256 over five fields, each after its length as 4 bytes, big endian:
//!
//! | field | bytes |
//! | --- | --- |
//! | tag | `attestd-enroll-v2` |
//! | server id | this service's canonical name, the one in `transcript-v1` nonces |
//! | key | the text of `se_public_key` |
//! | nonce | the text of `nonce` |
//! | timestamp | the text of `timestamp` |
//!
//! The tag keeps it apart from challenges, which have none: those begin with a base64 character, and
//! this with a zero byte. The server id keeps it from being taken to another service. The key's text
//! is signed because it, and not the point, will be hashed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::members::{Malformed, Members};
use super::se_key::{SeKeyRefusal, SePublicKey};
use super::signature::{BadSignature, Signature, SignatureRefusal};
use super::{CLOCK_SKEW, is_timely};
use crate::ids::{sha256, transcript};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest body read; an honest one has some 300 bytes.
pub const MAX_REQUEST: usize = 4 * 1024;

/// A request that its key signed, for this service and lately. [`EnrollRequest::verify`] is the only
/// way to get one. Whether it was made before is for who remembers [`EnrollRequest::once`].
#[derive(Debug, Clone)]
pub struct EnrollRequest {
    key: SePublicKey,
    once: Once,
}

/// Under what a request is remembered, so that it is granted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// SHA-256 over key and nonce, by point and bytes: another spelling of either is no new request.
    pub name: [u8; 32],
    /// When it may be forgotten: it is refused for its age from then on.
    pub until: Timestamp,
}

/// Why a request is none that can be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollRefusal {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    SeKey(#[from] SeKeyRefusal),
    #[error("the request is too old, or of a time that lies ahead")]
    Untimely,
    #[error(transparent)]
    Signature(#[from] SignatureRefusal),
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
}

impl EnrollRefusal {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(Malformed::TooLarge(_)) => Reason::RequestTooLarge,
            Self::Malformed(_) => Reason::RequestMalformed,
            Self::SeKey(refusal) => refusal.reason(),
            Self::Untimely => Reason::TimestampOutOfWindow,
            Self::Signature(refusal) => refusal.reason(),
            Self::BadSignature(refusal) => refusal.reason(),
        }
    }
}

const KNOWN: &[&str] = &["nonce", "se_public_key", "signature", "timestamp"];

/// What a request signs.
pub fn signed_bytes(server_id: &str, key: &str, nonce: &str, timestamp: &str) -> Vec<u8> {
    let fields = ["attestd-enroll-v2", server_id, key, nonce, timestamp];
    transcript(&fields.map(str::as_bytes))
}

impl EnrollRequest {
    /// Reads and verifies a body. The nonce is 16 to 64 bytes in standard base64 with padding, the
    /// timestamp RFC 3339, within two minutes of `now`.
    ///
    /// # Refusals
    /// See [`EnrollRefusal`]; unknown members are one.
    pub fn verify(body: &[u8], server_id: &str, now: Timestamp) -> Result<Self, EnrollRefusal> {
        let mut members = Members::read(body, MAX_REQUEST, KNOWN)?;
        members.refuse_others(KNOWN)?;
        let nonce = members.text("nonce")?;
        let nonce_bytes = match STANDARD.decode(&nonce) {
            Ok(bytes) if (16..=64).contains(&bytes.len()) => bytes,
            _ => return Err(Malformed::Form("nonce").into()),
        };
        let timestamp = members.text("timestamp")?;
        let stated = Timestamp::parse(&timestamp).map_err(|_| Malformed::Form("timestamp"))?;
        if !is_timely(stated, CLOCK_SKEW, now) {
            return Err(EnrollRefusal::Untimely);
        }
        let signature = Signature::parse(&members.text("signature")?)?;
        let key = SePublicKey::parse(&members.text("se_public_key")?)?;
        let signed = signed_bytes(server_id, key.text(), &nonce, &timestamp);
        key.verify(&signed, &signature)?;
        let name = sha256(&transcript(&[
            b"attestd-enroll-once-v2",
            key.point().as_bytes(),
            &nonce_bytes,
        ]));
        let until = stated
            .plus(CLOCK_SKEW)
            .plus(std::time::Duration::from_millis(1));
        Ok(Self {
            key,
            once: Once { name, until },
        })
    }

    /// Who asks.
    pub fn key(&self) -> &SePublicKey {
        &self.key
    }

    /// Under what it is remembered.
    pub fn once(&self) -> &Once {
        &self.once
    }
}
