//! `POST /internal/v1/clock/accept`, for operators: the clock is right, whatever was seen before.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use serde::Serialize;

use super::asker::Asker;
use super::error;
use super::internal::no_store;
use super::revocations::{Note, noted};
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::watch_clock;
use crate::time::Timestamp;

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ClockAcceptedV1)]
struct AcceptedV1 {
    accepted_at: Timestamp,
}

/// The clock is right, whatever was seen before.
#[utoipa::path(
    post, path = "/internal/v1/clock/accept", tag = "Service",
    security(("token" = ["operator"])),
    request_body = Option<Note>,
    responses((status = 200, description = "It is believed.", body = AcceptedV1)),
)]
pub async fn accept(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (note, who) = match noted(&ctx, &asker, Act::Administer, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    match watch_clock::accept(&ctx, &note, &who).await {
        Ok(accepted_at) => no_store(AcceptedV1 { accepted_at }),
        Err(failure) => error::to_internal(&failure),
    }
}
