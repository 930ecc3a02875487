//! `POST /ssf/poll/{stream_id}` (RFC 8936).

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::super::body::Received;
use super::super::problem::Problem;
use super::super::{Internal, MAX_JSON, error};
use super::{READS, admitted, json as answered, not_whole};
use crate::flows::poll_signals::{Polled, poll_signals};
use crate::publication::shared_signals::poll::PollRequest;

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

fn written(polled: Polled) -> Value {
    let sets = polled.sets.into_iter();
    let sets: Map<String, Value> = sets.map(|(jti, token)| (jti, token.into())).collect();
    let mut answer = json!({ "sets": sets });
    if let (true, Some(members)) = (polled.more, answer.as_object_mut()) {
        members.insert("moreAvailable".to_owned(), true.into());
    }
    answer
}
