//! A receiver of shared signals, as somebody writes one who has read the standards and nothing of ours.

use attestd::ids::DeviceId;
use attestd::publication::event::POSTURE_CHANGED;
use attestd::store::Event;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use super::scene::{Backend, Scene, attestd};

/// Where the transmitter says it is; a proxy leads from there to the internal listener.
pub const SIGNALS: &str = "https://signals.example.org";
pub const COMPLIANCE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";
pub const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
pub const UPDATED: &str = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";
pub const PUSH: &str = "urn:ietf:rfc:8935";
pub const POLL: &str = "urn:ietf:rfc:8936";

/// A server that shares signals.
pub async fn sharing(backend: Backend) -> Scene {
    let table = format!("[shared_signals]\nurl = \"{SIGNALS}\"\ntenant = \"test-fleet\"\n");
    Scene::configured(backend, &table).await
}

/// Runs `attestd receiver`.
pub fn receiver(scene: &Scene, what: &str, arguments: &[&str]) -> std::process::Output {
    let config = scene.config().to_str().expect("a path");
    let common = ["receiver", what, "--insecure-http", "--config", config];
    attestd(&[&common[..], arguments].concat())
}

/// What `attestd receiver list` says of one.
pub fn listed(scene: &Scene, name: &str) -> Value {
    let output = receiver(scene, "list", &["--json"]);
    assert!(output.status.success(), "{output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut all = list["receivers"].as_array().expect("a list").iter();
    all.find(|it| it["name"] == name).cloned().expect(name)
}

/// An answer, read.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub challenge: String,
    pub body: Value,
}

/// A receiver with its credentials.
#[derive(Debug, Clone)]
pub struct SignalsClient {
    pub id: String,
    pub secret: String,
    pub audience: String,
    pub token: String,
    at: String,
    client: Client,
}

impl SignalsClient {
    /// Has an operator make it, and gets a token.
    pub async fn new(scene: &Scene, name: &str, more: &[&str]) -> Self {
        let audience = format!("https://{name}.example.org");
        let arguments = [&[name, "--audience", &audience, "--json"], more].concat();
        let output = receiver(scene, "add", &arguments);
        assert!(output.status.success(), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |name: &str| made[name].as_str().expect(name).to_owned();
        let mut it = Self {
            id: text("client_id"),
            secret: text("client_secret"),
            audience: text("audience"),
            token: String::new(),
            at: scene.api.url.clone(),
            client: Client::new(),
        };
        assert_eq!(made["token_endpoint"], format!("{SIGNALS}/ssf/token"));
        it.renew().await;
        it
    }

    /// Gets another token.
    pub async fn renew(&mut self) {
        let granted = self.grant(&[("grant_type", "client_credentials")]).await;
        assert_eq!(granted.status, 200, "{granted:?}");
        assert_eq!(granted.body["token_type"], "Bearer");
        let token = granted.body["access_token"].as_str().expect("a token");
        token.clone_into(&mut self.token);
    }

    /// Where the receiver gets by an address of the transmitter's.
    pub fn follow(&self, url: &str) -> String {
        let path = url.strip_prefix(SIGNALS).expect("an address of ours");
        format!("{}{path}", self.at)
    }

    /// Asks for a token.
    pub async fn grant(&self, form: &[(&str, &str)]) -> Answer {
        let body = form
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "+")))
            .collect::<Vec<_>>()
            .join("&");
        let request = self
            .client
            .post(format!("{}/ssf/token", self.at))
            .basic_auth(&self.id, Some(&self.secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        read(request.send().await.expect("an answer")).await
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.at);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// Asks something with a body.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path).json(body);
        read(request.send().await.expect("an answer")).await
    }

    /// Asks something without one.
    pub async fn ask(&self, method: Method, path: &str) -> Answer {
        let request = self.request(method, path);
        read(request.send().await.expect("an answer")).await
    }

    /// Makes a stream of changes of compliance; polled where no endpoint is given.
    pub async fn stream(&self, endpoint: Option<&str>) -> Value {
        let mut wanted = json!({ "events_requested": [COMPLIANCE] });
        if let Some(endpoint) = endpoint {
            wanted["delivery"] = json!({
                "method": PUSH, "endpoint_url": endpoint, "authorization_header": "Bearer theirs",
            });
        }
        let made = self.send(Method::POST, "/ssf/stream", &wanted).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body
    }

    /// Polls, and gives back the answer.
    pub async fn poll(&self, stream: &Value, body: &Value) -> Value {
        let url = stream["delivery"]["endpoint_url"].as_str().expect("a URL");
        let request = self.client.post(self.follow(url));
        let request = request.bearer_auth(&self.token).json(body);
        let answer = read(request.send().await.expect("an answer")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// What waits now, as claims in their order, and nothing of it acknowledged.
    pub async fn waiting(&self, stream: &Value) -> Vec<Value> {
        let got = self
            .poll(stream, &json!({ "returnImmediately": true }))
            .await;
        claims(&got)
    }

    /// Takes what waits, as soon as there is something, and acknowledges it.
    pub async fn take(&self, stream: &Value) -> Vec<Value> {
        let got = self.poll(stream, &json!({})).await;
        let names: Vec<_> = got["sets"].as_object().expect("sets").keys().collect();
        let ack = json!({ "ack": names, "maxEvents": 0 });
        self.poll(stream, &ack).await;
        claims(&got)
    }

    /// Asks whether the stream works.
    pub async fn verify(&self, stream: &Value, state: Option<&str>) -> u16 {
        let mut body = json!({ "stream_id": stream["stream_id"] });
        if let Some(state) = state {
            body["state"] = json!(state);
        }
        self.send(Method::POST, "/ssf/verify", &body).await.status
    }

    /// Sets the status.
    pub async fn set_status(&self, stream: &Value, status: &str) -> Answer {
        let body = json!({ "stream_id": stream["stream_id"], "status": status, "reason": "so" });
        self.send(Method::POST, "/ssf/status", &body).await
    }
}

async fn read(answer: Response) -> Answer {
    let header = |name| {
        let value = answer.headers().get(name);
        let text = value.and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
        text.unwrap_or_default().to_owned()
    };
    let (status, kind) = (answer.status().as_u16(), header("content-type"));
    let challenge = header("www-authenticate");
    let bytes = answer.bytes().await.expect("a body");
    Answer {
        status,
        kind,
        challenge,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

/// The tokens of an answer to a poll, read.
pub fn claims(polled: &Value) -> Vec<Value> {
    let sets = polled["sets"].as_object().expect("sets");
    sets.iter()
        .map(|(jti, token)| {
            let claims = part(token.as_str().expect("a token"), 1);
            assert_eq!(claims["jti"], *jti);
            claims
        })
        .collect()
}

/// The header (0) or the claims (1) of a token.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Of claims about a Mac: from what, to what.
pub fn told(claims: &Value) -> (String, String) {
    let event = &claims["events"][COMPLIANCE];
    let text = |name: &str| event[name].as_str().expect(name).to_owned();
    (text("previous_status"), text("current_status"))
}

/// Whether one of these keys signed it, by another library than the server's; with how many bits.
pub fn signed_by(token: &str, keys: &Value) -> Option<u32> {
    let header = part(token, 0);
    let mut keys = keys["keys"].as_array().expect("keys").iter();
    let key = keys.find(|key| key["kid"] == header["kid"] && key["kty"] == "RSA")?;
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(key[name].as_str().expect(name));
        BigNum::from_slice(&bytes.expect("base64url")).expect("a number")
    };
    let rsa = Rsa::from_public_components(number("n"), number("e")).expect("a key");
    let bits = rsa.size() * 8;
    let key = PKey::from_rsa(rsa).expect("a key");
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
    verifier.update(signed.as_bytes()).expect("taken");
    verifier.verify(&signature).expect("judged").then_some(bits)
}

/// The event that a Mac's verdict changed, as its judge writes it.
pub fn verdict(scene: &Scene, device_id: &DeviceId, from: &str, to: &str, reason: &str) -> Event {
    let reasons: Vec<_> = Some(reason)
        .filter(|it| !it.is_empty())
        .into_iter()
        .collect();
    let body = json!({
        "device_id": device_id, "revision": 7, "verdict": to, "previous": from,
        "reasons": reasons, "revocation_epoch": 0,
    });
    Event::new(POSTURE_CHANGED, scene.now(), body)
}

/// Commits such an event.
pub async fn judge(scene: &Scene, device_id: &DeviceId, from: &str, to: &str, reason: &str) {
    let mut tx = scene.ctx().store.write().await.expect("begins");
    let event = verdict(scene, device_id, from, to, reason);
    let appended = tx.append_event_about(Some(device_id), &event).await;
    appended.expect("appended");
    tx.commit().await.expect("commits");
}

/// Some Mac that is enrolled and says nothing.
pub async fn quiet_mac(scene: &Scene) -> DeviceId {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    scene.device_id(&mac).await
}
