//! Maker of `Mdm-Signature` headers: CMS SignedData as macOS makes it, and the other forms that
//! occur or that an attacker would try (apple-protocol 3.4, 12.2).
//!
//! Written by hand because OpenSSL's safe interface makes neither indefinite lengths nor the
//! attack forms; only the signature itself is OpenSSL's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{Id, PKeyRef, Private};
use openssl::sign::Signer;

use crate::certs::Identity;
use crate::der::{self, sequence, tag, tlv};

pub(crate) const ID_DATA: &str = "1.2.840.113549.1.7.1";
pub(crate) const ID_SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
pub(crate) const ATTRIBUTE_CONTENT_TYPE: &str = "1.2.840.113549.1.9.3";
pub(crate) const ATTRIBUTE_MESSAGE_DIGEST: &str = "1.2.840.113549.1.9.4";
pub(crate) const ATTRIBUTE_SIGNING_TIME: &str = "1.2.840.113549.1.9.5";

/// The digests macOS signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignatureDigest {
    #[default]
    Sha1,
    Sha256,
    /// Of no client of Apple's.
    Sha384,
    /// Only SCEP uses it, where the server names SHA-512.
    Sha512,
}

impl SignatureDigest {
    pub(crate) fn message_digest(self) -> MessageDigest {
        match self {
            Self::Sha1 => MessageDigest::sha1(),
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    /// The digest's AlgorithmIdentifier without parameters, as the captured signatures have it.
    pub(crate) fn algorithm(self) -> Result<Vec<u8>, ErrorStack> {
        let oid = match self {
            Self::Sha1 => "1.3.14.3.2.26",
            Self::Sha256 => "2.16.840.1.101.3.4.2.1",
            Self::Sha384 => "2.16.840.1.101.3.4.2.2",
            Self::Sha512 => "2.16.840.1.101.3.4.2.3",
        };
        Ok(sequence(&[&der::oid(oid)?]))
    }
}

/// How a signature is made. The default is that of the captured macOS signatures: indefinite
/// lengths, SHA-1, no signed attributes, only the leaf, detached, `rsaEncryption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureStyle {
    /// Outer layers with indefinite lengths (`30 80 … 00 00`) instead of DER.
    pub indefinite: bool,
    pub digest: SignatureDigest,
    /// Signed attributes with this signingTime, seconds since 1970.
    pub signing_time: Option<i64>,
    /// Puts the signer's certificate in.
    pub with_certificate: bool,
    /// Attack: carries this content, and signs it, instead of the request's body.
    pub attached: Option<Vec<u8>>,
    /// Names the RSA signature `shaXWithRSAEncryption` instead of `rsaEncryption`.
    pub names_digest_in_algorithm: bool,
}

impl Default for SignatureStyle {
    fn default() -> Self {
        Self {
            indefinite: true,
            digest: SignatureDigest::Sha1,
            signing_time: None,
            with_certificate: true,
            attached: None,
            names_digest_in_algorithm: false,
        }
    }
}

impl SignatureStyle {
    /// DER, SHA-256, no signed attributes: what newer tool chains produce, and the EC identities.
    pub fn sha256_der() -> Self {
        Self {
            indefinite: false,
            digest: SignatureDigest::Sha256,
            ..Self::default()
        }
    }
}

/// The value of the `Mdm-Signature` header for `body`: base64 without line breaks.
pub fn mdm_signature(
    identity: &Identity,
    body: &[u8],
    style: &SignatureStyle,
) -> Result<String, ErrorStack> {
    Ok(STANDARD.encode(signed_data(identity, body, style)?))
}

/// The CMS SignedData over `body` (or over the attached content, where the style has one).
pub fn signed_data(
    identity: &Identity,
    body: &[u8],
    style: &SignatureStyle,
) -> Result<Vec<u8>, ErrorStack> {
    let content = style.attached.as_deref().unwrap_or(body);
    let attributes = match style.signing_time {
        None => None,
        Some(at) => Some(vec![
            attribute(ATTRIBUTE_CONTENT_TYPE, &der::oid(ID_DATA)?)?,
            attribute(
                ATTRIBUTE_MESSAGE_DIGEST,
                &digest_octets(style.digest, content)?,
            )?,
            attribute(ATTRIBUTE_SIGNING_TIME, &der::time(at))?,
        ]),
    };
    let signer_info = signer_info(
        identity,
        content,
        style.digest,
        attributes,
        &signature_algorithm(&identity.key, style.digest, style.names_digest_in_algorithm)?,
    )?;
    let layers = Layers {
        indefinite: style.indefinite,
    };
    let mut encapsulated = der::oid(ID_DATA)?;
    if let Some(attached) = &style.attached {
        encapsulated.extend(layers.wrap(tag::CONTEXT_0, &tlv(tag::OCTET_STRING, attached)));
    }
    let mut certificates = Vec::new();
    if style.with_certificate {
        certificates = tlv(tag::CONTEXT_0, &identity.certificate.to_der()?);
    }
    let signed = [
        der::small_integer(1),
        tlv(tag::SET, &style.digest.algorithm()?),
        layers.wrap(tag::SEQUENCE, &encapsulated),
        certificates,
        tlv(tag::SET, &signer_info),
    ]
    .concat();
    let content_info = [
        der::oid(ID_SIGNED_DATA)?,
        layers.wrap(tag::CONTEXT_0, &layers.wrap(tag::SEQUENCE, &signed)),
    ]
    .concat();
    Ok(layers.wrap(tag::SEQUENCE, &content_info))
}

/// One signed attribute with a single, already encoded value.
pub(crate) fn attribute(oid: &str, value: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Ok(sequence(&[&der::oid(oid)?, &tlv(tag::SET, value)]))
}

/// The messageDigest value: the digest of `content` in an OCTET STRING.
pub(crate) fn digest_octets(
    digest: SignatureDigest,
    content: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    Ok(tlv(
        tag::OCTET_STRING,
        &hash(digest.message_digest(), content)?,
    ))
}

/// A version 1 SignerInfo by issuer and serial number, over `content` or over the attributes.
pub(crate) fn signer_info(
    identity: &Identity,
    content: &[u8],
    digest: SignatureDigest,
    attributes: Option<Vec<Vec<u8>>>,
    algorithm: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    let certificate = &identity.certificate;
    let serial = certificate.serial_number().to_bn()?;
    let mut serial_bytes = serial.to_vec();
    if serial_bytes.first().is_none_or(|first| first & 0x80 != 0) {
        serial_bytes.insert(0, 0);
    }
    let issuer_and_serial = sequence(&[
        &certificate.issuer_name().to_der()?,
        &tlv(tag::INTEGER, &serial_bytes),
    ]);
    let (signed_attributes, to_sign) = match attributes {
        None => (Vec::new(), content.to_vec()),
        Some(attributes) => {
            // Signed as an explicit SET OF, sent under [0] (RFC 5652 5.4).
            let set = der::set_of(attributes);
            let mut implicit = set.clone();
            if let Some(first) = implicit.first_mut() {
                *first = tag::CONTEXT_0;
            }
            (implicit, set)
        }
    };
    let mut signer = Signer::new(digest.message_digest(), &identity.key)?;
    let signature = signer.sign_oneshot_to_vec(&to_sign)?;
    Ok(sequence(&[
        &der::small_integer(1),
        &issuer_and_serial,
        &digest.algorithm()?,
        &signed_attributes,
        algorithm,
        &tlv(tag::OCTET_STRING, &signature),
    ]))
}

/// The signatureAlgorithm of a SignerInfo: `rsaEncryption` with NULL (or the combined RSA name),
/// or `ecdsa-with-SHAx` without parameters.
pub(crate) fn signature_algorithm(
    key: &PKeyRef<Private>,
    digest: SignatureDigest,
    combined: bool,
) -> Result<Vec<u8>, ErrorStack> {
    let null = [tag::NULL, 0];
    let (oid, parameters): (&str, &[u8]) = match (key.id(), digest, combined) {
        (Id::EC, SignatureDigest::Sha1, _) => ("1.2.840.10045.4.1", &[]),
        (Id::EC, SignatureDigest::Sha256, _) => ("1.2.840.10045.4.3.2", &[]),
        (Id::EC, SignatureDigest::Sha384, _) => ("1.2.840.10045.4.3.3", &[]),
        (Id::EC, SignatureDigest::Sha512, _) => ("1.2.840.10045.4.3.4", &[]),
        (_, SignatureDigest::Sha1, true) => ("1.2.840.113549.1.1.5", &null),
        (_, SignatureDigest::Sha256, true) => ("1.2.840.113549.1.1.11", &null),
        (_, SignatureDigest::Sha384, true) => ("1.2.840.113549.1.1.12", &null),
        (_, SignatureDigest::Sha512, true) => ("1.2.840.113549.1.1.13", &null),
        (_, _, false) => ("1.2.840.113549.1.1.1", &null),
    };
    Ok(sequence(&[&der::oid(oid)?, parameters]))
}

struct Layers {
    indefinite: bool,
}

impl Layers {
    fn wrap(&self, tag: u8, contents: &[u8]) -> Vec<u8> {
        if self.indefinite {
            der::tlv_indefinite(tag, contents)
        } else {
            tlv(tag, contents)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::clock::Clock;
    use crate::keys::KeyKind;

    const BODY: &[u8] = b"<plist>\r\nthe very bytes</plist>\n";

    fn openssl_accepts(signature: &[u8], body: &[u8], extra: &[&str]) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (signature_file, body_file) = (folder.path().join("s"), folder.path().join("b"));
        std::fs::write(&signature_file, signature).unwrap();
        std::fs::write(&body_file, body).unwrap();
        Command::new("openssl")
            .args([
                "cms",
                "-verify",
                "-binary",
                "-noverify",
                "-inform",
                "DER",
                "-out",
                "/dev/null",
                "-in",
            ])
            .arg(&signature_file)
            .arg("-content")
            .arg(&body_file)
            .args(extra)
            .output()
            .unwrap()
            .status
            .success()
    }

    #[test]
    fn openssl_verifies_every_style_with_every_kind_of_key() {
        let now = Clock::system();
        for kind in [KeyKind::Rsa2048, KeyKind::P256, KeyKind::P384] {
            let identity = Identity::self_signed("SIM", kind, now.now_ms()).unwrap();
            for digest in [SignatureDigest::Sha1, SignatureDigest::Sha256] {
                for indefinite in [true, false] {
                    for signing_time in [None, Some(now.now_seconds())] {
                        let style = SignatureStyle {
                            indefinite,
                            digest,
                            signing_time,
                            ..SignatureStyle::default()
                        };
                        let made = signed_data(&identity, BODY, &style).unwrap();
                        assert!(openssl_accepts(&made, BODY, &[]), "{kind:?} {style:?}");
                        assert!(
                            !openssl_accepts(&made, b"another body", &[]),
                            "{kind:?} {style:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_default_form_has_the_structure_of_the_captured_one() {
        let identity =
            Identity::self_signed("SIM", KeyKind::Rsa2048, Clock::system().now_ms()).unwrap();
        let made = signed_data(&identity, BODY, &SignatureStyle::default()).unwrap();
        let head = hex::decode(
            "308006092a864886f70d010702a0803080020101310930070605\
             2b0e03021a308006092a864886f70d0107010000a082",
        )
        .unwrap();
        assert_eq!(made[..head.len()], head[..]);
        assert_eq!(made[made.len() - 6..], [0; 6]);
    }

    #[test]
    fn attack_forms_are_what_they_say() {
        let identity =
            Identity::self_signed("SIM", KeyKind::Rsa2048, Clock::system().now_ms()).unwrap();
        let bare = SignatureStyle {
            with_certificate: false,
            ..SignatureStyle::sha256_der()
        };
        let made = signed_data(&identity, BODY, &bare).unwrap();
        assert!(!openssl_accepts(&made, BODY, &[]));
        let attached = SignatureStyle {
            attached: Some(b"other".to_vec()),
            ..SignatureStyle::sha256_der()
        };
        let made = signed_data(&identity, BODY, &attached).unwrap();
        assert!(made.windows(5).any(|part| part == b"other"));
    }
}
