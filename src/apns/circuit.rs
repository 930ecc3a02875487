//! Holding a topic back after a fault of its certificate.
//!
//! A push to any Mac fails then, so none is sent; when the hold ends, one push probes. The hold
//! doubles until one is taken.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::ApnsSettings;
use crate::push::PushOutcome;

/// So many different foreign tokens, and no push taken in between, mean that the certificate is the
/// wrong one. One Mac can give a foreign token at will, and must not stop the others with it.
const FOREIGN_TOKENS: usize = 3;

/// The circuit of one topic.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    held_until: Option<Instant>,
    probing: bool,
    trips: u32,
    foreign: HashSet<[u8; 32]>,
}

impl Circuit {
    /// Whether a push may be sent now. After a hold, one is admitted to probe; the next only when that
    /// one is settled, or had time enough.
    pub(super) fn admits(&mut self, now: Instant, settings: &ApnsSettings) -> bool {
        match self.held_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.held_until = Some(now + settings.deadline);
                self.probing = true;
                true
            }
            None => true,
        }
    }

    /// Takes note of how a push to the token with this digest ended. Answers whether this began a hold.
    pub(super) fn settle(
        &mut self,
        outcome: &PushOutcome,
        token: [u8; 32],
        now: Instant,
        settings: &ApnsSettings,
    ) -> bool {
        match outcome {
            PushOutcome::TopicFault(_) | PushOutcome::CertificateFault(_) => {
                self.trip(now, settings)
            }
            PushOutcome::TokenForeign => {
                if self.foreign.len() < FOREIGN_TOKENS {
                    self.foreign.insert(token);
                }
                self.foreign.len() >= FOREIGN_TOKENS && self.trip(now, settings)
            }
            PushOutcome::Accepted => {
                *self = Self::default();
                false
            }
            // APNs looks at the certificate before the token: it got that far.
            PushOutcome::TokenDead { .. } | PushOutcome::TokenRefused | PushOutcome::Throttled
                if self.foreign.is_empty() =>
            {
                *self = Self::default();
                false
            }
            _ => false,
        }
    }

    /// Whether there is anything to remember. If not, pushes need not ask.
    pub(super) fn is_troubled(&self) -> bool {
        self.held_until.is_some() || !self.foreign.is_empty()
    }

    /// Until when the topic is held, if it is.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| now < *until)
    }

    /// Pushes that were under way when the hold began fail too; they are one fault, not many.
    fn trip(&mut self, now: Instant, settings: &ApnsSettings) -> bool {
        if self.held_until.is_some() && !self.probing {
            return false;
        }
        let hold: Duration = settings
            .hold_min
            .saturating_mul(2_u32.saturating_pow(self.trips))
            .min(settings.hold_max);
        self.trips = self.trips.saturating_add(1);
        self.held_until = Some(now + hold);
        self.probing = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::ApnsReason;

    fn fault() -> PushOutcome {
        PushOutcome::TopicFault(ApnsReason::BadTopic)
    }

    #[test]
    fn a_fault_holds_then_one_probes_and_success_ends_it() {
        let settings = ApnsSettings::default();
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        assert!(circuit.admits(start, &settings));
        assert!(circuit.settle(&fault(), [1; 32], start, &settings));
        assert!(
            !circuit.settle(&fault(), [2; 32], start, &settings),
            "one fault, not two"
        );
        let later = start + settings.hold_min;
        assert!(!circuit.admits(later - Duration::from_secs(1), &settings));
        assert!(circuit.admits(later, &settings), "the probe");
        assert!(!circuit.admits(later, &settings), "only one");
        assert!(
            circuit.admits(later + settings.deadline, &settings),
            "it had its time"
        );
        circuit.settle(&PushOutcome::Accepted, [1; 32], later, &settings);
        assert!(circuit.admits(later, &settings));
        assert_eq!(circuit.held_until(later), None);
    }

    #[test]
    fn the_hold_doubles_up_to_its_limit() {
        let settings = ApnsSettings::default();
        let (mut circuit, mut now) = (Circuit::default(), Instant::now());
        let mut expected = settings.hold_min;
        for _ in 0..20 {
            assert!(circuit.admits(now, &settings));
            assert!(circuit.settle(&fault(), [1; 32], now, &settings));
            assert_eq!(circuit.held_until(now), Some(now + expected));
            now += expected;
            expected = (expected * 2).min(settings.hold_max);
        }
    }

    #[test]
    fn one_mac_with_a_foreign_token_stops_nobody_and_several_do() {
        let settings = ApnsSettings::default();
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..100 {
            assert!(!circuit.settle(&PushOutcome::TokenForeign, [1; 32], now, &settings));
        }
        assert!(!circuit.settle(&PushOutcome::TokenForeign, [2; 32], now, &settings));
        circuit.settle(&PushOutcome::Accepted, [9; 32], now, &settings);
        assert!(!circuit.settle(&PushOutcome::TokenForeign, [3; 32], now, &settings));
        assert!(!circuit.settle(&PushOutcome::TokenForeign, [4; 32], now, &settings));
        assert!(circuit.settle(&PushOutcome::TokenForeign, [5; 32], now, &settings));
        assert!(!circuit.admits(now, &settings));
    }

    #[test]
    fn what_passes_neither_holds_nor_releases() {
        let settings = ApnsSettings::default();
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        let passing = PushOutcome::RetryLater(crate::push::outcome::Passing::Deadline);
        assert!(!circuit.settle(&passing, [1; 32], now, &settings));
        circuit.settle(&fault(), [1; 32], now, &settings);
        circuit.settle(&passing, [1; 32], now, &settings);
        assert!(!circuit.admits(now, &settings));
    }
}
