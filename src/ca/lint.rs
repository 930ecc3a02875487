//! The last look at a certificate before it is signed.
//!
//! What was written is decoded again by `x509-cert`, which shares no code with the writer, and held
//! against what its kind may contain. A finding is a defect of ours, never the client's fault.

use der::{Decode, Encode};
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};

use super::IssuanceError;
use super::certificate_profile::CertificateProfile;
use super::issuance::{Issuer, key_identifier};
use crate::pki::PublicKey;
use crate::time::Timestamp;

/// Checks a TBSCertificate against its profile.
pub fn lint(
    tbs: &[u8],
    profile: &CertificateProfile,
    key: &PublicKey<'_>,
    issuer: Issuer<'_>,
    now: Timestamp,
) -> Result<(), IssuanceError> {
    let unreadable = |_| IssuanceError::Lint("it does not decode");
    let certificate = TbsCertificate::from_der(tbs).map_err(unreadable)?;
    let demand = |holds: bool, rule| {
        if holds {
            Ok(())
        } else {
            Err(IssuanceError::Lint(rule))
        }
    };
    let kind = profile.kind;

    demand(certificate.version() == Version::V3, "version 3")?;
    let serial = certificate.serial_number().as_bytes();
    demand(
        serial.len() == 16 && serial[0] & 0xc0 == 0x40,
        "a positive serial of 16 octets",
    )?;
    let subject = certificate.subject().to_der().map_err(unreadable)?;
    demand(subject == profile.subject()?, "the subject of the profile")?;
    let spki = certificate
        .subject_public_key_info()
        .to_der()
        .map_err(unreadable)?;
    demand(spki == key.spki(), "the key that was asked for")?;
    let issuer_name = certificate.issuer().to_der().map_err(unreadable)?;
    let expected = match issuer {
        Issuer::Itself => subject,
        Issuer::Authority(authority) => authority.subject().as_der().to_vec(),
    };
    demand(issuer_name == expected, "the issuer's name")?;

    let seconds = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    let (from, until) = (
        seconds(certificate.validity().not_before),
        seconds(certificate.validity().not_after),
    );
    demand(from <= now.seconds() && now.seconds() < until, "valid now")?;
    let longest = profile.validity.saturating_add(profile.backdated).as_secs();
    demand(
        u64::try_from(until - from).is_ok_and(|length| length <= longest),
        "no longer valid than its profile says",
    )?;

    let constraints = certificate
        .get_extension::<BasicConstraints>()
        .map_err(unreadable)?;
    demand(
        constraints.is_some_and(|(critical, constraints)| {
            let path_length = if kind.is_authority() { Some(0) } else { None };
            critical
                && constraints.ca == kind.is_authority()
                && constraints.path_len_constraint == path_length
        }),
        "critical basicConstraints of its kind",
    )?;
    let usage = certificate
        .get_extension::<KeyUsage>()
        .map_err(unreadable)?;
    demand(
        usage.is_some_and(|(critical, usage)| {
            critical
                && usage.key_cert_sign() == kind.is_authority()
                && usage.digital_signature() != kind.is_authority()
                && !usage.non_repudiation()
                && !usage.key_agreement()
        }),
        "critical keyUsage of its kind",
    )?;
    let purposes = certificate
        .get_extension::<ExtendedKeyUsage>()
        .map_err(unreadable)?;
    let purposes = purposes.map(|(_, purposes)| purposes.0);
    demand(
        purposes == kind.extended_key_usage().map(|purpose| vec![purpose]),
        "extended key usage of its kind",
    )?;
    let subject_key = certificate
        .get_extension::<SubjectKeyIdentifier>()
        .map_err(unreadable)?;
    demand(
        subject_key.is_some_and(|(_, identifier)| identifier.0.as_bytes() == key_identifier(key)),
        "its key identifier",
    )?;
    let authority_key = certificate
        .get_extension::<AuthorityKeyIdentifier>()
        .map_err(unreadable)?;
    demand(
        authority_key.is_some_and(|(_, identifier)| identifier.key_identifier.is_some()),
        "its issuer's key identifier",
    )?;
    let expected = 4 + usize::from(kind.extended_key_usage().is_some());
    demand(
        certificate
            .extensions()
            .is_some_and(|all| all.len() == expected),
        "no extension beyond its kind's",
    )
}
