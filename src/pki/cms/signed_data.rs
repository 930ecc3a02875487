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

use super::refusal::{Refused, SignedDataRefusal};
use super::signer_info::{SignerId, SignerInfo, next_attribute};
use crate::pki::tlv::{DerFault, Reader, Tlv, tag};
use crate::pki::{Certificate, Digest, LegacyDigest, PkiError, SignatureAlgorithm, ber, oid};

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
