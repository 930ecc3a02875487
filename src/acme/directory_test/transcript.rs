//! A whole run of a client of other hands, replayed: `tests/fixtures/acme/acme-transcript-good.json`.
//!
//! Its nonces, its token and the number of its order were another server's: they are put where ours
//! would stand. Signatures, URLs and payloads are taken as they are, by the code that takes all.

use serde_json::Value;

use super::*;
use crate::acme::{Method, read};

const TRANSCRIPT: &[u8] = include_bytes!("../../../tests/fixtures/acme/acme-transcript-good.json");
const ROOT: &[u8] = include_bytes!("../../../tests/fixtures/mda/sim-mda-root.pem");

/// The other server's directory, and the number of its order.
const THEIR_BASE: &str = "https://mdm.example.test/acme/e/1f6b2d";
const THEIR_ORDER: u32 = 7;

#[test]
fn the_transcript_of_another_server_gets_its_certificate_here() {
    let transcript: Value = serde_json::from_slice(TRANSCRIPT).expect("JSON");
    let anchors = Anchors::custom(ROOT).expect("an authority");
    let serial = SerialNumber::parse(SERIAL).expect("valid");
    let terms = Terms {
        base: THEIR_BASE,
        identifier: SERIAL,
        serial: Some(&serial),
        se_public_key: None,
        open: Ok(()),
        expires_at: Timestamp::from_millis(ISSUED_MS + 3_600_000),
        anchors: &anchors,
        known: &KnownIntermediates::default(),
        nonce_key: &NonceKey::new(&[0; 32]),
        now: Timestamp::from_millis(ISSUED_MS + 60_000),
    };
    let token = transcript["token"].as_str().expect("a token");
    let mut directory = Directory::default();
    let mut posts = 0;
    for step in transcript["steps"].as_array().expect("steps") {
        let (asked, theirs) = (&step["request"], &step["response"]);
        let url = asked["url"].as_str().expect("a URL");
        let path = url.strip_prefix(THEIR_BASE).expect("of the directory");
        let route = Route::parse(&path[1..]).expect("a resource");
        let reply = if asked["method"] == "POST" {
            posts += 1;
            let request = asked["body"].to_string();
            let request = Request {
                route,
                content_type: asked["headers"]["Content-Type"].as_str(),
                body: request.as_bytes(),
            };
            replay(&mut directory, &request, &terms)
        } else {
            let method = if asked["method"] == "HEAD" {
                Method::Head
            } else {
                Method::Get
            };
            read(method, route, THEIR_BASE)
        };
        if route == Route::NewOrder {
            let mut order = directory.orders.remove(&1).expect("the order");
            order.token = token.to_owned();
            directory.orders.insert(THEIR_ORDER, order);
        }
        compare(route, &reply, theirs);
    }
    assert_eq!(posts, 7);
}

/// Everything that `post` does but look at the nonce; and what the flow does when asked to issue.
fn replay(directory: &mut Directory, request: &Request<'_>, terms: &Terms<'_>) -> Reply {
    // As it stands it is refused for its nonce, and for nothing else.
    let entropy = SeededEntropy::new(1);
    let outcome = directory.post(request, terms, &entropy);
    refused(&answer(outcome), 400, "badNonce", Reason::NonceUnusable);
    let signed = Directory::read(request, terms)
        .and_then(|jws| directory.verify(request.route, jws, terms))
        .expect("it verifies");
    let act = directory.act(request.route, signed.by, &signed.payload, terms, &entropy);
    match act.expect("it is taken") {
        Act::Answer(reply) | Act::Attested(_, reply) => reply,
        Act::Issue(issue) => {
            let authority = TestKey::p256();
            let ca = self_signed(&authority, "Device CA");
            let leaf = issued_with(&TestKey::p384(), SERIAL, &authority, "Device CA", |_| {});
            directory.issued(issue.order, &leaf.certificate(), &ca.certificate(), terms)
        }
    }
}

/// Ours says what theirs said, but for what each server chooses.
fn compare(route: Route, ours: &Reply, theirs: &Value) {
    assert_eq!(json!(ours.status), theirs["status"], "{route}");
    let location = theirs["headers"]["Location"].as_str();
    let order = Route::Order(THEIR_ORDER).url(THEIR_BASE);
    match (route, location) {
        // Ours is numbered from 1.
        (Route::NewOrder, Some(location)) => assert_eq!(location, order),
        (_, Some(location)) => assert_eq!(ours.location.as_deref(), Some(location), "{route}"),
        (_, None) => {}
    }
    if let Some(link) = theirs["headers"]["Link"].as_str() {
        assert_eq!(ours.links[1].to_string(), link, "{route}");
    }
    match &theirs["body"] {
        Value::Null => assert!(ours.body.is_empty(), "{route}"),
        Value::String(pem) => {
            assert_eq!(theirs["headers"]["Content-Type"], json!(ours.content_type));
            let count = |bytes: &[u8]| crate::pki::read_certificates(bytes).map(|all| all.len());
            assert_eq!(count(&ours.body), count(pem.as_bytes()));
        }
        theirs => assert_eq!(
            common(body(ours), route),
            common(theirs.clone(), route),
            "{route}"
        ),
    }
}

/// A body without what each server chooses: dates, further resources, the number of a new order.
fn common(body: Value, route: Route) -> Value {
    let text = body
        .to_string()
        .replace("/1\"", "/7\"")
        .replace("/1/finalize", "/7/finalize");
    let mut body: Value = match route {
        Route::NewOrder => serde_json::from_str(&text).expect("JSON"),
        _ => body,
    };
    let members = body.as_object_mut().expect("an object");
    for name in ["expires", "validated", "revokeCert", "keyChange"] {
        members.shift_remove(name);
    }
    body
}
