//! How long what came from Macs is kept.

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::time::Span;

/// A month: whoever asks why a Mac was trusted finds out later than the same day, and whoever lists events
/// finds what they are about (events stay for 14 days).
const LEAST: Span = Span::days(30);

/// How long what came from Macs is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Answers, attempts and postures that were followed by others; what is believed now keeps its evidence,
    /// however old. At least 30 days.
    pub answers: Span,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            answers: Span::days(90),
        }
    }
}

impl Retention {
    pub(super) fn check(&self) -> Result<(), Unusable> {
        if self.answers.0 < LEAST.0 {
            return Err(Unusable::TooShort {
                name: "retention.answers",
                is: self.answers,
                least: LEAST,
            });
        }
        Ok(())
    }
}
