//! `/healthz`: the process runs. `/readyz`: it can do its work. `/metrics`: what it counted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::asker::Asker;
use super::internal::allowed;
use crate::flows::authorize::Act;
use crate::flows::read_status::is_ready;
use crate::flows::{Context, Failure};

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn readyz(State(ctx): State<Arc<Context>>) -> Response {
    match is_ready(&ctx).await {
        Ok(()) => "ready\n".into_response(),
        Err(Failure::Clock(trouble)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "the store cannot be used\n",
            )
                .into_response()
        }
    }
}

pub async fn metrics(State(ctx): State<Arc<Context>>, asker: Asker) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadStatus).await {
        return refusal;
    }
    ctx.metrics.macs_waiting(ctx.wakeups.waiting());
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], ctx.metrics.text()).into_response()
}
