//! What whoever checks a bundle trusts. It is theirs, and nothing of it comes with the bundle.

use serde::Deserialize;

use crate::attestation::Anchors;
use crate::publication::jwk::Jwk;

/// The inputs of trust. What a claim needs and is not here makes the claim fail.
#[derive(Debug)]
pub struct Trust {
    /// `None`: the root that was given is not the one that was pinned.
    pub anchors: Option<Anchors>,
    /// The service's keys, or their history.
    pub keys: Vec<TrustedKey>,
    /// The service's base URL.
    pub issuer: Option<String>,
    pub log: Option<LogTrust>,
}

/// A key of the service.
#[derive(Debug, Clone, Deserialize)]
pub struct TrustedKey {
    #[serde(flatten)]
    pub jwk: Jwk,
    /// What it signed is dated from then, in seconds,
    pub nbf: Option<i64>,
    /// until then.
    pub exp: Option<i64>,
    /// Nothing signed by it counts.
    pub revoked_at: Option<i64>,
}

/// A transparency log and its witnesses, as verifier keys of C2SP signed notes.
#[derive(Debug, Clone)]
pub struct LogTrust {
    pub log: String,
    pub witnesses: Vec<String>,
    pub quorum: usize,
}
