//! `/internal/v1/verifications`: ask for fresh evidence, and see how far it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::asker::Asker;
use super::description::Later;
use super::error;
use super::internal::allowed;
use super::problem::Problem;
use crate::flows::authorize::Act;
use crate::flows::read_posture::{await_verification, read_verification};
use crate::flows::verify_now::{Outcome, Wanted, verify_now};
use crate::flows::{Context, Failure};
use crate::ids::{DeviceId, VerificationId, sha256};
use crate::publication::verification_v1::VerificationV1;
use crate::time::Timestamp;
use crate::verification::{Kind, Priority};

/// Longest time a request waits for an attempt to end.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Longest idempotency key.
const MAX_KEY: usize = 200;

/// Which evidence, and of which Mac.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct VerificationRequest {
    device_id: DeviceId,
    #[serde(default = "both")]
    #[schema(min_items = 1, default = json!(["security_info", "mda"]))]
    kinds: Vec<Kind>,
    #[serde(default = "refresh")]
    #[schema(default = "refresh")]
    priority: Priority,
    #[serde(default)]
    reason: String,
    deadline: Option<Timestamp>,
}

fn both() -> Vec<Kind> {
    vec![Kind::SecurityInfo, Kind::Mda]
}

fn refresh() -> Priority {
    Priority::Refresh
}

/// Asks a Mac for fresh evidence.
#[utoipa::path(
    post, path = "/internal/v1/verifications", tag = "Verifications",
    security(("token" = ["coordinator", "operator"])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 200 characters: the same request by the same key is the same attempt."),
        ("Prefer" = Option<String>, Header, description = "`wait=` seconds, at most 60: the answer once the attempt has ended, or then."),
    ),
    request_body = VerificationRequest,
    responses(
        (status = 200, description = "It has ended.", body = VerificationV1, headers(("Location" = String, description = "Where it is followed."), ("Preference-Applied" = String, description = "`wait=` as it was granted."))),
        (status = 202, description = "It is under way.", body = VerificationV1, headers(("Location" = String, description = "Where it is followed."), ("Preference-Applied" = String, description = "`wait=` as it was granted."))),
        (status = 404, response = Problem),
        (status = 409, response = Problem),
        (status = 422, response = Problem),
        (status = 429, response = Later),
    ),
)]
pub async fn start(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::Verify).await {
        return refusal;
    }
    let Ok(body) = body else {
        return Problem::request_too_large("64 KiB").into_response();
    };
    let wanted = match read_request(&asker.headers, &body) {
        Ok(wanted) => wanted,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    let device_id = wanted.device_id.to_string();
    let verification_id = match verify_now(&ctx, &wanted).await {
        Ok(Outcome::Verification(verification)) => verification.verification_id,
        Ok(Outcome::DeviceNotFound) => return Problem::device_not_found().into_response(),
        Ok(Outcome::NotEnrolled) => {
            return Problem::not_enrolled()
                .member("device_id", device_id)
                .into_response();
        }
        Ok(Outcome::DeadlinePassed) => {
            return Problem::invalid_request("deadline must lie ahead").into_response();
        }
        Ok(Outcome::QueueFull) => return Problem::queue_full().into_response(),
        Ok(Outcome::IdempotencyMismatch) => return Problem::idempotency_mismatch().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    answer(&ctx, &asker.headers, &verification_id, true).await
}

/// How far an attempt is.
#[utoipa::path(
    get, path = "/internal/v1/verifications/{verification_id}", tag = "Verifications",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(("verification_id" = VerificationId, Path), ("Prefer" = Option<String>, Header, description = "`wait=` seconds, at most 60: the answer once the attempt has ended, or then.")),
    responses((status = 200, description = "How far it is.", body = VerificationV1, headers(("Location" = String, description = "Where it is followed."), ("Preference-Applied" = String, description = "`wait=` as it was granted."))), (status = 404, response = Problem)),
)]
pub async fn read(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(verification_id): Path<String>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
        return refusal;
    }
    match VerificationId::parse(&verification_id) {
        Ok(verification_id) => answer(&ctx, &asker.headers, &verification_id, false).await,
        Err(_) => Problem::verification_not_found().into_response(),
    }
}

fn read_request(headers: &HeaderMap, body: &[u8]) -> Result<Wanted, String> {
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    let request: VerificationRequest =
        serde_json::from_slice(body).map_err(|fault| fault.to_string())?;
    if request.kinds.is_empty() {
        return Err("kinds must name at least one kind".to_owned());
    }
    let idempotency = match headers.get("idempotency-key") {
        None => None,
        Some(key) => match key.to_str() {
            Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => {
                Some((key.to_owned(), sha256(body)))
            }
            _ => return Err(format!("Idempotency-Key must be 1 to {MAX_KEY} characters")),
        },
    };
    Ok(Wanted {
        device_id: request.device_id,
        kinds: request.kinds,
        priority: request.priority,
        occasion: request.reason.chars().take(200).collect(),
        deadline: request.deadline,
        idempotency,
    })
}

/// The attempt once it ended, or when the wait the caller preferred (RFC 7240) is over.
async fn answer(
    ctx: &Context,
    headers: &HeaderMap,
    verification_id: &VerificationId,
    started: bool,
) -> Response {
    let wait = preferred_wait(headers);
    let verification = match follow(ctx, verification_id, wait).await {
        Ok(Some(verification)) => verification,
        Ok(None) => return Problem::verification_not_found().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    let finished = verification.finished_at.is_some();
    let status = if started && !finished {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let mut response = (status, Json(verification)).into_response();
    let answer_headers = response.headers_mut();
    answer_headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let location = format!("/internal/v1/verifications/{verification_id}");
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer_headers.insert(header::LOCATION, location);
    }
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        answer_headers.insert("preference-applied", applied);
    }
    response
}

async fn follow(
    ctx: &Context,
    verification_id: &VerificationId,
    wait: Option<Duration>,
) -> Result<Option<VerificationV1>, Failure> {
    match wait {
        None => read_verification(ctx, verification_id).await,
        Some(wait) => await_verification(ctx, verification_id, wait).await,
    }
}

fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let seconds: u64 = preferences
        .flat_map(|value| value.split(','))
        .find_map(|preference| preference.trim().strip_prefix("wait="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}
