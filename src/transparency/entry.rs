//! What stands in the log: that something was said, not what. No entry names a Mac or a person; a subject is
//! a salted pseudonym, which its provider can open.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::time::Timestamp;

/// Version of the entries.
const VERSION: u8 = 1;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A result was signed: SHA-256 of the token's text.
    Posture {
        subject: String,
        ear_sha256: [u8; 32],
    },
    /// Trust in a Mac was withdrawn; the epoch rises each time.
    Revocation { subject: String, epoch: u64 },
    /// A policy came into use: SHA-256 of its text in hexadecimal, as its URL has it.
    Policy { id: String, sha256: String },
    /// The keys that results are signed by changed: SHA-256 of their history, as it is served.
    Jwks { sha256: [u8; 32] },
    /// A release of the provider software was registered, or withdrawn.
    Release {
        version: String,
        platform: String,
        binary_hash: String,
        revoked: bool,
    },
    /// Nothing else was said for a while: the head is of this time.
    Time,
}

impl Entry {
    /// JSON with its names sorted: the same words give the same bytes.
    pub fn encode(&self, now: Timestamp) -> Vec<u8> {
        let (kind, mut members) = match self {
            Self::Posture {
                subject,
                ear_sha256,
            } => (
                "posture",
                vec![
                    ("subject", json!(subject)),
                    ("ear_sha256", json!(hex::encode(ear_sha256))),
                ],
            ),
            Self::Revocation { subject, epoch } => (
                "revocation",
                vec![("subject", json!(subject)), ("epoch", json!(epoch))],
            ),
            Self::Policy { id, sha256 } => {
                ("policy", vec![("id", json!(id)), ("sha256", json!(sha256))])
            }
            Self::Jwks { sha256 } => ("jwks", vec![("sha256", json!(hex::encode(sha256)))]),
            Self::Release {
                version,
                platform,
                binary_hash,
                revoked,
            } => (
                "release",
                vec![
                    ("version", json!(version)),
                    ("platform", json!(platform)),
                    ("binary_hash", json!(binary_hash)),
                    ("revoked", json!(revoked)),
                ],
            ),
            Self::Time => ("time", Vec::new()),
        };
        members.extend([
            ("v", json!(VERSION)),
            ("type", json!(kind)),
            ("iat", json!(now.millis().div_euclid(1000))),
        ]);
        let members: BTreeMap<&str, Value> = members.into_iter().collect();
        json!(members).to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry of the bundle among the fixtures, byte by byte.
    #[test]
    fn an_entry_has_one_form() {
        let ear = "11c19de6772b7c1f40d08eb3baafbf285fc961909789e1d00df0a1b44f884bc2";
        let entry = Entry::Posture {
            subject: "USwOdTrPPCeO0aao7hC0TNjuDGPOBeCSiBu-t3oJG-I".to_owned(),
            ear_sha256: hex::decode(ear).expect("hex").try_into().expect("32 bytes"),
        };
        let expected = format!(
            r#"{{"ear_sha256":"{ear}","iat":1789905600,"subject":"USwOdTrPPCeO0aao7hC0TNjuDGPOBeCSiBu-t3oJG-I","type":"posture","v":1}}"#
        );
        let encoded = entry.encode(Timestamp::from_millis(1_789_905_600_999));
        assert_eq!(String::from_utf8(encoded), Ok(expected));
    }
}
