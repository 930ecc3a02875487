//! Nonces: how they are made, and what a freshness code says about when a statement was made.
//!
//! Scheme `transcript-v1`: the nonce is SHA-256 over length-prefixed fields, minted in the moment a
//! command is handed over. The inputs are stored first and published with the evidence, so that
//! anyone can recompute the code in Apple's certificate.

use serde::{Deserialize, Serialize};

use crate::ids::{CommandUuid, DeviceId, sha256, transcript};
use crate::time::Timestamp;

/// How a nonce was derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = NonceScheme)]
pub enum Scheme {
    /// [`NonceInputs::nonce`].
    #[serde(rename = "transcript-v1")]
    TranscriptV1,
    /// SHA-256 of the Secure Enclave key's base64 text: the historic coordinator's constant nonce.
    #[serde(rename = "legacy-se-sha256")]
    LegacySeSha256,
}

/// The inputs of a `transcript-v1` nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NonceInputs {
    /// This service's canonical name.
    pub server_id: String,
    pub device_id: DeviceId,
    pub command_uuid: CommandUuid,
    pub minted_at: Timestamp,
    /// The provider's Secure Enclave key as the base64 text it was given in; empty when none.
    pub se_public_key: String,
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
            Self::LegacySeSha256 => "legacy-se-sha256",
        }
    }

    /// The scheme with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::TranscriptV1, Self::LegacySeSha256]
            .into_iter()
            .find(|s| s.as_str() == word)
    }
}

impl NonceInputs {
    /// The 32-byte nonce: SHA-256 over tag, server id, device id, CommandUUID, minted_at (decimal
    /// milliseconds since 1970) and SE key text, each prefixed with its length as 4 bytes, big
    /// endian.
    pub fn nonce(&self) -> [u8; 32] {
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
/// Apple's, which is never later than the statement, is all that says when they were made.
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
    use super::*;
    use crate::entropy::SeededEntropy;

    fn inputs() -> NonceInputs {
        NonceInputs {
            server_id: "mdm.example".into(),
            device_id: DeviceId::parse("dev_01J8ZQ4Z0000000000000000AB").expect("valid"),
            command_uuid: CommandUuid::new(&SeededEntropy::new(1)),
            minted_at: Timestamp::from_millis(1_790_847_007_000),
            se_public_key: String::new(),
        }
    }

    fn minted(inputs: NonceInputs) -> Minted {
        Minted {
            nonce: inputs.nonce(),
            scheme: Scheme::TranscriptV1,
            inputs,
        }
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
        for scheme in [Scheme::TranscriptV1, Scheme::LegacySeSha256] {
            assert_eq!(Scheme::from_word(scheme.as_str()), Some(scheme));
        }
        assert_eq!(Scheme::from_word("secret-seed"), None);
    }
}
