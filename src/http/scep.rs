//! `/scep`: RFC 8894 over HTTP.
//!
//! Failures of a transaction are CertReps with status 200: macOS ends the installation of the
//! profile on any other status.

use std::net::SocketAddr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use base64::{DecodeError, Engine as _};
use serde::Deserialize;

use super::body::Received;
use super::{Public, error};
use crate::flows::issue_by_scep::{Reply, SURFACE, issue_by_scep};
use crate::pki::cms::MAX_ATTACHED;
use crate::reason::Reason;
use crate::scep::{CAPABILITIES, CaCertificates, capability};

/// Content type of a CertRep.
const PKI_MESSAGE: &str = "application/x-pki-message";

/// RFC 8894 section 4.1.
#[derive(Debug, Deserialize)]
pub struct Operation {
    operation: Option<String>,
    message: Option<String>,
}

pub async fn get(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    operation: Result<Query<Operation>, QueryRejection>,
) -> Response {
    let operation = match operation {
        Ok(Query(operation)) => operation,
        Err(rejection) => return turned_away(&public, Reason::RequestMalformed, rejection),
    };
    match operation.operation.as_deref() {
        Some("GetCACaps") => (
            [(header::CONTENT_TYPE, capability::CONTENT_TYPE)],
            CAPABILITIES,
        )
            .into_response(),
        Some("GetCACert") => {
            let CaCertificates { content_type, body } = ca_certificates(&public);
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Some("PKIOperation") => match in_query(operation.message.as_deref().unwrap_or_default()) {
            Ok(message) => pki_operation(&public, peer, &headers, &message).await,
            Err(fault) => turned_away(&public, Reason::RequestMalformed, fault),
        },
        _ => turned_away(&public, Reason::MessageUnsupported, "operation"),
    }
}

pub async fn post(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    operation: Result<Query<Operation>, QueryRejection>,
    Received(body): Received<MAX_ATTACHED>,
) -> Response {
    let operation = match operation {
        Ok(Query(operation)) => operation.operation,
        Err(rejection) => return turned_away(&public, Reason::RequestMalformed, rejection),
    };
    let body = match body {
        Ok(body) => body,
        Err(reason) => return turned_away(&public, reason, "body"),
    };
    match operation.as_deref() {
        Some("PKIOperation") => pki_operation(&public, peer, &headers, &body).await,
        _ => turned_away(&public, Reason::MessageUnsupported, "operation"),
    }
}

/// The message in a query, after the form decoder. It turns the plus signs of base64 into spaces
/// where they were not escaped, and some clients break base64 into lines or leave out its padding.
fn in_query(message: &str) -> Result<Vec<u8>, DecodeError> {
    let message = message.replace(' ', "+").replace(['\r', '\n'], "");
    BASE64.decode(message.trim_end_matches('='))
}

fn turned_away(public: &Public, reason: Reason, detail: impl ToString) -> Response {
    error::count(&public.ctx, SURFACE, reason, detail);
    error::refused_to_mac(reason)
}

fn ca_certificates(public: &Public) -> CaCertificates {
    let (authorities, now) = (&public.ctx.authorities, public.ctx.clock.now());
    let registration = authorities.registration(now).held.certificate();
    // Whoever certified it, and no other: clients check the one by the other.
    let authority = authorities.issuer_of(&registration, now);
    CaCertificates::with_registration(&registration, &authority.certificate())
}

async fn pki_operation(
    public: &Public,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: &HeaderMap,
    message: &[u8],
) -> Response {
    if !public.scep_limit.allows(peer.as_deref(), headers) {
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "60")]).into_response();
    }
    match issue_by_scep(&public.ctx, message).await {
        Ok(Reply::CertRep(reply)) => ([(header::CONTENT_TYPE, PKI_MESSAGE)], reply).into_response(),
        Ok(Reply::Refused(reason)) => error::refused_to_mac(reason),
        Err(failure) => error::to_mac(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_a_query_is_read_however_its_base64_was_escaped() {
        let bytes = Ok([0xfb, 0xef, 0xbe, 0xff].to_vec());
        let form = |query: &str| {
            let uri = format!("/scep?{query}").parse().expect("a URI");
            let Query(operation) = Query::<Operation>::try_from_uri(&uri).expect("a query");
            in_query(&operation.message.unwrap_or_default())
        };
        for query in [
            "message=%2B%2B%2B%2B%2Fw%3D%3D",
            "message=++++/w==",
            "message=%2b%2b%2b%2b%2fw%3d%3d",
            "message=++%0D%0A++/w",
            "x=y&message=%2B+%2B+/w==&z",
        ] {
            assert_eq!(form(query), bytes, "{query}");
        }
        for query in [
            "message=----_w==",
            "message=%00",
            "message=A",
            "message=++++/w%09==",
        ] {
            assert!(form(query).is_err(), "{query}");
        }
    }
}
