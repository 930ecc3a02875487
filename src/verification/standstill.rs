//! Whether what must move does: answers of Macs are judged, events are read, background work comes to
//! its end. Silence looks like peace, so somebody has to measure it.

use std::time::Duration;

use super::agenda::Rules;
use crate::time::Timestamp;

/// So many Macs are not all asleep for as long as one may be.
pub const MANY: usize = 10;

/// An event that is read is read within this.
const EVENTS: Duration = Duration::from_secs(2 * 60);

/// What stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standstill {
    /// No answer of a Mac was judged for longer than their evidence may wait to be renewed.
    Verdicts,
    /// Whoever follows events on this node hears nothing, though there are some.
    Events,
    /// Background work of this node does not come to the end of a run.
    Worker,
}

impl Standstill {
    pub const ALL: [Self; 3] = [Self::Verdicts, Self::Events, Self::Worker];

    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verdicts => "verdicts_stand_still",
            Self::Events => "events_stand_still",
            Self::Worker => "worker_silent",
        }
    }
}

/// What is seen of verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdicts {
    /// How many Macs have been enrolled for longer than [`patience`]; counting ends at [`MANY`].
    pub enrolled: usize,
    /// When an answer was judged last, on any node; or since when there is somebody to judge.
    pub moved_at: Timestamp,
}

/// How long no verdict may move. Of many Macs some answer whenever they are due: their SecurityInfo is
/// asked for again, the whole spread later at most, and an attempt has its patience. Few may all be
/// switched off; of them it is told when the last evidence has ended.
pub fn patience(rules: &Rules, enrolled: usize) -> Duration {
    let lifetime = &rules.security_info;
    let renewed = lifetime.ask_again.0 + lifetime.spread.0 + rules.patience;
    if enrolled < MANY {
        lifetime.usable_for.0.max(renewed)
    } else {
        renewed
    }
}

/// Whether verdicts stand still.
pub fn of_verdicts(seen: Verdicts, rules: &Rules, now: Timestamp) -> bool {
    seen.enrolled > 0 && now.since(seen.moved_at) > patience(rules, seen.enrolled)
}

/// Whether events stand still, of which the first that nobody read is so old.
pub fn of_events(unread_for: Option<Duration>) -> bool {
    unread_for.is_some_and(|unread_for| unread_for > EVENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn stands(enrolled: usize, silence: Duration) -> bool {
        let now = Timestamp::from_seconds(1_800_000_000);
        let seen = Verdicts {
            enrolled,
            moved_at: now.minus(silence),
        };
        of_verdicts(seen, &Rules::usual(), now)
    }

    #[test]
    fn many_macs_are_silent_for_less_time_than_a_few_and_nobody_for_ever() {
        // 48 minutes, up to 24 more, and an hour to answer.
        let renewed = 132 * MINUTE;
        for (enrolled, longest) in [
            (1, 24 * 60 * MINUTE),
            (MANY - 1, 24 * 60 * MINUTE),
            (MANY, renewed),
        ] {
            assert!(!stands(enrolled, longest), "{enrolled}");
            assert!(stands(enrolled, longest + MINUTE), "{enrolled}");
        }
        assert!(!stands(0, 1000 * 24 * 60 * MINUTE));
    }

    #[test]
    fn a_policy_that_asks_seldom_is_waited_for() {
        let mut rules = Rules::usual();
        rules.security_info.ask_again.0 = 48 * 60 * MINUTE;
        assert!(patience(&rules, 1) > 48 * 60 * MINUTE);
    }

    #[test]
    fn events_that_nobody_follows_need_not_be_read() {
        assert!(!of_events(None));
        assert!(!of_events(Some(EVENTS)));
        assert!(of_events(Some(EVENTS + MINUTE)));
    }
}
