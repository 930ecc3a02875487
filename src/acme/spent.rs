//! Nonces that were used, as far as one process remembers them.
//!
//! RFC 8555 section 6.5: "Once a nonce value has appeared in an ACME request, the server MUST
//! consider it invalid". The nonce of a request that may change something is kept with the change,
//! durably, for every node and across restarts. A POST-as-GET changes nothing, and a durable commit
//! would cost more than the rest of it; so a process that has its database to itself remembers the
//! nonces of those in memory.
//!
//! What is forgotten with the process is of no use to anybody who recorded it: a nonce says which
//! run of a process minted it, and a POST-as-GET under a nonce of another run is refused as if the
//! nonce had been used. A change under such a nonce is taken when no change was: a Mac that waited
//! for Apple's statement while the service restarted comes back with one, and its client ends at a
//! badNonce (apple-protocol 7.1). It is a new request of the account's own key; nothing that was
//! sent before can be sent again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

/// Nonces in one generation, a few megabytes; an issuance uses seven. With more, POST-as-GETs are
/// remembered durably, too.
const CAPACITY: usize = 64 * 1024;

/// What names a nonce: its MAC.
pub(super) type Tag = [u8; 16];

/// What a request under a nonce may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing but read.
    Read,
    /// Change the directory, which remembers the nonce then.
    Change,
}

/// What memory says of a nonce that is used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// It is used from now on.
    Remembers,
    UsedBefore,
    /// Memory cannot tell; only what is kept durably counts.
    CannotTell,
}

/// Used nonces: of this generation and of the one before, so that each is remembered for at least
/// the length of one generation.
#[derive(Debug)]
pub(super) struct SpentNonces {
    length: Duration,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    began: Option<Timestamp>,
    this: HashMap<Tag, Use>,
    last: HashMap<Tag, Use>,
}

impl SpentNonces {
    /// Remembers each nonce for at least `length`.
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            generations: Mutex::default(),
        }
    }

    /// Uses a nonce. Of two reads, or of a read and a change, one is told that it was used before.
    /// Two changes are told apart by the directory: a change that was overtaken by another comes
    /// again under its own nonce.
    pub(super) fn spend(&self, tag: Tag, wanted: Use, now: Timestamp) -> Memory {
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations.age(self.length, now);
        match generations.find(&tag) {
            Some(Use::Change) if wanted == Use::Change => Memory::Remembers,
            Some(_) => Memory::UsedBefore,
            None if generations.this.len() >= CAPACITY => Memory::CannotTell,
            None => {
                generations.this.insert(tag, wanted);
                Memory::Remembers
            }
        }
    }
}

impl Generations {
    fn age(&mut self, length: Duration, now: Timestamp) {
        match self.began {
            Some(began) if now.since(began) < length => {}
            _ => {
                self.began = Some(now);
                self.last = std::mem::take(&mut self.this);
            }
        }
    }

    fn find(&self, tag: &Tag) -> Option<Use> {
        self.this.get(tag).or_else(|| self.last.get(tag)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(3_660);

    fn start() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    #[test]
    fn a_nonce_is_remembered_for_a_whole_generation_whenever_it_was_used() {
        for late in [0, 1_000, 3_659] {
            let memory = SpentNonces::new(LENGTH);
            memory.spend([0; 16], Use::Read, start());
            let used = start().plus(Duration::from_secs(late));
            assert_eq!(memory.spend([1; 16], Use::Read, used), Memory::Remembers);
            for after in [0, 1, 3_000, 3_659] {
                let again = used.plus(Duration::from_secs(after));
                let told = memory.spend([1; 16], Use::Read, again);
                assert_eq!(told, Memory::UsedBefore, "{late} {after}");
            }
            let long_after = used.plus(LENGTH * 2);
            memory.spend([2; 16], Use::Read, long_after);
            let told = memory.spend([1; 16], Use::Read, long_after.plus(LENGTH));
            assert_eq!(told, Memory::Remembers, "it is not kept for ever");
        }
    }

    #[test]
    fn a_read_shares_its_nonce_with_nobody() {
        let memory = SpentNonces::new(LENGTH);
        assert_eq!(memory.spend([1; 16], Use::Read, start()), Memory::Remembers);
        assert_eq!(
            memory.spend([1; 16], Use::Change, start()),
            Memory::UsedBefore
        );
        assert_eq!(
            memory.spend([2; 16], Use::Change, start()),
            Memory::Remembers
        );
        assert_eq!(
            memory.spend([2; 16], Use::Read, start()),
            Memory::UsedBefore
        );
        // The directory decides between changes.
        assert_eq!(
            memory.spend([2; 16], Use::Change, start()),
            Memory::Remembers
        );
    }

    #[test]
    fn a_full_memory_says_so_and_forgets_nothing() {
        let memory = SpentNonces::new(LENGTH);
        let tag = |number: usize| {
            let mut tag = [0; 16];
            tag[..8].copy_from_slice(&number.to_be_bytes());
            tag
        };
        for number in 0..CAPACITY {
            memory.spend(tag(number), Use::Read, start());
        }
        let told = memory.spend(tag(CAPACITY), Use::Read, start());
        assert_eq!(told, Memory::CannotTell);
        assert_eq!(memory.spend(tag(7), Use::Read, start()), Memory::UsedBefore);
        let later = start().plus(LENGTH);
        let told = memory.spend(tag(CAPACITY), Use::Read, later);
        assert_eq!(told, Memory::Remembers, "there is room again");
    }
}
