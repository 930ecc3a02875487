//! Challenges: is the holder of the key still there, and what does it say of its Mac now?
//!
//! A nonce and a timestamp go out, and come back under two signatures: one over nonce and timestamp,
//! one over the canonical [`Status`]. The first covers no posture, so without the second what the
//! answer says of the Mac is a remark. A remark against the Mac counts all the same.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::CLOCK_SKEW;
use super::blob::negatives;
use super::encryption_key::EncryptionKey;
use super::members::{Malformed, Members};
use super::se_key::SePublicKey;
use super::signature::{BadSignature, Signature, SignatureRefusal};
use super::status::{self, Status};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest answer read: hashes of some hundred models and templates.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// What a provider is asked to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    nonce: String,
    timestamp: String,
    issued_at: Timestamp,
}

/// What a provider answered; nothing of it is verified yet.
#[derive(Debug, Clone)]
pub struct Response {
    signature: String,
    status_signature: Option<String>,
    public_key: Option<String>,
    /// Without the timestamp, which an answer does not repeat.
    said: Status,
}

/// Whether the status must be signed. A signature that is there must be good in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusSignature {
    #[default]
    Required,
    /// For provider software before 0.3.11, which does not make one.
    Optional,
}

/// What an answer must be an answer to, and whose.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub challenge: &'a Challenge,
    /// The session's Secure Enclave key.
    pub key: &'a SePublicKey,
    /// The session's `K`.
    pub encryption_key: Option<&'a EncryptionKey>,
    pub status_signature: StatusSignature,
    pub answer_within: Duration,
    /// When the answer was there.
    pub received_at: Timestamp,
}

/// A challenge that the coordinator minted itself, with its answer.
#[derive(Debug, Clone)]
pub struct FinishedExchange {
    pub challenge: Challenge,
    pub response: Response,
    /// By the coordinator's clock, like the challenge's timestamp.
    pub received_at: Timestamp,
}

/// An answer by the right key to the right challenge, in time. [`Response::verify`] is the only way
/// to get one. It can be an answer that speaks against its Mac: see [`VerifiedAnswer::negatives`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAnswer {
    status: Status,
    status_signed: bool,
    received_at: Timestamp,
}

/// Why an answer is none to this challenge by this provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerRefusal {
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// It came, but not in time; that is worth as much as none.
    #[error("the answer came too late")]
    Late,
    /// The coordinator's times contradict each other, or ours.
    #[error("the times of the exchange cannot be")]
    Untimely,
    #[error("the answer is to another nonce")]
    OtherNonce,
    #[error("the answer names another encryption key than the session's")]
    OtherKey,
    #[error("nonce and timestamp: {0}")]
    Signature(SignatureRefusal),
    #[error("nonce and timestamp: {0}")]
    BadSignature(BadSignature),
    #[error("the status is not signed")]
    StatusUnsigned,
    #[error("status: {0}")]
    StatusSignature(SignatureRefusal),
    #[error("status: {0}")]
    BadStatusSignature(BadSignature),
}

impl AnswerRefusal {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::Late => Reason::AnswerTimeout,
            Self::Untimely => Reason::TimestampOutOfWindow,
            Self::OtherNonce => Reason::ChallengeMismatch,
            Self::OtherKey => Reason::KeyMismatch,
            Self::StatusUnsigned => Reason::FieldMissing,
            Self::Signature(refusal) | Self::StatusSignature(refusal) => refusal.reason(),
            Self::BadSignature(refusal) | Self::BadStatusSignature(refusal) => refusal.reason(),
        }
    }
}

impl Challenge {
    /// A challenge of ours: 32 random bytes in standard base64, and the time in whole seconds.
    pub fn mint(random: [u8; 32], now: Timestamp) -> Self {
        Self {
            nonce: STANDARD.encode(random),
            timestamp: Timestamp::from_seconds(now.seconds()).to_string(),
            issued_at: now,
        }
    }

    /// A challenge of the coordinator's, as it tells of it. The nonce has 32 bytes, always: nonce
    /// and timestamp are signed with nothing between them, and this says where one ends.
    ///
    /// # Refusals
    /// A nonce that is not standard base64 with padding of 32 bytes; a timestamp that is not RFC 3339.
    pub fn retell(nonce: &str, timestamp: &str) -> Result<Self, Malformed> {
        match STANDARD.decode(nonce) {
            Ok(bytes) if bytes.len() == 32 => {}
            _ => return Err(Malformed::Form("nonce")),
        }
        let issued_at = Timestamp::parse(timestamp).map_err(|_| Malformed::Form("timestamp"))?;
        Ok(Self {
            nonce: nonce.to_owned(),
            timestamp: timestamp.to_owned(),
            issued_at,
        })
    }

    /// The nonce's text.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// The timestamp's text.
    pub fn timestamp(&self) -> &str {
        &self.timestamp
    }

    /// When it was minted.
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// As the provider is asked.
    pub fn to_json(&self) -> Value {
        json!({
            "type": "attestation_challenge",
            "nonce": self.nonce,
            "timestamp": self.timestamp,
        })
    }

    /// What `signature` is over: both texts, nothing between.
    fn signed(&self) -> Vec<u8> {
        [self.nonce.as_bytes(), self.timestamp.as_bytes()].concat()
    }
}

const TYPE: &str = "attestation_response";

const KNOWN: &[&str] = &{
    let own = [
        "type",
        "nonce",
        "signature",
        "status_signature",
        "public_key",
    ];
    let mut known = [""; 17];
    let mut at = 0;
    while at < own.len() {
        known[at] = own[at];
        at += 1;
    }
    while at < known.len() {
        known[at] = status::MEMBERS[at - own.len()];
        at += 1;
    }
    known
};

impl Response {
    /// Reads an answer. Newer provider software says more than is known here; that is passed over,
    /// and never counts for anything.
    ///
    /// # Refusals
    /// Not one JSON object with distinct names; a known member of another type, or in other letters;
    /// no nonce, `signature`, `sip_enabled` or `rdma_disabled`; another `type`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut members = Members::read(bytes, MAX_RESPONSE, KNOWN)?;
        if members
            .optional_text("type")?
            .is_some_and(|kind| kind != TYPE)
        {
            return Err(Malformed::Form("type"));
        }
        let nonce = members.text("nonce")?;
        let signature = members.text("signature")?;
        let status_signature = members.optional_text("status_signature")?;
        let public_key = members.optional_text("public_key")?;
        let said = Status::take(&mut members, nonce, String::new())?;
        if said.sip_enabled.is_none() {
            return Err(Malformed::Missing("sip_enabled"));
        }
        if said.rdma_disabled.is_none() {
            return Err(Malformed::Missing("rdma_disabled"));
        }
        Ok(Self {
            signature,
            // Absent, as writers write it that do not leave absent texts out.
            status_signature: status_signature.filter(|text| !text.is_empty()),
            public_key: public_key.filter(|text| !text.is_empty()),
            said,
        })
    }

    /// The answer, once it is to this challenge and by this provider. What costs nothing is asked
    /// first.
    ///
    /// # Refusals
    /// See [`AnswerRefusal`].
    pub fn verify(self, asked: &Asked<'_>) -> Result<VerifiedAnswer, AnswerRefusal> {
        let challenge = asked.challenge;
        if asked.received_at.since(challenge.issued_at) > asked.answer_within {
            return Err(AnswerRefusal::Late);
        }
        if self.said.nonce != challenge.nonce {
            return Err(AnswerRefusal::OtherNonce);
        }
        if let (Some(named), Some(key)) = (&self.public_key, asked.encryption_key)
            && named != key.as_str()
        {
            return Err(AnswerRefusal::OtherKey);
        }
        let signature = Signature::parse(&self.signature).map_err(AnswerRefusal::Signature)?;
        let status_signature = match (&self.status_signature, asked.status_signature) {
            (Some(text), _) => {
                Some(Signature::parse(text).map_err(AnswerRefusal::StatusSignature)?)
            }
            (None, StatusSignature::Required) => return Err(AnswerRefusal::StatusUnsigned),
            (None, StatusSignature::Optional) => None,
        };
        let status = Status {
            timestamp: challenge.timestamp.clone(),
            ..self.said
        };
        asked
            .key
            .verify(&challenge.signed(), &signature)
            .map_err(AnswerRefusal::BadSignature)?;
        if let Some(signature) = &status_signature {
            asked
                .key
                .verify(status.canonical().as_bytes(), signature)
                .map_err(AnswerRefusal::BadStatusSignature)?;
        }
        Ok(VerifiedAnswer {
            status,
            status_signed: status_signature.is_some(),
            received_at: asked.received_at,
        })
    }
}

impl FinishedExchange {
    /// As [`Response::verify`], with the coordinator's word for when the answer came: not before the
    /// challenge, in time by its own clock, and not ahead of `now` by more than clocks may be apart.
    /// An exchange of long ago is a good answer of long ago.
    ///
    /// # Refusals
    /// See [`AnswerRefusal`].
    pub fn verify(
        self,
        key: &SePublicKey,
        encryption_key: Option<&EncryptionKey>,
        status_signature: StatusSignature,
        answer_within: Duration,
        now: Timestamp,
    ) -> Result<VerifiedAnswer, AnswerRefusal> {
        let is_before = self.received_at < self.challenge.issued_at;
        if is_before || self.received_at.since(now) > CLOCK_SKEW {
            return Err(AnswerRefusal::Untimely);
        }
        let mut answer = self.response.verify(&Asked {
            challenge: &self.challenge,
            key,
            encryption_key,
            status_signature,
            answer_within,
            received_at: self.received_at,
        })?;
        // A clock that is ahead must not make an answer last longer.
        answer.received_at = answer.received_at.min(now);
        Ok(answer)
    }
}

impl VerifiedAnswer {
    /// What was said.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether what was said is signed, and not only that somebody is there.
    pub fn is_status_signed(&self) -> bool {
        self.status_signed
    }

    /// When it was there.
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// What the provider says against its own Mac: `sip_disabled`, `secure_boot_off`.
    pub fn negatives(&self) -> Vec<Reason> {
        negatives(self.status.sip_enabled, self.status.secure_boot_enabled)
    }
}
