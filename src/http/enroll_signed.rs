//! `POST /v2/enroll`: a provider asks for a profile, and its Secure Enclave key signs for it.
//!
//! The ticket names the key, and nothing else that the caller says: whose account it is, nobody
//! unknown may claim, and the serial number is the Mac's own to say when it enrols. What the Mac can
//! do (`identity`, `hardware`, `os_version`) stands in the query: it is not signed, because it only
//! chooses the profile that has a chance to be installed.

use std::net::SocketAddr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::body::Received;
use super::description::{Later, Octets};
use super::enroll::{Described, attached};
use super::problem::Problem;
use super::{Public, error};
use crate::enrollment::ticket::Bounds;
use crate::flows::deliver_profile::deliver_profile_once;
use crate::provider::enroll_request::{EnrollRequest, MAX_REQUEST};
use crate::reason::Reason;

/// Its name in metrics, and where refusals are kept.
const SURFACE: &str = "enroll_signed";

/// A profile for the Mac of a provider, whose Secure Enclave key signs for it.
#[utoipa::path(
    post, path = "/v2/enroll", tag = "Enrolment",
    params(Described),
    request_body = EnrollRequest,
    responses(
        (status = 200, description = "A signed profile, good for one Mac and one hour.", body = Octets, content_type = "application/x-apple-aspen-config", headers(("Link" = String, description = "Where the progress is told, `rel=status`."), ("Content-Disposition" = String))),
        (status = 409, response = Problem),
        (status = 429, response = Later),
    ),
)]
pub async fn enroll(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    query: Result<Query<Described>, QueryRejection>,
    headers: HeaderMap,
    Received(body): Received<MAX_REQUEST>,
) -> Response {
    let ctx = &public.ctx;
    if !public.enroll_limit.allows(peer.as_deref(), &headers) {
        return Problem::too_often().into_response();
    }
    let protocol = match query {
        Ok(Query(described)) => described.protocol(ctx.settings.identity),
        Err(rejection) => Err(rejection.body_text()),
    };
    let protocol = match protocol {
        Ok(protocol) => protocol,
        Err(fault) => {
            error::count(ctx, SURFACE, Reason::RequestMalformed, "query");
            return Problem::invalid_request(fault).into_response();
        }
    };
    let body = match body {
        Ok(body) => body,
        Err(reason) => return refused(&public, reason, "the body is too large or broke off"),
    };
    // Size, form and time are judged before the signature is.
    let now = ctx.clock.now();
    let request = match EnrollRequest::verify(&body, &ctx.settings.server_id, now) {
        Ok(request) => request,
        Err(refusal) => return refused(&public, refusal.reason(), &refusal.to_string()),
    };
    let bounds = Bounds {
        se_public_key: Some(request.key().text().to_owned()),
        protocol,
        ..Bounds::default()
    };
    match deliver_profile_once(ctx, bounds, request.once()).await {
        Ok(Ok(delivered)) => attached(ctx, delivered),
        Ok(Err(reason)) => refused(&public, reason, "this request was granted before"),
        Err(failure) => error::to_internal(&failure),
    }
}

/// Never 401 or 403: this listener is where Macs are answered, and proxies in front may not tell.
fn refused(public: &Public, reason: Reason, detail: &str) -> Response {
    error::count(&public.ctx, SURFACE, reason, detail);
    let problem = match reason {
        Reason::RequestTooLarge => Problem::request_too_large("4 KiB"),
        Reason::NonceUnusable => Problem::request_repeated(),
        _ => Problem::invalid_request(detail),
    };
    problem.reason(reason).into_response()
}
