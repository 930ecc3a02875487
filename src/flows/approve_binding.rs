//! An operator says that a provider session belongs to the Mac it claims.

use super::join_session::{locked, prove, release_attestation};
use super::read_binding::judged;
use super::{Context, Failure};
use crate::audit::{Entry, Verb, Who, Words};
use crate::enrollment::State;
use crate::ids::SessionId;
use crate::posture::Posture;
use crate::posture::key_binding::Proof;
use crate::publication::event;
use crate::store::Event;

/// What an approval came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The session's key is proved for its Mac; `changed` is false when an operator had said so
    /// before.
    Approved {
        changed: bool,
    },
    BindingNotFound,
    /// The session is about no Mac that is enrolled.
    NotEnrolled,
    /// Nothing shows that the session has the key it names.
    NotSpoken,
}

/// Approves a session. `note` is told to subscribers.
pub async fn approve_binding(
    ctx: &Context,
    session_id: &SessionId,
    note: &str,
    who: &Who,
) -> Result<Outcome, Failure> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    let session = locked(&mut tx, session_id, None).await?;
    let Some(session) = session.filter(|session| session.is_live()) else {
        return Ok(Outcome::BindingNotFound);
    };
    let enrollment = match &session.device_id {
        None => None,
        Some(device_id) => tx.enrollment(device_id).await?,
    };
    let Some(enrollment) = enrollment.filter(|it| it.state == State::Enrolled) else {
        return Ok(Outcome::NotEnrolled);
    };
    if !session.has_spoken() {
        return Ok(Outcome::NotSpoken);
    }
    let device_id = &enrollment.device_id;
    let posture = tx.posture(device_id).await?;
    let posture = posture.unwrap_or_else(|| Posture::unknown(device_id.clone(), now));
    let key = session.key.text();
    let is_last = posture
        .key_to_name()
        .is_some_and(|last| last.se_public_key == key && last.proof == Proof::Operator);
    if is_last {
        return Ok(Outcome::Approved { changed: false });
    }
    prove(
        ctx,
        &mut tx,
        &enrollment,
        key,
        Proof::Operator,
        Some(posture),
        now,
    )
    .await?;
    let wake = release_attestation(&mut tx, &enrollment, now).await?;
    let judgement = judged(ctx, &tx, &session, now).await?;
    let mut body = event::binding_changed(&session, "approved", &judgement);
    body["note"] = note.into();
    tx.append_event_about(
        Some(device_id),
        &Event::new(event::BINDING_CHANGED, now, body),
    )
    .await?;
    let entry = Entry::new(who, Verb::BindingApprove, session_id, now)
        .after("device_id", device_id)
        .why(Words(note));
    tx.record(entry);
    tx.commit().await?;
    if let Some((device_id, priority)) = &wake {
        ctx.wakeups.ask(device_id, *priority);
    }
    tracing::info!(
        session.id = session_id.as_str(),
        device.id = device_id.as_str(),
        "an operator approved a provider session"
    );
    Ok(Outcome::Approved { changed: true })
}
