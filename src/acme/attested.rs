//! A key that Apple vouched for in answer to a challenge: what an order carries from its challenge
//! to its certificate.

use serde::{Deserialize, Serialize};

use super::octets;
use super::token::TokenInputs;
use crate::attestation::{Anchor, Evidence, Statement};
use crate::ids::SerialNumber;
use crate::time::Timestamp;

/// A key that Apple vouched for, and everything that was said with it. Only
/// `statement::judge` makes one; a stored directory gives back what it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedKey {
    /// The serial number Apple states.
    pub serial: SerialNumber,
    /// The key, as a DER SubjectPublicKeyInfo on P-256 or P-384.
    #[serde(with = "octets")]
    pub spki: Vec<u8>,
    /// The Mac's condition, as Apple states it.
    pub statement: Statement,
    /// Whose root it rests on.
    pub anchor: Anchor,
    /// What the token was made of; SHA-256 of its text is the freshness code in the leaf.
    pub token: TokenInputs,
    /// When the token was minted: the statement cannot be older.
    pub minted_at: Timestamp,
    /// When the statement was received and verified.
    pub verified_at: Timestamp,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
    #[serde(with = "octets")]
    pub(super) leaf: Vec<u8>,
    #[serde(with = "octets")]
    pub(super) intermediate: Vec<u8>,
}

impl AttestedKey {
    /// The certificates as they came, leaf first.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            certificates: vec![self.leaf.clone(), self.intermediate.clone()],
        }
    }
}
