//! Answers to a challenge: RFC 8555 section 7.5.1, the device-attest draft, apple-protocol 7.2.

use attestd_sim::apple::oid;
use attestd_sim::certs;
use attestd_sim::clock::DAY_MS;
use openssl::nid::Nid;
use serde_json::json;

use super::*;

/// Answers a fresh challenge with a payload, and says what came of it; nothing of it may ever turn
/// good again.
#[track_caller]
fn ends_the_order(scene: &mut Scene, payload: impl FnOnce(&Scene, &str) -> String, reason: Reason) {
    let client = Client::register(scene);
    let order = client.new_order(scene);
    let token = scene.token(&client, order);
    let payload = payload(scene, &token);
    let reply = answer(client.ask(scene, Route::Challenge(order), &payload));
    refused(&reply, 403, "badAttestationStatement", reason);
    assert_eq!(reply.links[1].rel, "up");
    let ended = ["invalid", "invalid", "invalid"];
    assert_eq!(client.statuses(scene, order), ended);
    for route in [Route::Challenge(order), Route::Order(order)] {
        let error = client.read(scene, route)["error"].clone();
        assert_eq!(error, body(&reply));
    }

    let key = TestKey::p384();
    let object = scene.attestation(&key, &token);
    let late = answer(client.attest(scene, order, &object));
    assert_eq!(
        (late.status, &body(&late)["status"]),
        (200, &json!("invalid"))
    );
    assert_eq!(client.statuses(scene, order), ended);
    let reply = answer(client.finalize(scene, order, &csr(&key)));
    refused(&reply, 403, "orderNotReady", Reason::OrderNotReady);
    // A new order of the same profile may do better.
    client.ready_order(scene);
}

fn att_obj(object: &[u8]) -> String {
    json!({ "attObj": b64(object) }).to_string()
}

#[test]
fn a_mac_that_could_not_attest_ends_its_order() {
    type Payload = fn(&Scene, &str) -> String;
    let payloads: [Payload; 5] = [
        |_, _| att_obj(&object(&[])),
        // As Apple's client says it (apple-protocol 7.1).
        |_, _| json!({"error": "no network", "attObj": b64(object(&[]))}).to_string(),
        |_, _| json!({"error": "no network"}).to_string(),
        |scene, token| {
            let object = scene.attestation(&TestKey::p384(), token);
            json!({"error": "and yet", "attObj": b64(object)}).to_string()
        },
        // What is right for a challenge without attestation.
        |_, _| "{}".to_owned(),
    ];
    for payload in payloads {
        ends_the_order(&mut Scene::new(), payload, Reason::AttestationUnavailable);
    }
}

#[test]
fn a_chain_that_proves_nothing_ends_the_order() {
    type Certificates = fn(&[u8], &[u8], &[u8]) -> Vec<u8>;
    let chains: [Certificates; 5] = [
        |leaf, _, _| object(&[leaf]),
        |leaf, sub, _| object(&[sub, leaf]),
        |leaf, sub, root| object(&[leaf, sub, root]),
        |leaf, sub, _| object(&[leaf, sub, sub]),
        |leaf, _, root| object(&[leaf, root]),
    ];
    for chain in chains {
        let payload = |scene: &Scene, token: &str| {
            let properties = state(SERIAL).properties(Some(&sha256(token.as_bytes())));
            let key = TestKey::p384();
            let issued = scene
                .apple
                .issue(&key.key, &properties, ISSUED_MS)
                .expect("OpenSSL");
            let root = scene.apple.parts().0.certificate.to_der().expect("DER");
            att_obj(&chain(&issued.leaf, &issued.intermediate, &root))
        };
        ends_the_order(&mut Scene::new(), payload, Reason::ChainInvalid);
    }
    // Another Apple.
    let foreign = |_: &Scene, token: &str| {
        let other = Scene::new();
        att_obj(&other.attestation(&TestKey::p384(), token))
    };
    ends_the_order(&mut Scene::new(), foreign, Reason::ChainInvalid);
}

#[test]
fn a_statement_for_another_question_ends_the_order() {
    type Code = fn(&str) -> Option<Vec<u8>>;
    let codes: [(Code, Reason); 6] = [
        (|_| None, Reason::FieldMissing),
        (|_| Some(Vec::new()), Reason::FieldMissing),
        (
            |_| Some(sha256(b"another token").to_vec()),
            Reason::NonceUnrecognized,
        ),
        // The rule of DeviceInformation: raw.
        (
            |token| Some(token.as_bytes().to_vec()),
            Reason::NonceUnrecognized,
        ),
        (
            |token| Some(sha256(token.as_bytes())[..31].to_vec()),
            Reason::NonceUnrecognized,
        ),
        (
            |token| Some([&sha256(token.as_bytes())[..], b"\0"].concat()),
            Reason::NonceUnrecognized,
        ),
    ];
    for (code, reason) in codes {
        let payload = |scene: &Scene, token: &str| {
            let mut properties = state(SERIAL).properties(None);
            properties.extend(code(token).map(|code| (oid::FRESHNESS, code)));
            att_obj(&scene.attestation_of(&properties, &TestKey::p384()))
        };
        ends_the_order(&mut Scene::new(), payload, reason);
    }
    let twice = |scene: &Scene, token: &str| {
        let code = sha256(token.as_bytes());
        let mut properties = state(SERIAL).properties(Some(&code));
        properties.push((oid::FRESHNESS, code.to_vec()));
        att_obj(&scene.attestation_of(&properties, &TestKey::p384()))
    };
    ends_the_order(&mut Scene::new(), twice, Reason::ChainInvalid);
}

#[test]
fn another_macs_statement_ends_the_order() {
    let about = |serial: Option<&'static str>| {
        move |scene: &Scene, token: &str| {
            let mut properties = state(SERIAL).properties(Some(&sha256(token.as_bytes())));
            properties.retain(|(name, _)| *name != oid::SERIAL_NUMBER);
            properties.extend(serial.map(|serial| (oid::SERIAL_NUMBER, serial.into())));
            att_obj(&scene.attestation_of(&properties, &TestKey::p384()))
        }
    };
    ends_the_order(
        &mut Scene::new(),
        about(Some("SIMOTHER01")),
        Reason::SerialMismatch,
    );
    ends_the_order(&mut Scene::new(), about(None), Reason::FieldMissing);
    ends_the_order(&mut Scene::new(), about(Some("")), Reason::FieldMissing);
    // Without a serial number the certificate would be nobody's.
    ends_the_order(&mut Scene::unbound(), about(None), Reason::FieldMissing);
}

#[test]
fn a_key_no_enclave_has_ends_the_order() {
    let rsa = |scene: &Scene, token: &str| {
        let (_, sub) = scene.apple.parts();
        let key = certs::public_half(&TestKey::rsa().key).expect("a key");
        let subject = certs::name(&[(Nid::COMMONNAME, "no enclave")]).expect("a name");
        let issuer = sub.certificate.subject_name();
        let (begin, end) = (ISSUED_MS - DAY_MS, ISSUED_MS + DAY_MS);
        let mut leaf = certs::begin(&subject, issuer, &key, begin, end).expect("OpenSSL");
        for (name, value) in state(SERIAL).properties(Some(&sha256(token.as_bytes()))) {
            let extension = certs::extension(name, false, &value).expect("OpenSSL");
            leaf.append_extension(extension).expect("OpenSSL");
        }
        leaf.sign(&sub.key, MessageDigest::sha384())
            .expect("signed");
        let leaf = leaf.build().to_der().expect("DER");
        att_obj(&object(&[&leaf, &sub.certificate.to_der().expect("DER")]))
    };
    ends_the_order(&mut Scene::new(), rsa, Reason::KeyRejected);
}

#[test]
fn an_object_of_another_form_ends_the_order() {
    let broken = |breaks: fn(Vec<u8>) -> Vec<u8>| {
        move |scene: &Scene, token: &str| {
            att_obj(&breaks(scene.attestation(&TestKey::p384(), token)))
        }
    };
    let breaks: [fn(Vec<u8>) -> Vec<u8>; 4] = [
        |object| [&object[..], b"\0"].concat(),
        |object| object[..object.len() - 1].to_vec(),
        |_| Vec::new(),
        |object| vec![0; object.len()],
    ];
    for breaks in breaks {
        ends_the_order(&mut Scene::new(), broken(breaks), Reason::AnswerMalformed);
    }
    for value in [
        json!("not base64url!"),
        json!("AAA="),
        json!(1),
        Value::Null,
    ] {
        let payload = |_: &Scene, _: &str| json!({ "attObj": value }).to_string();
        ends_the_order(&mut Scene::new(), payload, Reason::AnswerMalformed);
    }
}

#[test]
fn a_request_that_is_no_answer_changes_nothing() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let order = client.new_order(&mut scene);
    for payload in ["[]", "null", "no JSON", "{\"attObj\":\"\",\"attObj\":\"\"}"] {
        let reply = answer(client.ask(&mut scene, Route::Challenge(order), payload));
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
    let stranger = TestKey::p256();
    let header = client.header(&scene, Route::Challenge(order)).to_string();
    let body = sign(&stranger.key, &header, "{}");
    let reply = answer(scene.post(Route::Challenge(order), &body));
    refused(&reply, 401, "unauthorized", Reason::SignatureInvalid);
    assert_eq!(client.statuses(&mut scene, order), ["pending"; 3]);
}

#[test]
fn a_challenge_is_answered_once() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (order, _) = client.ready_order(&mut scene);
    let before = client.read(&mut scene, Route::Order(order));
    let token = scene.token(&client, order);
    let other = TestKey::p384();
    let object_of_other = scene.attestation(&other, &token);
    for payload in [
        att_obj(&object_of_other),
        att_obj(&object(&[])),
        "{}".to_owned(),
    ] {
        let reply = answer(client.ask(&mut scene, Route::Challenge(order), &payload));
        assert_eq!(
            (reply.status, &body(&reply)["status"]),
            (200, &json!("valid"))
        );
    }
    assert_eq!(client.read(&mut scene, Route::Order(order)), before);
    let reply = answer(client.finalize(&mut scene, order, &csr(&other)));
    refused(&reply, 400, "badCSR", Reason::KeyMismatch);
}

#[test]
fn an_attestation_answers_one_order_and_no_other() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (first, second) = (client.new_order(&mut scene), client.new_order(&mut scene));
    let token = scene.token(&client, first);
    assert_ne!(token, scene.token(&client, second));
    let object = scene.attestation(&TestKey::p384(), &token);
    let reply = answer(client.attest(&mut scene, second, &object));
    refused(
        &reply,
        403,
        "badAttestationStatement",
        Reason::NonceUnrecognized,
    );
    assert_eq!(client.statuses(&mut scene, first), ["pending"; 3]);
    let outcome = client.attest(&mut scene, first, &object);
    assert!(matches!(outcome.act, Act::Attested(..)));
}
