//! SignerInfo (RFC 5652 section 5.3): who signed, how, and which attributes with it.

use super::refusal::{Refused, SignedDataRefusal};
use crate::pki::key::algorithm_parts;
use crate::pki::tlv::{DerFault, Reader, Tlv, tag};
use crate::pki::{Certificate, Digest, Name, SignatureAlgorithm, oid};

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

/// The one SignerInfo.
pub(super) struct SignerInfo<'a> {
    pub(super) id: SignerId<'a>,
    pub(super) digest: Digest,
    pub(super) algorithm: SignatureAlgorithm,
    pub(super) signed_attributes: Option<Tlv<'a>>,
    pub(super) signature: &'a [u8],
}

impl<'a> SignerInfo<'a> {
    pub(super) fn parse(mut infos: Reader<'a>) -> Result<Self, Refused> {
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
    pub(super) fn parse(element: Tlv<'a>) -> Result<Self, DerFault> {
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
    if plain && (oid == oid::RSA_ENCRYPTION.as_bytes() || oid == rsa.oid().as_bytes()) {
        Ok(rsa)
    } else if oid == oid::EC_PUBLIC_KEY.as_bytes() || (plain && oid == ecdsa.oid().as_bytes()) {
        Ok(ecdsa)
    } else {
        Err(unsupported)
    }
}

pub(super) struct Attribute<'a> {
    pub(super) oid: &'a [u8],
    pub(super) value: Tlv<'a>,
}

/// The next attribute; every attribute used here has exactly one value.
pub(super) fn next_attribute<'a>(
    reader: &mut Reader<'a>,
) -> Result<Option<Attribute<'a>>, DerFault> {
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
