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

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::handover::{Handover, HandoverFault, Phase};
use super::master::MasterKey;
use crate::entropy::{Entropy, draw};
use crate::secret::{Sealer, Unsealable};
use crate::time::Timestamp;

const MAGIC: &[u8; 4] = b"ATSD";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1 + KEY_ID;
const KEY_ID: usize = 8;

/// Seals under one master key, and opens under that and, while one follows the other, under both.
pub struct MasterSeal {
    /// With which it was started.
    mine: MasterKey,
    ring: ArcSwap<Ring>,
    entropy: Arc<dyn Entropy>,
}

/// The keys at hand.
struct Ring {
    /// Under which is sealed.
    present: SealingKey,
    /// Which opens what was sealed under it, and seals nothing.
    other: Option<SealingKey>,
}

/// One master key, ready for use, and what values sealed under it begin with.
#[derive(Clone)]
struct SealingKey {
    key: Arc<LessSafeKey>,
    header: [u8; HEADER],
}

impl MasterSeal {
    /// A sealer under `master`, drawing its nonces from `entropy`.
    pub fn new(master: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        let ring = Ring {
            present: SealingKey::new(master),
            other: None,
        };
        Self {
            mine: master.clone(),
            ring: ArcSwap::from_pointee(ring),
            entropy,
        }
    }

    /// Follows a change of the master key, or its end: then only the key by which is sealed opens. Whoever
    /// is in the middle of sealing ends under the former.
    ///
    /// # Errors
    /// [`HandoverFault`]; everything stays as it was.
    pub fn follow(&self, handover: Option<&Handover>) -> Result<(), HandoverFault> {
        let ring = match handover {
            None => Ring {
                present: self.ring.load().present.clone(),
                other: None,
            },
            Some(handover) => {
                let other = handover.other(&self.mine, &self.entropy)?;
                let (mine, other) = (SealingKey::new(&self.mine), SealingKey::new(&other));
                // Whoever was started with the new key comes when all can open by it.
                let mine_seals = match handover.phase {
                    Phase::Opening => self.mine.name() == handover.from,
                    Phase::Sealing => self.mine.name() == handover.to,
                };
                let (present, other) = if mine_seals {
                    (mine, other)
                } else {
                    (other, mine)
                };
                Ring {
                    present,
                    other: Some(other),
                }
            }
        };
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    /// Begins to hand over to `to`: see [`Handover::begin`].
    ///
    /// # Errors
    /// [`HandoverFault::Same`].
    pub fn begin_handover(
        &self,
        to: &MasterKey,
        now: Timestamp,
    ) -> Result<Handover, HandoverFault> {
        Handover::begin(&self.mine, to, &self.entropy, now)
    }

    /// The key to which is handed over, in clear, for the file it is to stand in.
    ///
    /// # Errors
    /// As [`Handover::other`].
    pub fn new_key(&self, handover: &Handover) -> Result<MasterKey, HandoverFault> {
        if self.mine.name() == handover.to {
            return Ok(self.mine.clone());
        }
        handover.other(&self.mine, &self.entropy)
    }

    /// The key that it was started with.
    pub fn mine(&self) -> &MasterKey {
        &self.mine
    }

    /// Whether `sealed` names a master key that is at hand. Tells an operator "another key file" from
    /// "damaged"; it is no proof that the value opens.
    pub fn is_named_by(&self, sealed: &[u8]) -> bool {
        self.ring.load().named_by(sealed).is_some()
    }

    /// Whether `sealed` names the master key under which is sealed now.
    pub fn is_present(&self, sealed: &[u8]) -> bool {
        sealed.starts_with(&self.ring.load().present.header)
    }

    /// The name of the master key under which is sealed: its key id in hexadecimal.
    pub fn name(&self) -> String {
        hex::encode(&self.ring.load().present.header[MAGIC.len() + 1..])
    }
}

impl Ring {
    fn named_by(&self, sealed: &[u8]) -> Option<&SealingKey> {
        [Some(&self.present), self.other.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| sealed.starts_with(&key.header))
    }
}

impl SealingKey {
    fn new(master: &MasterKey) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, master.bytes())
            .expect("a master key has the 32 bytes AES-256 takes");
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(MAGIC);
        header[4] = VERSION;
        header[5..].copy_from_slice(&master.id());
        Self {
            key: Arc::new(LessSafeKey::new(key)),
            header,
        }
    }

    /// The context is last, so header and context cannot be shifted against one another.
    fn additional(&self, context: &str) -> Aad<Vec<u8>> {
        Aad::from([self.header.as_slice(), context.as_bytes()].concat())
    }
}

impl Sealer for MasterSeal {
    fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let ring = self.ring.load();
        let present = &ring.present;
        let nonce: [u8; NONCE_LEN] = draw(self.entropy.as_ref());
        let mut body = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        body.extend_from_slice(plain);
        present
            .key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                present.additional(context),
                &mut body,
            )
            .expect("AES-GCM seals anything shorter than 64 GiB");
        [present.header.as_slice(), &nonce, &body].concat()
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let ring = self.ring.load();
        let named = ring.named_by(sealed).ok_or(Unsealable)?;
        let rest = sealed.get(HEADER..).ok_or(Unsealable)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealable)?;
        let mut body = body.to_vec();
        let plain = named
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                named.additional(context),
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
    fn while_one_key_follows_the_other_both_open_and_the_present_one_seals() {
        let master = |seed| MasterKey::make(&SeededEntropy::new(seed));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(2));
        let seal = |seed| MasterSeal::new(&master(seed), Arc::clone(&entropy));
        let (old, new, other) = (seal(1), seal(10), seal(20));
        let before = old.seal("a", b"b");
        let now = Timestamp::from_millis(0);
        let mut handover = Handover::begin(&master(1), &master(10), &entropy, now).expect("begun");
        for phase in [Phase::Opening, Phase::Sealing] {
            handover.phase = phase;
            old.follow(Some(&handover)).expect("followed");
            new.follow(Some(&handover)).expect("followed");
            assert!(other.follow(Some(&handover)).is_err());
            for (one, another) in [(&old, &new), (&new, &old)] {
                let sealed = one.seal("a", b"b");
                assert!(one.is_present(&sealed) && another.is_present(&sealed));
                assert_eq!(one.is_present(&before), phase == Phase::Opening);
                assert!(one.is_named_by(&before));
                assert_eq!(another.open("a", &sealed), Ok(b"b".to_vec()));
                assert_eq!(another.open("a", &before), Ok(b"b".to_vec()));
            }
        }
        // Whoever still runs with the former key goes on sealing by the new one.
        for seal in [&old, &new] {
            seal.follow(None).expect("over");
            assert_eq!(seal.open("a", &before), Err(Unsealable));
            assert_eq!(seal.name(), master(10).name());
        }
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
