//! SignedData (RFC 5652 section 5): one signer, read in place, then verified.
//!
//! Two steps, so that a caller may look at the signer (is it the pinned identity of this Mac?)
//! before paying for cryptography, and may name signer and digest when it refuses.
//!
//! For an `Mdm-Signature` (apple-protocol 3.4): [`read`], [`SignedData::parse`],
//! [`SignedData::require_detached`], then [`SignedData::verify`] over the exact body. The signer's
//! chain, dates and enrollment are the caller's to judge.

use std::borrow::Cow;

use const_oid::ObjectIdentifier;

use crate::pki::key::algorithm_parts;
use crate::pki::tlv::{DerFault, Reader, Tlv, tag};
use crate::pki::{
    Certificate, Digest, LegacyDigest, Name, OwnedCertificate, PkiError, SignatureAlgorithm, ber,
    oid,
};
use crate::reason::Reason;

/// More certificates than any honest message encloses.
const MAX_CERTIFICATES: usize = 8;

/// More signed attributes than any honest message has (SCEP uses seven).
const MAX_ATTRIBUTES: usize = 24;

/// A message with its one signer found. Nothing is verified before [`SignedData::verify`].
#[derive(Debug)]
pub struct SignedData<'a> {
    content_type: &'a [u8],
    content: Option<&'a [u8]>,
    certificates: Vec<Certificate<'a>>,
    signer: Certificate<'a>,
    digest: Digest,
    algorithm: SignatureAlgorithm,
    signed_attributes: Option<Tlv<'a>>,
    signature: &'a [u8],
}

/// How a message names its signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignerId<'a> {
    /// By issuer and serial number.
    IssuerAndSerial {
        /// The issuer's name.
        issuer: Name<'a>,
        /// Contents octets of the serial number.
        serial: &'a [u8],
    },
    /// By subjectKeyIdentifier.
    KeyIdentifier(&'a [u8]),
}

/// Why a message was refused, and what was read from it until then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// Why.
    pub cause: SignedDataRefusal,
    /// The signer's certificate, once found.
    pub signer: Option<OwnedCertificate>,
    /// The digest algorithm, once read.
    pub digest: Option<Digest>,
}

/// Why a SignedData is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedDataRefusal {
    /// The outer form is not that of a CMS message at all.
    #[error("not a CMS message")]
    NotCms,
    /// Larger than anything honest.
    #[error("larger than any honest message")]
    TooLarge,
    /// A CMS message, but broken or not signed data.
    #[error("malformed message: {0}")]
    Malformed(DerFault),
    /// No signer, or more than one.
    #[error("there must be exactly one signer")]
    SignerCount,
    /// The signer's certificate is not enclosed.
    #[error("the signer's certificate is not enclosed")]
    CertificateMissing,
    /// An enclosed certificate is broken, or two match the signer.
    #[error("the enclosed certificates are not usable")]
    CertificateMalformed,
    /// Content is attached to a signature that must be detached.
    #[error("content is attached to a detached signature")]
    ContentAttached,
    /// There is no content where it must be attached.
    #[error("the content is missing")]
    ContentMissing,
    /// The signed attributes lack one they must have, have one twice, or name another content type.
    #[error("the signed attributes are not as they must be")]
    Attributes,
    /// A digest, key or signature algorithm that is not accepted, or two that contradict.
    #[error("an algorithm is not accepted")]
    UnsupportedAlgorithm,
    /// The signed digest is that of another content.
    #[error("the signature is over another content")]
    DigestMismatch,
    /// The signature is not the signer's.
    #[error("the signature does not verify")]
    SignatureInvalid,
}

impl SignedDataRefusal {
    /// What it is called in answers.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotCms | Self::Malformed(_) => Reason::RequestMalformed,
            Self::TooLarge => Reason::RequestTooLarge,
            Self::SignerCount
            | Self::CertificateMissing
            | Self::CertificateMalformed
            | Self::ContentAttached
            | Self::ContentMissing
            | Self::Attributes
            | Self::UnsupportedAlgorithm
            | Self::DigestMismatch
            | Self::SignatureInvalid => Reason::SignatureInvalid,
        }
    }
}

impl From<SignedDataRefusal> for Refused {
    fn from(cause: SignedDataRefusal) -> Self {
        Self {
            cause,
            signer: None,
            digest: None,
        }
    }
}

impl From<DerFault> for Refused {
    fn from(fault: DerFault) -> Self {
        SignedDataRefusal::Malformed(fault).into()
    }
}

/// A CMS message as DER, borrowed if it is DER already. `cap`: the most bytes taken.
pub fn read(message: &[u8], cap: usize) -> Result<Cow<'_, [u8]>, Refused> {
    if message.len() > cap {
        return Err(SignedDataRefusal::TooLarge.into());
    }
    if !begins_like_cms(message) {
        return Err(SignedDataRefusal::NotCms.into());
    }
    Ok(ber::to_der(message)?)
}

impl<'a> SignedData<'a> {
    /// Reads a ContentInfo with SignedData in DER (see [`read`]) and finds its one signer.
    pub fn parse(der: &'a [u8]) -> Result<Self, Refused> {
        let outer = Members::parse(der)?;
        let info = SignerInfo::parse(outer.signer_infos)?;
        let refuse = |cause: SignedDataRefusal| Refused {
            cause,
            signer: None,
            digest: Some(info.digest),
        };

        let mut listed = outer.digest_algorithms;
        let mut is_listed = false;
        while !listed.is_empty() {
            let algorithm = listed.expect(tag::SEQUENCE)?.raw;
            is_listed |= Digest::parse(algorithm) == Ok(info.digest);
        }
        if !is_listed {
            return Err(refuse(SignedDataRefusal::UnsupportedAlgorithm));
        }

        let certificates = read_enclosed(outer.certificates).map_err(refuse)?;
        let signer = *find_signer(&certificates, info.id).map_err(refuse)?;
        let parsed = Self {
            content_type: outer.content_type,
            content: outer.content,
            certificates,
            signer,
            digest: info.digest,
            algorithm: info.algorithm,
            signed_attributes: info.signed_attributes,
            signature: info.signature,
        };
        parsed
            .check_attributes()
            .map_err(|cause| parsed.refused(cause))?;
        Ok(parsed)
    }

    /// The signer's certificate, enclosed by whoever sent the message: not trusted by itself.
    pub fn signer(&self) -> &Certificate<'a> {
        &self.signer
    }

    /// Every enclosed certificate.
    pub fn certificates(&self) -> &[Certificate<'a>] {
        &self.certificates
    }

    /// The digest under the signature.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The attached content. Not to be believed before [`SignedData::verify`] over it.
    pub fn content(&self) -> Option<&'a [u8]> {
        self.content
    }

    /// The only value of a signed attribute; `None` when it is absent. (An attribute with several
    /// values is refused when the message is read.)
    pub fn signed_attribute(&self, oid: ObjectIdentifier) -> Option<Tlv<'a>> {
        let mut attributes = self.signed_attributes?.inside();
        while let Ok(Some(attribute)) = next_attribute(&mut attributes) {
            if attribute.oid == oid.as_bytes() {
                return Some(attribute.value);
            }
        }
        None
    }

    /// Refuses a message with content of its own: it would be the sender's choice which of two
    /// bodies was signed.
    pub fn require_detached(&self) -> Result<(), Refused> {
        if self.content.is_some() {
            return Err(self.refused(SignedDataRefusal::ContentAttached));
        }
        if self.content_type != oid::DATA.as_bytes() {
            return Err(self.refused(SignedDataRefusal::Attributes));
        }
        Ok(())
    }

    /// Whether the signer signed `content`. SHA-1 is accepted: see [`LegacyDigest`].
    pub fn verify(&self, content: &[u8]) -> Result<(), Refused> {
        let refuse = |cause| self.refused(cause);
        let key = self.signer.public_key();
        let key = key.map_err(|_| refuse(SignedDataRefusal::UnsupportedAlgorithm))?;
        let legacy = LegacyDigest::Allowed;
        let verified = match self.signed_attributes {
            None => key.verify(self.algorithm, legacy, content, self.signature),
            Some(attributes) => {
                let signed = self
                    .signed_attribute(oid::MESSAGE_DIGEST)
                    .map(|value| value.value);
                if signed != Some(self.digest.of(&[content]).as_ref()) {
                    return Err(refuse(SignedDataRefusal::DigestMismatch));
                }
                // RFC 5652 section 5.4: signed with the tag of a SET, sent with [0].
                let as_set = [&[tag::SET], attributes.raw.get(1..).unwrap_or_default()];
                key.verify_parts(self.algorithm, legacy, &as_set, self.signature)
            }
        };
        verified.map_err(|error| match error {
            PkiError::BadSignature => refuse(SignedDataRefusal::SignatureInvalid),
            _ => refuse(SignedDataRefusal::UnsupportedAlgorithm),
        })
    }

    /// A refusal that names this message's signer and digest.
    pub fn refused(&self, cause: SignedDataRefusal) -> Refused {
        Refused {
            cause,
            signer: Some(self.signer.to_owned()),
            digest: Some(self.digest),
        }
    }

    fn check_attributes(&self) -> Result<(), SignedDataRefusal> {
        let Some(attributes) = self.signed_attributes else {
            // RFC 5652 section 5.3: other content than id-data must be signed with attributes.
            return if self.content_type == oid::DATA.as_bytes() {
                Ok(())
            } else {
                Err(SignedDataRefusal::Attributes)
            };
        };
        let mut seen: [&[u8]; MAX_ATTRIBUTES] = [&[]; MAX_ATTRIBUTES];
        let mut count = 0;
        let mut content_type_agrees = false;
        let mut has_digest = false;
        let mut reader = attributes.inside();
        while let Some(attribute) = next_attribute(&mut reader)? {
            let slot = seen.get_mut(count).ok_or(SignedDataRefusal::Attributes)?;
            *slot = attribute.oid;
            if seen[..count].contains(&attribute.oid) {
                return Err(SignedDataRefusal::Attributes);
            }
            count += 1;
            let value = attribute.value;
            if attribute.oid == oid::CONTENT_TYPE.as_bytes() {
                content_type_agrees =
                    value.tag == tag::OBJECT_IDENTIFIER && value.value == self.content_type;
            } else if attribute.oid == oid::MESSAGE_DIGEST.as_bytes() {
                has_digest = value.tag == tag::OCTET_STRING;
            }
        }
        if content_type_agrees && has_digest {
            Ok(())
        } else {
            Err(SignedDataRefusal::Attributes)
        }
    }
}

/// SEQUENCE, then an object identifier under 1.2.840.113549.1.7: what all CMS messages begin with.
fn begins_like_cms(message: &[u8]) -> bool {
    let after_length = match message {
        [tag::SEQUENCE, 0..=0x80, rest @ ..] => Some(rest),
        [tag::SEQUENCE, long @ 0x81..=0x88, rest @ ..] => rest.get(usize::from(long & 0x7f)..),
        _ => None,
    };
    let arc = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
    after_length.is_some_and(|rest| rest.starts_with(&arc))
}

/// The members of a SignedData.
struct Members<'a> {
    digest_algorithms: Reader<'a>,
    content_type: &'a [u8],
    content: Option<&'a [u8]>,
    certificates: Option<Tlv<'a>>,
    signer_infos: Reader<'a>,
}

impl<'a> Members<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, DerFault> {
        let mut outer = crate::pki::tlv::whole(der, tag::SEQUENCE)?.inside();
        if outer.oid()? != oid::SIGNED_DATA.as_bytes() {
            return Err(DerFault::Value);
        }
        let mut wrapper = outer.expect(tag::context_constructed(0))?.inside();
        outer.finish()?;
        let mut members = wrapper.expect(tag::SEQUENCE)?.inside();
        wrapper.finish()?;

        if !(1..=5).contains(&members.small_integer()?) {
            return Err(DerFault::Value);
        }
        let digest_algorithms = members.expect(tag::SET)?.inside();
        let mut encapsulated = members.expect(tag::SEQUENCE)?.inside();
        let content_type = encapsulated.oid()?;
        let content = match encapsulated.optional(tag::context_constructed(0))? {
            Some(wrapper) => Some(crate::pki::tlv::whole(wrapper.value, tag::OCTET_STRING)?.value),
            None => None,
        };
        encapsulated.finish()?;
        let certificates = members.optional(tag::context_constructed(0))?;
        members.optional(tag::context_constructed(1))?;
        let signer_infos = members.expect(tag::SET)?.inside();
        members.finish()?;
        Ok(Self {
            digest_algorithms,
            content_type,
            content,
            certificates,
            signer_infos,
        })
    }
}

/// The one SignerInfo.
struct SignerInfo<'a> {
    id: SignerId<'a>,
    digest: Digest,
    algorithm: SignatureAlgorithm,
    signed_attributes: Option<Tlv<'a>>,
    signature: &'a [u8],
}

impl<'a> SignerInfo<'a> {
    fn parse(mut infos: Reader<'a>) -> Result<Self, Refused> {
        if infos.is_empty() {
            return Err(SignedDataRefusal::SignerCount.into());
        }
        let mut info = infos.expect(tag::SEQUENCE)?.inside();
        if !infos.is_empty() {
            return Err(SignedDataRefusal::SignerCount.into());
        }
        let unsupported = |_| SignedDataRefusal::UnsupportedAlgorithm;
        let version = info.small_integer()?;
        let id = SignerId::parse(info.any()?)?;
        if !matches!(
            (version, id),
            (1, SignerId::IssuerAndSerial { .. }) | (3, SignerId::KeyIdentifier(_))
        ) {
            return Err(DerFault::Value.into());
        }
        let digest = Digest::parse(info.expect(tag::SEQUENCE)?.raw).map_err(unsupported)?;
        let refuse = |cause: SignedDataRefusal| Refused {
            cause,
            signer: None,
            digest: Some(digest),
        };
        let broken = |fault| refuse(SignedDataRefusal::Malformed(fault));
        let signed_attributes = info.optional(tag::context_constructed(0)).map_err(broken)?;
        let algorithm = info.expect(tag::SEQUENCE).map_err(broken)?.raw;
        let algorithm = signature_algorithm(algorithm, digest).map_err(refuse)?;
        let signature = info.expect(tag::OCTET_STRING).map_err(broken)?.value;
        info.optional(tag::context_constructed(1)).map_err(broken)?;
        info.finish().map_err(broken)?;
        Ok(Self {
            id,
            digest,
            algorithm,
            signed_attributes,
            signature,
        })
    }
}

impl<'a> SignerId<'a> {
    fn parse(element: Tlv<'a>) -> Result<Self, DerFault> {
        if element.tag == tag::context(0) {
            return Ok(Self::KeyIdentifier(element.value));
        }
        if element.tag != tag::SEQUENCE {
            return Err(DerFault::Tag);
        }
        let mut parts = element.inside();
        let issuer = parts.expect(tag::SEQUENCE)?.raw;
        let issuer = Name::parse(issuer).map_err(|_| DerFault::Value)?;
        let serial = parts.integer()?;
        parts.finish()?;
        Ok(Self::IssuerAndSerial { issuer, serial })
    }

    /// Whether it names this certificate.
    pub fn names(&self, certificate: &Certificate<'_>) -> bool {
        match self {
            Self::IssuerAndSerial { issuer, serial } => {
                *serial == certificate.serial() && issuer.as_der() == certificate.issuer().as_der()
            }
            Self::KeyIdentifier(identifier) => {
                certificate.subject_key_identifier() == Some(*identifier)
            }
        }
    }
}

/// A SignerInfo names its algorithm either whole or by the kind of key only (RFC 3370 section 3.2;
/// Apple's security framework writes both), and must not contradict the digest.
fn signature_algorithm(
    identifier: &[u8],
    digest: Digest,
) -> Result<SignatureAlgorithm, SignedDataRefusal> {
    let unsupported = SignedDataRefusal::UnsupportedAlgorithm;
    let (oid, parameters) = algorithm_parts(identifier).map_err(|_| unsupported)?;
    let plain = matches!(parameters, None | Some([tag::NULL, 0]));
    let rsa = SignatureAlgorithm::Rsa(digest);
    let ecdsa = SignatureAlgorithm::Ecdsa(digest);
    let whole_names = |algorithm: SignatureAlgorithm| {
        algorithm_parts(&algorithm.to_der()).is_ok_and(|(own, _)| own == oid)
    };
    if plain && (oid == oid::RSA_ENCRYPTION.as_bytes() || whole_names(rsa)) {
        Ok(rsa)
    } else if oid == oid::EC_PUBLIC_KEY.as_bytes() || (plain && whole_names(ecdsa)) {
        Ok(ecdsa)
    } else {
        Err(unsupported)
    }
}

fn read_enclosed(certificates: Option<Tlv<'_>>) -> Result<Vec<Certificate<'_>>, SignedDataRefusal> {
    let mut enclosed = Vec::new();
    let Some(certificates) = certificates else {
        return Ok(enclosed);
    };
    let mut reader = certificates.inside();
    while !reader.is_empty() {
        let choice = reader.any()?;
        // Other choices than a certificate are attribute certificates: none is needed, none is read.
        if choice.tag != tag::SEQUENCE {
            continue;
        }
        if enclosed.len() == MAX_CERTIFICATES {
            return Err(SignedDataRefusal::TooLarge);
        }
        let certificate = Certificate::parse(choice.raw);
        enclosed.push(certificate.map_err(|_| SignedDataRefusal::CertificateMalformed)?);
    }
    Ok(enclosed)
}

fn find_signer<'c, 'a>(
    certificates: &'c [Certificate<'a>],
    id: SignerId<'_>,
) -> Result<&'c Certificate<'a>, SignedDataRefusal> {
    let mut matching = certificates
        .iter()
        .filter(|certificate| id.names(certificate));
    let first = matching
        .next()
        .ok_or(SignedDataRefusal::CertificateMissing)?;
    if matching.any(|other| other.as_der() != first.as_der()) {
        return Err(SignedDataRefusal::CertificateMalformed);
    }
    Ok(first)
}

impl From<DerFault> for SignedDataRefusal {
    fn from(fault: DerFault) -> Self {
        Self::Malformed(fault)
    }
}

struct Attribute<'a> {
    oid: &'a [u8],
    value: Tlv<'a>,
}

/// The next attribute; every attribute used here has exactly one value.
fn next_attribute<'a>(reader: &mut Reader<'a>) -> Result<Option<Attribute<'a>>, DerFault> {
    if reader.is_empty() {
        return Ok(None);
    }
    let mut parts = reader.expect(tag::SEQUENCE)?.inside();
    let oid = parts.oid()?;
    let mut values = parts.expect(tag::SET)?.inside();
    parts.finish()?;
    let value = values.any()?;
    values.finish()?;
    Ok(Some(Attribute { oid, value }))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::cms::MAX_DETACHED;

    const BODY: &[u8] = include_bytes!("../../../tests/fixtures/mdm/connect-idle.plist");

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!(
            "{}/tests/fixtures/mdm/mdm-signature-{name}.b64",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).expect("fixture");
        STANDARD.decode(text.trim()).expect("base64")
    }

    fn verify(message: &[u8], body: &[u8]) -> Result<Digest, Refused> {
        let der = read(message, MAX_DETACHED)?;
        let signed = SignedData::parse(&der)?;
        signed.require_detached()?;
        signed.verify(body)?;
        Ok(signed.digest())
    }

    #[test]
    fn the_signatures_that_macs_send_verify_over_their_body_only() {
        for (name, digest) in [
            ("idle-sha1-noattr-ber", Digest::Sha1),
            ("idle-sha1-noattr-der", Digest::Sha1),
            ("idle-sha256-noattr-der", Digest::Sha256),
            ("idle-p384-sha256-noattr-der", Digest::Sha256),
        ] {
            let message = fixture(name);
            assert_eq!(verify(&message, BODY), Ok(digest), "{name}");
            let other = verify(&message, b"another body").expect_err("refused");
            assert_eq!(other.cause, SignedDataRefusal::SignatureInvalid, "{name}");
            assert_eq!(other.digest, Some(digest), "{name}");
            assert!(other.signer.is_some(), "{name}");
        }
    }

    #[test]
    fn bad_fixtures_are_refused_and_say_what_was_read() {
        let other_body = verify(&fixture("BAD-other-body"), BODY).expect_err("refused");
        assert_eq!(other_body.cause, SignedDataRefusal::SignatureInvalid);
        assert!(other_body.signer.is_some());
        let no_certificate = verify(&fixture("BAD-no-cert"), BODY).expect_err("refused");
        assert_eq!(no_certificate.cause, SignedDataRefusal::CertificateMissing);
        assert_eq!(
            (no_certificate.signer, no_certificate.digest),
            (None, Some(Digest::Sha256))
        );
    }

    #[test]
    fn what_is_no_cms_is_told_from_a_broken_message() {
        for bytes in [&b""[..], b"hello", &[0x30, 0x03, 2, 1, 1], &[0x30, 0x80]] {
            assert_eq!(
                read(bytes, MAX_DETACHED).map(|_| ()),
                Err(SignedDataRefusal::NotCms.into())
            );
        }
        let message = fixture("idle-sha256-noattr-der");
        let cut = verify(&message[..message.len() - 1], BODY).expect_err("refused");
        assert_eq!(cut.cause, SignedDataRefusal::Malformed(DerFault::Truncated));
        let large = vec![0x30; MAX_DETACHED + 1];
        assert_eq!(
            verify(&large, BODY),
            Err(SignedDataRefusal::TooLarge.into())
        );
    }

    #[test]
    fn no_single_changed_bit_of_the_signature_verifies() {
        let message = fixture("idle-sha256-noattr-der");
        for back in 1..=256 {
            let mut changed = message.clone();
            let index = changed.len() - back;
            changed[index] ^= 1 << (back % 8);
            assert!(verify(&changed, BODY).is_err(), "byte {index}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_damaged_message_never_panics(
            which in 0usize..3,
            index in any::<prop::sample::Index>(),
            value in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let name = ["idle-sha1-noattr-ber", "idle-sha256-noattr-der", "idle-p384-sha256-noattr-der"];
            let mut message = fixture(name[which]);
            let index = index.index(message.len());
            message[index] = value;
            let _ = verify(&message, BODY);
            message.truncate(cut.index(message.len()));
            let _ = verify(&message, BODY);
        }
    }
}
