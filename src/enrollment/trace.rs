//! The steps of an enrolment as its owner sees them: what happened, when, and what to do next.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::time::Timestamp;

/// The steps, in the order in which they happen.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[schema(as = EnrolmentStep)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The profile was handed out.
    Profile,
    /// The identity certificate was issued.
    Identity,
    /// Authenticate was accepted.
    Authenticated,
    /// TokenUpdate arrived: the Mac is enrolled.
    Enrolled,
    /// APNs accepted a push for the Mac.
    Pushed,
    /// SecurityInfo was answered.
    SecurityInfo,
    /// The attestation was answered.
    Attestation,
    /// A verdict was reached.
    Verdict,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = StepStanding)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Waiting,
    Done,
    Refused,
}

/// What is known of one step. The latest entry for a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub step: Step,
    pub standing: Standing,
    pub at: Timestamp,
    pub reason: Option<Reason>,
}

impl Step {
    /// Every step in order.
    pub const ALL: [Self; 8] = [
        Self::Profile,
        Self::Identity,
        Self::Authenticated,
        Self::Enrolled,
        Self::Pushed,
        Self::SecurityInfo,
        Self::Attestation,
        Self::Verdict,
    ];

    /// The stored and published word; also the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Identity => "identity",
            Self::Authenticated => "authenticated",
            Self::Enrolled => "enrolled",
            Self::Pushed => "pushed",
            Self::SecurityInfo => "security_info",
            Self::Attestation => "attestation",
            Self::Verdict => "verdict",
        }
    }

    /// The step with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.as_str() == word)
    }
}

impl Standing {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// The standing with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Waiting, Self::Done, Self::Refused]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

impl Entry {
    /// The step succeeded.
    pub fn done(step: Step, at: Timestamp) -> Self {
        Self {
            step,
            standing: Standing::Done,
            at,
            reason: None,
        }
    }

    /// The step was refused.
    pub fn refused(step: Step, reason: Reason, at: Timestamp) -> Self {
        Self {
            step,
            standing: Standing::Refused,
            at,
            reason: Some(reason),
        }
    }

    /// The step waits for something.
    pub fn waiting(step: Step, reason: Option<Reason>, at: Timestamp) -> Self {
        Self {
            step,
            standing: Standing::Waiting,
            at,
            reason,
        }
    }
}
