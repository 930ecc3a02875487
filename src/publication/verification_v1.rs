//! `/internal/v1/verifications`: how far an attempt is.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::{CommandUuid, DeviceId, VerificationId};
use crate::posture::Verdict;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::{Priority, Progress, State, Verification};

/// The answer.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = VerificationKindV1)]
pub struct KindV1 {
    pub state: Progress,
    pub command_uuid: Option<CommandUuid>,
    pub attempt: u32,
    pub pushed_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    /// Nothing is asked, or the Mac is not woken, before this time, for the reason given.
    pub not_before: Option<Timestamp>,
}

impl VerificationV1 {
    /// `attempt` are the reasons an attempt under way has so far; `verdict` is the one a finished
    /// attempt ended with.
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
                        not_before: part.not_before.or(part.woken_from),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::verification::{Kind, Request};

    #[test]
    fn the_outcome_is_told_when_it_is_over_and_not_before() {
        let now = Timestamp::from_seconds(1_790_847_007);
        let entropy = SeededEntropy::new(1);
        let request = Request {
            kinds: vec![Kind::Mda, Kind::SecurityInfo],
            priority: Priority::First,
            occasion: "connect".into(),
            patience: Duration::from_secs(90),
        };
        let (name, device) = (
            VerificationId::new(now, &entropy),
            DeviceId::new(now, &entropy),
        );
        let mut verification = Verification::start(name, device, &request, now);
        verification.hand_over(Kind::SecurityInfo, CommandUuid::new(&entropy));
        let open = VerificationV1::new(&verification, &[], Verdict::Affirming);
        assert_eq!((open.state, open.outcome), (State::Delivered, None));
        assert_eq!(open.kinds["security_info"].state, Progress::Delivered);
        assert_eq!(open.kinds["mda"].command_uuid, None);

        verification.answered(Kind::SecurityInfo, None);
        verification.failed(Kind::Mda, Reason::AttestationUnavailable);
        assert!(verification.settle(Some(41), now));
        let over = VerificationV1::new(&verification, &verification.reasons(), Verdict::Unknown);
        assert_eq!(
            (over.state, over.outcome),
            (State::Failed, Some(Verdict::Unknown))
        );
        assert_eq!(over.reasons, [Reason::AttestationUnavailable]);
        assert_eq!(
            (over.posture_revision, over.finished_at),
            (Some(41), Some(now))
        );
    }
}
