//! `GET /internal/v1/devices/{device_id}/posture`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::conditional::is_unchanged;
use super::error;
use super::internal::allowed;
use super::problem::Problem;
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::read_posture::{answer_posture, read_posture};
use crate::ids::DeviceId;
use crate::publication::posture_v1::PostureV1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    at_least: Option<AtLeast>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtLeast {
    /// Rather an error than evidence whose refresh is due.
    Fresh,
}

pub async fn posture(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Path(device_id): Path<String>,
    query: Result<Query<Demand>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::ReadDevices).await {
        return refusal;
    }
    let demand = match query {
        Ok(Query(demand)) => demand,
        Err(rejection) => return Problem::invalid_request(rejection.body_text()).into_response(),
    };
    let Ok(device_id) = DeviceId::parse(&device_id) else {
        return Problem::device_not_found().into_response();
    };
    if demand.at_least == Some(AtLeast::Fresh) {
        match Box::pin(read_posture(&ctx, &device_id)).await {
            Ok(Some(posture)) if !is_fresh(&posture) => {
                return Problem::posture_stale()
                    .member("device_id", device_id.as_str())
                    .into_response();
            }
            Ok(_) => {}
            Err(failure) => return error::to_internal(&failure),
        }
    }
    let posture = match answer_posture(&ctx, &device_id).await {
        Ok(Some(posture)) => posture,
        Ok(None) => return Problem::device_not_found().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    // The revision changes with evidence, not with time: expiry is absolute, and the reader looks at
    // its clock. A reader that does not must still not be told that an ended verdict stands.
    let tag = format!("\"r{}\"", posture.revision);
    let unchanged = is_unchanged(&headers, tag.as_bytes());
    let mut response = if unchanged && posture.revision > 0 && posture.is_as_revised {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], posture.body).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    response
}

/// Every claim is within the time in which it needs no refresh, and there is one.
fn is_fresh(posture: &PostureV1) -> bool {
    let now = posture.evaluated_at;
    !posture.claims.is_empty()
        && posture
            .claims
            .values()
            .all(|claim| claim.fresh_until.is_some_and(|until| now < until))
}
