//! What an exchange with a Mac was of which round, for whoever follows it.

use crate::ids::VerificationId;
use crate::store::Changes;
use crate::verification::{CommandState, Kind, Verification};

/// The parts of rounds that an exchange was.
#[derive(Debug)]
pub struct Traced {
    /// The Mac answered this.
    pub answered: Option<(VerificationId, Kind)>,
    /// It was handed this.
    pub handed_over: Option<(VerificationId, Kind)>,
    /// A round ended with it.
    pub finished: Option<Verification>,
}

impl Traced {
    /// What follows from what changed; `None` when that was nothing of any round.
    pub(super) fn of(changes: &Changes) -> Option<Self> {
        let command = |is_out: bool| {
            let mut commands = changes.commands.iter();
            let found = commands.find(|it| (it.state == CommandState::Outstanding) == is_out)?;
            Some((found.verification_id.clone(), found.kind))
        };
        let finished = changes.verification.as_ref();
        let traced = Self {
            answered: command(false),
            handed_over: command(true),
            finished: finished.filter(|it| it.is_finished()).cloned(),
        };
        let is_any = traced.answered.is_some() || traced.handed_over.is_some();
        is_any.then_some(traced)
    }
}
