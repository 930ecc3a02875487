//! The public feed: every provider with a session, for anybody to read and to check.
//!
//! The fields of the historic coordinator keep their names and meanings, so that its readers go on
//! (coordinator-and-standards A.10); what was added are further members. Nothing in it changes with
//! each challenge, so that a provider of whom nothing is new is written, compressed and sent once.

mod entry;
pub mod examine;
mod judged;
pub mod reader;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::entry::{Chain, FeedV1, Listing, Signed, Verification, closing, opening};
pub use self::judged::Judged;
use crate::attestation::Anchor;
use crate::ids::{sha256, transcript};
use crate::posture::policy::Policy;
use crate::provider::SePoint;

/// How much the feed says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disclosure {
    /// Everything that an outsider needs to check it, serial numbers among it.
    #[default]
    Full,
    /// Nothing that a serial number can be had from: it stands in Apple's leaf and in the provider's
    /// blob. The signature over the blob goes, too: with everything else known, a serial number can
    /// be guessed until the signature fits.
    Redacted,
}

/// The name of a provider in public: made from its Secure Enclave key, which the feed shows anyway,
/// and so the same for every session of the key, and nobody's device id or serial number. A UUID, as
/// the historic coordinator gave them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[schema(value_type = String)]
#[serde(transparent)]
pub struct ProviderId(String);

/// What holds for the whole feed.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The canonical base URL of this service.
    pub server_id: &'a str,
    pub disclosure: Disclosure,
    pub policy: &'a Policy,
    pub anchor: Anchor,
}

impl ProviderId {
    /// The name of a key's provider at this service: the first 16 bytes of SHA-256 over tag, server id
    /// and the 64 bytes `X‖Y`, each after its length as 4 bytes big endian, as a UUID of version 8
    /// (RFC 9562 section 5.8).
    pub fn of(server_id: &str, key: &SePoint) -> Self {
        let fields: [&[u8]; 3] = [
            b"attestd-provider-id-v1",
            server_id.as_bytes(),
            key.as_bytes(),
        ];
        let mut digest = sha256(&transcript(&fields));
        digest[6] = digest[6] & 0x0f | 0x80;
        digest[8] = digest[8] & 0x3f | 0x80;
        let text = hex::encode(&digest[..16]);
        let groups = [
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..],
        ];
        Self(groups.join("-"))
    }

    /// A name as somebody gives it; whether there is such a provider is another question. `None` if it
    /// has not the form.
    pub fn parse(text: &str) -> Option<Self> {
        let is_form = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
            });
        is_form.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";

    #[test]
    fn a_provider_has_the_name_that_anybody_can_make_from_its_key() {
        let key = SePoint::read(KEY).expect("a key");
        let name = ProviderId::of("https://mdm.example.org", &key);
        assert_eq!(name.as_str(), "1dd215a3-d735-8a6f-9866-5aea7fc8911b");
        assert_eq!(ProviderId::parse(name.as_str()), Some(name.clone()));
        assert_ne!(ProviderId::of("https://mdm.example.com", &key), name);
    }

    #[test]
    fn what_is_no_name_is_nobodys() {
        let good = "6f0c0f5e-2b5e-8a41-9f1a-000000000001";
        assert!(ProviderId::parse(good).is_some());
        for bad in [
            "",
            &good[1..],
            &good.to_uppercase(),
            &good.replace('-', "0"),
            &good.replace('f', "-"),
            "6f0c0f5e-2b5e-8a41-9f1a-00000000000é",
        ] {
            assert!(ProviderId::parse(bad).is_none(), "{bad}");
        }
    }
}
