//! May requests be routed to this session? Asked thousands of times a second, so it is answered from
//! memory, and judged at the moment of the question.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::answers::Written;
use super::read_posture::believed;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::{DeviceId, SessionId};
use crate::provider::{BinaryHash, Blob, Platform, Session};
use crate::publication::binding_v1::{Judgement, Standing};
use crate::publication::feed::Signed;
use crate::reason::Reason;
pub use crate::store::Glance;
use crate::store::{Glimpse, MacGlance, Read};
use crate::time::Timestamp;

/// A session that lives, or can be taken up again, with all that its judgement needs.
///
/// # Errors
/// Also while the clock is not believed.
pub async fn read_binding(
    ctx: &Context,
    session_id: &SessionId,
) -> Result<Option<Glance>, Failure> {
    demand(ctx)?;
    let glance = glance(ctx, session_id).await?;
    Ok(glance.filter(|glance| glance.session.is_known(ctx.clock.now())))
}

/// Whether requests may be routed to a session, as JSON; `None` when there is no such session.
pub async fn answer_binding(
    ctx: &Context,
    session_id: &SessionId,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(glance) = read_binding(ctx, session_id).await? else {
        return Ok(None);
    };
    let answers = &ctx.answers.bindings;
    let told = answers.answer(session_id, glance, ctx.clock.now(), |glance, now| {
        Written::new(&standing(glance).publish(&ctx.policy, now), ())
    })?;
    Ok(Some(told.0))
}

/// As it is to be judged.
pub fn standing(glance: &Glance) -> Standing<'_> {
    Standing {
        session: &glance.session,
        mac: glance.mac.as_deref(),
        release: glance.release,
    }
}

pub(super) async fn glance(
    ctx: &Context,
    session_id: &SessionId,
) -> Result<Option<Glance>, Failure> {
    if let Some(glance) = ctx.store.board().glance(session_id) {
        return Ok(Some(glance));
    }
    // Apart: the state of a question to the database is kilobytes, which every answer would move.
    Box::pin(load(ctx, session_id)).await
}

async fn load(ctx: &Context, session_id: &SessionId) -> Result<Option<Glance>, Failure> {
    let fill = ctx.store.board().begin();
    let mut stored = ctx.store.glimpse().await?;
    let Some(session) = stored.session(session_id).await? else {
        return Ok(None);
    };
    let glance = look(&mut stored, Arc::new(session), ctx.clock.now()).await?;
    fill.keep(&glance);
    Ok(Some(glance))
}

/// A Mac with the sessions about it; `None` when there is no such Mac.
pub(super) async fn glance_at_mac(
    ctx: &Context,
    device_id: &DeviceId,
) -> Result<Option<MacGlance>, Failure> {
    if let Some(glance) = ctx.store.board().glance_at_mac(device_id) {
        return Ok(Some(glance));
    }
    Box::pin(load_mac(ctx, device_id)).await
}

async fn load_mac(ctx: &Context, device_id: &DeviceId) -> Result<Option<MacGlance>, Failure> {
    let fill = ctx.store.board().begin();
    let mut stored = ctx.store.glimpse().await?;
    let glance = look_at_mac(&mut stored, device_id, ctx.clock.now()).await?;
    if let Some(glance) = &glance {
        fill.keep_all(glance);
    }
    Ok(glance)
}

/// Reads a Mac, and the sessions about it.
pub(super) async fn look_at_mac(
    stored: &mut Glimpse<'_>,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<Option<MacGlance>, Failure> {
    let Some(mac) = believed(stored, device_id, now).await? else {
        return Ok(None);
    };
    let mut sessions = Vec::new();
    for session in stored.sessions_of(device_id).await? {
        let release = release(stored, &session).await?;
        sessions.push((Arc::new(session), release));
    }
    let mac = Arc::new(mac);
    Ok(Some(MacGlance { mac, sessions }))
}

/// Reads what belongs to a session.
async fn look(
    stored: &mut Glimpse<'_>,
    session: Arc<Session>,
    now: Timestamp,
) -> Result<Glance, Failure> {
    let mac = match &session.device_id {
        None => None,
        Some(device_id) => believed(stored, device_id, now).await?,
    };
    Ok(Glance {
        release: release(stored, &session).await?,
        session,
        mac: mac.map(Arc::new),
    })
}

/// What a session amounts to, in the state that a transaction sees.
pub(super) async fn judged(
    ctx: &Context,
    tx: &Read,
    session: &Session,
    now: Timestamp,
) -> Result<Judgement, Failure> {
    let glance = look(&mut tx.glimpse(), Arc::new(session.clone()), now).await?;
    Ok(standing(&glance).judge(&ctx.policy, now))
}

/// What a session was registered with, of which its key has signed the blob. `None` if it has become
/// another registration meanwhile.
pub(super) async fn registered(
    ctx: &Context,
    session: &Session,
) -> Result<Option<Signed>, Failure> {
    let tx = ctx.store.read().await?;
    let Some(registration) = tx.registration(&session.session_id).await? else {
        return Ok(None);
    };
    let text = |name: &str| {
        let text = registration.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (attestation_raw_b64, signature_b64) = (text("attestation_raw_b64"), text("signature_b64"));
    // It was verified when it was registered, over these bytes.
    let raw = STANDARD.decode(&attestation_raw_b64).unwrap_or_default();
    let Ok(blob) = Blob::parse(&raw) else {
        return Ok(None);
    };
    let report = blob.unverified_report().clone();
    let is_of_this = session.said.as_ref().is_some_and(|said| {
        said.signed_at == report.timestamp
            && said.binary_hash == report.binary_hash
            && session.key.text() == report.se_public_key.text()
    });
    Ok(is_of_this.then_some(Signed {
        report,
        attestation_raw_b64,
        signature_b64,
    }))
}

/// What the registry says of every program a session was said to run.
pub(super) async fn release(
    stored: &mut Glimpse<'_>,
    session: &Session,
) -> Result<Result<(), Reason>, Failure> {
    for binary in session.binaries() {
        // What is no hash is no registered program.
        let known = match binary.and_then(BinaryHash::parse) {
            None => Err(Reason::ReleaseUnknown),
            Some(hash) => stored.release_standing(&hash, &Platform::default()).await?,
        };
        if known.is_err() {
            return Ok(known);
        }
    }
    Ok(Ok(()))
}
