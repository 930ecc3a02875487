//! Sealing under the master key: AES-256-GCM with the place of the value as additional data.
//!
//! ```text
//! "ATSD" | version 1 | key id, 8 bytes | nonce, 12 bytes | ciphertext | tag, 16 bytes
//! ```
//! Everything before the ciphertext is authenticated too, as is the context, so a sealed value
//! opens only where it was sealed for. Nonces are random: NIST SP 800-38D section 8.3 allows 2^32
//! of them under one key, and this service seals a few values for each enrolment.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::master::MasterKey;
use crate::entropy::{Entropy, draw};
use crate::secret::{Sealer, Unsealable};

const MAGIC: &[u8; 4] = b"ATSD";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + KEY_ID;
const KEY_ID: usize = 8;

/// Seals and opens under one master key.
pub struct MasterSeal {
    key: LessSafeKey,
    id: [u8; KEY_ID],
    entropy: Arc<dyn Entropy>,
}

impl MasterSeal {
    /// A sealer under `master`, drawing its nonces from `entropy`.
    pub fn new(master: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, master.bytes())
            .expect("a master key has the 32 bytes AES-256 takes");
        Self {
            key: LessSafeKey::new(key),
            id: master.id(),
            entropy,
        }
    }

    /// Whether `sealed` names this master key. Tells an operator "another key file" from "damaged";
    /// it is no proof that the value opens.
    pub fn is_named_by(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.header())
    }

    /// The name of the master key: its key id in hexadecimal.
    pub fn name(&self) -> String {
        hex::encode(self.id)
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(MAGIC);
        header[4] = VERSION;
        header[5..].copy_from_slice(&self.id);
        header
    }

    /// The context is last, so header and context cannot be shifted against one another.
    fn additional(&self, context: &str) -> Aad<Vec<u8>> {
        Aad::from([self.header().as_slice(), context.as_bytes()].concat())
    }
}

impl Sealer for MasterSeal {
    fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = draw(self.entropy.as_ref());
        let mut body = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(plain);
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                self.additional(context),
                &mut body,
            )
            .expect("AES-GCM seals anything shorter than 64 GiB");
        [self.header().as_slice(), &nonce, &body].concat()
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let rest = sealed.strip_prefix(&self.header()).ok_or(Unsealable)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        let mut body = body.to_vec();
        let plain = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                self.additional(context),
                &mut body,
            )
            .map_err(|_| Unsealable)?
            .len();
        body.truncate(plain);
        Ok(body)
    }
}

impl fmt::Debug for MasterSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterSeal({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::ids::sha256;

    fn sealer(seed: u64) -> MasterSeal {
        let entropy = SeededEntropy::new(seed);
        let text = hex::encode(draw::<32>(&entropy));
        let master = MasterKey::parse(text.as_bytes()).expect("random enough");
        MasterSeal::new(&master, Arc::new(SeededEntropy::new(seed + 1)))
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let sealer = sealer(1);
        let sealed = sealer.seal("push_certificate.key", b"a key");
        assert_eq!(
            sealer.open("push_certificate.key", &sealed),
            Ok(b"a key".to_vec())
        );
        assert_eq!(sealer.open("enrollment.token", &sealed), Err(Unsealable));
        assert_eq!(sealer.open("", &sealed), Err(Unsealable));
    }

    #[test]
    fn another_master_key_opens_nothing_and_is_told_apart() {
        let (ours, other) = (sealer(1), sealer(10));
        let sealed = other.seal("a", b"b");
        assert_eq!(ours.open("a", &sealed), Err(Unsealable));
        assert!(!ours.is_named_by(&sealed));
        assert!(other.is_named_by(&sealed));
    }

    #[test]
    fn the_envelope_has_the_documented_form() {
        let entropy = SeededEntropy::new(1);
        let bytes: [u8; 32] = draw(&entropy);
        let sealed = sealer(1).seal("a", b"four");
        assert_eq!(&sealed[..5], b"ATSD\x01");
        assert_eq!(&sealed[5..13], &sha256(&bytes)[..8]);
        assert_eq!(sealed.len(), 4 + 1 + 8 + 12 + 4 + 16);
    }

    #[test]
    fn two_seals_of_one_value_differ() {
        let sealer = sealer(1);
        assert_ne!(sealer.seal("a", b"b"), sealer.seal("a", b"b"));
    }

    proptest! {
        #[test]
        fn every_value_round_trips_and_every_flipped_bit_is_seen(
            plain in proptest::collection::vec(any::<u8>(), 0..200), context in "[a-z._]{0,30}", at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let sealer = sealer(1);
            let mut sealed = sealer.seal(&context, &plain);
            prop_assert_eq!(sealer.open(&context, &sealed), Ok(plain));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(sealer.open(&context, &sealed), Err(Unsealable));
        }

        #[test]
        fn any_bytes_are_refused_quietly(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(sealer(1).open("a", &bytes), Err(Unsealable));
        }
    }
}
