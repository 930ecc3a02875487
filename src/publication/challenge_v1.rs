//! What the answer to a challenge came to.

use serde::Serialize;

use crate::reason::Reason;

/// What an answer came to, as it is kept and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OutcomeV1 {
    pub outcome: Outcome,
    pub reasons: Vec<Reason>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ChallengeOutcome)]
pub enum Outcome {
    Good,
    Refused,
    /// It counts for nothing, and against nobody.
    Unchanged,
}
