//! The pseudonym under which a Mac's results are published.
//!
//! It commits to the provider's Secure Enclave key and tells nothing of it, nor of the Mac: whoever is
//! shown the salt and the key can check that they belong together, and nobody else can (B.7 and C.5 of
//! the coordinator's interface).

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::posture::Posture;

/// How a subject is made, as the evidence bundle says it.
pub const DEFINITION: &str = "base64url(HMAC-SHA256(salt, se_public_key string))";

/// A pseudonym and what opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    text: String,
    salt: [u8; 32],
}

impl Subject {
    /// The subject of a Secure Enclave key, by the base64 text it was given in. `secret` is the
    /// service's own, the same on every node for ever: without it nobody makes the salt.
    pub fn of_key(se_public_key: &str, secret: &[u8; 32]) -> Self {
        let salt = hmac(secret, &[b"key\0", se_public_key.as_bytes()].concat());
        Self {
            text: commitment(&salt, se_public_key),
            salt,
        }
    }

    /// The subject of a Mac: of the provider key that was proved for it last; where there is none, of
    /// the name that this service gave it, which opens for nobody.
    pub fn of_mac(posture: &Posture, secret: &[u8; 32]) -> Self {
        match posture.key_to_name() {
            Some(key) => Self::of_key(&key.se_public_key, secret),
            None => {
                let device_id = posture.device_id.as_str();
                let salt = hmac(secret, &[b"mac\0", device_id.as_bytes()].concat());
                Self {
                    text: commitment(&salt, device_id),
                    salt,
                }
            }
        }
    }

    /// 43 characters of base64url.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Shown, it tells whom the subject names to whoever knows the key.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }
}

/// The subject that a salt opens for a key: what an outsider recomputes.
pub fn commitment(salt: &[u8], se_public_key: &str) -> String {
    URL_SAFE_NO_PAD.encode(hmac(salt, se_public_key.as_bytes()))
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = sign(&Key::new(HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// From the synthetic evidence bundle.
    #[test]
    fn the_commitment_of_the_example_bundle() {
        let salt = STANDARD
            .decode("v9d5sp70OdqiDLZHBhOHFa/IJQR7ofcZE4pEXbtaMUA=")
            .expect("base64");
        let key = "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";
        assert_eq!(
            commitment(&salt, key),
            "USwOdTrPPCeO0aao7hC0TNjuDGPOBeCSiBu-t3oJG-I"
        );
    }

    #[test]
    fn a_subject_opens_with_its_salt_and_differs_by_key_and_by_service() {
        let one = Subject::of_key("one", &[1; 32]);
        assert_eq!(one.as_str(), commitment(one.salt(), "one"));
        assert_ne!(one.as_str(), commitment(one.salt(), "other"));
        assert_ne!(one, Subject::of_key("other", &[1; 32]));
        assert_ne!(one, Subject::of_key("one", &[2; 32]));
        assert_eq!(one.as_str().len(), 43);
        assert_eq!(format!("{one:?}"), one.as_str(), "no salt in logs");
    }
}
