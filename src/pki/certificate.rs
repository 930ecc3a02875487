//! X.509 certificates (RFC 5280 section 4.1), read in place.
//!
//! Signatures are checked over the bytes received, so those are what is kept; nothing is ever
//! encoded again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use const_oid::ObjectIdentifier;

use super::extension::{
    BasicConstraints, Extension, Extensions, KeyUsage, read_basic_constraints, read_extension,
    read_key_usage,
};
use super::key::{LegacyDigest, PublicKey, SignatureAlgorithm};
use super::tlv::{DerFault, Reader, Tlv, inside_sequence, tag, whole};
use super::x509_time::time_of;
use super::{MAX_CERTIFICATE, Name, PkiError, oid};
use crate::ids::CertificateHash;
use crate::time::Timestamp;

/// More extensions than any honest certificate has (Apple's attestation leaf has twelve).
const MAX_EXTENSIONS: usize = 64;

/// RFC 5280 section 4.1.2.2: at most 20 octets, and a sign octet.
const MAX_SERIAL: usize = 21;

/// notAfter names the last second of validity, which belongs to it whole.
const LAST_SECOND: Duration = Duration::from_millis(999);

/// A certificate, borrowed from its DER. Well formed; nothing about it is verified yet.
#[derive(Clone, Copy)]
pub struct Certificate<'a> {
    raw: &'a [u8],
    tbs: &'a [u8],
    serial: &'a [u8],
    issuer: Name<'a>,
    subject: Name<'a>,
    not_before: Timestamp,
    not_after: Timestamp,
    spki: &'a [u8],
    inner_algorithm: &'a [u8],
    outer_algorithm: &'a [u8],
    signature: &'a [u8],
    extensions: &'a [u8],
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    has_unknown_critical: bool,
}

/// A certificate that owns its DER.
#[derive(Clone)]
pub struct OwnedCertificate {
    der: Arc<[u8]>,
}

impl<'a> Certificate<'a> {
    /// Reads one certificate that fills `der` exactly.
    ///
    /// # Errors
    /// [`PkiError::NotACertificate`] when the outer form is another, [`PkiError::DuplicateExtension`],
    /// [`PkiError::TooLarge`], [`PkiError::Malformed`]. A key of an unknown kind is not refused here:
    /// see [`Certificate::public_key`].
    pub fn parse(der: &'a [u8]) -> Result<Self, PkiError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(PkiError::TooLarge(MAX_CERTIFICATE));
        }
        Self::read(der).map_err(|error| match error {
            PkiError::Malformed { .. } if !begins_like_a_certificate(der) => {
                PkiError::NotACertificate
            }
            other => other,
        })
    }

    fn read(der: &'a [u8]) -> Result<Self, PkiError> {
        let fault = PkiError::malformed("certificate");
        let mut parts = whole(der, tag::SEQUENCE).map_err(&fault)?.inside();
        let tbs = parts.expect(tag::SEQUENCE).map_err(&fault)?;
        let outer_algorithm = parts.expect(tag::SEQUENCE).map_err(&fault)?.raw;
        let signature = parts.octets_in_bit_string().map_err(&fault)?;
        parts.finish().map_err(&fault)?;

        let mut fields = tbs.inside();
        let version = version(&mut fields).map_err(PkiError::malformed("version"))?;
        let serial = serial(&mut fields).map_err(PkiError::malformed("serial number"))?;
        let inner_algorithm = fields.expect(tag::SEQUENCE).map_err(&fault)?.raw;
        let issuer = Name::parse(fields.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
        let validity = fields.expect(tag::SEQUENCE).map_err(&fault)?;
        let (not_before, not_after) =
            validity_of(validity).map_err(PkiError::malformed("validity"))?;
        let subject = Name::parse(fields.expect(tag::SEQUENCE).map_err(&fault)?.raw)?;
        let spki = fields.expect(tag::SEQUENCE).map_err(&fault)?.raw;
        for unique_identifier in [1, 2] {
            let present = fields
                .optional(tag::context(unique_identifier))
                .map_err(&fault)?;
            if present.is_some() && version == 1 {
                return Err(fault(DerFault::Tag));
            }
        }
        let extensions = fields
            .optional(tag::context_constructed(3))
            .map_err(&fault)?;
        fields.finish().map_err(&fault)?;

        let mut read = Self {
            raw: der,
            tbs: tbs.raw,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            spki,
            inner_algorithm,
            outer_algorithm,
            signature,
            extensions: &[],
            basic_constraints: None,
            key_usage: None,
            has_unknown_critical: false,
        };
        if let Some(extensions) = extensions {
            if version != 3 {
                return Err(PkiError::malformed("version")(DerFault::Value));
            }
            read.read_extensions(extensions)?;
        }
        Ok(read)
    }

    /// The certificate as received.
    pub fn as_der(&self) -> &'a [u8] {
        self.raw
    }

    /// An owned copy.
    pub fn to_owned(&self) -> OwnedCertificate {
        OwnedCertificate {
            der: self.raw.into(),
        }
    }

    /// SHA-256 of the bytes received: the certificate's name everywhere in this service.
    pub fn hash(&self) -> CertificateHash {
        CertificateHash::of(self.raw)
    }

    /// The bytes that its signature covers.
    pub fn tbs(&self) -> &'a [u8] {
        self.tbs
    }

    /// Contents octets of the serial number: big-endian, shortest form, with its sign octet.
    pub fn serial(&self) -> &'a [u8] {
        self.serial
    }

    /// Who issued it, by its own word.
    pub fn issuer(&self) -> Name<'a> {
        self.issuer
    }

    /// Whom it names.
    pub fn subject(&self) -> Name<'a> {
        self.subject
    }

    /// First moment of validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Last moment of validity: the end of its second (RFC 5280 section 4.1.2.5 includes it).
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether `now` lies within its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after.plus(LAST_SECOND)
    }

    /// The SubjectPublicKeyInfo as received.
    pub fn spki(&self) -> &'a [u8] {
        self.spki
    }

    /// Its key, if it is of an accepted kind.
    pub fn public_key(&self) -> Result<PublicKey<'a>, PkiError> {
        PublicKey::parse(self.spki)
    }

    /// How it is signed. RFC 5280 section 4.1.1.2: the algorithm inside the signed part must be the
    /// same as the one outside, byte for byte.
    pub fn signature_algorithm(&self) -> Result<SignatureAlgorithm, PkiError> {
        if self.inner_algorithm != self.outer_algorithm {
            return Err(PkiError::UnsupportedAlgorithm);
        }
        SignatureAlgorithm::parse(self.outer_algorithm)
    }

    /// The signature value.
    pub fn signature(&self) -> &'a [u8] {
        self.signature
    }

    /// Whether `issuer_key` signed it. Says nothing about names, dates or rights.
    pub fn verify_signature(
        &self,
        issuer_key: &PublicKey<'_>,
        legacy: LegacyDigest,
    ) -> Result<(), PkiError> {
        issuer_key.verify(
            self.signature_algorithm()?,
            legacy,
            self.tbs,
            self.signature,
        )
    }

    /// Every extension, in the order received.
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions::new(self.extensions)
    }

    /// The extension of this type.
    pub fn extension(&self, oid: ObjectIdentifier) -> Option<Extension<'a>> {
        self.extensions()
            .find(|extension| extension.oid == oid.as_bytes())
    }

    /// The basicConstraints extension.
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.basic_constraints
    }

    /// Whether it says of itself that it is a certificate authority.
    pub fn is_ca(&self) -> bool {
        self.basic_constraints
            .is_some_and(|constraints| constraints.ca)
    }

    /// The keyUsage extension.
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    /// The subjectKeyIdentifier extension.
    pub fn subject_key_identifier(&self) -> Option<&'a [u8]> {
        let value = self.extension(oid::SUBJECT_KEY_IDENTIFIER)?.value;
        whole(value, tag::OCTET_STRING)
            .ok()
            .map(|identifier| identifier.value)
    }

    /// Whether an extension is critical that chain validation does not understand.
    pub fn has_unknown_critical(&self) -> bool {
        self.has_unknown_critical
    }

    fn read_extensions(&mut self, wrapper: Tlv<'a>) -> Result<(), PkiError> {
        let fault = PkiError::malformed("extension");
        let list = whole(wrapper.value, tag::SEQUENCE).map_err(&fault)?;
        if list.value.is_empty() {
            return Err(fault(DerFault::Value));
        }
        let mut seen: [&[u8]; MAX_EXTENSIONS] = [&[]; MAX_EXTENSIONS];
        let mut count = 0;
        let mut reader = list.inside();
        while !reader.is_empty() {
            let extension = read_extension(&mut reader).map_err(&fault)?;
            let Some(slot) = seen.get_mut(count) else {
                return Err(fault(DerFault::Depth));
            };
            *slot = extension.oid;
            if seen[..count].contains(&extension.oid) {
                return Err(PkiError::DuplicateExtension);
            }
            count += 1;
            if extension.oid == oid::BASIC_CONSTRAINTS.as_bytes() {
                let constraints = read_basic_constraints(extension.value);
                self.basic_constraints =
                    Some(constraints.map_err(PkiError::malformed("basicConstraints"))?);
            } else if extension.oid == oid::KEY_USAGE.as_bytes() {
                let usage = read_key_usage(extension.value);
                self.key_usage = Some(usage.map_err(PkiError::malformed("keyUsage"))?);
            } else if extension.critical && extension.oid != oid::EXTENDED_KEY_USAGE.as_bytes() {
                self.has_unknown_critical = true;
            }
        }
        self.extensions = list.value;
        Ok(())
    }
}

impl fmt::Debug for Certificate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.hash()).finish()
    }
}

impl OwnedCertificate {
    /// Takes one certificate, checked for form.
    pub fn parse(der: impl Into<Arc<[u8]>>) -> Result<Self, PkiError> {
        let der = der.into();
        Certificate::parse(&der)?;
        Ok(Self { der })
    }

    /// The certificate, to be looked at.
    pub fn certificate(&self) -> Certificate<'_> {
        Certificate::parse(&self.der).expect("was checked when this was made")
    }

    /// Its bytes.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of its bytes.
    pub fn hash(&self) -> CertificateHash {
        CertificateHash::of(&self.der)
    }
}

impl PartialEq for OwnedCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for OwnedCertificate {}

impl fmt::Debug for OwnedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedCertificate")
            .field(&self.hash())
            .finish()
    }
}

/// Two sequences, then the explicit version, or the serial number and an algorithm: so that a broken
/// or cut certificate can be told from something else, a certificate request for one.
fn begins_like_a_certificate(der: &[u8]) -> bool {
    let Some(fields) = inside_sequence(der).and_then(inside_sequence) else {
        return false;
    };
    if fields.starts_with(&[tag::context_constructed(0), 3, tag::INTEGER, 1]) {
        return true;
    }
    let mut fields = Reader::new(fields);
    let serial = fields.expect(tag::INTEGER);
    let algorithm = fields.expect(tag::SEQUENCE);
    serial.is_ok() && algorithm.is_ok_and(|one| one.inside().peek() == Some(tag::OBJECT_IDENTIFIER))
}

fn version(fields: &mut Reader<'_>) -> Result<u8, DerFault> {
    let Some(wrapper) = fields.optional(tag::context_constructed(0))? else {
        return Ok(1);
    };
    let mut inside = wrapper.inside();
    let number = inside.small_integer()?;
    inside.finish()?;
    // DER leaves the default (0, version 1) out.
    if number == 1 || number == 2 {
        Ok(number + 1)
    } else {
        Err(DerFault::Value)
    }
}

fn serial<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], DerFault> {
    let serial = fields.integer()?;
    let negative = serial.first().is_some_and(|first| first & 0x80 != 0);
    if negative || serial.len() > MAX_SERIAL {
        Err(DerFault::Value)
    } else {
        Ok(serial)
    }
}

fn validity_of(validity: Tlv<'_>) -> Result<(Timestamp, Timestamp), DerFault> {
    let mut times = validity.inside();
    let not_before = time_of(times.any()?)?;
    let not_after = time_of(times.any()?)?;
    times.finish()?;
    Ok((not_before, not_after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pki::read_certificates;
    use crate::pki::write;

    const LEAF: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-leaf-good.pem");

    fn leaf() -> OwnedCertificate {
        read_certificates(LEAF).expect("PEM").remove(0)
    }

    /// The leaf with another list of extensions and version; its signature no longer matters.
    fn with(version: Option<u8>, extensions: Option<Vec<u8>>) -> Vec<u8> {
        let owned = leaf();
        let certificate = owned.certificate();
        let mut fields = Vec::new();
        if let Some(version) = version {
            fields.push(write::element(
                tag::context_constructed(0),
                &write::unsigned(&[version]),
            ));
        }
        fields.push(write::element(tag::INTEGER, certificate.serial()));
        fields.push(certificate.outer_algorithm.to_vec());
        fields.push(certificate.issuer().as_der().to_vec());
        let dates = [
            write::time(certificate.not_before()),
            write::time(certificate.not_after()),
        ];
        fields.push(write::sequence(&[&dates[0], &dates[1]]));
        fields.push(certificate.subject().as_der().to_vec());
        fields.push(certificate.spki().to_vec());
        if let Some(extensions) = extensions {
            let list = write::element(tag::SEQUENCE, &extensions);
            fields.push(write::element(tag::context_constructed(3), &list));
        }
        let tbs = write::element(tag::SEQUENCE, &fields.concat());
        write::sequence(&[
            &tbs,
            certificate.outer_algorithm,
            &write::bit_string(certificate.signature()),
        ])
    }

    fn extension(oid: ObjectIdentifier, critical: Option<u8>, value: &[u8]) -> Vec<u8> {
        let critical =
            critical.map_or_else(Vec::new, |octet| write::element(tag::BOOLEAN, &[octet]));
        write::sequence(&[&write::oid(oid), &critical, &write::octet_string(value)])
    }

    #[test]
    fn the_leaf_reads_as_apples_leaves_are_made() {
        let owned = leaf();
        let certificate = owned.certificate();
        assert_eq!(
            certificate.not_before(),
            Timestamp::parse("2026-09-30T09:30:07Z").expect("time")
        );
        assert_eq!(
            certificate.not_after(),
            Timestamp::parse("2026-12-30T09:30:07Z").expect("time")
        );
        assert_eq!(certificate.extensions().count(), 12);
        assert!(!certificate.is_ca());
        assert!(certificate.basic_constraints().is_some());
        let usage = certificate.key_usage().expect("there");
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        assert!(!certificate.has_unknown_critical());
        assert_eq!(
            certificate.hash(),
            CertificateHash::of(certificate.as_der())
        );
        assert!(certificate.extension(oid::EXTENDED_KEY_USAGE).is_none());
    }

    #[test]
    fn openssl_reads_the_same_fields() {
        let owned = leaf();
        let ours = owned.certificate();
        let theirs = openssl::x509::X509::from_der(ours.as_der()).expect("openssl reads it");
        let serial = theirs.serial_number().to_bn().expect("number").to_vec();
        assert_eq!(serial, ours.serial());
        assert_eq!(
            theirs.subject_name().to_der().expect("DER"),
            ours.subject().as_der()
        );
        assert_eq!(
            theirs.issuer_name().to_der().expect("DER"),
            ours.issuer().as_der()
        );
        assert_eq!(theirs.signature().as_slice(), ours.signature());
        let key = theirs
            .public_key()
            .and_then(|key| key.public_key_to_der())
            .expect("key");
        assert_eq!(key, ours.spki());
    }

    #[test]
    fn extensions_are_read_strictly() {
        let usage = extension(oid::KEY_USAGE, Some(0xff), &[3, 2, 7, 0x80]);
        let unknown = extension(oid::USER_ID, Some(0xff), &[1]);
        let read = with(Some(2), Some(usage.clone()));
        assert!(
            Certificate::parse(&read)
                .expect("reads")
                .key_usage()
                .is_some()
        );
        let read = with(Some(2), Some([usage.clone(), unknown].concat()));
        assert!(
            Certificate::parse(&read)
                .expect("reads")
                .has_unknown_critical()
        );
        assert!(Certificate::parse(&with(None, None)).is_ok());

        let twice = with(Some(2), Some([usage.clone(), usage.clone()].concat()));
        assert_eq!(
            Certificate::parse(&twice).map(|_| ()),
            Err(PkiError::DuplicateExtension)
        );
        let explicit_false = extension(oid::KEY_USAGE, Some(0), &[3, 2, 7, 0x80]);
        let not_ca_with_length = extension(oid::BASIC_CONSTRAINTS, None, &[0x30, 3, 2, 1, 0]);
        let empty_usage = extension(oid::KEY_USAGE, None, &[3, 1, 0]);
        for broken in [
            with(Some(1), Some(usage.clone())),
            with(None, Some(usage.clone())),
            with(Some(0), None),
            with(Some(3), Some(usage)),
            with(Some(2), Some(Vec::new())),
            with(Some(2), Some(explicit_false)),
            with(Some(2), Some(not_ca_with_length)),
            with(Some(2), Some(empty_usage)),
        ] {
            let refused = Certificate::parse(&broken).map(|_| ());
            assert!(
                matches!(refused, Err(PkiError::Malformed { .. })),
                "{refused:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_never_panics(
            index in any::<prop::sample::Index>(),
            value in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut der = leaf().as_der().to_vec();
            let index = index.index(der.len());
            der[index] = value;
            if let Ok(certificate) = Certificate::parse(&der) {
                let _ = certificate.public_key();
                let _ = certificate.subject().to_string();
                let _ = certificate.subject_key_identifier();
            }
            der.truncate(cut.index(der.len()));
            prop_assert!(Certificate::parse(&der).is_err());
        }
    }
}
