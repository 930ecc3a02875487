//! A verdict that nothing renews is about to end, or has ended: subscribers are told.
//!
//! No reader depends on this: whoever reads a posture has it judged at that moment. It is for those
//! who wait for changes.

use super::check_in::revise;
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::ids::DeviceId;
use crate::posture::Notice;
use crate::publication::event;
use crate::publication::posture_v1::relation;
use crate::store::Event;
use crate::time::Timestamp;

/// How many Macs are looked for in one go.
const BATCH: usize = 256;

/// Runs once: tells whatever there is to tell by now.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    if trouble(ctx).is_some() {
        // By such a clock nothing has ended.
        return Ok(());
    }
    let now = ctx.clock.now();
    loop {
        let ending = ctx.store.read().await?.ending(now, BATCH).await?;
        for device_id in &ending {
            tell(ctx, device_id, now).await?;
        }
        // What was told is not found again.
        if ending.len() < BATCH {
            return Ok(());
        }
    }
}

async fn tell(ctx: &Context, device_id: &DeviceId, now: Timestamp) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    // Read again: newer evidence may have come, or another node was faster.
    let Some(mut posture) = tx.posture(device_id).await? else {
        return Ok(());
    };
    match posture.notice(now) {
        None => return Ok(()),
        Some(Notice::Ending(until)) => {
            posture.told_of_end = true;
            tx.save_posture(&posture).await?;
            let event = Event::new(
                event::POSTURE_EXPIRING,
                now,
                event::posture_expiring(&posture, until),
            );
            tx.append_event(device_id, &event).await?;
        }
        Some(Notice::Ended) => {
            let Some(enrollment) = tx.enrollment(device_id).await? else {
                return Err(Failure::Inconsistent("a posture without its enrollment"));
            };
            let identity = tx.identity(enrollment.identity).await?;
            let relation = relation(&enrollment, identity.as_ref());
            revise(&mut tx, device_id, None, now, |posture| {
                posture.relate(relation, &ctx.policy, now)
            })
            .await?;
        }
    }
    tx.commit().await?;
    Ok(())
}
