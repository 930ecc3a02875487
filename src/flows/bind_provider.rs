//! A provider session begins, goes on under another key, or ends.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::join_session::{ask_after_restart, darken, join, join_waiting, locked, tell};
use super::read_binding::read_binding;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::{BindingId, SessionId};
use crate::provider::session::{Judged, OtherAccount, Registered};
use crate::provider::{Registration, Session};
use crate::store::{Glance, StoreError};
use crate::time::Timestamp;
use crate::verification::Priority;

/// How often a change is tried again that somebody else forestalled.
const TRIES: u32 = 3;

/// How a registration is answered.
#[derive(Debug)]
pub enum Outcome {
    Bound(Glance),
    /// The session lives and is of another account.
    OtherAccount,
}

/// Registers a session. The blob is verified over its exact bytes, and a blob that is not good is an
/// answer, not an error: the session is known, and worth nothing.
///
/// Repeated, it changes nothing. A session id that names another key or process by now is another
/// binding.
pub async fn bind_provider(
    ctx: &Context,
    session_id: &SessionId,
    registration: Registration,
) -> Result<Outcome, Failure> {
    demand(ctx)?;
    let now = ctx.clock.now();
    let known = ctx.store.read().await?.session(session_id).await?;
    if known.is_none_or(|known| !known.is_registered_by(&registration)) {
        // Before the store's one writer is asked for.
        let judged = registration.judge(now);
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match register(ctx, session_id, judged.clone(), now).await {
                Err(Failure::Store(StoreError::Conflict)) if tries > 0 => {}
                Err(failure) => return Err(failure),
                Ok(Err(OtherAccount)) => return Ok(Outcome::OtherAccount),
                Ok(Ok(())) => break,
            }
        }
    }
    match read_binding(ctx, session_id).await? {
        Some(glance) => Ok(Outcome::Bound(glance)),
        None => Err(Failure::Inconsistent(
            "a session ended as it was registered",
        )),
    }
}

async fn register(
    ctx: &Context,
    session_id: &SessionId,
    judged: Judged,
    now: Timestamp,
) -> Result<Result<(), OtherAccount>, Failure> {
    let mut tx = ctx.store.write().await?;
    let registration = document(judged.registration());
    let negatives = judged.negatives().to_vec();
    let binding_id = BindingId::new(now, ctx.entropy.as_ref());
    let claimed = judged.claimed_serial();
    let known = locked(&mut tx, session_id, claimed.as_ref()).await?;
    let is_new = known.is_none();
    let former = known.clone().filter(Session::is_live);
    let (mut session, done) = match known {
        None => {
            let session = Session::begin(session_id.clone(), binding_id, judged, now);
            (session, Registered::Replaced)
        }
        Some(mut session) => match session.register(binding_id, judged, now) {
            Ok(done) => (session, done),
            Err(other) => return Ok(Err(other)),
        },
    };
    if done == Registered::Same {
        return Ok(Ok(()));
    }
    let joined = join(ctx, &mut tx, &mut session, now).await?;
    if is_new {
        tx.insert_session(&session, &registration).await?;
    } else {
        tx.save_session(&session).await?;
        tx.keep_registration(session_id, &registration).await?;
    }
    // Blobs tell whole seconds, and a Mac's clock may be ahead.
    let said_at = session.said.as_ref().map_or(now, |said| {
        said.signed_at.plus(Duration::from_millis(999)).min(now)
    });
    darken(ctx, &mut tx, &session, &negatives, said_at, now).await?;
    let asks = match done {
        Registered::Replaced | Registered::Renewed => {
            ask_after_restart(ctx, &mut tx, &session, former.as_ref(), now).await?
        }
        Registered::Resumed | Registered::Same => false,
    };
    let change = match done {
        _ if joined.proved => "proved",
        Registered::Replaced => "began",
        Registered::Resumed => "resumed",
        Registered::Renewed | Registered::Same => "renewed",
    };
    tell(ctx, &mut tx, &session, change, now).await?;
    tx.commit().await?;
    let woken = session.device_id.as_ref().filter(|_| asks);
    let woken = woken.map(|device_id| (device_id.clone(), Priority::Expired));
    for (device_id, priority) in joined.wake.into_iter().chain(woken) {
        ctx.wakeups.ask(&device_id, priority);
    }
    tracing::info!(
        session.id = session_id.as_str(),
        binding.id = session.binding_id.as_str(),
        device.id = session.device_id.as_ref().map(|id| id.as_str()),
        change,
        refusal.code = session.blob_reasons.first().map(|reason| reason.code()),
        "a provider session was registered"
    );
    Ok(Ok(()))
}

/// Ends a session; it can be taken up again by the same process for `resumable_for`, at most
/// [`LONGEST_GAP`](crate::provider::session::LONGEST_GAP). False when there is none that lives.
pub async fn end(
    ctx: &Context,
    session_id: &SessionId,
    resumable_for: Option<Duration>,
) -> Result<bool, Failure> {
    ends(ctx, session_id, Why::Asked { resumable_for }).await
}

/// Ends a session that nothing was heard of since then; whoever speaks meanwhile lives.
pub(super) async fn end_silent(
    ctx: &Context,
    session_id: &SessionId,
    since: Timestamp,
) -> Result<bool, Failure> {
    ends(ctx, session_id, Why::Silent { since }).await
}

/// Why a session ends.
#[derive(Debug, Clone, Copy)]
enum Why {
    Asked { resumable_for: Option<Duration> },
    Silent { since: Timestamp },
}

async fn ends(ctx: &Context, session_id: &SessionId, why: Why) -> Result<bool, Failure> {
    let now = ctx.clock.now();
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match end_once(ctx, session_id, why, now).await {
            Err(Failure::Store(StoreError::Conflict)) if tries > 0 => {}
            outcome => return outcome,
        }
    }
}

async fn end_once(
    ctx: &Context,
    session_id: &SessionId,
    why: Why,
    now: Timestamp,
) -> Result<bool, Failure> {
    let mut tx = ctx.store.write().await?;
    let Some(mut session) = locked(&mut tx, session_id, None).await? else {
        return Ok(false);
    };
    let resumable_for = match why {
        Why::Asked { resumable_for } => resumable_for,
        Why::Silent { since } if session.heard_of_at() >= since => return Ok(false),
        Why::Silent { .. } => None,
    };
    if !session.end(resumable_for, now) {
        return Ok(false);
    }
    tx.save_session(&session).await?;
    tell(ctx, &mut tx, &session, "ended", now).await?;
    let wake = match &session.claimed_serial {
        Some(serial) => join_waiting(ctx, &mut tx, serial, now).await?,
        None => Vec::new(),
    };
    tx.commit().await?;
    for (device_id, priority) in &wake {
        ctx.wakeups.ask(device_id, *priority);
    }
    tracing::info!(session.id = session_id.as_str(), "a provider session ended");
    Ok(true)
}

/// A registration as it is kept, for whoever verifies it again.
fn document(registration: &Registration) -> Value {
    json!({
        "se_public_key": registration.key,
        "encryption_public_key": registration.encryption_key,
        "claimed_serial_number": registration.claimed_serial,
        "account": registration.account,
        "provider_version": registration.provider_version,
        "attestation_raw_b64": STANDARD.encode(&registration.blob),
        "signature_b64": registration.signature,
    })
}
