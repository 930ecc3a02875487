//! `POST /ssf/token`: OAuth 2.0 client credentials (RFC 6749 section 4.4).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::super::MAX_JSON;
use super::super::body::Received;
use super::super::error;
use super::super::problem::{Details, Problem};
use super::{json as answered, not_whole, nowhere};
use crate::flows::Context;
use crate::flows::grant_access::grant_access;
use crate::publication::shared_signals::access::{LIFETIME, NoToken, TokenForm, TokenRequest};

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = AccessTokenV1)]
struct GrantedV1<'a> {
    access_token: &'a str,
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    scope: String,
}

/// Why there is no token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct NoTokenV1 {
    error: &'static str,
    error_description: String,
}

/// A token for a receiver: OAuth 2.0 client credentials (RFC 6749 section 4.4).
#[utoipa::path(
    post, path = "/ssf/token", tag = "Shared signals",
    security(("client" = []), ()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "A token.", body = GrantedV1),
        (status = 400, description = "No token (RFC 6749 section 5.2), or no whole request.", content((NoTokenV1 = "application/json"), (Details = "application/problem+json"))),
        (status = 401, description = "The client is not known.", body = NoTokenV1, headers(("WWW-Authenticate" = String))),
        (status = 404, response = Problem),
    ),
)]
pub async fn grant(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Received(received): Received<MAX_JSON>,
) -> Response {
    let Some(signals) = &ctx.signals else {
        return nowhere();
    };
    let body = match received {
        Ok(body) => body,
        Err(reason) => return not_whole(reason),
    };
    let form = serde_urlencoded::from_bytes::<Vec<(String, String)>>(&body);
    let authorization = headers.get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap_or_default());
    let request = form
        .map_err(|_| NoToken::InvalidRequest)
        .and_then(|form| TokenRequest::read(&form, authorization));
    let granted = match request {
        Ok(request) => match grant_access(&ctx, signals, &request).await {
            Ok(granted) => granted,
            Err(failure) => return error::to_internal(&failure),
        },
        Err(refused) => Err(refused),
    };
    match granted {
        Ok(granted) => answered(
            StatusCode::OK,
            &GrantedV1 {
                access_token: granted.token.expose(),
                token_type: "Bearer",
                expires_in: LIFETIME.as_secs(),
                scope: granted.scope.to_string(),
            },
        ),
        Err(refused) => refusal(refused),
    }
}

/// RFC 6749 section 5.2.
fn refusal(refused: NoToken) -> Response {
    let is_client = refused == NoToken::InvalidClient;
    let status = match is_client {
        true => StatusCode::UNAUTHORIZED,
        false => StatusCode::BAD_REQUEST,
    };
    let object = NoTokenV1 {
        error: refused.as_str(),
        error_description: refused.to_string(),
    };
    let mut response = answered(status, &object);
    if is_client {
        let basic = HeaderValue::from_static("Basic realm=\"attestd\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}
