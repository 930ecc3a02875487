//! Signatures in every form a Mac may send, and in the forms nobody may: composed by hand, signed
//! by OpenSSL.

use const_oid::ObjectIdentifier;

use super::{MAX_DETACHED, Refused, SignedData, SignedDataRefusal, read};
use crate::pki::test_key::{TestKey, self_signed};
use crate::pki::tlv::{Reader, tag};
use crate::pki::{Digest, OwnedCertificate, SignatureAlgorithm, Signer, oid, write};

const BODY: &[u8] = b"<plist><dict/></plist>";

/// A message to be composed; every field is one way to deviate.
struct Recipe {
    digest: Digest,
    attributes: Option<Vec<(ObjectIdentifier, Vec<u8>)>>,
    algorithm: Vec<u8>,
    listed: Vec<Digest>,
    content_type: ObjectIdentifier,
    attached: Option<&'static [u8]>,
    by_key_identifier: Option<[u8; 20]>,
    signers: usize,
}

fn attributes(digest: Digest, body: &[u8]) -> Vec<(ObjectIdentifier, Vec<u8>)> {
    let hash = digest.of(&[body]);
    vec![
        (oid::CONTENT_TYPE, write::oid(oid::DATA)),
        (oid::MESSAGE_DIGEST, write::octet_string(hash.as_ref())),
        (
            oid::SIGNING_TIME,
            write::time(crate::time::Timestamp::from_seconds(1_790_847_007)),
        ),
    ]
}

fn recipe(key: &TestKey) -> Recipe {
    let digest = key.algorithm().digest();
    Recipe {
        digest,
        attributes: Some(attributes(digest, BODY)),
        algorithm: key.algorithm().to_der(),
        listed: vec![digest],
        content_type: oid::DATA,
        attached: None,
        by_key_identifier: None,
        signers: 1,
    }
}

impl Recipe {
    fn cook(&self, key: &TestKey, certificate: &OwnedCertificate) -> Vec<u8> {
        let set = self.attributes.as_ref().map(|attributes| {
            let attribute = |(oid, value): &(ObjectIdentifier, Vec<u8>)| {
                write::sequence(&[&write::oid(*oid), &write::set_of(vec![value.clone()])])
            };
            write::set_of(attributes.iter().map(attribute).collect())
        });
        let signature = key.sign(set.as_deref().unwrap_or(BODY)).expect("signed");
        let mut sent = set.unwrap_or_default();
        if let Some(first) = sent.first_mut() {
            *first = 0xa0;
        }
        let certificate = certificate.certificate();
        let serial = write::element(tag::INTEGER, certificate.serial());
        let (version, signer) = match self.by_key_identifier {
            Some(identifier) => (3, write::element(0x80, &identifier)),
            None => (
                1,
                write::sequence(&[certificate.issuer().as_der(), &serial]),
            ),
        };
        let info = write::sequence(&[
            &write::unsigned(&[version]),
            &signer,
            &self.digest.to_der(),
            &sent,
            &self.algorithm,
            &write::octet_string(&signature),
        ]);
        let content = self.attached.map_or_else(Vec::new, |content| {
            write::element(0xa0, &write::octet_string(content))
        });
        let signed_data = write::sequence(&[
            &write::unsigned(&[1]),
            &write::set_of(self.listed.iter().map(|digest| digest.to_der()).collect()),
            &write::sequence(&[&write::oid(self.content_type), &content]),
            &write::element(0xa0, certificate.as_der()),
            &write::element(tag::SET, &info.repeat(self.signers)),
        ]);
        write::sequence(&[
            &write::oid(oid::SIGNED_DATA),
            &write::element(0xa0, &signed_data),
        ])
    }
}

/// The same message in BER: indefinite lengths everywhere outside of certificates, strings in pieces.
fn to_ber(der: &[u8], depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = Reader::new(der);
    while !reader.is_empty() {
        let element = reader.any().expect("DER");
        if element.tag == tag::OCTET_STRING && element.value.len() > 1 {
            let (one, two) = element.value.split_at(element.value.len() / 2);
            out.extend([0x24, 0x80]);
            out.extend(write::octet_string(one));
            out.extend(write::octet_string(two));
            out.extend([0, 0]);
        } else if element.tag & 0x20 != 0 && !(depth == 4 && element.value.len() > 400) {
            out.extend([element.tag, 0x80]);
            out.extend(to_ber(element.value, depth + 1));
            out.extend([0, 0]);
        } else {
            out.extend_from_slice(element.raw);
        }
    }
    out
}

fn verify(message: &[u8], body: &[u8]) -> Result<Digest, Refused> {
    let der = read(message, MAX_DETACHED)?;
    let signed = SignedData::parse(&der)?;
    signed.require_detached()?;
    signed.verify(body)?;
    Ok(signed.digest())
}

fn cause(message: &[u8]) -> SignedDataRefusal {
    verify(message, BODY).expect_err("refused").cause
}

#[test]
fn every_form_a_mac_may_send_verifies() {
    let mut keys = vec![TestKey::p256(), TestKey::p384()];
    for digest in [Digest::Sha1, Digest::Sha256] {
        keys.push(TestKey::rsa_with(digest));
        for key in [TestKey::p256(), TestKey::p384()] {
            keys.push(TestKey::new(key.key, SignatureAlgorithm::Ecdsa(digest)));
        }
    }
    for key in &keys {
        let certificate = self_signed(key, "a Mac");
        let digest = key.algorithm().digest();
        let by_kind_of_key = match key.algorithm() {
            SignatureAlgorithm::Rsa(_) => {
                write::sequence(&[&write::oid(oid::RSA_ENCRYPTION), &write::null()])
            }
            SignatureAlgorithm::Ecdsa(_) => write::sequence(&[&write::oid(oid::EC_PUBLIC_KEY)]),
        };
        for algorithm in [key.algorithm().to_der(), by_kind_of_key] {
            for attributes in [None, Some(attributes(digest, BODY))] {
                let recipe = Recipe {
                    attributes,
                    algorithm: algorithm.clone(),
                    ..recipe(key)
                };
                let message = recipe.cook(key, &certificate);
                for message in [to_ber(&message, 0), message] {
                    assert_eq!(verify(&message, BODY), Ok(digest), "{:?}", key.algorithm());
                    assert!(verify(&message, b"other").is_err(), "{:?}", key.algorithm());
                }
            }
        }
    }
}

#[test]
fn a_signer_named_by_its_key_identifier_is_found_by_it_only() {
    let key = TestKey::p256();
    let certificate = self_signed(&key, "without the extension");
    let recipe = Recipe {
        by_key_identifier: Some([7; 20]),
        ..recipe(&key)
    };
    assert_eq!(
        cause(&recipe.cook(&key, &certificate)),
        SignedDataRefusal::CertificateMissing
    );

    let with_extension = crate::pki::test_key::self_signed_with(&key, "with it", |builder| {
        let context = builder.x509v3_context(None, None);
        let extension = openssl::x509::extension::SubjectKeyIdentifier::new().build(&context);
        builder
            .append_extension(extension.expect("extension"))
            .expect("added");
    });
    let identifier = with_extension
        .certificate()
        .subject_key_identifier()
        .map(<[u8]>::to_vec);
    let identifier: [u8; 20] = identifier.expect("there").try_into().expect("20 octets");
    let recipe = Recipe {
        by_key_identifier: Some(identifier),
        ..recipe
    };
    assert_eq!(
        verify(&recipe.cook(&key, &with_extension), BODY),
        Ok(Digest::Sha256)
    );
}

#[test]
fn forms_nobody_may_send_are_refused() {
    let key = TestKey::rsa();
    let certificate = self_signed(&key, "a Mac");
    let refused = |recipe: Recipe| cause(&recipe.cook(&key, &certificate));
    let good = || recipe(&key);
    let attribute_list = |change: fn(&mut Vec<(ObjectIdentifier, Vec<u8>)>)| {
        let mut list = attributes(Digest::Sha256, BODY);
        change(&mut list);
        Recipe {
            attributes: Some(list),
            ..good()
        }
    };

    let attached = Recipe {
        attached: Some(BODY),
        ..good()
    };
    assert_eq!(refused(attached), SignedDataRefusal::ContentAttached);
    for signers in [0, 2] {
        assert_eq!(
            refused(Recipe { signers, ..good() }),
            SignedDataRefusal::SignerCount
        );
    }
    let unlisted = Recipe {
        listed: vec![Digest::Sha1],
        ..good()
    };
    assert_eq!(refused(unlisted), SignedDataRefusal::UnsupportedAlgorithm);
    let sha1_rsa = SignatureAlgorithm::Rsa(Digest::Sha1).to_der();
    let contradiction = Recipe {
        algorithm: sha1_rsa,
        ..good()
    };
    assert_eq!(
        refused(contradiction),
        SignedDataRefusal::UnsupportedAlgorithm
    );
    let other_type = Recipe {
        content_type: oid::SIGNED_DATA,
        ..good()
    };
    assert_eq!(refused(other_type), SignedDataRefusal::Attributes);
    let bare_other_type = Recipe {
        content_type: oid::SIGNED_DATA,
        attributes: None,
        ..good()
    };
    assert_eq!(refused(bare_other_type), SignedDataRefusal::Attributes);
    for change in [
        (|list| drop(list.remove(0))) as fn(&mut Vec<(ObjectIdentifier, Vec<u8>)>),
        |list| drop(list.remove(1)),
        |list| list.push((oid::MESSAGE_DIGEST, write::octet_string(&[0; 32]))),
        |list| list.push((oid::SIGNING_TIME, write::null())),
    ] {
        assert_eq!(
            refused(attribute_list(change)),
            SignedDataRefusal::Attributes
        );
    }
    let other_digest = attribute_list(|list| list[1].1 = write::octet_string(&[0; 32]));
    assert_eq!(refused(other_digest), SignedDataRefusal::DigestMismatch);

    // Signed by another key than the enclosed certificate's.
    let foreign = good().cook(&TestKey::rsa(), &certificate);
    assert_eq!(cause(&foreign), SignedDataRefusal::SignatureInvalid);
    let other_kind = good().cook(&key, &self_signed(&TestKey::p256(), "a Mac"));
    assert_eq!(cause(&other_kind), SignedDataRefusal::UnsupportedAlgorithm);
}
