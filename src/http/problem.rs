//! Problem details (RFC 9457) of the internal API. `type` is stable; `detail` is for people.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::flows::authorize::{Act, Role};
use crate::reason::Reason;

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: Option<String>,
    reason: Option<Reason>,
    members: Map<String, Value>,
    /// How one is let in: of each 401, and of a 403 to whoever showed a token.
    challenge: Option<&'static str>,
}

/// A problem.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem, title = "Problem details (RFC 9457)")]
pub struct Details {
    /// What kind of problem it is; stable.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/[a-z-]+$", example = "/problems/invalid-request")]
    kind: String,
    /// The kind in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// This problem in words, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// What a kind says besides.
    #[serde(flatten)]
    #[schema(ignore)]
    members: Map<String, Value>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str) -> Self {
        Self {
            status,
            kind,
            title,
            detail: None,
            reason: None,
            members: Map::new(),
            challenge: (status == StatusCode::UNAUTHORIZED).then_some("Bearer"),
        }
    }

    pub fn device_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "device-not-found", "No such device")
    }

    pub fn verification_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "verification-not-found",
            "No such verification",
        )
    }

    pub fn provider_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "provider-not-found",
            "No such provider is connected",
        )
    }

    pub fn binding_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "binding-not-found",
            "No such provider session",
        )
    }

    pub fn binding_mismatch() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "binding-mismatch",
            "The provider session is another's",
        )
    }

    pub fn challenge_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "challenge-not-found",
            "No such challenge",
        )
    }

    pub fn challenge_outstanding() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "challenge-outstanding",
            "A challenge waits for its answer",
        )
    }

    pub fn invalid_session() -> Self {
        Self::invalid_request(
            "a session has 1 to 128 letters, digits and -._: and begins with a letter or digit",
        )
    }

    pub fn not_enrolled() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "not-enrolled",
            "The Mac is not enrolled",
        )
    }

    pub fn posture_stale() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "posture-stale",
            "No fresh posture is known",
        )
    }

    pub fn idempotency_mismatch() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-mismatch",
            "The idempotency key was used for another request",
        )
    }

    pub fn invalid_request(detail: impl ToString) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-request",
            "The request is not valid",
        )
        .detail(detail)
    }

    pub fn request_too_large(most: &str) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request-too-large",
            "The request is too large",
        )
        .detail(format!("at most {most}"))
    }

    pub fn request_repeated() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "request-repeated",
            "This request was granted before; sign a new one",
        )
    }

    pub fn too_often() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests came from this address",
        )
    }

    pub fn no_push_certificate() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-push-certificate",
            "No push certificate is installed, so no Mac can be enrolled",
        )
    }

    pub fn push_certificate_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "push-certificate-not-found",
            "No such push certificate",
        )
    }

    /// `refusal` says why, and stays.
    pub fn push_certificate_refused(refusal: &'static str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "push-certificate-refused",
            "This is not done with the push certificate",
        )
        .member("refusal", refusal)
    }

    pub fn release_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "release-not-found",
            "No such release",
        )
    }

    pub fn release_differs() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "release-differs",
            "This program is registered otherwise",
        )
    }

    pub fn release_revoked() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "release-revoked",
            "This program was withdrawn",
        )
    }

    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A valid bearer token is needed",
        )
    }

    /// As [`Problem::unauthorized`], of whoever showed a token (RFC 6750 section 3.1).
    pub fn invalid_token() -> Self {
        Self {
            challenge: Some("Bearer error=\"invalid_token\""),
            ..Self::unauthorized()
        }
    }

    /// What the token would be judged by is not known: it may be good, and its bearer had better keep it.
    pub fn issuer_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "issuer-unavailable",
            "The keys of the OpenID provider are not known now",
        )
    }

    /// The certificate of the connection leads to an authority that is trusted, and belongs to nobody who is known.
    pub fn certificate_not_known() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "certificate-not-known",
            "The client certificate is of nobody who is known here, or not valid",
        )
    }

    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The caller's role does not allow this",
        )
    }

    /// As [`Problem::forbidden`]; who may do it is said.
    pub fn not_allowed(act: Act) -> Self {
        let roles: Vec<_> = act.roles().map(Role::as_str).collect();
        Self::forbidden().detail(format!("it takes the role {}", roles.join(" or ")))
    }

    /// As [`Problem::not_allowed`], of whoever showed a token (RFC 6750 section 3.1).
    pub fn insufficient_scope(act: Act) -> Self {
        Self {
            challenge: Some("Bearer error=\"insufficient_scope\""),
            ..Self::not_allowed(act)
        }
    }

    pub fn store_unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "store-unavailable",
            "The store cannot be read; nothing is said about any device",
        )
    }

    /// There is nothing to sign.
    pub fn not_appraised() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "not-appraised",
            "Nothing was ever appraised of this device",
        )
    }

    pub fn service_degraded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "service-degraded",
            "The service cannot say whom it trusts",
        )
        .reason(Reason::ServiceDegraded)
    }

    /// The request was not whole, or not answered, within its time.
    pub fn too_late() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-late",
            "The request was not done in time",
        )
    }

    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The service has a fault",
        )
    }

    pub fn queue_full() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue-full",
            "As many Macs wait to be woken as may",
        )
    }

    pub fn stream_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "stream-not-found", "No such stream")
    }

    pub fn stream_exists() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "stream-exists",
            "The receiver has a stream already",
        )
    }

    pub fn stream_disabled() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "stream-disabled",
            "The stream is disabled",
        )
    }

    pub fn asked_too_often() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "asked-too-often",
            "The stream was asked a moment ago whether it works",
        )
    }

    pub fn too_many_streams() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-streams",
            "As many streams of this client are open as may be",
        )
    }

    pub fn downloads_full() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "As many downloads are under way as may be",
        )
    }

    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "As many streams are open as may be; the answer is to be had without one",
        )
    }

    #[must_use]
    pub fn detail(mut self, detail: impl ToString) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Details {
            kind: format!("/problems/{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            reason: self.reason,
            members: self.members,
        };
        let content_type = HeaderValue::from_static("application/problem+json");
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, content_type)],
            serde_json::json!(body).to_string(),
        )
            .into_response();
        if let Some(challenge) = self.challenge {
            let scheme = HeaderValue::from_static(challenge);
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        let for_now = [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        if for_now.contains(&self.status) {
            let later = HeaderValue::from_static("5");
            response.headers_mut().insert(header::RETRY_AFTER, later);
        }
        response
    }
}

pub(super) async fn not_found() -> Problem {
    no_resource()
}

pub(super) fn no_resource() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "No such resource")
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The resource does not take this method",
    )
}
