//! When a Mac may be woken for a verification.
//!
//! Apple publishes no budget for pushes to one token; it answers 429 to who sends too many
//! (apple-protocol 9.1, 9.2). So pushes are few, and what was refused is tried again after a pause
//! that grows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Progress, Verification};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A Mac that was woken this recently is not woken again: it is about to connect.
const QUIET: Duration = Duration::from_secs(60);

/// A Mac that owes an answer and did not come is woken again after this long: twice within the usual
/// patience of an hour.
const AGAIN: Duration = Duration::from_secs(20 * 60);

/// Pushes that were not accepted, since the last one that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    pub reason: Reason,
    /// When the last of them ended.
    pub at: Timestamp,
    pub times: u32,
}

impl Unreached {
    /// Until when nothing is pushed: twice as long each time.
    fn until(&self) -> Timestamp {
        let (first, most) = match self.reason {
            Reason::PushThrottled => (Duration::from_secs(2 * 60), AGAIN),
            // Only another TokenUpdate helps, and that ends the pause.
            Reason::PushTokenInvalid => (AGAIN, AGAIN),
            _ => (Duration::from_secs(15), Duration::from_secs(5 * 60)),
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.times.saturating_sub(1)));
        self.at.plus(doubled.min(most))
    }
}

impl Verification {
    /// APNs accepted a push that asks for what is due.
    pub fn pushed(&mut self, now: Timestamp) {
        self.unreached = None;
        for part in &mut self.parts {
            if part.is_due(now) {
                if matches!(part.progress, Progress::Queued | Progress::Deferred) {
                    part.progress = Progress::Pushed;
                }
                part.pushed_at = Some(now);
                part.reason = None;
            }
        }
    }

    /// The push was not accepted; says why beside what is due.
    pub fn not_pushed(&mut self, reason: Reason, now: Timestamp) {
        let times = self.unreached.map_or(0, |unreached| unreached.times);
        self.unreached = Some(Unreached {
            reason,
            at: now,
            times: times.saturating_add(1),
        });
        for part in &mut self.parts {
            if part.is_due(now) {
                part.reason = Some(reason);
            }
        }
    }

    /// The Mac has a new address: what was sent to the former one may never arrive.
    pub fn readdressed(&mut self) {
        self.unreached = None;
        for part in &mut self.parts {
            part.pushed_at = None;
        }
    }

    /// When APNs last accepted a push for it.
    pub fn last_pushed_at(&self) -> Option<Timestamp> {
        self.parts.iter().filter_map(|part| part.pushed_at).max()
    }

    /// Whether the Mac may be woken now that somebody asks for it.
    pub fn may_push(&self, now: Timestamp) -> bool {
        let paused = self
            .unreached
            .is_some_and(|unreached| now < unreached.until());
        let quiet = self
            .last_pushed_at()
            .is_some_and(|at| now.since(at) < QUIET);
        self.owes(now) && !paused && !quiet
    }

    /// Whether the Mac is to be woken although nobody asks.
    pub fn push_is_due(&self, now: Timestamp) -> bool {
        self.may_push(now)
            && self
                .last_pushed_at()
                .is_none_or(|at| now.since(at) >= AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Priority, Request};
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::ids::{DeviceId, VerificationId};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn open() -> Verification {
        let entropy = SeededEntropy::new(3);
        let request = Request {
            kinds: vec![Kind::SecurityInfo],
            priority: Priority::First,
            occasion: String::new(),
            patience: Duration::from_secs(24 * 60 * 60),
        };
        let verification_id = VerificationId::new(at(0), &entropy);
        Verification::start(
            verification_id,
            DeviceId::new(at(0), &entropy),
            &request,
            at(0),
        )
    }

    #[test]
    fn one_push_a_minute_when_asked_and_one_in_twenty_by_itself() {
        let mut verification = open();
        assert!(verification.may_push(at(0)) && verification.push_is_due(at(0)));
        verification.pushed(at(0));
        assert!(!verification.may_push(at(59)) && verification.may_push(at(60)));
        assert!(!verification.push_is_due(at(1199)) && verification.push_is_due(at(1200)));
    }

    #[test]
    fn what_was_refused_waits_longer_each_time() {
        for (reason, pauses) in [
            (Reason::PushThrottled, [120, 240, 480, 960, 1200, 1200]),
            (Reason::ServiceDegraded, [15, 30, 60, 120, 240, 300]),
            (Reason::PushTokenInvalid, [1200; 6]),
        ] {
            let mut verification = open();
            let mut now = 0;
            for pause in pauses {
                verification.not_pushed(reason, at(now));
                assert!(
                    !verification.may_push(at(now + pause - 1)),
                    "{reason:?} {pause}"
                );
                now += pause;
                assert!(verification.may_push(at(now)), "{reason:?} {pause}");
            }
            verification.not_pushed(reason, at(now));
            verification.pushed(at(now));
            assert!(verification.may_push(at(now + 60)), "{reason:?}");
        }
    }

    #[test]
    fn a_new_address_is_pushed_to_at_once() {
        let mut verification = open();
        verification.pushed(at(0));
        verification.readdressed();
        assert!(verification.push_is_due(at(1)));
        verification.not_pushed(Reason::PushTokenInvalid, at(1));
        verification.readdressed();
        assert!(verification.push_is_due(at(2)));
    }
}
