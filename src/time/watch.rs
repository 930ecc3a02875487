//! Whether the clock can be believed.
//!
//! Everything good that is said ends at an absolute time, so a clock that is set back gives ended
//! evidence its life again, and one that leaps ahead dates what arrives then into the future. The wall
//! clock is therefore watched against a steady one, and against the latest time that was ever shown
//! here or stored by anybody: while it cannot be, questions about trust are not answered
//! (coordinator-and-standards C.3, "clock jump").
//!
//! A clock that time servers slew is never noticed. One that leaps ahead (a machine that was suspended,
//! or a correction) is believed once it has stood there for half a minute. One behind what was seen is
//! believed when it has caught up, or when an operator says that it is right.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Timestamp;

/// How far apart the clocks of two nodes may be, and how far one may be set back, unnoticed: less than
/// anything here is measured by.
pub const CLOCKS_APART: Duration = Duration::from_secs(10);
/// It leaps when it gains more than this between two looks.
const LEAP: Duration = Duration::from_secs(60);
/// A leap is believed after the clock has stood there for this long.
const SETTLES_IN: Duration = Duration::from_secs(30);

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It shows an earlier time than was shown or stored before.
    Behind { newest: Timestamp },
    /// It went further than time did, and is believed if it stays there until `settles_at`, by itself.
    Leapt { by: Duration, settles_at: Timestamp },
}

/// The latest time that was believed, as nodes tell each other and themselves after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Rises each time that an operator says that the clock is right: times of before count no more.
    pub accepted: u64,
    pub newest: Timestamp,
}

/// Watches one clock.
#[derive(Debug)]
pub struct ClockWatch(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    mark: Mark,
    /// How far the wall clock was ahead of the steady one, milliseconds.
    lead: i64,
    leap: Option<Leap>,
    /// Whether it was said that there is trouble.
    told: bool,
}

#[derive(Debug, Clone, Copy)]
struct Leap {
    /// The lead before it.
    from: i64,
    /// Steady milliseconds.
    until: i64,
}

impl Trouble {
    /// The published word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "clock_behind",
            Self::Leapt { .. } => "clock_leapt",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { newest } => write!(f, "the clock is behind {newest}, which was before"),
            Self::Leapt { by, settles_at } => write!(
                f,
                "the clock leapt ahead by {} s and is believed at {settles_at}, if it stays there",
                by.as_secs()
            ),
        }
    }
}

impl ClockWatch {
    /// Begins to watch, `steady` after some beginning of its own.
    pub fn begin(now: Timestamp, steady: Duration) -> Self {
        let mark = Mark {
            accepted: 0,
            newest: now,
        };
        Self(Mutex::new(Seen {
            mark,
            lead: now.millis().saturating_sub(millis(steady)),
            leap: None,
            told: false,
        }))
    }

    /// Looks at both clocks: why the wall clock is not believed, if so.
    pub fn look(&self, now: Timestamp, steady: Duration) -> Option<Trouble> {
        self.seen().look(now, millis(steady))
    }

    /// What is to be told to others, while the clock is believed.
    pub fn mark(&self, now: Timestamp, steady: Duration) -> Option<Mark> {
        let mut seen = self.seen();
        match seen.look(now, millis(steady)) {
            None => Some(seen.mark),
            Some(_) => None,
        }
    }

    /// Learns what others told, or this node before it was started again.
    pub fn learn(&self, told: Mark) {
        let mut seen = self.seen();
        if told.accepted > seen.mark.accepted {
            seen.mark = told;
            seen.leap = None;
        } else if told.accepted == seen.mark.accepted {
            seen.mark.newest = seen.mark.newest.max(told.newest);
        }
    }

    /// An operator says that it is `now`, whatever was seen before.
    pub fn accept(&self, now: Timestamp, steady: Duration) -> Mark {
        let mut seen = self.seen();
        seen.mark = Mark {
            accepted: seen.mark.accepted.saturating_add(1),
            newest: now,
        };
        seen.lead = now.millis().saturating_sub(millis(steady));
        seen.leap = None;
        seen.mark
    }

    /// Whether it is news that there is trouble, or that there is none any more.
    pub fn is_news(&self, trouble: bool) -> bool {
        std::mem::replace(&mut self.seen().told, trouble) != trouble
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn look(&mut self, now: Timestamp, steady: i64) -> Option<Trouble> {
        let lead = now.millis().saturating_sub(steady);
        let leaps =
            lead.saturating_sub(self.lead) > millis(LEAP) && now.since(self.mark.newest) > LEAP;
        if leaps {
            self.leap = Some(Leap {
                from: self.leap.map_or(self.lead, |leap| leap.from),
                until: steady.saturating_add(millis(SETTLES_IN)),
            });
        }
        self.lead = lead;
        self.leap = self
            .leap
            .filter(|leap| steady < leap.until && lead.saturating_sub(leap.from) > millis(LEAP));
        if let Some(leap) = self.leap {
            let ms = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            return Some(Trouble::Leapt {
                by: ms(lead.saturating_sub(leap.from)),
                settles_at: now.plus(ms(leap.until.saturating_sub(steady))),
            });
        }
        if now.plus(CLOCKS_APART) < self.mark.newest {
            return Some(Trouble::Behind {
                newest: self.mark.newest,
            });
        }
        self.mark.newest = self.mark.newest.max(now);
        None
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-10-01T09:30:07Z and so many seconds.
    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_790_847_007 + seconds)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn watch() -> ClockWatch {
        ClockWatch::begin(at(0), seconds(500))
    }

    /// What is seen, look after look: wall clock and steady clock since the beginning, and the word.
    fn story(looks: &[(i64, u64, &str)]) {
        let watch = watch();
        for (number, (wall, steady, expected)) in looks.iter().enumerate() {
            let seen = watch.look(at(*wall), seconds(500 + steady));
            let word = seen.map_or("", |trouble| trouble.as_str());
            assert_eq!(word, *expected, "look {number} of {looks:?}");
        }
    }

    #[test]
    fn time_that_passes_and_clocks_that_are_slewed_are_no_trouble() {
        story(&[
            (1, 1, ""),
            (3_600, 3_600, ""),
            (86_400 * 30, 86_400 * 30, ""),
        ]);
        // Half a second a minute, in both directions, for an hour each.
        let watch = watch();
        for minute in 1..=120_u64 {
            let drift = i64::try_from(minute.min(120 - minute)).expect("small") / 2;
            let wall = i64::try_from(60 * minute).expect("small") + drift;
            assert_eq!(watch.look(at(wall), seconds(500 + 60 * minute)), None);
        }
        // A step of a few seconds, as a time server makes it after a start.
        story(&[(8, 1, ""), (0, 2, ""), (59, 3, "")]);
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed_when_it_has_caught_up() {
        let looks = [
            (1_000, 1_000, ""),
            (989, 1_001, "clock_behind"),
            (989, 1_001, "clock_behind"),
            (990, 1_002, ""),
            (-5_000, 1_003, "clock_behind"),
            (-4_000, 2_003, "clock_behind"),
            (990, 6_993, ""),
        ];
        story(&looks);
        // Set right again: that is a leap, too, if it goes beyond what was seen before.
        story(&[
            (1_000, 1_000, ""),
            (0, 1_010, "clock_behind"),
            (1_020, 1_020, ""),
        ]);
        story(&[
            (1_000, 1_000, ""),
            (0, 1_500, "clock_behind"),
            (2_000, 2_000, "clock_leapt"),
            (2_030, 2_030, ""),
        ]);
    }

    #[test]
    fn a_leap_is_believed_after_half_a_minute_and_forgotten_when_it_is_undone() {
        // A machine that was suspended for eight hours.
        let leap = 8 * 3_600;
        story(&[
            (10, 10, ""),
            (leap, 11, "clock_leapt"),
            (leap + 29, 40, "clock_leapt"),
            (leap + 30, 41, ""),
            (leap + 31, 42, ""),
        ]);
        // Nothing of it is left when it was an error of some seconds.
        story(&[
            (10, 10, ""),
            (leap, 11, "clock_leapt"),
            (30, 30, ""),
            (31, 31, ""),
        ]);
        // From one leap to the next it is not believed.
        story(&[
            (10, 10, ""),
            (leap, 11, "clock_leapt"),
            (2 * leap, 40, "clock_leapt"),
            (2 * leap + 2, 42, "clock_leapt"),
        ]);
        let watch = watch();
        let seen = watch.look(at(3_600), seconds(501));
        let expected = Trouble::Leapt {
            by: seconds(3_599),
            settles_at: at(3_630),
        };
        assert_eq!(seen, Some(expected));
        assert_eq!(watch.mark(at(3_600), seconds(501)), None);
    }

    #[test]
    fn what_others_stored_counts_until_an_operator_says_otherwise() {
        let watch = watch();
        let newest = at(100);
        watch.learn(Mark {
            accepted: 0,
            newest,
        });
        assert_eq!(
            watch.look(at(1), seconds(501)),
            Some(Trouble::Behind { newest })
        );
        assert_eq!(watch.look(at(90), seconds(590)), None);

        watch.learn(Mark {
            accepted: 0,
            newest: at(9_999_999),
        });
        assert_eq!(watch.mark(at(91), seconds(591)), None);
        let accepted = watch.accept(at(92), seconds(592));
        assert_eq!(
            accepted,
            Mark {
                accepted: 1,
                newest: at(92)
            }
        );
        // What was stored before is not learnt again; what another accepted is.
        watch.learn(Mark {
            accepted: 0,
            newest: at(9_999_999),
        });
        assert_eq!(
            watch.mark(at(93), seconds(593)),
            Some(Mark {
                accepted: 1,
                newest: at(93)
            })
        );
        watch.learn(Mark {
            accepted: 2,
            newest: at(50),
        });
        assert_eq!(watch.look(at(60), seconds(594)), None);
    }

    #[test]
    fn trouble_is_news_once() {
        let watch = watch();
        assert_eq!(
            [false, true, true, false, false].map(|is| watch.is_news(is)),
            [false, true, false, true, false]
        );
    }
}
