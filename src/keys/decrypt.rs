//! RSAES-PKCS1-v1_5 decryption of a content key, without an oracle.
//!
//! SCEP encrypts to us in the one padding that tells an attacker something by failing
//! (Bleichenbacher 1998; RFC 3218; RFC 8017 section 7.2 note). So a failure is not shown: the length
//! of the content key is known from the content cipher, the padding is checked in constant time
//! against exactly that length, and what does not fit is replaced by a key nobody knows. The content
//! then fails to decrypt as it would under any wrong key. The replacement depends on the ciphertext
//! and on the private key only: a random one would show itself by answering differently the second
//! time.
//!
//! `aws-lc-rs` offers the padding check only with a visible failure and no decryption without
//! padding; so the bare RSA operation is OpenSSL's (blinded), and the padding is checked here.

use std::fmt;

use aws_lc_rs::hmac;
use openssl::pkey::Private;
use openssl::rsa::{Padding, Rsa};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::KeyError;
use crate::pki::Decryptor;
use crate::pki::key::KeyFailure;
use crate::secret::Secret;

/// The longest content key replaced: one HMAC-SHA256. AES-256 and three-key 3DES fit.
const LONGEST: usize = 32;

/// An RSA key that opens content keys.
pub(super) struct ContentKeyOpener {
    key: Rsa<Private>,
    replacements: hmac::Key,
}

impl ContentKeyOpener {
    /// From an `RSAPrivateKey` in PKCS#8, DER.
    pub(super) fn new(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let key = openssl::pkey::PKey::private_key_from_pkcs8(pkcs8)
            .and_then(|key| key.rsa())
            .map_err(|_| KeyError::NotAKey)?;
        let seed = Zeroizing::new(key.d().to_vec());
        let seed = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, b"attestd content key replacement v1"),
            &seed,
        );
        Ok(Self {
            key,
            replacements: hmac::Key::new(hmac::HMAC_SHA256, seed.as_ref()),
        })
    }

    /// The content key of `length` bytes in `ciphertext`, or the replacement. `None` only for what
    /// anybody can see without the private key: a ciphertext that is not as long as the modulus or
    /// not below it, or a length no cipher here has.
    fn open(&self, ciphertext: &[u8], length: usize) -> Option<Secret<Vec<u8>>> {
        let modulus = usize::try_from(self.key.size()).ok()?;
        // RFC 8017 section 7.2.1: at least 8 bytes of padding and 3 of frame.
        if ciphertext.len() != modulus || !(1..=LONGEST).contains(&length) || length + 11 > modulus
        {
            return None;
        }
        let mut block = Zeroizing::new(vec![0; modulus]);
        self.key
            .private_decrypt(ciphertext, &mut block, Padding::NONE)
            .ok()?;
        let replacement = hmac::sign(&self.replacements, ciphertext);
        let fits = holds_key_of(&block, length);
        let (_, inside) = block.split_at(modulus - length);
        let key = inside
            .iter()
            .zip(replacement.as_ref())
            .map(|(inside, replacement)| u8::conditional_select(replacement, inside, fits))
            .collect();
        Some(Secret::new(key))
    }
}

impl Decryptor for ContentKeyOpener {
    fn decrypt_content_key(
        &self,
        ciphertext: &[u8],
        length: usize,
    ) -> Result<Secret<Vec<u8>>, KeyFailure> {
        self.open(ciphertext, length).ok_or(KeyFailure)
    }
}

/// Whether the block is `00 02 (non-zero)… 00` and then exactly `length` bytes, in constant time.
fn holds_key_of(block: &[u8], length: usize) -> Choice {
    let separator = block.len() - length - 1;
    block
        .iter()
        .enumerate()
        .take(separator + 1)
        .fold(Choice::from(1), |fits, (at, byte)| {
            fits & match at {
                0 => byte.ct_eq(&0),
                1 => byte.ct_eq(&2),
                at if at == separator => byte.ct_eq(&0),
                _ => !byte.ct_eq(&0),
            }
        })
}

impl fmt::Debug for ContentKeyOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKeyOpener([secret])")
    }
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;

    use super::*;

    struct Pair {
        opener: ContentKeyOpener,
        public: Rsa<Private>,
    }

    fn pair() -> Pair {
        let key = Rsa::generate(2048).expect("a key");
        let pkcs8 = PKey::from_rsa(key.clone())
            .and_then(|key| key.private_key_to_pkcs8())
            .expect("der");
        Pair {
            opener: ContentKeyOpener::new(&pkcs8).expect("rsa"),
            public: key,
        }
    }

    impl Pair {
        fn encrypt(&self, plain: &[u8], padding: Padding) -> Vec<u8> {
            let mut out = vec![0; 256];
            self.public
                .public_encrypt(plain, &mut out, padding)
                .expect("encrypted");
            out
        }

        fn opened(&self, ciphertext: &[u8], length: usize) -> Vec<u8> {
            self.opener
                .open(ciphertext, length)
                .expect("an answer")
                .expose()
                .clone()
        }

        /// A whole block, padded by hand.
        fn block(&self, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
            let mut block = vec![0x5a; 256];
            block[0] = 0;
            block[1] = 2;
            block[256 - 16 - 1] = 0;
            change(&mut block);
            self.encrypt(&block, Padding::NONE)
        }
    }

    #[test]
    fn a_content_key_opens() {
        let pair = pair();
        for key in [vec![7; 16], vec![0; 24], (0..32).collect()] {
            let ciphertext = pair.encrypt(&key, Padding::PKCS1);
            assert_eq!(pair.opened(&ciphertext, key.len()), key);
        }
        assert_eq!(pair.opened(&pair.block(|_| ()), 16), vec![0x5a; 16]);
    }

    #[test]
    fn every_bad_padding_gives_a_steady_key_nobody_knows() {
        let pair = pair();
        let bad: [(&str, Vec<u8>); 6] = [
            ("first byte", pair.block(|block| block[1] = 1)),
            ("a zero in the padding", pair.block(|block| block[5] = 0)),
            (
                "a zero late in the padding",
                pair.block(|block| block[238] = 0),
            ),
            ("no separator", pair.block(|block| block[239] = 1)),
            ("a shorter key", pair.encrypt(&[0x5a; 15], Padding::PKCS1)),
            ("a longer key", pair.encrypt(&[0x5a; 17], Padding::PKCS1)),
        ];
        for (name, ciphertext) in bad {
            let key = pair.opened(&ciphertext, 16);
            assert_eq!(key.len(), 16, "{name}");
            assert_ne!(key, vec![0x5a; 16], "{name}");
            assert_eq!(
                key,
                pair.opened(&ciphertext, 16),
                "{name}: the same the second time"
            );
        }
    }

    #[test]
    fn only_what_anybody_can_see_is_refused() {
        let pair = pair();
        assert!(pair.opener.open(&[1; 255], 16).is_none());
        assert!(
            pair.opener.open(&[0xff; 256], 16).is_none(),
            "above the modulus"
        );
        assert!(pair.opener.open(&pair.block(|_| ()), 33).is_none());
        assert!(pair.opener.open(&pair.block(|_| ()), 0).is_none());
    }
}
