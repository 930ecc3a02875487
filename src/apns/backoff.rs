//! When the next connection may be opened.

use std::time::Duration;

use tokio::time::Instant;

use super::ApnsSettings;
use crate::entropy::{Entropy, draw};

/// A session that answered this much, or lived this long, was worth opening.
const WORTHY_ANSWERS: u64 = 50;
const WORTHY_LIFE: Duration = Duration::from_mins(1);

/// Waits between connections: none after a worthy session, doubling otherwise.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    next: Option<Instant>,
}

impl Backoff {
    /// When the next connection may be opened; `None` for at once.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A connection could not be opened.
    pub(super) fn failed(&mut self, now: Instant, settings: &ApnsSettings, entropy: &dyn Entropy) {
        self.failures = self.failures.saturating_add(1);
        let doubled = settings
            .reconnect_min
            .saturating_mul(2_u32.saturating_pow(self.failures - 1))
            .min(settings.reconnect_max);
        self.next = Some(now + jittered(doubled, entropy));
    }

    /// A session ended that had answered `answers` pushes and lived for `life`.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        (answers, life): (u64, Duration),
        settings: &ApnsSettings,
        entropy: &dyn Entropy,
    ) {
        if answers >= WORTHY_ANSWERS || life >= WORTHY_LIFE {
            *self = Self::default();
        } else {
            self.failed(now, settings, entropy);
        }
    }
}

/// Between half and all of `span`: many servers that lost APNs together must not come back together.
pub(super) fn jittered(span: Duration, entropy: &dyn Entropy) -> Duration {
    let share = f64::from(u16::from_be_bytes(draw(entropy))) / f64::from(u16::MAX);
    span.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn waits_double_up_to_the_limit_with_jitter() {
        let (settings, entropy) = (ApnsSettings::default(), SeededEntropy::new(1));
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        assert_eq!(backoff.next(), None);
        let mut expected = settings.reconnect_min;
        for _ in 0..100 {
            backoff.failed(now, &settings, &entropy);
            let wait = backoff.next().expect("a wait") - now;
            assert!(
                expected / 2 <= wait && wait <= expected,
                "{wait:?} {expected:?}"
            );
            expected = (expected * 2).min(settings.reconnect_max);
        }
    }

    #[test]
    fn a_session_that_served_costs_no_wait_and_a_short_one_does() {
        let (settings, entropy) = (ApnsSettings::default(), SeededEntropy::new(1));
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.ended(now, (0, Duration::ZERO), &settings, &entropy);
        assert!(backoff.next().is_some());
        backoff.ended(now, (WORTHY_ANSWERS, Duration::ZERO), &settings, &entropy);
        assert_eq!(backoff.next(), None);
        backoff.ended(now, (0, WORTHY_LIFE), &settings, &entropy);
        assert_eq!(backoff.next(), None);
    }
}
