//! How many pushes leave within any second.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the pushes of the last second: exact for any second there is, whatever came before. A
/// bucket that fills while nothing is sent would let twice as many through at once.
#[derive(Debug)]
pub struct Rate {
    per_second: usize,
    /// When the last ones left, the oldest first; at most `per_second`.
    left_at: VecDeque<Timestamp>,
}

impl Rate {
    /// At most so many within any second.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            per_second: usize::try_from(per_second.get()).unwrap_or(usize::MAX),
            left_at: VecDeque::new(),
        }
    }

    /// When the next push may leave; `None`: now.
    pub fn free_from(&self, now: Timestamp) -> Option<Timestamp> {
        if self.left_at.len() < self.per_second {
            return None;
        }
        let free = self.left_at.front()?.plus(SECOND);
        // A clock that was set back must not hold pushes up until it has caught up.
        (free > now && free <= now.plus(SECOND)).then_some(free)
    }

    /// A push leaves.
    pub fn leave(&mut self, now: Timestamp) {
        if self.left_at.len() >= self.per_second {
            self.left_at.pop_front();
        }
        self.left_at.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_its_share_however_long_nothing_was_sent() {
        let mut rate = Rate::new(NonZeroU32::new(50).expect("not zero"));
        let mut sent = Vec::new();
        // An idle hour, then as many as possible in steps of 7 ms for 10 s.
        for step in 0..1_430_i64 {
            let now = Timestamp::from_millis(3_600_000 + step * 7);
            while rate.free_from(now).is_none() {
                rate.leave(now);
                sent.push(now);
            }
        }
        for (index, at) in sent.iter().enumerate() {
            let second = sent[index..]
                .iter()
                .take_while(|later| later.since(*at) < SECOND)
                .count();
            assert!(second <= 50, "{second} within the second from {at}");
        }
        assert!(sent.len() >= 500, "{} in ten seconds", sent.len());
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let mut rate = Rate::new(NonZeroU32::MIN);
        rate.leave(Timestamp::from_seconds(10_000));
        assert!(rate.free_from(Timestamp::from_seconds(10_000)).is_some());
        assert_eq!(rate.free_from(Timestamp::from_seconds(5)), None);
    }
}
