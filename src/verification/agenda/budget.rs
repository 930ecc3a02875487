//! When a Mac may be woken: a budget of its own, whoever asks.
//!
//! Apple publishes no budget for pushes to one token; it answers 429 to who sends too many
//! (apple-protocol 9.1, 9.2), and two or three an hour is what was seen to get through
//! (coordinator-and-standards A.15). So pushes are few, counted over everything that is asked of the
//! Mac, and what was refused is tried again after a pause that grows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::time::Timestamp;

/// A Mac that was woken this recently, and did not come yet, is not woken again: it is about to.
pub const QUIET: Duration = Duration::from_secs(60);

/// A Mac that owes an answer and did not come is woken again after this long: twice within the usual
/// patience of an hour.
pub const AGAIN: Duration = Duration::from_secs(20 * 60);

/// A Mac that said NotNow asks by itself when it can (apple-protocol 3.3); it is woken only in case
/// it does not.
pub const AFTER_NOT_NOW: Duration = Duration::from_secs(30 * 60);

/// Who took a Mac to wake it, and was not heard of for this long, is gone.
pub const LEASE: Duration = Duration::from_secs(3 * 60);

/// The budget rolls over this long.
pub const WINDOW: Duration = Duration::from_secs(60 * 60);

/// Pushes that were not accepted, since the last one that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    pub reason: Reason,
    /// When the last of them ended.
    pub at: Timestamp,
    pub times: u32,
}

/// The pushes of one Mac.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pushes {
    /// Those that may have reached the Mac, the oldest first; only as many as the budget looks at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent: Vec<Timestamp>,
    /// The last of them is on its way: nobody knows yet what became of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    under_way: bool,
    /// The Mac connected after the last of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    came: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreached: Option<Unreached>,
    /// The Mac has another address since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    readdressed_at: Option<Timestamp>,
    /// One more push was granted then.
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_at: Option<Timestamp>,
}

/// What holds a push back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub until: Timestamp,
    /// `None`: it was woken just now, and is about to connect.
    pub reason: Option<Reason>,
}

impl Unreached {
    /// Until when nothing is pushed: twice as long each time.
    fn until(&self) -> Timestamp {
        let (first, most) = match self.reason {
            Reason::PushThrottled => (Duration::from_secs(2 * 60), AGAIN),
            // Only another TokenUpdate helps, and that ends the pause.
            Reason::PushTokenInvalid => (AGAIN, AGAIN),
            _ => (Duration::from_secs(15), Duration::from_secs(60)),
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.times.saturating_sub(1)));
        self.at.plus(doubled.min(most))
    }
}

impl Pushes {
    /// A push is about to be sent. It counts from now on, so that nobody else sends one.
    pub fn begin(&mut self, per_hour: u32, now: Timestamp) {
        self.sent.push(now);
        self.under_way = true;
        self.came = false;
        let looked_at = looked_at(per_hour);
        let surplus = self.sent.len().saturating_sub(looked_at);
        self.sent.drain(..surplus);
    }

    /// The Mac connected: what it was woken for it has heard.
    pub fn came(&mut self) {
        self.came = true;
    }

    /// APNs took it.
    pub fn accepted(&mut self) {
        self.under_way = false;
        self.unreached = None;
    }

    /// It was not taken. `lost` says that it may have been delivered all the same: then it counts.
    pub fn refused(&mut self, reason: Reason, lost: bool, now: Timestamp) {
        if self.under_way && !lost {
            self.sent.pop();
        }
        self.under_way = false;
        let times = self.unreached.map_or(0, |unreached| unreached.times);
        self.unreached = Some(Unreached {
            reason,
            at: now,
            times: times.saturating_add(1),
        });
    }

    /// The Mac has a new address: what was sent to the former one may never arrive, so the last push
    /// is not counted. Once in two hours, so that no hour has two more than the budget.
    pub fn readdressed(&mut self, now: Timestamp) {
        self.unreached = None;
        self.readdressed_at = Some(now);
        let counts = self.sent.last().is_some_and(|at| now.since(*at) < WINDOW);
        let granted = self.extra_at.is_some_and(|at| now.since(at) < 2 * WINDOW);
        if counts && !granted {
            self.sent.pop();
            self.under_way = false;
            self.extra_at = Some(now);
        }
    }

    /// When a push last left for the address the Mac has now.
    fn last(&self) -> Option<Timestamp> {
        let last = self.sent.last().copied()?;
        self.readdressed_at
            .is_none_or(|since| last >= since)
            .then_some(last)
    }

    /// Those that the budget counts at this time.
    pub fn counted(&self, now: Timestamp) -> usize {
        let counts = |at: &&Timestamp| now.since(**at) < WINDOW;
        self.sent.iter().filter(counts).count()
    }

    /// The first time at which the budget allows another push; `None`: at any time.
    pub fn allowed_from(&self, per_hour: u32) -> Option<Timestamp> {
        let budget = usize::try_from(per_hour).unwrap_or(usize::MAX);
        let full = self.sent.len().checked_sub(budget)?;
        self.sent.get(full).map(|at| at.plus(WINDOW))
    }

    /// The first time at which the Mac may be woken if somebody asks for it; `None`: at any time.
    pub fn open_from(&self, per_hour: u32) -> Option<Timestamp> {
        let quiet = if self.under_way { LEASE } else { QUIET };
        let quiet = self.last().filter(|_| !self.came).map(|at| at.plus(quiet));
        [quiet, self.paused_until(), self.allowed_from(per_hour)]
            .into_iter()
            .flatten()
            .max()
    }

    /// The first time at which a Mac that was woken, and owes an answer still, is woken again.
    pub fn again_from(&self, per_hour: u32, said_not_now: bool) -> Option<Timestamp> {
        let pause = if said_not_now { AFTER_NOT_NOW } else { AGAIN };
        let again = self.last().filter(|_| !self.under_way);
        again.map(|at| at.plus(pause)).max(self.open_from(per_hour))
    }

    /// Whether the Mac was woken just now and is about to connect.
    pub fn is_expected(&self, now: Timestamp) -> bool {
        let within = if self.under_way { LEASE } else { QUIET };
        let since = self
            .last()
            .filter(|_| !self.came && self.unreached.is_none());
        since.is_some_and(|at| now.since(at) < within)
    }

    /// What keeps the Mac from being woken now.
    pub fn held(&self, per_hour: u32, now: Timestamp) -> Option<Hold> {
        let until = self.open_from(per_hour).filter(|until| *until > now)?;
        let reason = if self.allowed_from(per_hour) == Some(until) {
            Some(Reason::PushThrottled)
        } else if self.paused_until() == Some(until) {
            self.unreached.map(|unreached| unreached.reason)
        } else {
            None
        };
        Some(Hold { until, reason })
    }

    fn paused_until(&self) -> Option<Timestamp> {
        self.unreached.as_ref().map(Unreached::until)
    }
}

/// One more than the budget, for the one that may yet be refused.
fn looked_at(per_hour: u32) -> usize {
    usize::try_from(per_hour)
        .unwrap_or(usize::MAX)
        .saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn pushed(times: &[u64]) -> Pushes {
        let mut pushes = Pushes::default();
        for seconds in times {
            pushes.begin(2, at(*seconds));
            pushes.accepted();
        }
        pushes
    }

    #[test]
    fn one_push_a_minute_when_asked_one_in_twenty_by_itself_and_two_an_hour() {
        let pushes = pushed(&[0]);
        assert_eq!(pushes.open_from(2), Some(at(60)));
        assert_eq!(pushes.again_from(2, false), Some(at(1200)));
        assert_eq!(pushes.again_from(2, true), Some(at(1800)));
        let pushes = pushed(&[0, 1200]);
        assert_eq!(pushes.open_from(2), Some(at(3600)));
        assert_eq!(pushes.again_from(2, false), Some(at(3600)));
        let hold = pushes.held(2, at(3599)).expect("held");
        assert_eq!(hold.reason, Some(Reason::PushThrottled));
        assert_eq!(pushes.held(2, at(3600)), None);
        // The budget rolls: at 3,600 the first is forgotten, the second is not.
        let pushes = pushed(&[0, 1200, 3600]);
        assert_eq!(pushes.open_from(2), Some(at(1200 + 3600)));
    }

    #[test]
    fn what_was_refused_waits_longer_each_time_and_costs_nothing_of_the_budget() {
        for (reason, pauses) in [
            (Reason::PushThrottled, [120, 240, 480, 960, 1200, 1200]),
            (Reason::ServiceDegraded, [15, 30, 60, 60, 60, 60]),
            (Reason::PushTokenInvalid, [1200; 6]),
        ] {
            let mut pushes = Pushes::default();
            let mut now = 0;
            for pause in pauses {
                pushes.begin(2, at(now));
                pushes.refused(reason, false, at(now));
                assert_eq!(pushes.open_from(2), Some(at(now + pause)), "{reason:?}");
                assert_eq!(
                    pushes.held(2, at(now)).and_then(|hold| hold.reason),
                    Some(reason)
                );
                now += pause;
            }
            pushes.begin(2, at(now));
            pushes.accepted();
            assert_eq!(pushes.open_from(2), Some(at(now + 60)), "{reason:?}");
        }
    }

    #[test]
    fn what_may_have_been_delivered_counts() {
        let mut pushes = pushed(&[0]);
        pushes.begin(2, at(100));
        pushes.refused(Reason::ServiceDegraded, true, at(130));
        assert_eq!(pushes.allowed_from(2), Some(at(3600)));
    }

    #[test]
    fn whoever_was_woken_just_now_is_expected_until_it_came() {
        let mut pushes = Pushes::default();
        assert!(!pushes.is_expected(at(0)));
        pushes.begin(2, at(0));
        assert!(pushes.is_expected(at(179)) && !pushes.is_expected(at(180)));
        pushes.accepted();
        assert!(pushes.is_expected(at(59)) && !pushes.is_expected(at(60)));
        pushes.came();
        assert!(!pushes.is_expected(at(1)));
        pushes.begin(2, at(100));
        pushes.refused(Reason::ServiceDegraded, true, at(101));
        assert!(!pushes.is_expected(at(102)));
    }

    #[test]
    fn a_push_that_nobody_concluded_is_made_up_for_once_its_lease_ran_out() {
        let mut pushes = Pushes::default();
        pushes.begin(2, at(0));
        assert_eq!(pushes.again_from(2, false), Some(at(180)));
    }

    #[test]
    fn a_new_address_is_pushed_to_at_once_and_only_once_more_than_the_budget() {
        let mut pushes = pushed(&[0, 600]);
        pushes.readdressed(at(660));
        assert_eq!(pushes.held(2, at(660)), None);
        pushes.begin(2, at(660));
        pushes.accepted();
        for again in [700, 800] {
            pushes.readdressed(at(again));
            assert_eq!(pushes.open_from(2), Some(at(3600)), "{again}");
        }
        // Two hours after it was granted it may be granted again.
        let mut pushes = pushed(&[7_000, 7_100]);
        pushes.extra_at = Some(at(660));
        pushes.readdressed(at(7_859));
        assert!(pushes.held(2, at(7_859)).is_some());
        pushes.readdressed(at(7_860));
        assert_eq!(pushes.held(2, at(7_860)), None);
    }

    #[test]
    fn a_dead_address_is_left_alone_until_there_is_another() {
        let mut pushes = Pushes::default();
        pushes.begin(2, at(0));
        pushes.refused(Reason::PushTokenInvalid, false, at(1));
        assert!(pushes.held(2, at(2)).is_some());
        pushes.readdressed(at(2));
        assert_eq!(pushes.held(2, at(2)), None);
    }
}
