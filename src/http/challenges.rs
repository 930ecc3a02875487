//! `/internal/v1/challenges`: is the holder of a session's key still there?

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::flows::authorize::Act;
use crate::flows::challenge::{Answered, Issued, answer, hand_over, issue};
use crate::flows::read_binding::standing;
use crate::flows::{Context, Failure};
use crate::ids::{ChallengeId, SessionId};
use crate::provider::Challenge;
use crate::time::Timestamp;

/// What is asked for: a challenge of ours, or that an exchange of the coordinator's own be counted.
#[derive(Debug)]
struct Request<'a> {
    session_id: SessionId,
    exchange: Option<Exchange<'a>>,
}

#[derive(Debug)]
struct Exchange<'a> {
    challenge: Challenge,
    /// The provider's frame, byte for byte; none when it did not answer in time.
    response: Option<&'a [u8]>,
    received_at: Timestamp,
}

/// `POST /internal/v1/challenges`.
pub async fn start(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::Bind).await {
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
            let body = json!({
                "challenge_id": issued.challenge_id,
                "session": session_id,
                "nonce": issued.challenge.nonce(),
                "timestamp": issued.challenge.timestamp(),
                "answer_by": answer_by,
                // Where it is answered well at once; after a time-out the next is due at once.
                "next_due": issued.challenge.issued_at().plus(rules.every),
            });
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

/// `POST /internal/v1/challenges/{challenge_id}/response`: the provider's `attestation_response` as
/// it came.
pub async fn respond(
    State(ctx): State<Arc<Context>>,
    headers: HeaderMap,
    Path(challenge_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    if let Err(refusal) = allowed(&ctx, &headers, Act::Bind).await {
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
        Ok(Answered::Concluded(mut told, glance)) => {
            let now = ctx.clock.now();
            told["challenge_id"] = json!(challenge_id);
            if let Some(glance) = &glance {
                let binding = standing(glance).publish(&ctx.policy, now);
                told["session"] = json!(binding.session);
                told["last_good_at"] = json!(binding.last_good_at);
                told["next_due"] = json!(binding.next_challenge_at);
                told["routable"] = json!(binding.routable);
                told["routable_until"] = json!(binding.routable_until);
                told["trust_level"] = json!(binding.trust_level);
                told["binding"] = json!(binding);
            }
            no_store(told)
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
