//! A receiver of messages about events, on this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::Value;
use tokio::net::TcpListener;

use super::inside::eventually;

/// A message as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub body: Value,
}

/// What is done with a message.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// 400 with an error of RFC 8935.
    Error(&'static str),
    Hang,
    Redirect(String),
}

type Rule = Box<dyn Fn(&Value) -> Reply + Send>;

struct Inner {
    received: Mutex<Vec<Received>>,
    rule: Mutex<Rule>,
}

/// A running receiver; it takes everything until it is told otherwise.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
    pub address: SocketAddr,
}

impl Receiver {
    pub async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = socket.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            received: Mutex::default(),
            rule: Mutex::new(Box::new(|_| Reply::Status(204))),
        });
        let routes = Router::new().fallback(take).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Self { inner, address }
    }

    /// Where messages are posted to.
    pub fn url(&self) -> String {
        format!("http://{}/hook?of=test", self.address)
    }

    /// From now on this is done with messages.
    pub fn reply(&self, rule: impl Fn(&Value) -> Reply + Send + 'static) {
        *self.inner.rule.lock().expect("no panic") = Box::new(rule);
    }

    /// Every message so far, refused ones among them.
    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().expect("no panic").clone()
    }

    /// A text member of the data of every message so far.
    pub fn notes(&self) -> Vec<String> {
        let received = self.received().into_iter();
        let note = |it: Received| it.body["data"]["note"].as_str().map(str::to_owned);
        received.filter_map(note).collect()
    }

    /// Waits until so many messages have arrived.
    pub async fn count(&self, count: usize) -> Vec<Received> {
        let what = format!("{count} messages");
        eventually(&what, || async { self.received().len() >= count }).await;
        self.received()
    }
}

impl Received {
    /// The text of a header.
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("text")
    }

    /// Whether the signature is that of the secret, by another library than the server's.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let encoded = secret.strip_prefix("whsec_").expect("a secret");
        let key = PKey::hmac(&STANDARD.decode(encoded).expect("base64")).expect("a key");
        let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
        let (id, at) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        signer
            .update(format!("{id}.{at}.").as_bytes())
            .expect("signs");
        signer.update(&self.raw).expect("signs");
        let signature = STANDARD.encode(signer.sign_to_vec().expect("signs"));
        self.header("webhook-signature") == format!("v1,{signature}")
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, raw: Bytes) -> Response {
    // A security event token is read for what it claims.
    let body: Value = serde_json::from_slice(&raw)
        .unwrap_or_else(|_| super::signals::part(std::str::from_utf8(&raw).expect("text"), 1));
    let reply = (inner.rule.lock().expect("no panic"))(&body);
    let received = Received {
        headers,
        raw: raw.to_vec(),
        body,
    };
    inner.received.lock().expect("no panic").push(received);
    match reply {
        Reply::Status(status) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        Reply::Error(code) => {
            let error = serde_json::json!({ "err": code, "description": "said the test" });
            (StatusCode::BAD_REQUEST, axum::Json(error)).into_response()
        }
        Reply::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            StatusCode::OK.into_response()
        }
        Reply::Redirect(to) => {
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
    }
}
