//! `GET /v1/evidence/{provider_id}`, for anybody.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::conditional::{CONTENT_DIGEST, digest, is_unchanged};
use super::description::Later;
use super::feed::{Peer, read};
use super::problem::Problem;
use super::{Public, error};
use crate::publication::bundle::v1::SealedV1;
use crate::publication::feed::ProviderId;

/// The evidence about one provider of the feed.
#[utoipa::path(
    get, path = "/v1/evidence/{provider_id}", tag = "Evidence",
    params(("provider_id" = ProviderId, Path)),
    responses(
        (status = 200, description = "The bundle.", body = SealedV1, headers(("ETag" = String), ("Cache-Control" = String), ("Content-Digest" = String))),
        (status = 304, description = "As it was."),
        (status = 404, response = Problem),
        (status = 429, response = Later),
    ),
)]
pub async fn bundle(
    State(public): State<Public>,
    peer: Peer,
    headers: HeaderMap,
    Path(provider_id): Path<String>,
) -> Response {
    let document = match read(&public, &peer, &headers).await {
        Ok(document) => document,
        Err(refusal) => return refusal,
    };
    let session_id = ProviderId::parse(&provider_id);
    let session_id = session_id.and_then(|known| document.session_of(&known).cloned());
    let Some(session_id) = session_id else {
        return Problem::provider_not_found().into_response();
    };
    let bundle = match public.ctx.bundles.read(&public.ctx, &session_id).await {
        Ok(Some(bundle)) => bundle,
        Ok(None) => return Problem::provider_not_found().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    let tag = format!("\"{}\"", hex::encode(&bundle.sha256[..16]));
    let mut response = if is_unchanged(&headers, tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        let mut whole = ([(header::CONTENT_TYPE, json)], bundle.body.clone()).into_response();
        let digest = digest(&bundle.sha256);
        whole.headers_mut().insert(CONTENT_DIGEST, digest);
        whole
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    let short = HeaderValue::from_static("public, max-age=10");
    headers.insert(header::CACHE_CONTROL, short);
    let anybody = HeaderValue::from_static("*");
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anybody);
    response
}
