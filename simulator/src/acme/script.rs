//! A listener that answers the client's requests in turn with what a test wrote down beforehand.
//! It knows nothing of ACME.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use openssl::x509::X509Req;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::certs::{self, Issuer};
use crate::clock::{Clock, DAY_MS};

/// One answer. `{url}` in headers and text stands for the listener's address.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Text(String),
    /// A certificate under this issuer for the request last finalized, and one more.
    Issue(Box<Issuer>),
    /// No answer ever.
    Never,
}

impl Answer {
    fn json(status: u16, nonce: &str, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("Replay-Nonce", nonce.to_owned())],
            body: Body::Text(body.to_string()),
        }
    }

    fn at(mut self, location: &str) -> Self {
        self.headers
            .push(("Location", format!("{{url}}{location}")));
        self
    }

    pub(crate) fn without(&mut self, header: &str) {
        self.headers.retain(|(name, _)| *name != header);
    }

    /// Changes a JSON body.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        if let Body::Text(text) = &mut self.body {
            let mut value = serde_json::from_str(text).unwrap();
            change(&mut value);
            *text = value.to_string();
        }
    }
}

/// The nine answers of a run that succeeds, in order.
pub(crate) fn good_run(identifier: &str, token: &str, issuer: &Issuer) -> Vec<Answer> {
    let directory = json!({
        "newNonce": "{url}/new-nonce",
        "newAccount": "{url}/new-account",
        "newOrder": "{url}/new-order",
    });
    let order = json!({
        "status": "pending",
        "identifiers": [{ "type": "permanent-identifier", "value": identifier }],
        "authorizations": ["{url}/authz"],
        "finalize": "{url}/finalize",
    });
    let mut valid = order.clone();
    valid["status"] = "valid".into();
    valid["certificate"] = "{url}/cert".into();
    let challenge = json!({
        "type": "device-attest-01",
        "status": "pending",
        "url": "{url}/challenge",
        "token": token,
    });
    let authorization = json!({
        "status": "pending",
        "challenges": [{ "type": "http-01" }, challenge],
    });
    let account = json!({ "status": "valid", "orders": "{url}/orders" });
    let mut certificate = Answer::json(200, "n8", &json!({}));
    certificate.body = Body::Issue(Box::new(issuer.clone()));
    vec![
        Answer::json(200, "n0", &directory),
        Answer {
            body: Body::Text(String::new()),
            ..Answer::json(204, "n1", &json!({}))
        },
        Answer::json(201, "n2", &account).at("/account"),
        Answer::json(201, "n3", &order).at("/order"),
        Answer::json(200, "n4", &authorization),
        Answer::json(200, "n5", &json!({ "status": "valid" })),
        Answer::json(200, "n6", &valid),
        Answer::json(200, "n7", &valid),
        certificate,
    ]
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub(crate) fn jws(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A member of the JWS, decoded.
    pub(crate) fn decoded(&self, member: &str) -> String {
        let text = self.jws()[member].as_str().unwrap().to_owned();
        String::from_utf8(URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    pub(crate) fn payload(&self) -> Value {
        serde_json::from_str(&self.decoded("payload")).unwrap()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) url: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    /// Answers on 127.0.0.1; after the last answer, 500.
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            answers: Arc::new(Mutex::new(answers.into())),
            seen: Arc::default(),
        };
        let server = script.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let server = server.clone();
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    // A client that goes away early is no failure of the listener.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        script
    }

    pub(crate) fn directory(&self) -> String {
        format!("{}/directory", self.url)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// More answers, after those that are left.
    pub(crate) fn then(&self, answers: Vec<Answer>) {
        self.answers.lock().unwrap().extend(answers);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(Seen {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body,
        });
        let next = self.answers.lock().unwrap().pop_front();
        let Some(answer) = next else {
            return Response::builder()
                .status(500)
                .body(Full::default())
                .unwrap();
        };
        let body = match answer.body {
            Body::Text(text) => text.replace("{url}", &self.url).into_bytes(),
            Body::Issue(issuer) => self.issue(&issuer),
            Body::Never => std::future::pending().await,
        };
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value.replace("{url}", &self.url));
        }
        response.body(Full::new(body.into())).unwrap()
    }

    /// The request of the last finalize.
    pub(crate) fn csr(&self) -> X509Req {
        let seen = self.seen();
        let finalize = seen.iter().rev().find(|one| one.path == "/finalize");
        let csr = finalize.unwrap().payload()["csr"]
            .as_str()
            .unwrap()
            .to_owned();
        X509Req::from_der(&URL_SAFE_NO_PAD.decode(csr).unwrap()).unwrap()
    }

    fn issue(&self, issuer: &Issuer) -> Vec<u8> {
        let csr = self.csr();
        let (ca, now) = (&issuer.identity, Clock::system().now_ms());
        let mut builder = certs::begin(
            csr.subject_name(),
            ca.certificate.subject_name(),
            &csr.public_key().unwrap(),
            now - DAY_MS,
            now + DAY_MS,
        )
        .unwrap();
        builder.sign(&ca.key, certs::digest_for(&ca.key)).unwrap();
        [
            builder.build().to_pem().unwrap(),
            ca.certificate_pem().unwrap(),
        ]
        .concat()
    }
}
