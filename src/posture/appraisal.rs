//! The judgement: posture and policy in, verdict and reasons out.

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::{Attested, Posture, Reported, Verdict};
use crate::attestation::statement::SecureBoot;
use crate::mdm::security_info::SecureBootLevel;
use crate::reason::Reason;
use crate::time::Timestamp;

/// What a Mac's device plane amounts to at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appraisal {
    pub verdict: Verdict,
    /// Cause first. Empty when affirming.
    pub reasons: Vec<Reason>,
    /// Until when the verdict may be relied on; only for affirming and warning.
    pub usable_until: Option<Timestamp>,
}

/// How the Mac stands to this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// The Mac is enrolled now: TokenUpdate arrived and no CheckOut since.
    pub enrolled: bool,
    /// Another enrollment holds the serial number, or the UDID, that this one claims.
    pub contends: bool,
    /// When the identity ends by which the Mac is heard: nothing that depends on asking it again
    /// outlasts that.
    pub identity_ends: Option<Timestamp>,
}

impl Relation {
    /// The Mac left, or has not come yet.
    pub const NONE: Self = Self {
        enrolled: false,
        contends: false,
        identity_ends: None,
    };
}

/// What is known besides the evidence.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub relation: Relation,
    /// Why the attempt under way has not brought evidence yet; shown where nothing is known.
    pub attempt: &'a [Reason],
    pub now: Timestamp,
}

/// Judges a posture.
///
/// A definite negative stands until newer evidence clears it: it does not expire. Everything good
/// expires by itself. What is missing leaves the verdict unknown, and so does what a clock that was
/// wrong has dated ahead.
pub fn appraise(posture: &Posture, policy: &Policy, circumstances: Circumstances<'_>) -> Appraisal {
    let mut against = held_against(posture, policy);
    if !against.is_empty() {
        deduplicate(&mut against);
        return Appraisal {
            verdict: Verdict::Contraindicated,
            reasons: against,
            usable_until: None,
        };
    }
    let mut missing = Vec::new();
    let relation = circumstances.relation;
    if relation.contends {
        missing.push(Reason::PendingProof);
    }
    if !relation.enrolled {
        missing.push(Reason::NotEnrolled);
    } else if relation
        .identity_ends
        .is_some_and(|end| circumstances.now >= end)
    {
        missing.push(Reason::IdentityExpired);
    }
    let attested_until = attestation_gaps(posture, policy, circumstances, &mut missing);
    let reported_until = report_gaps(posture, policy, circumstances, &mut missing);
    if !missing.is_empty() {
        deduplicate(&mut missing);
        return Appraisal {
            verdict: Verdict::Unknown,
            reasons: missing,
            usable_until: None,
        };
    }
    let ends = [attested_until, reported_until, relation.identity_ends];
    let usable_until = ends.into_iter().flatten().min();
    let withheld = policy.rules.require.apple_chain
        && posture.attested.as_ref().is_some_and(Attested::is_withheld);
    if withheld {
        let reasons = vec![Reason::AttestationWithheld];
        return Appraisal {
            verdict: Verdict::Warning,
            reasons,
            usable_until,
        };
    }
    Appraisal {
        verdict: Verdict::Affirming,
        reasons: Vec::new(),
        usable_until,
    }
}

/// When a SecurityInfo reading ends to be usable.
pub fn reported_until(reading: &Reported, policy: &Policy) -> Timestamp {
    reading
        .observed_at
        .plus(policy.rules.security_info.usable_for.0)
}

/// When an attestation ends to be usable; `None` when nothing says when it was made.
pub fn attested_until(reading: &Attested, policy: &Policy) -> Option<Timestamp> {
    let minted_at = reading.freshness.minted_at()?;
    Some(
        minted_at
            .plus(policy.rules.attestation.usable_for.0)
            .min(reading.not_after),
    )
}

fn held_against(posture: &Posture, policy: &Policy) -> Vec<Reason> {
    let mut against: Vec<Reason> = Vec::new();
    if posture
        .held
        .iter()
        .any(|held| held.reason == Reason::Revoked)
    {
        against.push(Reason::Revoked);
    }
    against.extend(posture.held.iter().map(|held| held.reason));

    let apple = posture.attested.as_ref().map(|attested| &attested.facts);
    let reported = posture.reported.as_ref().map(|reported| &reported.facts);
    let sip = [
        apple.and_then(|a| a.sip_enabled),
        reported.and_then(|r| r.sip_enabled),
    ];
    if sip.contains(&Some(false)) {
        against.push(Reason::SipDisabled);
    }
    let boot = [
        apple.and_then(|a| a.secure_boot).map(|level| match level {
            SecureBoot::Full => Boot::Full,
            SecureBoot::Reduced => Boot::Reduced,
            SecureBoot::Permissive => Boot::Off,
        }),
        reported
            .and_then(|r| r.secure_boot)
            .map(|level| match level {
                SecureBootLevel::Full => Boot::Full,
                SecureBootLevel::Medium => Boot::Reduced,
                // No Secure Boot at all is not full security either.
                SecureBootLevel::Off | SecureBootLevel::NotSupported => Boot::Off,
            }),
    ];
    if boot.contains(&Some(Boot::Off)) {
        against.push(Reason::SecureBootOff);
    } else if boot.contains(&Some(Boot::Reduced)) {
        against.push(Reason::SecureBootReduced);
    }
    if apple.and_then(|a| a.third_party_kexts) == Some(true) {
        against.push(Reason::ThirdPartyKexts);
    }
    if policy.rules.require.filevault && reported.and_then(|r| r.filevault_enabled) == Some(false) {
        against.push(Reason::FilevaultOff);
    }
    if policy.rules.require.authenticated_root
        && reported.and_then(|r| r.authenticated_root) == Some(false)
    {
        against.push(Reason::AuthenticatedRootOff);
    }
    let disagree = matches!(sip, [Some(a), Some(b)] if a != b)
        || matches!(boot, [Some(a), Some(b)] if (a == Boot::Full) != (b == Boot::Full));
    if disagree {
        against.push(Reason::EvidenceConflict);
    }
    against
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Boot {
    Full,
    Reduced,
    Off,
}

fn attestation_gaps(
    posture: &Posture,
    policy: &Policy,
    circumstances: Circumstances<'_>,
    missing: &mut Vec<Reason>,
) -> Option<Timestamp> {
    if !policy.rules.require.apple_chain {
        return None;
    }
    let Some(attested) = &posture.attested else {
        missing.extend(attempt_or(circumstances.attempt, Reason::AwaitingPush));
        return None;
    };
    let Some(minted_at) = attested.freshness.minted_at() else {
        missing.push(Reason::NonceUnrecognized);
        return None;
    };
    if attested.observed_at.is_to_come(circumstances.now) {
        missing.push(Reason::ServiceDegraded);
        return None;
    }
    if posture.void_before.is_some_and(|time| minted_at < time) {
        missing.push(match attested.is_withheld() {
            true => Reason::AttestationWithheld,
            false => Reason::AppleRateLimit,
        });
        return None;
    }
    let until = attested_until(attested, policy);
    if until.is_none_or(|until| circumstances.now >= until) {
        missing.extend(attempt_or(circumstances.attempt, Reason::AnswerTimeout));
        return None;
    }
    let facts = &attested.facts;
    let complete = facts.serial.is_some()
        && facts.sip_enabled.is_some()
        && facts.secure_boot.is_some()
        && facts.third_party_kexts.is_some();
    if !complete {
        missing.push(Reason::FieldMissing);
    }
    until
}

fn report_gaps(
    posture: &Posture,
    policy: &Policy,
    circumstances: Circumstances<'_>,
    missing: &mut Vec<Reason>,
) -> Option<Timestamp> {
    if !policy.rules.require.security_info {
        return None;
    }
    let Some(reported) = &posture.reported else {
        missing.extend(attempt_or(circumstances.attempt, Reason::AwaitingPush));
        return None;
    };
    if reported.observed_at.is_to_come(circumstances.now) {
        missing.push(Reason::ServiceDegraded);
        return None;
    }
    let until = reported_until(reported, policy);
    let voided = posture
        .void_before
        .is_some_and(|time| reported.asked_at < time);
    if voided {
        missing.extend(attempt_or(circumstances.attempt, Reason::AwaitingPush));
        return None;
    }
    if circumstances.now >= until {
        missing.extend(attempt_or(circumstances.attempt, Reason::AnswerTimeout));
        return None;
    }
    let facts = &reported.facts;
    let complete = facts.sip_enabled.is_some()
        && facts.secure_boot.is_some()
        && (!policy.rules.require.filevault || facts.filevault_enabled.is_some())
        && (!policy.rules.require.authenticated_root || facts.authenticated_root.is_some());
    if !complete {
        missing.push(Reason::FieldMissing);
    }
    Some(until)
}

fn attempt_or(attempt: &[Reason], otherwise: Reason) -> Vec<Reason> {
    if attempt.is_empty() {
        vec![otherwise]
    } else {
        attempt.to_vec()
    }
}

fn deduplicate(reasons: &mut Vec<Reason>) {
    let mut seen = Vec::new();
    reasons.retain(|reason| {
        let first = !seen.contains(reason);
        seen.push(*reason);
        first
    });
}
