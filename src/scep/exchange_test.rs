//! Whole exchanges, with OpenSSL as the client's cryptography.

use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::pkcs7::Pkcs7;
use openssl::stack::Stack;
use openssl::symm::Cipher;
use openssl::x509::X509;
use proptest::prelude::*;

use super::*;
use crate::pki::cms::{ContentCipher, Sealing, SignedData, SignedDataBuilder};
use crate::pki::test_key::{TestKey, self_signed};
use crate::pki::{
    Digest, Name, OwnedCertificate, csr, name::compose, oid, read_certificates, write,
};
use crate::secret::Secret;

/// The authority's side and a client's side of one exchange.
struct Scene {
    registration_key: TestKey,
    registration: OwnedCertificate,
    client_key: TestKey,
    client: OwnedCertificate,
}

fn scene(digest: Digest) -> Scene {
    let registration_key = TestKey::rsa();
    let client_key = TestKey::rsa_with(digest);
    Scene {
        registration: self_signed(&registration_key, "registration authority"),
        registration_key,
        client: self_signed(&client_key, "temporary"),
        client_key,
    }
}

fn x509(owned: &OwnedCertificate) -> X509 {
    X509::from_der(owned.as_der()).expect("openssl reads it")
}

impl Scene {
    fn request(&self) -> Vec<u8> {
        let subject = compose(&[(oid::COMMON_NAME, "wish")]);
        let subject = Name::parse(&subject).expect("name");
        csr::build_with(&subject, &self.client_key, Some("ticket")).expect("request")
    }

    fn sealed(&self, content: &[u8], cipher: Cipher) -> Vec<u8> {
        let mut recipients = Stack::new().expect("stack");
        recipients.push(x509(&self.registration)).expect("pushed");
        CmsContentInfo::encrypt(&recipients, content, cipher, CMSOptions::BINARY)
            .and_then(|cms| cms.to_der())
            .expect("openssl seals it")
    }

    fn message(&self, envelope: &[u8], message_type: &str) -> Vec<u8> {
        SignedDataBuilder::attached(envelope)
            .attribute(
                attribute::MESSAGE_TYPE,
                &write::printable_string(message_type),
            )
            .attribute(
                attribute::TRANSACTION_ID,
                &write::printable_string("v94Qfya+/="),
            )
            .attribute(attribute::SENDER_NONCE, &write::octet_string(&[9; 16]))
            .sign(&self.client.certificate(), &self.client_key)
            .expect("signed")
    }

    fn open(&self, message: &[u8]) -> Result<(Opened, Exchange), Refused> {
        let der = read(message)?;
        let message = PkiMessage::parse(&der)?;
        let registration = self.registration.certificate();
        let opened = message.open(&registration, &self.registration_key)?;
        Ok((opened, message.exchange().clone()))
    }
}

/// Reads a CertRep as a client does: signature, attributes, and the content.
fn client_reads(reply: &[u8], scene: &Scene) -> (Vec<(&'static str, String)>, Vec<u8>) {
    let mut cms = CmsContentInfo::from_der(reply).expect("openssl reads it");
    let mut content = Vec::new();
    let ours = SignedData::parse(reply).expect("parsed");
    if ours.content().is_some() {
        let options = CMSOptions::BINARY | CMSOptions::NO_SIGNER_CERT_VERIFY;
        cms.verify(None, None, None, Some(&mut content), options)
            .expect("openssl verifies");
    } else {
        ours.verify(b"").expect("verifies");
    }
    assert_eq!(ours.signer().as_der(), scene.registration.as_der());
    let mut attributes = Vec::new();
    for (name, oid) in [
        ("messageType", attribute::MESSAGE_TYPE),
        ("pkiStatus", attribute::PKI_STATUS),
        ("failInfo", attribute::FAIL_INFO),
        ("transactionID", attribute::TRANSACTION_ID),
    ] {
        if let Some(value) = ours.signed_attribute(oid) {
            attributes.push((name, String::from_utf8(value.value.to_vec()).expect("text")));
        }
    }
    let recipient_nonce = ours
        .signed_attribute(attribute::RECIPIENT_NONCE)
        .expect("there");
    assert_eq!(recipient_nonce.value, [9; 16]);
    (attributes, content)
}

#[test]
fn a_request_is_opened_and_openssl_opens_the_reply() {
    let ciphers = [
        (Cipher::aes_128_cbc(), ContentCipher::Aes128),
        (Cipher::aes_192_cbc(), ContentCipher::Aes192),
        (Cipher::aes_256_cbc(), ContentCipher::Aes256),
        (Cipher::des_ede3_cbc(), ContentCipher::TripleDes),
    ];
    for digest in [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512] {
        let scene = scene(digest);
        for (theirs, cipher) in ciphers {
            let message = scene.message(&scene.sealed(&scene.request(), theirs), "19");
            let (opened, exchange) = scene.open(&message).expect("opened");
            assert_eq!(opened.cipher(), cipher);
            assert_eq!(exchange.transaction_id(), "v94Qfya+/=");
            let Ok(Ask::Issue(request)) = opened.ask() else {
                panic!("asks for a certificate")
            };
            assert_eq!(request.challenge(), Some("ticket"));

            // Any certificate will do for the issued one: what goes into it is not SCEP's matter.
            let issued = &scene.registration;
            let sealing = Sealing {
                cipher,
                key: Secret::new([3; 32]),
                vector: [4; 16],
            };
            let registration = scene.registration.certificate();
            let responder = Responder::new(registration, &scene.registration_key);
            let client = scene.client.certificate();
            let reply = responder
                .success(
                    &exchange,
                    &client,
                    &[issued.certificate()],
                    &sealing,
                    &[5; 16],
                )
                .expect("reply");
            let (attributes, envelope) = client_reads(&reply, &scene);
            let transaction = ("transactionID", "v94Qfya+/=".to_owned());
            let expected = [
                ("messageType", "3".to_owned()),
                ("pkiStatus", "0".to_owned()),
                transaction,
            ];
            assert_eq!(attributes, expected);
            let list = CmsContentInfo::from_der(&envelope)
                .and_then(|cms| cms.decrypt(&scene.client_key.key, &x509(&scene.client)))
                .expect("openssl opens it");
            let list = Pkcs7::from_der(&list).expect("openssl reads it");
            let certificates = list
                .signed()
                .and_then(|signed| signed.certificates())
                .expect("list");
            assert_eq!(certificates[0].to_der().expect("DER"), issued.as_der());
        }
    }
}

#[test]
fn failures_and_pending_carry_no_content() {
    let scene = scene(Digest::Sha256);
    let message = scene.message(&scene.sealed(&scene.request(), Cipher::aes_128_cbc()), "19");
    let (_, exchange) = scene.open(&message).expect("opened");
    let registration = scene.registration.certificate();
    let responder = Responder::new(registration, &scene.registration_key);
    let failure = responder.failure(&exchange, FailInfo::BadRequest, "used", &[5; 16]);
    let (attributes, content) = client_reads(&failure.expect("reply"), &scene);
    assert!(attributes.contains(&("pkiStatus", "2".to_owned())));
    assert!(attributes.contains(&("failInfo", "2".to_owned())));
    assert!(content.is_empty());
    let pending = responder.pending(&exchange, &[5; 16]).expect("reply");
    let (attributes, content) = client_reads(&pending, &scene);
    assert!(attributes.contains(&("pkiStatus", "3".to_owned())));
    assert!(content.is_empty());
}

#[test]
fn what_is_not_as_it_must_be_is_refused_with_its_code() {
    let scene = scene(Digest::Sha256);
    let aes = Cipher::aes_128_cbc();
    let good = scene.sealed(&scene.request(), aes);
    let refusal = |message: &[u8]| {
        let outcome = scene.open(message).and_then(|(opened, exchange)| {
            let asked = opened.ask().map(|_| ());
            asked.map_err(|cause| Refused {
                cause,
                exchange: Some(exchange),
            })
        });
        outcome.expect_err("refused")
    };

    let other_type = refusal(&scene.message(&good, "18"));
    assert_eq!(other_type.cause, ScepRefusal::MessageType);
    assert_eq!(other_type.cause.fail_info(), FailInfo::BadRequest);
    assert!(other_type.exchange.is_some());

    // Another key in the request than the one that signs the message.
    let other = self::scene(Digest::Sha256);
    let foreign = refusal(&scene.message(&scene.sealed(&other.request(), aes), "19"));
    assert_eq!(foreign.cause, ScepRefusal::OtherKey);

    // Sealed for another recipient.
    let not_ours = refusal(&scene.message(&other.sealed(&scene.request(), aes), "19"));
    assert_eq!(not_ours.cause.fail_info(), FailInfo::BadMessageCheck);

    // Nonsense inside must look like an envelope that does not open.
    let nonsense = refusal(&scene.message(&scene.sealed(b"nonsense", aes), "19"));
    let mut wrong_key = good.clone();
    let start = wrong_key
        .windows(4)
        .position(|window| window == [0x04, 0x82, 0x01, 0x00]);
    wrong_key[start.expect("the encrypted key") + 100] ^= 1;
    let wrong_key = refusal(&scene.message(&wrong_key, "19"));
    assert_eq!(nonsense.cause, wrong_key.cause);

    // Not a message at all: nothing to answer under.
    let none = refusal(b"GET / HTTP/1.1");
    assert_eq!(none.exchange, None);
    assert_eq!(none.cause.reason(), crate::reason::Reason::RequestMalformed);
}

#[test]
fn a_changed_bit_anywhere_in_the_message_is_refused() {
    let scene = scene(Digest::Sha256);
    let good = scene.message(&scene.sealed(&scene.request(), Cipher::aes_128_cbc()), "19");
    assert!(scene.open(&good).is_ok());
    let certificate = scene.client.as_der();
    let inside = good
        .windows(certificate.len())
        .position(|window| window == certificate);
    let inside = inside.expect("enclosed");
    // The enclosed certificate is the client's own: outside of names and key its bytes bind nothing.
    let bound = |index: usize| !(inside..inside + certificate.len()).contains(&index);
    for index in (0..good.len()).step_by(23).filter(|index| bound(*index)) {
        let mut changed = good.clone();
        changed[index] ^= 0x10;
        let outcome = scene.open(&changed);
        assert!(outcome.is_err(), "byte {index} of {}", good.len());
    }
}

#[test]
fn a_request_of_another_implementation_is_read_and_its_reply_too() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/scep/scep-micromdm-"
    );
    let fixture = |name: &str| std::fs::read(format!("{folder}{name}")).expect("fixture");
    let request = fixture("pkcsreq.der");
    let der = read(&request).expect("CMS");
    let message = PkiMessage::parse(&der).expect("its signature verifies");
    assert_eq!(message.message_type(), MessageType::PkcsReq);
    assert_eq!(
        message.exchange().transaction_id(),
        "v94QfyaXM9pax3r0B5CsKC/NwYM="
    );
    // Sealed with single DES, which is refused before any key is used.
    let scene = scene(Digest::Sha256);
    let registration = scene.registration.certificate();
    let refused = message
        .open(&registration, &scene.registration_key)
        .expect_err("refused");
    assert_eq!(refused.cause.fail_info(), FailInfo::BadAlg);

    for name in ["certrep-success.der", "certrep-failure-badrequest.der"] {
        let reply = fixture(name);
        let der = read(&reply).expect("CMS");
        let signed = SignedData::parse(&der).expect("parsed");
        assert_eq!(
            signed.verify(signed.content().unwrap_or_default()),
            Ok(()),
            "{name}"
        );
        let refused = PkiMessage::parse(&der).expect_err("a reply is no request");
        assert!(matches!(
            refused.cause,
            ScepRefusal::MessageType | ScepRefusal::Attribute(_)
        ));
    }
}

#[test]
fn the_authorities_are_given_out_with_the_exact_content_type() {
    let registration = self_signed(&TestKey::rsa(), "registration authority");
    let authority = self_signed(&TestKey::p384(), "device authority");
    let (registration, authority) = (registration.certificate(), authority.certificate());
    let alone = CaCertificates::authority(&registration);
    assert_eq!(alone.content_type, "application/x-x509-ca-cert");
    assert_eq!(read_certificates(&alone.body).expect("DER").len(), 1);
    let both = CaCertificates::with_registration(&registration, &authority);
    assert_eq!(both.content_type, "application/x-x509-ca-ra-cert");
    let list = Pkcs7::from_der(&both.body).expect("openssl reads it");
    let certificates = list
        .signed()
        .and_then(|signed| signed.certificates())
        .expect("list");
    assert_eq!(certificates.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_damaged_message_never_panics(
        index in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let fixture = include_bytes!("../../tests/fixtures/scep/scep-micromdm-pkcsreq.der");
        let mut message = fixture.to_vec();
        let index = index.index(message.len());
        message[index] = value;
        if let Ok(der) = read(&message) {
            let _ = PkiMessage::parse(&der);
            let _ = SignedData::parse(&der).map(|signed| {
                signed.content().map(crate::pki::cms::EnvelopedData::parse).is_some()
            });
        }
        message.truncate(cut.index(message.len()));
        let _ = read(&message).map(|der| PkiMessage::parse(&der).is_ok());
    }
}
