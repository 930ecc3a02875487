//! `GET /internal/v1/devices/{id}/posture`: the JSON form.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attestation::Anchor;
use crate::attestation::Freshness;
use crate::enrollment::{Enrollment, Identity, State};
use crate::ids::DeviceId;
use crate::posture::appraisal::{Appraisal, Circumstances, Relation, appraise};
use crate::posture::claim::{Claim, claims};
use crate::posture::policy::Policy;
use crate::posture::{Channel, Posture, Verdict};
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;

/// The answer. Times in it are absolute: the reader looks at its own clock.
#[derive(Debug, Clone, Serialize)]
pub struct PostureV1 {
    pub device_id: DeviceId,
    pub revision: u64,
    pub revocation_epoch: u64,
    pub evaluated_at: Timestamp,
    /// Whether the verdict is the one this revision came with; time alone can end it.
    #[serde(skip)]
    pub is_as_revised: bool,
    /// Judges the device plane only.
    pub verdict: Verdict,
    /// For the coordinator: `none` until provider software is bound to the Mac.
    pub trust_level: &'static str,
    pub usable_until: Option<Timestamp>,
    pub policy_id: String,
    /// Whose root the attestation led to. `custom` is a simulated world: no statement of Apple's.
    pub anchor: Anchor,
    /// Cause first: first what decides the verdict, then what keeps the trust level down.
    pub reasons: Vec<Reason>,
    pub enrolled: bool,
    /// Whose key signs what this Mac reports now; a claim says whose key signed it.
    pub channel: Channel,
    pub freshness: Option<Freshness>,
    pub claims: BTreeMap<&'static str, Claim>,
    pub next_action: NextAction,
}

/// Who should do what next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextAction {
    pub who: Actor,
    /// The reason it follows from, or `none`.
    pub code: &'static str,
    pub text: &'static str,
    pub not_before: Option<Timestamp>,
}

/// What the answer is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    pub enrollment: &'a Enrollment,
    /// The identity it is enrolled with.
    pub identity: Option<&'a Identity>,
    pub posture: &'a Posture,
    pub policy: &'a Policy,
    pub anchor: Anchor,
    /// Of the identity that speaks for the Mac now.
    pub channel: Channel,
    /// Why the attempt under way has not brought evidence yet.
    pub attempt: &'a [Reason],
    pub now: Timestamp,
}

impl PostureV1 {
    /// The posture as of `now`.
    pub fn new(sources: &Sources<'_>) -> Self {
        let Sources {
            enrollment,
            identity,
            posture,
            policy,
            anchor,
            channel,
            attempt,
            now,
        } = *sources;
        let enrolled = enrollment.state == State::Enrolled;
        let Appraisal {
            verdict,
            mut reasons,
            usable_until,
        } = appraise(
            posture,
            policy,
            Circumstances {
                relation: relation(enrollment, identity),
                attempt,
                now,
            },
        );
        let next_action = NextAction::after(verdict, &reasons);
        // No provider session can be bound yet, so no level above none is reached.
        reasons.push(Reason::ProviderNotBound);
        if channel == Channel::Software {
            reasons.push(Reason::ChannelNotAttested);
        }
        Self {
            device_id: posture.device_id.clone(),
            revision: posture.revision,
            revocation_epoch: posture.revocation_epoch,
            evaluated_at: now,
            is_as_revised: verdict == posture.verdict,
            verdict,
            trust_level: "none",
            usable_until,
            policy_id: policy.id.clone(),
            anchor,
            reasons,
            enrolled,
            channel,
            freshness: posture
                .attested
                .as_ref()
                .map(|attested| attested.freshness.clone()),
            claims: claims(posture, policy),
            next_action,
        }
    }
}

/// How an enrollment stands to the service.
pub fn relation(enrollment: &Enrollment, identity: Option<&Identity>) -> Relation {
    let superseded = enrollment.state == State::Superseded;
    Relation {
        enrolled: enrollment.state == State::Enrolled,
        contends: enrollment.contends_with.is_some() && !superseded,
        identity_ends: identity.map(|identity| identity.not_after),
    }
}

impl NextAction {
    fn after(verdict: Verdict, reasons: &[Reason]) -> Self {
        match reasons.first() {
            Some(reason) if verdict != Verdict::Affirming => Self {
                who: reason.actor(),
                code: reason.code(),
                text: reason.owner_text(),
                not_before: None,
            },
            _ => Self {
                who: Actor::Service,
                code: "none",
                text: "",
                not_before: None,
            },
        }
    }
}
