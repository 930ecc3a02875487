//! RFC 8555, ACME, and the device-attest draft: the server's side.

mod issuing;
mod messages;
mod resources;

use attestd_sim::Mac;
use attestd_sim::acme::{
    AccountKey, AcmeAnswer, AcmeOrder, AcmeRun, AcmeStep, AcmeTiming, Challenge, ChallengeAnswer,
    Named,
};
use attestd_sim::keys::{KeyKind, generate};
use openssl::pkey::{PKey, Private};
use reqwest::header::{HeaderName, LINK};
use serde_json::{Value, json};

use crate::flows::issue_by_acme::{chain, client};
use crate::harness::scene::{Backend, Scene};

/// What a Mac does in a run of its own, and what no Mac does.
struct Client<'a> {
    run: AcmeRun<'a>,
    /// The directory's URL without its last word.
    base: String,
    identifier: String,
}

impl<'a> Client<'a> {
    /// A client with an account, in the directory of a new profile made for `request`.
    async fn new(scene: &Scene, http: &'a reqwest::Client, request: &str) -> Self {
        let (_, url, identifier) = client(scene, request).await;
        Self::at(http, &url, identifier).await
    }

    async fn at(http: &'a reqwest::Client, url: &str, identifier: String) -> Self {
        let run = AcmeRun::begin(http, url, AcmeTiming::default(), true).await;
        let base = url.strip_suffix("/directory").expect("a directory");
        Self {
            run: run.expect("an account"),
            base: base.to_owned(),
            identifier,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// A client of the same profile with another account.
    async fn another(&self, http: &'a reqwest::Client) -> Self {
        Self::at(http, &self.url("directory"), self.identifier.clone()).await
    }

    /// A request in the name of the account.
    async fn post(&mut self, url: &str, payload: &str) -> AcmeAnswer {
        let named = Named::Account(self.run.account_url());
        let (key, nonce) = (self.run.account(), self.run.nonce());
        let body = key.sign(named, nonce, url, payload).expect("signed");
        self.send(url, body).await
    }

    async fn get(&mut self, url: &str) -> AcmeAnswer {
        self.post(url, "").await
    }

    /// A request with this payload under this protected header, by the account's key.
    async fn under(&mut self, header: &Value, url: &str, payload: &str) -> AcmeAnswer {
        let signed = self.run.account();
        let body = signed.sign_protected(&header.to_string(), payload);
        self.send(url, body.expect("signed")).await
    }

    async fn send(&mut self, url: &str, body: Vec<u8>) -> AcmeAnswer {
        let sent = self.run.post_body(AcmeStep::Order, url, body).await;
        sent.expect("an answer")
    }

    /// newAccount with a key.
    async fn new_account(&mut self, key: &AccountKey, payload: &Value) -> AcmeAnswer {
        let url = self.url("new-account");
        let body = key.sign(Named::Key, self.run.nonce(), &url, &payload.to_string());
        self.send(&url, body.expect("signed")).await
    }

    /// The protected header of the next request to `url`.
    fn header(&self, url: &str) -> Value {
        json!({ "alg": "ES256", "kid": self.run.account_url(), "nonce": self.run.nonce(), "url": url })
    }

    async fn new_order(&mut self) -> AcmeOrder {
        let identifier = self.identifier.clone();
        self.run.new_order(&identifier).await.expect("an order")
    }

    async fn challenge(&mut self, order: &AcmeOrder) -> Challenge {
        self.run.authorization(order).await.expect("a challenge")
    }

    /// An order whose challenge was answered for this key.
    async fn ready(&mut self, scene: &Scene, mac: &Mac, key: &PKey<Private>) -> AcmeOrder {
        let order = self.new_order().await;
        let challenge = self.challenge(&order).await;
        let answer = ChallengeAnswer::Attested(chain(scene, mac, key, &challenge.token));
        self.run.respond(&challenge, &answer).await.expect("valid");
        order
    }

    /// The status of the order, of its authorization and of the challenge.
    async fn statuses(&mut self, order: &AcmeOrder) -> [String; 3] {
        let order_view = body(&self.get(&order.url).await);
        let authorization = body(&self.get(&order.authorization).await);
        let challenge = &authorization["challenges"][0];
        let seen = [&order_view, &authorization, challenge];
        seen.map(|seen| seen["status"].as_str().expect("a status").to_owned())
    }
}

fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().build();
    client.expect("a client")
}

/// A server, an HTTP client and a Mac that can attest.
async fn scene(backend: Backend) -> (Scene, reqwest::Client, Mac) {
    let scene = Scene::configured(backend, "[enrollment]\nidentity = \"acme\"\n").await;
    let mac = scene.honest_mac();
    (scene, http(), mac)
}

fn p384() -> PKey<Private> {
    generate(KeyKind::P384).expect("a key")
}

fn body(answer: &AcmeAnswer) -> Value {
    assert_eq!(answer.status / 100, 2, "{answer:?}");
    answer.json().expect("JSON")
}

fn header<'a>(answer: &'a AcmeAnswer, name: &str) -> &'a str {
    let name: HeaderName = name.parse().expect("a name");
    answer.header(&name).unwrap_or_default()
}

/// The links of an answer that have this relation.
fn links(answer: &AcmeAnswer, relation: &str) -> Vec<String> {
    let all = answer.headers.get_all(LINK).iter();
    let all = all.map(|link| link.to_str().expect("text"));
    let end = format!(">;rel=\"{relation}\"");
    all.filter_map(|link| Some(link.strip_prefix('<')?.strip_suffix(&end)?.to_owned()))
        .collect()
}

/// 6.7: "it SHOULD provide additional information using a problem document".
#[track_caller]
fn assert_problem(answer: &AcmeAnswer, status: u16, kind: &str) {
    let problem = answer.json().unwrap_or_default();
    let told = problem["type"].as_str().unwrap_or_default();
    assert_eq!(
        (answer.status, told),
        (status, &*format!("urn:ietf:params:acme:error:{kind}"))
    );
    assert_eq!(header(answer, "content-type"), "application/problem+json");
    assert_eq!(problem["status"], status);
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert!(!header(answer, "replay-nonce").is_empty());
}
