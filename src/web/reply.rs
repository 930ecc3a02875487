//! Rendered pages as answers, and what people are told when something is not to be had.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::flows::Failure;
use crate::http::Public;
use crate::reason::Reason;

/// What is the same on every page.
#[derive(Debug)]
pub struct Frame<'a> {
    pub organization: &'a str,
}

impl<'a> Frame<'a> {
    pub fn of(public: &'a Public) -> Self {
        Self {
            organization: &public.ctx.settings.profile.organization,
        }
    }
}

/// Something is not to be had: what happened, and what to do.
#[derive(Debug, Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: Frame<'a>,
    title: &'a str,
    text: &'a str,
    remedy: &'a str,
    /// Whether starting again helps.
    again: bool,
}

/// A page. Never stored by caches: it is about one moment, and its address may be somebody's own.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (status, headers, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            let text = "The service has a fault. Try again later.\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

fn problem(
    public: &Public,
    status: StatusCode,
    [title, text, remedy]: [&str; 3],
    again: bool,
) -> Response {
    let shown = ProblemPage {
        frame: Frame::of(public),
        title,
        text,
        remedy,
        again,
    };
    let mut response = page(status, &shown);
    let later = match status {
        StatusCode::TOO_MANY_REQUESTS => Some("60"),
        StatusCode::SERVICE_UNAVAILABLE => Some("30"),
        _ => None,
    };
    if let Some(later) = later {
        let later = HeaderValue::from_static(later);
        response.headers_mut().insert(header::RETRY_AFTER, later);
    }
    response
}

pub fn not_found(public: &Public) -> Response {
    let words = [
        "Nothing here",
        "No enrollment is known under this address.",
        "Check that the address is complete, or start a new enrollment.",
    ];
    problem(public, StatusCode::NOT_FOUND, words, true)
}

pub fn too_often(public: &Public) -> Response {
    let words = [
        "Too many requests",
        "Too many profiles were asked for from your network address in the last minute.",
        "Wait a minute, then go back and try again.",
    ];
    problem(public, StatusCode::TOO_MANY_REQUESTS, words, true)
}

/// The profile cannot be fetched any more, or never could.
pub fn refused(public: &Public, reason: Reason) -> Response {
    let status = match reason {
        Reason::TicketUsed | Reason::TicketExpired => StatusCode::GONE,
        Reason::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::RequestMalformed => StatusCode::BAD_REQUEST,
        _ => StatusCode::NOT_FOUND,
    };
    let title = match reason {
        Reason::RequestTooLarge | Reason::RequestMalformed => "This was not understood",
        _ => "This profile cannot be downloaded",
    };
    let remedy = "Start again to get a new profile. Each takes only a moment.";
    problem(public, status, [title, reason.owner_text(), remedy], true)
}

pub fn failed(public: &Public, failure: &Failure) -> Response {
    if matches!(failure, Failure::TooManyProfiles) {
        let words = [
            "Too many requests",
            "Too many profiles were made for this serial number within an hour, by you or by somebody else.",
            "Go back and leave the serial number empty: the profile is as good.",
        ];
        return problem(public, StatusCode::TOO_MANY_REQUESTS, words, true);
    }
    failure.log();
    let words = match failure {
        Failure::NoPushCertificate => [
            "Enrollment is not open yet",
            "This server has no push certificate from Apple yet. Without one it could never wake a \
             Mac, so it enrolls none.",
            "Whoever runs this service has to install the certificate. Try again later.",
        ],
        _ => [
            "The service has a fault",
            "Something did not work here. Your Mac is not to blame.",
            "Try again in a minute. If it stays like this, tell whoever runs this service.",
        ],
    };
    let status = if failure.may_pass() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    problem(public, status, words, false)
}
