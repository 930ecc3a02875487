//! What the server's workers do, once at a time: the waking of Macs, the audit.

use std::sync::Arc;

use attestd::flows::resume::{self, Progress};
use attestd::flows::wake::{Turn, wake_waiting};
use attestd::flows::{Context, refuse, watch_clock};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;

use crate::house::House;
use crate::time::Ms;

/// Wakes everybody whose turn it is, all at the same time. Returns when others have theirs, where as many
/// pushes have left as may within a second.
pub async fn wake_all(ctx: &Arc<Context>) -> anyhow::Result<Option<Ms>> {
    let mut woken = JoinSet::new();
    loop {
        match ctx.wakeups.turn(ctx.clock.now()) {
            Turn::Wake(waiting) => {
                let ctx = Arc::clone(ctx);
                woken.spawn(async move { wake_waiting(&ctx, &waiting).await });
            }
            Turn::Nobody if woken.is_empty() => return Ok(None),
            Turn::NotBefore(time) if woken.is_empty() => return Ok(Some(time.millis())),
            // What becomes of a push may put its Mac back into the queue.
            Turn::Nobody | Turn::NotBefore(_) => {
                while let Some(ended) = woken.join_next().await {
                    ended??;
                }
            }
        }
    }
}

/// Keeps the time, and goes on where serving was interrupted.
pub async fn keep_time(ctx: &Context) -> anyhow::Result<()> {
    watch_clock::run_once(ctx).await?;
    while resume::run_once(ctx).await? == Progress::More {}
    Ok(())
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
