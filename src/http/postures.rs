//! `GET /internal/v1/devices/{device_id}/posture`, and `GET /internal/v1/postures`: all of them.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::conditional::is_unchanged;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::flows::Context;
use crate::flows::authorize::Act;
use crate::flows::list_postures::{self, list_postures};
use crate::flows::read_posture::{answer_posture, read_posture};
use crate::flows::sign_result::{Signed, sign_result};
use crate::ids::DeviceId;
use crate::publication::ear::MEDIA_TYPE;
use crate::publication::posture_v1::PostureV1;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Demand {
    #[param(inline)]
    at_least: Option<AtLeast>,
    /// base64url: echoed in a signed answer.
    nonce: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtLeast {
    /// Rather an error than evidence whose refresh is due.
    Fresh,
}

/// What is believed of a Mac, from whom, and until when. 409 where nothing was ever appraised of it, or nothing fresh is known.
#[utoipa::path(
    get, path = "/internal/v1/devices/{device_id}/posture", tag = "Macs",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(
        ("device_id" = DeviceId, Path),
        Demand,
        ("If-None-Match" = Option<String>, Header, description = "The entity tag of an earlier answer."),
    ),
    responses(
        (status = 200, description = "The posture, in the form that `Accept` names.", headers(("ETag" = String, description = "Of the JSON form.")),
            content((PostureV1 = "application/json"), (String = "application/eat+jwt"))),
        (status = 304, description = "As it was."),
        (status = 404, response = Problem),
        (status = 409, response = Problem),
    ),
)]
pub async fn posture(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(device_id): Path<String>,
    query: Result<Query<Demand>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
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
    if wants_result(&asker.headers) {
        return signed(&ctx, &device_id, demand.nonce.as_deref()).await;
    }
    if demand.nonce.is_some() {
        let detail = format!("a nonce is answered by what is signed: Accept: {MEDIA_TYPE}");
        return Problem::invalid_request(detail).into_response();
    }
    let posture = match answer_posture(&ctx, &device_id).await {
        Ok(Some(posture)) => posture,
        Ok(None) => return Problem::device_not_found().into_response(),
        Err(failure) => return error::to_internal(&failure),
    };
    // The revision changes with evidence, not with time: expiry is absolute, and the reader looks at
    // its clock. A reader that does not must still not be told that an ended verdict stands.
    let tag = format!("\"r{}\"", posture.revision);
    let unchanged = is_unchanged(&asker.headers, tag.as_bytes());
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

/// Whether the caller names the media type of results before all others; it is not what `*/*` means.
fn wants_result(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::ACCEPT).iter();
    let mut named = named.filter_map(|value| value.to_str().ok());
    named.any(|value| {
        value.split(',').any(|range| {
            let kind = range.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/eat+jwt")
        })
    })
}

/// The posture as an Attestation Result.
async fn signed(ctx: &Context, device_id: &DeviceId, nonce: Option<&str>) -> Response {
    let nonce = match nonce.map(read_nonce).transpose() {
        Ok(nonce) => nonce,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    match sign_result(ctx, device_id, nonce.as_deref()).await {
        Ok(Signed::Result(token)) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, token).into_response()
        }
        Ok(Signed::Nobody) => Problem::device_not_found().into_response(),
        Ok(Signed::NotAppraised) => Problem::not_appraised()
            .member("device_id", device_id.as_str())
            .into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// RFC 9711 section 4.1: 8 to 64 bytes.
fn read_nonce(text: &str) -> Result<Vec<u8>, &'static str> {
    let nonce = URL_SAFE_NO_PAD.decode(text).ok();
    nonce
        .filter(|nonce| (8..=64).contains(&nonce.len()))
        .ok_or("a nonce has 8 to 64 bytes, as base64url without padding")
}

/// Postures in one answer where nothing else is asked for.
const USUAL: usize = 100;

/// One page of what is believed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PosturesV1 {
    /// On the first page: the event after which everything that is not in the pages is told.
    cursor: Option<i64>,
    postures: Vec<PostureV1>,
    /// Where the next page is; `null` on the last one.
    next: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageOf {
    /// The Mac after which the page begins.
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

/// What is believed of every Mac, page by page, and from which event on to follow.
#[utoipa::path(
    get, path = "/internal/v1/postures", tag = "Macs",
    security(("token" = ["coordinator", "operator", "auditor"])),
    params(PageOf),
    responses((status = 200, description = "One page.", body = PosturesV1)),
)]
pub async fn list(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    page: Result<Query<PageOf>, QueryRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::ReadDevices).await {
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
            no_store(PosturesV1 {
                cursor: listing.cursor,
                postures: listing.postures,
                next: listing.next.map(path),
            })
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
