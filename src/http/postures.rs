//! `GET /internal/v1/devices/{device_id}/posture`, and `GET /internal/v1/postures`: all of them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::list_postures::{self, list_postures};
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
    let unchanged = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|candidate| {
            let candidate = candidate.trim();
            // RFC 9110 section 13.1.2: compared weakly.
            candidate == "*" || candidate.trim_start_matches("W/") == tag
        });
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

/// Postures in one answer where nothing else is asked for.
const USUAL: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageOf {
    after: Option<String>,
    limit: Option<usize>,
}

impl PageOf {
    fn read(&self) -> Result<(Option<DeviceId>, usize), String> {
        let after = self.after.as_deref().map(DeviceId::parse).transpose();
        let after = after.map_err(|fault| format!("after: {fault}"))?;
        let limit = self.limit.unwrap_or(USUAL);
        if (1..=list_postures::MOST).contains(&limit) {
            Ok((after, limit))
        } else {
            Err(format!("limit is 1 to {}", list_postures::MOST))
        }
    }
}

/// `GET /internal/v1/postures`.
pub async fn list(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    page: Result<Query<PageOf>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::ReadDevices).await {
        return refusal;
    }
    let page = match page {
        Ok(Query(page)) => page.read(),
        Err(rejection) => Err(rejection.body_text()),
    };
    let (after, limit) = match page {
        Ok(page) => page,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    match list_postures(&ctx, after.as_ref(), limit).await {
        Ok(listing) => {
            let path = |next| format!("/internal/v1/postures?after={next}&limit={limit}");
            no_store(json!({
                "cursor": listing.cursor,
                "postures": listing.postures,
                "next": listing.next.map(path),
            }))
        }
        Err(failure) => error::to_internal(&failure),
    }
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
