//! Nonces: how they are made, and what a freshness code says about when a statement was made.
//!
//! Scheme `transcript-v1`: the nonce is SHA-256 over length-prefixed fields, minted in the moment a
//! command is handed over. The inputs are stored first and published with the evidence, so that
//! anyone can recompute the code in Apple's certificate.
//!
//! Scheme `beacon-v2` (coordinator-and-standards C.6): the nonce is made from a head of the transparency
//! log. That it was not known before that head need not be believed of this service, and it is known to
//! all from then on: whoever counts the age of a statement by it counts from the head.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{CommandUuid, DeviceId, sha256, transcript};
use crate::time::Timestamp;

/// How a nonce was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = NonceScheme)]
pub enum Scheme {
    /// From the name and the time of the question; see [`NonceInputs::mint`].
    #[serde(rename = "transcript-v1")]
    TranscriptV1,
    /// As [`Scheme::TranscriptV1`], from a head of the transparency log and the key only.
    #[serde(rename = "beacon-v2")]
    BeaconV2,
    /// SHA-256 of the Secure Enclave key's base64 text: the historic coordinator's constant nonce.
    #[serde(rename = "legacy-se-sha256")]
    LegacySeSha256,
}

/// A head of the transparency log, before which nobody knew the nonces that are made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The log's name.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// 32 bytes in base64.
    #[serde(serialize_with = "as_base64", deserialize_with = "from_base64")]
    pub root: [u8; 32],
    /// When the last of them was added, as that entry says (`iat`).
    pub head_at: Timestamp,
}

fn as_base64<S: Serializer>(root: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(root))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(from)?;
    let root = STANDARD.decode(text).map_err(de::Error::custom)?;
    let length = root.len();
    root.try_into()
        .map_err(|_| de::Error::invalid_length(length, &"32 bytes"))
}

/// What a nonce is made from: with a head of the log by `beacon-v2`, without one by `transcript-v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceInputs {
    /// This service's canonical name.
    pub server_id: String,
    pub device_id: DeviceId,
    pub command_uuid: CommandUuid,
    pub minted_at: Timestamp,
    /// The provider's Secure Enclave key as the base64 text it was given in; empty when none.
    pub se_public_key: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Beacon>,
}

/// What the freshness code in a leaf says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "class")]
pub enum Freshness {
    /// It is the nonce of the very command that was answered.
    Fresh {
        minted_at: Timestamp,
        se_public_key: String,
    },
    /// It is an earlier nonce of this service for this Mac: Apple answered from its seven-day
    /// cache. The statement is as old as that nonce.
    CachedKnown {
        minted_at: Timestamp,
        se_public_key: String,
    },
    /// It is no nonce this service ever handed to this Mac: nothing says how old it is.
    Unrecognized,
    /// The leaf carries no freshness code.
    Absent,
}

/// A nonce once handed to a Mac: one entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minted {
    pub nonce: [u8; 32],
    pub scheme: Scheme,
    pub inputs: NonceInputs,
}

impl Scheme {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TranscriptV1 => "transcript-v1",
            Self::BeaconV2 => "beacon-v2",
            Self::LegacySeSha256 => "legacy-se-sha256",
        }
    }

    /// The scheme with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::TranscriptV1, Self::BeaconV2, Self::LegacySeSha256]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

impl Beacon {
    /// The 32-byte nonce: SHA-256 over the tag, a zero byte, the length of the origin as 2 bytes, the
    /// origin, the size as 8 bytes, the root, and the key's text; big endian. `None` when the origin is too
    /// long.
    pub fn nonce(&self, se_public_key: &str) -> Option<[u8; 32]> {
        let length = u16::try_from(self.origin.len()).ok()?;
        let parts: [&[u8]; 7] = [
            b"darkbloom-mda-nonce-v2",
            &[0],
            &length.to_be_bytes(),
            self.origin.as_bytes(),
            &self.size.to_be_bytes(),
            &self.root,
            se_public_key.as_bytes(),
        ];
        Some(sha256(&parts.concat()))
    }
}

impl NonceInputs {
    /// These, or those of `transcript-v1` where a head cannot be used.
    pub fn mint(mut self) -> Minted {
        let by_head = |beacon: &Beacon| beacon.nonce(&self.se_public_key);
        if let Some(nonce) = self.beacon.as_ref().and_then(by_head) {
            return Minted {
                nonce,
                scheme: Scheme::BeaconV2,
                inputs: self,
            };
        }
        self.beacon = None;
        Minted {
            nonce: self.nonce(),
            scheme: Scheme::TranscriptV1,
            inputs: self,
        }
    }

    /// The 32-byte nonce of `transcript-v1`: SHA-256 over tag, server id, device id, CommandUUID, minted_at (decimal
    /// milliseconds since 1970) and SE key text, each prefixed with its length as 4 bytes, big
    /// endian.
    fn nonce(&self) -> [u8; 32] {
        let minted_at = self.minted_at.millis().to_string();
        let fields = [
            "attestd-nonce-transcript-v1",
            &self.server_id,
            self.device_id.as_str(),
            self.command_uuid.as_str(),
            &minted_at,
            &self.se_public_key,
        ];
        sha256(&transcript(&fields.map(str::as_bytes)))
    }
}

impl Freshness {
    /// When Apple can first have made the statement; `None` when nothing says so.
    pub fn minted_at(&self) -> Option<Timestamp> {
        match self {
            Self::Fresh { minted_at, .. } | Self::CachedKnown { minted_at, .. } => Some(*minted_at),
            Self::Unrecognized | Self::Absent => None,
        }
    }

    /// The provider's Secure Enclave key that the nonce was made from, as the text it was given in;
    /// `None` when it was made from none.
    pub fn se_public_key(&self) -> Option<&str> {
        match self {
            Self::Fresh { se_public_key, .. } | Self::CachedKnown { se_public_key, .. } => {
                Some(se_public_key.as_str()).filter(|key| !key.is_empty())
            }
            Self::Unrecognized | Self::Absent => None,
        }
    }
}

/// Compares the freshness code of an answer with what was asked.
///
/// `asked` is the nonce of the answered command, `ledger` any earlier nonce of this Mac that
/// equals the code; `not_before` is the date in the leaf. A constant nonce was known before it was
/// handed over, so that a statement for it may be older than the question: of those the date of
/// Apple's, which is never later than the statement, is all that says when they were made. One that is
/// made from a head of the log was known since that head.
pub fn classify(
    code: Option<&[u8]>,
    asked: Option<&Minted>,
    ledger: Option<&Minted>,
    not_before: Timestamp,
) -> Freshness {
    let Some(code) = code else {
        return Freshness::Absent;
    };
    let stated = |minted: &Minted| {
        let minted_at = match minted.scheme {
            Scheme::TranscriptV1 => minted.inputs.minted_at,
            Scheme::BeaconV2 => {
                let head_at = minted.inputs.beacon.as_ref().map(|head| head.head_at);
                minted.inputs.minted_at.min(head_at.unwrap_or(not_before))
            }
            Scheme::LegacySeSha256 => minted.inputs.minted_at.min(not_before),
        };
        (minted_at, minted.inputs.se_public_key.clone())
    };
    match (asked, ledger) {
        (Some(minted), _) if minted.nonce == code => {
            let (minted_at, se_public_key) = stated(minted);
            Freshness::Fresh {
                minted_at,
                se_public_key,
            }
        }
        (_, Some(minted)) if minted.nonce == code => {
            let (minted_at, se_public_key) = stated(minted);
            Freshness::CachedKnown {
                minted_at,
                se_public_key,
            }
        }
        _ => Freshness::Unrecognized,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::entropy::SeededEntropy;

    const MINUTE: Duration = Duration::from_secs(60);

    fn inputs() -> NonceInputs {
        NonceInputs {
            server_id: "mdm.example".into(),
            device_id: DeviceId::parse("dev_01J8ZQ4Z0000000000000000AB").expect("valid"),
            command_uuid: CommandUuid::new(&SeededEntropy::new(1)),
            minted_at: Timestamp::from_millis(1_790_847_007_000),
            se_public_key: String::new(),
            beacon: None,
        }
    }

    fn minted(inputs: NonceInputs) -> Minted {
        inputs.mint()
    }

    fn by_head(head_at: Timestamp) -> NonceInputs {
        NonceInputs {
            se_public_key: "BKey".into(),
            beacon: Some(Beacon {
                origin: "log.example".into(),
                size: 7,
                root: [9; 32],
                head_at,
            }),
            ..inputs()
        }
    }

    #[test]
    fn a_nonce_by_a_head_of_the_log_is_what_an_auditor_recomputes() {
        let minted = by_head(inputs().minted_at).mint();
        assert_eq!(minted.scheme, Scheme::BeaconV2);
        let bytes = [
            b"darkbloom-mda-nonce-v2\0\0\x0blog.example\0\0\0\0\0\0\0\x07".as_slice(),
            &[9; 32],
            b"BKey",
        ];
        assert_eq!(minted.nonce, sha256(&bytes.concat()));
        // Published side by side, and read again as they were.
        let published = serde_json::to_value(&minted.inputs).expect("JSON");
        assert_eq!(published["size"], 7);
        assert_eq!(
            published["root"],
            "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
        );
        let read: NonceInputs = serde_json::from_value(published).expect("inputs");
        assert_eq!(read, minted.inputs);
    }

    #[test]
    fn a_statement_for_a_head_is_as_old_as_the_head() {
        let asked_at = inputs().minted_at;
        let head_at = Timestamp::from_millis(asked_at.millis() - 600_000);
        for (head_at, counts_from) in [(head_at, head_at), (asked_at.plus(MINUTE), asked_at)] {
            let minted = by_head(head_at).mint();
            let code = Some(&minted.nonce[..]);
            let fresh = classify(code, Some(&minted), None, asked_at);
            assert!(matches!(fresh, Freshness::Fresh { .. }));
            assert_eq!(fresh.minted_at(), Some(counts_from));
            let known = classify(code, None, Some(&minted), asked_at);
            assert!(matches!(known, Freshness::CachedKnown { .. }));
            assert_eq!(known.minted_at(), Some(counts_from));
        }
    }

    #[test]
    fn a_head_whose_log_has_no_name_of_that_length_makes_no_nonce() {
        let mut inputs = by_head(inputs().minted_at);
        let beacon = inputs.beacon.as_mut().expect("a head");
        beacon.origin = "x".repeat(65_536);
        let minted = inputs.mint();
        assert_eq!(
            (minted.scheme, minted.inputs.beacon),
            (Scheme::TranscriptV1, None)
        );
    }

    #[test]
    fn the_transcript_is_what_an_auditor_recomputes() {
        let inputs = NonceInputs {
            command_uuid: CommandUuid::parse("00000000-0000-4000-8000-000000000001")
                .expect("valid"),
            ..inputs()
        };
        let transcript = b"\0\0\0\x1battestd-nonce-transcript-v1\0\0\0\x0bmdm.example\
            \0\0\0\x1edev_01J8ZQ4Z0000000000000000AB\
            \0\0\0\x2400000000-0000-4000-8000-000000000001\
            \0\0\0\x0d1790847007000\0\0\0\0";
        assert_eq!(inputs.nonce(), sha256(transcript));
    }

    #[test]
    fn every_input_changes_the_nonce_and_none_runs_into_the_next() {
        let base = inputs();
        let mut others = vec![base.clone(); 6];
        others[1].server_id.push('x');
        others[2].device_id = DeviceId::new(base.minted_at, &SeededEntropy::new(3));
        others[3].command_uuid = CommandUuid::new(&SeededEntropy::new(4));
        others[4].minted_at = Timestamp::from_millis(1_790_847_007_001);
        others[5].se_public_key = "BKey".into();
        let nonces: std::collections::HashSet<_> = others.iter().map(NonceInputs::nonce).collect();
        assert_eq!(nonces.len(), others.len());
    }

    #[test]
    fn a_code_is_fresh_cached_unrecognized_or_absent() {
        let asked = minted(inputs());
        let earlier = minted(NonceInputs {
            minted_at: Timestamp::from_millis(1_790_000_000_000),
            ..inputs()
        });
        let of = |code: Option<&[u8]>, ledger: Option<&Minted>| {
            classify(code, Some(&asked), ledger, earlier.inputs.minted_at)
        };
        let fresh = of(Some(&asked.nonce), None);
        assert!(matches!(fresh, Freshness::Fresh { .. }));
        assert_eq!(fresh.minted_at(), Some(asked.inputs.minted_at));
        // The ledger holds the nonce of this command too: it is fresh all the same.
        assert_eq!(of(Some(&asked.nonce), Some(&asked)), fresh);
        let cached = of(Some(&earlier.nonce), Some(&earlier));
        assert!(matches!(cached, Freshness::CachedKnown { .. }));
        assert_eq!(cached.minted_at(), Some(earlier.inputs.minted_at));
        assert_eq!(of(Some(&earlier.nonce), None), Freshness::Unrecognized);
        // A ledger entry found for something else vouches for nothing.
        assert_eq!(of(Some(&[7; 32]), Some(&earlier)), Freshness::Unrecognized);
        assert_eq!(of(Some(&asked.nonce[..31]), None), Freshness::Unrecognized);
        assert_eq!(of(Some(b""), None), Freshness::Unrecognized);
        assert_eq!(of(None, Some(&earlier)), Freshness::Absent);
        assert_eq!(Freshness::Absent.minted_at(), None);
    }

    #[test]
    fn a_statement_for_a_constant_nonce_is_as_old_as_apples_date_says() {
        let mut constant = minted(inputs());
        constant.scheme = Scheme::LegacySeSha256;
        let handed_over = constant.inputs.minted_at;
        let earlier = Timestamp::from_millis(1_790_000_000_000);
        let later = Timestamp::from_millis(1_799_000_000_000);
        let code = Some(&constant.nonce[..]);
        let asked = |not_before| classify(code, Some(&constant), None, not_before);
        assert_eq!(asked(earlier).minted_at(), Some(earlier));
        assert_eq!(asked(later).minted_at(), Some(handed_over));
        let known = classify(code, None, Some(&constant), earlier);
        assert!(matches!(known, Freshness::CachedKnown { .. }));
        assert_eq!(known.minted_at(), Some(earlier));
    }

    #[test]
    fn scheme_words_read_back() {
        for scheme in [
            Scheme::TranscriptV1,
            Scheme::BeaconV2,
            Scheme::LegacySeSha256,
        ] {
            assert_eq!(Scheme::from_word(scheme.as_str()), Some(scheme));
        }
        assert_eq!(Scheme::from_word("secret-seed"), None);
    }
}
