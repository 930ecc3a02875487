//! `/internal/v1/bindings/{session}`: provider sessions, and whether they may be routed to.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use super::revocations::{Note, noted};
use crate::enrollment::ticket::{NOT_AN_ACCOUNT, is_account};
use crate::flows::approve_binding::{self, approve_binding};
use crate::flows::authorize::Act;
use crate::flows::bind_provider::{self, bind_provider, end};
use crate::flows::read_binding::{Glance, answer_binding, standing};
use crate::flows::read_posture::read_posture;
use crate::flows::{Context, Failure};
use crate::ids::{SerialNumber, SessionId};
use crate::provider::{EncryptionKey, Registration, SePublicKey, Version};
use crate::publication::binding_v1::{BindingV1, Suggested};
use crate::publication::posture_v1::PostureV1;

/// A provider session, as it registers.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct BindingRequest {
    /// The text as the provider sent it.
    se_public_key: String,
    encryption_public_key: String,
    claimed_serial_number: Option<SerialNumber>,
    account: Option<String>,
    attestation_raw_b64: String,
    signature_b64: String,
    provider_version: Option<String>,
}

/// A session that is registered, and its Mac.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RegisteredSessionV1)]
struct Bound<'a> {
    #[serde(flatten)]
    binding: BindingV1<'a>,
    posture: Option<PostureV1>,
    suggested: Option<Suggested>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SessionApprovedV1)]
struct ApprovedV1 {
    session: SessionId,
    changed: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Ending {
    /// Seconds.
    resumable_for: Option<u64>,
}

/// Registers a provider session. A blob that is not good is an answer, not an error.
#[utoipa::path(
    put, path = "/internal/v1/bindings/{session}", tag = "Sessions",
    security(("token" = ["coordinator", "operator"])),
    params(("session" = SessionId, Path)),
    request_body = BindingRequest,
    responses((status = 200, description = "The session as it stands.", body = Bound), (status = 409, response = Problem)),
)]
pub async fn put(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(session): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::Bind).await {
        return refusal;
    }
    let Ok(body) = body else {
        return Problem::request_too_large("64 KiB").into_response();
    };
    let Ok(session_id) = SessionId::parse(&session) else {
        return Problem::invalid_session().into_response();
    };
    let registration = match read_registration(&body) {
        Ok(registration) => registration,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    match bind_provider(&ctx, &session_id, registration).await {
        Ok(bind_provider::Outcome::Bound(glance)) => match bound(&ctx, &glance).await {
            Ok(answer) => answer,
            Err(failure) => error::to_internal(&failure),
        },
        Ok(bind_provider::Outcome::OtherAccount) => Problem::binding_mismatch()
            .member("session", session)
            .into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

async fn bound(ctx: &Context, glance: &Glance) -> Result<Response, Failure> {
    let now = ctx.clock.now();
    let standing = standing(glance);
    let posture = match &glance.session.device_id {
        None => None,
        Some(device_id) => read_posture(ctx, device_id).await?,
    };
    let answer = Bound {
        binding: standing.publish(&ctx.policy, now),
        posture,
        suggested: standing.suggest(&ctx.policy, now),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn read_registration(body: &[u8]) -> Result<Registration, String> {
    // Two readers of one name that stands twice could read two things.
    let members = crate::json::object(body).map_err(|fault| fault.to_string())?;
    let request: BindingRequest =
        serde_json::from_value(Value::Object(members)).map_err(|fault| fault.to_string())?;
    let account = request.account;
    if account.as_deref().is_some_and(|name| !is_account(name)) {
        return Err(NOT_AN_ACCOUNT.to_owned());
    }
    let version = request.provider_version.as_deref();
    let version = version.map(Version::parse).transpose();
    Ok(Registration {
        key: SePublicKey::parse(&request.se_public_key)
            .map_err(|fault| format!("se_public_key: {fault}"))?,
        encryption_key: EncryptionKey::parse(&request.encryption_public_key)
            .map_err(|fault| format!("encryption_public_key: {fault}"))?,
        provider_version: version.map_err(|fault| format!("provider_version: {fault}"))?,
        account,
        claimed_serial: request.claimed_serial_number,
        blob: STANDARD
            .decode(&request.attestation_raw_b64)
            .map_err(|_| "attestation_raw_b64 is not standard base64 with padding".to_owned())?,
        signature: request.signature_b64,
    })
}

/// Whether requests may be routed to a session, why not, and until when.
#[utoipa::path(
    get, path = "/internal/v1/bindings/{session}", tag = "Sessions",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(("session" = SessionId, Path)),
    responses((status = 200, description = "The session, judged now.", body = BindingV1), (status = 404, response = Problem)),
)]
pub async fn get(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(session): Path<String>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
        return refusal;
    }
    let Ok(session_id) = SessionId::parse(&session) else {
        return Problem::binding_not_found().into_response();
    };
    match answer_binding(&ctx, &session_id).await {
        Ok(Some(body)) => {
            let headers = [
                (header::CACHE_CONTROL, "no-store"),
                (header::CONTENT_TYPE, "application/json"),
            ];
            (headers, body).into_response()
        }
        Ok(None) => Problem::binding_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// Ends a session.
#[utoipa::path(
    delete, path = "/internal/v1/bindings/{session}", tag = "Sessions",
    security(("token" = ["coordinator", "operator"])),
    params(("session" = SessionId, Path), Ending),
    responses((status = 204, description = "It has ended."), (status = 404, response = Problem)),
)]
pub async fn delete(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(session): Path<String>,
    query: Result<Query<Ending>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::Bind).await {
        return refusal;
    }
    let resumable_for = match query {
        Ok(Query(ending)) => ending.resumable_for.map(Duration::from_secs),
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let Ok(session_id) = SessionId::parse(&session) else {
        return Problem::binding_not_found().into_response();
    };
    match end(&ctx, &session_id, resumable_for).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => Problem::binding_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// Joins a session to the Mac it claims, on an operator's word.
#[utoipa::path(
    post, path = "/internal/v1/bindings/{session}/approve", tag = "Sessions",
    security(("token" = ["operator"])),
    params(("session" = SessionId, Path)),
    request_body = Option<Note>,
    responses((status = 200, description = "It is joined to its Mac.", body = ApprovedV1), (status = 404, response = Problem), (status = 409, response = Problem)),
)]
pub async fn approve(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(session): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (note, who) = match noted(&ctx, &asker, Act::Administer, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let Ok(session_id) = SessionId::parse(&session) else {
        return Problem::binding_not_found().into_response();
    };
    match approve_binding(&ctx, &session_id, &note, &who).await {
        Ok(approve_binding::Outcome::Approved { changed }) => no_store(ApprovedV1 {
            session: session_id,
            changed,
        }),
        Ok(approve_binding::Outcome::BindingNotFound) => {
            Problem::binding_not_found().into_response()
        }
        Ok(approve_binding::Outcome::NotEnrolled) => Problem::not_enrolled().into_response(),
        Ok(approve_binding::Outcome::NotSpoken) => Problem::binding_mismatch()
            .detail("the session's key did not sign its blob for this session")
            .into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}
