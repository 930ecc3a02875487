//! A provider session as a coordinator reads it: may requests be routed to it, why not, until when.

use serde::Serialize;

use super::posture_v1::Believed;
use crate::ids::{BindingId, DeviceId, SessionId};
use crate::posture::continuity::Process;
use crate::posture::key_binding::KeyBinding;
use crate::posture::policy::{Policy, SessionRule};
use crate::posture::trust::{self, Alive, Level, Routability, Trust, routability, trust};
use crate::provider::Session;
use crate::provider::liveness::Liveness;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Kind;

/// `GET /internal/v1/bindings/{session}`. Times in it are absolute: the reader looks at its own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BindingV1<'a> {
    pub session: &'a SessionId,
    pub binding_id: &'a BindingId,
    /// The Mac it is about; `None` while none of its serial number is enrolled.
    pub device_id: Option<&'a DeviceId>,
    pub evaluated_at: Timestamp,
    pub routable: bool,
    pub trust_level: Level,
    pub se_key_bound: KeyBinding,
    /// Always false: that Apple put this key's hash into this Mac's certificate does not prove that
    /// the key lives there.
    pub residence_proved: bool,
    /// Cause first: what keeps it from being routed to, then what keeps the level down.
    pub reasons: Vec<Reason>,
    /// Only while routable.
    pub routable_until: Option<Timestamp>,
    /// From when Apple makes a statement that can name the key, where that is waited for.
    pub eligible_at: Option<Timestamp>,
    pub posture_revision: Option<u64>,
    pub blob: BlobV1<'a>,
    pub last_good_at: Option<Timestamp>,
    /// When the next challenge is due; `None` while one is outstanding.
    pub next_challenge_at: Option<Timestamp>,
    /// Once it has ended: until when it can be taken up again.
    pub resumable_until: Option<Timestamp>,
    pub policy_id: &'a str,
}

/// What the blob of a session was worth when it was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BlobV1<'a> {
    pub valid: bool,
    pub reasons: &'a [Reason],
}

/// What could be asked of the Mac, and from when on that brings something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Suggested {
    pub verify: Vec<Kind>,
    pub after: Timestamp,
}

/// A session, the Mac it is about, and what the registry says of the program it runs.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    pub session: &'a Session,
    pub mac: Option<&'a Believed>,
    pub release: Result<(), Reason>,
}

/// What a session amounts to at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub trust: Trust,
    pub routability: Routability,
}

impl Judgement {
    /// Cause first: what keeps the session from being routed to, then what keeps the level down.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = self.routability.reasons.clone();
        for reason in &self.trust.reasons {
            // A level that is no demand of the policy's still says why it is not higher.
            if self.trust.level < Level::Hardware && !reasons.contains(reason) {
                reasons.push(*reason);
            }
        }
        reasons
    }
}

/// Whether a session is more to this Mac than somebody who claims it.
pub fn is_joined(session: &Session, mac: &Believed, policy: &Policy) -> bool {
    match policy.rules.hardware.session {
        SessionRule::Proved => mac.posture.proof_of(session.key.text()).is_some(),
        SessionRule::ClaimedSerial => {
            session.claimed_serial.is_some() && session.claimed_serial == mac.serial
        }
    }
}

impl<'a> Standing<'a> {
    /// As trust sees the session; `None` once it has ended.
    pub fn at(&self, policy: &Policy, now: Timestamp) -> Option<trust::Session<'a>> {
        let session = self.session;
        session.is_live().then(|| trust::Session {
            se_public_key: session.key.text(),
            claimed_serial: session.claimed_serial.as_ref(),
            blob: match session.blob_reasons.first() {
                None => Ok(()),
                Some(reason) => Err(*reason),
            },
            alive: self.alive(policy, now),
            release: self.release,
        })
    }

    /// The process it is of, as far as its answers show one.
    pub fn process(&self) -> Option<Process> {
        let session = self.session;
        Some(Process {
            began_at: session.unbroken_since?,
            last_good_at: session.liveness.last_good_at()?,
        })
    }

    /// Judges it as of `now`.
    pub fn judge(&self, policy: &Policy, now: Timestamp) -> Judgement {
        let mac = self.mac.map(|mac| mac.at(now));
        let Some(session) = self.at(policy, now) else {
            let trust = trust(mac, None, policy);
            return Judgement {
                routability: Routability {
                    routable: false,
                    reasons: vec![Reason::ProviderNotBound],
                    routable_until: None,
                },
                trust,
            };
        };
        let mut trust = trust(mac, Some(session), policy);
        let further = self.session.blob_reasons.iter().skip(1);
        for reason in further {
            if !trust.reasons.contains(reason) {
                trust.reasons.push(*reason);
            }
        }
        let mut routability = routability(&trust, session, policy, now);
        if routability.routable {
            // Also the end that an unanswered challenge would make.
            let rules = policy.rules.challenge.rules();
            let answered_for = self.liveness().good_until(&rules, now);
            routability.routable_until = routability.routable_until.min(answered_for);
        }
        Judgement { trust, routability }
    }

    fn alive(&self, policy: &Policy, now: Timestamp) -> Alive {
        let liveness = self.liveness();
        let reasons = liveness.reasons(&policy.rules.challenge.rules(), now);
        Alive {
            last_good_at: liveness.last_good_at(),
            ended: reasons.first().copied(),
        }
    }

    /// Its challenges, in the light of what Apple has stated of the Mac since.
    pub(super) fn liveness(&self) -> std::borrow::Cow<'a, Liveness> {
        use std::borrow::Cow;
        let liveness = &self.session.liveness;
        let stated = self.mac.and_then(|mac| mac.posture.attested.as_ref());
        let stated = stated.filter(|attested| !attested.facts.contradicts_full_security());
        match stated.and_then(|attested| attested.freshness.minted_at()) {
            Some(minted_at) if liveness.reported_bad().is_some() => {
                let mut liveness = liveness.clone();
                liveness.device_evidence(minted_at);
                Cow::Owned(liveness)
            }
            _ => Cow::Borrowed(liveness),
        }
    }

    /// The answer.
    pub fn publish(&self, policy: &'a Policy, now: Timestamp) -> BindingV1<'a> {
        let judgement = self.judge(policy, now);
        let reasons = judgement.reasons();
        let Judgement { trust, routability } = judgement;
        let session = self.session;
        BindingV1 {
            session: &session.session_id,
            binding_id: &session.binding_id,
            device_id: session.device_id.as_ref(),
            evaluated_at: now,
            routable: routability.routable,
            trust_level: trust.level,
            se_key_bound: trust.se_key_bound,
            residence_proved: false,
            reasons,
            routable_until: routability.routable_until,
            eligible_at: trust.eligible_at,
            posture_revision: self.mac.map(|mac| mac.posture.revision),
            blob: BlobV1 {
                valid: session.blob_reasons.is_empty(),
                reasons: &session.blob_reasons,
            },
            last_good_at: session.liveness.last_good_at(),
            next_challenge_at: session.liveness.due_at(now).filter(|_| session.is_live()),
            resumable_until: session.ended.and_then(|ended| ended.resumable_until),
            policy_id: &policy.id,
        }
    }

    /// What evidence about the Mac would help; `None` where all is fresh.
    pub fn suggest(&self, policy: &Policy, now: Timestamp) -> Option<Suggested> {
        let mac = self.mac?;
        let posture = &mac.posture;
        let fresh_until = |from: Timestamp, rules: &crate::posture::policy::Lifetime| {
            from.plus(rules.fresh_for.0)
        };
        let reported = posture.reported.as_ref().is_some_and(|reported| {
            now < fresh_until(reported.observed_at, &policy.rules.security_info)
        });
        let attested = posture.attested.as_ref().is_some_and(|attested| {
            let minted_at = attested.freshness.minted_at();
            minted_at.is_some_and(|at| now < fresh_until(at, &policy.rules.attestation))
        });
        let graded = posture.grade_key(self.session.key.text(), policy, now);
        let names_key = matches!(graded.grade, KeyBinding::Bound | KeyBinding::None);
        let mut verify = Vec::new();
        if !reported {
            verify.push(Kind::SecurityInfo);
        }
        if !attested || !names_key {
            verify.push(Kind::Mda);
        }
        let after = match verify[..] {
            [] => return None,
            [Kind::Mda] => posture.eligible_at().map_or(now, |at| at.max(now)),
            _ => now,
        };
        Some(Suggested { verify, after })
    }
}
