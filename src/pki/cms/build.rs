//! SignedData, written (RFC 5652 section 5): signed profiles, SCEP replies, lists of certificates.

use const_oid::ObjectIdentifier;

use crate::pki::tlv::tag;
use crate::pki::{Certificate, PkiError, SignatureAlgorithm, Signer, oid, write};
use crate::time::Timestamp;

/// A message to be signed, content attached.
#[derive(Debug)]
pub struct SignedDataBuilder<'a> {
    content_type: ObjectIdentifier,
    content: Option<&'a [u8]>,
    signing_time: Option<Timestamp>,
    attributes: Vec<Vec<u8>>,
    chain: Vec<&'a [u8]>,
}

impl<'a> SignedDataBuilder<'a> {
    /// A message around `content`, as id-data.
    pub fn attached(content: &'a [u8]) -> Self {
        Self {
            content_type: oid::DATA,
            content: Some(content),
            signing_time: None,
            attributes: Vec::new(),
            chain: Vec::new(),
        }
    }

    /// A message that signs no content, only its attributes (SCEP failures: RFC 8894 section 3.3.2).
    pub fn without_content() -> Self {
        Self {
            content: None,
            ..Self::attached(&[])
        }
    }

    /// Says when it was signed.
    #[must_use]
    pub fn signing_time(mut self, at: Timestamp) -> Self {
        self.signing_time = Some(at);
        self
    }

    /// Adds a signed attribute with one value, given as a DER element.
    #[must_use]
    pub fn attribute(mut self, oid: ObjectIdentifier, value: &[u8]) -> Self {
        self.attributes.push(attribute(oid, value));
        self
    }

    /// Encloses a further certificate after the signer's: an issuer the reader may need.
    #[must_use]
    pub fn enclose(mut self, certificate: &Certificate<'a>) -> Self {
        self.chain.push(certificate.as_der());
        self
    }

    /// Signs it, always over attributes, and encloses the signer's certificate first.
    ///
    /// # Errors
    /// When `certificate` is not that of the key, or the key does not sign.
    pub fn sign(
        self,
        certificate: &Certificate<'a>,
        key: &dyn Signer,
    ) -> Result<Vec<u8>, PkiError> {
        if certificate.spki() != key.public_key_spki() {
            return Err(PkiError::UnsupportedKey);
        }
        let digest = key.algorithm().digest();
        let hash = digest.of(&[self.content.unwrap_or_default()]);
        let mut attributes = self.attributes;
        attributes.push(attribute(oid::CONTENT_TYPE, &write::oid(self.content_type)));
        attributes.push(attribute(
            oid::MESSAGE_DIGEST,
            &write::octet_string(hash.as_ref()),
        ));
        if let Some(at) = self.signing_time {
            attributes.push(attribute(oid::SIGNING_TIME, &write::time(at)));
        }
        let attributes = write::set_of(attributes);
        let signature = key.sign(&attributes).map_err(|_| PkiError::SigningFailed)?;

        // Signed as a SET, sent with the tag [0] (RFC 5652 section 5.4).
        let mut sent_attributes = attributes;
        if let Some(first) = sent_attributes.first_mut() {
            *first = tag::context_constructed(0);
        }
        let signer = write::sequence(&[certificate.issuer().as_der(), &serial(certificate)]);
        let signer_info = write::sequence(&[
            &write::unsigned(&[1]),
            &signer,
            &digest.to_der(),
            &sent_attributes,
            &signature_algorithm(key.algorithm()),
            &write::octet_string(&signature),
        ]);
        let mut enclosed = certificate.as_der().to_vec();
        for further in self.chain {
            enclosed.extend_from_slice(further);
        }
        Ok(content_info(&[
            &write::unsigned(&[1]),
            &write::set_of(vec![digest.to_der()]),
            &encapsulated(self.content_type, self.content),
            &write::element(tag::context_constructed(0), &enclosed),
            &write::set_of(vec![signer_info]),
        ]))
    }
}

/// A degenerate SignedData that only carries certificates, in the order given (SCEP clients take
/// the first for the issued one; RFC 8894 section 3.4).
pub fn certificates_only(certificates: &[Certificate<'_>]) -> Vec<u8> {
    let enclosed: Vec<&[u8]> = certificates.iter().map(Certificate::as_der).collect();
    content_info(&[
        &write::unsigned(&[1]),
        &write::set_of(Vec::new()),
        &encapsulated(oid::DATA, None),
        &write::constructed(tag::context_constructed(0), &enclosed),
        &write::set_of(Vec::new()),
    ])
}

/// RFC 3370 section 3.2 has implementations write rsaEncryption here, whatever the digest; the name
/// that includes the digest is refused by some (strongSwan's SCEP client among them).
fn signature_algorithm(algorithm: SignatureAlgorithm) -> Vec<u8> {
    match algorithm {
        SignatureAlgorithm::Rsa(_) => {
            write::sequence(&[&write::oid(oid::RSA_ENCRYPTION), &write::null()])
        }
        SignatureAlgorithm::Ecdsa(_) => algorithm.to_der(),
    }
}

fn content_info(signed_data: &[&[u8]]) -> Vec<u8> {
    let signed_data = write::sequence(signed_data);
    write::sequence(&[
        &write::oid(oid::SIGNED_DATA),
        &write::element(tag::context_constructed(0), &signed_data),
    ])
}

fn encapsulated(content_type: ObjectIdentifier, content: Option<&[u8]>) -> Vec<u8> {
    let content = content.map_or_else(Vec::new, |content| {
        write::element(tag::context_constructed(0), &write::octet_string(content))
    });
    write::sequence(&[&write::oid(content_type), &content])
}

fn attribute(oid: ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    write::sequence(&[&write::oid(oid), &write::set_of(vec![value.to_vec()])])
}

fn serial(certificate: &Certificate<'_>) -> Vec<u8> {
    write::element(tag::INTEGER, certificate.serial())
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use openssl::cms::{CMSOptions, CmsContentInfo};
    use openssl::pkcs7::Pkcs7;

    use super::*;
    use crate::pki::cms::MAX_ATTACHED;
    use crate::pki::cms::signed_data::{SignedData, read};
    use crate::pki::read_certificates;
    use crate::pki::test_key::{TestKey, self_signed};

    #[test]
    fn a_signed_profile_verifies_with_openssl_and_with_us() {
        for key in [TestKey::rsa(), TestKey::p256(), TestKey::p384()] {
            let owned = self_signed(&key, "signer");
            let signed = SignedDataBuilder::attached(b"<plist/>")
                .signing_time(Timestamp::from_seconds(1_790_847_007))
                .attribute(oid::CHALLENGE_PASSWORD, &write::printable_string("x"))
                .sign(&owned.certificate(), &key)
                .expect("signed");

            let mut theirs = CmsContentInfo::from_der(&signed).expect("openssl reads it");
            let mut content = Vec::new();
            let options = CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY;
            theirs
                .verify(None, None, None, Some(&mut content), options)
                .expect("openssl verifies");
            assert_eq!(content, b"<plist/>");

            // And a third reader, which takes strict DER only.
            let third = ::cms::content_info::ContentInfo::from_der(&signed).expect("cms reads it");
            let third: ::cms::signed_data::SignedData = third.content.decode_as().expect("reads");
            assert_eq!(third.signer_infos.0.len(), 1);

            let der = read(&signed, MAX_ATTACHED).expect("DER");
            let ours = SignedData::parse(&der).expect("parsed");
            assert_eq!(ours.content(), Some(&b"<plist/>"[..]));
            assert_eq!(ours.verify(b"<plist/>"), Ok(()));
            assert!(ours.verify(b"<plist />").is_err());
            assert!(ours.require_detached().is_err());
            let value = ours
                .signed_attribute(oid::CHALLENGE_PASSWORD)
                .expect("there");
            assert_eq!(value.value, b"x");
        }
    }

    #[test]
    fn a_list_of_certificates_keeps_its_order_and_openssl_reads_it() {
        let file = include_bytes!("../../../tests/fixtures/mda/sim-mda-leaf-good.pem");
        let leaf = read_certificates(file).expect("PEM").remove(0);
        let file = include_bytes!("../../../tests/fixtures/mda/sim-mda-root.pem");
        let root = read_certificates(file).expect("PEM").remove(0);
        for pair in [[&leaf, &root], [&root, &leaf]] {
            let list = certificates_only(&[pair[0].certificate(), pair[1].certificate()]);
            let theirs = Pkcs7::from_der(&list).expect("openssl reads it");
            let certificates = theirs
                .signed()
                .and_then(|signed| signed.certificates())
                .expect("list");
            let ders: Vec<_> = certificates
                .iter()
                .map(|one| one.to_der().expect("DER"))
                .collect();
            assert_eq!(ders, [pair[0].as_der(), pair[1].as_der()]);
        }
    }

    #[test]
    fn a_key_signs_only_under_its_own_certificate() {
        let owned = self_signed(&TestKey::p256(), "signer");
        let other = SignedDataBuilder::attached(b"x").sign(&owned.certificate(), &TestKey::p256());
        assert_eq!(other, Err(PkiError::UnsupportedKey));
    }
}
