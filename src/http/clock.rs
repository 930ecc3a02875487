//! `POST /internal/v1/clock/accept`, for operators: the clock is right, whatever was seen before.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use super::revocations::note;
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::watch_clock;

pub async fn accept(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::Administer).await {
        return refusal;
    }
    let Ok(body) = body else {
        return Problem::request_too_large("64 KiB").into_response();
    };
    let note = match note(&body) {
        Ok(note) => note,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    match watch_clock::accept(&ctx, &note).await {
        Ok(accepted_at) => no_store(json!({ "accepted_at": accepted_at })),
        Err(failure) => error::to_internal(&failure),
    }
}
