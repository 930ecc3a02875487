//! When one kind of evidence is asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Cause;
use crate::ids::{DeviceId, sha256};
use crate::posture::policy::Lifetime;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::{Kind, Part, Priority, Progress};

/// What is known of one kind, as far as the next question hangs on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// The age of the evidence that counts goes from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known_at: Option<Timestamp>,
    /// It does not count from here on, whatever the policy says: the leaf ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ends_at: Option<Timestamp>,
    /// It is taken for true until then, however old it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) true_until: Option<Timestamp>,
    /// There was evidence, and a negative voided it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) void: bool,
    /// Before this Apple would only repeat itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) eligible_at: Option<Timestamp>,
    /// The open attempt owes it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) asking: bool,
    /// Attempts in a row that brought nothing, and the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fruitless: Option<Fruitless>,
    /// Something happened because of which it is asked for earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted: Option<Wanted>,
}

/// Attempts that brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fruitless {
    pub times: u32,
    pub at: Timestamp,
    pub how: How,
}

/// How an attempt brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The Mac answered Error, or nothing could be learnt from its answer.
    Error,
    /// It could not answer then, and asks by itself when it can.
    NotNow,
    /// It was woken and did not come.
    Silence,
    /// Nobody could wake it: APNs, its certificate or the network is to blame.
    Unreached,
    /// Apple's statement was left out, or is not one that counts.
    Withheld,
}

/// An earlier question that something calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub from: Timestamp,
    pub cause: Cause,
}

/// When one kind is asked for, and how urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// From here on a Mac that connects by itself is asked.
    pub ripe_at: Timestamp,
    /// From here on it is woken for it.
    pub ask_at: Timestamp,
    /// As of `ask_at`.
    pub priority: Priority,
    /// When what is known counts no longer.
    expires_at: Option<Timestamp>,
}

impl Wish {
    /// How urgent it is at `now`, if that is later than it was due.
    pub fn priority_at(&self, now: Timestamp) -> Priority {
        if self.expires_at.is_some_and(|end| now >= end) {
            self.priority.min(Priority::Expired)
        } else {
            self.priority
        }
    }
}

impl How {
    /// How long nothing is asked after the attempt, from and to.
    ///
    /// First and expired proofs after errors: coordinator-and-standards A.5. A refresh that fails
    /// is less urgent, because what is known still counts. A Mac that is silent has the last push
    /// waiting for it at APNs, and is asked when it comes by itself. An attestation is tried again
    /// after hours (apple-protocol 5.4).
    fn pause(self, urgent: bool, times: u32) -> (Duration, Duration) {
        let minutes: [(u64, u64); 3] = match (self, urgent) {
            (Self::Error | Self::Unreached, true) => [(2, 4), (6, 12), (15, 30)],
            (Self::Error | Self::Unreached, false) => [(15, 30), (30, 60), (60, 120)],
            (Self::NotNow, _) => [(30, 60); 3],
            (Self::Silence, true) => [(15, 30), (60, 120), (180, 360)],
            (Self::Silence, false) => [(30, 60), (60, 120), (180, 360)],
            (Self::Withheld, _) => [(60, 120), (180, 360), (720, 1440)],
        };
        let nth = usize::try_from(times.saturating_sub(1)).unwrap_or(usize::MAX);
        let (from, to) = minutes[nth.min(minutes.len() - 1)];
        (Duration::from_secs(from * 60), Duration::from_secs(to * 60))
    }

    /// Whether a Mac that connects by itself shows that the cause is gone.
    fn ends_with_a_connection(self) -> bool {
        matches!(self, Self::NotNow | Self::Silence | Self::Unreached)
    }
}

impl Clock {
    /// How the kind's part in an attempt stands. `advanced` says whether evidence that counts came
    /// with it.
    pub(super) fn follow(&mut self, part: &Part, advanced: bool) {
        let awaited = part.progress.is_owed() && !part.is_put_off();
        // What is over is over once it was found to be.
        if awaited || part.ended_at.is_none() {
            self.asking |= awaited;
            return;
        }
        if !std::mem::take(&mut self.asking) {
            return;
        }
        let (Some(at), Some(how)) = (part.ended_at, outcome(part)) else {
            return;
        };
        self.fruitless = match (how, advanced) {
            (None, true) => None,
            (how, _) => {
                let how = how.unwrap_or(match part.kind {
                    Kind::SecurityInfo => How::Error,
                    Kind::Mda => How::Withheld,
                });
                // Attempts in which nobody could wake the Mac are not held against it.
                let before = self
                    .fruitless
                    .filter(|before| before.how != How::Unreached || how == How::Unreached);
                Some(Fruitless {
                    times: before.map_or(0, |before| before.times) + 1,
                    at,
                    how,
                })
            }
        };
    }

    /// Evidence that counts, as old as `at`.
    pub(super) fn know(&mut self, at: Timestamp, ends_at: Option<Timestamp>) {
        if self.known_at != Some(at) {
            self.true_until = None;
        }
        self.known_at = Some(at);
        self.ends_at = ends_at;
        self.void = false;
        if self.wanted.is_some_and(|wanted| at >= wanted.from) {
            self.wanted = None;
        }
        // Its answer came once its attempt was given up: the Mac is silent no more.
        let gone =
            |fruitless: &Fruitless| at > fruitless.at && fruitless.how.ends_with_a_connection();
        self.fruitless = self.fruitless.filter(|fruitless| !gone(fruitless));
    }

    /// The clock if the service, and not the Mac, was to blame for the silence, as of `now`; `None` where
    /// it would make no difference. The first silence after it is a first one.
    pub(super) fn without_silence(&self, now: Timestamp) -> Option<Self> {
        let is_more = |it: &Fruitless| it.how == How::Silence && (self.asking || it.times > 1);
        let silence = self.fruitless.filter(is_more)?;
        let once = Fruitless {
            times: 1,
            at: now,
            ..silence
        };
        Some(Self {
            fruitless: (!self.asking).then_some(once),
            ..self.clone()
        })
    }

    pub(super) fn stays_true(&mut self, until: Timestamp) {
        self.true_until = self.true_until.max(Some(until));
    }

    /// There is none that counts (any more).
    pub(super) fn forget(&mut self, void: bool) {
        self.known_at = None;
        self.ends_at = None;
        self.true_until = None;
        self.void = void;
    }

    pub(super) fn want(&mut self, cause: Cause, from: Timestamp) {
        // The later one stands: what is obtained between the two does not answer it.
        if self.wanted.is_none_or(|wanted| wanted.from < from) {
            self.wanted = Some(Wanted { from, cause });
        }
    }

    /// When it is asked for. `since` is when the Mac enrolled.
    pub(super) fn wish(
        &self,
        kind: Kind,
        device_id: &DeviceId,
        lifetime: &Lifetime,
        since: Timestamp,
    ) -> Wish {
        let expires_at = self.known_at.map(|at| {
            let usable_until = at.plus(lifetime.usable_for.0);
            self.ends_at
                .map_or(usable_until, |end| usable_until.min(end))
        });
        let (mut ripe_at, mut ask_at) = match (self.known_at, expires_at) {
            (Some(at), Some(expires_at)) => {
                let late = uniform(device_id, kind, at, lifetime.spread.0);
                let usual = at.plus(lifetime.ask_again.0 + late);
                // Early enough to try again before it expires.
                let at_last = expires_at.minus(lifetime.ask_again.0);
                let ask_at = self
                    .true_until
                    .map_or(usual, |until| usual.max(until.min(at_last)))
                    .min(expires_at);
                (ask_at.minus(ask_at.since(at) / 4), ask_at)
            }
            _ => (since, since),
        };
        let mut priority = None;
        if let Some(Wanted { from, cause }) = self.wanted {
            if from < ask_at {
                priority = Some(cause.priority());
            }
            ask_at = ask_at.min(from);
            ripe_at = ripe_at.min(from);
        }
        if let Some(Fruitless { times, at, how }) = self.fruitless {
            let urgent = expires_at.is_none_or(|end| at >= end);
            let (from, to) = how.pause(urgent, times);
            let until = at.plus(from + uniform(device_id, kind, at, to.saturating_sub(from)));
            ask_at = ask_at.max(until);
            if !how.ends_with_a_connection() {
                ripe_at = ripe_at.max(until);
            }
        }
        if let Some(eligible_at) = self.eligible_at {
            ask_at = ask_at.max(eligible_at);
            ripe_at = ripe_at.max(eligible_at);
        }
        let by_age = match expires_at {
            None if self.void => Priority::Expired,
            None => Priority::First,
            Some(end) if ask_at >= end => Priority::Expired,
            Some(_) => Priority::Refresh,
        };
        Wish {
            ripe_at,
            ask_at,
            priority: priority.map_or(by_age, |called_for| by_age.min(called_for)),
            expires_at,
        }
    }
}

/// `None`: the part says nothing of the Mac. `Some(None)`: it was answered as it should be.
fn outcome(part: &Part) -> Option<Option<How>> {
    let withheld = |kind| match kind {
        Kind::Mda => How::Withheld,
        Kind::SecurityInfo => How::Error,
    };
    match part.progress {
        // A cached statement may be the newest there can be; whether it is says its age.
        Progress::Answered => match part.reason {
            None | Some(Reason::AttestationCached) => Some(None),
            Some(_) => Some(Some(withheld(part.kind))),
        },
        Progress::Failed if part.reason == Some(Reason::AttestationUnavailable) => {
            Some(Some(How::Withheld))
        }
        Progress::Failed => Some(Some(How::Error)),
        Progress::TimedOut => Some(Some(match part.reason {
            Some(Reason::NotNow) => How::NotNow,
            Some(Reason::ServiceDegraded | Reason::PushThrottled) => How::Unreached,
            _ => How::Silence,
        })),
        _ => None,
    }
}

/// A time up to `most`, another one for each Mac, kind and round, and the same one each time it is
/// computed: the first 8 bytes of a SHA-256 as a share of `most`.
fn uniform(device_id: &DeviceId, kind: Kind, round: Timestamp, most: Duration) -> Duration {
    let mut input = Vec::with_capacity(64);
    input.extend_from_slice(device_id.as_str().as_bytes());
    input.extend_from_slice(kind.as_str().as_bytes());
    input.extend_from_slice(&round.millis().to_be_bytes());
    let hash = sha256(&input);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    let share = u128::from(u64::from_be_bytes(first));
    let millis = (most.as_millis().saturating_mul(share)) >> 64;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
