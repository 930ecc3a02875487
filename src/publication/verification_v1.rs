//! `/internal/v1/verifications`: how far an attempt is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{CommandUuid, DeviceId, VerificationId};
use crate::posture::Verdict;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::{Priority, Progress, State, Verification};

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct VerificationV1 {
    pub verification_id: VerificationId,
    pub device_id: DeviceId,
    pub state: State,
    /// The verdict once finished; `None` before.
    pub outcome: Option<Verdict>,
    pub priority: Priority,
    pub reason: String,
    pub kinds: BTreeMap<&'static str, KindV1>,
    pub reasons: Vec<Reason>,
    pub posture_revision: Option<u64>,
    pub created_at: Timestamp,
    pub deadline: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// One kind of evidence.
#[derive(Debug, Clone, Serialize)]
pub struct KindV1 {
    pub state: Progress,
    pub command_uuid: Option<CommandUuid>,
    pub attempt: u32,
    pub pushed_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    pub not_before: Option<Timestamp>,
}

impl VerificationV1 {
    /// `attempt` are the reasons an attempt under way has so far; `verdict` the posture's.
    pub fn new(verification: &Verification, attempt: &[Reason], verdict: Verdict) -> Self {
        let finished = verification.finished.as_ref();
        Self {
            verification_id: verification.verification_id.clone(),
            device_id: verification.device_id.clone(),
            state: verification.state(),
            outcome: finished.map(|_| verdict),
            priority: verification.priority,
            reason: verification.occasion.clone(),
            kinds: verification
                .parts
                .iter()
                .map(|part| {
                    let kind = KindV1 {
                        state: part.progress,
                        command_uuid: part.command_uuid.clone(),
                        attempt: part.attempt,
                        pushed_at: part.pushed_at,
                        reason: part.reason,
                        not_before: part.not_before,
                    };
                    (part.kind.as_str(), kind)
                })
                .collect(),
            reasons: attempt.to_vec(),
            posture_revision: finished.and_then(|finished| finished.posture_revision),
            created_at: verification.created_at,
            deadline: verification.deadline,
            finished_at: finished.map(|finished| finished.at),
        }
    }
}
