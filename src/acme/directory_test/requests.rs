//! Who may ask, and in what form: RFC 8555 sections 6.1 to 6.5, RFC 7515.

use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use serde_json::{Value, json};

use super::*;
use crate::acme::{MAX_BODY, Method, read};

/// A request for the orders of the client's account, with a header of the test's own.
fn with_header(scene: &mut Scene, client: &Client, change: impl FnOnce(&mut Value)) -> Reply {
    let route = Route::Orders(client.account);
    let mut header = client.header(scene, route);
    change(&mut header);
    let body = client.sign(&header, "");
    answer(scene.post(route, &body))
}

fn raw(scene: &mut Scene, route: Route, body: impl AsRef<[u8]>) -> Reply {
    answer(scene.post(route, body.as_ref()))
}

#[test]
fn only_the_directory_and_nonces_are_read_without_a_signature() {
    let directory = read(Method::Get, Route::Directory, BASE);
    assert_eq!((directory.status, directory.links.len()), (200, 0));
    assert_eq!(
        body(&directory),
        json!({
            "newNonce": format!("{BASE}/new-nonce"),
            "newAccount": format!("{BASE}/new-account"),
            "newOrder": format!("{BASE}/new-order"),
        })
    );
    let index = format!("<{BASE}/directory>;rel=\"index\"");
    for (method, status) in [(Method::Head, 200), (Method::Get, 204)] {
        let reply = read(method, Route::NewNonce, BASE);
        assert_eq!((reply.status, reply.body.len()), (status, 0));
        assert_eq!(reply.links[0].to_string(), index);
    }
    for route in [Route::NewAccount, Route::Order(1), Route::Certificate(1)] {
        let reply = read(Method::Get, route, BASE);
        refused(&reply, 405, "malformed", Reason::MessageUnsupported);
    }
    let reply = Reply::no_such_resource(BASE);
    refused(&reply, 404, "malformed", Reason::MessageUnsupported);
}

#[test]
fn both_are_read_with_a_signature_too() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let directory = client.get(&mut scene, Route::Directory);
    assert_eq!(directory, read(Method::Get, Route::Directory, BASE));
    assert_eq!(client.get(&mut scene, Route::NewNonce).status, 204);
    for route in [Route::Directory, Route::NewNonce] {
        let reply = client.post(&mut scene, route, &json!({}));
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
}

#[test]
fn the_content_type_is_jose_json() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let route = Route::Orders(client.account);
    for (content_type, status) in [
        (Some("application/jose+json"), 200),
        (Some("Application/JOSE+JSON; charset=utf-8"), 200),
        (Some("application/json"), 415),
        (Some("application/jose+jsonx"), 415),
        (Some(""), 415),
        (None, 415),
    ] {
        let body = client.sign(&client.header(&scene, route), "");
        let request = Request {
            route,
            content_type,
            body: &body,
        };
        let outcome =
            scene.with_terms(|directory, terms, entropy| directory.post(&request, terms, entropy));
        assert_eq!(answer(outcome).status, status, "{content_type:?}");
    }
}

#[test]
fn any_other_form_than_one_flattened_jws_is_malformed() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let route = Route::Orders(client.account);
    let good = client.sign(&client.header(&scene, route), "");
    let members: Value = serde_json::from_slice(&good).expect("JSON");
    let text = |name: &str| members[name].as_str().expect("text").to_owned();
    let (protected, signature) = (text("protected"), text("signature"));
    let with = |name: &str, value: Value| {
        let mut changed = members.clone();
        changed[name] = value;
        changed.to_string()
    };
    let without = |name: &str| {
        let mut changed = members.clone();
        changed
            .as_object_mut()
            .expect("an object")
            .shift_remove(name);
        changed.to_string()
    };
    let good_text = String::from_utf8(good.clone()).expect("text");
    for (what, body) in [
        ("nothing", String::new()),
        ("no JSON", "protected.payload.signature".to_owned()),
        ("compact", format!("{protected}..{signature}")),
        ("an array", format!("[{good_text}]")),
        ("something behind", format!("{good_text}{{}}")),
        ("general form", with("signatures", json!([members]))),
        ("an unprotected header", with("header", json!({}))),
        ("no protected", without("protected")),
        ("no payload", without("payload")),
        ("no signature", without("signature")),
        ("null for nothing", with("payload", Value::Null)),
        ("a payload that is an object", with("payload", json!({}))),
        ("padding", with("payload", json!("e30="))),
        ("the other alphabet", with("signature", json!("+/+/"))),
        (
            "white space",
            with("protected", json!(format!("{protected}\n"))),
        ),
        ("bits left over", with("payload", json!("e31"))),
        (
            "a member twice",
            good_text.replacen('{', "{\"payload\":\"\",", 1),
        ),
        ("a header of no JSON", with("protected", json!(b64("alg")))),
        ("a header of an array", with("protected", json!(b64("[]")))),
        (
            "too large a header",
            with("protected", json!("A".repeat(6_000))),
        ),
    ] {
        let reply = raw(&mut scene, route, body);
        assert_eq!(reply.status, 400, "{what}");
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
    let large = format!("{good_text}{}", " ".repeat(MAX_BODY));
    let reply = raw(&mut scene, route, large);
    refused(&reply, 413, "malformed", Reason::RequestTooLarge);
    // RFC 7515 section 7.2.2: members that are not known are passed over.
    assert_eq!(raw(&mut scene, route, with("more", json!(1))).status, 200);
    let reply = raw(&mut scene, route, &good);
    refused(&reply, 400, "badNonce", Reason::NonceUnusable);
}

#[test]
fn a_header_says_what_it_must_and_nothing_critical() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let jwk = client.jwk();
    type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;
    let set = |name: &'static str, value: Value| -> Change<'_> {
        Box::new(move |header| header[name] = value)
    };
    let remove = |name: &'static str| -> Change<'_> {
        Box::new(move |header| {
            header
                .as_object_mut()
                .expect("an object")
                .shift_remove(name);
        })
    };
    for change in [
        set("crit", json!(["exp"])),
        set("crit", json!([])),
        set("b64", json!(false)),
        set("b64", json!(true)),
        set("jwk", jwk.clone()),
        set("nonce", json!(7)),
        set("nonce", json!("not/base64url")),
        set("nonce", json!("AAAA==")),
        set("url", json!(["a"])),
        set("kid", json!(1)),
        set("kid", json!("")),
        set("kid", json!(format!("{BASE}/acct/1/"))),
        set("kid", json!(format!("{BASE}/order/1"))),
        set("kid", json!("https://other.example/acme/x/acct/1")),
        remove("kid"),
        remove("alg"),
        remove("url"),
    ] {
        let reply = with_header(&mut scene, &client, change);
        refused(&reply, 400, "malformed", Reason::RequestMalformed);
    }
    // Two readers could take either.
    let route = Route::Orders(client.account);
    let header = client.header(&scene, route).to_string();
    let header = header.replacen('{', &format!("{{\"url\":\"{}\",", route.url(BASE)), 1);
    let body = sign(&client.key.key, &header, "");
    refused(
        &raw(&mut scene, route, body),
        400,
        "malformed",
        Reason::RequestMalformed,
    );
    // RFC 7515 section 4: what is neither known nor critical is passed over.
    let reply = with_header(&mut scene, &client, set("typ", json!("jose+json")));
    assert_eq!(reply.status, 200);
}

#[test]
fn es256_and_nothing_else() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    for algorithm in [
        "none", "HS256", "RS256", "ES384", "ES512", "EdDSA", "es256", "",
    ] {
        let reply = with_header(&mut scene, &client, |header| {
            header["alg"] = json!(algorithm)
        });
        refused(&reply, 400, "badSignatureAlgorithm", Reason::KeyRejected);
        assert_eq!(body(&reply)["algorithms"], json!(["ES256"]));
    }
    // "none" in earnest: no signature at all.
    let mut header = client.header(&scene, Route::Orders(client.account));
    header["alg"] = json!("none");
    let unsigned = json!({"protected": b64(header.to_string()), "payload": "", "signature": ""});
    let reply = raw(
        &mut scene,
        Route::Orders(client.account),
        unsigned.to_string(),
    );
    refused(&reply, 400, "badSignatureAlgorithm", Reason::KeyRejected);
}

#[test]
fn the_public_key_as_a_shared_secret_signs_nothing() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let route = Route::Orders(client.account);
    let header = client.header(&scene, route).to_string();
    let signed = format!("{}.", b64(&header));
    let secret = PKey::hmac(client.key.public_key_spki()).expect("a key");
    let mac = openssl::sign::Signer::new(MessageDigest::sha256(), &secret)
        .and_then(|mut signer| signer.sign_oneshot_to_vec(signed.as_bytes()))
        .expect("a MAC");
    let body = json!({"protected": b64(&header), "payload": "", "signature": b64(mac)});
    let reply = raw(&mut scene, route, body.to_string());
    refused(&reply, 401, "unauthorized", Reason::SignatureInvalid);
}

#[test]
fn a_request_is_for_the_url_it_names() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let url = Route::Orders(client.account).url(BASE);
    for other in [
        Route::Account(client.account).url(BASE),
        format!("{url}/"),
        format!("{url}?"),
        url.replace("https", "http"),
        url.replace("https", "HTTPS"),
        url.replace("mdm.example", "mdm.example:443"),
        url.replace("mdm.example", "evil.example"),
        "/acct/1/orders".to_owned(),
        String::new(),
    ] {
        let reply = with_header(&mut scene, &client, |header| header["url"] = json!(other));
        refused(&reply, 401, "unauthorized", Reason::RequestMalformed);
    }
}

#[test]
fn a_nonce_is_ours_young_and_used_once() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let route = Route::Orders(client.account);
    let body = client.sign(&client.header(&scene, route), "");
    assert_eq!(raw(&mut scene, route, &body).status, 200);
    refused(
        &raw(&mut scene, route, &body),
        400,
        "badNonce",
        Reason::NonceUnusable,
    );

    let at = scene.now;
    let elsewhere = scene
        .nonce_key
        .mint("https://mdm.example/acme/other", at, [1; 16]);
    let foreign = NonceKey::new(&[8; 32]).mint(BASE, at, [2; 16]);
    let old = scene
        .nonce_key
        .mint(BASE, at.minus(Duration::from_secs(3_600)), [3; 16]);
    for nonce in [
        json!(elsewhere),
        json!(foreign),
        json!(old),
        json!(""),
        json!("AAAA"),
    ] {
        let reply = with_header(&mut scene, &client, |header| header["nonce"] = nonce);
        refused(&reply, 400, "badNonce", Reason::NonceUnusable);
    }
    let reply = with_header(&mut scene, &client, |header| {
        header
            .as_object_mut()
            .expect("an object")
            .shift_remove("nonce");
    });
    refused(&reply, 400, "badNonce", Reason::NonceUnusable);
}

#[test]
fn a_refused_request_spends_its_nonce_once_its_signer_is_known() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let body = client.sign(&client.header(&scene, Route::Order(7)), "");
    refused(
        &raw(&mut scene, Route::Order(7), &body),
        404,
        "malformed",
        Reason::MessageUnsupported,
    );
    refused(
        &raw(&mut scene, Route::Order(7), &body),
        400,
        "badNonce",
        Reason::NonceUnusable,
    );

    // A forger must not spend another's nonce.
    let route = Route::Orders(client.account);
    let header = client.header(&scene, route);
    let forged = sign(&TestKey::p256().key, &header.to_string(), "");
    refused(
        &raw(&mut scene, route, forged),
        401,
        "unauthorized",
        Reason::SignatureInvalid,
    );
    let body = client.sign(&header, "");
    assert_eq!(raw(&mut scene, route, body).status, 200);
}

#[test]
fn spent_nonces_are_forgotten_when_they_are_too_old_to_be_taken() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let kept = |scene: &Scene| {
        let state = serde_json::to_value(&scene.directory).expect("JSON");
        state["spent"].as_array().map(Vec::len)
    };
    let route = Route::Orders(client.account);
    for _ in 0..10 {
        assert_eq!(client.get(&mut scene, route).status, 200);
    }
    assert_eq!(kept(&scene), Some(11));
    scene.now = scene.now.plus(Duration::from_secs(3_600));
    assert_eq!(client.get(&mut scene, route).status, 200);
    assert_eq!(kept(&scene), Some(1));
    for _ in 1..512 {
        assert_eq!(client.get(&mut scene, route).status, 200);
    }
    refused(
        &client.get(&mut scene, route),
        429,
        "rateLimited",
        Reason::TicketExhausted,
    );
    assert_eq!(kept(&scene), Some(512));
}

#[test]
fn reading_changes_nothing_where_one_process_remembers_its_nonces() {
    let mut scene = Scene::new();
    scene.nonce_key = NonceKey::of_one_process(&[9; 32], [1; 6]);
    let client = Client::register(&mut scene);
    let order = client.new_order(&mut scene);
    for route in [
        Route::Order(order),
        Route::Authorization(order),
        Route::Challenge(order),
        Route::Account(client.account),
        Route::Orders(client.account),
    ] {
        let body = client.sign(&client.header(&scene, route), "");
        let outcome = scene.post(route, &body);
        assert!(!outcome.changed && outcome.admitted, "{route}");
        assert_eq!(answer(outcome).status, 200, "{route}");
        let again = raw(&mut scene, route, &body);
        refused(&again, 400, "badNonce", Reason::NonceUnusable);
    }
    // What is refused for its empty payload changes nothing, either.
    for route in [Route::NewOrder, Route::Finalize(order), Route::Order(7)] {
        let body = client.sign(&client.header(&scene, route), "");
        let outcome = scene.post(route, &body);
        assert!(!outcome.changed && outcome.admitted, "{route}");
        let again = raw(&mut scene, route, &body);
        refused(&again, 400, "badNonce", Reason::NonceUnusable);
    }
}

#[test]
fn no_restart_makes_a_used_nonce_good() {
    let run = |number| NonceKey::of_one_process(&[9; 32], [number; 6]);
    let mut scene = Scene::new();
    scene.nonce_key = run(1);
    let client = Client::register(&mut scene);
    let change = (Route::NewOrder, r#"{"identifiers":[]}"#);
    let read = (Route::Orders(client.account), "");
    let sign = |scene: &Scene, (route, payload): (Route, &str)| {
        client.sign(&client.header(scene, route), payload)
    };
    let used = [change, read].map(|asked| (asked.0, sign(&scene, asked)));
    for (route, body) in &used {
        assert!(scene.post(*route, body).admitted);
    }
    let waiting = [change, read].map(|asked| (asked.0, sign(&scene, asked)));

    scene.nonce_key = run(2);
    for (route, body) in &used {
        let again = raw(&mut scene, *route, body);
        refused(&again, 400, "badNonce", Reason::NonceUnusable);
    }
    let [change, read] = waiting;
    assert!(scene.post(change.0, &change.1).admitted);
    let again = raw(&mut scene, change.0, change.1);
    refused(&again, 400, "badNonce", Reason::NonceUnusable);
    // Nobody knows any more that it was not used.
    let read = raw(&mut scene, read.0, read.1);
    refused(&read, 400, "badNonce", Reason::NonceUnusable);
}

#[test]
fn one_nonce_is_not_good_for_a_read_and_a_change() {
    let mut scene = Scene::new();
    scene.nonce_key = NonceKey::of_one_process(&[9; 32], [1; 6]);
    let client = Client::register(&mut scene);
    let (read, change) = (Route::Orders(client.account), Route::NewOrder);
    for [first, second] in [[read, change], [change, read]] {
        let nonce = json!(scene.nonce());
        let payload = |route| if route == read { "" } else { "{}" };
        let mut send = |route: Route| {
            let mut header = client.header(&scene, route);
            header["nonce"] = nonce.clone();
            let body = client.sign(&header, payload(route));
            scene.post(route, &body)
        };
        assert!(send(first).admitted);
        let second = answer(send(second));
        refused(&second, 400, "badNonce", Reason::NonceUnusable);
    }
}

#[test]
fn no_single_changed_character_of_a_request_is_taken() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let body = client.sign(
        &client.header(&scene, Route::NewOrder),
        r#"{"identifiers":[]}"#,
    );
    for index in (0..body.len()).step_by(7) {
        let mut other = body.clone();
        other[index] = if other[index] == b'A' { b'B' } else { b'A' };
        let before = scene.directory.clone();
        let reply = raw(&mut scene, Route::NewOrder, other);
        assert!(reply.refused.is_some(), "{index}");
        assert_eq!(scene.directory, before, "{index}");
    }
    let reply = raw(&mut scene, Route::NewOrder, body);
    assert_eq!(
        body_detail(&reply),
        "identifiers must be an array with an element"
    );
}

fn body_detail(reply: &Reply) -> String {
    body(reply)["detail"].as_str().expect("text").to_owned()
}

/// Without it, the fuzz target `jws` would never see a request that is taken.
#[test]
fn the_request_in_the_seeds_of_the_fuzz_target_is_taken() {
    let (_, seed) = include_bytes!("../../../fuzz/seeds/jws/taken")
        .split_first()
        .expect("a route and a body");
    let scene = Scene::new();
    let terms = Terms {
        base: "https://mdm.example.test/acme/e/1f6b2d",
        identifier: SERIAL,
        serial: None,
        se_public_key: None,
        open: Ok(()),
        expires_at: Timestamp::from_seconds(1_790_848_800),
        anchors: &scene.anchors,
        known: &scene.known,
        nonce_key: &NonceKey::new(&[0; 32]),
        now: Timestamp::from_seconds(1_790_848_800),
    };
    let request = Request {
        route: Route::NewAccount,
        content_type: Some(JOSE),
        body: seed,
    };
    let outcome = Directory::default().post(&request, &terms, &scene.entropy);
    assert!(outcome.changed);
    assert_eq!(answer(outcome).status, 201);
}
