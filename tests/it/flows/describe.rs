//! Who programs against this service reads its description (OpenAPI 3.1), and can rely on it: it is the one
//! that is committed, it has every route, and what is answered is what it says.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use attestd::http::{internal_routes, public_routes};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::sign_result::asked_of_others;
use crate::harness::old_coordinator::OldCoordinator;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::provider::Provider as SigningKey;
use crate::harness::scene::{Backend as Kind, Scene, attestd};
use crate::harness::signals::SignalsClient;

const LISTENERS: [(&str, &str); 2] = [
    ("public", "/openapi.json"),
    ("internal", "/internal/v1/openapi.json"),
];

/// Everything that is answered and is no JSON API, besides the pages for people (`web::pages`).
const ELSEWHERE: [(&str, &str, &str); 12] = [
    ("public", "/log/checkpoint", "C2SP tlog-tiles"),
    ("public", "/log/verifier-key", "C2SP tlog-tiles"),
    ("public", "/log/tile/{*path}", "C2SP tlog-tiles"),
    (
        "public",
        "/mdm/checkin",
        "Apple's device management protocol",
    ),
    (
        "public",
        "/mdm/connect",
        "Apple's device management protocol",
    ),
    ("public", "/mdm", "Apple's device management protocol"),
    ("public", "/acme/{secret}/{*path}", "RFC 8555"),
    ("public", "/scep", "RFC 8894"),
    ("public", "/healthz", "plain text"),
    ("internal", "/metrics", "OpenMetrics"),
    ("internal", "/healthz", "plain text"),
    ("internal", "/readyz", "plain text"),
];

fn committed(listener: &str) -> String {
    let file = format!("docs/openapi/{listener}.json");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(file).expect("committed")
}

static INTERNAL: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&committed("internal")).expect("JSON"));
static PUBLIC: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(&committed("public")).expect("JSON"));

/// A server where everything is on that can be.
async fn with_everything(backend: Kind) -> (Plane, OldCoordinator) {
    let relayed = OldCoordinator::new().await;
    let signals = "[shared_signals]\nurl = \"https://signals.example.org\"\ntenant = \"fleet\"\n";
    let tables = format!("{signals}{}", relayed.table());
    (Plane::changed(backend, &[], &tables).await, relayed)
}

/// A request of anybody, or of the coordinator.
fn request(scene: &Scene, listener: &str, method: Method, path: &str) -> RequestBuilder {
    match listener {
        "public" => scene.anybody(method, path),
        _ => scene.api.request(method, path),
    }
}

journey! {
    async fn the_description_that_is_served_is_the_one_that_is_committed_and_printed(backend: Backend) {
        let scene = Scene::new(backend).await;
        for (listener, path) in LISTENERS {
            let served = scene.answer(request(&scene, listener, Method::GET, path)).await;
            assert_eq!((served.status, served.header("content-type")), (200, "application/json"));
            let printed = attestd(&["openapi", listener]);
            let committed = committed(listener);
            let is_committed = [served.text(), String::from_utf8(printed.stdout).expect("text")]
                .iter()
                .all(|text| *text == committed);
            assert!(is_committed, "docs/openapi/{listener}.json is of another build: ./dev openapi writes it");
            assert_eq!(served.json()["openapi"], "3.1.0");
        }
    }
}

journey! {
    async fn every_operation_that_is_described_is_there_and_no_other(backend: Backend) {
        let (plane, _relayed) = with_everything(backend).await;
        for (listener, described) in [("public", &PUBLIC), ("internal", &INTERNAL)] {
            for (path, operations) in described["paths"].as_object().expect("paths") {
                // An id that nobody has: whether a route is there is told by the method alone.
                let place = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
                let place = place.collect::<Vec<_>>().join("/");
                for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE] {
                    if (path.as_str(), &method) == ("/internal/v1/events", &Method::GET) {
                        // It has no end.
                        continue;
                    }
                    let name = method.as_str().to_lowercase();
                    let asked = request(&plane.scene, listener, method, &place);
                    let is_there = asked.send().await.expect("an answer").status() != 405;
                    assert_eq!(is_there, operations.get(&name).is_some(), "{name} {path}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_described_is_listed_with_the_reason() {
    let (_, public) = public_routes();
    let (_, internal) = internal_routes(true);
    let listed = public.listed().iter().map(|it| ("public", it));
    let listed = listed.chain(internal.listed().iter().map(|it| ("internal", it)));
    let listed: BTreeSet<_> = listed
        .map(|(listener, (path, _))| (listener, *path))
        .collect();
    let expected = ELSEWHERE
        .iter()
        .map(|(listener, path, _)| (*listener, *path));
    assert_eq!(listed, expected.collect());
    for (listener, path, why) in ELSEWHERE {
        let of = if listener == "public" {
            public.listed()
        } else {
            internal.listed()
        };
        let said = of.iter().find(|(known, _)| *known == path).expect(path).1;
        assert!(said.contains(why), "{path}: {said}");
    }
}

#[test]
fn a_schema_written_by_hand_names_what_its_reader_knows() {
    let schemas = &INTERNAL["components"]["schemas"];
    let known = |name: &str| {
        let members = schemas[name]["properties"].as_object().expect(name);
        members.keys().cloned().collect::<BTreeSet<_>>()
    };
    let written = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        known("ChallengeRequest"),
        written(&["session", "challenge", "response", "received_at"])
    );
    assert_eq!(
        known("PollRequest"),
        written(&["maxEvents", "returnImmediately", "ack", "setErrs"])
    );
    let reasons = schemas["Reason"]["enum"].as_array().expect("a list");
    assert_eq!(reasons.len(), attestd::reason::Reason::ALL.len());
}

/// Answers as they came, and what their operations are.
#[derive(Default)]
struct Answers(Vec<Value>);

impl Answers {
    /// Asks, and keeps the answer. Only these statuses are meant.
    async fn keep(&mut self, asked: RequestBuilder, status: u16) -> Value {
        let asked = asked.build().expect("a request");
        let (method, path) = (asked.method().to_string(), asked.url().path().to_owned());
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let answer = answer.execute(asked).await.expect("an answer");
        let kind = answer.headers().get("content-type");
        let kind = kind
            .map_or("", |kind| kind.to_str().expect("text"))
            .to_owned();
        let came = answer.status().as_u16();
        let body = answer.text().await.expect("text");
        assert_eq!(came, status, "{method} {path}: {body}");
        let json = serde_json::from_str(&body).unwrap_or_default();
        self.0.push(
            json!({ "method": method, "path": path, "status": came, "type": kind, "body": body }),
        );
        json
    }

    /// Has a validator of other hands compare them with what is described.
    async fn judged_by(self, document: &Value) {
        let asked = json!({ "document": document, "answers": self.0 });
        let faults = asked_of_others("described.py", &asked)
            .await
            .expect("judged");
        assert_eq!(faults, json!([]), "{faults:#}");
    }
}

journey! {
    async fn what_a_coordinator_is_answered_is_what_is_described(backend: Backend) {
        let (plane, _relayed) = with_everything(backend).await;
        let scene = &plane.scene;
        let (mac, _life, provider) = {
            let (mac, life) = plane.mac_of(Some(OWNER)).await;
            let provider = plane.provider_on(&mac);
            (mac, life, provider)
        };
        let mut answers = Answers::default();
        let get = |path: &str| scene.api.request(Method::GET, path);
        let send = |method, path: &str, body: &Value| scene.api.request(method, path).body(body.to_string());
        let operator = scene.api.with_token(scene.token("operator"));
        let change = |path: &str, body: &Value| operator.request(Method::POST, path).body(body.to_string());

        let id = scene.api.device_id(&mac.serial()).await;
        let device = format!("/internal/v1/devices/{id}");
        scene.api.verdict(&mac.serial(), "affirming").await;
        answers.keep(get(&device), 200).await;
        let by_serial = format!("/internal/v1/devices?serial_number={}", mac.serial());
        answers.keep(get(&by_serial), 200).await;
        answers.keep(get(&format!("{device}/posture")), 200).await;
        let signed = get(&format!("{device}/posture")).header("accept", "application/eat+jwt");
        answers.keep(signed, 200).await;
        answers.keep(get("/internal/v1/postures"), 200).await;

        let session = "/internal/v1/bindings/s";
        let registration = provider.binding_request(Some(OWNER)).expect("a request");
        answers.keep(send(Method::PUT, session, &registration), 200).await;
        let issued = json!({ "session": "s" });
        let issued = answers.keep(send(Method::POST, "/internal/v1/challenges", &issued), 201).await;
        answers.keep(send(Method::POST, "/internal/v1/challenges", &json!({ "session": "s" })), 409).await;
        let frame = crate::harness::coordinator::answer(&provider, &issued);
        let response = format!("/internal/v1/challenges/{}/response", issued["challenge_id"].as_str().expect("an id"));
        answers.keep(send(Method::POST, &response, &frame), 200).await;
        answers.keep(get(session), 200).await;
        answers.keep(get(&format!("{device}/trust-headers?session=s")), 200).await;
        answers.keep(change(&format!("{session}/approve"), &json!({})), 200).await;

        let wanted = json!({ "device_id": id, "kinds": ["security_info"] });
        let begun = answers.keep(send(Method::POST, "/internal/v1/verifications", &wanted), 202).await;
        let verification = begun["verification_id"].as_str().expect("an id");
        answers.keep(get(&format!("/internal/v1/verifications/{verification}")), 200).await;

        let release = json!({ "version": "1.2.3", "binary_hash": "ab".repeat(32), "url": "https://r.example.org/a" });
        answers.keep(change("/internal/v1/releases", &release), 200).await;
        let other = json!({ "version": "1.2.4", "binary_hash": "ab".repeat(32) });
        answers.keep(change("/internal/v1/releases", &other), 409).await;
        let withdrawn = json!({ "version": "1.2.3", "reason": "leaks" });
        answers.keep(change("/internal/v1/releases/revoke", &withdrawn), 200).await;
        answers.keep(get("/internal/v1/releases"), 200).await;
        answers.keep(send(Method::POST, "/internal/v1/tickets", &json!({ "account": "b" })), 201).await;
        answers.keep(get("/internal/v1/status"), 200).await;
        answers.keep(operator.request(Method::GET, "/internal/v1/audit"), 200).await;
        answers.keep(change("/internal/v1/clock/accept", &json!({})), 200).await;
        answers.keep(change(&format!("{device}/revoke"), &json!({ "reason": "stolen" })), 200).await;
        answers.keep(get(&format!("{device}/posture")), 200).await;
        answers.keep(change(&format!("{device}/restore"), &json!({})), 200).await;
        answers.keep(scene.api.request(Method::DELETE, session), 204).await;

        // A problem of each kind of status.
        answers.keep(get("/internal/v1/devices?serial=x"), 400).await;
        answers.keep(scene.api.with_token("att_nobodys".to_owned()).request(Method::GET, &device), 401).await;
        answers.keep(scene.api.request(Method::POST, &format!("{device}/revoke")), 403).await;
        answers.keep(get("/internal/v1/devices/dev_nobody"), 404).await;
        answers.keep(send(Method::POST, "/internal/v1/tickets", &json!("x".repeat(70_000))), 413).await;
        answers.judged_by(&INTERNAL).await;
    }
}

journey! {
    async fn what_anybody_is_answered_is_what_is_described(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let mut answers = Answers::default();
        let get = |path: &str| scene.anybody(Method::GET, path);
        answers.keep(get("/v1/providers/attestation"), 200).await;
        let (_mac, _life, _provider) = plane.routed().await;
        scene.pass(std::time::Duration::from_secs(5));
        let feed = answers.keep(get("/v1/providers/attestation"), 200).await;
        let provider = feed["providers"][0]["provider_id"].as_str().expect("an id");
        assert_eq!(feed["providers"][0]["mda_verified"], true, "{feed:#}");
        answers.keep(get(&format!("/v1/providers/{provider}/attestation")), 200).await;
        let bundle = answers.keep(get(&format!("/v1/evidence/{provider}")), 200).await;
        assert!(bundle["tlog_proof"].is_string(), "{bundle:#}");
        let policy = bundle["policy"]["sha256"].as_str().expect("a hash");
        answers.keep(get(&format!("/v1/policies/{policy}")), 200).await;
        answers.keep(get("/.well-known/jwks.json"), 200).await;
        answers.keep(get("/.well-known/jwks-history.json"), 200).await;
        answers.keep(get("/.well-known/ssf-configuration"), 404).await;

        let operator = scene.api.with_token(scene.token("operator"));
        let hash = "cd".repeat(32);
        let release = json!({ "version": "2.0.0", "binary_hash": hash });
        let (status, _) = operator.ask(Method::POST, "/internal/v1/releases", &release).await;
        assert_eq!(status, 200);
        // What is told of releases is at most a second old by the wall's clock.
        crate::harness::inside::eventually("the release", || async {
            scene.answer(get("/v1/releases/latest")).await.status == 200
        })
        .await;
        answers.keep(get("/v1/releases"), 200).await;
        answers.keep(get("/v1/releases/latest"), 200).await;
        answers.keep(get(&format!("/v1/releases/{hash}")), 200).await;
        answers.keep(get("/v1/releases/latest?platform=X"), 400).await;
        answers.keep(get("/v1/releases/x"), 404).await;

        let (_, ticket) = scene.api.ask(Method::POST, "/internal/v1/tickets", &json!({})).await;
        let progress = ticket["progress_id"].as_str().expect("an id");
        answers.keep(get(&format!("/v1/enrollments/{progress}")), 200).await;
        let serial = json!({ "serial_number": "no" });
        answers.keep(scene.anybody(Method::POST, "/v1/enroll").body(serial.to_string()), 400).await;
        let asked = SigningKey::new().asks(&scene.base_url, scene.now());
        let mut forged = asked.clone();
        forged["signature"] = "AA==".into();
        answers.keep(scene.anybody(Method::POST, "/v2/enroll").body(forged.to_string()), 400).await;
        let granted = scene.anybody(Method::POST, "/v2/enroll").body(asked.to_string());
        assert_eq!(scene.answer(granted).await.status, 200);
        answers.keep(scene.anybody(Method::POST, "/v2/enroll").body(asked.to_string()), 409).await;
        answers.judged_by(&PUBLIC).await;
    }
}

journey! {
    async fn what_receivers_and_an_old_coordinator_are_answered_is_what_is_described(backend: Backend) {
        let (plane, mut relayed) = with_everything(backend).await;
        let scene = &plane.scene;
        let (mac, _life) = plane.mac_of(None).await;
        let mut answers = Answers::default();
        let receiver = SignalsClient::new(scene, "r", &[]).await;
        let send = |method, path: &str, body: &Value| receiver.request(method, path).body(body.to_string());
        let token = reqwest::Client::new().post(format!("{}/ssf/token", scene.api.url));
        let token = token.body("grant_type=client_credentials&client_id=x&client_secret=y");
        answers.keep(token, 401).await;
        answers.keep(scene.api.request(Method::POST, "/ssf/token").body("a=1&a=1"), 400).await;
        let wished = json!({ "delivery": { "method": "urn:ietf:rfc:8936" }, "description": "a" });
        let stream = answers.keep(send(Method::POST, "/ssf/stream", &wished), 201).await;
        answers.keep(send(Method::POST, "/ssf/stream", &wished), 409).await;
        let id = stream["stream_id"].as_str().expect("an id");
        answers.keep(receiver.request(Method::GET, "/ssf/stream"), 200).await;
        answers.keep(receiver.request(Method::GET, &format!("/ssf/stream?stream_id={id}")), 200).await;
        answers.keep(send(Method::PATCH, "/ssf/stream", &json!({ "stream_id": id })), 200).await;
        let about = json!({ "stream_id": id, "status": "paused", "reason": "a" });
        answers.keep(send(Method::POST, "/ssf/status", &about), 200).await;
        answers.keep(receiver.request(Method::GET, &format!("/ssf/status?stream_id={id}")), 200).await;
        answers.keep(send(Method::POST, "/ssf/status", &json!({ "stream_id": id, "status": "enabled" })), 200).await;
        answers.keep(send(Method::POST, "/ssf/verify", &json!({ "stream_id": id })), 204).await;
        answers.keep(send(Method::POST, "/ssf/verify", &json!({ "stream_id": id })), 429).await;
        let polled = send(Method::POST, &format!("/ssf/poll/{id}"), &json!({ "returnImmediately": true }));
        let polled = answers.keep(polled, 200).await;
        assert!(polled["sets"].is_object(), "{polled:#}");
        answers.keep(receiver.request(Method::DELETE, &format!("/ssf/stream?stream_id={id}")), 204).await;

        relayed.points_at(scene);
        let ask = |path: &str, body: &Value| relayed.request(Method::POST, path).body(body.to_string());
        let known = json!({ "serial_number": mac.serial() });
        let known = answers.keep(ask("/v1/devices", &known), 200).await;
        let udid = known["devices"][0]["udid"].as_str().expect("a UDID");
        // It has answered everything; with a question the answer depends on whether it is quick.
        answers.keep(relayed.request(Method::GET, &format!("/push/{udid}")), 200).await;
        let wanted = json!({ "udid": udid, "request_type": "SecurityInfo" });
        answers.keep(ask("/v1/commands", &wanted), 201).await;
        answers.keep(ask("/v1/commands", &json!({ "udid": udid, "request_type": "EraseDevice" })), 403).await;
        answers.keep(ask("/v1/devices", &json!({})), 400).await;
        answers.keep(scene.api.request(Method::GET, &format!("/micromdm/push/{udid}")), 401).await;
        answers.judged_by(&INTERNAL).await;

        let mut answers = Answers::default();
        for path in ["/.well-known/ssf-configuration", "/.well-known/oauth-authorization-server"] {
            answers.keep(scene.anybody(Method::GET, path), 200).await;
        }
        answers.judged_by(&PUBLIC).await;
    }
}
