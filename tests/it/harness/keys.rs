//! RSA keys made once for all tests of this process, because they are what costs.

use std::sync::{Mutex, PoisonError};

use attestd_sim::keys::{KeyKind, generate};
use openssl::pkey::{PKey, Private};

/// The key of this number: the same at every call. Two worlds may share it, two Macs of one world
/// may not.
pub fn rsa(number: usize) -> PKey<Private> {
    static KEYS: Mutex<Vec<PKey<Private>>> = Mutex::new(Vec::new());
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    while keys.len() <= number {
        keys.push(generate(KeyKind::Rsa2048).expect("a key"));
    }
    keys[number].clone()
}
