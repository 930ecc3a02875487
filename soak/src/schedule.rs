//! What the server's workers do, once at a time: the sweep, and the waking of Macs.
//!
//! Beside them stands, until the server asks by itself, a coordinator that asks for fresh evidence
//! by the clock.

use std::collections::BTreeSet;

use attestd::flows::verify_now::{Wanted, verify_now};
use attestd::flows::{Context, refuse, sweep, wake};
use attestd::verification::{Kind, Priority};
use futures_util::{FutureExt as _, StreamExt as _, stream};

use crate::house::House;
use crate::mac::Mac;
use crate::random::Chance;
use crate::time::{DAY, HOUR, MINUTE, Ms};

/// Pushes under way at a time.
const AT_ONCE: usize = 64;

/// Ends what is overdue, asks for those that owe an answer, writes what is soft.
pub async fn sweep_once(ctx: &Context) -> anyhow::Result<()> {
    sweep::run_once(ctx).await?;
    ctx.store.flush_seen().await?;
    Ok(())
}

/// Wakes everybody who waits for it. Returns whether there was anybody.
pub async fn wake_all(house: &mut House) -> anyhow::Result<bool> {
    let mut waiting = BTreeSet::new();
    while let Some(Some(device_id)) = house.wakeups.next().now_or_never() {
        waiting.insert(device_id.to_string());
    }
    let ctx = &house.ctx;
    let any = !waiting.is_empty();
    let mut woken = stream::iter(waiting)
        .map(|device_id| {
            let ctx = std::sync::Arc::clone(ctx);
            tokio::spawn(async move {
                let device_id = attestd::ids::DeviceId::parse(&device_id)?;
                wake::wake(&ctx, &device_id).await?;
                anyhow::Ok(())
            })
        })
        .buffer_unordered(AT_ONCE);
    while let Some(ended) = woken.next().await {
        ended??;
    }
    Ok(any)
}

/// Writes refusals to the audit.
pub async fn record_refusals(house: &mut House) -> anyhow::Result<()> {
    if let Some(batch) = house.refusals.take().now_or_never()
        && !batch.is_empty()
    {
        refuse::record(&house.ctx, &batch).await?;
    }
    Ok(())
}

/// When a coordinator asks for a Mac again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clocks {
    report_at: Ms,
}

impl Clocks {
    /// Asks for what is due.
    pub async fn ask(
        &mut self,
        ctx: &Context,
        mac: &Mac,
        chance: &mut Chance,
        now: Ms,
    ) -> anyhow::Result<()> {
        let Some(device_id) = mac.device_id() else {
            return Ok(());
        };
        if now < self.report_at {
            return Ok(());
        }
        let first = self.report_at == 0;
        self.report_at = now + chance.between(48 * MINUTE, 72 * MINUTE);
        // Enrolment asks for everything by itself.
        if first || !mac.judge.is_enrolled() {
            return Ok(());
        }
        let mut kinds = vec![Kind::SecurityInfo];
        let late = chance.between(0, 12 * HOUR);
        if mac.judge.fresh_at().is_some_and(|at| now - at >= 7 * DAY + late) {
            kinds.push(Kind::Mda);
        }
        let wanted = Wanted {
            device_id: device_id.clone(),
            kinds,
            priority: Priority::Refresh,
            occasion: "soak".to_owned(),
            deadline: None,
            idempotency: None,
        };
        verify_now(ctx, &wanted).await?;
        Ok(())
    }
}
