//! What a policy makes of a Mac, and what would change for it under another one: for whoever wants
//! to know before a policy is switched on.
//!
//! Nothing here is a second judgement: the same functions judge that judge every answer, under one
//! policy and then under the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::binding_v1::Standing;
use super::posture_v1::Believed;
use crate::ids::{DeviceId, SerialNumber};
use crate::posture::Verdict;
use crate::posture::claim::{Age, Assurance, Value, claims};
use crate::posture::key_binding::KeyBinding;
use crate::posture::policy::{Policy, SessionRule};
use crate::posture::trust::{Alive, Level, Routability, Session, Trust, routability, trust};
use crate::provider::Session as ProviderSession;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A Mac with everything a policy judges it by, as it is stored; nothing in it changes as time
/// passes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    pub mac: Believed,
    /// The provider sessions on it. With none, the best that could be is assumed: one of the key that
    /// was proved last, in good order.
    #[serde(default)]
    pub sessions: Vec<Seen>,
}

/// A provider session as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    pub session: ProviderSession,
    /// Why a program of it is no registered release.
    pub release: Option<Reason>,
}

/// What a policy makes of a Mac at one moment, by the best session on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Of the device plane alone.
    pub verdict: Verdict,
    pub trust_level: Level,
    pub se_key_bound: KeyBinding,
    pub routable: bool,
    /// Cause first.
    pub reasons: Vec<Reason>,
    pub usable_until: Option<Timestamp>,
}

/// What another policy changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A verdict, a level or routability is lost, whatever else is won.
    Worse,
    Better,
    /// Only why, or until when.
    Otherwise,
    Same,
}

/// One Mac under two policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub device_id: DeviceId,
    pub serial_number: Option<SerialNumber>,
    /// No session is known, and one in good order was assumed.
    pub session_assumed: bool,
    pub change: Change,
    pub in_force: Outlook,
    pub checked: Outlook,
}

/// Why it is so: demand by demand, claim by claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub demands: Vec<Demand>,
    pub claims: BTreeMap<&'static str, ClaimUnder>,
}

/// A demand of a policy, by the name of its setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Demand {
    pub demand: &'static str,
    pub in_force: Answer,
    pub checked: Answer,
}

/// How a Mac stands to a demand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether the policy demands it at all.
    pub demanded: bool,
    /// Whether the Mac would meet it, demanded or not; `None` when a definite negative decides before
    /// it is looked at.
    pub met: Option<bool>,
    /// Why not.
    pub reasons: Vec<Reason>,
}

/// A claim under two policies: the value is the same, its ages need not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimUnder {
    pub value: Option<Value>,
    pub assurance: Assurance,
    pub source: &'static str,
    pub observed_at: Timestamp,
    pub in_force: Term,
    pub checked: Term,
}

/// How old a claim is, and until when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Term {
    pub age: Age,
    pub expires_at: Option<Timestamp>,
}

/// What another policy changes for all who were compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub devices: u64,
    pub worse: u64,
    pub better: u64,
    pub otherwise: u64,
    pub same: u64,
    pub routable: Pair,
    pub verdicts: BTreeMap<&'static str, Pair>,
    pub trust_levels: BTreeMap<&'static str, Pair>,
    /// How many Macs have each reason.
    pub reasons: BTreeMap<&'static str, Pair>,
}

/// A count under two policies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pair {
    pub in_force: u64,
    pub checked: u64,
}

impl Seen {
    fn release(&self) -> Result<(), Reason> {
        self.release.map_or(Ok(()), Err)
    }
}

impl Outlook {
    fn of(trust: Trust, routability: Routability) -> Self {
        let mut reasons = trust.reasons;
        for reason in routability.reasons {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Self {
            verdict: trust.verdict,
            trust_level: trust.level,
            se_key_bound: trust.se_key_bound,
            routable: routability.routable,
            reasons,
            usable_until: trust.usable_until,
        }
    }

    /// What can be lost; more is better in each.
    fn standing(&self) -> [u8; 3] {
        let level = match self.trust_level {
            Level::None => 0,
            Level::SelfSigned => 1,
            Level::Hardware => 2,
        };
        [level, u8::from(self.routable), rank(self.verdict)]
    }
}

/// More is better.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Contraindicated => 0,
        Verdict::Unknown => 1,
        Verdict::Warning => 2,
        Verdict::Affirming => 3,
    }
}

impl Change {
    fn between(from: &Outlook, to: &Outlook) -> Self {
        let pairs = from.standing().into_iter().zip(to.standing());
        if pairs.clone().any(|(from, to)| to < from) {
            Self::Worse
        } else if pairs.clone().any(|(from, to)| to > from) {
            Self::Better
        } else if from == to {
            Self::Same
        } else {
            Self::Otherwise
        }
    }
}

impl Subject {
    /// What a policy makes of it.
    pub fn outlook(&self, policy: &Policy, now: Timestamp) -> Outlook {
        let seen = self.sessions.iter().map(|seen| {
            let standing = Standing {
                session: &seen.session,
                mac: Some(&self.mac),
                release: seen.release(),
            };
            let judgement = standing.judge(policy, now);
            Outlook::of(judgement.trust, judgement.routability)
        });
        seen.max_by_key(Outlook::standing).unwrap_or_else(|| {
            let session = self.assumed(now);
            let trust = trust(Some(self.mac.at(now)), Some(session), policy);
            let routability = routability(&trust, session, policy, now);
            Outlook::of(trust, routability)
        })
    }

    /// It, under the policy in force and under one that is checked.
    pub fn compare(&self, in_force: &Policy, checked: &Policy, now: Timestamp) -> Comparison {
        let (from, to) = (self.outlook(in_force, now), self.outlook(checked, now));
        Comparison {
            device_id: self.mac.device_id.clone(),
            serial_number: self.mac.serial.clone(),
            session_assumed: self.sessions.is_empty(),
            change: Change::between(&from, &to),
            in_force: from,
            checked: to,
        }
    }

    /// Why the two policies make of it what they do.
    pub fn explain(&self, in_force: &Policy, checked: &Policy, now: Timestamp) -> Explanation {
        let demands = Rule::ALL.map(|rule| Demand {
            demand: rule.name(),
            in_force: self.answer(rule, in_force, now),
            checked: self.answer(rule, checked, now),
        });
        let mut other = claims(&self.mac.posture, checked, now);
        let claims = claims(&self.mac.posture, in_force, now)
            .into_iter()
            .filter_map(|(name, claim)| {
                let under = other.remove(name)?;
                let claim = ClaimUnder {
                    in_force: Term {
                        age: claim.age,
                        expires_at: claim.expires_at,
                    },
                    checked: Term {
                        age: under.age,
                        expires_at: under.expires_at,
                    },
                    value: claim.value,
                    assurance: claim.assurance,
                    source: claim.source,
                    observed_at: claim.observed_at,
                };
                Some((name, claim))
            })
            .collect();
        Explanation {
            demands: demands.to_vec(),
            claims,
        }
    }

    /// A session in good order, of the key that was proved last.
    fn assumed(&self, now: Timestamp) -> Session<'_> {
        let key = self.mac.posture.key_to_name();
        Session {
            se_public_key: key.map_or("", |key| &key.se_public_key),
            claimed_serial: self.mac.serial.as_ref(),
            blob: Ok(()),
            alive: Alive {
                last_good_at: Some(now),
                ended: None,
            },
            release: Ok(()),
        }
    }

    /// How it stands to one demand, as if that were the only one.
    fn answer(&self, rule: Rule, policy: &Policy, now: Timestamp) -> Answer {
        let demanded = rule.is_in(policy);
        if rule == Rule::Release {
            let release: Vec<_> = self.sessions.iter().map(Seen::release).collect();
            let met = release.iter().any(Result::is_ok);
            return Answer {
                demanded,
                met: (!release.is_empty()).then_some(met),
                reasons: release
                    .into_iter()
                    .filter_map(Result::err)
                    .filter(|_| !met)
                    .collect(),
            };
        }
        let key = self.sessions.first().map(|seen| seen.session.key.text());
        let assumed = self.assumed(now);
        let session = Session {
            se_public_key: key.unwrap_or(assumed.se_public_key),
            ..assumed
        };
        let judged = |policy: &Policy| trust(Some(self.mac.at(now)), Some(session), policy);
        let without = judged(&rule.needs(policy));
        let with = judged(&rule.alone(policy));
        let reasons: Vec<_> = with
            .reasons
            .into_iter()
            .filter(|reason| match rule {
                // Without it a serial number must be claimed, which says the same in its absence.
                Rule::Session => *reason == Reason::BindingUnproved,
                _ => !without.reasons.contains(reason),
            })
            .collect();
        let is_looked_at =
            !reasons.is_empty() || !rule.is_of_device() || with.verdict != Verdict::Contraindicated;
        Answer {
            demanded,
            met: is_looked_at.then_some(reasons.is_empty()),
            reasons,
        }
    }
}

/// The demands that policies differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    AppleChain,
    SecurityInfo,
    Filevault,
    AuthenticatedRoot,
    AttestedChannel,
    KeyBinding,
    Session,
    Release,
}

impl Rule {
    const ALL: [Self; 8] = [
        Self::AppleChain,
        Self::SecurityInfo,
        Self::Filevault,
        Self::AuthenticatedRoot,
        Self::AttestedChannel,
        Self::KeyBinding,
        Self::Session,
        Self::Release,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::AppleChain => "require.apple_chain",
            Self::SecurityInfo => "require.security_info",
            Self::Filevault => "require.filevault",
            Self::AuthenticatedRoot => "require.authenticated_root",
            Self::AttestedChannel => "hardware.attested_channel",
            Self::KeyBinding => "hardware.key_binding",
            Self::Session => "hardware.session",
            Self::Release => "routing.release",
        }
    }

    fn is_in(self, policy: &Policy) -> bool {
        let rules = &policy.rules;
        match self {
            Self::AppleChain => rules.require.apple_chain,
            Self::SecurityInfo => rules.require.security_info,
            Self::Filevault => rules.require.filevault,
            Self::AuthenticatedRoot => rules.require.authenticated_root,
            Self::AttestedChannel => rules.hardware.attested_channel,
            Self::KeyBinding => rules.hardware.key_binding,
            Self::Session => rules.hardware.session == SessionRule::Proved,
            Self::Release => rules.routing.release,
        }
    }

    /// Of the Mac itself, and not of a session on it or the key it speaks by.
    fn is_of_device(self) -> bool {
        matches!(
            self,
            Self::AppleChain | Self::SecurityInfo | Self::Filevault | Self::AuthenticatedRoot
        )
    }

    /// The policy's clocks, with nothing demanded but what this demand rests on: what SecurityInfo
    /// says is only asked where SecurityInfo is.
    fn needs(self, policy: &Policy) -> Policy {
        let mut bare = policy.clone();
        let rules = &mut bare.rules;
        rules.require.apple_chain = false;
        rules.require.security_info = matches!(self, Self::Filevault | Self::AuthenticatedRoot);
        rules.require.filevault = false;
        rules.require.authenticated_root = false;
        rules.hardware.attested_channel = false;
        rules.hardware.key_binding = false;
        rules.hardware.session = SessionRule::ClaimedSerial;
        rules.routing.release = false;
        bare
    }

    /// The same, with this demand.
    fn alone(self, policy: &Policy) -> Policy {
        let mut alone = self.needs(policy);
        let rules = &mut alone.rules;
        match self {
            Self::AppleChain => rules.require.apple_chain = true,
            Self::SecurityInfo => rules.require.security_info = true,
            Self::Filevault => rules.require.filevault = true,
            Self::AuthenticatedRoot => rules.require.authenticated_root = true,
            Self::AttestedChannel => rules.hardware.attested_channel = true,
            Self::KeyBinding => rules.hardware.key_binding = true,
            Self::Session => rules.hardware.session = SessionRule::Proved,
            Self::Release => rules.routing.release = true,
        }
        alone
    }
}

impl Summary {
    /// Counts one Mac.
    pub fn add(&mut self, compared: &Comparison) {
        self.devices += 1;
        *match compared.change {
            Change::Worse => &mut self.worse,
            Change::Better => &mut self.better,
            Change::Otherwise => &mut self.otherwise,
            Change::Same => &mut self.same,
        } += 1;
        let (from, to) = (&compared.in_force, &compared.checked);
        self.routable.in_force += u64::from(from.routable);
        self.routable.checked += u64::from(to.routable);
        let verdicts = &mut self.verdicts;
        verdicts.entry(from.verdict.as_str()).or_default().in_force += 1;
        verdicts.entry(to.verdict.as_str()).or_default().checked += 1;
        let levels = &mut self.trust_levels;
        levels
            .entry(from.trust_level.as_str())
            .or_default()
            .in_force += 1;
        levels.entry(to.trust_level.as_str()).or_default().checked += 1;
        for reason in &from.reasons {
            self.reasons.entry(reason.code()).or_default().in_force += 1;
        }
        for reason in &to.reasons {
            self.reasons.entry(reason.code()).or_default().checked += 1;
        }
    }
}
