//! One master key follows another while servers run.
//!
//! The new key is told to whoever has the former, sealed under it, and the former to whoever has the
//! new one: so every node opens everything, with whichever of the two it was started. First all open
//! by both ([`Phase::Opening`]), then all seal by the new one ([`Phase::Sealing`]) and what is stored
//! is sealed anew; when nothing is left under the former key, the record of this is forgotten, and with it
//! the way from the former key to the new one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{MasterKey, MasterSeal};
use crate::entropy::Entropy;
use crate::secret::Sealer as _;
use crate::time::Timestamp;

const TO: &str = "master_key.to";
const FROM: &str = "master_key.from";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Both keys open; the former one seals.
    Opening,
    /// Both keys open; the new one seals.
    Sealing,
}

/// The record that nodes follow. The keys in it are sealed under one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Names the former key.
    pub from: String,
    /// Names the new key.
    pub to: String,
    pub phase: Phase,
    pub begun_at: Timestamp,
    /// In hexadecimal, as is the next.
    to_under_from: String,
    from_under_to: String,
}

/// Why a node cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoverFault {
    #[error("both are the same key: {0}")]
    Same(String),
    #[error(
        "the master key here is {mine}, but the values in the database are handed from {from} over to {to}: \
         give this node one of those"
    )]
    Stranger {
        mine: String,
        from: String,
        to: String,
    },
    #[error("the record of the change from master key {from} to {to} is damaged")]
    Damaged { from: String, to: String },
}

impl Handover {
    /// Begins one.
    ///
    /// # Errors
    /// [`HandoverFault::Same`].
    pub fn begin(
        from: &MasterKey,
        to: &MasterKey,
        entropy: &Arc<dyn Entropy>,
        now: Timestamp,
    ) -> Result<Self, HandoverFault> {
        if from.id() == to.id() {
            return Err(HandoverFault::Same(to.name()));
        }
        let seal = |key: &MasterKey, place, other: &MasterKey| {
            let seal = MasterSeal::new(key, Arc::clone(entropy));
            hex::encode(seal.seal(place, other.bytes()))
        };
        Ok(Self {
            from: from.name(),
            to: to.name(),
            phase: Phase::Opening,
            begun_at: now,
            to_under_from: seal(from, TO, to),
            from_under_to: seal(to, FROM, from),
        })
    }

    /// The key that the holder of `mine` lacks.
    ///
    /// # Errors
    /// [`HandoverFault::Stranger`], [`HandoverFault::Damaged`].
    pub fn other(
        &self,
        mine: &MasterKey,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<MasterKey, HandoverFault> {
        let name = mine.name();
        let (place, sealed, expected) = if name == self.from {
            (TO, &self.to_under_from, &self.to)
        } else if name == self.to {
            (FROM, &self.from_under_to, &self.from)
        } else {
            return Err(HandoverFault::Stranger {
                mine: name,
                from: self.from.clone(),
                to: self.to.clone(),
            });
        };
        let damaged = || HandoverFault::Damaged {
            from: self.from.clone(),
            to: self.to.clone(),
        };
        let seal = MasterSeal::new(mine, Arc::clone(entropy));
        let sealed = hex::decode(sealed).map_err(|_| damaged())?;
        let opened = Zeroizing::new(seal.open(place, &sealed).map_err(|_| damaged())?);
        let other = MasterKey::from_bytes(&opened).ok_or_else(damaged)?;
        match other.name() == *expected {
            true => Ok(other),
            false => Err(damaged()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn entropy() -> Arc<dyn Entropy> {
        Arc::new(SeededEntropy::new(4))
    }

    fn key(seed: u64) -> MasterKey {
        MasterKey::make(&SeededEntropy::new(seed))
    }

    fn begun() -> Handover {
        Handover::begin(&key(1), &key(2), &entropy(), Timestamp::from_millis(0)).expect("begun")
    }

    #[test]
    fn whoever_has_one_key_gets_the_other() {
        let handover = begun();
        let text = serde_json::to_string(&handover).expect("JSON");
        let handover: Handover = serde_json::from_str(&text).expect("as written");
        let other = |mine| handover.other(&key(mine), &entropy());
        assert_eq!(other(1).expect("the new one").id(), key(2).id());
        assert_eq!(other(2).expect("the former").id(), key(1).id());
        assert!(matches!(other(3), Err(HandoverFault::Stranger { .. })));
        for seed in [1, 2] {
            assert!(!text.contains(key(seed).text().expose().trim()));
        }
    }

    #[test]
    fn a_key_does_not_follow_itself() {
        let same = Handover::begin(&key(1), &key(1), &entropy(), Timestamp::from_millis(0));
        assert_eq!(same, Err(HandoverFault::Same(key(1).name())));
    }

    #[test]
    fn a_record_that_was_changed_is_not_followed() {
        let damaged = |handover: &Handover, mine| {
            matches!(
                handover.other(&key(mine), &entropy()),
                Err(HandoverFault::Damaged { .. })
            )
        };
        let mut swapped = begun();
        std::mem::swap(&mut swapped.to_under_from, &mut swapped.from_under_to);
        assert!(damaged(&swapped, 1) && damaged(&swapped, 2));
        let mut renamed = begun();
        renamed.to = key(3).name();
        assert!(damaged(&renamed, 1));
        let mut flipped = begun();
        let last = if flipped.to_under_from.pop() == Some('0') {
            '1'
        } else {
            '0'
        };
        flipped.to_under_from.push(last);
        assert!(damaged(&flipped, 1) && !damaged(&flipped, 2));
    }
}
