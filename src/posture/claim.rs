//! Claims: every property with its value, who vouches for it, and until when.

use std::collections::BTreeMap;

use serde::Serialize;

use super::continuity::{Process, fresh_until};
use super::policy::{Lifetime, Policy};
use super::{Attested, Channel, Posture, Reported};
use crate::attestation::statement::SecureBoot;
use crate::ids::EvidenceId;
use crate::mdm::security_info::SecureBootLevel;
use crate::reason::Reason;
use crate::time::{Span, Timestamp};

/// Who vouches, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assurance {
    /// Apple, by a certificate chain.
    AppleSigned,
    /// The Mac's operating system, signed by its MDM identity.
    DeviceReported,
    /// The provider's own software.
    SelfReported,
}

/// One property. Claims are never edited and never merged with each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Claim {
    /// `None` is unknown.
    pub value: Option<Value>,
    /// The source's own word, where it differs from the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<&'static str>,
    pub assurance: Assurance,
    /// `mda`, `acme` or `security_info`.
    pub source: &'static str,
    /// Whose key signed a device-reported claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    pub evidence_id: EvidenceId,
    pub observed_at: Timestamp,
    /// `None` when nothing says how old the evidence is.
    pub fresh_until: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// At the time of the answer; the two times above say when it changes.
    pub age: Age,
    /// Why the value is unknown, or does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// How old a claim is, measured by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Age {
    Fresh,
    /// Usable; a refresh is due.
    Stale,
    /// Not usable.
    Expired,
    /// Older than a definite negative: not usable, whatever its own times say.
    Voided,
    /// Nothing says how old it is, or a clock that was wrong dated it ahead: not usable.
    Undated,
}

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ClaimValue)]
#[serde(untagged)]
pub enum Value {
    Flag(bool),
    Word(String),
}

/// The claims of a posture by name; what Apple attests is named `…#mda` where SecurityInfo reports
/// the same property. `process` is the one the provider on this Mac is known to run.
pub fn claims(
    posture: &Posture,
    policy: &Policy,
    process: Option<Process>,
    now: Timestamp,
) -> BTreeMap<&'static str, Claim> {
    let mut claims = BTreeMap::new();
    if let Some(reported) = &posture.reported {
        let voided = posture
            .void_before
            .is_some_and(|time| reported.asked_at < time)
            && !reported.facts.contradicts_full_security();
        let template = of_report(reported, policy, process, voided, now);
        let facts = &reported.facts;
        let mut flag = |name, value: Option<bool>| {
            claims.insert(name, template.with(value.map(Value::Flag), None));
        };
        flag("sip", facts.sip_enabled);
        flag("filevault", facts.filevault_enabled);
        flag("authenticated_root", facts.authenticated_root);
        flag("external_boot", facts.external_boot);
        flag("recovery_lock", facts.recovery_lock);
        flag("firewall", facts.firewall_enabled);
        let boot = facts.secure_boot.map(|level| match level {
            SecureBootLevel::Full => ("full", "full"),
            SecureBootLevel::Medium => ("reduced", "medium"),
            SecureBootLevel::Off => ("off", "off"),
            SecureBootLevel::NotSupported => ("not_supported", "not supported"),
        });
        claims.insert("secure_boot", template.with_word(boot));
    }
    if let Some(attested) = &posture.attested {
        let minted_at = attested.freshness.minted_at();
        let voided = posture
            .void_before
            .is_some_and(|time| minted_at.is_some_and(|at| at < time))
            && !attested.facts.contradicts_full_security();
        let template = of_attestation(attested, &policy.rules.attestation, voided, now);
        let facts = &attested.facts;
        claims.insert(
            "sip#mda",
            template.with(facts.sip_enabled.map(Value::Flag), None),
        );
        claims.insert(
            "third_party_kexts",
            template.with(facts.third_party_kexts.map(Value::Flag), None),
        );
        let boot = facts.secure_boot.map(|level| match level {
            SecureBoot::Full => ("full", "Full Security"),
            SecureBoot::Reduced => ("reduced", "Reduced Security"),
            SecureBoot::Permissive => ("off", "Permissive Security"),
        });
        claims.insert("secure_boot#mda", template.with_word(boot));
        let mut word = |name, value: Option<String>| {
            claims.insert(name, template.with(value.map(Value::Word), None));
        };
        word(
            "serial_number",
            facts.serial.as_ref().map(ToString::to_string),
        );
        word("os_version", facts.os_version.clone());
        word("sepos_version", facts.sepos_version.clone());
        word("llb_version", facts.llb_version.clone());
    }
    claims
}

impl Claim {
    fn with(&self, value: Option<Value>, raw: Option<&'static str>) -> Self {
        let reason = self
            .reason
            .or_else(|| value.is_none().then_some(Reason::FieldMissing));
        Self {
            value,
            raw,
            reason,
            ..self.clone()
        }
    }

    fn with_word(&self, word: Option<(&'static str, &'static str)>) -> Self {
        self.with(
            word.map(|(value, _)| Value::Word(value.to_owned())),
            word.map(|(_, raw)| raw),
        )
    }
}

impl Age {
    fn at(
        observed_at: Timestamp,
        fresh_until: Option<Timestamp>,
        expires_at: Option<Timestamp>,
        voided: bool,
        now: Timestamp,
    ) -> Self {
        if observed_at.is_to_come(now) {
            return Self::Undated;
        }
        let (Some(fresh_until), Some(expires_at)) = (fresh_until, expires_at) else {
            return Self::Undated;
        };
        if voided {
            Self::Voided
        } else if now >= expires_at {
            Self::Expired
        } else if now >= fresh_until {
            Self::Stale
        } else {
            Self::Fresh
        }
    }
}

fn of_report(
    reported: &Reported,
    policy: &Policy,
    process: Option<Process>,
    voided: bool,
    now: Timestamp,
) -> Claim {
    let observed_at = reported.observed_at;
    let fresh_until = Some(fresh_until(observed_at, process, &policy.rules, now));
    let expires_at = Some(observed_at.plus(policy.rules.security_info.usable_for.0));
    Claim {
        value: None,
        raw: None,
        assurance: Assurance::DeviceReported,
        source: "security_info",
        channel: Some(reported.channel),
        evidence_id: reported.evidence_id,
        observed_at: reported.observed_at,
        fresh_until,
        expires_at,
        age: Age::at(observed_at, fresh_until, expires_at, voided, now),
        reason: match observed_at.is_to_come(now) {
            true => Some(Reason::ServiceDegraded),
            false => voided.then_some(Reason::EvidenceConflict),
        },
    }
}

fn of_attestation(attested: &Attested, lifetime: &Lifetime, voided: bool, now: Timestamp) -> Claim {
    let minted_at = attested.freshness.minted_at();
    let until = |span: Span| minted_at.map(|at| at.plus(span.0).min(attested.not_after));
    let (fresh_until, expires_at) = (until(lifetime.fresh_for), until(lifetime.usable_for));
    Claim {
        value: None,
        raw: None,
        assurance: Assurance::AppleSigned,
        source: attested.occasion.as_str(),
        channel: None,
        evidence_id: attested.evidence_id,
        observed_at: attested.observed_at,
        fresh_until,
        expires_at,
        age: Age::at(attested.observed_at, fresh_until, expires_at, voided, now),
        reason: match minted_at {
            None => Some(Reason::NonceUnrecognized),
            Some(_) if attested.observed_at.is_to_come(now) => Some(Reason::ServiceDegraded),
            Some(_) => voided.then_some(Reason::AppleRateLimit),
        },
    }
}
