//! `/ssf`: streams of shared signals, for receivers with tokens of their own kind; and where all that is,
//! for the world.

mod poll;
mod stream;
mod token;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::internal::bearer;
use super::problem::{self, Problem};
use super::{Internal, Public, error};
use crate::flows::grant_access::{Admission, admit};
use crate::flows::manage_stream::Refused;
use crate::flows::transmit_signals::Signals;
use crate::flows::{Context, Failure};
use crate::publication::shared_signals::access::Scope;
use crate::publication::shared_signals::discovery::{OauthConfiguration, SsfConfiguration};
use crate::publication::shared_signals::receiver::Receiver;
use crate::publication::shared_signals::{Transmitter, discovery};
use crate::reason::Reason;

/// Polls that wait at a time, and those of one receiver.
pub(super) const MOST_POLLS: usize = 256;
pub(super) const POLLS_OF_ONE: usize = 4;

/// Who may change a stream may see it.
const READS: fn(Scope) -> bool = |scope| scope.read || scope.manage;
const MANAGES: fn(Scope) -> bool = |scope| scope.manage;

/// What receivers reach.
pub(super) fn routes() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(token::grant))
        .routes(routes!(
            stream::create,
            stream::read,
            stream::update,
            stream::replace,
            stream::delete
        ))
        .routes(routes!(stream::read_status, stream::set_status))
        .routes(routes!(stream::add_subject))
        .routes(routes!(stream::remove_subject))
        .routes(routes!(stream::verify))
        .routes(routes!(poll::poll))
}

/// The transmitter of shared signals; 404 where none are shared.
#[utoipa::path(
    get, path = "/.well-known/ssf-configuration", tag = "Shared signals",
    responses(
        (status = 200, description = "Where everything is.", body = SsfConfiguration, headers(("Cache-Control" = String))),
        (status = 404, response = Problem),
    ),
)]
pub(super) async fn ssf_configuration(State(state): State<Public>) -> Response {
    described(&state.ctx, discovery::ssf_configuration)
}

/// Where receivers get their tokens (RFC 8414); 404 where no signals are shared.
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "Shared signals",
    responses(
        (status = 200, description = "Where, and how.", body = OauthConfiguration, headers(("Cache-Control" = String))),
        (status = 404, response = Problem),
    ),
)]
pub(super) async fn oauth_configuration(State(state): State<Public>) -> Response {
    described(&state.ctx, discovery::oauth_configuration)
}

fn described<T: Serialize>(ctx: &Context, document: fn(&Transmitter) -> T) -> Response {
    let Some(signals) = &ctx.signals else {
        return nowhere();
    };
    let mut response = json(StatusCode::OK, &document(&signals.transmitter));
    let kept = HeaderValue::from_static("public, max-age=300");
    response.headers_mut().insert(header::CACHE_CONTROL, kept);
    response
}

/// Signals are not shared here.
fn nowhere() -> Response {
    problem::no_resource().into_response()
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, serde_json::json!(value).to_string()).into_response()
}

/// Who asks, and in whose name it is answered; or the answer, where there is nothing more to say.
async fn admitted<'a>(
    ctx: &'a Context,
    headers: &HeaderMap,
    allows: fn(Scope) -> bool,
) -> Result<(&'a Signals, Receiver), Response> {
    let signals = ctx.signals.as_ref().ok_or_else(nowhere)?;
    match admit(ctx, signals, bearer(headers), allows).await {
        Ok(Admission::Admitted(receiver)) => Ok((signals, receiver)),
        Ok(Admission::Unauthorized) => Err(Problem::unauthorized().into_response()),
        Ok(Admission::Forbidden) => {
            let detail = "the token's scope does not reach so far";
            Err(Problem::forbidden().detail(detail).into_response())
        }
        Err(failure) => Err(error::to_internal(&failure)),
    }
}

/// To whom sent no whole body.
fn not_whole(reason: Reason) -> Response {
    match reason {
        Reason::RequestTooLarge => Problem::request_too_large("64 KiB").into_response(),
        _ => Problem::invalid_request("the request broke off").into_response(),
    }
}

/// What a flow came to, as it is answered.
fn answer<T>(
    outcome: Result<Result<T, Refused>, Failure>,
    done: impl FnOnce(T) -> Response,
) -> Response {
    match outcome {
        Ok(Ok(value)) => done(value),
        Ok(Err(refused)) => refusal(&refused).into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

fn refusal(refused: &Refused) -> Problem {
    match refused {
        Refused::NoStream => Problem::stream_not_found(),
        Refused::Exists => Problem::stream_exists(),
        Refused::Disabled => Problem::stream_disabled(),
        Refused::TooSoon => Problem::asked_too_often().detail(refused),
        Refused::Malformed(_)
        | Refused::Target(_)
        | Refused::PrivateTarget
        | Refused::TooManyExcluded => Problem::invalid_request(refused),
    }
}
