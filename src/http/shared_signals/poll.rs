//! `POST /ssf/poll/{stream_id}` (RFC 8936).

use std::ops::Not;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::body::Received;
use super::super::problem::Problem;
use super::super::{Internal, MAX_JSON, error};
use super::{READS, admitted, json as answered, not_whole};
use crate::flows::poll_signals::{Polled, poll_signals};
use crate::ids::StreamId;
use crate::publication::shared_signals::poll::PollRequest;

/// Takes tokens, and tells which arrived (RFC 8936).
#[utoipa::path(
    post, path = "/ssf/poll/{stream_id}", tag = "Shared signals",
    security(("receiver" = ["ssf.read"]), ("receiver" = ["ssf.manage"])),
    params(("stream_id" = StreamId, Path)),
    request_body = Option<PollRequest>,
    responses((status = 200, description = "Tokens.", body = Sets), (status = 404, response = Problem)),
)]
pub async fn poll(
    State(internal): State<Internal>,
    headers: HeaderMap,
    Path(stream_id): Path<String>,
    Received(received): Received<MAX_JSON>,
) -> Response {
    let ctx = &internal.ctx;
    let (signals, receiver) = match admitted(ctx, &headers, READS).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let body = match received {
        Ok(body) => body,
        Err(reason) => return not_whole(reason),
    };
    let mut request = match PollRequest::read(&body) {
        Ok(request) => request,
        Err(fault) => return Problem::invalid_request(fault).into_response(),
    };
    // Who finds no place to wait is answered at once, as RFC 8936 lets a transmitter do.
    let place = internal.polls.enter(Some(receiver.receiver_id.clone()));
    request.return_immediately |= place.is_err();
    let stop = &internal.stop;
    match poll_signals(ctx, signals, &receiver, &stream_id, &request, stop).await {
        Ok(Some(polled)) => answered(StatusCode::OK, &written(polled)),
        Ok(None) => Problem::stream_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// Tokens that a receiver takes.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SecurityEventTokens)]
struct Sets {
    /// By their names: compact JWS. In the order in which they were made, for whoever reads them so.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    sets: Map<String, Value>,
    #[serde(rename = "moreAvailable", skip_serializing_if = "Not::not")]
    #[schema(required = false)]
    more_available: bool,
}

fn written(polled: Polled) -> Sets {
    let sets = polled.sets.into_iter();
    Sets {
        sets: sets.map(|(jti, token)| (jti, token.into())).collect(),
        more_available: polled.more,
    }
}
