//! Certificates of the simulated world: an issuer, and the few shapes it issues.

use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private, Public};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameBuilder, X509NameRef};

use crate::clock::DAY_MS;
use crate::der;
use crate::keys::{self, KeyKind};

/// A private key with the certificate that names it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub key: PKey<Private>,
    pub certificate: X509,
}

impl Identity {
    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.certificate.to_pem()
    }

    /// The private key as PKCS#8 PEM.
    pub fn key_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.key.private_key_to_pem_pkcs8()
    }

    /// An identity nobody vouches for but itself, with `common_name`.
    pub fn self_signed(common_name: &str, kind: KeyKind, now_ms: i64) -> Result<Self, ErrorStack> {
        Self::self_signed_with(keys::generate(kind)?, common_name, now_ms)
    }

    /// As [`Identity::self_signed`] with a key that exists already: digitalSignature and
    /// keyEncipherment, the shape of a SCEP client's temporary certificate (apple-protocol 8.1).
    pub fn self_signed_with(
        key: PKey<Private>,
        common_name: &str,
        now_ms: i64,
    ) -> Result<Self, ErrorStack> {
        let name = name(&[(Nid::COMMONNAME, common_name)])?;
        let public = public_half(&key)?;
        let mut builder = begin(
            &name,
            &name,
            &public,
            now_ms - DAY_MS,
            now_ms + 365 * DAY_MS,
        )?;
        builder.append_extension(extension("2.5.29.15", true, &[3, 2, 5, 0xa0])?)?;
        builder.sign(&key, digest_for(&key))?;
        Ok(Self {
            key,
            certificate: builder.build(),
        })
    }

    /// An identity under a certificate authority invented for it: right in form, foreign by origin.
    pub fn from_foreign_ca(
        common_name: &str,
        kind: KeyKind,
        now_ms: i64,
    ) -> Result<Self, ErrorStack> {
        let issuer = Issuer::root("Foreign Device CA", "Nobody", KeyKind::P256, now_ms)?;
        issuer.client(
            &[(Nid::COMMONNAME, common_name)],
            keys::generate(kind)?,
            now_ms - DAY_MS,
            now_ms + 365 * DAY_MS,
        )
    }
}

/// A certificate authority.
#[derive(Debug, Clone)]
pub struct Issuer {
    pub identity: Identity,
}

impl Issuer {
    /// A self-signed root, valid from yesterday for ten years.
    pub fn root(
        common_name: &str,
        organization: &str,
        kind: KeyKind,
        now_ms: i64,
    ) -> Result<Self, ErrorStack> {
        let name = name(&[
            (Nid::COMMONNAME, common_name),
            (Nid::ORGANIZATIONNAME, organization),
        ])?;
        let key = keys::generate(kind)?;
        let public = public_half(&key)?;
        let mut builder = begin(
            &name,
            &name,
            &public,
            now_ms - DAY_MS,
            now_ms + 3650 * DAY_MS,
        )?;
        builder.append_extension(extension("2.5.29.19", true, &[0x30, 3, 1, 1, 0xff])?)?;
        builder.append_extension(extension("2.5.29.15", true, &[3, 2, 1, 6])?)?;
        builder.sign(&key, digest_for(&key))?;
        Ok(Self {
            identity: Identity {
                key,
                certificate: builder.build(),
            },
        })
    }

    /// The root certificate as PEM.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.identity.certificate_pem()
    }

    /// A TLS server certificate for `localhost`, 127.0.0.1 and ::1.
    pub fn loopback_server(&self, now_ms: i64) -> Result<Identity, ErrorStack> {
        // SAN: dNSName localhost, iPAddress 127.0.0.1, iPAddress ::1.
        let mut names = vec![0x82, 9];
        names.extend_from_slice(b"localhost");
        names.extend_from_slice(&[0x87, 4, 127, 0, 0, 1, 0x87, 16]);
        names.extend_from_slice(&[0; 15]);
        names.push(1);
        let san = extension("2.5.29.17", false, &der::tlv(der::tag::SEQUENCE, &names))?;
        // EKU: serverAuth.
        let eku = extension(
            "2.5.29.37",
            false,
            &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1],
        )?;
        let subject = [(Nid::COMMONNAME, "localhost")];
        let key = keys::generate(KeyKind::P256)?;
        self.issue(
            &subject,
            key,
            (now_ms - DAY_MS, now_ms + 365 * DAY_MS),
            [eku, san],
        )
    }

    /// A client certificate with digitalSignature, keyEncipherment and clientAuth.
    pub fn client(
        &self,
        subject: &[(Nid, &str)],
        key: PKey<Private>,
        not_before_ms: i64,
        not_after_ms: i64,
    ) -> Result<Identity, ErrorStack> {
        let certificate =
            self.client_for(subject, &public_half(&key)?, not_before_ms, not_after_ms)?;
        Ok(Identity { key, certificate })
    }

    /// As [`Issuer::client`], with a key of its own, whose names are these URIs (RFC 5280 section 4.2.1.6).
    pub fn client_with_uris(
        &self,
        uris: &[&str],
        (not_before_ms, not_after_ms): (i64, i64),
    ) -> Result<Identity, ErrorStack> {
        let client_auth = [0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];
        let mut extensions = vec![extension("2.5.29.37", false, &client_auth)?];
        if !uris.is_empty() {
            let names = uris.iter().map(|uri| der::tlv(0x86, uri.as_bytes()));
            let names = der::tlv(der::tag::SEQUENCE, &names.collect::<Vec<_>>().concat());
            extensions.push(extension("2.5.29.17", false, &names)?);
        }
        let key = keys::generate(KeyKind::P256)?;
        let within = (not_before_ms, not_after_ms);
        self.issue(&[(Nid::COMMONNAME, "client")], key, within, extensions)
    }

    /// As [`Issuer::client`], for a key that somebody else has.
    pub fn client_for(
        &self,
        subject: &[(Nid, &str)],
        public: &PKey<Public>,
        not_before_ms: i64,
        not_after_ms: i64,
    ) -> Result<X509, ErrorStack> {
        let eku = extension(
            "2.5.29.37",
            false,
            &[0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2],
        )?;
        self.certify(subject, public, (not_before_ms, not_after_ms), [eku])
    }

    fn issue(
        &self,
        subject: &[(Nid, &str)],
        key: PKey<Private>,
        (not_before_ms, not_after_ms): (i64, i64),
        extensions: impl IntoIterator<Item = X509Extension>,
    ) -> Result<Identity, ErrorStack> {
        let certificate = self.certify(
            subject,
            &public_half(&key)?,
            (not_before_ms, not_after_ms),
            extensions,
        )?;
        Ok(Identity { key, certificate })
    }

    fn certify(
        &self,
        subject: &[(Nid, &str)],
        public: &PKey<Public>,
        (not_before_ms, not_after_ms): (i64, i64),
        extensions: impl IntoIterator<Item = X509Extension>,
    ) -> Result<X509, ErrorStack> {
        let issuer = self.identity.certificate.subject_name();
        let subject = name(subject)?;
        let mut builder = begin(&subject, issuer, public, not_before_ms, not_after_ms)?;
        builder.append_extension(extension("2.5.29.19", true, &[0x30, 0])?)?;
        builder.append_extension(extension("2.5.29.15", true, &[3, 2, 5, 0xa0])?)?;
        for each in extensions {
            builder.append_extension(each)?;
        }
        builder.sign(&self.identity.key, digest_for(&self.identity.key))?;
        Ok(builder.build())
    }
}

/// A name of the given attributes, each in the type OpenSSL thinks proper (UTF8String, and
/// PrintableString for countries).
pub fn name(attributes: &[(Nid, &str)]) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    for (kind, value) in attributes {
        builder.append_entry_by_nid(*kind, value)?;
    }
    Ok(builder.build())
}

/// An extension from the bytes inside its extnValue OCTET STRING.
pub fn extension(oid: &str, critical: bool, contents: &[u8]) -> Result<X509Extension, ErrorStack> {
    let oid = Asn1Object::from_str(oid)?;
    X509Extension::new_from_der(&oid, critical, &*Asn1OctetString::new_from_bytes(contents)?)
}

/// A version 3 certificate with a random serial number, unsigned and without extensions.
pub fn begin(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    public: &PKey<Public>,
    not_before_ms: i64,
    not_after_ms: i64,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = keys::random::<16>()?;
    // Positive and never shortened by a leading zero octet (RFC 5280 4.1.2.2).
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let serial = BigNum::from_slice(&serial)?.to_asn1_integer()?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(public)?;
    builder.set_not_before(&*Asn1Time::from_unix(not_before_ms.div_euclid(1000))?)?;
    builder.set_not_after(&*Asn1Time::from_unix(not_after_ms.div_euclid(1000))?)?;
    Ok(builder)
}

/// The public half of a key pair.
pub fn public_half(key: &PKey<Private>) -> Result<PKey<Public>, ErrorStack> {
    PKey::public_key_from_der(&key.public_key_to_der()?)
}

/// SHA-384 for a P-384 signer as Apple's authorities do, SHA-256 otherwise.
pub fn digest_for(key: &PKey<Private>) -> MessageDigest {
    if key.bits() == 384 {
        MessageDigest::sha384()
    } else {
        MessageDigest::sha256()
    }
}

/// Lower-case hexadecimal SHA-256 of the certificate's DER: how records name a certificate.
pub fn fingerprint(certificate: &X509) -> Result<String, ErrorStack> {
    Ok(hex::encode(openssl::sha::sha256(&certificate.to_der()?)))
}

/// The contents of an extension's extnValue, read from the certificate's DER.
pub fn extension_value(certificate: &X509, oid: &str) -> Result<Option<Vec<u8>>, ErrorStack> {
    let der = certificate.to_der()?;
    let wanted = der::oid(oid)?;
    let found = || {
        let (whole, _) = der::read(&der)?;
        let (tbs, _) = der::read(whole.contents)?;
        let extensions = tbs.children()?.into_iter().find(|part| part.tag == 0xa3)?;
        let (list, _) = der::read(extensions.contents)?;
        let parts = list
            .children()?
            .into_iter()
            .filter_map(|each| each.children());
        let mut matching =
            parts.filter(|parts| parts.first().is_some_and(|oid| oid.whole == wanted));
        Some(matching.next()?.last()?.contents.to_vec())
    };
    Ok(found())
}

/// Whether basicConstraints says CA:TRUE.
pub fn is_ca(certificate: &X509) -> Result<bool, ErrorStack> {
    let value = extension_value(certificate, "2.5.29.19")?;
    Ok(value.is_some_and(|value| value.windows(3).any(|part| part == [1, 1, 0xff])))
}

/// The first octet of keyUsage (0x80 digitalSignature, 0x20 keyEncipherment); all bits when the
/// extension is absent, which restricts nothing (RFC 5280 4.2.1.3).
pub fn key_usage(certificate: &X509) -> Result<u8, ErrorStack> {
    let value = extension_value(certificate, "2.5.29.15")?;
    Ok(value.map_or(0xff, |bits| bits.get(3).copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_issuer_issues_verifies_under_it_and_only_under_it() {
        let now = crate::clock::Clock::system().now_ms();
        let root = Issuer::root("Test Root", "Test", KeyKind::P256, now).unwrap();
        let other = Issuer::root("Test Root", "Test", KeyKind::P256, now).unwrap();
        let server = root.loopback_server(now).unwrap();
        assert!(server.certificate.verify(&root.identity.key).unwrap());
        assert!(!server.certificate.verify(&other.identity.key).unwrap());
        assert!(is_ca(&root.identity.certificate).unwrap() && !is_ca(&server.certificate).unwrap());
        assert_eq!(key_usage(&server.certificate).unwrap(), 0xa0);
        assert!(
            server
                .certificate
                .public_key()
                .unwrap()
                .public_eq(&server.key)
        );
    }
}
