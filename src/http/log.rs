//! The transparency log, for anybody: C2SP `tlog-tiles`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::feed::Peer;
use super::problem::{Problem, not_found};
use super::{Public, error};
use crate::flows::append_to_log::tile as read_tile;
use crate::flows::witness_log::published;
use crate::transparency::Tile;

/// What is full never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const SHORT: HeaderValue = HeaderValue::from_static("public, max-age=5");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `GET /log/checkpoint`: the newest head, with what witnesses signed.
pub async fn checkpoint(State(public): State<Public>, peer: Peer, headers: HeaderMap) -> Response {
    if !public.log_limit.allows(peer.as_deref(), &headers) {
        return Problem::too_often().into_response();
    }
    let Some(log) = &public.ctx.log else {
        return not_found().await.into_response();
    };
    match published(&public.ctx, log).await {
        Ok(Some(head)) => answer(TEXT, SHORT, head.note.clone().into_bytes()),
        Ok(None) => not_found().await.into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// `GET /log/verifier-key`: what heads are checked by. Who is told another one is told of another log, so it is
/// better had from elsewhere, too.
pub async fn verifier_key(State(public): State<Public>) -> Response {
    match &public.ctx.log {
        Some(log) => answer(
            TEXT,
            SHORT,
            format!("{}\n", log.verifier_key()).into_bytes(),
        ),
        None => not_found().await.into_response(),
    }
}

/// `GET /log/tile/…`: hashes or entries.
pub async fn tile(
    State(public): State<Public>,
    peer: Peer,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Response {
    if !public.log_limit.allows(peer.as_deref(), &headers) {
        return Problem::too_often().into_response();
    }
    let (Some(log), Some(tile)) = (&public.ctx.log, Tile::parse(&path)) else {
        return not_found().await.into_response();
    };
    let keep = if tile.is_full() { FOR_EVER } else { SHORT };
    match read_tile(&public.ctx, log, &tile).await {
        Ok(Some(bytes)) => answer(BYTES, keep, bytes),
        Ok(None) => not_found().await.into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

fn answer(kind: HeaderValue, keep: HeaderValue, body: Vec<u8>) -> Response {
    let anybody = HeaderValue::from_static("*");
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, keep),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, anybody),
    ];
    (headers, body).into_response()
}
