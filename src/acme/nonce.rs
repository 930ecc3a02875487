//! Nonces that need no memory before they are used.
//!
//! A nonce carries when it was minted and random bytes, under a MAC that ties it to one directory
//! (RFC 8555 section 6.5: unique, unpredictable, and a value this server provided). Asking for one
//! changes nothing, so nobody fills a store by asking; the spent ones are remembered until they are
//! too old to be taken anyway, by the directory or in memory ([`super::spent`]).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use super::spent::{Memory, SpentNonces, Use};
use crate::ids::transcript;
use crate::time::Timestamp;

/// How long a nonce is taken. A Mac is through within a minute.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Clocks of several nodes of one service may differ by this much.
const SKEW: Duration = Duration::from_secs(60);

/// Bytes before the MAC: the time and what is random.
const BODY: usize = 8 + 16;
const MAC: usize = 16;

/// Names one run of a process: so many of the random bytes of its nonces.
const RUN: usize = 6;

/// The key under which nonces are minted: the same on every node of a service.
pub struct NonceKey {
    key: Key,
    alone: Option<Alone>,
}

/// What a process knows that is the only one to take its nonces.
struct Alone {
    run: [u8; RUN],
    spent: SpentNonces,
}

impl NonceKey {
    /// A key from 32 secret bytes, for a service of any number of processes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: Key::new(HMAC_SHA256, secret),
            alone: None,
        }
    }

    /// A key from 32 secret bytes, for a service that is one process. It remembers the nonces of
    /// POST-as-GETs itself, for as long as it runs; `run` is drawn when it starts.
    pub fn of_one_process(secret: &[u8; 32], run: [u8; RUN]) -> Self {
        let spent = SpentNonces::new(LIFETIME + SKEW);
        Self {
            alone: Some(Alone { run, spent }),
            ..Self::new(secret)
        }
    }

    /// A nonce for the directory at `base`: 54 base64url characters.
    pub fn mint(&self, base: &str, now: Timestamp, mut random: [u8; 16]) -> String {
        if let Some(Alone { run, .. }) = &self.alone {
            random[..RUN].copy_from_slice(run);
        }
        let mut nonce = Vec::with_capacity(BODY + MAC);
        nonce.extend_from_slice(&now.millis().to_be_bytes());
        nonce.extend_from_slice(&random);
        let mac = self.mac(base, &nonce);
        nonce.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// Whether `nonce` was minted with this key for this directory, and not too long ago.
    pub(super) fn knows(&self, nonce: &str, base: &str, now: Timestamp) -> bool {
        let Some((body, mac)) = parts(nonce) else {
            return false;
        };
        self.mac(base, &body).ct_eq(&mac).into() && is_young(minted_at(&body), now)
    }

    /// Uses a nonce that is known, as far as memory goes.
    pub(super) fn spend(&self, nonce: &str, wanted: Use, now: Timestamp) -> Memory {
        let (Some(Alone { run, spent }), Some((body, tag))) = (&self.alone, parts(nonce)) else {
            return Memory::CannotTell;
        };
        let of_this_run = body[8..].starts_with(run);
        match spent.spend(tag, wanted, now) {
            // Another run of this process may have been asked the same, and have forgotten it.
            _ if wanted == Use::Read && !of_this_run => Memory::UsedBefore,
            told => told,
        }
    }

    fn mac(&self, base: &str, body: &[u8]) -> [u8; MAC] {
        let tag = sign(
            &self.key,
            &transcript(&[b"attestd-acme-nonce-v1", base.as_bytes(), body]),
        );
        let mut mac = [0; MAC];
        mac.copy_from_slice(&tag.as_ref()[..MAC]);
        mac
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey")
    }
}

/// Whether a spent nonce must still be remembered at `now`.
pub(super) fn must_be_remembered(nonce: &str, now: Timestamp) -> bool {
    parts(nonce).is_some_and(|(body, _)| is_young(minted_at(&body), now))
}

fn is_young(minted_at: Timestamp, now: Timestamp) -> bool {
    minted_at <= now.plus(SKEW) && now.since(minted_at) < LIFETIME
}

/// A nonce of the right length: what the MAC is over, and the MAC.
fn parts(nonce: &str) -> Option<([u8; BODY], [u8; MAC])> {
    let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
    let (body, mac) = bytes.split_at_checked(BODY)?;
    Some((body.try_into().ok()?, mac.try_into().ok()?))
}

fn minted_at(body: &[u8; BODY]) -> Timestamp {
    let mut millis = [0; 8];
    millis.copy_from_slice(&body[..8]);
    Timestamp::from_millis(i64::from_be_bytes(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://mdm.example/acme/secret";

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    #[test]
    fn a_nonce_is_known_for_an_hour_in_its_own_directory() {
        let key = NonceKey::new(&[1; 32]);
        let nonce = key.mint(BASE, now(), [2; 16]);
        assert_eq!(nonce.len(), 54);
        assert!(key.knows(&nonce, BASE, now()));
        assert!(key.knows(&nonce, BASE, now().minus(SKEW)));
        assert!(key.knows(
            &nonce,
            BASE,
            now().plus(LIFETIME - Duration::from_millis(1))
        ));
        assert!(!key.knows(&nonce, BASE, now().plus(LIFETIME)));
        assert!(!key.knows(&nonce, BASE, now().minus(SKEW * 2)));
        assert!(!key.knows(&nonce, "https://mdm.example/acme/other", now()));
        assert!(!NonceKey::new(&[2; 32]).knows(&nonce, BASE, now()));
        assert!(must_be_remembered(&nonce, now()));
        assert!(!must_be_remembered(&nonce, now().plus(LIFETIME)));
        assert!(!format!("{key:?}").contains('1'));
    }

    #[test]
    fn a_process_that_is_alone_remembers_its_reads_and_takes_none_of_another_run() {
        let shared = NonceKey::new(&[1; 32]);
        let nonce = shared.mint(BASE, now(), [2; 16]);
        assert_eq!(shared.spend(&nonce, Use::Read, now()), Memory::CannotTell);

        let first = NonceKey::of_one_process(&[1; 32], [3; RUN]);
        let nonce = first.mint(BASE, now(), [2; 16]);
        let waiting = first.mint(BASE, now(), [4; 16]);
        assert_ne!(nonce, waiting);
        assert_eq!(first.spend(&nonce, Use::Read, now()), Memory::Remembers);
        assert_eq!(first.spend(&nonce, Use::Read, now()), Memory::UsedBefore);

        let second = NonceKey::of_one_process(&[1; 32], [5; RUN]);
        for nonce in [&nonce, &waiting] {
            assert!(second.knows(nonce, BASE, now()));
            assert_eq!(second.spend(nonce, Use::Read, now()), Memory::UsedBefore);
        }
        let third = NonceKey::of_one_process(&[1; 32], [6; RUN]);
        assert_eq!(third.spend(&waiting, Use::Change, now()), Memory::Remembers);
    }

    #[test]
    fn no_single_changed_character_is_known() {
        let key = NonceKey::new(&[1; 32]);
        let nonce = key.mint(BASE, now(), [2; 16]);
        for index in 0..nonce.len() {
            let mut other = nonce.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            assert!(!key.knows(&other, BASE, now()), "{index}");
        }
        for other in [
            "",
            "A",
            &nonce[1..],
            &format!("{nonce}A"),
            &format!("{nonce}="),
        ] {
            assert!(!key.knows(other, BASE, now()), "{other}");
            assert!(!must_be_remembered(other, now()));
        }
    }
}
