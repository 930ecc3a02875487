//! One run against a directory: nine requests, nothing tried twice (apple-protocol 7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, Method};
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::error::{AcmeError, AcmeFault, AcmeStep};
use super::jws::{AccountKey, Named};
use super::settings::AcmeTiming;
use super::statement::ChallengeAnswer;
use crate::ats;

/// How Apple's client calls itself.
pub const USER_AGENT: &str = "com.apple.security.acmeclient/1.0";

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
const IDENTIFIER: &str = "permanent-identifier";
const CHALLENGE: &str = "device-attest-01";

/// What a server answered.
#[derive(Debug, Clone)]
pub struct AcmeAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl AcmeAnswer {
    /// A header's text, or nothing.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, where it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Type and detail of a problem document, for the error's text.
    fn problem(&self) -> String {
        let said = self.json().and_then(|problem| {
            let text = |name: &str| problem.get(name)?.as_str().map(str::to_owned);
            Some(format!(
                ": {} {}",
                text("type")?,
                text("detail").unwrap_or_default()
            ))
        });
        said.unwrap_or_default()
    }
}

/// The three URLs the client takes from a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    new_nonce: String,
    new_account: String,
    new_order: String,
}

/// An order as newOrder gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeOrder {
    /// The Location of newOrder.
    pub url: String,
    /// The first authorization; others are ignored.
    pub authorization: String,
    pub finalize: String,
}

/// The challenge to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub url: String,
    pub token: String,
}

/// What became of a challenge or a finalized order at once. Undecided ones are not polled: the
/// client has paused, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Valid,
    Undecided,
}

/// A run under way: an account made for it alone. Each step is public, so that tests can stop
/// between them, or take another path.
#[derive(Debug)]
pub struct AcmeRun<'a> {
    http: &'a reqwest::Client,
    timing: AcmeTiming,
    deadline: Instant,
    allow_http_loopback: bool,
    directory: Directory,
    account: AccountKey,
    /// The account's URL; empty before newAccount.
    kid: String,
    nonce: String,
}

impl<'a> AcmeRun<'a> {
    /// The first three requests: directory, nonce, account.
    pub async fn begin(
        http: &'a reqwest::Client,
        directory_url: &str,
        timing: AcmeTiming,
        allow_http_loopback: bool,
    ) -> Result<Self, AcmeError> {
        let step = AcmeStep::Directory;
        let mut run = Self {
            http,
            timing,
            deadline: Instant::now() + timing.whole,
            allow_http_loopback,
            directory: Directory {
                new_nonce: String::new(),
                new_account: String::new(),
                new_order: String::new(),
            },
            account: AccountKey::generate().map_err(|error| AcmeFault::from(error).at(step))?,
            kid: String::new(),
            nonce: String::new(),
        };
        run.url_is_good("DirectoryURL", directory_url)
            .map_err(|fault| fault.at(step))?;
        let answer = run.fetch(step, Method::GET, directory_url).await?;
        let read = run.read_directory(&answer);
        run.directory = read.map_err(|fault| fault.at(step))?;
        let new_nonce = run.directory.new_nonce.clone();
        run.fetch(AcmeStep::NewNonce, Method::HEAD, &new_nonce)
            .await?;
        run.new_account().await?;
        Ok(run)
    }

    /// The key of the account.
    pub fn account(&self) -> &AccountKey {
        &self.account
    }

    /// The account's URL.
    pub fn account_url(&self) -> &str {
        &self.kid
    }

    /// The nonce of the next request.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    fn read_directory(&self, answer: &AcmeAnswer) -> Result<Directory, AcmeFault> {
        let found = object(answer)?;
        Ok(Directory {
            new_nonce: self.url_in(&found, "newNonce")?,
            new_account: self.url_in(&found, "newAccount")?,
            new_order: self.url_in(&found, "newOrder")?,
        })
    }

    async fn new_account(&mut self) -> Result<(), AcmeError> {
        let step = AcmeStep::NewAccount;
        let url = self.directory.new_account.clone();
        let payload = json!({ "termsOfServiceAgreed": true }).to_string();
        let answer = self.post(step, &url, &payload).await?;
        let mut read = || {
            let account = object(&answer)?;
            must_be(&account, "valid")?;
            // RFC 8555 7.1.2 demands it, many servers omit it, Apple's client fails without.
            self.url_in(&account, "orders")?;
            self.kid = self.location(&answer)?;
            Ok(())
        };
        read().map_err(|fault: AcmeFault| fault.at(step))
    }

    /// newOrder for one permanent identifier.
    pub async fn new_order(&mut self, client_identifier: &str) -> Result<AcmeOrder, AcmeError> {
        let step = AcmeStep::NewOrder;
        let identifiers = json!([{ "type": IDENTIFIER, "value": client_identifier }]);
        let payload = json!({ "identifiers": identifiers }).to_string();
        let url = self.directory.new_order.clone();
        let answer = self.post(step, &url, &payload).await?;
        let read = || {
            let order = object(&answer)?;
            must_be(&order, "pending")?;
            if order.get("identifiers") != Some(&identifiers) {
                return Err(AcmeFault::OtherIdentifiers);
            }
            let first = order
                .get("authorizations")
                .and_then(|all| all.get(0)?.as_str());
            let authorization = first.ok_or(AcmeFault::Missing("authorizations"))?;
            self.url_is_good("authorizations", authorization)?;
            Ok(AcmeOrder {
                url: self.location(&answer)?,
                authorization: authorization.to_owned(),
                finalize: self.url_in(&order, "finalize")?,
            })
        };
        read().map_err(|fault: AcmeFault| fault.at(step))
    }

    /// Fetches the authorization of an order, for its challenge.
    pub async fn authorization(&mut self, order: &AcmeOrder) -> Result<Challenge, AcmeError> {
        let step = AcmeStep::Authorization;
        let answer = self.post(step, &order.authorization, "").await?;
        let read = || {
            let authorization = object(&answer)?;
            must_be(&authorization, "pending")?;
            let all = authorization.get("challenges").and_then(Value::as_array);
            let challenge = all
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .find(|one| one.get("type").is_some_and(|kind| kind == CHALLENGE))
                .ok_or(AcmeFault::NoChallenge)?;
            let token = text_in(challenge, "token")?.to_owned();
            Ok(Challenge {
                url: self.url_in(challenge, "url")?,
                token,
            })
        };
        read().map_err(|fault: AcmeFault| fault.at(step))
    }

    /// Answers the challenge. Only "invalid" stops the run.
    pub async fn respond(
        &mut self,
        challenge: &Challenge,
        with: &ChallengeAnswer,
    ) -> Result<Standing, AcmeError> {
        self.settle(AcmeStep::Challenge, &challenge.url, &with.payload())
            .await
    }

    /// Sends the certificate request, DER. Only "invalid" stops the run.
    pub async fn finalize(&mut self, order: &AcmeOrder, csr: &[u8]) -> Result<Standing, AcmeError> {
        let payload = json!({ "csr": URL_SAFE_NO_PAD.encode(csr) }).to_string();
        self.settle(AcmeStep::Finalize, &order.finalize, &payload)
            .await
    }

    /// Fetches the order, which must be valid now, for the URL of the certificate.
    pub async fn order(&mut self, order: &AcmeOrder) -> Result<String, AcmeError> {
        let step = AcmeStep::Order;
        let answer = self.post(step, &order.url, "").await?;
        let read = || {
            let order = object(&answer)?;
            must_be(&order, "valid")?;
            self.url_in(&order, "certificate")
        };
        read().map_err(|fault: AcmeFault| fault.at(step))
    }

    /// Fetches the certificate, which must be for this key. What follows the first is ignored.
    pub async fn certificate(&mut self, url: &str, key: &PKey<Private>) -> Result<X509, AcmeError> {
        let step = AcmeStep::Certificate;
        let answer = self.post(step, url, "").await?;
        let read = || {
            let first = X509::from_pem(&answer.body).map_err(|_| AcmeFault::NotACertificate)?;
            if first.public_key()?.public_eq(key) {
                Ok(first)
            } else {
                Err(AcmeFault::OtherKey)
            }
        };
        read().map_err(|fault: AcmeFault| fault.at(step))
    }

    /// A POST whose outcome may be undecided: then a pause instead of polling.
    async fn settle(
        &mut self,
        step: AcmeStep,
        url: &str,
        payload: &str,
    ) -> Result<Standing, AcmeError> {
        let answer = self.post(step, url, payload).await?;
        let status = object(&answer)
            .and_then(|found| text_in(&found, "status").map(str::to_owned))
            .map_err(|fault| fault.at(step))?;
        match status.as_str() {
            "valid" => Ok(Standing::Valid),
            "invalid" => Err(AcmeFault::OtherStatus {
                expected: "valid",
                found: status,
            }
            .at(step)),
            _ => {
                tokio::time::sleep(self.timing.pause).await;
                Ok(Standing::Undecided)
            }
        }
    }

    /// A signed POST under all rules of the client.
    pub async fn post(
        &mut self,
        step: AcmeStep,
        url: &str,
        payload: &str,
    ) -> Result<AcmeAnswer, AcmeError> {
        let named = match step {
            AcmeStep::NewAccount => Named::Key,
            _ => Named::Account(&self.kid),
        };
        let body = self
            .account
            .sign(named, &self.nonce, url, payload)
            .map_err(|error| AcmeFault::from(error).at(step))?;
        let answer = self.post_body(step, url, body).await?;
        let answer = self.with_nonce(step, answer)?;
        match answer.status {
            200 => Ok(answer),
            201 if answer.headers.contains_key(LOCATION) => Ok(answer),
            201 => Err(AcmeFault::NoLocation.at(step)),
            _ => Err(refused(&answer).at(step)),
        }
    }

    /// A POST of any body, whatever the answer: for what the client would never send. A nonce in
    /// the answer is the next request's.
    pub async fn post_body(
        &mut self,
        step: AcmeStep,
        url: &str,
        body: Vec<u8>,
    ) -> Result<AcmeAnswer, AcmeError> {
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(body);
        let answer = self.send(step, request).await?;
        if let Some(nonce) = answer.header(&REPLAY_NONCE) {
            nonce.clone_into(&mut self.nonce);
        }
        Ok(answer)
    }

    async fn fetch(
        &mut self,
        step: AcmeStep,
        method: Method,
        url: &str,
    ) -> Result<AcmeAnswer, AcmeError> {
        let request = self
            .http
            .request(method, url)
            .header(CONTENT_TYPE, "application/json");
        let answer = self.send(step, request).await?;
        let answer = self.with_nonce(step, answer)?;
        match (answer.status, step) {
            (200, _) | (204, AcmeStep::NewNonce) => Ok(answer),
            _ => Err(refused(&answer).at(step)),
        }
    }

    /// Takes the nonce every answer must bring.
    fn with_nonce(&mut self, step: AcmeStep, answer: AcmeAnswer) -> Result<AcmeAnswer, AcmeError> {
        let nonce = answer.header(&REPLAY_NONCE).filter(|text| !text.is_empty());
        let Some(nonce) = nonce else {
            let status = answer.status;
            return Err(AcmeFault::NoReplayNonce { status }.at(step));
        };
        nonce.clone_into(&mut self.nonce);
        Ok(answer)
    }

    async fn send(
        &self,
        step: AcmeStep,
        request: reqwest::RequestBuilder,
    ) -> Result<AcmeAnswer, AcmeError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AcmeFault::TimedOut.at(step));
        }
        let exchange = async {
            let response = request.header(USER_AGENT_HEADER, USER_AGENT).send().await?;
            Ok(AcmeAnswer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: response.bytes().await?,
            })
        };
        match tokio::time::timeout(left.min(self.timing.request), exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(AcmeFault::Unreachable(error).at(step)),
            Err(_late) => Err(AcmeFault::TimedOut.at(step)),
        }
    }

    fn location(&self, answer: &AcmeAnswer) -> Result<String, AcmeFault> {
        let url = answer.header(&LOCATION).ok_or(AcmeFault::NoLocation)?;
        self.url_is_good("Location", url)?;
        Ok(url.to_owned())
    }

    fn url_in(&self, found: &Map<String, Value>, name: &'static str) -> Result<String, AcmeFault> {
        let url = text_in(found, name)?;
        self.url_is_good(name, url)?;
        Ok(url.to_owned())
    }

    fn url_is_good(&self, what: &'static str, url: &str) -> Result<(), AcmeFault> {
        if ats::permits(url, self.allow_http_loopback) {
            Ok(())
        } else {
            Err(AcmeFault::BadUrl {
                what,
                url: url.to_owned(),
            })
        }
    }
}

fn refused(answer: &AcmeAnswer) -> AcmeFault {
    AcmeFault::Refused {
        status: answer.status,
        problem: answer.problem(),
    }
}

fn object(answer: &AcmeAnswer) -> Result<Map<String, Value>, AcmeFault> {
    match answer.json() {
        Some(Value::Object(found)) => Ok(found),
        _ => Err(AcmeFault::NotJson),
    }
}

fn text_in<'a>(found: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, AcmeFault> {
    found
        .get(name)
        .and_then(Value::as_str)
        .ok_or(AcmeFault::Missing(name))
}

fn must_be(found: &Map<String, Value>, expected: &'static str) -> Result<(), AcmeFault> {
    let status = text_in(found, "status")?;
    if status == expected {
        Ok(())
    } else {
        Err(AcmeFault::OtherStatus {
            expected,
            found: status.to_owned(),
        })
    }
}
