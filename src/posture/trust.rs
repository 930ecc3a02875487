//! How far a Mac and the provider session on it are trusted, and whether requests may be routed
//! there.
//!
//! The *level* says what is proved of the Mac and of the session's key; whether a session is
//! *routable* adds what changes by the minute: the last challenge, the release it runs.

use serde::{Deserialize, Serialize};

use super::appraisal::{Appraisal, Circumstances, appraise};
use super::key_binding::KeyBinding;
use super::policy::{Policy, SessionRule};
use super::{Channel, Posture, Verdict};
use crate::ids::SerialNumber;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The coordinator's trust levels, least first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[schema(as = TrustLevel)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    None,
    /// The session's Secure Enclave key signed a blob that is good.
    SelfSigned,
    /// Evidence about the Mac itself, by the policy's rule.
    Hardware,
}

/// A Mac as trust sees it.
#[derive(Debug, Clone, Copy)]
pub struct Mac<'a> {
    pub posture: &'a Posture,
    pub circumstances: Circumstances<'a>,
    /// Whose key signs what it reports now.
    pub channel: Channel,
    /// The serial number it enrolled with.
    pub serial: Option<&'a SerialNumber>,
}

/// A provider session as trust sees it.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    pub se_public_key: &'a str,
    /// The serial number its software says it runs on.
    pub claimed_serial: Option<&'a SerialNumber>,
    /// Why its signed blob is not good.
    pub blob: Result<(), Reason>,
    pub alive: Alive,
    /// Why the binary it runs is no registered release.
    pub release: Result<(), Reason>,
}

/// What a session's challenges amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// When the last good answer was received.
    pub last_good_at: Option<Timestamp>,
    /// Why it is not routed to whatever the time: too many challenges unanswered, a bad signature, a
    /// bad state reported.
    pub ended: Option<Reason>,
}

/// How far a Mac and a session on it are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    pub level: Level,
    /// Of the device plane alone.
    pub verdict: Verdict,
    pub se_key_bound: KeyBinding,
    /// From when Apple makes a statement that can name the key, where that is waited for.
    pub eligible_at: Option<Timestamp>,
    /// Cause first: what decides the verdict, then what keeps the level down.
    pub reasons: Vec<Reason>,
    /// Until when the level may be relied on; only for `hardware`.
    pub usable_until: Option<Timestamp>,
}

/// Whether requests may be sent to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routability {
    pub routable: bool,
    /// Cause first; empty when routable.
    pub reasons: Vec<Reason>,
    /// The earliest end of anything it rests on; only when routable.
    pub routable_until: Option<Timestamp>,
}

impl Level {
    /// The published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SelfSigned => "self_signed",
            Self::Hardware => "hardware",
        }
    }
}

/// How far they are trusted.
///
/// Without a session no level is reached; without a Mac, `self_signed` at most. `hardware` is given
/// only where every demand of the policy is met at `circumstances.now`.
pub fn trust(mac: Option<Mac<'_>>, session: Option<Session<'_>>, policy: &Policy) -> Trust {
    let mut trust = match mac {
        Some(mac) => device_plane(mac, policy),
        None => Trust::nothing_known(),
    };
    let device_plane_holds = matches!(trust.verdict, Verdict::Affirming | Verdict::Warning);
    let Some(session) = session else {
        trust.keep_down(Reason::ProviderNotBound);
        trust.demand_channel(mac, policy);
        trust.usable_until = None;
        return trust;
    };
    if let Err(reason) = session.blob {
        trust.keep_down(reason);
        trust.usable_until = None;
        return trust;
    }
    trust.level = Level::SelfSigned;
    let Some(mac) = mac else {
        trust.usable_until = None;
        return trust;
    };
    let stands = trust.demand_session(mac, session, policy)
        & trust.demand_key(mac, session, policy)
        & trust.demand_channel(Some(mac), policy);
    if device_plane_holds && stands {
        trust.level = Level::Hardware;
    } else {
        trust.usable_until = None;
    }
    trust
}

/// Whether requests may be routed to the session whose trust this is.
pub fn routability(
    trust: &Trust,
    session: Session<'_>,
    policy: &Policy,
    now: Timestamp,
) -> Routability {
    let mut reasons = Vec::new();
    let mut against = |reason: Reason| {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let routing = &policy.rules.routing;
    if trust.level < routing.floor || trust.verdict == Verdict::Contraindicated {
        trust.reasons.iter().copied().for_each(&mut against);
    }
    if let Some(reason) = session.alive.ended {
        against(reason);
    }
    let challenged_until = session
        .alive
        .last_good_at
        .filter(|at| !at.is_to_come(now))
        .map(|at| at.plus(policy.rules.challenge.max_age.0));
    if challenged_until.is_none_or(|until| now >= until) {
        against(Reason::ChallengeStale);
    }
    if routing.release
        && let Err(reason) = session.release
    {
        against(reason);
    }
    let held = trust.level >= routing.floor && trust.verdict != Verdict::Contraindicated;
    let routable = held && reasons.is_empty();
    Routability {
        routable,
        reasons,
        routable_until: [challenged_until, trust.usable_until]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| routable),
    }
}

fn device_plane(mac: Mac<'_>, policy: &Policy) -> Trust {
    let Appraisal {
        verdict,
        reasons,
        usable_until,
    } = appraise(mac.posture, policy, mac.circumstances);
    Trust {
        level: Level::None,
        verdict,
        se_key_bound: KeyBinding::None,
        eligible_at: None,
        reasons,
        usable_until,
    }
}

impl Trust {
    fn nothing_known() -> Self {
        Self {
            level: Level::None,
            verdict: Verdict::Unknown,
            se_key_bound: KeyBinding::None,
            eligible_at: None,
            reasons: vec![Reason::DeviceNotFound],
            usable_until: None,
        }
    }

    fn keep_down(&mut self, reason: Reason) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Whether the session may stand on this Mac at all.
    fn demand_session(&mut self, mac: Mac<'_>, session: Session<'_>, policy: &Policy) -> bool {
        let mut stands = true;
        if let (Some(claimed), Some(enrolled)) = (session.claimed_serial, mac.serial)
            && claimed != enrolled
        {
            self.keep_down(Reason::SerialMismatch);
            stands = false;
        }
        let joined = match policy.rules.hardware.session {
            SessionRule::Proved => mac.posture.proof_of(session.se_public_key).is_some(),
            SessionRule::ClaimedSerial => {
                session.claimed_serial.is_some() && session.claimed_serial == mac.serial
            }
        };
        if !joined {
            self.keep_down(Reason::BindingUnproved);
        }
        stands && joined
    }

    fn demand_key(&mut self, mac: Mac<'_>, session: Session<'_>, policy: &Policy) -> bool {
        let now = mac.circumstances.now;
        let graded = mac.posture.grade_key(session.se_public_key, policy, now);
        self.se_key_bound = graded.grade;
        self.eligible_at = graded.eligible_at;
        if !policy.rules.hardware.key_binding {
            return true;
        }
        match graded.grade {
            KeyBinding::Bound => {
                let ends = [self.usable_until, graded.until];
                self.usable_until = ends.into_iter().flatten().min();
                return true;
            }
            KeyBinding::None => self.keep_down(Reason::BindingUnproved),
            KeyBinding::Mismatch => self.keep_down(Reason::KeyMismatch),
            KeyBinding::Pending | KeyBinding::Stale => self.keep_down(match graded.eligible_at {
                Some(_) => Reason::AppleRateLimit,
                None => Reason::AwaitingPush,
            }),
        }
        false
    }

    fn demand_channel(&mut self, mac: Option<Mac<'_>>, policy: &Policy) -> bool {
        let attested = mac.is_some_and(|mac| mac.channel == Channel::HardwareAttested);
        if mac.is_some() && !attested && policy.rules.hardware.attested_channel {
            self.keep_down(Reason::ChannelNotAttested);
            return false;
        }
        true
    }
}
