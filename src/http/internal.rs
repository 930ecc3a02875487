//! `/internal/v1`: look-up of devices, state of the service, and who may ask.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::error;
use super::problem::Problem;
use crate::attestation::Anchor;
use crate::flows::authorize::{Act, Caller, Shown, Standing, authorize};
use crate::flows::read_posture::{Found, Name, find};
use crate::flows::read_status::read_status;
use crate::flows::{Context, Failure};
use crate::ids::{DeviceId, SerialNumber, Topic, Udid};
use crate::provider::SePublicKey;
use crate::publication::device_v1::DeviceV1;
use crate::push::trouble::of_topic;
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
pub async fn allowed(ctx: &Context, asker: &Asker, act: Act) -> Result<Caller, Response> {
    match authorize(ctx, asker.shown(), act).await {
        Ok(Standing::Allowed(caller)) => Ok(caller),
        Ok(Standing::Unauthorized) => Err(match asker.shown() {
            Shown::Token(_) => Problem::invalid_token(),
            Shown::Nothing | Shown::Certificate(_) => Problem::unauthorized(),
        }
        .into_response()),
        Ok(Standing::UnknownCertificate) => Err(Problem::certificate_not_known().into_response()),
        Ok(Standing::Undecided) => Err(Problem::issuer_unavailable().into_response()),
        Ok(Standing::Forbidden) => Err(match asker.shown() {
            Shown::Token(_) => Problem::insufficient_scope(act),
            Shown::Nothing | Shown::Certificate(_) => Problem::not_allowed(act),
        }
        .into_response()),
        Err(failure) => Err(error::to_internal(&failure)),
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LookUp {
    serial_number: Option<String>,
    udid: Option<String>,
    /// Of a provider, in either spelling.
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

/// Macs by one of their names: serial number, UDID, or the key of a session. An empty list is "known not to
/// exist"; a store that cannot be read is a 503, never an empty list.
#[utoipa::path(
    get, path = "/internal/v1/devices", tag = "Macs",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(LookUp),
    responses((status = 200, description = "Whoever claims the name, the one that stands first; none is an empty list.", body = DevicesV1)),
)]
pub async fn devices(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    query: Result<Query<LookUp>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
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
            no_store(DevicesV1 { devices })
        }
        Err(failure) => error::to_internal(&failure),
    }
}

/// One Mac, by its id.
#[utoipa::path(
    get, path = "/internal/v1/devices/{device_id}", tag = "Macs",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(("device_id" = DeviceId, Path)),
    responses((status = 200, description = "The Mac.", body = DeviceV1), (status = 404, response = Problem)),
)]
pub async fn device(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(device_id): Path<String>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
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

/// Those who claim one name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct DevicesV1<'a> {
    devices: Vec<DeviceV1<'a>>,
}

fn describe(found: &Found, now: Timestamp) -> DeviceV1<'_> {
    let identity = found.identity.as_ref();
    DeviceV1::new(&found.enrollment, identity, found.last_seen, now)
}

/// What the service works with, and how it is.
#[utoipa::path(
    get, path = "/internal/v1/status", tag = "Service",
    security(("token" = ["coordinator", "operator", "auditor", "viewer"])),
    responses((status = 200, description = "The state.", body = StatusV1)),
)]
pub async fn status(State(ctx): State<Arc<Context>>, asker: Asker) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadStatus).await {
        return refusal;
    }
    match describe_service(&ctx).await {
        Ok(status) => no_store(status),
        Err(failure) => error::to_internal(&failure),
    }
}

/// How the service is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StatusV1<'a> {
    version: &'static str,
    time: Timestamp,
    clock: ClockV1,
    /// The kind of the database.
    database: &'static str,
    policy_id: &'a str,
    anchor: Anchor,
    push_certificate: Option<PushCertificateV1>,
    apns: Vec<TopicV1>,
    queue: QueueV1,
    identities: IdentitiesV1,
}

/// Whether the clock is believed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ClockV1 {
    /// `ok`, or what is the matter.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The certificate that lets this service wake Macs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PushCertificateV1 {
    topic: Topic,
    not_after: Timestamp,
    days_left: u64,
}

/// What the connection to Apple's push service went through.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TopicV1 {
    topic: Topic,
    certificate_not_after: Timestamp,
    last_success: Option<Timestamp>,
    on_hold_until: Option<Timestamp>,
    /// Why nobody can be woken: `push_certificate_expired`, `push_certificate_refused`,
    /// `push_topic_refused`.
    trouble: Option<&'static str>,
}

/// Macs that wait for their turn to be woken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct QueueV1 {
    depth: usize,
    /// How long the first of them has waited, in seconds.
    oldest_s: u64,
}

/// Enrolled Macs that are not heard any more, and that will not be soon.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct IdentitiesV1 {
    expired: u64,
    expiring: u64,
}

async fn describe_service(ctx: &Context) -> Result<StatusV1<'_>, Failure> {
    let now = ctx.clock.now();
    let status = read_status(ctx).await?;
    let push_certificate = status
        .push_certificate
        .map(|certificate| PushCertificateV1 {
            topic: certificate.topic,
            not_after: certificate.not_after,
            days_left: certificate.not_after.since(now).as_secs() / 86_400,
        });
    let apns = status.apns.into_iter().map(|topic| TopicV1 {
        topic: topic.topic,
        certificate_not_after: topic.not_after,
        last_success: topic.last_success,
        on_hold_until: topic.on_hold_until,
        trouble: of_topic(topic.not_after, topic.stopped.as_ref(), now)
            .map(|(_, trouble)| trouble.as_str()),
    });
    let clock = ClockV1 {
        state: status
            .clock
            .as_ref()
            .map_or("ok", |trouble| trouble.as_str()),
        detail: status.clock.map(|trouble| trouble.to_string()),
    };
    Ok(StatusV1 {
        version: env!("CARGO_PKG_VERSION"),
        time: now,
        clock,
        database: status.database,
        policy_id: &ctx.policy.id,
        anchor: ctx.anchors.kind(),
        push_certificate,
        apns: apns.collect(),
        queue: QueueV1 {
            depth: ctx.wakeups.waiting(),
            oldest_s: ctx.wakeups.oldest().as_secs(),
        },
        identities: IdentitiesV1 {
            expired: status.identities.expired,
            expiring: status.identities.expiring,
        },
    })
}

/// A JSON answer nobody may keep.
pub fn no_store(body: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}
