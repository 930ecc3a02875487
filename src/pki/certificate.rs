//! X.509 certificates (RFC 5280 section 4.1), read in place.
//!
//! Signatures are checked over the bytes received, so those are what is kept; nothing is ever
//! encoded again.

use std::fmt;
use std::sync::Arc;

use const_oid::ObjectIdentifier;

use super::key::{LegacyDigest, PublicKey, SignatureAlgorithm};
use super::tlv::{DerFault, Reader, Tlv, tag, whole};
use super::{MAX_CERTIFICATE, Name, PkiError, oid};
use crate::ids::CertificateHash;
use crate::time::Timestamp;

/// More extensions than any honest certificate has (Apple's attestation leaf has twelve).
const MAX_EXTENSIONS: usize = 64;

/// RFC 5280 section 4.1.2.2: at most 20 octets, and a sign octet.
const MAX_SERIAL: usize = 21;

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

/// One extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Contents octets of its object identifier.
    pub oid: &'a [u8],
    /// Whether whoever does not understand it must refuse the certificate.
    pub critical: bool,
    /// The contents of its OCTET STRING: DER by the standard, raw bytes in some of Apple's.
    pub value: &'a [u8],
}

/// RFC 5280 section 4.2.1.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// May issue certificates.
    pub ca: bool,
    /// How many intermediates may follow below it.
    pub path_length: Option<u8>,
}

/// RFC 5280 section 4.2.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage(u16);

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
        let mut outer = Reader::new(der);
        let certificate = outer
            .expect(tag::SEQUENCE)
            .map_err(|_| PkiError::NotACertificate)?;
        let mut parts = certificate.inside();
        let tbs = parts
            .expect(tag::SEQUENCE)
            .map_err(|_| PkiError::NotACertificate)?;
        let fault = PkiError::malformed("certificate");
        outer.finish().map_err(&fault)?;
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
        self.not_before <= now && now <= last_instant(self.not_after)
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
        Extensions(Reader::new(self.extensions))
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

/// The extensions of one certificate.
#[derive(Debug, Clone)]
pub struct Extensions<'a>(Reader<'a>);

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        // Read once already when the certificate was parsed: the end is the only way to fail.
        read_extension(&mut self.0).ok()
    }
}

impl KeyUsage {
    /// May sign what is not a certificate.
    pub fn digital_signature(self) -> bool {
        self.bit(0)
    }

    /// May have keys encrypted to it.
    pub fn key_encipherment(self) -> bool {
        self.bit(2)
    }

    /// May sign certificates.
    pub fn key_cert_sign(self) -> bool {
        self.bit(5)
    }

    fn bit(self, number: u32) -> bool {
        self.0 & (0x8000 >> number) != 0
    }
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
    let not_before = read_time(times.any()?)?;
    let not_after = read_time(times.any()?)?;
    times.finish()?;
    Ok((not_before, not_after))
}

/// RFC 5280 section 4.1.2.5: seconds always, no fraction, always UTC. Times before 1970 become 1970,
/// which no present time can tell apart.
pub(crate) fn read_time(element: Tlv<'_>) -> Result<Timestamp, DerFault> {
    let (year, rest) = match (element.tag, element.value) {
        (tag::UTC_TIME, [a, b, rest @ ..]) => {
            let year = two_digits(*a, *b)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (tag::GENERALIZED_TIME, [a, b, c, d, rest @ ..]) => {
            (two_digits(*a, *b)? * 100 + two_digits(*c, *d)?, rest)
        }
        _ => return Err(DerFault::Tag),
    };
    let &[m1, m2, d1, d2, h1, h2, n1, n2, s1, s2, b'Z'] = rest else {
        return Err(DerFault::Value);
    };
    let small = |a, b| two_digits(a, b).and_then(|n| u8::try_from(n).map_err(|_| DerFault::Value));
    let month = time::Month::try_from(small(m1, m2)?).map_err(|_| DerFault::Value)?;
    let date = time::Date::from_calendar_date(year, month, small(d1, d2)?);
    let clock = time::Time::from_hms(small(h1, h2)?, small(n1, n2)?, small(s1, s2)?);
    let (Ok(date), Ok(clock)) = (date, clock) else {
        return Err(DerFault::Value);
    };
    Ok(Timestamp::from_seconds(
        date.with_time(clock).assume_utc().unix_timestamp(),
    ))
}

fn two_digits(tens: u8, ones: u8) -> Result<i32, DerFault> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Ok(i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
    } else {
        Err(DerFault::Value)
    }
}

fn last_instant(not_after: Timestamp) -> Timestamp {
    not_after.plus(std::time::Duration::from_millis(999))
}

fn read_extension<'a>(reader: &mut Reader<'a>) -> Result<Extension<'a>, DerFault> {
    let mut parts = reader.expect(tag::SEQUENCE)?.inside();
    let oid = parts.oid()?;
    let critical = parts.peek() == Some(tag::BOOLEAN) && {
        // DER leaves the default (false) out.
        if !parts.boolean()? {
            return Err(DerFault::Value);
        }
        true
    };
    let value = parts.expect(tag::OCTET_STRING)?.value;
    parts.finish()?;
    Ok(Extension {
        oid,
        critical,
        value,
    })
}

fn read_basic_constraints(value: &[u8]) -> Result<BasicConstraints, DerFault> {
    let mut parts = whole(value, tag::SEQUENCE)?.inside();
    let ca = parts.peek() == Some(tag::BOOLEAN) && {
        if !parts.boolean()? {
            return Err(DerFault::Value);
        }
        true
    };
    let path_length = if parts.is_empty() {
        None
    } else {
        Some(parts.small_integer()?)
    };
    parts.finish()?;
    // RFC 5280: a path length without CA means nothing; who writes it means something else.
    if path_length.is_some() && !ca {
        return Err(DerFault::Value);
    }
    Ok(BasicConstraints { ca, path_length })
}

fn read_key_usage(value: &[u8]) -> Result<KeyUsage, DerFault> {
    let (unused, bits) = match whole(value, tag::BIT_STRING)?.value {
        [unused, only] => (*unused, u16::from_be_bytes([*only, 0])),
        [unused, first, second] => (*unused, u16::from_be_bytes([*first, *second])),
        _ => return Err(DerFault::Value),
    };
    if unused > 7 || bits == 0 {
        Err(DerFault::Value)
    } else {
        Ok(KeyUsage(bits))
    }
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

    #[test]
    fn times_are_those_of_rfc_5280() {
        let read = |tag, value: &[u8]| {
            read_time(Tlv {
                tag,
                value,
                raw: &[],
            })
            .map(|time| time.to_string())
        };
        assert_eq!(
            read(tag::UTC_TIME, b"261001093007Z"),
            Ok("2026-10-01T09:30:07Z".into())
        );
        assert_eq!(
            read(tag::UTC_TIME, b"991231235959Z"),
            Ok("1999-12-31T23:59:59Z".into())
        );
        assert_eq!(
            read(tag::UTC_TIME, b"500101000000Z"),
            Ok("1970-01-01T00:00:00Z".into())
        );
        let last = read(tag::GENERALIZED_TIME, b"99991231235959Z");
        assert_eq!(last, Ok("9999-12-31T23:59:59Z".into()));
        for bad in [
            "2610010930Z",
            "261001093007",
            "261301093007Z",
            "261001093007+0100",
            "26100109300xZ",
        ] {
            assert_eq!(
                read(tag::UTC_TIME, bad.as_bytes()),
                Err(DerFault::Value),
                "{bad}"
            );
        }
        assert!(read(tag::GENERALIZED_TIME, b"20261001093007.5Z").is_err());
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
