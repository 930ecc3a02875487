//! How far a Mac and the provider session on it are trusted.

use serde::{Deserialize, Serialize};

/// The coordinator's trust levels, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    None,
    /// The session's Secure Enclave key signed a blob that is good.
    SelfSigned,
    /// Evidence about the Mac itself, by the policy's rule.
    Hardware,
}
