//! Accounts: RFC 8555 sections 7.1.2 and 7.3.

use serde_json::json;

use super::*;

#[test]
fn an_account_has_its_orders_url() {
    let mut scene = Scene::new();
    let client = Client::stranger();
    let reply = client.new_account(&mut scene, &json!({}));
    assert_eq!(reply.status, 201);
    assert_eq!(reply.location, Some(format!("{BASE}/acct/1")));
    assert_eq!(
        body(&reply),
        json!({"status": "valid", "orders": format!("{BASE}/acct/1/orders")})
    );
}

#[test]
fn the_same_key_finds_its_account_again_unchanged() {
    let mut scene = Scene::new();
    let contact = json!({"contact": ["mailto:admin@example.org"]});
    let client = Client::stranger();
    let first = client.new_account(&mut scene, &contact);
    assert_eq!(body(&first)["contact"], contact["contact"]);
    for wish in [
        json!({"contact": ["mailto:other@example.org"], "onlyReturnExisting": true}),
        json!({"contact": ["mailto:other@example.org"]}),
    ] {
        let again = client.new_account(&mut scene, &wish);
        assert_eq!(again.status, 200);
        assert_eq!(
            (&again.location, &again.body),
            (&first.location, &first.body)
        );
    }
    let other = Client::stranger();
    let reply = other.new_account(&mut scene, &json!({"onlyReturnExisting": true}));
    refused(&reply, 400, "accountDoesNotExist", Reason::AccountUnknown);
    let reply = other.new_account(&mut scene, &json!({"onlyReturnExisting": false}));
    assert_eq!(reply.location, Some(format!("{BASE}/acct/2")));
}

#[test]
fn contacts_are_mail_addresses() {
    let mut scene = Scene::new();
    for (contact, kind) in [
        (json!(["tel:+15550100"]), "unsupportedContact"),
        (json!(["https://example.org"]), "unsupportedContact"),
        (json!("mailto:a@example.org"), "invalidContact"),
        (json!([1]), "invalidContact"),
        (json!(["mailto:"]), "invalidContact"),
        (json!(["mailto:a@example.org?subject=x"]), "invalidContact"),
        (
            json!(["mailto:a@example.org,b@example.org"]),
            "invalidContact",
        ),
        (json!(["mailto:a@example.org\r\nX: y"]), "invalidContact"),
        (
            json!([format!("mailto:{}@example.org", "a".repeat(300))]),
            "invalidContact",
        ),
        (json!(vec!["mailto:a@example.org"; 5]), "invalidContact"),
    ] {
        let reply = Client::stranger().new_account(&mut scene, &json!({ "contact": contact }));
        refused(&reply, 400, kind, Reason::RequestMalformed);
    }
    let reply = Client::stranger().new_account(&mut scene, &json!({"contact": []}));
    assert_eq!((reply.status, body(&reply).get("contact")), (201, None));
}

#[test]
fn what_a_client_adds_is_passed_over_and_never_repeated() {
    let mut scene = Scene::new();
    let wish = json!({
        "status": "deactivated",
        "orders": "https://other.example/orders",
        "onlyReturnExisting": false,
        "termsOfServiceAgreed": false,
        "externalAccountBinding": {"protected": "", "payload": "", "signature": ""},
        "more": [1],
    });
    let reply = Client::stranger().new_account(&mut scene, &wish);
    assert_eq!(
        body(&reply),
        json!({"status": "valid", "orders": format!("{BASE}/acct/1/orders")})
    );
}

#[test]
fn a_key_is_a_point_on_p_256_and_public() {
    let mut scene = Scene::new();
    let client = Client::stranger();
    let set = |name: &str, value: Value| {
        let mut jwk = client.jwk();
        jwk[name] = value;
        jwk
    };
    let x = client.jwk()["x"].clone();
    for jwk in [
        set("kty", json!("RSA")),
        set("kty", json!("oct")),
        set("crv", json!("P-384")),
        set("crv", json!("secp256k1")),
        set("crv", Value::Null),
        set("x", json!("AAAA")),
        set("x", json!(format!("{}A", x.as_str().expect("text")))),
        set("x", json!(b64([0; 32]))),
        set("x", json!(b64([0xff; 32]))),
        set("y", x),
        set("y", json!(1)),
        set("d", json!(b64([1; 32]))),
        json!({}),
    ] {
        let header = json!({
            "alg": "ES256",
            "jwk": jwk,
            "nonce": scene.nonce(),
            "url": Route::NewAccount.url(BASE),
        });
        let request = client.sign(&header, "{}");
        let reply = answer(scene.post(Route::NewAccount, &request));
        refused(&reply, 400, "badPublicKey", Reason::KeyRejected);
    }
}

#[test]
fn a_new_account_is_signed_by_its_key_and_all_else_by_an_account() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let reply = client.post(&mut scene, Route::NewAccount, &json!({}));
    refused(&reply, 400, "malformed", Reason::RequestMalformed);
    let header = json!({
        "alg": "ES256",
        "jwk": client.jwk(),
        "nonce": scene.nonce(),
        "url": Route::NewOrder.url(BASE),
    });
    let request = client.sign(&header, "{}");
    let reply = answer(scene.post(Route::NewOrder, &request));
    refused(&reply, 400, "malformed", Reason::RequestMalformed);
    // The key in a newAccount request must be the one that signed it.
    let other = Client::stranger();
    let header = json!({
        "alg": "ES256",
        "jwk": client.jwk(),
        "nonce": scene.nonce(),
        "url": Route::NewAccount.url(BASE),
    });
    let request = other.sign(&header, "{}");
    let reply = answer(scene.post(Route::NewAccount, &request));
    refused(&reply, 401, "unauthorized", Reason::SignatureInvalid);
    // An account that does not exist.
    let nobody = Client {
        key: TestKey::p256(),
        account: 5,
    };
    let reply = nobody.get(&mut scene, Route::Orders(5));
    refused(&reply, 400, "accountDoesNotExist", Reason::AccountUnknown);
    for payload in ["", "[]", "null", "{\"contact\":[],\"contact\":[]}"] {
        let client = Client::stranger();
        let header = json!({
            "alg": "ES256",
            "jwk": client.jwk(),
            "nonce": scene.nonce(),
            "url": Route::NewAccount.url(BASE),
        });
        let request = client.sign(&header, payload);
        let reply = answer(scene.post(Route::NewAccount, &request));
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
}

#[test]
fn an_account_is_read_changed_and_ended_by_its_owner_only() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let other = Client::register(&mut scene);
    let own = Route::Account(client.account);
    for route in [own, Route::Orders(client.account)] {
        let reply = other.get(&mut scene, route);
        refused(&reply, 403, "unauthorized", Reason::AccountUnknown);
    }
    let reply = client.post(
        &mut scene,
        own,
        &json!({"contact": ["mailto:a@example.org"], "status": "valid"}),
    );
    assert_eq!(body(&reply)["contact"], json!(["mailto:a@example.org"]));
    assert_eq!(client.read(&mut scene, own), body(&reply));

    let order = client.new_order(&mut scene);
    let reply = client.post(&mut scene, own, &json!({"status": "deactivated"}));
    assert_eq!(
        (reply.status, &body(&reply)["status"]),
        (200, &json!("deactivated"))
    );
    for route in [own, Route::Order(order), Route::NewOrder, Route::Directory] {
        let reply = client.get(&mut scene, route);
        refused(&reply, 401, "unauthorized", Reason::AccountUnknown);
    }
    let reply = client.new_account(&mut scene, &json!({}));
    refused(&reply, 401, "unauthorized", Reason::AccountUnknown);
    // What was pending is over.
    let state = serde_json::to_value(&scene.directory).expect("JSON");
    assert_eq!(state["orders"]["1"]["state"]["is"], json!("invalid"));
    assert_eq!(
        other.read(&mut scene, Route::Account(2))["status"],
        json!("valid")
    );
}

#[test]
fn a_profile_is_tried_eight_times_at_most() {
    let mut scene = Scene::new();
    for _ in 0..8 {
        Client::register(&mut scene);
    }
    let reply = Client::stranger().new_account(&mut scene, &json!({}));
    refused(&reply, 429, "rateLimited", Reason::TicketExhausted);
}
