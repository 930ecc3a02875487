//! `/internal/v1/challenges`: is the holder of a session's key still there?

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::flows::authorize::Act;
use crate::flows::challenge::{Answered, Issued, answer, hand_over, issue};
use crate::flows::read_binding::standing;
use crate::flows::{Context, Failure};
use crate::ids::{ChallengeId, SessionId};
use crate::posture::trust::Level;
use crate::provider::Challenge;
use crate::publication::binding_v1::BindingV1;
use crate::publication::challenge_v1::OutcomeV1;
use crate::time::Timestamp;

/// A challenge for the provider to sign.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ChallengeV1<'a> {
    challenge_id: &'a ChallengeId,
    session: &'a SessionId,
    nonce: &'a str,
    timestamp: &'a str,
    answer_by: Timestamp,
    /// Where it is answered well at once; after a time-out the next is due at once.
    next_due: Timestamp,
}

/// What an answer came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ConcludedV1<'a> {
    #[serde(flatten)]
    #[schema(value_type = OutcomeV1)]
    outcome: Value,
    /// `null` for an exchange that was handed over.
    challenge_id: Option<&'a ChallengeId>,
    /// Absent where the session is gone.
    #[serde(flatten)]
    #[schema(value_type = SinceV1)]
    since: Option<SinceV1<'a>>,
}

/// The session since.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SessionSinceV1)]
struct SinceV1<'a> {
    #[schema(required = false)]
    session: &'a SessionId,
    last_good_at: Option<Timestamp>,
    next_due: Option<Timestamp>,
    #[schema(required = false)]
    routable: bool,
    routable_until: Option<Timestamp>,
    #[schema(required = false)]
    trust_level: Level,
    #[schema(required = false)]
    binding: BindingV1<'a>,
}

/// What is asked for: a challenge of ours, or that an exchange of the coordinator's own be counted.
#[derive(Debug)]
struct Request<'a> {
    session_id: SessionId,
    exchange: Option<Exchange<'a>>,
}

impl ToSchema for Request<'_> {
    fn name() -> std::borrow::Cow<'static, str> {
        "ChallengeRequest".into()
    }
}

/// Read member by member, because the response is kept byte for byte.
impl PartialSchema for Request<'_> {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let challenge = ObjectBuilder::new()
            .property("type", text())
            .property("nonce", text())
            .property("timestamp", text())
            .required("nonce")
            .required("timestamp");
        let response = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
            .description(Some(
                "The provider's frame; `null` when it did not answer in time.",
            ));
        ObjectBuilder::new()
            .description(Some(
                "A session to be challenged; or, with the other three, a finished exchange.",
            ))
            .property("session", SessionId::schema())
            .property("challenge", challenge)
            .property("response", response)
            .property("received_at", Timestamp::schema())
            .required("session")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

#[derive(Debug)]
struct Exchange<'a> {
    challenge: Challenge,
    /// The provider's frame, byte for byte; none when it did not answer in time.
    response: Option<&'a [u8]>,
    received_at: Timestamp,
}

/// Asks for a challenge, or hands over an exchange that the coordinator had with the provider itself.
#[utoipa::path(
    post, path = "/internal/v1/challenges", tag = "Challenges",
    security(("token" = ["coordinator", "operator"])),
    request_body = Request,
    responses(
        (status = 200, description = "An exchange of the coordinator's own was looked at.", body = ConcludedV1),
        (status = 201, description = "A challenge to hand on.", body = ChallengeV1),
        (status = 404, response = Problem),
        (status = 409, response = Problem),
    ),
)]
pub async fn start(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::Bind).await {
        return refusal;
    }
    let Ok(body) = body else {
        return Problem::request_too_large("64 KiB").into_response();
    };
    let Request {
        session_id,
        exchange,
    } = match read_request(&body) {
        Ok(request) => request,
        Err(detail) => return Problem::invalid_request(detail).into_response(),
    };
    if let Some(exchange) = exchange {
        let handed = hand_over(
            &ctx,
            &session_id,
            exchange.challenge,
            exchange.response,
            exchange.received_at,
        );
        return concluded(&ctx, None, handed.await);
    }
    match issue(&ctx, &session_id).await {
        Ok(Issued::Challenge(issued, answer_by)) => {
            let rules = ctx.policy.rules.challenge.rules();
            let body = ChallengeV1 {
                challenge_id: &issued.challenge_id,
                session: &session_id,
                nonce: issued.challenge.nonce(),
                timestamp: issued.challenge.timestamp(),
                answer_by,
                next_due: issued.challenge.issued_at().plus(rules.every),
            };
            let headers = [(header::CACHE_CONTROL, "no-store")];
            (StatusCode::CREATED, headers, Json(body)).into_response()
        }
        Ok(Issued::Outstanding(until)) => Problem::challenge_outstanding()
            .member("session", session_id.as_str())
            .member("answer_by", until.to_string())
            .into_response(),
        Ok(Issued::BindingNotFound) => Problem::binding_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

/// The provider's answer to a challenge.
#[utoipa::path(
    post, path = "/internal/v1/challenges/{challenge_id}/response", tag = "Challenges",
    security(("token" = ["coordinator", "operator"])),
    params(("challenge_id" = ChallengeId, Path)),
    request_body(content = serde_json::Map<String, Value>, description = "The frame `attestation_response`, as it came."),
    responses((status = 200, description = "What it came to.", body = ConcludedV1), (status = 404, response = Problem)),
)]
pub async fn respond(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(challenge_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &asker, Act::Bind).await {
        return refusal;
    }
    let Ok(body) = body else {
        return Problem::request_too_large("64 KiB").into_response();
    };
    // What is no object at all is a fault of whoever carries answers, not the provider's answer.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Problem::invalid_request("the body must be a JSON object").into_response();
    }
    let Ok(challenge_id) = ChallengeId::parse(&challenge_id) else {
        return Problem::challenge_not_found().into_response();
    };
    let answered = answer(&ctx, &challenge_id, &body).await;
    concluded(&ctx, Some(&challenge_id), answered)
}

fn concluded(
    ctx: &Context,
    challenge_id: Option<&ChallengeId>,
    answered: Result<Answered, Failure>,
) -> Response {
    match answered {
        Ok(Answered::Concluded(outcome, glance)) => {
            let now = ctx.clock.now();
            let standing = glance.as_ref().map(standing);
            let since = standing.map(|standing| {
                let binding = standing.publish(&ctx.policy, now);
                SinceV1 {
                    session: binding.session,
                    last_good_at: binding.last_good_at,
                    next_due: binding.next_challenge_at,
                    routable: binding.routable,
                    routable_until: binding.routable_until,
                    trust_level: binding.trust_level,
                    binding,
                }
            });
            no_store(ConcludedV1 {
                outcome,
                challenge_id,
                since,
            })
        }
        Ok(Answered::BindingNotFound) => Problem::binding_not_found().into_response(),
        Ok(Answered::ChallengeNotFound) => Problem::challenge_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

fn read_request(body: &[u8]) -> Result<Request<'_>, String> {
    let (mut session, mut challenge, mut response, mut received_at) = (None, None, None, None);
    for (name, value) in crate::json::members(body).map_err(|fault| fault.to_string())? {
        let fault = |fault: serde_json::Error| format!("{name}: {fault}");
        match name.as_str() {
            "session" => session = Some(serde_json::from_str(value.get()).map_err(fault)?),
            "challenge" => challenge = Some(read_challenge(value.get().as_bytes())?),
            "response" => response = Some(value.get().as_bytes()),
            "received_at" => received_at = Some(serde_json::from_str(value.get()).map_err(fault)?),
            _ => return Err(format!("unknown member {name}")),
        }
    }
    let session_id = session.ok_or("session is missing")?;
    let exchange = match (challenge, response, received_at) {
        (None, None, None) => None,
        (Some(challenge), Some(response), Some(received_at)) => Some(Exchange {
            challenge,
            response: (response != b"null").then_some(response),
            received_at,
        }),
        _ => return Err("a finished exchange has challenge, response and received_at".to_owned()),
    };
    Ok(Request {
        session_id,
        exchange,
    })
}

fn read_challenge(body: &[u8]) -> Result<Challenge, String> {
    let members = crate::json::object(body).map_err(|fault| format!("challenge: {fault}"))?;
    let (mut nonce, mut timestamp) = (None, None);
    for (name, value) in members {
        match (name.as_str(), value) {
            ("nonce", Value::String(text)) => nonce = Some(text),
            ("timestamp", Value::String(text)) => timestamp = Some(text),
            // As it was sent to the provider.
            ("type", Value::String(text)) if text == "attestation_challenge" => {}
            _ => return Err(format!("challenge: {name} is not what it must be")),
        }
    }
    let (Some(nonce), Some(timestamp)) = (nonce, timestamp) else {
        return Err("challenge: nonce and timestamp must be there".to_owned());
    };
    Challenge::retell(&nonce, &timestamp).map_err(|fault| format!("challenge: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn a_finished_exchange_is_whole_and_its_answer_stays_as_it_came() {
        let challenge = format!("{{\"nonce\":\"{NONCE}\",\"timestamp\":\"2026-09-20T11:59:58Z\"}}");
        let whole = format!(
            "{{\"session\":\"s-1\",\"challenge\":{challenge},\
             \"response\":{{ \"a\" : 1 }},\"received_at\":\"2026-09-20T11:59:59Z\"}}"
        );
        let request = read_request(whole.as_bytes()).expect("well formed");
        let exchange = request.exchange.expect("an exchange");
        assert_eq!(exchange.response, Some(&b"{ \"a\" : 1 }"[..]));
        assert_eq!(exchange.challenge.nonce(), NONCE);
        let silent = whole.replace("{ \"a\" : 1 }", "null");
        let request = read_request(silent.as_bytes()).expect("well formed");
        assert_eq!(request.exchange.expect("an exchange").response, None);
        assert!(
            read_request(b"{\"session\":\"s-1\"}")
                .expect("read")
                .exchange
                .is_none()
        );

        for bad in [
            "{}",
            "[]",
            "{\"session\":\"s-1\",\"session\":\"s-2\"}",
            "{\"session\":\"s-1\",\"more\":1}",
            "{\"session\":\"../x\"}",
            "{\"session\":\"s-1\",\"response\":{}}",
            &whole.replace("\"nonce\":\"AAEC", "\"nonce\":\"AA"),
            &whole.replace("\"timestamp\":\"2026", "\"timestamp\":\"x026"),
            &whole.replace("\"nonce\":", "\"nonce\":\"\",\"nonce\":"),
            &whole.replace("\"nonce\":", "\"other\":1,\"nonce\":"),
        ] {
            assert!(read_request(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
