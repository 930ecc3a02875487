//! `GET /internal/v1/devices/{id}/posture`: the JSON form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attestation::Anchor;
use crate::attestation::Freshness;
use crate::enrollment::{Enrollment, Identity, State};
use crate::ids::{DeviceId, SerialNumber};
use crate::posture::appraisal::{Circumstances, Relation, appraise};
use crate::posture::claim::{Claim, claims};
use crate::posture::continuity::Process;
use crate::posture::key_binding::{KeyBinding, Proof};
use crate::posture::policy::Policy;
use crate::posture::trust::{Level, Mac, Session, trust};
use crate::posture::{Channel, Posture, Verdict};
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;

/// The answer. Times in it are absolute: the reader looks at its own clock.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
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
    /// Of the Mac with the provider session that is bound to it; `none` without one.
    pub trust_level: Level,
    /// Until when the verdict, and a level of `hardware`, may be relied on.
    pub usable_until: Option<Timestamp>,
    pub policy_id: String,
    /// What this policy does not demand and the strict one does.
    pub policy_waives: Vec<&'static str>,
    /// Whose root the attestation led to. `custom` is a simulated world: no statement of Apple's.
    pub anchor: Anchor,
    /// Cause first: first what decides the verdict, then what keeps the trust level down.
    pub reasons: Vec<Reason>,
    pub enrolled: bool,
    /// Whose key signs what this Mac reports now; a claim says whose key signed it.
    pub channel: Channel,
    pub freshness: Option<Freshness>,
    /// The provider key that was proved to belong to this Mac last; `None` while none was.
    pub binding: Option<BoundKeyV1>,
    pub claims: BTreeMap<&'static str, Claim>,
    pub next_action: NextAction,
}

/// A provider key and how far it is joined to the Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BoundKeyV1 {
    pub se_public_key: String,
    pub proof: Proof,
    pub proved_at: Timestamp,
    pub se_key_bound: KeyBinding,
    /// When the nonce that names it was handed over; only while bound.
    pub bound_at: Option<Timestamp>,
    /// From when Apple makes a statement that can name it, where that is waited for.
    pub eligible_at: Option<Timestamp>,
    /// Always false: that Apple put this key's hash into this Mac's certificate does not prove that
    /// the key lives there.
    pub residence_proved: bool,
}

/// Who should do what next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct NextAction {
    pub who: Actor,
    /// The reason it follows from, or `none`.
    pub code: &'static str,
    pub text: &'static str,
    pub not_before: Option<Timestamp>,
}

/// Everything about a Mac that is judged when somebody asks; nothing in it changes as time passes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Believed {
    pub device_id: DeviceId,
    /// The serial number it enrolled with.
    pub serial: Option<SerialNumber>,
    pub relation: Relation,
    /// Of the identity that speaks for the Mac now.
    pub channel: Channel,
    pub posture: Posture,
    /// Why the attempt under way has not brought evidence yet.
    pub attempt: Vec<Reason>,
}

/// What the answer is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    pub mac: &'a Believed,
    pub policy: &'a Policy,
    pub anchor: Anchor,
    /// The provider session that is bound to it.
    pub session: Option<Session<'a>>,
    /// The process that session is of.
    pub process: Option<Process>,
    pub now: Timestamp,
}

impl Believed {
    /// As trust sees it.
    pub fn at(&self, now: Timestamp) -> Mac<'_> {
        Mac {
            posture: &self.posture,
            circumstances: Circumstances {
                relation: self.relation,
                attempt: &self.attempt,
                now,
            },
            channel: self.channel,
            serial: self.serial.as_ref(),
        }
    }
}

impl PostureV1 {
    /// The posture as of `now`.
    pub fn new(sources: &Sources<'_>) -> Self {
        let Sources {
            mac: believed,
            policy,
            anchor,
            session,
            process,
            now,
        } = *sources;
        let (posture, mac) = (&believed.posture, believed.at(now));
        let circumstances = mac.circumstances;
        let judged = trust(Some(mac), session, policy);
        let appraisal = appraise(posture, policy, circumstances);
        let (verdict, level) = (appraisal.verdict, judged.level);
        let next_action = NextAction::after(verdict, &appraisal.reasons);
        let usable_until = match level {
            Level::Hardware => judged.usable_until,
            Level::None | Level::SelfSigned => appraisal.usable_until,
        };
        Self {
            device_id: posture.device_id.clone(),
            revision: posture.revision,
            revocation_epoch: posture.revocation_epoch,
            evaluated_at: now,
            is_as_revised: verdict == posture.verdict,
            verdict,
            trust_level: level,
            usable_until,
            policy_id: policy.id.clone(),
            policy_waives: policy.waives(),
            anchor,
            reasons: judged.reasons,
            enrolled: believed.relation.enrolled,
            channel: believed.channel,
            freshness: posture
                .attested
                .as_ref()
                .map(|attested| attested.freshness.clone()),
            binding: bound_key(posture, policy, now),
            claims: claims(posture, policy, process, now),
            next_action,
        }
    }
}

fn bound_key(posture: &Posture, policy: &Policy, now: Timestamp) -> Option<BoundKeyV1> {
    let key = posture.key_to_name()?;
    let graded = posture.grade_key(&key.se_public_key, policy, now);
    let named = posture.named.as_ref();
    Some(BoundKeyV1 {
        se_public_key: key.se_public_key.clone(),
        proof: key.proof,
        proved_at: key.since,
        se_key_bound: graded.grade,
        bound_at: named
            .filter(|_| graded.grade == KeyBinding::Bound)
            .map(|named| named.minted_at),
        eligible_at: graded.eligible_at,
        residence_proved: false,
    })
}

/// How an enrollment stands to the service.
pub fn relation(enrollment: &Enrollment, identity: Option<&Identity>) -> Relation {
    relation_of(
        enrollment.state,
        enrollment.contends_with.is_some(),
        identity.map(|identity| identity.not_after),
    )
}

/// As [`relation`]: in this state, with or without another in its place, by an identity that ends then.
pub fn relation_of(state: State, contends: bool, identity_ends: Option<Timestamp>) -> Relation {
    Relation {
        enrolled: state == State::Enrolled,
        contends: contends && state != State::Superseded,
        identity_ends,
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
