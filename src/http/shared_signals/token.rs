//! `POST /ssf/token`: OAuth 2.0 client credentials (RFC 6749 section 4.4).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::super::MAX_JSON;
use super::super::body::Received;
use super::super::error;
use super::{json as answered, not_whole, nowhere};
use crate::flows::Context;
use crate::flows::grant_access::grant_access;
use crate::publication::shared_signals::access::{LIFETIME, NoToken, TokenRequest};

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
            &json!({
                "access_token": granted.token.expose(),
                "token_type": "Bearer",
                "expires_in": LIFETIME.as_secs(),
                "scope": granted.scope.to_string(),
            }),
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
    let object = json!({ "error": refused.as_str(), "error_description": refused.to_string() });
    let mut response = answered(status, &object);
    if is_client {
        let basic = HeaderValue::from_static("Basic realm=\"attestd\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}
