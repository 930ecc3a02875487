//! `POST /internal/v1/tickets`: the coordinator has a profile made for somebody it knows.
//!
//! It answers with links that the coordinator hands on: a page that says what is installed, where the
//! profile waits; the profile itself, for software that downloads; and the progress. Whoever asks for
//! `application/x-apple-aspen-config` gets the profile at once, as a coordinator needs that serves
//! profiles under its own name.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::body::Received;
use super::description::Octets;
use super::enroll::{Described, attached};
use super::internal::allowed;
use super::problem::Problem;
use super::{MAX_JSON, error};
use crate::enrollment::Protocol;
use crate::enrollment::ticket::{Bounds, NOT_AN_ACCOUNT, is_account};
use crate::flows::authorize::Act;
use crate::flows::deliver_profile::deliver_profile;
use crate::flows::offer_profile::{Links, offer_profile};
use crate::flows::{Context, Failure};
use crate::ids::{SerialNumber, TicketId};
use crate::mdm::PROFILE;
use crate::provider::SePublicKey;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Its name in metrics, and where refusals are kept.
const SURFACE: &str = "ticket";

/// Links to a profile; whoever has one of the first two can enrol a Mac by it, once.
#[derive(Serialize, utoipa::ToSchema)]
struct TicketV1<'a> {
    ticket_id: &'a TicketId,
    /// For the owner's browser.
    enroll_url: &'a str,
    /// For software that downloads.
    profile_url: &'a str,
    fetch_until: Timestamp,
    progress_id: &'a str,
    progress_url: &'a str,
    expires_at: Timestamp,
}

/// For whom a profile is, and for what Mac.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TicketRequest)]
struct Request {
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    se_public_key: Option<String>,
    #[serde(default)]
    serial_number: Option<String>,
    #[serde(default)]
    identity: Option<Protocol>,
    #[serde(default)]
    hardware: Option<crate::enrollment::platform::MacKind>,
    #[serde(default)]
    os_version: Option<String>,
}

/// Has a profile made for somebody the coordinator knows.
#[utoipa::path(
    post, path = "/internal/v1/tickets", tag = "Enrolment",
    security(("token" = ["coordinator", "operator"])),
    request_body = Option<Request>,
    responses(
        (status = 200, description = "The profile, for who accepts one.", body = Octets, content_type = "application/x-apple-aspen-config"),
        (status = 201, description = "Where it is to be had.", body = TicketV1),
    ),
)]
pub async fn issue(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Received(body): Received<MAX_JSON>,
) -> Response {
    let who = match allowed(&ctx, &asker, Act::Enrol).await {
        Ok(caller) => caller.who(),
        Err(refusal) => return refusal,
    };
    let body = match body {
        Ok(body) => body,
        Err(reason) => {
            error::count(&ctx, SURFACE, reason, "body");
            return match reason {
                Reason::RequestTooLarge => Problem::request_too_large("64 KiB").into_response(),
                _ => Problem::invalid_request("the request broke off").into_response(),
            };
        }
    };
    let bounds = match bounds(&body, ctx.settings.identity) {
        Ok(bounds) => bounds,
        Err((reason, detail)) => {
            // The text repeats what was sent, which what is kept of refusals must not.
            error::count(&ctx, SURFACE, reason, "body");
            return Problem::invalid_request(detail)
                .reason(reason)
                .into_response();
        }
    };
    let wants_profile = asker
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(PROFILE));
    if wants_profile {
        return match deliver_profile(&ctx, bounds, Some(&who)).await {
            Ok(delivered) => attached(&ctx, delivered),
            Err(failure) => failed(&failure),
        };
    }
    match offer_profile(&ctx, bounds, Some(&who)).await {
        Ok(offer) => {
            let links = Links::of(&offer, &ctx.settings.server_id);
            let body = TicketV1 {
                ticket_id: &offer.ticket_id,
                enroll_url: links.page.expose(),
                profile_url: links.profile.expose(),
                fetch_until: offer.fetch_until,
                progress_id: &offer.progress_id,
                progress_url: &links.progress,
                expires_at: offer.expires_at,
            };
            let no_store = [(header::CACHE_CONTROL, "no-store")];
            (StatusCode::CREATED, no_store, axum::Json(body)).into_response()
        }
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> Response {
    match failure {
        Failure::NoPushCertificate => Problem::no_push_certificate().into_response(),
        other => error::to_internal(other),
    }
}

fn bounds(body: &[u8], otherwise: Protocol) -> Result<Bounds, (Reason, String)> {
    let malformed = |detail: &str| (Reason::RequestMalformed, detail.to_owned());
    let body = if body.is_empty() { b"{}" } else { body };
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("the body must be a JSON object"));
    }
    let request: Request =
        serde_json::from_slice(body).map_err(|fault| malformed(&fault.to_string()))?;
    let described = Described {
        identity: request.identity,
        hardware: request.hardware,
        os_version: request.os_version,
    };
    let protocol = described
        .protocol(otherwise)
        .map_err(|fault| malformed(&fault))?;
    if request
        .account
        .as_deref()
        .is_some_and(|name| !is_account(name))
    {
        return Err(malformed(NOT_AN_ACCOUNT));
    }
    let serial = match request.serial_number.as_deref() {
        None => None,
        Some(text) => Some(
            SerialNumber::parse(text)
                .map_err(|_| malformed("serial_number must match ^[A-Z0-9]{8,14}$"))?,
        ),
    };
    let se_public_key = match request.se_public_key.as_deref() {
        None => None,
        Some(text) => {
            let key = SePublicKey::parse(text)
                .map_err(|refusal| (refusal.reason(), format!("se_public_key: {refusal}")))?;
            Some(key.text().to_owned())
        }
    };
    Ok(Bounds {
        serial,
        account: request.account,
        se_public_key,
        protocol,
    })
}
