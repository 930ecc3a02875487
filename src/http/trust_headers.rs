//! `GET /internal/v1/devices/{device_id}/trust-headers`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::read_trust_headers::{Outcome, read_trust_headers};
use crate::ids::{DeviceId, SessionId};
use crate::time::Timestamp;

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TrustHeadersV1 {
    device_id: DeviceId,
    session: Option<SessionId>,
    evaluated_at: Timestamp,
    /// Until when they say the same, if nothing new happens; only while attested.
    routable_until: Option<Timestamp>,
    /// By their names.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    headers: Map<String, Value>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Of this session; without it, of the one that stands furthest.
    session: Option<String>,
}

/// What the headers of a reply say of the Mac that made it.
#[utoipa::path(
    get, path = "/internal/v1/devices/{device_id}/trust-headers", tag = "Macs",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(("device_id" = DeviceId, Path), Wanted),
    responses((status = 200, description = "The headers.", body = TrustHeadersV1), (status = 404, response = Problem)),
)]
pub async fn read(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(device_id): Path<String>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
        return refusal;
    }
    let session = match query {
        Ok(Query(Wanted { session })) => session,
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let session = match session.as_deref().map(SessionId::parse).transpose() {
        Ok(session) => session,
        Err(_) => return Problem::invalid_session().into_response(),
    };
    let Ok(device_id) = DeviceId::parse(&device_id) else {
        return Problem::device_not_found().into_response();
    };
    let told = match read_trust_headers(&ctx, &device_id, session.as_ref()).await {
        Ok(Outcome::Told(told)) => told,
        Ok(Outcome::NoDevice) => return Problem::device_not_found().into_response(),
        Ok(Outcome::NoSession) => return Problem::binding_not_found().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    let pairs = told.headers.pairs().into_iter();
    let headers: Map<_, _> = pairs
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .collect();
    no_store(TrustHeadersV1 {
        device_id,
        session: told.session,
        evaluated_at: told.evaluated_at,
        routable_until: told.routable_until,
        headers,
    })
}
