//! RFC 8894, Simple Certificate Enrolment Protocol: the server's side.

use attestd_sim::Identity;
use attestd_sim::certs::fingerprint;
use attestd_sim::cms::SignatureDigest;
use attestd_sim::scep::{
    CertRep, Cipher, PkiMessage, get_cert_initial, pki_message, read_cert_rep,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::pkcs7::{Pkcs7, Pkcs7Flags};
use openssl::x509::X509;
use reqwest::Method;

use crate::flows::issue_by_scep::{Client, assert_refused, issued};
use crate::harness::cert_rep::{Shape, attribute, to_ber};
use crate::harness::keys::rsa;
use crate::harness::scene::Scene;

const BAD_ALG: &str = "0";
const BAD_MESSAGE_CHECK: &str = "1";
const BAD_REQUEST: &str = "2";
const BAD_CERT_ID: &str = "4";

/// Posts a PKIOperation and gives back what came, which is a CertRep with status 200.
async fn post(scene: &Scene, message: &[u8]) -> Vec<u8> {
    let request = scene.anybody(Method::POST, "/scep?operation=PKIOperation");
    let answer = scene.answer(request.body(message.to_vec())).await;
    assert_eq!(answer.status, 200, "{}", answer.reason());
    assert_eq!(answer.header("content-type"), "application/x-pki-message");
    answer.body
}

/// A message of this type around these bytes, under this transactionID.
fn message(
    client: &Client,
    by: &Identity,
    kind: &str,
    inside: &[u8],
    transaction: &str,
) -> PkiMessage {
    let (authority, now) = (&client.authority, client.clock.now_seconds());
    let transaction = transaction.to_owned();
    pki_message(
        kind,
        inside,
        transaction,
        by,
        authority,
        client.capabilities,
        now,
    )
    .expect("a message")
}

/// The CMS of a question for the outcome of `client`'s request with this key.
fn poll(client: &Client, temporary: &Identity) -> PkiMessage {
    let (settings, authority) = (&client.settings, &client.authority);
    let now = client.clock.now_seconds();
    get_cert_initial(temporary, settings, authority, client.capabilities, now).expect("a poll")
}

journey! {
    /// 3.2.1.1: "MUST be used for all PKI messages exchanged for a given operation". 3.2.1.5: "The
    /// recipient MUST copy the senderNonce into the recipientNonce of the reply". 3.2.1.2 and
    /// 3.2.1.3: every reply has messageType and pkiStatus.
    async fn section_3_2_1_replies_name_their_request(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let good = client.request(&temporary);
        let refused = client.around(b"not a request", "A name: +/=?'()", &temporary);
        let mut nonces = Vec::new();
        for (asked, status) in [(&refused, "2"), (&good, "0"), (&good, "0")] {
            let shape = Shape::read(&post(&scene, &asked.der).await);
            assert_eq!(shape.text(attribute::MESSAGE_TYPE).as_deref(), Some("3"));
            assert_eq!(shape.text(attribute::PKI_STATUS).as_deref(), Some(status));
            assert_eq!(shape.text(attribute::TRANSACTION_ID), Some(asked.transaction_id.clone()));
            assert_eq!(shape.octets(attribute::RECIPIENT_NONCE), Some(&asked.sender_nonce[..]));
            // PrintableString and OCTET STRING.
            assert_eq!(shape.attributes[&attribute::TRANSACTION_ID].0, 0x13);
            assert_eq!(shape.attributes[&attribute::SENDER_NONCE].0, 0x04);
            let nonce = shape.octets(attribute::SENDER_NONCE).expect("a nonce").to_vec();
            assert_eq!(nonce.len(), 16);
            assert!(!nonces.contains(&nonce), "a fresh senderNonce");
            nonces.push(nonce);
        }
    }
}

journey! {
    /// 3.2.1.2: "MUST be included in all PKI messages". 3.3.4 (GetCert, GetCRL) is optional, and
    /// not offered: certificates are found by their hash here, and withdrawn ones on no list.
    async fn section_3_2_1_2_message_types_that_are_not_offered_are_refused(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        for kind in ["3", "18", "21", "22", "019", "1"] {
            let asked = message(&client, &temporary, kind, b"\x30\x00", "some");
            let before = scene.refusals("scep", "message_unsupported").await;
            assert_refused(&client.send(&asked, &temporary).await, BAD_REQUEST);
            assert_eq!(scene.refusals("scep", "message_unsupported").await, before + 1, "{kind}");
        }
        let nothing = message(&client, &temporary, "", b"\x30\x00", "some");
        assert_refused(&client.send(&nothing, &temporary).await, BAD_REQUEST);
        assert_eq!(scene.refusals("scep", "request_malformed").await, 1);
    }
}

journey! {
    /// 3.2.2: the envelope, and 2.9: AES and triple DES, SHA-1 for those that know no better.
    async fn section_3_2_2_every_cipher_and_digest_leads_to_a_certificate(backend: Backend) {
        let scene = Scene::new(backend).await;
        let ciphers = [Cipher::Aes128Cbc, Cipher::Aes192Cbc, Cipher::Aes256Cbc, Cipher::TripleDesCbc];
        let digests = [
            SignatureDigest::Sha1,
            SignatureDigest::Sha256,
            SignatureDigest::Sha384,
            SignatureDigest::Sha512,
        ];
        for cipher in ciphers {
            for digest in digests {
                let mut client = Client::new(&scene).await;
                client.capabilities.cipher = cipher;
                client.capabilities.digest = digest;
                issued(client.ask(rsa(0)).await);
            }
        }
    }
}

journey! {
    /// 3.1 builds on CMS, which is BER (RFC 5652 section 10): indefinite lengths and octet strings
    /// in pieces, outside and in the envelope.
    async fn section_3_1_messages_in_ber_are_read(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let request = client.request(&temporary);
        let outside = to_ber(&request.der);
        assert!(outside.starts_with(&[0x30, 0x80]) && outside.ends_with(&[0, 0]));
        let read = |reply: Vec<u8>| {
            let reply = read_cert_rep(&reply, &client.authority.signer, &temporary);
            fingerprint(&issued(reply.expect("a CertRep"))).expect("a hash")
        };
        let first = read(post(&scene, &outside).await);
        assert_eq!(read(post(&scene, &request.der).await), first);
        // One octet of it changed is no repair: it is refused by a CertRep, or not even read.
        let mut changed = outside;
        let last = changed.len() - 40;
        changed[last] ^= 1;
        let request = scene.anybody(Method::POST, "/scep?operation=PKIOperation");
        let answer = scene.answer(request.body(changed)).await;
        assert!(answer.status == 400 || Shape::read(&answer.body).content.is_none());
    }
}

journey! {
    /// 3.3.2.1: "the issued certificate MUST be the leaf certificate", and 3.4: a degenerate
    /// certificates-only SignedData, here with the authority after it.
    async fn section_3_3_2_1_success_carries_the_issued_certificate_first(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let shape = Shape::read(&post(&scene, &client.request(&temporary).der).await);
        assert!(shape.octets(attribute::FAIL_INFO).is_none());
        let envelope = Pkcs7::from_der(&shape.content.expect("an envelope")).expect("CMS");
        let inside = envelope.decrypt(&temporary.key, &temporary.certificate, Pkcs7Flags::BINARY);
        let list = Pkcs7::from_der(&inside.expect("opens")).expect("CMS");
        let signed = list.signed().expect("SignedData");
        let certificates = signed.certificates().expect("certificates");
        assert_eq!(certificates.len(), 2);
        assert!(certificates[0].public_key().expect("a key").public_eq(&temporary.key));
        assert_eq!(
            certificates[1].to_der().expect("DER"),
            client.authority.ca.to_der().expect("DER")
        );
    }
}

journey! {
    /// 3.3.2.2: "the reply MUST also contain a failInfo attribute", and no envelope. 3.2.1.4: what
    /// the codes mean.
    async fn section_3_3_2_2_failure_says_why_and_carries_nothing(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let mut damaged = client.request(&temporary);
        *damaged.der.last_mut().expect("a signature") ^= 1;
        let single_des = include_bytes!("../../fixtures/scep/scep-micromdm-pkcsreq.der").to_vec();
        let unsupported = message(&client, &temporary, "22", b"\x30\x00", "some");
        let unheard_of = poll(&client, &temporary);
        for (message, fail_info) in [
            (single_des, BAD_ALG),
            (damaged.der, BAD_MESSAGE_CHECK),
            (unsupported.der, BAD_REQUEST),
            (unheard_of.der, BAD_CERT_ID),
        ] {
            let shape = Shape::read(&post(&scene, &message).await);
            assert_eq!(shape.text(attribute::PKI_STATUS).as_deref(), Some("2"));
            assert_eq!(shape.text(attribute::FAIL_INFO).as_deref(), Some(fail_info));
            assert!(shape.content.is_none() && shape.has_fail_info_text, "{shape:?}");
            assert_eq!(shape.certificates, 1, "whoever answers encloses its certificate");
        }
    }
}

journey! {
    /// 3.3.3: the message "used for certificate polling" names issuer and subject, and the same
    /// transactionID. Nothing is ever pending here: who polls did not get the answer.
    async fn section_3_3_3_whoever_asks_again_gets_what_was_issued(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let asks = poll(&client, &temporary);
        let before = scene.refusals("scep", "ticket_unknown").await;
        assert_refused(&client.send(&asks, &temporary).await, BAD_CERT_ID);
        assert_eq!(scene.refusals("scep", "ticket_unknown").await, before + 1);

        let first = fingerprint(&issued(client.ask(rsa(0)).await)).expect("a hash");
        for _ in 0..2 {
            let again = issued(client.send(&poll(&client, &temporary), &temporary).await);
            assert_eq!(fingerprint(&again).expect("a hash"), first);
        }
        // Clients that take the registration authority for the issuer.
        let subject = temporary.certificate.subject_name().to_der().expect("DER");
        let names = |issuer: &X509| {
            let issuer = issuer.subject_name().to_der().expect("DER");
            attestd_sim::der::sequence(&[&issuer, &subject])
        };
        let name = &asks.transaction_id;
        let of_registration = names(&client.authority.recipient);
        let again = message(&client, &temporary, "20", &of_registration, name);
        let again = issued(client.send(&again, &temporary).await);
        assert_eq!(fingerprint(&again).expect("a hash"), first);

        // Another transaction, another authority, and another key under the same name.
        let ours = names(&client.authority.ca);
        let other = client.temporary(rsa(1));
        for (signer, inside, transaction) in [
            (&temporary, &ours, "another"),
            (&temporary, &names(&other.certificate), name.as_str()),
            (&other, &ours, name.as_str()),
        ] {
            let asked = message(&client, signer, "20", inside, transaction);
            assert_refused(&client.send(&asked, signer).await, BAD_CERT_ID);
        }
        let rubbish = message(&client, &temporary, "20", b"\x30\x00", name);
        assert_refused(&client.send(&rubbish, &temporary).await, BAD_MESSAGE_CHECK);
    }
}

journey! {
    /// 3.3.3, of two clients that chose the same transactionID: each gets its own.
    async fn section_3_3_3_a_name_of_two_transactions_tells_by_the_key(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mut hashes = Vec::new();
        for number in 0..2 {
            let client = Client::new(&scene).await;
            let temporary = client.temporary(rsa(number));
            let digest = SignatureDigest::Sha256;
            let request = attestd_sim::scep::csr(&temporary.key, &client.settings, digest);
            let request = client.around(&request.expect("a request"), "chosen", &temporary);
            let first = issued(client.send(&request, &temporary).await);
            let issuer = client.authority.ca.subject_name().to_der().expect("DER");
            let inside = attestd_sim::der::sequence(&[&issuer, b"\x30\x00"]);
            let again = message(&client, &temporary, "20", &inside, "chosen");
            let again = issued(client.send(&again, &temporary).await);
            assert_eq!(fingerprint(&again).expect("a hash"), fingerprint(&first).expect("a hash"));
            hashes.push(fingerprint(&again).expect("a hash"));
        }
        assert_ne!(hashes[0], hashes[1]);
    }
}

journey! {
    /// 3.5.1 and 3.5.2: "plain text", one keyword a line, in any order. Lines end in LF alone
    /// (Apple's client splits at exactly that), and the parameter `message` is passed over.
    async fn section_3_5_capabilities_are_plain_lines(backend: Backend) {
        let scene = Scene::new(backend).await;
        for query in ["", "&message=CA", "&message=%00%ff%2F..%2F", "&message=", "&unheard=of"] {
            let path = format!("/scep?operation=GetCACaps{query}");
            let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain"));
            let lines: Vec<_> = answer.body.split(|byte| *byte == b'\n').collect();
            let expected: [&[u8]; 8] = [
                b"AES", b"POSTPKIOperation", b"Renewal", b"SCEPStandard", b"SHA-256", b"SHA-384",
                b"SHA-512", b"",
            ];
            assert_eq!(lines, expected, "{query}");
        }
    }
}

journey! {
    /// 4.1: "MUST be sent via HTTP POST" where that is offered, and by GET with base64 in the query
    /// by older clients, its plus signs escaped or not.
    async fn section_4_1_a_message_may_come_in_the_query(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let request = client.request(&temporary);
        let base64 = STANDARD.encode(&request.der);
        assert!(base64.contains('+') && base64.contains('/'));
        let escaped = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let broken = escaped.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text"));
        let unpadded = escaped.replace("%3D", "");
        let mut hashes = Vec::new();
        for message in [&escaped, &base64, &escaped.replace("%2B", "+"), &unpadded] {
            let path = format!("/scep?operation=PKIOperation&message={message}");
            let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
            assert_eq!(answer.status, 200, "{}", answer.reason());
            let reply = read_cert_rep(&answer.body, &client.authority.signer, &temporary);
            hashes.push(fingerprint(&issued(reply.expect("a CertRep"))).expect("a hash"));
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1);
        // A line break in the middle of an escape is not one between characters.
        let broken = broken.collect::<Vec<_>>().join("%0A%0D!");
        let path = format!("/scep?operation=PKIOperation&message={broken}");
        let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "request_malformed"));
    }
}

journey! {
    /// 4.2.1.2: with an authority that answers for another, the response is a "degenerate
    /// certificates-only CMS SignedData message"; `message` names an authority and there is one.
    async fn section_4_2_the_registration_authority_comes_with_its_chain(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mut bodies = Vec::new();
        for query in ["", "&message=CA", "&message=%2e%2e%2f%00", "&message="] {
            let path = format!("/scep?operation=GetCACert{query}");
            let answer = scene.answer(scene.anybody(Method::GET, &path)).await;
            assert_eq!(answer.status, 200, "{query}");
            assert_eq!(answer.header("content-type"), "application/x-x509-ca-ra-cert");
            bodies.push(answer.body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1);
        let list = Pkcs7::from_der(&bodies[0]).expect("CMS");
        let signed = list.signed().expect("SignedData");
        let certificates = signed.certificates().expect("certificates");
        let [registration, authority] = [&certificates[0], &certificates[1]];
        assert_eq!(certificates.len(), 2);
        let key = authority.public_key().expect("a key");
        assert!(registration.verify(&key).expect("verified"));
        assert!(authority.verify(&key).expect("verified"));
        // 4.7.1, GetNextCACert, is not offered: a new authority comes with new profiles.
        let path = "/scep?operation=GetNextCACert";
        let answer = scene.answer(scene.anybody(Method::GET, path)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "message_unsupported"));
    }
}

journey! {
    /// The exchange that was recorded between another client and another server, sent to ours: its
    /// request verifies, and is refused only because it is sealed with single DES (2.9: "MUST NOT").
    async fn a_recorded_exchange_is_answered_in_the_recorded_shape(backend: Backend) {
        let scene = Scene::new(backend).await;
        let request = include_bytes!("../../fixtures/scep/scep-micromdm-pkcsreq.der");
        let recorded = Shape::read(request);
        let answer = Shape::read(&post(&scene, request).await);
        let name = recorded.octets(attribute::TRANSACTION_ID);
        assert_eq!(answer.octets(attribute::TRANSACTION_ID), name);
        let nonce = recorded.octets(attribute::SENDER_NONCE);
        assert_eq!(answer.octets(attribute::RECIPIENT_NONCE), nonce);
        assert_eq!(answer.text(attribute::FAIL_INFO).as_deref(), Some(BAD_ALG));
        assert_eq!(scene.refusals("scep", "request_malformed").await, 1);

        // Theirs and ours say the same things, in the same types.
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let ours = Shape::read(&post(&scene, &client.request(&temporary).der).await);
        let theirs = include_bytes!("../../fixtures/scep/scep-micromdm-certrep-success.der");
        let theirs = Shape::read(theirs);
        let failed = include_bytes!("../../fixtures/scep/scep-micromdm-certrep-failure-badrequest.der");
        let failed = Shape::read(failed);
        let types = |shape: &Shape| -> Vec<_> {
            shape.attributes.iter().map(|(number, (kind, _))| (*number, *kind)).collect()
        };
        for (ours, theirs) in [(&ours, &theirs), (&answer, &failed)] {
            for kind in types(theirs) {
                assert!(types(ours).contains(&kind), "{kind:?} of {theirs:?}");
            }
            assert_eq!(ours.text(attribute::PKI_STATUS), theirs.text(attribute::PKI_STATUS));
            // Their failures carry an empty octet string, ours nothing at all.
            let theirs_carry = theirs.content.as_ref().is_some_and(|content| !content.is_empty());
            assert_eq!(ours.content.is_some(), theirs_carry);
        }
        let reply = CertRep::Refused(failed.text(attribute::FAIL_INFO).expect("a code"));
        assert_refused(&reply, BAD_REQUEST);

        // What they gave out as authority is read by the same reader as ours.
        let authority = include_bytes!("../../fixtures/scep/scep-micromdm-getcacert.der");
        assert!(X509::from_der(authority).is_ok());
        let theirs = include_str!("../../fixtures/scep/scep-micromdm-getcacaps.txt");
        let theirs = attestd_sim::scep::Capabilities::from_text(theirs);
        assert!(theirs.post && client.capabilities.post);
    }
}
