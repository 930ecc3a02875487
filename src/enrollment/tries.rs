//! How often something was tried about one thing, whoever tried it: limits by address say nothing about
//! somebody who has many addresses.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::time::Timestamp;

/// So many things are remembered at most. Beyond that nobody new is counted: the limits by address stand.
const REMEMBERED: usize = 100_000;

/// Tries, by what they are about: so many within a while, from the first one on.
#[derive(Debug)]
pub struct Tries<K> {
    most: u32,
    within: Duration,
    known: HashMap<K, Known>,
}

#[derive(Debug)]
struct Known {
    until: Timestamp,
    times: u32,
}

impl<K: Eq + Hash + Clone> Tries<K> {
    /// None yet.
    pub fn new(most: u32, within: Duration) -> Self {
        Self {
            most,
            within,
            known: HashMap::new(),
        }
    }

    /// Whether there were as many already as may be.
    pub fn are_spent(&self, about: &K, now: Timestamp) -> bool {
        let known = self.known.get(about).filter(|known| now < known.until);
        known.is_some_and(|known| known.times >= self.most)
    }

    /// Counts one.
    pub fn count(&mut self, about: &K, now: Timestamp) {
        if self.known.len() >= REMEMBERED && !self.known.contains_key(about) {
            self.known.retain(|_, known| now < known.until);
            if self.known.len() >= REMEMBERED {
                return;
            }
        }
        let fresh = Known {
            until: now.plus(self.within),
            times: 0,
        };
        let known = self.known.entry(about.clone()).or_insert(fresh);
        if known.until <= now {
            known.until = now.plus(self.within);
            known.times = 0;
        }
        known.times = known.times.saturating_add(1);
    }

    /// Counts one, unless there were as many already as may be; says whether it may be.
    pub fn allows(&mut self, about: &K, now: Timestamp) -> bool {
        let may = !self.are_spent(about, now);
        if may {
            self.count(about, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn so_many_within_an_hour_of_the_first_and_each_thing_by_itself() {
        let mut tries = Tries::new(2, HOUR);
        let may = [
            (0, "a"),
            (10, "a"),
            (20, "a"),
            (20, "b"),
            (3599, "a"),
            (3600, "a"),
            (3601, "a"),
            (3602, "a"),
        ]
        .map(|(seconds, about)| tries.allows(&about, at(seconds)));
        assert_eq!(may, [true, true, false, true, false, true, true, false]);
    }

    #[test]
    fn what_is_refused_is_not_counted_and_what_is_counted_may_be_looked_at() {
        let mut tries = Tries::new(1, HOUR);
        assert!(!tries.are_spent(&1, at(0)));
        tries.count(&1, at(0));
        assert!(tries.are_spent(&1, at(1)) && !tries.allows(&1, at(1)));
        assert!(tries.allows(&1, at(3600)));
    }

    #[test]
    fn memory_is_bounded_and_what_is_over_is_forgotten_first() {
        let mut tries = Tries::new(1, HOUR);
        for about in 0..REMEMBERED {
            tries.count(&about, at(0));
        }
        tries.count(&REMEMBERED, at(1));
        assert_eq!(tries.known.len(), REMEMBERED);
        assert!(!tries.are_spent(&REMEMBERED, at(1)) && tries.are_spent(&0, at(1)));
        tries.count(&REMEMBERED, at(3600));
        assert_eq!(tries.known.len(), 1);
    }
}
