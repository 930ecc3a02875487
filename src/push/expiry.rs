//! When a push certificate is told to be expiring: often enough that nobody forgets, each time once.

use std::time::Duration;

use crate::time::Timestamp;

/// So many days before its end, and less.
pub const TOLD_AT: [u16; 6] = [60, 30, 14, 7, 3, 1];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whole days until `not_after`; none after it.
pub fn days_left(not_after: Timestamp, now: Timestamp) -> u64 {
    not_after.since(now).as_secs() / DAY.as_secs()
}

/// Which of [`TOLD_AT`] is to be told now, if `told` was told last. Steps that passed unseen are not
/// told one after the other: the nearest is. Nothing is told of one that expired: that is trouble, and
/// no warning.
pub fn due(not_after: Timestamp, now: Timestamp, told: Option<u16>) -> Option<u16> {
    if not_after < now {
        return None;
    }
    let left = not_after.since(now);
    let reached = TOLD_AT
        .into_iter()
        .filter(|days| left <= DAY * u32::from(*days))
        .min()?;
    (told.is_none_or(|told| reached < told)).then_some(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    /// So many days and seconds before the end.
    fn before(days: u32, seconds: u64) -> Timestamp {
        end().minus(DAY * days + Duration::from_secs(seconds))
    }

    #[test]
    fn each_day_is_told_once_from_the_moment_it_is_reached() {
        let mut told = None;
        for days in TOLD_AT {
            assert_eq!(due(end(), before(days.into(), 1), told), None, "{days}");
            assert_eq!(due(end(), before(days.into(), 0), told), Some(days));
            told = Some(days);
            assert_eq!(due(end(), before(days.into(), 0), told), None);
        }
        assert_eq!(due(end(), end(), told), None);
    }

    #[test]
    fn what_passed_unseen_is_told_as_one() {
        assert_eq!(due(end(), before(20, 0), None), Some(30));
        assert_eq!(due(end(), before(2, 0), Some(30)), Some(3));
        assert_eq!(due(end(), before(0, 1), None), Some(1));
        assert_eq!(due(end(), end(), Some(3)), Some(1));
        let late = end().plus(Duration::from_millis(1));
        assert_eq!(due(end(), late, None), None);
    }

    #[test]
    fn a_clock_that_goes_back_tells_nothing_again() {
        assert_eq!(due(end(), before(25, 0), Some(14)), None);
    }

    #[test]
    fn days_are_whole_and_never_negative() {
        assert_eq!(days_left(end(), before(1, 0)), 1);
        assert_eq!(days_left(end(), before(0, 86_399)), 0);
        assert_eq!(days_left(end(), end().plus(DAY)), 0);
    }
}
