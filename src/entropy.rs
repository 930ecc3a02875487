//! Randomness, asked for by name and passed in.
//!
//! Nouns take random bytes as arguments; flows draw them here. Everything unguessable in the
//! service (tickets, nonces, tokens, certificate serial numbers, keys of ours) comes from
//! [`OsEntropy`]; tests use [`SeededEntropy`] so that a run can be repeated.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A source of unguessable bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes` completely.
    ///
    /// # Panics
    /// When the operating system cannot give randomness: nothing may go on without it.
    fn fill(&self, bytes: &mut [u8]);
}

/// Draws `N` bytes.
pub fn draw<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct OsEntropy(SystemRandom);

impl Entropy for OsEntropy {
    #[expect(clippy::expect_used, reason = "a server without randomness must stop, not go on")]
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the operating system gives random bytes");
    }
}

/// A repeatable stream for tests and simulated time: SHA-256 over seed and counter.
#[derive(Debug)]
pub struct SeededEntropy {
    seed: u64,
    counter: AtomicU64,
}

impl SeededEntropy {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: AtomicU64::new(0) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let counter = self.counter.fetch_add(1, Ordering::SeqCst);
            let mut input = [0; 16];
            input[..8].copy_from_slice(&self.seed.to_be_bytes());
            input[8..].copy_from_slice(&counter.to_be_bytes());
            chunk.copy_from_slice(&digest(&SHA256, &input).as_ref()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        let first: [u8; 40] = draw(&SeededEntropy::new(1));
        assert_eq!(first, draw(&SeededEntropy::new(1)));
        assert_ne!(first, draw::<40>(&SeededEntropy::new(2)));
    }

    #[test]
    fn the_system_gives_different_bytes_each_time() {
        let entropy = OsEntropy::default();
        assert_ne!(draw::<32>(&entropy), draw::<32>(&entropy));
    }
}
