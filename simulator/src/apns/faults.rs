//! Faults the double can be told to show (apple-protocol 9.2, 9.3).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// One answer or misbehaviour instead of the normal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status with this reason, such as `(503, "Shutdown")` or `(429, "TooManyRequests")`.
    Answer(u16, &'static str),
    /// The connection is cut without an answer.
    DropConnection,
}

/// What is wrong at present.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// What every request gets that has no fault of its own: an outage.
    pub(super) standing: Option<Fault>,
    pub(super) for_all: VecDeque<Fault>,
    pub(super) for_token: HashMap<String, VecDeque<Fault>>,
    /// Each connection ends with GOAWAY after this many requests.
    pub(super) go_away_after: Option<usize>,
    /// Each answer waits this long.
    pub(super) latency: Duration,
}

impl Faults {
    /// The fault for the next request of `token`, if one is due; those for the token go first,
    /// and an outage comes last.
    pub(super) fn next_for(&mut self, token: &str) -> Option<Fault> {
        let own = self.for_token.get_mut(token).and_then(VecDeque::pop_front);
        own.or_else(|| self.for_all.pop_front()).or(self.standing)
    }
}
