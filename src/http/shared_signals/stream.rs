//! `/ssf/stream`, `/ssf/status`, `/ssf/subjects:…`, `/ssf/verify`: a receiver and its stream.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::super::MAX_JSON;
use super::super::body::Received;
use super::super::description::Later;
use super::super::problem::Problem;
use super::{MANAGES, READS, admitted, answer, json, not_whole};
use crate::flows::Context;
use crate::flows::manage_stream::{self, Manner};
use crate::flows::transmit_signals::Signals;
use crate::publication::shared_signals::Malformed;
use crate::publication::shared_signals::receiver::Receiver;
use crate::publication::shared_signals::stream::{About, Configuration, Request, StatusShown};

type Shared = State<Arc<Context>>;
type Raw = Received<MAX_JSON>;
type Asked = Result<Query<Which>, QueryRejection>;

/// The stream that is meant.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    stream_id: Option<String>,
}

/// The stream that was named, or all that there are.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = StreamOrStreams)]
enum OneOrAll {
    One(Configuration),
    All(Vec<Configuration>),
}

/// A request that changes something, read, and who sent it.
struct Call<'a, T> {
    signals: &'a Signals,
    receiver: Receiver,
    request: T,
}

async fn call<'a, T>(
    ctx: &'a Context,
    headers: &HeaderMap,
    Received(received): Raw,
    read: fn(&[u8]) -> Result<T, Malformed>,
) -> Result<Call<'a, T>, Response> {
    let (signals, receiver) = admitted(ctx, headers, MANAGES).await?;
    let body = received.map_err(not_whole)?;
    let request = read(&body).map_err(|fault| malformed(&fault))?;
    Ok(Call {
        signals,
        receiver,
        request,
    })
}

fn malformed(fault: &Malformed) -> Response {
    Problem::invalid_request(fault).into_response()
}

/// The id in the query, which must be there; or what is wrong.
fn id_of(asked: Asked) -> Result<String, String> {
    let Query(which) = asked.map_err(|rejection| rejection.body_text())?;
    let missing = || "stream_id is missing".to_owned();
    which.stream_id.ok_or_else(missing)
}

fn nothing(status: StatusCode) -> impl FnOnce(()) -> Response {
    move |()| status.into_response()
}

/// Makes the receiver's stream.
#[utoipa::path(
    post, path = "/ssf/stream", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = Request,
    responses((status = 201, description = "The stream.", body = Configuration), (status = 409, response = Problem), (status = 404, response = Problem)),
)]
pub async fn create(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    match call(&ctx, &headers, raw, Request::read).await {
        Ok(it) => {
            let made = manage_stream::create(&ctx, it.signals, &it.receiver, &it.request).await;
            answer(made, |made| json(StatusCode::CREATED, &made))
        }
        Err(refusal) => refusal,
    }
}

/// The receiver's stream.
#[utoipa::path(
    get, path = "/ssf/stream", tag = "Shared signals",
    security(("receiver" = ["ssf.read"]), ("receiver" = ["ssf.manage"])),
    params(Which),
    responses((status = 200, description = "The stream that is named, or all: one or none.", body = OneOrAll), (status = 404, response = Problem)),
)]
pub async fn read(State(ctx): Shared, headers: HeaderMap, asked: Asked) -> Response {
    let (signals, receiver) = match admitted(&ctx, &headers, READS).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let id = match asked {
        Ok(Query(which)) => which.stream_id,
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let found = manage_stream::read(&ctx, &receiver, id.as_deref()).await;
    answer(found, |stream| {
        let shown = stream.map(|stream| stream.configuration(&signals.transmitter));
        match (shown, id) {
            (Some(one), Some(_)) => json(StatusCode::OK, &OneOrAll::One(one)),
            (all, _) => json(StatusCode::OK, &OneOrAll::All(Vec::from_iter(all))),
        }
    })
}

/// Changes the stream: what is not said stays.
#[utoipa::path(
    patch, path = "/ssf/stream", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = Request,
    responses((status = 200, description = "The stream.", body = Configuration), (status = 404, response = Problem)),
)]
pub async fn update(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    change(&ctx, &headers, raw, Manner::Update).await
}

/// Replaces the stream: what is not said is not wished for.
#[utoipa::path(
    put, path = "/ssf/stream", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = Request,
    responses((status = 200, description = "The stream.", body = Configuration), (status = 404, response = Problem)),
)]
pub async fn replace(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    change(&ctx, &headers, raw, Manner::Replace).await
}

async fn change(ctx: &Context, headers: &HeaderMap, raw: Raw, manner: Manner) -> Response {
    match call(ctx, headers, raw, Request::read).await {
        Ok(it) => {
            let Call {
                signals,
                receiver,
                request,
            } = it;
            let changed = manage_stream::change(ctx, signals, &receiver, &request, manner).await;
            answer(changed, |changed| json(StatusCode::OK, &changed))
        }
        Err(refusal) => refusal,
    }
}

/// Ends the stream.
#[utoipa::path(
    delete, path = "/ssf/stream", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    params(Which),
    responses((status = 204, description = "It is gone."), (status = 404, response = Problem)),
)]
pub async fn delete(State(ctx): Shared, headers: HeaderMap, asked: Asked) -> Response {
    let receiver = match admitted(&ctx, &headers, MANAGES).await {
        Ok((_, receiver)) => receiver,
        Err(refusal) => return refusal,
    };
    let id = match id_of(asked) {
        Ok(id) => id,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let deleted = manage_stream::delete(&ctx, &receiver, &id).await;
    answer(deleted, nothing(StatusCode::NO_CONTENT))
}

/// Whether tokens are sent.
#[utoipa::path(
    get, path = "/ssf/status", tag = "Shared signals",
    security(("receiver" = ["ssf.read"]), ("receiver" = ["ssf.manage"])),
    params(Which),
    responses((status = 200, description = "The status.", body = StatusShown), (status = 404, response = Problem)),
)]
pub async fn read_status(State(ctx): Shared, headers: HeaderMap, asked: Asked) -> Response {
    let receiver = match admitted(&ctx, &headers, READS).await {
        Ok((_, receiver)) => receiver,
        Err(refusal) => return refusal,
    };
    let id = match id_of(asked) {
        Ok(id) => id,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let found = manage_stream::read(&ctx, &receiver, Some(&id)).await;
    answer(found, |stream| {
        let status = stream.map(|stream| stream.status());
        json(StatusCode::OK, &status)
    })
}

/// Enables, pauses or disables the stream.
#[utoipa::path(
    post, path = "/ssf/status", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = About,
    responses((status = 200, description = "The status.", body = StatusShown), (status = 404, response = Problem)),
)]
pub async fn set_status(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    let it = match call(&ctx, &headers, raw, About::read).await {
        Ok(it) => it,
        Err(refusal) => return refusal,
    };
    let status = match it.request.status() {
        Ok(status) => status,
        Err(fault) => return malformed(&fault),
    };
    let id = &it.request.stream_id;
    let set = manage_stream::set_status(&ctx, it.signals, &it.receiver, id, status).await;
    answer(set, |status| json(StatusCode::OK, &status))
}

/// Tells of a Mac again.
#[utoipa::path(
    post, path = "/ssf/subjects:add", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = About,
    responses((status = 200, description = "It is told of."), (status = 404, response = Problem)),
)]
pub async fn add_subject(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    include(&ctx, &headers, raw, true).await
}

/// Tells of a Mac no more.
#[utoipa::path(
    post, path = "/ssf/subjects:remove", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = About,
    responses((status = 204, description = "It is not told of."), (status = 404, response = Problem)),
)]
pub async fn remove_subject(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    include(&ctx, &headers, raw, false).await
}

async fn include(ctx: &Context, headers: &HeaderMap, raw: Raw, is_included: bool) -> Response {
    let it = match call(ctx, headers, raw, About::read).await {
        Ok(it) => it,
        Err(refusal) => return refusal,
    };
    let subject = match it.request.subject() {
        Ok(subject) => subject,
        Err(fault) => return malformed(&fault),
    };
    let (signals, id) = (it.signals, &it.request.stream_id);
    let done = manage_stream::include(ctx, signals, &it.receiver, id, &subject, is_included).await;
    let status = match is_included {
        true => StatusCode::OK,
        false => StatusCode::NO_CONTENT,
    };
    answer(done, nothing(status))
}

/// Has a token sent that only shows that the stream works.
#[utoipa::path(
    post, path = "/ssf/verify", tag = "Shared signals",
    security(("receiver" = ["ssf.manage"])),
    request_body = About,
    responses((status = 204, description = "A token is on its way."), (status = 404, response = Problem), (status = 409, response = Problem), (status = 429, response = Later)),
)]
pub async fn verify(State(ctx): Shared, headers: HeaderMap, raw: Raw) -> Response {
    let it = match call(&ctx, &headers, raw, About::read).await {
        Ok(it) => it,
        Err(refusal) => return refusal,
    };
    let state = match it.request.state() {
        Ok(state) => state,
        Err(fault) => return malformed(&fault),
    };
    let id = &it.request.stream_id;
    let asked = manage_stream::verify(&ctx, it.signals, &it.receiver, id, state.as_deref()).await;
    answer(asked, nothing(StatusCode::NO_CONTENT))
}
