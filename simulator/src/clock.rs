//! The time of the simulated world, in milliseconds since 1970 UTC.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds in one day: the unit of Apple's attestation rules.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What time it is in the simulated world.
///
/// A clone of a clock is the same clock: moving one moves all.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// `None` follows the system clock; otherwise the time as it was set.
    fixed: Option<Arc<AtomicI64>>,
    /// Added to either, so that a single Mac can run fast or slow (apple-protocol 12.15).
    skew_ms: i64,
}

impl Clock {
    /// The system clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now_ms` until it is moved.
    pub fn fixed(now_ms: i64) -> Self {
        Self {
            fixed: Some(Arc::new(AtomicI64::new(now_ms))),
            skew_ms: 0,
        }
    }

    /// The same clock seen by somebody whose watch is `skew_ms` ahead (negative: behind).
    #[must_use]
    pub fn skewed_by(&self, skew_ms: i64) -> Self {
        Self {
            fixed: self.fixed.clone(),
            skew_ms: self.skew_ms + skew_ms,
        }
    }

    /// Milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> i64 {
        let base = match &self.fixed {
            Some(fixed) => fixed.load(Ordering::SeqCst),
            None => system_ms(),
        };
        base + self.skew_ms
    }

    /// Whole seconds since 1970 UTC.
    pub fn now_seconds(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }

    /// Moves a fixed clock forward. A system clock cannot be moved: returns whether it was.
    pub fn advance(&self, by_ms: i64) -> bool {
        match &self.fixed {
            Some(fixed) => {
                fixed.fetch_add(by_ms, Ordering::SeqCst);
                true
            }
            None => false,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place of the simulator that reads the wall clock"
)]
fn system_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_for_all_its_clones_and_keeps_each_skew() {
        let clock = Clock::fixed(1_000);
        let slow = clock.skewed_by(-300);
        assert!(clock.advance(500));
        assert_eq!((clock.now_ms(), slow.now_ms()), (1_500, 1_200));
        assert!(!Clock::system().advance(1));
    }
}
