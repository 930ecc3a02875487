//! How far a provider's Secure Enclave key is joined to a Mac.
//!
//! Two things are asked for, of different worth. *Proved*: somebody who may say so joined the key to
//! this Mac (the ticket it enrolled with, the same account, an operator). *Named*: a statement of
//! Apple's for this Mac carries a nonce made from the key. Only a proved key is ever named, so that a
//! stranger who copied a serial number cannot spend the owner's weekly attestation.
//!
//! Neither proves that the key lives in this Mac: its owner can have any key named. Nothing before
//! App Attest does.

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::{Attested, Occasion, Posture};
use crate::ids::EvidenceId;
use crate::provider::SePoint;
use crate::time::Timestamp;

/// Former keys of a Mac that are remembered: more than it changes in a year of weekly attestations.
const MOST_KEYS: usize = 64;

/// A key that a statement of Apple's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedKey {
    /// The base64 text it was given in: the text is what the nonce was made from.
    pub se_public_key: String,
    pub occasion: Occasion,
    pub evidence_id: EvidenceId,
    /// When the nonce that names it was handed over.
    pub minted_at: Timestamp,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
}

/// A key that was proved to belong to the Mac, under its present enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedKey {
    pub se_public_key: String,
    pub proof: Proof,
    pub since: Timestamp,
}

/// What joined a key to a Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KeyProof)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The ticket that enrolled the Mac names this key.
    Ticket,
    /// The ticket that enrolled the Mac is of the account that the session is of.
    Account,
    /// An operator said so.
    Operator,
}

/// `se_key_bound`: what Apple's statements say of the key. In none of these is it proved that the key
/// lives in the Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyBinding {
    /// The key was not proved to belong to the Mac.
    None,
    /// A statement within its age names it.
    Bound,
    /// No statement names a key yet, or one names a former key of this Mac; another is asked for as
    /// soon as Apple makes one.
    Pending,
    /// The statement that names it is too old, or older than a definite negative.
    Stale,
    /// The statement names a key that was never proved for this Mac.
    Mismatch,
}

/// A key's grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graded {
    pub grade: KeyBinding,
    /// While [`KeyBinding::Bound`]: until when.
    pub until: Option<Timestamp>,
    /// Otherwise: from when Apple makes a statement that can name it; `None` when it would now.
    pub eligible_at: Option<Timestamp>,
}

impl KeyBinding {
    /// The published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bound => "bound",
            Self::Pending => "pending",
            Self::Stale => "stale",
            Self::Mismatch => "mismatch",
        }
    }
}

impl Proof {
    /// The published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Account => "account",
            Self::Operator => "operator",
        }
    }
}

/// Whether two texts are the same point: 64 bytes `X‖Y` and 65 bytes `04‖X‖Y` name one key, by two
/// nonces (coordinator-and-standards A.2).
pub fn same_key(one: &str, other: &str) -> bool {
    one == other
        || matches!((SePoint::read(one), SePoint::read(other)), (Ok(one), Ok(other)) if one == other)
}

impl Posture {
    /// A key was proved to belong to this Mac; questions name it from now on. False when it was the
    /// one before, by the same proof.
    pub fn prove_key(&mut self, se_public_key: &str, proof: Proof, now: Timestamp) -> bool {
        if let Some(last) = self.keys.last()
            && last.se_public_key == se_public_key
            && last.proof == proof
        {
            return false;
        }
        self.keys
            .retain(|known| !same_key(&known.se_public_key, se_public_key));
        if self.keys.len() >= MOST_KEYS {
            let oldest = self.keys.remove(0);
            self.retire(oldest);
        }
        self.keys.push(ProvedKey {
            se_public_key: se_public_key.to_owned(),
            proof,
            since: now,
        });
        true
    }

    /// The enrollment for which they were proved has ended.
    pub(super) fn retire_keys(&mut self) {
        for key in std::mem::take(&mut self.keys) {
            self.retire(key);
        }
    }

    fn retire(&mut self, key: ProvedKey) {
        self.former_keys.retain(|known| *known != key.se_public_key);
        if self.former_keys.len() >= MOST_KEYS {
            self.former_keys.remove(0);
        }
        self.former_keys.push(key.se_public_key);
    }

    /// Whether the key belongs, or belonged, to this Mac.
    fn was_ever_proved(&self, se_public_key: &str) -> bool {
        self.proof_of(se_public_key).is_some()
            || self
                .former_keys
                .iter()
                .any(|known| same_key(known, se_public_key))
    }

    /// The key that a question to Apple names: the one proved last.
    pub fn key_to_name(&self) -> Option<&ProvedKey> {
        self.keys.last()
    }

    /// How this key was proved, if it was.
    pub fn proof_of(&self, se_public_key: &str) -> Option<Proof> {
        self.keys
            .iter()
            .find(|known| same_key(&known.se_public_key, se_public_key))
            .map(|known| known.proof)
    }

    /// Takes in which key a statement names, if it names one and nothing newer did.
    pub(super) fn name_key(&mut self, reading: &Attested, now: Timestamp) {
        let Some(minted_at) = reading.freshness.minted_at() else {
            return;
        };
        let Some(se_public_key) = reading.freshness.se_public_key() else {
            return;
        };
        if self
            .named
            .as_ref()
            .is_none_or(|named| named.minted_at < minted_at || named.minted_at.is_to_come(now))
        {
            self.named = Some(NamedKey {
                se_public_key: se_public_key.to_owned(),
                occasion: reading.occasion,
                evidence_id: reading.evidence_id,
                minted_at,
                not_after: reading.not_after,
            });
        }
    }

    /// What Apple's statements say of this key.
    pub fn grade_key(&self, se_public_key: &str, policy: &Policy, now: Timestamp) -> Graded {
        let open = |grade| Graded {
            grade,
            until: None,
            eligible_at: self.eligible_at().filter(|at| *at > now),
        };
        if self.proof_of(se_public_key).is_none() {
            return Graded {
                grade: KeyBinding::None,
                until: None,
                eligible_at: None,
            };
        }
        let Some(named) = &self.named else {
            return open(KeyBinding::Pending);
        };
        if !same_key(&named.se_public_key, se_public_key) {
            return open(if self.was_ever_proved(&named.se_public_key) {
                KeyBinding::Pending
            } else {
                KeyBinding::Mismatch
            });
        }
        let until = named
            .minted_at
            .plus(policy.rules.attestation.usable_for.0)
            .min(named.not_after);
        let voided = self.void_before.is_some_and(|time| named.minted_at < time);
        if voided || now >= until || named.minted_at.is_to_come(now) {
            return open(KeyBinding::Stale);
        }
        Graded {
            grade: KeyBinding::Bound,
            until: Some(until),
            eligible_at: None,
        }
    }

    /// From when Apple makes a new statement for this Mac; `None` when nothing keeps it from doing so
    /// now. An identity's statement does not count: each order for one is attested anew.
    pub fn eligible_at(&self) -> Option<Timestamp> {
        let attested = self.attested.as_ref()?;
        let asked = attested.occasion == Occasion::Mda;
        attested.renewable_from().filter(|_| asked)
    }
}
