//! `POST /v1/enroll`.
//!
//! Both historic forms of the request are taken: `{"serial_number": "…"}` binds the ticket to that
//! serial number, `{}` (or an empty serial number) leaves it open. Beside it the request may say
//! which identity is wanted (`identity`), or what the Mac is (`hardware`, `os_version`).

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::body::Received;
use super::description::Octets;
use super::error::EnrollError;
use super::{MAX_JSON, Public, error};
use crate::enrollment::platform::{self, MacKind};
use crate::enrollment::profile::file_name;
use crate::enrollment::ticket::Bounds;
use crate::enrollment::{Platform, Protocol};
use crate::flows::Context;
use crate::flows::deliver_profile::{Delivered, deliver_profile};
use crate::ids::SerialNumber;
use crate::mdm::PROFILE;
use crate::reason::Reason;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct EnrollRequest {
    /// The ticket is bound to it.
    #[serde(default)]
    serial_number: Option<String>,
    #[serde(default)]
    identity: Option<Protocol>,
    #[serde(default)]
    hardware: Option<MacKind>,
    #[serde(default)]
    os_version: Option<String>,
}

/// What a request says of the Mac that a profile is for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Described {
    pub identity: Option<Protocol>,
    pub hardware: Option<MacKind>,
    pub os_version: Option<String>,
}

impl Described {
    /// Which identity its profile asks for; `otherwise` where it says nothing that decides.
    ///
    /// # Refusals
    /// No version; the text is for the person who asked.
    pub fn protocol(&self, otherwise: Protocol) -> Result<Protocol, String> {
        let macos = match self.os_version.as_deref() {
            None | Some("") => None,
            Some(version) => Some(
                platform::major(version)
                    .ok_or_else(|| "os_version must be a version such as 14.5".to_owned())?,
            ),
        };
        let platform = Platform {
            wanted: self.identity,
            hardware: self.hardware,
            macos,
        };
        Ok(platform.protocol(otherwise))
    }
}

/// Its name in metrics, and where refusals are kept.
const SURFACE: &str = "enroll";

const INVALID: &str = "invalid_request_error";

/// A profile for a Mac, in the historic form.
#[utoipa::path(
    post, path = "/v1/enroll", tag = "Enrolment",
    request_body = Option<EnrollRequest>,
    responses(
        (status = 200, description = "A signed profile, good for one Mac and one hour.", body = Octets, content_type = "application/x-apple-aspen-config", headers(("Link" = String, description = "Where the progress is told, `rel=status`."), ("Content-Disposition" = String))),
        (status = 400, description = "The request is not valid.", body = EnrollError),
        (status = 413, description = "The request is too large.", body = EnrollError),
        (status = 429, description = "Too often; ask again.", body = EnrollError, headers(("Retry-After" = u32))),
        (status = 500, description = "The service has a fault.", body = EnrollError),
        (status = 503, description = "Not now; ask again.", body = EnrollError),
    ),
)]
pub async fn enroll(
    State(public): State<Public>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    Received(body): Received<MAX_JSON>,
) -> Response {
    if !public.enroll_limit.allows(peer.as_deref(), &headers) {
        let message = "too many profiles were asked for from this address; wait a minute";
        return error::too_often(message, "60");
    }
    let read = match &body {
        Ok(body) => bounds(body, public.ctx.settings.identity)
            .map_err(|message| (Reason::RequestMalformed, message)),
        Err(Reason::RequestTooLarge) => Err((
            Reason::RequestTooLarge,
            "the request is larger than 64 KiB".to_owned(),
        )),
        Err(reason) => Err((*reason, "the request broke off".to_owned())),
    };
    let bounds = match read {
        Ok(bounds) => bounds,
        Err((reason, message)) => {
            // The message repeats what was sent, which what is kept of refusals must not.
            error::count(&public.ctx, SURFACE, reason, "body");
            let status = match reason {
                Reason::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return error::enroll_error(status, INVALID, &message);
        }
    };
    match deliver_profile(&public.ctx, bounds, None).await {
        Ok(delivered) => attached(&public.ctx, delivered),
        Err(failure) => error::to_enroll(&failure),
    }
}

/// A profile as a file to be installed, with a link to the progress of its enrolment.
pub fn attached(ctx: &Context, delivered: Delivered) -> Response {
    let progress = format!(
        "<{}/v1/enrollments/{}>; rel=\"status\"",
        ctx.settings.server_id, delivered.ticket.progress_id
    );
    let name = file_name(delivered.ticket.serial.as_ref());
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, PROFILE.to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
        (header::LINK, progress),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, delivered.profile).into_response()
}

/// What a request asks for: `{}`, or one serial number the ticket is bound to; and which identity,
/// `otherwise` where it says nothing that decides.
///
/// # Refusals
/// Not JSON of this form, no serial number or no version; the text says which, for the person who
/// asked.
pub fn bounds(body: &[u8], otherwise: Protocol) -> Result<Bounds, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    let request: EnrollRequest =
        serde_json::from_slice(body).map_err(|fault| format!("the body is not valid: {fault}"))?;
    let serial = match request.serial_number.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            SerialNumber::parse(text)
                .map_err(|_| "serial_number must match ^[A-Z0-9]{8,14}$".to_owned())?,
        ),
    };
    let described = Described {
        identity: request.identity,
        hardware: request.hardware,
        os_version: request.os_version,
    };
    Ok(Bounds {
        serial,
        protocol: described.protocol(otherwise)?,
        ..Bounds::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_historic_forms_are_read() {
        let read = |body: &[u8]| bounds(body, Protocol::Acme);
        let serial = |body: &[u8]| read(body).map(|b| b.serial.map(|s| s.to_string()));
        assert_eq!(
            serial(b"{\"serial_number\":\"C02XL3FHJG5J\"}"),
            Ok(Some("C02XL3FHJG5J".to_owned()))
        );
        for open in [
            &b"{}"[..],
            b"",
            b"{\"serial_number\":\"\"}",
            b"{\"serial_number\":null}",
        ] {
            assert_eq!(serial(open), Ok(None));
        }
        for bad in [
            &b"{not json"[..],
            b"[]",
            b"{\"serial_number\":\"c02xl3fhjg5j\"}",
            b"{\"serial\":\"x\"}",
            b"{\"identity\":\"none\"}",
            b"{\"hardware\":\"toaster\"}",
            b"{\"os_version\":\"Sonoma\"}",
        ] {
            assert!(serial(bad).is_err());
        }
    }

    #[test]
    fn what_a_request_says_of_the_mac_chooses_the_identity() {
        let chosen = |body: &[u8]| bounds(body, Protocol::Acme).map(|bounds| bounds.protocol);
        assert_eq!(chosen(b"{}"), Ok(Protocol::Acme));
        for scep in [
            &b"{\"identity\":\"scep\"}"[..],
            b"{\"hardware\":\"intel\",\"os_version\":\"15.1\"}",
            b"{\"hardware\":\"virtual_machine\"}",
            b"{\"hardware\":\"apple_silicon\",\"os_version\":\"13.6\"}",
        ] {
            assert_eq!(chosen(scep), Ok(Protocol::Scep));
        }
        let modern = b"{\"hardware\":\"apple_silicon\",\"os_version\":\"26.6.2\"}";
        assert_eq!(
            bounds(modern, Protocol::Scep).map(|b| b.protocol),
            Ok(Protocol::Scep)
        );
    }
}
