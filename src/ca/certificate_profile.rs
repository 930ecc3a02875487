//! The kinds of certificates we issue.

use std::time::Duration;

use const_oid::ObjectIdentifier;

use super::IssuanceError;
use crate::pki::{KeyAlgorithm, name, oid};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateKind {
    /// Signs all others; self-signed, with no authority below it. P-256 or P-384.
    DeviceAuthority,
    /// Receives and answers SCEP messages. RSA, because requests are encrypted to it
    /// (apple-protocol 8.1).
    RegistrationAuthority,
    /// The identity a Mac signs its messages with.
    DeviceIdentity,
    /// Signs enrollment profiles.
    ProfileSigner,
}

/// A certificate to be: everything but its key, its serial number and the present time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProfile {
    /// What it is for.
    pub kind: CertificateKind,
    /// The subject's common name, chosen by the server. 1 to 64 characters.
    pub common_name: String,
    /// The subject's organization. 1 to 64 characters.
    pub organization: String,
    /// How long it is valid, from the present time.
    pub validity: Duration,
    /// How far its validity begins in the past, for clocks that are behind.
    pub backdated: Duration,
}

/// RFC 5280 appendix A.1: ub-common-name, ub-organization-name.
const MAX_NAME: usize = 64;

/// Bits of the keyUsage extension (RFC 5280 section 4.2.1.3) as its first octet has them.
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_ENCIPHERMENT: u8 = 0x20;
const KEY_CERT_SIGN: u8 = 0x04;
const CRL_SIGN: u8 = 0x02;

impl CertificateKind {
    /// Whether a certificate of this kind may have such a key.
    pub fn accepts(self, key: KeyAlgorithm) -> bool {
        use {CertificateKind as Kind, KeyAlgorithm as Key};
        match (self, key) {
            (Kind::DeviceAuthority, Key::P256 | Key::P384) => true,
            (Kind::DeviceAuthority, Key::Rsa { .. }) => false,
            (Kind::RegistrationAuthority, Key::Rsa { bits }) => bits == 2048,
            (Kind::RegistrationAuthority, Key::P256 | Key::P384) => false,
            // Larger keys would only make every message of the Mac dearer to verify.
            (Kind::DeviceIdentity, Key::Rsa { bits }) => (2048..=4096).contains(&bits),
            (Kind::DeviceIdentity, Key::P256 | Key::P384) => true,
            (Kind::ProfileSigner, Key::Rsa { bits }) => (2048..=4096).contains(&bits),
            (Kind::ProfileSigner, Key::P256 | Key::P384) => true,
        }
    }

    /// Whether it is an authority.
    pub fn is_authority(self) -> bool {
        self == Self::DeviceAuthority
    }

    /// Its keyUsage, as the first octet of the bit string.
    pub fn key_usage(self, key: KeyAlgorithm) -> u8 {
        match (self, key) {
            (Self::DeviceAuthority, _) => KEY_CERT_SIGN | CRL_SIGN,
            (Self::RegistrationAuthority, _) | (Self::DeviceIdentity, KeyAlgorithm::Rsa { .. }) => {
                DIGITAL_SIGNATURE | KEY_ENCIPHERMENT
            }
            (Self::DeviceIdentity, KeyAlgorithm::P256 | KeyAlgorithm::P384)
            | (Self::ProfileSigner, _) => DIGITAL_SIGNATURE,
        }
    }

    /// Its only extended key usage: what tells a Mac's identity from our own certificates.
    pub fn extended_key_usage(self) -> Option<ObjectIdentifier> {
        match self {
            Self::DeviceIdentity => Some(oid::CLIENT_AUTH),
            Self::DeviceAuthority | Self::RegistrationAuthority | Self::ProfileSigner => None,
        }
    }
}

impl CertificateProfile {
    /// The subject, as DER.
    pub fn subject(&self) -> Result<Vec<u8>, IssuanceError> {
        for text in [&self.common_name, &self.organization] {
            let length = text.chars().count();
            if !(1..=MAX_NAME).contains(&length) || text.chars().any(char::is_control) {
                return Err(IssuanceError::SubjectRejected);
            }
        }
        Ok(name::compose(&[
            (oid::ORGANIZATION, &self.organization),
            (oid::COMMON_NAME, &self.common_name),
        ]))
    }
}
