//! `POST /internal/v1/devices/{device_id}/revoke` and `/restore`, for operators.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::asker::Asker;
use super::error;
use super::internal::{allowed, no_store};
use super::problem::Problem;
use crate::audit::Who;
use crate::flows::authorize::Act;
use crate::flows::revoke::{Changed, MAX_NOTE, restore, revoke};
use crate::flows::{Context, Failure};
use crate::ids::DeviceId;
use crate::posture::Verdict;

/// What an operator notes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OperatorsNote)]
pub(super) struct Note {
    /// Why, in the operator's words; told to subscribers.
    #[serde(default)]
    reason: String,
}

/// Withdraws trust in a Mac, whoever enrols it again.
#[utoipa::path(
    post, path = "/internal/v1/devices/{device_id}/revoke", tag = "Macs",
    security(("token" = ["operator"])),
    params(("device_id" = DeviceId, Path)),
    request_body = Option<Note>,
    responses((status = 200, description = "What is so since.", body = RevocationV1), (status = 404, response = Problem)),
)]
pub async fn withdraw(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(device_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (device_id, note, who) = match asked(&ctx, &asker, &device_id, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let now = ctx.clock.now();
    answer(revoke(&ctx.store, &ctx.policy, &device_id, &note, &who, now).await)
}

/// Gives it back.
#[utoipa::path(
    post, path = "/internal/v1/devices/{device_id}/restore", tag = "Macs",
    security(("token" = ["operator"])),
    params(("device_id" = DeviceId, Path)),
    request_body = Option<Note>,
    responses((status = 200, description = "What is so since.", body = RevocationV1), (status = 404, response = Problem)),
)]
pub async fn give_back(
    State(ctx): State<Arc<Context>>,
    asker: Asker,
    Path(device_id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (device_id, note, who) = match asked(&ctx, &asker, &device_id, body).await {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    let now = ctx.clock.now();
    answer(restore(&ctx.store, &ctx.policy, &device_id, &note, &who, now).await)
}

async fn asked(
    ctx: &Context,
    asker: &Asker,
    device_id: &str,
    body: Result<Bytes, BytesRejection>,
) -> Result<(DeviceId, String, Who), Response> {
    let (note, who) = noted(ctx, asker, Act::Administer, body).await?;
    match DeviceId::parse(device_id) {
        Ok(device_id) => Ok((device_id, note, who)),
        Err(_) => Err(Problem::device_not_found().into_response()),
    }
}

/// What somebody notes about what they want done, and who that is; whoever is none, or says something else, is
/// refused.
pub(super) async fn noted(
    ctx: &Context,
    asker: &Asker,
    act: Act,
    body: Result<Bytes, BytesRejection>,
) -> Result<(String, Who), Response> {
    let caller = allowed(ctx, asker, act).await?;
    let Ok(body) = body else {
        return Err(Problem::request_too_large("64 KiB").into_response());
    };
    match note(&body) {
        Ok(note) => Ok((note, caller.who())),
        Err(detail) => Err(Problem::invalid_request(detail).into_response()),
    }
}

/// The note in a body; nothing at all is no note.
fn note(body: &[u8]) -> Result<String, String> {
    if body.is_empty() {
        return Ok(String::new());
    }
    // Derived readers take a JSON array for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    let Note { reason } = serde_json::from_slice(body).map_err(|fault| fault.to_string())?;
    if reason.chars().count() > MAX_NOTE || reason.chars().any(char::is_control) {
        return Err(format!(
            "reason must be at most {MAX_NOTE} characters, none of them a control character"
        ));
    }
    Ok(reason)
}

/// Trust withdrawn, or given back.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RevocationV1 {
    device_id: DeviceId,
    /// False when it was so before.
    changed: bool,
    revocation_epoch: u64,
    identities_withdrawn: usize,
    verdict: Verdict,
}

fn answer(outcome: Result<Option<Changed>, Failure>) -> Response {
    match outcome {
        Ok(Some(changed)) => no_store(RevocationV1 {
            device_id: changed.device_id,
            changed: changed.changed,
            revocation_epoch: changed.revocation_epoch,
            identities_withdrawn: changed.identities,
            verdict: changed.verdict,
        }),
        Ok(None) => Problem::device_not_found().into_response(),
        Err(failure) => error::to_internal(&failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_short_plain_text_or_nothing() {
        assert_eq!(note(b""), Ok(String::new()));
        assert_eq!(note(b"{}"), Ok(String::new()));
        assert_eq!(note(b"{\"reason\":\"stolen\"}"), Ok("stolen".to_owned()));
        let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(MAX_NOTE + 1));
        for bad in [
            &b"[]"[..],
            b"{\"why\":\"x\"}",
            b"{\"reason\":\"a\\nb\"}",
            long.as_bytes(),
        ] {
            assert!(note(bad).is_err());
        }
    }
}
