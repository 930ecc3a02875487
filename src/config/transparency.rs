//! `[transparency]`: the log in which everything that is published can be found again.

use serde::{Deserialize, Serialize};

/// Whether there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transparency {
    /// Results, withdrawals, policies, keys and releases are added to a log that only grows, below `/log`.
    pub enabled: bool,
}

impl Default for Transparency {
    fn default() -> Self {
        Self { enabled: true }
    }
}
