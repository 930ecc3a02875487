//! Orders, their end, and their certificate: RFC 8555 sections 7.1.3, 7.1.6 and 7.4.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::pki::Digest;

/// An order for the Mac of the profile.
fn wish() -> Value {
    json!({"identifiers": [{"type": "permanent-identifier", "value": SERIAL}]})
}

#[test]
fn an_order_and_its_authorization_are_as_the_mac_expects_them() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let reply = client.post(&mut scene, Route::NewOrder, &wish());
    assert_eq!(reply.status, 201);
    assert_eq!(reply.location, Some(format!("{BASE}/order/1")));
    let identifier = json!({"type": "permanent-identifier", "value": SERIAL});
    assert_eq!(
        body(&reply),
        json!({
            "status": "pending",
            "expires": "2026-10-01T10:30:07Z",
            "identifiers": [identifier],
            "authorizations": [format!("{BASE}/authz/1")],
            "finalize": format!("{BASE}/order/1/finalize"),
        })
    );
    let authorization = client.read(&mut scene, Route::Authorization(1));
    let token = authorization["challenges"][0]["token"].clone();
    assert!(token.as_str().is_some_and(|token| token.len() == 43));
    assert_eq!(
        authorization,
        json!({
            "status": "pending",
            "expires": "2026-10-01T10:30:07Z",
            "identifier": identifier,
            "challenges": [{
                "type": "device-attest-01",
                "url": format!("{BASE}/chall/1"),
                "status": "pending",
                "token": token,
            }],
        })
    );
}

#[test]
fn an_order_is_for_the_one_identifier_of_the_profile() {
    for mut scene in [Scene::new(), Scene::unbound()] {
        let client = Client::register(&mut scene);
        let right = json!({"type": "permanent-identifier", "value": scene.identifier()});
        let named = |kind: &str, value: &str| json!({"type": kind, "value": value});
        let (rejected, unsupported) = (
            (403, "rejectedIdentifier", Reason::IdentifierMismatch),
            (400, "unsupportedIdentifier", Reason::IdentifierMismatch),
        );
        let malformed = (400, "malformed", Reason::RequestMalformed);
        for (identifiers, (status, kind, reason)) in [
            (
                json!([named("permanent-identifier", "SIMOTHER01")]),
                rejected,
            ),
            (
                json!([named("permanent-identifier", "simq4t2w7p")]),
                rejected,
            ),
            (json!([named("permanent-identifier", "")]), rejected),
            (json!([right, right]), rejected),
            (
                json!([right, named("permanent-identifier", "SIMOTHER01")]),
                rejected,
            ),
            (json!([named("dns", "example.org")]), unsupported),
            (json!([named("dns", &scene.identifier())]), unsupported),
            (json!([right, named("dns", "example.org")]), unsupported),
            (
                json!([named("hardware-module", &scene.identifier())]),
                unsupported,
            ),
            (json!([]), malformed),
            (json!([scene.identifier()]), malformed),
            (json!([{"type": "permanent-identifier"}]), malformed),
            (
                json!([{"type": "permanent-identifier", "value": 1}]),
                malformed,
            ),
            (json!(right), malformed),
            (Value::Null, malformed),
        ] {
            let wish = json!({ "identifiers": identifiers });
            let reply = client.post(&mut scene, Route::NewOrder, &wish);
            refused(&reply, status, kind, reason);
        }
        if scene.serial.is_none() {
            // The Mac's serial number is no secret, and so opens nothing here.
            let wish = json!({"identifiers": [named("permanent-identifier", SERIAL)]});
            let reply = client.post(&mut scene, Route::NewOrder, &wish);
            refused(
                &reply,
                403,
                "rejectedIdentifier",
                Reason::IdentifierMismatch,
            );
        }
        for name in ["notBefore", "notAfter"] {
            let mut wish = json!({ "identifiers": [right] });
            wish[name] = json!("2030-01-01T00:00:00Z");
            let reply = client.post(&mut scene, Route::NewOrder, &wish);
            refused(&reply, 400, "malformed", Reason::RequestMalformed);
        }
        let state = serde_json::to_value(&scene.directory).expect("JSON");
        assert_eq!(state["orders"], json!({}));
    }
}

#[test]
fn an_order_belongs_to_its_account() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let other = Client::register(&mut scene);
    let (order, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, order, &csr(&key)).act else {
        panic!("the order is ready");
    };
    scene.issue(&issue);
    for route in [
        Route::Order(order),
        Route::Authorization(order),
        Route::Challenge(order),
        Route::Finalize(order),
        Route::Certificate(order),
    ] {
        let reply = other.get(&mut scene, route);
        refused(&reply, 403, "unauthorized", Reason::AccountUnknown);
    }
    for route in [
        Route::Order(9),
        Route::Authorization(9),
        Route::Challenge(9),
        Route::Finalize(9),
        Route::Certificate(9),
    ] {
        let reply = client.get(&mut scene, route);
        refused(&reply, 404, "malformed", Reason::MessageUnsupported);
    }
    let orders = |client: &Client, scene: &mut Scene| {
        client.read(scene, Route::Orders(client.account))["orders"].clone()
    };
    assert_eq!(
        orders(&client, &mut scene),
        json!([Route::Order(order).url(BASE)])
    );
    assert_eq!(orders(&other, &mut scene), json!([]));
}

#[test]
fn what_is_only_read_takes_no_payload() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (order, _) = client.ready_order(&mut scene);
    for route in [
        Route::Order(order),
        Route::Authorization(order),
        Route::Certificate(order),
        Route::Orders(client.account),
    ] {
        let reply = client.post(&mut scene, route, &json!({"status": "deactivated"}));
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
    let reply = client.get(&mut scene, Route::Certificate(order));
    refused(&reply, 404, "malformed", Reason::MessageUnsupported);
}

#[test]
fn an_order_is_finalized_when_it_is_ready_and_at_no_other_time() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let order = client.new_order(&mut scene);
    let early = answer(client.finalize(&mut scene, order, &csr(&TestKey::p384())));
    refused(&early, 403, "orderNotReady", Reason::OrderNotReady);

    let (order, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, order, &csr(&key)).act else {
        panic!("the order is ready");
    };
    scene.issue(&issue);
    // RFC 8555 section 7.4 allows no second time; the client reads the order instead.
    let again = answer(client.finalize(&mut scene, order, &csr(&key)));
    refused(&again, 403, "orderNotReady", Reason::OrderNotReady);
    let reply = scene.issue(&issue);
    refused(&reply, 403, "orderNotReady", Reason::OrderNotReady);
    assert_eq!(
        client.read(&mut scene, Route::Order(order))["status"],
        json!("valid")
    );
}

#[test]
fn the_request_is_for_the_attested_key_and_proves_its_possession() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (order, key) = client.ready_order(&mut scene);
    let good = csr(&key);
    let mut tampered = good.clone();
    *tampered.last_mut().expect("bytes") ^= 1;
    let rsa_sha1 = csr(&TestKey::rsa_with(Digest::Sha1));
    for (csr, reason) in [
        (csr(&TestKey::p384()), Reason::KeyMismatch),
        (csr(&TestKey::p256()), Reason::KeyMismatch),
        (csr(&TestKey::rsa()), Reason::KeyMismatch),
        (csr(&client.key), Reason::KeyMismatch),
        (tampered, Reason::SignatureInvalid),
        (rsa_sha1, Reason::KeyRejected),
        ([&good[..], b"\0"].concat(), Reason::RequestMalformed),
        (good[..100].to_vec(), Reason::RequestMalformed),
        (Vec::new(), Reason::RequestMalformed),
    ] {
        let reply = answer(client.finalize(&mut scene, order, &csr));
        refused(&reply, 400, "badCSR", reason);
    }
    for payload in [
        json!({}),
        json!({"csr": 1}),
        json!({"csr": "not base64url"}),
        json!({"csr": format!("{}=", b64(&good))}),
    ] {
        let reply = client.post(&mut scene, Route::Finalize(order), &payload);
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
    // RFC 8555 section 7.4: a bad CSR leaves the order ready for a better one.
    let outcome = client.finalize(&mut scene, order, &good);
    assert!(matches!(outcome.act, Act::Issue(_)));
}

#[test]
fn a_ticket_redeemed_elsewhere_leaves_no_certificate() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (order, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, order, &csr(&key)).act else {
        panic!("the order is ready");
    };
    let reply = scene.with_terms(|directory, terms, _| {
        directory.not_issued(issue.order, Reason::TicketUsed, terms)
    });
    refused(&reply, 403, "unauthorized", Reason::TicketUsed);
    assert_eq!(
        client.statuses(&mut scene, order),
        ["valid", "valid", "invalid"]
    );
    let view = client.read(&mut scene, Route::Order(order));
    assert_eq!(
        view["error"]["type"],
        json!("urn:ietf:params:acme:error:unauthorized")
    );
    let reply = answer(client.finalize(&mut scene, order, &csr(&key)));
    refused(&reply, 403, "orderNotReady", Reason::OrderNotReady);
    let reply =
        scene.with_terms(|directory, terms, _| directory.not_issued(77, Reason::TicketUsed, terms));
    refused(&reply, 404, "malformed", Reason::MessageUnsupported);
}

#[test]
fn nothing_begins_or_ends_with_a_closed_ticket_but_all_can_be_read() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (done, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, done, &csr(&key)).act else {
        panic!("the order is ready");
    };
    let (ready, other_key) = client.ready_order(&mut scene);
    let pending = client.new_order(&mut scene);
    let token = scene.token(&client, pending);
    scene.issue(&issue);
    scene.open = Err(Reason::TicketUsed);

    let reply = Client::stranger().new_account(&mut scene, &json!({}));
    refused(&reply, 403, "unauthorized", Reason::TicketUsed);
    let reply = client.post(&mut scene, Route::NewOrder, &wish());
    refused(&reply, 403, "unauthorized", Reason::TicketUsed);
    let reply = answer(client.finalize(&mut scene, ready, &csr(&other_key)));
    refused(&reply, 403, "unauthorized", Reason::TicketUsed);
    let object = scene.attestation(&TestKey::p384(), &token);
    let reply = answer(client.attest(&mut scene, pending, &object));
    refused(&reply, 403, "unauthorized", Reason::TicketUsed);

    assert_eq!(client.new_account(&mut scene, &json!({})).status, 200);
    assert_eq!(client.get(&mut scene, Route::Certificate(done)).status, 200);
    assert_eq!(
        client.statuses(&mut scene, ready),
        ["valid", "valid", "ready"]
    );
    assert_eq!(
        client.statuses(&mut scene, pending),
        ["pending", "pending", "pending"]
    );
}

#[test]
fn an_order_ends_with_its_ticket() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let (done, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, done, &csr(&key)).act else {
        panic!("the order is ready");
    };
    scene.issue(&issue);
    let (ready, key) = client.ready_order(&mut scene);
    let pending = client.new_order(&mut scene);
    let token = scene.token(&client, pending);
    scene.now = scene.now.plus(Duration::from_secs(3_600));
    assert_eq!(
        client.statuses(&mut scene, done),
        ["valid", "valid", "valid"]
    );
    assert_eq!(
        client.statuses(&mut scene, ready),
        ["valid", "expired", "invalid"]
    );
    assert_eq!(
        client.statuses(&mut scene, pending),
        ["invalid", "invalid", "invalid"]
    );
    let reply = answer(client.finalize(&mut scene, ready, &csr(&key)));
    refused(&reply, 403, "orderNotReady", Reason::OrderNotReady);
    let object = scene.attestation(&TestKey::p384(), &token);
    let reply = answer(client.attest(&mut scene, pending, &object));
    assert_eq!(body(&reply)["status"], json!("invalid"));
    let orders = client.read(&mut scene, Route::Orders(client.account));
    assert_eq!(orders["orders"], json!([Route::Order(done).url(BASE)]));
}

#[test]
fn a_profile_takes_eight_orders_at_most() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    for number in 1..=8 {
        assert_eq!(client.new_order(&mut scene), number);
    }
    let reply = client.post(&mut scene, Route::NewOrder, &wish());
    refused(&reply, 429, "rateLimited", Reason::TicketExhausted);
}
