//! The one mapping of failures and refusals to replies, per plane.
//!
//! Macs are never answered 401, and 403 only to make a Mac remove its enrollment, which nothing
//! here does: either could unenrol a fleet (Apple `mdm/checkin`, "unrecognized device").

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::flows::refuse::{Refused, note};
use crate::flows::{Context, Failure};
use crate::reason::Reason;

fn status_of(failure: &Failure) -> StatusCode {
    if failure.may_pass() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    }
}

/// To a Mac: it tries again later on 5xx.
pub fn to_mac(failure: &Failure) -> Response {
    failure.log();
    (
        status_of(failure),
        [(header::CONTENT_TYPE, "text/plain")],
        "try again later\n",
    )
        .into_response()
}

/// A request that no flow ever sees is counted and audited here, like every other refusal.
pub fn count(ctx: &Context, surface: &'static str, reason: Reason, detail: impl ToString) {
    let (detail, at) = (detail.to_string(), ctx.clock.now());
    note(
        ctx,
        Refused {
            surface,
            reason,
            device_id: None,
            named: None,
            detail,
            at,
        },
    );
}

/// A refusal to a Mac: 413 for a body that is too large, 400 for everything else.
pub fn refused_to_mac(reason: Reason) -> Response {
    let status = match reason {
        Reason::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    (
        status,
        [(header::CONTENT_TYPE, "text/plain")],
        format!("{}\n", reason.code()),
    )
        .into_response()
}

/// To the coordinator or an operator.
pub fn to_internal(failure: &Failure) -> Response {
    if let Failure::Clock(trouble) = failure {
        // Logged once by whoever watches the clock, not for each question.
        return Problem::service_degraded()
            .detail(trouble)
            .member("cause", trouble.as_str())
            .into_response();
    }
    failure.log();
    match failure {
        Failure::NoSigningKey => Problem::service_degraded().detail(failure).into_response(),
        Failure::Store(_) => Problem::store_unavailable().into_response(),
        _ => Problem::internal().into_response(),
    }
}

/// A refusal of `/v1/enroll`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EnrollError<'a> {
    error: EnrollErrorBody<'a>,
}

/// What is the matter.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EnrollErrorBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// For people.
    message: &'a str,
}

/// The error shape of `/v1/enroll`, as its clients have always known it.
pub fn enroll_error(status: StatusCode, kind: &'static str, message: &str) -> Response {
    let error = EnrollErrorBody { kind, message };
    (status, Json(EnrollError { error })).into_response()
}

const TOO_MANY_PROFILES: &str = "too many profiles were made for this serial number within an hour; \
     ask without it, or whoever runs your provider network for one";

/// 429 in the error shape of `/v1/enroll`; `wait` in seconds.
pub fn too_often(message: &str, wait: &'static str) -> Response {
    let kind = "rate_limit_error";
    let mut response = enroll_error(StatusCode::TOO_MANY_REQUESTS, kind, message);
    let wait = header::HeaderValue::from_static(wait);
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    response
}

/// A failure in the error shape of `/v1/enroll`.
pub fn to_enroll(failure: &Failure) -> Response {
    if matches!(failure, Failure::TooManyProfiles) {
        return too_often(TOO_MANY_PROFILES, "3600");
    }
    failure.log();
    let message = match failure {
        Failure::NoPushCertificate => "enrollment is not open yet",
        _ => "try again later",
    };
    let status = status_of(failure);
    let kind = if status == StatusCode::SERVICE_UNAVAILABLE {
        "service_unavailable"
    } else {
        "internal_error"
    };
    enroll_error(status, kind, message)
}
