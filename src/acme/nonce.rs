//! Nonces that need no memory before they are used.
//!
//! A nonce carries when it was minted and random bytes, under a MAC that ties it to one directory
//! (RFC 8555 section 6.5: unique, unpredictable, and a value this server provided). Asking for one
//! changes nothing, so nobody fills a store by asking; a directory remembers the spent ones until
//! they are too old to be taken anyway.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use crate::ids::transcript;
use crate::time::Timestamp;

/// How long a nonce is taken. A Mac is through within a minute.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Clocks of several nodes of one service may differ by this much.
const SKEW: Duration = Duration::from_secs(60);

/// Bytes before the MAC: the time and what is random.
const BODY: usize = 8 + 16;
const MAC: usize = 16;

/// The key under which nonces are minted: the same on every node of a service.
pub struct NonceKey(Key);

impl NonceKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Key::new(HMAC_SHA256, secret))
    }

    /// A nonce for the directory at `base`: 54 base64url characters.
    pub fn mint(&self, base: &str, now: Timestamp, random: [u8; 16]) -> String {
        let mut nonce = Vec::with_capacity(BODY + MAC);
        nonce.extend_from_slice(&now.millis().to_be_bytes());
        nonce.extend_from_slice(&random);
        let mac = self.mac(base, &nonce);
        nonce.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(nonce)
    }

    /// Whether `nonce` was minted with this key for this directory, and not too long ago.
    pub(super) fn knows(&self, nonce: &str, base: &str, now: Timestamp) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else {
            return false;
        };
        let (Some((body, mac)), BODY_AND_MAC) = (bytes.split_at_checked(BODY), bytes.len()) else {
            return false;
        };
        self.mac(base, body).ct_eq(mac).into()
            && minted_at(nonce).is_some_and(|at| is_young(at, now))
    }

    fn mac(&self, base: &str, body: &[u8]) -> [u8; MAC] {
        let tag = sign(
            &self.0,
            &transcript(&[b"attestd-acme-nonce-v1", base.as_bytes(), body]),
        );
        let mut mac = [0; MAC];
        mac.copy_from_slice(&tag.as_ref()[..MAC]);
        mac
    }
}

const BODY_AND_MAC: usize = BODY + MAC;

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey")
    }
}

/// Whether a spent nonce must still be remembered at `now`.
pub(super) fn must_be_remembered(nonce: &str, now: Timestamp) -> bool {
    minted_at(nonce).is_some_and(|at| is_young(at, now))
}

fn is_young(minted_at: Timestamp, now: Timestamp) -> bool {
    minted_at <= now.plus(SKEW) && now.since(minted_at) < LIFETIME
}

fn minted_at(nonce: &str) -> Option<Timestamp> {
    let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
    let millis = bytes.first_chunk::<8>()?;
    Some(Timestamp::from_millis(i64::from_be_bytes(*millis)))
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
            assert!(!must_be_remembered("", now()));
        }
    }
}
