//! PKCS #10 requests as macOS makes them for SCEP and ACME identities (RFC 2986).

use openssl::asn1::Asn1Object;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use crate::cms::{self, SignatureDigest};
use crate::der::{self, sequence, tag, tlv};

const EXTENSION_REQUEST: &str = "1.2.840.113549.1.9.14";
const SUBJECT_ALT_NAME: &str = "2.5.29.17";
const KEY_USAGE: &str = "2.5.29.15";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
/// userPrincipalName, the otherName behind `ntPrincipalName`.
const NT_PRINCIPAL_NAME: &str = "1.3.6.1.4.1.311.20.2.3";

/// Relative distinguished names in order, each a set of (short name or OID, value).
pub type Subject = Vec<Vec<(String, String)>>;

/// One name of a payload's SubjectAltName (apple-protocol 1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlternativeName {
    Email(String),
    Dns(String),
    Uri(String),
    NtPrincipal(String),
}

/// A request for `key`, signed by it. The attributes are encoded already.
pub fn request(
    key: &PKey<Private>,
    subject: &Subject,
    attributes: Vec<Vec<u8>>,
    digest: SignatureDigest,
) -> Result<Vec<u8>, ErrorStack> {
    let mut set = der::set_of(attributes);
    if let Some(first) = set.first_mut() {
        *first = tag::CONTEXT_0;
    }
    let info = sequence(&[
        &der::small_integer(0),
        &name(subject)?,
        &key.public_key_to_der()?,
        &set,
    ]);
    let signature = Signer::new(digest.message_digest(), key)?.sign_oneshot_to_vec(&info)?;
    let bits = tlv(tag::BIT_STRING, &[&[0], &signature[..]].concat());
    Ok(sequence(&[
        &info,
        &cms::signature_algorithm(key, digest, true)?,
        &bits,
    ]))
}

/// The subject, as a Name.
pub(crate) fn name(subject: &Subject) -> Result<Vec<u8>, ErrorStack> {
    let mut names = Vec::new();
    for set in subject {
        let mut values = Vec::new();
        for (name, value) in set {
            let oid = match attribute_oid(name) {
                Some(known) => tlv(
                    tag::OID,
                    Asn1Object::from_str(known.short_name()?)?.as_slice(),
                ),
                None => der::oid(name)?,
            };
            let kind = if name == "C" {
                tag::PRINTABLE_STRING
            } else {
                tag::UTF8_STRING
            };
            values.push(sequence(&[&oid, &tlv(kind, value.as_bytes())]));
        }
        names.push(der::set_of(values));
    }
    Ok(tlv(tag::SEQUENCE, &names.concat()))
}

/// A short name of the profile's Subject; others are dotted OIDs.
fn attribute_oid(name: &str) -> Option<Nid> {
    match name {
        "C" => Some(Nid::COUNTRYNAME),
        "L" => Some(Nid::LOCALITYNAME),
        "ST" => Some(Nid::STATEORPROVINCENAME),
        "O" => Some(Nid::ORGANIZATIONNAME),
        "OU" => Some(Nid::ORGANIZATIONALUNITNAME),
        "CN" => Some(Nid::COMMONNAME),
        _ => None,
    }
}

/// The attribute that asks for these extensions.
pub(crate) fn extension_request(extensions: &[Vec<u8>]) -> Result<Vec<u8>, ErrorStack> {
    cms::attribute(EXTENSION_REQUEST, &tlv(tag::SEQUENCE, &extensions.concat()))
}

/// The critical keyUsage extension for a profile's flags, 1 signing and 4 encryption
/// (apple-protocol 1.3, 1.4); nothing where they name neither.
pub(crate) fn key_usage(flags: i64) -> Result<Option<Vec<u8>>, ErrorStack> {
    let bits = match (flags & 1 != 0, flags & 4 != 0) {
        (false, false) => return Ok(None),
        (true, false) => [tag::BIT_STRING, 2, 7, 0x80],
        (false, true) => [tag::BIT_STRING, 2, 5, 0x20],
        (true, true) => [tag::BIT_STRING, 2, 5, 0xa0],
    };
    Ok(Some(sequence(&[
        &der::oid(KEY_USAGE)?,
        &[1, 1, 0xff],
        &tlv(tag::OCTET_STRING, &bits),
    ])))
}

/// The extendedKeyUsage extension for dotted OIDs.
pub(crate) fn extended_key_usage(purposes: &[String]) -> Result<Vec<u8>, ErrorStack> {
    let purposes: Vec<Vec<u8>> = purposes
        .iter()
        .map(|purpose| der::oid(purpose))
        .collect::<Result<_, _>>()?;
    extension(EXTENDED_KEY_USAGE, &tlv(tag::SEQUENCE, &purposes.concat()))
}

/// The subjectAltName extension.
pub(crate) fn subject_alt_name(names: &[AlternativeName]) -> Result<Vec<u8>, ErrorStack> {
    let mut all = Vec::new();
    for name in names {
        // GeneralName's context tags (RFC 5280 4.2.1.6).
        all.extend(match name {
            AlternativeName::Email(text) => tlv(0x81, text.as_bytes()),
            AlternativeName::Dns(text) => tlv(0x82, text.as_bytes()),
            AlternativeName::Uri(text) => tlv(0x86, text.as_bytes()),
            AlternativeName::NtPrincipal(text) => {
                let value = tlv(tag::CONTEXT_0, &tlv(tag::UTF8_STRING, text.as_bytes()));
                let other = [der::oid(NT_PRINCIPAL_NAME)?, value].concat();
                tlv(tag::CONTEXT_0, &other)
            }
        });
    }
    extension(SUBJECT_ALT_NAME, &tlv(tag::SEQUENCE, &all))
}

fn extension(oid: &str, contents: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Ok(sequence(&[
        &der::oid(oid)?,
        &tlv(tag::OCTET_STRING, contents),
    ]))
}
