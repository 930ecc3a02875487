//! The steps of an enrolment, as a round goes through them.

use crate::enrollment::trace::{Entry, Step};
use crate::posture::Verdict;
use crate::posture::appraisal::Appraisal;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Kind;

/// What the owner of the Mac is told of a judgement.
pub(in crate::flows) fn verdict_step(appraisal: &Appraisal, now: Timestamp) -> Entry {
    let reason = appraisal.reasons.first().copied();
    match appraisal.verdict {
        Verdict::Affirming | Verdict::Warning => Entry {
            reason,
            ..Entry::done(Step::Verdict, now)
        },
        Verdict::Contraindicated => Entry {
            reason,
            ..Entry::refused(Step::Verdict, Reason::EvidenceConflict, now)
        },
        Verdict::Unknown => Entry::waiting(Step::Verdict, reason, now),
    }
}

/// The step of an enrolment that an answer of this kind is.
pub(in crate::flows) fn step_of(kind: Kind) -> Step {
    match kind {
        Kind::SecurityInfo => Step::SecurityInfo,
        Kind::Mda => Step::Attestation,
    }
}
