//! What goes back, before it is HTTP.

use std::fmt;

use serde_json::{Value, json};

use super::refusal::{Problem, Refusal};
use super::route::Route;
use crate::reason::Reason;

/// Of JSON resources.
const JSON: &str = "application/json";
/// RFC 8555 section 6.7.
const PROBLEM: &str = "application/problem+json";
/// RFC 8555 section 7.4.2.
const CHAIN: &str = "application/pem-certificate-chain";

/// A reply. To each, whatever it says, the caller adds a Replay-Nonce of its own and
/// `Cache-Control: no-store`. Its URLs hold the ticket's secret, so `Debug` shows none.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// None for a reply without a body.
    pub content_type: Option<&'static str>,
    /// The Location header.
    pub location: Option<String>,
    /// One Link header each.
    pub links: Vec<Link>,
    pub body: Vec<u8>,
    /// Set when the reply is a problem: for counting, and for the owner's progress.
    pub refused: Option<Refused>,
}

/// A Link header (RFC 8288).
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    pub rel: &'static str,
    pub url: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    /// For people who run the service; never anything secret or chosen freely by the client.
    pub detail: String,
}

/// An unsigned request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>;rel=\"{}\"", self.url, self.rel)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rel)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("links", &self.links)
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

/// Answers an unsigned request (RFC 8555 sections 6.3 and 7.2): the directory, or a nonce, which
/// the caller puts into the header.
pub fn read(method: Method, route: Route, base: &str) -> Reply {
    match (route, method) {
        (Route::Directory, _) => Reply::directory(base),
        (Route::NewNonce, Method::Head) => Reply::empty(200, base),
        (Route::NewNonce, Method::Get) => Reply::empty(204, base),
        _ => Reply::refusing(&Refusal::Method, base),
    }
}

impl Reply {
    /// For a path that [`Route::parse`] does not know, whatever the method.
    pub fn no_such_resource(base: &str) -> Self {
        Self::refusing(&Refusal::NotFound, base)
    }

    /// RFC 8555 section 7.1.1. Account keys live for one run of Apple's client and certificates are
    /// withdrawn by operators: there is no keyChange and no revokeCert.
    pub(super) fn directory(base: &str) -> Self {
        let mut reply = Self::json(
            200,
            &json!({
                "newNonce": Route::NewNonce.url(base),
                "newAccount": Route::NewAccount.url(base),
                "newOrder": Route::NewOrder.url(base),
            }),
            base,
        );
        reply.links.clear();
        reply
    }

    pub(super) fn empty(status: u16, base: &str) -> Self {
        Self {
            status,
            content_type: None,
            location: None,
            links: vec![index(base)],
            body: Vec::new(),
            refused: None,
        }
    }

    pub(super) fn json(status: u16, body: &Value, base: &str) -> Self {
        Self {
            content_type: Some(JSON),
            body: body.to_string().into_bytes(),
            ..Self::empty(status, base)
        }
    }

    pub(super) fn chain(pem: &str, base: &str) -> Self {
        Self {
            content_type: Some(CHAIN),
            body: pem.as_bytes().to_vec(),
            ..Self::empty(200, base)
        }
    }

    /// The problem document of a refusal.
    pub fn refusing(refusal: &Refusal, base: &str) -> Self {
        let (problem, status) = refusal.problem();
        let detail = refusal.to_string();
        let mut body = document(problem, status, &detail);
        if problem == Problem::BadSignatureAlgorithm {
            body["algorithms"] = json!(["ES256"]);
        }
        Self {
            content_type: Some(PROBLEM),
            refused: Some(Refused {
                reason: refusal.reason(),
                detail,
            }),
            ..Self::json(status, &body, base)
        }
    }

    pub(super) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// RFC 8555 section 7.5.1: a challenge links to its authorization.
    pub(super) fn below(mut self, url: String) -> Self {
        self.links.push(Link { rel: "up", url });
        self
    }
}

/// The members of every problem document.
pub(super) fn document(problem: Problem, status: u16, detail: &str) -> Value {
    json!({ "type": problem.urn(), "detail": detail, "status": status })
}

/// RFC 8555 section 7.1: on everything but the directory itself.
fn index(base: &str) -> Link {
    Link {
        rel: "index",
        url: Route::Directory.url(base),
    }
}
