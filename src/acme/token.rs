//! Challenge tokens that commit to a key, and the identifier of a ticket that names no Mac.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::octets;
use crate::entropy::{Entropy, draw};
use crate::ids::{sha256, transcript};

/// The inputs of an `acme-token-v1`: kept, so that they can be published with the evidence.
///
/// Apple puts SHA-256 of the token's text into the leaf, so the leaf names the Secure Enclave key
/// that the ticket named, on the day of enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInputs {
    /// What makes the token unguessable and new.
    #[serde(with = "octets")]
    pub random: [u8; 32],
    /// The provider's Secure Enclave key as the base64 text it was given in; empty when none.
    pub se_public_key: String,
}

impl TokenInputs {
    /// Inputs for a new challenge.
    pub(super) fn draw(se_public_key: Option<&str>, entropy: &dyn Entropy) -> Self {
        Self {
            random: draw(entropy),
            se_public_key: se_public_key.unwrap_or_default().to_owned(),
        }
    }

    /// The token: base64url, without padding, of SHA-256 over tag, random bytes and SE key text,
    /// each prefixed with its length as 4 bytes, big endian. 43 characters.
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(sha256(&transcript(&[
            b"attestd-acme-token-v1",
            &self.random,
            self.se_public_key.as_bytes(),
        ])))
    }
}

/// The ClientIdentifier in the profile of a ticket that is bound to no serial number: 32 base64url
/// characters that only who has the ticket's secret can know, and that say nothing about it.
pub fn identifier(secret: &str) -> String {
    let code = sha256(&transcript(&[
        b"attestd-acme-identifier-v1",
        secret.as_bytes(),
    ]));
    URL_SAFE_NO_PAD.encode(&code[..24])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_token_is_what_an_auditor_recomputes() {
        let inputs = TokenInputs {
            random: [7; 32],
            se_public_key: "BKey".into(),
        };
        let mut transcript = b"\0\0\0\x15attestd-acme-token-v1\0\0\0\x20".to_vec();
        transcript.extend_from_slice(&[7; 32]);
        transcript.extend_from_slice(b"\0\0\0\x04BKey");
        assert_eq!(inputs.token(), URL_SAFE_NO_PAD.encode(sha256(&transcript)));
        assert_eq!(inputs.token().len(), 43);
    }

    #[test]
    fn random_bytes_and_key_each_change_the_token() {
        let entropy = SeededEntropy::new(1);
        let first = TokenInputs::draw(None, &entropy);
        let second = TokenInputs::draw(None, &entropy);
        let named = TokenInputs {
            se_public_key: "BKey".into(),
            ..first.clone()
        };
        assert_ne!(first.token(), second.token());
        assert_ne!(first.token(), named.token());
        let text = serde_json::to_string(&named).expect("JSON");
        assert_eq!(
            serde_json::from_str::<TokenInputs>(&text).expect("reads back"),
            named
        );
    }

    #[test]
    fn the_identifier_belongs_to_the_secret_and_does_not_show_it() {
        let code = identifier("s3cret-of-a-ticket");
        assert_eq!(code.len(), 32);
        assert_eq!(code, identifier("s3cret-of-a-ticket"));
        assert_ne!(code, identifier("s3cret-of-another"));
        assert!(!"s3cret-of-a-ticket".contains(&code));
    }
}
