//! `/acme/{secret}/…`: RFC 8555 over HTTP, a directory for each ticket.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Path, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Public, body, error};
use crate::acme::{self, MAX_BODY, Refusal, Request, Route};
use crate::flows::issue_by_acme::{Answer, Asked, issue_by_acme};
use crate::reason::Reason;

/// RFC 8555 section 6.5.1.
const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");

pub async fn acme(
    State(public): State<Public>,
    Path((secret, path)): Path<(String, String)>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    request: HttpRequest,
) -> Response {
    let (head, body) = request.into_parts();
    if !public.acme_limit.allows(peer.as_deref(), &head.headers) {
        body::discard(body).await;
        let mut response = answer(&public, &secret, Asked::Unreadable(Refusal::Exhausted)).await;
        let wait = HeaderValue::from_static("60");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        return response;
    }
    let Some(route) = Route::parse(&path) else {
        body::discard(body).await;
        return answer(&public, &secret, Asked::Unreadable(Refusal::NotFound)).await;
    };
    let method = match head.method {
        Method::POST => None,
        Method::GET => Some(acme::Method::Get),
        Method::HEAD => Some(acme::Method::Head),
        _ => {
            body::discard(body).await;
            return answer(&public, &secret, Asked::Unreadable(Refusal::Method)).await;
        }
    };
    if let Some(method) = method {
        body::discard(body).await;
        return answer(&public, &secret, Asked::Read(method, route)).await;
    }
    match body::read(body, MAX_BODY).await {
        Ok(body) => {
            let request = Request {
                route,
                content_type: content_type(&head.headers),
                body: body.octets(),
            };
            answer(&public, &secret, Asked::Post(request)).await
        }
        Err(Reason::RequestTooLarge) => {
            answer(&public, &secret, Asked::Unreadable(Refusal::TooLarge)).await
        }
        Err(_) => {
            let broken_off = Refusal::Malformed("the request broke off");
            answer(&public, &secret, Asked::Unreadable(broken_off)).await
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE)?.to_str().ok()
}

async fn answer(public: &Public, secret: &str, asked: Asked<'_>) -> Response {
    match issue_by_acme(&public.ctx, secret, asked).await {
        Ok(answer) => respond(answer),
        Err(failure) => error::to_mac(&failure),
    }
}

fn respond(Answer { reply, nonce }: Answer) -> Response {
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        tracing::error!(reply.status, "a reply with no HTTP status");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut response = (status, reply.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    let mut set = |name: HeaderName, value: &str| match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.append(name, value);
        }
        Err(_) => tracing::error!(header = %name, "a header that cannot be sent"),
    };
    set(REPLAY_NONCE, &nonce);
    set(header::CACHE_CONTROL, "no-store");
    if let Some(kind) = reply.content_type {
        set(header::CONTENT_TYPE, kind);
    }
    if let Some(location) = &reply.location {
        set(header::LOCATION, location);
    }
    for link in &reply.links {
        set(header::LINK, &link.to_string());
    }
    response
}
