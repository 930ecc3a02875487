//! What the feed says of a provider that ends by itself, and what of it holds for a while.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::posture::Verdict;
use crate::posture::claim::{Age, Claim, Value, claims};
use crate::posture::key_binding::KeyBinding;
use crate::posture::policy::Policy;
use crate::posture::trust::{Alive, Level};
use crate::posture::{Channel, Posture};
use crate::provider::SelfReport;
use crate::publication::binding_v1::{Standing, is_joined};
use crate::publication::posture_v1::Believed;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A provider's connection in the historic coordinator's words, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[schema(as = ProviderStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Online,
    /// It has not answered for longer than an answer counts.
    Offline,
    /// It, or its Mac, has shown something that no provider may.
    Untrusted,
}

/// What is known of a provider at one time, as far as time changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub level: Level,
    pub verdict: Verdict,
    pub se_key_bound: KeyBinding,
    pub reasons: Vec<Reason>,
    pub usable_until: Option<Timestamp>,
    pub status: Status,
    pub sip_enabled: bool,
    pub secure_boot_enabled: bool,
    /// SIP, Secure Boot and FileVault are on, by the operating system's own word.
    pub mdm_verified: bool,
    /// A chain of Apple's says of this Mac that it is as it must be.
    pub mda_verified: bool,
    /// What the Mac reports is signed by a key that Apple attested.
    pub acme_verified: bool,
    /// When the Mac was heard last.
    pub observed_at: Option<Timestamp>,
    /// Requests may be sent to it; not said in the feed.
    pub routable: bool,
}

/// The Mac of a session, if the session is more to it than somebody who claims it.
pub(super) fn mac_of<'a>(standing: &Standing<'a>, policy: &Policy) -> Option<&'a Believed> {
    standing.mac.filter(|mac| {
        is_joined(standing.session, mac, policy)
            || mac.posture.proof_of(standing.session.key.text()).is_some()
    })
}

impl Judged {
    /// Judges the live session `standing` as of `now`. Nothing is said of a Mac that the session merely
    /// claims.
    pub fn at(
        standing: Standing<'_>,
        report: &SelfReport,
        policy: &Policy,
        now: Timestamp,
    ) -> Self {
        let mac = mac_of(&standing, policy);
        let standing = Standing { mac, ..standing };
        let judgement = standing.judge(policy, now);
        let mut reasons = judgement.reasons();
        if standing.session.device_id.is_some() && mac.is_none() {
            for reason in &mut reasons {
                if *reason == Reason::DeviceNotFound {
                    *reason = Reason::BindingUnproved;
                }
            }
        }
        let alive = standing.at(policy, now).map(|session| session.alive);
        let trust = judgement.trust;
        let claims = mac.map_or_else(BTreeMap::new, |mac| {
            claims(&mac.posture, policy, standing.process(), now)
        });
        let heard = mac.is_some_and(|mac| is_heard(mac, now));
        let vouched = heard && trust.verdict != Verdict::Contraindicated;
        let liveness = standing.liveness();
        let reported = liveness.reported_bad();
        let denied = |reason, names: [&str; 2], good: Value| {
            let says_so = |name| claims.get(name).and_then(|claim| claim.value.clone());
            let said: Vec<_> = names.into_iter().filter_map(says_so).collect();
            reported.is_some_and(|bad| bad.reasons.contains(&reason))
                || said.iter().any(|value| *value != good)
        };
        let full = || Value::Word("full".to_owned());
        Self {
            level: trust.level,
            verdict: trust.verdict,
            se_key_bound: trust.se_key_bound,
            reasons,
            usable_until: trust.usable_until,
            status: status(&standing, alive, trust.verdict, policy, now),
            sip_enabled: report.sip_enabled
                && !denied(Reason::SipDisabled, ["sip", "sip#mda"], Value::Flag(true)),
            secure_boot_enabled: report.secure_boot_enabled
                && !denied(
                    Reason::SecureBootOff,
                    ["secure_boot", "secure_boot#mda"],
                    full(),
                ),
            mdm_verified: vouched
                && counts(&claims, "sip", &Value::Flag(true))
                && counts(&claims, "secure_boot", &full())
                && counts(&claims, "filevault", &Value::Flag(true)),
            mda_verified: vouched
                && mac.is_some_and(states_its_serial)
                && counts(&claims, "sip#mda", &Value::Flag(true))
                && counts(&claims, "secure_boot#mda", &full())
                && counts(&claims, "third_party_kexts", &Value::Flag(false)),
            acme_verified: vouched
                && mac.is_some_and(|mac| mac.channel == Channel::HardwareAttested),
            observed_at: mac.and_then(|mac| observed_at(&mac.posture, now)),
            routable: judgement.routability.routable,
        }
    }

    /// What holds at both of two times: in everything the worse.
    pub fn and(self, later: Self) -> Self {
        let worse = |one: Verdict, other: Verdict| match (one, other) {
            (Verdict::Contraindicated, _) | (_, Verdict::Contraindicated) => {
                Verdict::Contraindicated
            }
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
            (Verdict::Warning, _) | (_, Verdict::Warning) => Verdict::Warning,
            (Verdict::Affirming, Verdict::Affirming) => Verdict::Affirming,
        };
        let level = self.level.min(later.level);
        let ends = [self.usable_until, later.usable_until];
        Self {
            level,
            verdict: worse(self.verdict, later.verdict),
            se_key_bound: match later.se_key_bound {
                KeyBinding::Bound => self.se_key_bound,
                open => open,
            },
            reasons: match later.level > level {
                true => self.reasons,
                false => later.reasons,
            },
            usable_until: match level {
                Level::Hardware => ends.into_iter().flatten().min(),
                Level::None | Level::SelfSigned => None,
            },
            status: self.status.max(later.status),
            sip_enabled: self.sip_enabled && later.sip_enabled,
            secure_boot_enabled: self.secure_boot_enabled && later.secure_boot_enabled,
            mdm_verified: self.mdm_verified && later.mdm_verified,
            mda_verified: self.mda_verified && later.mda_verified,
            acme_verified: self.acme_verified && later.acme_verified,
            observed_at: self.observed_at,
            routable: self.routable && later.routable,
        }
    }
}

/// A Mac that left, or whose place or identity is another's, vouches for nothing.
fn is_heard(mac: &Believed, now: Timestamp) -> bool {
    let relation = mac.relation;
    relation.enrolled && !relation.contends && relation.identity_ends.is_none_or(|end| now < end)
}

fn states_its_serial(mac: &Believed) -> bool {
    let stated = mac.posture.attested.as_ref();
    let stated = stated.and_then(|attested| attested.facts.serial.as_ref());
    stated.is_some() && stated == mac.serial.as_ref()
}

/// Whether a claim has this value and is neither too old, nor older than a negative, nor undated.
fn counts(claims: &BTreeMap<&'static str, Claim>, name: &str, good: &Value) -> bool {
    claims.get(name).is_some_and(|claim| {
        claim.value.as_ref() == Some(good) && matches!(claim.age, Age::Fresh | Age::Stale)
    })
}

fn observed_at(posture: &Posture, now: Timestamp) -> Option<Timestamp> {
    let reported = posture.reported.as_ref().map(|it| it.observed_at);
    let attested = posture.attested.as_ref().map(|it| it.observed_at);
    let known = [reported, attested].into_iter().flatten();
    known.filter(|at| !at.is_to_come(now)).max()
}

fn status(
    standing: &Standing<'_>,
    alive: Option<Alive>,
    verdict: Verdict,
    policy: &Policy,
    now: Timestamp,
) -> Status {
    let ended = alive.and_then(|alive| alive.ended);
    let is_refused = ended.is_some_and(|reason| reason != Reason::ChallengeStale);
    if is_refused || verdict == Verdict::Contraindicated {
        return Status::Untrusted;
    }
    // Who has just connected has not been asked yet.
    let last_good_at = standing.session.liveness.last_good_at();
    let heard_at = last_good_at.unwrap_or(standing.session.began_at);
    let gave_up = last_good_at.is_some() && ended.is_some();
    let until = heard_at.plus(policy.rules.challenge.max_age.0);
    match gave_up || now >= until {
        true => Status::Offline,
        false => Status::Online,
    }
}
