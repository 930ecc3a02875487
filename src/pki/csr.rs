//! PKCS #10 certificate requests (RFC 2986).
//!
//! A request proves that its sender holds the key; everything else in it is a wish. Requested
//! extensions are passed over: what goes into a certificate is this service's choice.

use std::fmt;

use super::key::{LegacyDigest, PublicKey, SignatureAlgorithm, Signer};
use super::tlv::{DerFault, Reader, inside_sequence, tag, whole};
use super::{MAX_REQUEST, Name, PkiError, oid, write};

/// More attributes than any honest request has.
const MAX_ATTRIBUTES: usize = 16;

/// A request whose signature was verified by the key inside: proof of possession.
#[derive(Clone, Copy)]
pub struct CertificateRequest<'a> {
    raw: &'a [u8],
    subject: Name<'a>,
    public_key: PublicKey<'a>,
    challenge: Option<&'a str>,
}

impl<'a> CertificateRequest<'a> {
    /// Reads a request and verifies that its own key signed it.
    ///
    /// # Errors
    /// [`PkiError::UnsupportedKey`], [`PkiError::UnsupportedAlgorithm`], [`PkiError::BadSignature`],
    /// [`PkiError::TooLarge`], and [`PkiError::Malformed`] also for a challengePassword given twice
    /// or in a string type other than PrintableString, UTF8String and IA5String.
    pub fn parse(der: &'a [u8], legacy: LegacyDigest) -> Result<Self, PkiError> {
        if der.len() > MAX_REQUEST {
            return Err(PkiError::TooLarge(MAX_REQUEST));
        }
        let fault = PkiError::malformed("certificate request");
        let mut parts = whole(der, tag::SEQUENCE).map_err(&fault)?.inside();
        let info = parts.expect(tag::SEQUENCE).map_err(&fault)?;
        let algorithm = parts.expect(tag::SEQUENCE).map_err(&fault)?.raw;
        let signature = parts.octets_in_bit_string().map_err(&fault)?;
        parts.finish().map_err(&fault)?;

        let mut fields = info.inside();
        if fields.small_integer().map_err(&fault)? != 0 {
            return Err(fault(DerFault::Value));
        }
        let subject = Name::parse(fields.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
        let public_key = PublicKey::parse(fields.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
        // The attributes are not optional, but encoders that have none leave them out.
        let attributes = fields
            .optional(tag::context_constructed(0))
            .map_err(&fault)?;
        fields.finish().map_err(&fault)?;
        let challenge = match attributes {
            Some(attributes) => challenge_in(attributes.inside()).map_err(&fault)?,
            None => None,
        };
        let algorithm = SignatureAlgorithm::parse(algorithm)?;
        public_key.verify(algorithm, legacy, info.raw, signature)?;
        Ok(Self {
            raw: der,
            subject,
            public_key,
            challenge,
        })
    }

    /// The request as received.
    pub fn as_der(&self) -> &'a [u8] {
        self.raw
    }

    /// The subject it wishes for.
    pub fn subject(&self) -> Name<'a> {
        self.subject
    }

    /// The key it proves possession of.
    pub fn public_key(&self) -> PublicKey<'a> {
        self.public_key
    }

    /// The challengePassword. A secret: for comparison in constant time, never for a log.
    pub fn challenge(&self) -> Option<&'a str> {
        self.challenge
    }
}

impl fmt::Debug for CertificateRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest")
            .field("subject", &self.subject)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// Makes a request for `subject` (a DER name, see [`super::name::compose`]), signed by its own key,
/// without attributes.
pub fn build(subject: &Name<'_>, key: &dyn Signer) -> Result<Vec<u8>, PkiError> {
    build_with(subject, key, None)
}

/// As [`build`], with a challengePassword.
pub fn build_with(
    subject: &Name<'_>,
    key: &dyn Signer,
    challenge: Option<&str>,
) -> Result<Vec<u8>, PkiError> {
    let attributes = challenge.map_or_else(Vec::new, |challenge| {
        let value = write::set_of(vec![write::utf8_string(challenge)]);
        write::sequence(&[&write::oid(oid::CHALLENGE_PASSWORD), &value])
    });
    let info = write::sequence(&[
        &write::unsigned(&[0]),
        subject.as_der(),
        key.public_key_spki(),
        &write::element(tag::context_constructed(0), &attributes),
    ]);
    let signature = key.sign(&info).map_err(|_| PkiError::SigningFailed)?;
    Ok(write::sequence(&[
        &info,
        &key.algorithm().to_der(),
        &write::bit_string(&signature),
    ]))
}

/// Two sequences, then a version and a name: so that a broken or cut request can be told from
/// something else, a certificate for one.
pub(super) fn begins_like_a_request(der: &[u8]) -> bool {
    let fields = inside_sequence(der).and_then(inside_sequence);
    let Some([tag::INTEGER, 1, _, tag::SEQUENCE, name @ ..]) = fields else {
        return false;
    };
    // An empty name, or its first set; a certificate of version 1 has an algorithm here.
    match name {
        [0, ..] => true,
        [0..=0x7f, first, ..] | [0x81, _, first, ..] | [0x82, _, _, first, ..] => {
            *first == tag::SET
        }
        _ => false,
    }
}

fn challenge_in(mut attributes: Reader<'_>) -> Result<Option<&str>, DerFault> {
    let mut challenge = None;
    for _ in 0..MAX_ATTRIBUTES {
        if attributes.is_empty() {
            return Ok(challenge);
        }
        let mut parts = attributes.expect(tag::SEQUENCE)?.inside();
        let oid = parts.oid()?;
        let mut values = parts.expect(tag::SET)?.inside();
        parts.finish()?;
        if oid != oid::CHALLENGE_PASSWORD.as_bytes() {
            continue;
        }
        let value = values.any()?;
        values.finish()?;
        let is_text = matches!(
            value.tag,
            tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING
        );
        let text = std::str::from_utf8(value.value).map_err(|_| DerFault::Value)?;
        if !is_text || challenge.is_some() {
            return Err(DerFault::Value);
        }
        challenge = Some(text);
    }
    if attributes.is_empty() {
        Ok(challenge)
    } else {
        Err(DerFault::Depth)
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509Req;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::name::compose;
    use crate::pki::test_key::TestKey;

    #[test]
    fn a_request_of_ours_reads_back_and_verifies_with_openssl() {
        let subject = compose(&[(oid::COMMON_NAME, "push")]);
        let subject = Name::parse(&subject).expect("name");
        for key in [TestKey::rsa(), TestKey::p256(), TestKey::p384()] {
            let der = build_with(&subject, &key, Some("one-time")).expect("built");
            let ours = CertificateRequest::parse(&der, LegacyDigest::Refused).expect("reads back");
            assert_eq!(ours.challenge(), Some("one-time"));
            assert_eq!(ours.subject().to_string(), "CN=push");
            assert_eq!(ours.public_key().spki(), key.public_key_spki());
            let theirs = X509Req::from_der(&der).expect("openssl reads it");
            assert!(theirs.verify(&key.key).expect("openssl verifies"));
            assert!(!format!("{ours:?}").contains("one-time"));
        }
    }

    #[test]
    fn a_request_without_proof_of_possession_is_refused() {
        let subject = compose(&[(oid::COMMON_NAME, "push")]);
        let der = build(&Name::parse(&subject).expect("name"), &TestKey::p256()).expect("built");
        let mut other_signature = der.clone();
        let last = other_signature.len() - 1;
        other_signature[last] ^= 1;
        let refused = CertificateRequest::parse(&other_signature, LegacyDigest::Allowed);
        assert_eq!(refused.map(|_| ()), Err(PkiError::BadSignature));
    }

    #[test]
    fn sha_1_is_accepted_only_where_it_is_allowed() {
        let subject = compose(&[(oid::COMMON_NAME, "old client")]);
        let key = TestKey::rsa_with(crate::pki::Digest::Sha1);
        let der = build(&Name::parse(&subject).expect("name"), &key).expect("built");
        assert!(CertificateRequest::parse(&der, LegacyDigest::Allowed).is_ok());
        let refused = CertificateRequest::parse(&der, LegacyDigest::Refused);
        assert_eq!(refused.map(|_| ()), Err(PkiError::UnsupportedAlgorithm));
    }

    proptest! {
        #[test]
        fn a_damaged_request_never_panics(
            index in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            let mut der = include_bytes!("../../tests/fixtures/acme/acme-csr-good.der").to_vec();
            let index = index.index(der.len());
            der[index] = value;
            let _ = CertificateRequest::parse(&der, LegacyDigest::Allowed);
        }
    }
}
