//! `PUT /mdm/checkin` and `PUT /mdm/connect`: both take both kinds of message, told apart by their
//! Content-Type, because CheckInURL defaults to ServerURL (Apple `com.apple.mdm.yaml`).

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::Received;
use super::{Public, error};
use crate::flows::{Context, check_in, connect};
use crate::mdm::{CHECK_IN, REPORT, plist, signature};
use crate::reason::Reason;

/// As in Apple's examples.
const PLIST: &str = "application/xml; charset=UTF-8";

pub async fn message(
    State(Public { ctx, .. }): State<Public>,
    headers: HeaderMap,
    Received(body): Received<{ plist::MAX_BYTES }>,
) -> Response {
    let kind = Kind::of(&headers);
    let body = match body {
        Ok(body) => body,
        Err(reason) => return turned_away(&ctx, kind, reason, "body"),
    };
    let mut signatures = headers.get_all(signature::HEADER).iter();
    let signature = signatures.next().map(HeaderValue::as_bytes);
    if signatures.next().is_some() {
        // Whoever stands in front may have looked at the other one.
        let detail = "more than one Mdm-Signature";
        return turned_away(&ctx, kind, Reason::SignatureInvalid, detail);
    }
    match kind {
        Kind::CheckIn => {
            match check_in::check_in(&ctx, signature, &body).await {
                Ok(reply) => check_in_reply(reply),
                Err(failure) => error::to_mac(&failure),
            }
        }
        Kind::Report => {
            match connect::connect(&ctx, signature, &body).await {
                Ok(connect::Reply::Command(command)) => property_list(command),
                Ok(connect::Reply::Done) => StatusCode::OK.into_response(),
                Ok(connect::Reply::Refused(reason)) => error::refused_to_mac(reason),
                Err(failure) => error::to_mac(&failure),
            }
        }
        Kind::Neither => turned_away(&ctx, kind, Reason::MessageUnsupported, "content type"),
    }
}

/// What a message says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    CheckIn,
    Report,
    Neither,
}

impl Kind {
    /// By the media type; parameters such as a charset occur and say nothing.
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(CHECK_IN) {
            Self::CheckIn
        } else if kind.eq_ignore_ascii_case(REPORT) {
            Self::Report
        } else {
            Self::Neither
        }
    }

    fn surface(self) -> &'static str {
        match self {
            Self::CheckIn => check_in::SURFACE,
            Self::Report => connect::SURFACE,
            Self::Neither => "mdm",
        }
    }
}

fn turned_away(ctx: &Context, kind: Kind, reason: Reason, detail: impl ToString) -> Response {
    error::count(ctx, kind.surface(), reason, detail);
    error::refused_to_mac(reason)
}

fn check_in_reply(reply: check_in::Reply) -> Response {
    match reply {
        check_in::Reply::Empty => StatusCode::OK.into_response(),
        check_in::Reply::Plist(bytes) => property_list(bytes),
        check_in::Reply::UserDeclined => StatusCode::GONE.into_response(),
        check_in::Reply::NotOffered => StatusCode::NOT_FOUND.into_response(),
        check_in::Reply::Refused(reason) => error::refused_to_mac(reason),
    }
}

fn property_list(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, PLIST)], bytes).into_response()
}
