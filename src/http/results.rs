//! What outsiders check signed results with: keys, former keys, policies.

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::conditional::{CONTENT_DIGEST, digest};
use super::problem::{self, Problem};
use super::{Public, error};
use crate::flows::Failure;
use crate::flows::sign_result::known;
use crate::publication::keyring::{History, KEPT, KeySet, history, key_set};

/// A policy never changes under its hash.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The keys by which signed results are checked (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "Keys and policies",
    responses((status = 200, description = "The keys.", body = KeySet, content_type = "application/jwk-set+json", headers(("Cache-Control" = String)))),
)]
pub async fn jwks(State(state): State<Public>) -> Response {
    let now = state.ctx.clock.now();
    let known = known(&state.ctx).await;
    answer(known.map(|known| serde_json::to_vec(&key_set(&known.keys, now))))
}

/// Every key there ever was, for whoever checks an old result.
#[utoipa::path(
    get, path = "/.well-known/jwks-history.json", tag = "Keys and policies",
    responses((status = 200, description = "The keys.", body = History, content_type = "application/jwk-set+json", headers(("Cache-Control" = String)))),
)]
pub async fn jwks_history(State(state): State<Public>) -> Response {
    let known = known(&state.ctx).await;
    answer(known.map(|known| serde_json::to_vec(&history(&known.keys))))
}

fn answer(written: Result<serde_json::Result<Vec<u8>>, Failure>) -> Response {
    let body = match written {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Problem::internal().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    let kept = format!("public, max-age={}", KEPT.as_secs());
    let key_set = HeaderValue::from_static("application/jwk-set+json");
    let mut response = ([(header::CONTENT_TYPE, key_set)], body).into_response();
    if let Ok(kept) = HeaderValue::from_str(&kept) {
        response.headers_mut().insert(header::CACHE_CONTROL, kept);
    }
    response
}

/// The text of a policy that results were judged by.
#[utoipa::path(
    get, path = "/v1/policies/{sha256}", tag = "Keys and policies",
    params(("sha256" = String, Path)),
    responses(
        (status = 200, description = "TOML. It never changes.", body = String, content_type = "application/toml", headers(("Cache-Control" = String), ("Content-Digest" = String))),
        (status = 404, response = Problem),
    ),
)]
pub async fn policy(State(state): State<Public>, Path(sha256): Path<String>) -> Response {
    match known(&state.ctx).await {
        Ok(known) => {
            let Some(text) = known.policies.get(&sha256.to_ascii_lowercase()) else {
                return problem::not_found().await.into_response();
            };
            let toml = HeaderValue::from_static("application/toml");
            let digest = digest(&crate::ids::sha256(text.as_bytes()));
            let headers = [
                (header::CONTENT_TYPE, toml),
                (header::CACHE_CONTROL, FOR_EVER),
                (HeaderName::from_static(CONTENT_DIGEST), digest),
            ];
            (headers, text.clone()).into_response()
        }
        Err(failure) => error::to_internal(&failure),
    }
}
