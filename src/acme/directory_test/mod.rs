//! A directory as its clients see it: requests in, replies out, and the state kept as JSON between
//! any two of them.

mod accounts;
mod challenges;
mod orders;
mod requests;
mod transcript;

use attestd_sim::apple::{AttestationAuthority, AttestedState, BootPolicy, LeafProperty};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKeyRef, Private};
use serde_json::{Value, json};

use super::{Act, Directory, Issue, NonceKey, Outcome, Reply, Request, Route, Terms, identifier};
use crate::attestation::Anchors;
use crate::entropy::{Entropy as _, SeededEntropy};
use crate::ids::{SerialNumber, sha256};
use crate::pki::name::compose;
use crate::pki::test_key::{TestKey, issued_with, self_signed};
use crate::pki::{KnownIntermediates, Name, Signer as _, csr, oid};
use crate::reason::Reason;
use crate::time::Timestamp;

const BASE: &str = "https://mdm.example/acme/kJ8VZ1o0bQ3T5YxW2nR7sL4uD6cF9hEaGiMpXqNvSzA";
const ISSUED_MS: i64 = 1_790_847_007_000;
const SERIAL: &str = "SIMQ4T2W7P";
const JOSE: &str = "application/jose+json";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One ticket's directory, and what stands around it.
struct Scene {
    directory: Directory,
    apple: AttestationAuthority,
    anchors: Anchors,
    known: KnownIntermediates,
    nonce_key: NonceKey,
    entropy: SeededEntropy,
    serial: Option<SerialNumber>,
    se_public_key: Option<&'static str>,
    open: Result<(), Reason>,
    now: Timestamp,
}

impl Scene {
    /// For a ticket bound to the Mac's serial number.
    fn new() -> Self {
        let apple = AttestationAuthority::new().expect("OpenSSL");
        let root = apple.root_pem().expect("PEM");
        Self {
            directory: Directory::default(),
            apple,
            anchors: Anchors::custom(&root).expect("an authority"),
            known: KnownIntermediates::default(),
            nonce_key: NonceKey::new(&[9; 32]),
            entropy: SeededEntropy::new(1),
            serial: Some(SerialNumber::parse(SERIAL).expect("valid")),
            se_public_key: None,
            open: Ok(()),
            now: Timestamp::from_millis(ISSUED_MS),
        }
    }

    /// For a ticket that is bound to no Mac.
    fn unbound() -> Self {
        Self {
            serial: None,
            ..Self::new()
        }
    }

    fn identifier(&self) -> String {
        match &self.serial {
            Some(serial) => serial.to_string(),
            None => identifier("kJ8VZ1o0bQ3T5YxW2nR7sL4uD6cF9hEaGiMpXqNvSzA"),
        }
    }

    fn nonce(&self) -> String {
        let mut random = [0; 16];
        self.entropy.fill(&mut random);
        self.nonce_key.mint(BASE, self.now, random)
    }

    fn with_terms<T>(
        &mut self,
        act: impl FnOnce(&mut Directory, &Terms<'_>, &SeededEntropy) -> T,
    ) -> T {
        let identifier = self.identifier();
        let terms = Terms {
            base: BASE,
            identifier: &identifier,
            serial: self.serial.as_ref(),
            se_public_key: self.se_public_key,
            open: self.open,
            expires_at: Timestamp::from_millis(ISSUED_MS + 3_600_000),
            anchors: &self.anchors,
            known: &self.known,
            nonce_key: &self.nonce_key,
            now: self.now,
        };
        let result = act(&mut self.directory, &terms, &self.entropy);
        // As the store would.
        let kept = serde_json::to_string(&self.directory).expect("JSON");
        let directory: Directory = serde_json::from_str(&kept).expect("reads back");
        assert_eq!(directory, self.directory);
        self.directory = directory;
        result
    }

    /// Posts a body; what did not change must be as it was.
    fn post(&mut self, route: Route, body: &[u8]) -> Outcome {
        let before = self.directory.clone();
        let request = Request {
            route,
            content_type: Some(JOSE),
            body,
        };
        let outcome =
            self.with_terms(|directory, terms, entropy| directory.post(&request, terms, entropy));
        assert_eq!(outcome.changed, self.directory != before);
        outcome
    }

    /// Makes the certificate that was asked for, as the flow does.
    fn issue(&mut self, issue: &Issue) -> Reply {
        let authority = TestKey::p256();
        let ca = self_signed(&authority, "Device CA");
        let leaf = issued_with(&TestKey::p384(), SERIAL, &authority, "Device CA", |_| {});
        let order = issue.order;
        self.with_terms(|directory, terms, _| {
            directory.issued(order, &leaf.certificate(), &ca.certificate(), terms)
        })
    }

    /// The token of an order's challenge, from where the client reads it.
    fn token(&mut self, client: &Client, order: u32) -> String {
        let authorization = client.read(self, Route::Authorization(order));
        authorization["challenges"][0]["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// What Apple gives a Mac with this key for this token.
    fn attestation(&self, key: &TestKey, token: &str) -> Vec<u8> {
        self.attestation_of(
            &state(SERIAL).properties(Some(&sha256(token.as_bytes()))),
            key,
        )
    }

    fn attestation_of(&self, properties: &[LeafProperty], key: &TestKey) -> Vec<u8> {
        let chain = self
            .apple
            .issue(&key.key, properties, self.now.millis())
            .expect("OpenSSL");
        object(&[&chain.leaf, &chain.intermediate])
    }
}

fn state(serial: &str) -> AttestedState {
    AttestedState {
        serial: serial.into(),
        provisioning_udid: "00006040-001A2B3C4D5E801C".into(),
        software_update_device_id: "J773sAP".into(),
        os_version: "26.6.2".into(),
        sepos_version: "26.6".into(),
        llb_version: "26.5".into(),
        boot: BootPolicy::default(),
    }
}

/// An attestation object in CBOR.
fn object(certificates: &[&[u8]]) -> Vec<u8> {
    let mut object = b"\xa2\x63fmt\x65apple\x67attStmt\xa1\x63x5c".to_vec();
    object.push(0x80 | u8::try_from(certificates.len()).expect("few"));
    for certificate in certificates {
        object.push(0x59);
        let length = u16::try_from(certificate.len()).expect("small");
        object.extend_from_slice(&length.to_be_bytes());
        object.extend_from_slice(certificate);
    }
    object
}

/// A request of an order's key, as `openssl` or a Mac would make it.
fn csr(key: &TestKey) -> Vec<u8> {
    let subject = compose(&[(oid::COMMON_NAME, "whatever the Mac likes")]);
    csr::build(&Name::parse(&subject).expect("name"), key).expect("built")
}

/// A client with its account key.
struct Client {
    key: TestKey,
    account: u32,
}

impl Client {
    /// A client that has no account yet.
    fn stranger() -> Self {
        Self {
            key: TestKey::p256(),
            account: 0,
        }
    }

    /// A client with an account.
    fn register(scene: &mut Scene) -> Self {
        let mut client = Self::stranger();
        let reply = client.new_account(scene, &json!({"termsOfServiceAgreed": true}));
        assert_eq!(reply.status, 201);
        let number = reply.location.expect("a Location");
        let number = number.rsplit('/').next().expect("a number");
        client.account = number.parse().expect("a number");
        client
    }

    fn new_account(&self, scene: &mut Scene, payload: &Value) -> Reply {
        let header = json!({
            "alg": "ES256",
            "jwk": self.jwk(),
            "nonce": scene.nonce(),
            "url": Route::NewAccount.url(BASE),
        });
        let body = self.sign(&header, &payload.to_string());
        answer(scene.post(Route::NewAccount, &body))
    }

    fn jwk(&self) -> Value {
        let spki = self.key.public_key_spki();
        let point = &spki[spki.len() - 64..];
        json!({"crv": "P-256", "kty": "EC", "x": b64(&point[..32]), "y": b64(&point[32..])})
    }

    /// The header of an ordinary request.
    fn header(&self, scene: &Scene, route: Route) -> Value {
        json!({
            "alg": "ES256",
            "kid": Route::Account(self.account).url(BASE),
            "nonce": scene.nonce(),
            "url": route.url(BASE),
        })
    }

    fn sign(&self, header: &Value, payload: &str) -> Vec<u8> {
        sign(&self.key.key, &header.to_string(), payload)
    }

    /// Asks with a payload; an empty one is a POST-as-GET.
    fn ask(&self, scene: &mut Scene, route: Route, payload: &str) -> Outcome {
        let body = self.sign(&self.header(scene, route), payload);
        scene.post(route, &body)
    }

    fn post(&self, scene: &mut Scene, route: Route, payload: &Value) -> Reply {
        answer(self.ask(scene, route, &payload.to_string()))
    }

    fn get(&self, scene: &mut Scene, route: Route) -> Reply {
        answer(self.ask(scene, route, ""))
    }

    /// The JSON of a resource.
    fn read(&self, scene: &mut Scene, route: Route) -> Value {
        let reply = self.get(scene, route);
        assert_eq!(reply.status, 200);
        body(&reply)
    }

    fn new_order(&self, scene: &mut Scene) -> u32 {
        let wish = json!({"identifiers": [
            {"type": "permanent-identifier", "value": scene.identifier()}
        ]});
        let reply = self.post(scene, Route::NewOrder, &wish);
        assert_eq!(reply.status, 201, "{}", body(&reply));
        let location = reply.location.expect("a Location");
        location
            .rsplit('/')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }

    fn attest(&self, scene: &mut Scene, order: u32, object: &[u8]) -> Outcome {
        let payload = json!({ "attObj": b64(object) }).to_string();
        self.ask(scene, Route::Challenge(order), &payload)
    }

    /// An order whose challenge is valid, and the attested key.
    fn ready_order(&self, scene: &mut Scene) -> (u32, TestKey) {
        let order = self.new_order(scene);
        let key = TestKey::p384();
        let token = scene.token(self, order);
        let object = scene.attestation(&key, &token);
        let outcome = self.attest(scene, order, &object);
        assert!(matches!(outcome.act, Act::Attested(..)), "{outcome:?}");
        (order, key)
    }

    fn finalize(&self, scene: &mut Scene, order: u32, csr: &[u8]) -> Outcome {
        let payload = json!({ "csr": b64(csr) }).to_string();
        self.ask(scene, Route::Finalize(order), &payload)
    }

    /// What authorization, challenge and order say their status is.
    fn statuses(&self, scene: &mut Scene, order: u32) -> [String; 3] {
        let authorization = self.read(scene, Route::Authorization(order));
        let challenge = self.read(scene, Route::Challenge(order));
        let order = self.read(scene, Route::Order(order));
        assert_eq!(authorization["challenges"][0], challenge);
        [challenge, authorization, order].map(|one| one["status"].as_str().expect("one").to_owned())
    }
}

/// A flattened JWS over header and payload as they are given.
fn sign(key: &PKeyRef<Private>, header: &str, payload: &str) -> Vec<u8> {
    let signed = format!("{}.{}", b64(header), b64(payload));
    let signature = es256(key, &signed);
    json!({
        "payload": b64(payload),
        "protected": b64(header),
        "signature": b64(signature),
    })
    .to_string()
    .into_bytes()
}

/// RFC 7518 section 3.4: both numbers, 32 bytes each.
fn es256(key: &PKeyRef<Private>, signed: &str) -> Vec<u8> {
    let mut signer = openssl::sign::Signer::new(MessageDigest::sha256(), key).expect("OpenSSL");
    let der = signer
        .sign_oneshot_to_vec(signed.as_bytes())
        .expect("signed");
    let signature = EcdsaSig::from_der(&der).expect("a signature");
    let number = |number: &openssl::bn::BigNumRef| number.to_vec_padded(32).expect("32 bytes");
    [number(signature.r()), number(signature.s())].concat()
}

/// The reply of an outcome that asks for nothing else.
fn answer(outcome: Outcome) -> Reply {
    match outcome.act {
        Act::Answer(reply) => reply,
        other => panic!("{other:?}"),
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).expect("JSON")
}

/// The reply must be this problem, with this status.
#[track_caller]
fn refused(reply: &Reply, status: u16, kind: &str, reason: Reason) {
    let body = body(reply);
    assert_eq!(
        (reply.status, body["type"].as_str()),
        (
            status,
            Some(format!("urn:ietf:params:acme:error:{kind}").as_str())
        ),
        "{body}"
    );
    assert_eq!(body["status"], json!(status));
    assert!(body["detail"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(reply.content_type, Some("application/problem+json"));
    assert_eq!(reply.links[0].rel, "index");
    let refused = reply.refused.as_ref().expect("a refusal");
    assert_eq!(refused.reason, reason, "{}", refused.detail);
}

#[test]
fn a_mac_gets_its_certificate_in_nine_requests() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let order = client.new_order(&mut scene);
    assert_eq!(
        client.statuses(&mut scene, order),
        ["pending", "pending", "pending"]
    );
    let key = TestKey::p384();
    let token = scene.token(&client, order);
    let attestation = scene.attestation(&key, &token);
    let Act::Attested(attested, reply) = client.attest(&mut scene, order, &attestation).act else {
        panic!("the attestation is genuine");
    };
    assert_eq!(
        (reply.status, &body(&reply)["status"]),
        (200, &json!("valid"))
    );
    assert_eq!(body(&reply)["validated"], json!("2026-10-01T09:30:07Z"));
    assert_eq!(
        reply.links[1].to_string(),
        format!("<{BASE}/authz/1>;rel=\"up\"")
    );
    assert_eq!(attested.serial.as_str(), SERIAL);
    assert_eq!(attested.spki, key.public_key_spki());
    assert_eq!(attested.token.token(), token);
    assert_eq!(attested.statement.sip_enabled, Some(true));
    assert_eq!(
        object(
            &attested
                .evidence()
                .certificates
                .iter()
                .map(Vec::as_slice)
                .collect::<Vec<_>>()
        ),
        attestation
    );
    assert_eq!(
        client.statuses(&mut scene, order),
        ["valid", "valid", "ready"]
    );

    let request = csr(&key);
    let Act::Issue(issue) = client.finalize(&mut scene, order, &request).act else {
        panic!("the order is ready");
    };
    assert_eq!((issue.order, &issue.attested), (order, attested.as_ref()));
    assert_eq!(issue.csr, request);
    assert_eq!(client.statuses(&mut scene, order)[2], "ready");

    let reply = scene.issue(&issue);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.location, Some(Route::Order(order).url(BASE)));
    let view = client.read(&mut scene, Route::Order(order));
    assert_eq!(view, body(&reply));
    assert_eq!(view["status"], json!("valid"));
    assert_eq!(
        view["certificate"],
        json!(Route::Certificate(order).url(BASE))
    );
    let reply = client.get(&mut scene, Route::Certificate(order));
    assert_eq!(
        reply.content_type,
        Some("application/pem-certificate-chain")
    );
    let chain = crate::pki::read_certificates(&reply.body).expect("PEM");
    let names: Vec<_> = chain
        .iter()
        .map(|one| one.certificate().subject().to_string())
        .collect();
    assert_eq!(names, [format!("CN={SERIAL}"), "CN=Device CA".to_owned()]);
}

#[test]
fn a_ticket_without_a_serial_number_takes_it_from_apple() {
    let mut scene = Scene::unbound();
    let client = Client::register(&mut scene);
    let order = client.new_order(&mut scene);
    let view = client.read(&mut scene, Route::Order(order));
    assert_ne!(view["identifiers"][0]["value"], json!(SERIAL));
    let token = scene.token(&client, order);
    let object = scene.attestation(&TestKey::p256(), &token);
    let Act::Attested(attested, _) = client.attest(&mut scene, order, &object).act else {
        panic!("the attestation is genuine");
    };
    assert_eq!(attested.serial.as_str(), SERIAL);
}

#[test]
fn the_token_commits_to_the_key_that_the_ticket_names() {
    let mut scene = Scene::new();
    scene.se_public_key = Some("BKeyOfTheProvider");
    let client = Client::register(&mut scene);
    let (order, key) = client.ready_order(&mut scene);
    let Act::Issue(issue) = client.finalize(&mut scene, order, &csr(&key)).act else {
        panic!("the order is ready");
    };
    assert_eq!(issue.attested.token.se_public_key, "BKeyOfTheProvider");
    assert_eq!(issue.attested.token.token(), scene.token(&client, order));
}

#[test]
fn what_is_kept_and_what_is_logged_do_not_hold_the_secret() {
    let mut scene = Scene::new();
    let client = Client::register(&mut scene);
    let route = Route::Order(client.new_order(&mut scene));
    let signed = client.sign(&client.header(&scene, route), "");
    let request = Request {
        route,
        content_type: Some(JOSE),
        body: &signed,
    };
    let shown = scene.with_terms(|directory, terms, entropy| {
        let outcome = directory.post(&request, terms, entropy);
        let kept = serde_json::to_string(directory).expect("JSON");
        format!("{outcome:?} {terms:?} {request:?} {directory:?} {kept}")
    });
    let (_, secret) = BASE.rsplit_once('/').expect("a secret");
    assert!(!shown.contains(secret), "{shown}");
}
