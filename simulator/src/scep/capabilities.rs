//! What the server says it can do, and which certificates speak for it.

use openssl::hash::{MessageDigest, hash};
use openssl::pkcs7::Pkcs7;
use openssl::pkey::Id;
use openssl::x509::X509;

use super::ScepError;
use crate::certs;
use crate::cms::SignatureDigest;

/// Envelope ciphers. macOS knows the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    Aes128Cbc,
    Aes192Cbc,
    Aes256Cbc,
    TripleDesCbc,
}

/// What is used with this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub cipher: Cipher,
    pub digest: SignatureDigest,
    pub post: bool,
}

impl Capabilities {
    /// From GetCACaps's text. Lines end with LF exactly: with CRLF no word is recognised and the
    /// weakest choice remains (apple-protocol 8.1).
    pub fn from_text(text: &str) -> Self {
        let has = |word: &str| text.split('\n').any(|line| line == word);
        let standard = has("SCEPStandard");
        let digest = if has("SHA-512") {
            SignatureDigest::Sha512
        } else if has("SHA-256") || standard {
            SignatureDigest::Sha256
        } else {
            SignatureDigest::Sha1
        };
        let cipher = if has("AES") || standard {
            Cipher::Aes128Cbc
        } else {
            Cipher::TripleDesCbc
        };
        Self {
            cipher,
            digest,
            post: has("POSTPKIOperation") || standard,
        }
    }
}

/// The certificates the client talks to: who signs replies, and whom it encrypts for.
#[derive(Debug, Clone)]
pub struct Authority {
    pub signer: X509,
    pub recipient: X509,
    /// The certificate authority itself.
    pub ca: X509,
}

impl Authority {
    /// From a GetCACert answer with its exact content type.
    pub fn from_answer(content_type: &str, body: &[u8]) -> Result<Self, ScepError> {
        let found = match content_type {
            "application/x-x509-ca-cert" => {
                let ca = X509::from_der(body).map_err(|_| ScepError::CaUnreadable)?;
                Self {
                    signer: ca.clone(),
                    recipient: ca.clone(),
                    ca,
                }
            }
            "application/x-x509-ca-ra-cert" => Self::from_degenerate(body)?,
            other => return Err(ScepError::CaContentType(other.to_owned())),
        };
        if found.recipient.public_key()?.id() != Id::RSA {
            return Err(ScepError::RecipientNotRsa);
        }
        Ok(found)
    }

    /// Picks the registration authority's certificates by key usage: one for both, or one each.
    fn from_degenerate(body: &[u8]) -> Result<Self, ScepError> {
        let message = Pkcs7::from_der(body).map_err(|_| ScepError::CaUnreadable)?;
        let certificates: Vec<X509> = message
            .signed()
            .and_then(|signed| signed.certificates())
            .map(|stack| stack.iter().map(ToOwned::to_owned).collect())
            .unwrap_or_default();
        let (mut ca, mut both, mut signer, mut recipient) = (None, None, None, None);
        for certificate in certificates {
            if certs::is_ca(&certificate)? {
                ca.get_or_insert(certificate);
                continue;
            }
            match certs::key_usage(&certificate)? & 0xa0 {
                0xa0 => both.get_or_insert(certificate),
                0x80 => signer.get_or_insert(certificate),
                0x20 => recipient.get_or_insert(certificate),
                _ => continue,
            };
        }
        let ca = ca.ok_or(ScepError::CaUnreadable)?;
        let signer = both.clone().or(signer).unwrap_or_else(|| ca.clone());
        let recipient = both.or(recipient).unwrap_or_else(|| ca.clone());
        if certs::key_usage(&recipient)? & 0x20 == 0 {
            return Err(ScepError::NoRecipient);
        }
        Ok(Self {
            signer,
            recipient,
            ca,
        })
    }

    /// Compares the profile's CAFingerprint, whose length says the hash.
    pub fn matches_fingerprint(&self, expected: &[u8]) -> Result<bool, ScepError> {
        let digest = match expected.len() {
            16 => MessageDigest::md5(),
            20 => MessageDigest::sha1(),
            28 => MessageDigest::sha224(),
            32 => MessageDigest::sha256(),
            48 => MessageDigest::sha384(),
            64 => MessageDigest::sha512(),
            _ => return Ok(false),
        };
        Ok(*hash(digest, &self.ca.to_der()?)? == *expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::Issuer;
    use crate::keys::KeyKind;

    #[test]
    fn capabilities_are_lines_ended_by_lf_only() {
        let micromdm = "Renewal\nSHA-1\nSHA-256\nAES\nDES3\nSCEPStandard\nPOSTPKIOperation";
        let strong = Capabilities {
            cipher: Cipher::Aes128Cbc,
            digest: SignatureDigest::Sha256,
            post: true,
        };
        let weak = Capabilities {
            cipher: Cipher::TripleDesCbc,
            digest: SignatureDigest::Sha1,
            post: false,
        };
        assert_eq!(Capabilities::from_text(micromdm), strong);
        assert_eq!(
            Capabilities::from_text("AES\r\nSHA-256\r\nPOSTPKIOperation\r\n"),
            weak
        );
        assert_eq!(Capabilities::from_text(""), weak);
        assert_eq!(
            Capabilities::from_text("SHA-512\nSHA-1").digest,
            SignatureDigest::Sha512
        );
    }

    #[test]
    fn content_types_are_compared_exactly_and_the_recipient_must_be_rsa() {
        let now = crate::clock::Clock::system().now_ms();
        let ec = Issuer::root("EC CA", "Test", KeyKind::P256, now)
            .unwrap()
            .identity
            .certificate;
        let der = ec.to_der().unwrap();
        let refused = |kind| Authority::from_answer(kind, &der);
        assert!(matches!(
            refused("application/x-x509-ca-cert"),
            Err(ScepError::RecipientNotRsa)
        ));
        assert!(matches!(
            refused("application/x-x509-ca-cert; charset=utf-8"),
            Err(ScepError::CaContentType(_))
        ));
        assert!(matches!(
            refused("application/x-x509-ca-ra-cert"),
            Err(ScepError::CaUnreadable)
        ));
    }

    #[test]
    fn the_captured_authority_is_read() {
        let der = include_bytes!("../../fixtures/scep-getcacert.der");
        let read = Authority::from_answer("application/x-x509-ca-cert", der).unwrap();
        assert!(
            read.matches_fingerprint(&openssl::sha::sha256(der))
                .unwrap()
        );
        assert!(!read.matches_fingerprint(&[0; 20]).unwrap());
    }
}
