//! `/micromdm`: the calls of MicroMDM that the historic coordinator makes, off unless configured.
//!
//! Bytes to types and back: names, shapes and refusals as MicroMDM's clients know them. What may be
//! asked, and how, is [`relay_command()`]'s.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Received;
use super::description::Octets;
use super::error::count;
use super::{Internal, MAX_JSON};
use crate::flows::relay_command::{self, Outcome, Wanted, Woken, relay_command};
use crate::flows::{Context, Failure};
use crate::ids::{CommandUuid, SerialNumber, Udid};
use crate::mdm::foreign::{Question, Spelled, read_command};
use crate::publication::micromdm::{Accepted, Asked, Devices, Payload};
use crate::reason::Reason;

/// Its name in metrics, and where refusals are kept.
const SURFACE: &str = "micromdm";

/// The one user MicroMDM has.
const USER: &str = "micromdm";

/// The calls.
pub fn routes() -> OpenApiRouter<Internal> {
    OpenApiRouter::new()
        .routes(routes!(devices))
        .routes(routes!(command))
        .routes(routes!(raw_command))
        .routes(routes!(push))
}

/// A refusal as MicroMDM's clients read it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayRefusal)]
struct RefusalV1 {
    error: String,
    reason: &'static str,
}

/// A refusal in MicroMDM's shape, with our reason beside it.
struct Refused {
    status: StatusCode,
    reason: &'static str,
    text: String,
    retry_after: Option<Duration>,
}

impl Refused {
    fn of(status: StatusCode, reason: Reason) -> Self {
        Self {
            status,
            reason: reason.code(),
            text: reason.owner_text().to_owned(),
            retry_after: None,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = RefusalV1 {
            error: self.text,
            reason: self.reason,
        };
        let mut response = answer(self.status, &body);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"micromdm\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait.as_secs().max(1)),
            );
        }
        response
    }
}

fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    (status, no_store, axum::Json(body)).into_response()
}

fn failed(failure: &Failure) -> Response {
    failure.log();
    let status = if failure.may_pass() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Refused::of(status, Reason::ServiceDegraded).into_response()
}

/// The refusal of whoever does not present the key.
fn unauthorized(ctx: &Context, headers: &HeaderMap) -> Option<Response> {
    let relay = ctx.settings.relay.as_ref();
    let presented = password(headers);
    if relay.is_some_and(|relay| presented.is_some_and(|key| relay.key.is(&key))) {
        return None;
    }
    tracing::info!(
        surface = SURFACE,
        "the key of MicroMDM's interface was not presented"
    );
    let refused = Refused {
        status: StatusCode::UNAUTHORIZED,
        reason: "unauthorized",
        text: "The user micromdm and the API key are wanted.".to_owned(),
        retry_after: None,
    };
    Some(refused.into_response())
}

/// The password in Basic credentials (RFC 7617) of MicroMDM's user.
fn password(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, password) = credentials.split_once(':')?;
    (user == USER).then(|| password.to_owned())
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = RelayedLookUp)]
struct LookUp {
    #[serde(default)]
    serial_number: Option<String>,
    /// MicroMDM's own name for it.
    #[serde(default)]
    filter_serial: Vec<String>,
}

/// Macs by their serial numbers. Who asks for no serial number is not given the fleet; one that nobody has, or
/// can have, is an empty list, as always.
#[utoipa::path(
    post, path = "/micromdm/v1/devices", tag = "MicroMDM",
    security(("micromdm" = [])),
    request_body = LookUp,
    responses(
        (status = 200, description = "Those that are known.", body = Devices),
        (status = 401, description = "The key is wanted.", body = RefusalV1, headers(("WWW-Authenticate" = String))),
        (status = 400, description = "The request is not valid.", body = RefusalV1),
        (status = 403, description = "Only two questions can be asked.", body = RefusalV1),
        (status = 404, description = "No such Mac.", body = RefusalV1),
        (status = 409, description = "It is not enrolled; or the name is that of another command.", body = RefusalV1),
        (status = 413, description = "The request is too large.", body = RefusalV1),
        (status = 500, description = "The service has a fault.", body = RefusalV1),
        (status = 429, description = "Not now; ask again.", body = RefusalV1, headers(("Retry-After" = u32))),
        (status = 503, description = "Not now; ask again.", body = RefusalV1),
    ),
)]
async fn devices(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Received(body): Received<MAX_JSON>,
) -> Response {
    if let Some(refusal) = unauthorized(&ctx, &headers) {
        return refusal;
    }
    let asked: LookUp = match body.map(|body| object(&body)) {
        Ok(Ok(asked)) => asked,
        Ok(Err(detail)) => return refused(&ctx, Reason::RequestMalformed, &detail),
        Err(reason) => return refused(&ctx, reason, "body"),
    };
    let serials: Vec<_> = asked
        .serial_number
        .into_iter()
        .chain(asked.filter_serial)
        .collect();
    if serials.is_empty() || serials.len() > MOST_SERIALS {
        return refused(&ctx, Reason::RequestMalformed, "serial_number");
    }
    let mut found = Vec::new();
    for serial in serials {
        let Ok(serial) = SerialNumber::parse(&serial) else {
            continue;
        };
        match relay_command::devices(&ctx, &serial).await {
            Ok(devices) => found.extend(devices),
            Err(failure) => return failed(&failure),
        }
    }
    answer(StatusCode::OK, &Devices { devices: found })
}

/// Serial numbers that one call may name.
const MOST_SERIALS: usize = 16;

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RelayedCommandRequest)]
struct Command {
    udid: String,
    request_type: String,
    #[serde(default)]
    queries: Vec<String>,
}

/// Asks a Mac.
#[utoipa::path(
    post, path = "/micromdm/v1/commands", tag = "MicroMDM",
    security(("micromdm" = [])),
    request_body = Command,
    responses(
        (status = 201, description = "It will be asked.", body = Accepted),
        (status = 401, description = "The key is wanted.", body = RefusalV1, headers(("WWW-Authenticate" = String))),
        (status = 400, description = "The request is not valid.", body = RefusalV1),
        (status = 403, description = "Only two questions can be asked.", body = RefusalV1),
        (status = 404, description = "No such Mac.", body = RefusalV1),
        (status = 409, description = "It is not enrolled; or the name is that of another command.", body = RefusalV1),
        (status = 413, description = "The request is too large.", body = RefusalV1),
        (status = 500, description = "The service has a fault.", body = RefusalV1),
        (status = 429, description = "Not now; ask again.", body = RefusalV1, headers(("Retry-After" = u32))),
        (status = 503, description = "Not now; ask again.", body = RefusalV1),
    ),
)]
async fn command(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Received(body): Received<MAX_JSON>,
) -> Response {
    if let Some(refusal) = unauthorized(&ctx, &headers) {
        return refusal;
    }
    let asked: Command = match body.map(|body| object(&body)) {
        Ok(Ok(asked)) => asked,
        Ok(Err(detail)) => return refused(&ctx, Reason::RequestMalformed, &detail),
        Err(reason) => return refused(&ctx, reason, "body"),
    };
    let queries = asked.queries.iter().map(String::as_str);
    let question = match Question::of(&asked.request_type, queries, None) {
        Ok(question) => question,
        Err(refusal) => return refused(&ctx, refusal.reason(), &asked.request_type),
    };
    ask(&ctx, &asked.udid, question, None).await
}

/// Asks a Mac, by a property list.
#[utoipa::path(
    post, path = "/micromdm/v1/commands/{udid}", tag = "MicroMDM",
    security(("micromdm" = [])),
    params(("udid" = Udid, Path)),
    request_body(content = Octets, content_type = "application/octet-stream", description = "A command as a property list."),
    responses(
        (status = 201, description = "It will be asked.", body = Accepted),
        (status = 401, description = "The key is wanted.", body = RefusalV1, headers(("WWW-Authenticate" = String))),
        (status = 400, description = "The request is not valid.", body = RefusalV1),
        (status = 403, description = "Only two questions can be asked.", body = RefusalV1),
        (status = 404, description = "No such Mac.", body = RefusalV1),
        (status = 409, description = "It is not enrolled; or the name is that of another command.", body = RefusalV1),
        (status = 413, description = "The request is too large.", body = RefusalV1),
        (status = 500, description = "The service has a fault.", body = RefusalV1),
        (status = 429, description = "Not now; ask again.", body = RefusalV1, headers(("Retry-After" = u32))),
        (status = 503, description = "Not now; ask again.", body = RefusalV1),
    ),
)]
async fn raw_command(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Path(udid): Path<String>,
    Received(body): Received<MAX_JSON>,
) -> Response {
    if let Some(refusal) = unauthorized(&ctx, &headers) {
        return refusal;
    }
    let body = match body {
        Ok(body) => body,
        Err(reason) => return refused(&ctx, reason, "body"),
    };
    match read_command(&body) {
        Ok((name, question)) => ask(&ctx, &udid, question, Some(name)).await,
        Err(refusal) => refused(&ctx, refusal.reason(), &refusal.to_string()),
    }
}

async fn ask(ctx: &Context, named: &str, question: Question, name: Option<Spelled>) -> Response {
    let Ok(udid) = Udid::parse(named) else {
        return refused(ctx, Reason::DeviceNotFound, "udid");
    };
    let is_raw = name.is_some();
    let wanted = Wanted {
        udid,
        question,
        name,
    };
    let outcome = match relay_command(ctx, &wanted).await {
        Ok(outcome) => outcome,
        Err(failure) => return failed(&failure),
    };
    let now = ctx.clock.now();
    let reason = match outcome {
        Outcome::Accepted(command_uuid) => {
            let payload = Payload {
                udid: is_raw.then_some(named),
                command_uuid: &command_uuid,
                command: Asked {
                    request_type: question.request_type(),
                },
            };
            return answer(StatusCode::CREATED, &Accepted { payload });
        }
        Outcome::AppleRateLimit(until) => {
            count(ctx, SURFACE, Reason::AppleRateLimit, "DeviceInformation");
            return later(Reason::AppleRateLimit, until.since(now));
        }
        Outcome::QueueFull => {
            count(ctx, SURFACE, Reason::ServiceDegraded, "queue full");
            return later(Reason::ServiceDegraded, QUEUE_FULL);
        }
        Outcome::DeviceNotFound => Reason::DeviceNotFound,
        Outcome::NotEnrolled => Reason::NotEnrolled,
        Outcome::NameTaken => Reason::NonceUnusable,
    };
    refused(ctx, reason, question.request_type())
}

/// When whoever meets a full queue may come again.
const QUEUE_FULL: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedPush)]
struct PushedV1 {
    /// `success` or `nothing to ask`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_notification_id: Option<CommandUuid>,
}

/// Wakes a Mac.
#[utoipa::path(
    get, path = "/micromdm/push/{udid}", tag = "MicroMDM",
    security(("micromdm" = [])),
    params(("udid" = Udid, Path)),
    responses(
        (status = 200, description = "It is woken.", body = PushedV1),
        (status = 401, description = "The key is wanted.", body = RefusalV1, headers(("WWW-Authenticate" = String))),
        (status = 400, description = "The request is not valid.", body = RefusalV1),
        (status = 403, description = "Only two questions can be asked.", body = RefusalV1),
        (status = 404, description = "No such Mac.", body = RefusalV1),
        (status = 409, description = "It is not enrolled; or the name is that of another command.", body = RefusalV1),
        (status = 413, description = "The request is too large.", body = RefusalV1),
        (status = 500, description = "The service has a fault.", body = RefusalV1),
        (status = 429, description = "Not now; ask again.", body = RefusalV1, headers(("Retry-After" = u32))),
        (status = 503, description = "Not now; ask again.", body = RefusalV1),
    ),
)]
async fn push(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Path(udid): Path<String>,
) -> Response {
    if let Some(refusal) = unauthorized(&ctx, &headers) {
        return refusal;
    }
    let Ok(udid) = Udid::parse(&udid) else {
        return refused(&ctx, Reason::DeviceNotFound, "udid");
    };
    let woken = match relay_command::wake(&ctx, &udid).await {
        Ok(woken) => woken,
        Err(failure) => return failed(&failure),
    };
    // Its clients look that there is a name, and for nothing by it.
    let name = CommandUuid::new(ctx.entropy.as_ref());
    match woken {
        Woken::Soon => answer(
            StatusCode::OK,
            &PushedV1 {
                status: "success",
                push_notification_id: Some(name),
            },
        ),
        Woken::NothingToAsk => answer(
            StatusCode::OK,
            &PushedV1 {
                status: "nothing to ask",
                push_notification_id: None,
            },
        ),
        Woken::NotBefore(until) => {
            count(&ctx, SURFACE, Reason::PushThrottled, "push");
            later(Reason::PushThrottled, until.since(ctx.clock.now()))
        }
        Woken::QueueFull => {
            count(&ctx, SURFACE, Reason::ServiceDegraded, "queue full");
            later(Reason::ServiceDegraded, QUEUE_FULL)
        }
        Woken::DeviceNotFound => refused(&ctx, Reason::DeviceNotFound, "push"),
        Woken::NotEnrolled => refused(&ctx, Reason::NotEnrolled, "push"),
    }
}

fn object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    serde_json::from_slice(body).map_err(|fault| fault.to_string())
}

fn later(reason: Reason, wait: Duration) -> Response {
    let refused = Refused {
        retry_after: Some(wait),
        ..Refused::of(StatusCode::TOO_MANY_REQUESTS, reason)
    };
    refused.into_response()
}

fn refused(ctx: &Context, reason: Reason, detail: &str) -> Response {
    count(
        ctx,
        SURFACE,
        reason,
        detail.chars().take(100).collect::<String>(),
    );
    let status = match reason {
        Reason::DeviceNotFound => StatusCode::NOT_FOUND,
        Reason::NotEnrolled | Reason::NonceUnusable => StatusCode::CONFLICT,
        Reason::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::MessageUnsupported => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    Refused::of(status, reason).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_micromdms_user_has_a_password() {
        let with = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header"));
            password(&headers)
        };
        let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
        assert_eq!(with(basic("micromdm:a:b")).as_deref(), Some("a:b"));
        assert_eq!(
            with(basic("micromdm:key").replace("Basic", "basic")).as_deref(),
            Some("key")
        );
        for other in [
            basic("MicroMDM:key"),
            basic(":key"),
            basic("micromdm"),
            basic(""),
            "Basic".to_owned(),
            "Basic !!!".to_owned(),
            "Bearer micromdm:key".to_owned(),
        ] {
            assert_eq!(with(other.clone()), None, "{other}");
        }
        assert_eq!(password(&HeaderMap::new()), None);
    }
}
