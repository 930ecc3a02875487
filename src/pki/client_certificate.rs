//! A TLS client's certificate, as far as it says who the client is: a SPIFFE ID (X509-SVID, sections 2 to 5), or
//! its public key.
//!
//! Whether the certificate leads to an authority that is trusted is for the TLS handshake to say.

use super::certificate::Certificate;
use super::tlv::{Reader, tag, whole};
use super::{PkiError, oid};
use crate::ids::{CertificateHash, sha256};
use crate::time::Timestamp;

/// uniformResourceIdentifier of a GeneralName, RFC 5280 section 4.2.1.6.
const URI: u8 = tag::context(6);
/// The longest SPIFFE ID (SPIFFE-ID section 2.3).
const LONGEST_ID: usize = 2048;

/// What a client's certificate says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Names it.
    pub sha256: CertificateHash,
    /// SHA-256 of its SubjectPublicKeyInfo: another certificate for the same key has the same.
    pub key: [u8; 32],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    uris: Vec<String>,
    /// It may sign a handshake, and no certificates (X509-SVID section 4).
    is_leaf: bool,
}

impl ClientCertificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// As [`Certificate::parse`], and [`PkiError::Malformed`] for alternative names that are no DER.
    pub fn read(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = Certificate::parse(der)?;
        let usage = certificate.key_usage();
        let is_leaf = !certificate.is_ca()
            && usage.is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign());
        Ok(Self {
            sha256: certificate.hash(),
            key: sha256(certificate.spki()),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            uris: uris(&certificate)?,
            is_leaf,
        })
    }

    /// Its SPIFFE ID: the only URI among its names, in a certificate that is a leaf. One with several URIs has none.
    pub fn spiffe_id(&self) -> Option<&str> {
        match &self.uris[..] {
            [only] if self.is_leaf && is_spiffe_id(only) => Some(only),
            _ => None,
        }
    }

    /// Whether the time is within its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// Whether a text is a SPIFFE ID in its one form (SPIFFE-ID section 2): no query, no user, no empty segment, and
/// none that is read as another place.
pub fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return false;
    };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    let in_segment = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    let is_segment = |part: &str| !["", ".", ".."].contains(&part) && part.bytes().all(in_segment);
    text.len() <= LONGEST_ID
        && (1..=255).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && parts.all(is_segment)
}

fn uris(certificate: &Certificate<'_>) -> Result<Vec<String>, PkiError> {
    let Some(names) = certificate.extension(oid::SUBJECT_ALT_NAME) else {
        return Ok(Vec::new());
    };
    let fault = PkiError::malformed("subject alternative name");
    let mut names: Reader<'_> = whole(names.value, tag::SEQUENCE).map_err(&fault)?.inside();
    let mut uris = Vec::new();
    while !names.is_empty() {
        let name = names.any().map_err(&fault)?;
        if name.tag == URI {
            // What is no ASCII is no URI, and counts as one all the same.
            uris.push(String::from_utf8_lossy(name.value).into_owned());
        }
    }
    Ok(uris)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_one_form() {
        for good in [
            "spiffe://example.org",
            "spiffe://example.org/coordinator",
            "spiffe://td-1_x.example/ns/prod/sa/Coordinator.1",
        ] {
            assert!(is_spiffe_id(good), "{good}");
        }
        let long = format!("spiffe://example.org/{}", "x".repeat(LONGEST_ID));
        for bad in [
            "",
            "https://example.org/x",
            "SPIFFE://example.org/x",
            "spiffe://",
            "spiffe:///x",
            "spiffe://Example.org/x",
            "spiffe://example.org/",
            "spiffe://example.org//x",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/.",
            "spiffe://user@example.org/x",
            "spiffe://example.org:443/x",
            "spiffe://example.org/x?y",
            "spiffe://example.org/x#y",
            "spiffe://example.org/%41",
            "spiffe://example.org/\u{fc}",
            &long,
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
    }
}
