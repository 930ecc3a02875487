//! `/internal/v1`: look-up of devices, state of the service, and who may ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error;
use super::problem::Problem;
use crate::enrollment::State as EnrollmentState;
use crate::flows::authorize::{Act, Standing, authorize};
use crate::flows::read_posture::{Found, Name, find};
use crate::flows::read_status::read_status;
use crate::flows::{Context, Failure};
use crate::ids::{DeviceId, SerialNumber, Udid};
use crate::provider::SePublicKey;
use crate::time::Timestamp;

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
}

/// Lets the request pass, or says why not.
pub async fn allowed(ctx: &Context, headers: &HeaderMap, act: Act) -> Result<(), Response> {
    match authorize(ctx, bearer(headers), act).await {
        Ok(Standing::Allowed) => Ok(()),
        Ok(Standing::Unauthorized) => Err(Problem::unauthorized().into_response()),
        Ok(Standing::Forbidden) => Err(Problem::forbidden().into_response()),
        Err(failure) => Err(error::to_internal(&failure)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookUp {
    serial_number: Option<String>,
    udid: Option<String>,
    se_public_key: Option<String>,
}

impl LookUp {
    /// The one name that is given.
    fn name(&self) -> Result<Name, String> {
        match (&self.serial_number, &self.udid, &self.se_public_key) {
            (Some(serial), None, None) => SerialNumber::parse(serial)
                .map(Name::Serial)
                .map_err(|fault| fault.to_string()),
            (None, Some(udid), None) => Udid::parse(udid)
                .map(Name::Udid)
                .map_err(|fault| fault.to_string()),
            (None, None, Some(key)) => SePublicKey::parse(key)
                .map(Name::Key)
                .map_err(|fault| fault.to_string()),
            _ => Err("give one of serial_number, udid, se_public_key".to_owned()),
        }
    }
}

/// `GET /internal/v1/devices?serial_number=…|udid=…|se_public_key=…`. An empty list is "known not to exist"; a store
/// that cannot be read is a 503, never an empty list.
pub async fn devices(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    query: Result<Query<LookUp>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::ReadDevices).await {
        return refusal;
    }
    let name = match query {
        Ok(Query(look_up)) => look_up.name(),
        Err(rejection) => Err(rejection.body_text()),
    };
    let name = match name {
        Ok(name) => name,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    match find(&ctx, &name).await {
        Ok(found) => {
            let now = ctx.clock.now();
            let devices: Vec<_> = found.iter().map(|found| describe(found, now)).collect();
            no_store(json!({ "devices": devices }))
        }
        Err(failure) => error::to_internal(&failure),
    }
}

/// `GET /internal/v1/devices/{device_id}`.
pub async fn device(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Path(device_id): Path<String>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::ReadDevices).await {
        return refusal;
    }
    let Ok(device_id) = DeviceId::parse(&device_id) else {
        return Problem::device_not_found().into_response();
    };
    match find(&ctx, &Name::Device(device_id)).await {
        Ok(found) => match found.first() {
            Some(found) => no_store(describe(found, ctx.clock.now())),
            None => Problem::device_not_found().into_response(),
        },
        Err(failure) => error::to_internal(&failure),
    }
}

fn describe(found: &Found, now: Timestamp) -> Value {
    let Found {
        enrollment,
        identity,
        last_seen,
    } = found;
    let push = match &enrollment.push {
        Some(address) if address.dead_since.is_none() => "ok",
        Some(_) => "token_invalid",
        None => "none",
    };
    json!({
        "device_id": enrollment.device_id,
        "serial_number": enrollment.serial,
        "udid": enrollment.udid,
        "enrolled": enrollment.state == EnrollmentState::Enrolled,
        "enrollment_state": enrollment.state,
        "enrollment_channel": "device",
        "contends_with": enrollment.contends_with,
        "serial_held_since": enrollment.serial_held_since(),
        "identity": identity.as_ref().map(|identity| json!({
            "kind": identity.kind,
            "state": match identity.usable(now) {
                Ok(()) => "valid",
                Err(reason) => reason.code(),
            },
            "not_before": identity.not_before,
            "not_after": identity.not_after,
            "sha256": identity.certificate,
        })),
        "hardware": enrollment.hardware,
        "authenticated_at": enrollment.authenticated_at,
        "enrolled_at": enrollment.enrolled_at,
        "last_seen": last_seen,
        "push": { "state": push },
    })
}

/// `GET /internal/v1/status`.
pub async fn status(State(ctx): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::ReadStatus).await {
        return refusal;
    }
    match describe_service(&ctx).await {
        Ok(status) => no_store(status),
        Err(failure) => error::to_internal(&failure),
    }
}

async fn describe_service(ctx: &Context) -> Result<Value, Failure> {
    let now = ctx.clock.now();
    let status = read_status(ctx).await?;
    let push_certificate = status.push_certificate.map(|certificate| {
        json!({
            "topic": certificate.topic,
            "not_after": certificate.not_after,
            "days_left": certificate.not_after.since(now).as_secs() / 86_400,
        })
    });
    let apns: Vec<_> = status
        .apns
        .into_iter()
        .map(|topic| {
            json!({
                "topic": topic.topic,
                "certificate_not_after": topic.not_after,
                "last_success": topic.last_success,
                "on_hold_until": topic.on_hold_until,
            })
        })
        .collect();
    let clock = match status.clock {
        None => json!({ "state": "ok" }),
        Some(trouble) => json!({ "state": trouble.as_str(), "detail": trouble.to_string() }),
    };
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": now,
        "clock": clock,
        "database": status.database,
        "policy_id": ctx.policy.id,
        "anchor": ctx.anchors.kind(),
        "push_certificate": push_certificate,
        "apns": apns,
        // Macs that wait for their turn to be woken.
        "queue": {
            "depth": ctx.wakeups.waiting(),
            "oldest_s": ctx.wakeups.oldest().as_secs(),
        },
        "identities": {
            "expired": status.identities.expired,
            "expiring": status.identities.expiring,
        },
    }))
}

/// A JSON answer nobody may keep.
pub fn no_store(body: Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
