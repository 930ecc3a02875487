//! `PUT /mdm/checkin` and `PUT /mdm/connect`: both take both kinds of message, told apart by their
//! Content-Type, because CheckInURL defaults to ServerURL (Apple `com.apple.mdm.yaml`).

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Public, error};
use crate::flows::{check_in, connect};
use crate::mdm::{CHECK_IN, REPORT, signature};
use crate::reason::Reason;

/// As in Apple's examples.
const PLIST: &str = "application/xml; charset=UTF-8";

pub async fn message(
    State(Public { ctx, .. }): State<Public>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else { return error::refused_to_mac(Reason::RequestTooLarge) };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let signature = headers.get(signature::HEADER).map(|value| value.as_bytes());
    // The check-in type begins with the report type.
    match kind {
        Some(kind) if kind.starts_with(CHECK_IN) => {
            match check_in::check_in(&ctx, signature, &body).await {
                Ok(reply) => check_in_reply(reply),
                Err(failure) => error::to_mac(&failure),
            }
        }
        Some(kind) if kind.starts_with(REPORT) => {
            match connect::connect(&ctx, signature, &body).await {
                Ok(connect::Reply::Command(command)) => plist(command),
                Ok(connect::Reply::Done) => StatusCode::OK.into_response(),
                Ok(connect::Reply::Refused(reason)) => error::refused_to_mac(reason),
                Err(failure) => error::to_mac(&failure),
            }
        }
        _ => error::refused_to_mac(Reason::MessageUnsupported),
    }
}

fn check_in_reply(reply: check_in::Reply) -> Response {
    match reply {
        check_in::Reply::Empty => StatusCode::OK.into_response(),
        check_in::Reply::Plist(bytes) => plist(bytes),
        check_in::Reply::UserDeclined => StatusCode::GONE.into_response(),
        check_in::Reply::NotOffered => StatusCode::NOT_FOUND.into_response(),
        check_in::Reply::Refused(reason) => error::refused_to_mac(reason),
    }
}

fn plist(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, PLIST)], bytes).into_response()
}
