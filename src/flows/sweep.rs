//! What is due: attempts past their deadline end, Macs that owe an answer are woken again, and who
//! holds a serial number is settled where that was interrupted.

use super::conclude::step_of;
use super::take_over::settle;
use super::{Context, Failure};
use crate::enrollment::trace::Entry;
use crate::ids::DeviceId;
use crate::publication::event;
use crate::reason::Reason;
use crate::store::Event;
use crate::time::Timestamp;
use crate::verification::{Progress, Verification};

/// How many rows one run looks at in one go.
const BATCH: usize = 200;

/// Runs once: ends what is overdue, forgets what was abandoned, asks for those that owe an answer to
/// be woken.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let now = ctx.clock.now();
    forget_abandoned(ctx, now).await?;
    loop {
        let overdue = ctx.store.read().await?.overdue(now, BATCH).await?;
        for verification in &overdue {
            expire(ctx, &verification.device_id, now).await?;
        }
        // What is expired is not found again.
        if overdue.len() < BATCH {
            break;
        }
    }
    let unsettled = ctx.store.read().await?.unsettled(BATCH).await?;
    for device_id in &unsettled {
        settle(ctx, device_id).await?;
    }
    let mut after = None;
    loop {
        let owing = ctx
            .store
            .read()
            .await?
            .owing(now, after.as_ref(), BATCH)
            .await?;
        let Some(last) = owing.last() else { break };
        after = Some(last.verification_id.clone());
        for verification in &owing {
            if verification.push_is_due(now) && !ctx.wakeups.ask(&verification.device_id) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// ACME orders end with their tickets. Looked for first without a turn to write: an hour mostly
/// passes without any.
async fn forget_abandoned(ctx: &Context, now: Timestamp) -> Result<(), Failure> {
    if !ctx
        .store
        .read()
        .await?
        .has_ended_acme_directories(now)
        .await?
    {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    let forgotten = tx.forget_acme_directories(now).await?;
    tx.commit().await?;
    tracing::debug!(forgotten, "ACME directories of ended tickets forgotten");
    Ok(())
}

async fn expire(ctx: &Context, device_id: &DeviceId, now: Timestamp) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    let Some(mut verification) = tx.open_verification(device_id).await? else {
        return Ok(());
    };
    if !verification.settle(None, now) {
        return Ok(());
    }
    tx.save_verification(&verification).await?;
    let enrollment = tx.enrollment(device_id).await?;
    if let Some(ticket_id) = enrollment.and_then(|enrollment| enrollment.ticket_id) {
        for part in verification
            .parts
            .iter()
            .filter(|part| part.progress == Progress::TimedOut)
        {
            let entry = Entry::waiting(step_of(part.kind), Some(Reason::AnswerTimeout), now);
            tx.put_step(&ticket_id, &entry).await?;
        }
    }
    let body = event::verification_finished(&verification);
    let name = event::VERIFICATION_FINISHED.to_owned();
    tx.append_event(
        device_id,
        &Event {
            name,
            at: now,
            body,
        },
    )
    .await?;
    tx.commit().await?;
    log(&verification);
    Ok(())
}

fn log(verification: &Verification) {
    tracing::info!(
        device.id = verification.device_id.as_str(),
        verification.id = verification.verification_id.as_str(),
        reasons = ?verification.reasons(),
        "the Mac did not answer in time"
    );
}
