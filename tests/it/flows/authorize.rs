//! Whoever asks on the internal listener is known by a token, or by the certificate of the connection (RFC 8705,
//! X509-SVID), and may do what the role says.

use std::collections::BTreeMap;
use std::time::Duration;

use attestd_sim::Identity;
use attestd_sim::certs::Issuer;
use attestd_sim::keys::KeyKind;
use openssl::sha::sha256;
use reqwest::{Certificate, Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::administer_push_certificates::told;
use crate::harness::scene::{Backend as Kind, Scene};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const STATUS: &str = "/internal/v1/status";
const DEVICES: &str = "/internal/v1/devices?serial_number=C02XXXXXXXXX";
const COORDINATOR: &str = "spiffe://example.org/coordinator";

/// A server that knows clients by certificates of one authority.
struct Known {
    scene: Scene,
    authority: Issuer,
    people: BTreeMap<&'static str, Identity>,
}

impl Known {
    async fn new(backend: Kind) -> Self {
        let mut scene = Scene::new(backend).await;
        let now = scene.now().millis();
        let authority = Issuer::root("Clients", "Example", KeyKind::P256, now).expect("a root");
        let server = authority.loopback_server(now).expect("a server");
        let keep = |name: &str, pem: Vec<u8>| {
            let path = scene.home.path().join(name);
            std::fs::write(&path, pem).expect("written");
            path.display().to_string()
        };
        let root = keep("clients.pem", authority.certificate_pem().expect("PEM"));
        let certificate = keep("internal.pem", server.certificate_pem().expect("PEM"));
        let key = keep("internal.key", server.key_pem().expect("PEM"));
        let lasting = (now - DAY_MS, now + DAY_MS);
        let mut people = BTreeMap::new();
        let mut issue = |name, uris: &[&str]| {
            let issued = authority.client_with_uris(uris, lasting).expect("a client");
            people.insert(name, issued);
        };
        issue("coordinator", &[COORDINATOR]);
        issue("operator", &[]);
        issue("stranger", &["spiffe://example.org/stranger"]);
        issue("nameless", &[]);
        issue("two names", &[COORDINATOR, "spiffe://example.org/watcher"]);
        issue("no SPIFFE ID", &["https://example.org/coordinator"]);
        issue("watcher", &["spiffe://example.org/watcher"]);
        let pinned = pin(&people["operator"]);
        let lines = format!(
            "tls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\nclient_roots = [\"{root}\"]\n\
             [[internal.clients]]\nname = \"coordinator 1\"\nrole = \"coordinator\"\nspiffe_id = \"{COORDINATOR}\"\n\
             [[internal.clients]]\nname = \"watcher\"\nrole = \"viewer\"\nspiffe_id = \"spiffe://example.org/watcher\"\n\
             [[internal.clients]]\nname = \"Ann\"\nrole = \"operator\"\npublic_key_sha256 = \"{pinned}\"\n"
        );
        scene.reached_inside(&lines).await;
        Self {
            scene,
            authority,
            people,
        }
    }

    /// A client that shows this certificate, or none.
    fn shows(&self, identity: Option<&Identity>) -> Client {
        let root = self.authority.certificate_pem().expect("PEM");
        let root = Certificate::from_pem(&root).expect("a root");
        let client = Client::builder().no_proxy().tls_certs_only([root]);
        let client = match identity {
            None => client,
            Some(identity) => {
                let certificate = identity.certificate_pem().expect("PEM");
                let key = identity.key_pem().expect("PEM");
                let both = [certificate, key].concat();
                client.identity(reqwest::Identity::from_pem(&both).expect("both"))
            }
        };
        client.build().expect("a client")
    }

    fn named(&self, name: &str) -> Client {
        self.shows(Some(&self.people[name]))
    }

    fn get(&self, client: &Client, path: &str) -> RequestBuilder {
        client.request(Method::GET, format!("{}{path}", self.scene.api.url))
    }
}

fn pin(identity: &Identity) -> String {
    let key = identity.key.public_key_to_der().expect("DER");
    hex::encode(sha256(&key))
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

async fn is_refused(answer: Response, status: u16, kind: &str) {
    assert_eq!(answer.status().as_u16(), status);
    let challenge = answer.headers().get("www-authenticate").cloned();
    assert_eq!(challenge.is_some(), status == 401);
    let problem: Value = answer.json().await.expect("a problem");
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
}

journey! {
    async fn who_shows_a_certificate_that_is_known_needs_no_token(backend: Backend) {
        let known = Known::new(backend).await;
        let coordinator = known.named("coordinator");
        for path in [STATUS, DEVICES] {
            assert!(sent(known.get(&coordinator, path)).await.status().is_success(), "{path}");
        }
        is_refused(sent(known.get(&coordinator, "/internal/v1/audit")).await, 403, "forbidden").await;
        let watcher = known.named("watcher");
        assert!(sent(known.get(&watcher, STATUS)).await.status().is_success());
        is_refused(sent(known.get(&watcher, DEVICES)).await, 403, "forbidden").await;
        is_refused(sent(known.get(&watcher, "/internal/v1/events")).await, 403, "forbidden").await;

        // What she changes, the audit log tells of her.
        let operator = known.named("operator");
        let url = format!("{}/internal/v1/clock/accept", known.scene.api.url);
        let accepted = sent(operator.post(url).json(&json!({ "reason": "looked at it" }))).await;
        assert!(accepted.status().is_success());
        let log: Value = sent(known.get(&operator, "/internal/v1/audit?limit=1000")).await.json().await.expect("JSON");
        let last = log["entries"].as_array().and_then(|all| all.last()).expect("an entry").clone();
        let id = format!("sha256:{}", pin(&known.people["operator"]));
        assert_eq!((&last["entry"]["what"], &last["entry"]["who"]),
            (&json!("clock.accept"), &json!({ "kind": "certificate", "name": "Ann", "id": id })));
        let subject = last["entry"]["subject"].as_str().expect("a subject");
        assert_eq!(told(&known.scene, subject).pop().expect("an entry")["who"]["name"], "Ann");

        // A token does as before, and is what counts where there is one.
        let nobody = known.shows(None);
        is_refused(sent(known.get(&nobody, STATUS)).await, 401, "unauthorized").await;
        let token = known.scene.token("auditor");
        assert!(sent(known.get(&nobody, DEVICES).bearer_auth(&token)).await.status().is_success());
        is_refused(sent(known.get(&operator, STATUS).bearer_auth("att_wrong")).await, 401, "unauthorized").await;
        let ticket = operator.post(format!("{}/internal/v1/tickets", known.scene.api.url));
        let refused = sent(ticket.bearer_auth(&token)).await;
        assert_eq!(refused.headers()["www-authenticate"], "Bearer error=\"insufficient_scope\"");
        let problem: Value = refused.json().await.expect("a problem");
        assert_eq!((&problem["status"], &problem["type"]), (&json!(403), &json!("/problems/forbidden")));
    }
}

journey! {
    async fn who_shows_a_certificate_of_nobody_is_told_so(backend: Backend) {
        let known = Known::new(backend).await;
        for name in ["stranger", "nameless", "two names", "no SPIFFE ID"] {
            let client = known.named(name);
            is_refused(sent(known.get(&client, STATUS)).await, 401, "certificate-not-known").await;
            let token = known.scene.token("viewer");
            assert!(sent(known.get(&client, STATUS).bearer_auth(token)).await.status().is_success(), "{name}");
        }
        // Another certificate for a pinned key is as good; another authority's, or one that is over, is no
        // certificate here at all.
        let (now, key) = (known.scene.now().millis(), &known.people["operator"].key);
        let renewed = known.authority.client(&[], key.clone(), now - DAY_MS, now + DAY_MS).expect("a client");
        assert!(sent(known.get(&known.shows(Some(&renewed)), STATUS)).await.status().is_success());
        let other = Issuer::root("Clients", "Example", KeyKind::P256, now).expect("a root");
        let forged = other.client_with_uris(&[COORDINATOR], (now - DAY_MS, now + DAY_MS)).expect("a client");
        let over = known.authority.client_with_uris(&[COORDINATOR], (now - 2 * DAY_MS, now - DAY_MS)).expect("a client");
        let early = known.authority.client_with_uris(&[COORDINATOR], (now + DAY_MS, now + 2 * DAY_MS)).expect("a client");
        for (what, identity) in [("forged", &forged), ("over", &over), ("early", &early)] {
            let outcome = known.get(&known.shows(Some(identity)), STATUS).send().await;
            assert!(outcome.is_err(), "{what}: {outcome:?}");
        }
        // A server's certificate is none of a client.
        let server = known.authority.loopback_server(now).expect("a server");
        assert!(known.get(&known.shows(Some(&server)), STATUS).send().await.is_err());
    }
}

journey! {
    async fn a_connection_outlives_no_certificate(backend: Backend) {
        let known = Known::new(backend).await;
        let client = known.named("coordinator");
        let mut stream = sent(known.get(&client, "/internal/v1/events")).await;
        assert_eq!(stream.status().as_u16(), 200);
        assert!(stream.chunk().await.expect("open").is_some());
        known.scene.pass(Duration::from_secs(25 * 60 * 60));
        is_refused(sent(known.get(&client, STATUS)).await, 401, "certificate-not-known").await;
        // It ends, well or not: who listens is looked at every second.
        while let Ok(Some(_)) = stream.chunk().await {}
    }
}
