//! What was refused is kept.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{IDLE, heart, pause};
use crate::flows::{Context, refuse};

/// Refusals are gathered this long before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// Refusals that could not be written are tried again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// How often they are tried: longer than a database takes to start again, and not for ever, lest
/// refusals that no database takes keep all later ones out.
const TRIES: u32 = 30;

/// Keeps refusals, as long as the service runs and what is left then.
pub(super) async fn record(
    ctx: Arc<Context>,
    mut refusals: refuse::Waiting,
    stop: CancellationToken,
) {
    // What could not be written is kept and tried again; meanwhile the queue fills, and what finds
    // no place in it is counted only.
    let mut unwritten = Unwritten::default();
    let heart = heart(&ctx, "refuse", IDLE);
    loop {
        if unwritten.batch.is_empty() {
            heart.beats();
            unwritten.batch = tokio::select! {
                () = stop.cancelled() => break,
                batch = refusals.take() => batch,
                () = tokio::time::sleep(IDLE) => continue,
            };
            if unwritten.batch.is_empty() {
                break;
            }
        }
        let rest = if unwritten.write(&ctx).await {
            GATHER
        } else {
            AGAIN
        };
        if pause(rest, &stop).await {
            break;
        }
    }
    unwritten.batch.extend(refusals.take_last());
    if !unwritten.batch.is_empty() {
        unwritten.tries = TRIES - 1;
        unwritten.write(&ctx).await;
    }
}

/// Refusals that are still to be written.
#[derive(Default)]
struct Unwritten {
    batch: Vec<refuse::Refused>,
    tries: u32,
}

impl Unwritten {
    /// Writes them, or drops them when that failed too often; false after a failure.
    async fn write(&mut self, ctx: &Context) -> bool {
        let Err(failure) = refuse::record(ctx, &self.batch).await else {
            *self = Self::default();
            return true;
        };
        ctx.metrics.worker_failures.inc();
        self.tries += 1;
        if self.tries < TRIES {
            tracing::warn!(worker = "refuse", "a run failed and will be repeated");
        } else {
            // They were counted when they were refused.
            let dropped = self.batch.len();
            tracing::warn!(worker = "refuse", dropped, "refusals were not kept");
            ctx.metrics
                .refusals_not_kept
                .inc_by(u64::try_from(dropped).unwrap_or(u64::MAX));
            *self = Self::default();
        }
        failure.log();
        false
    }
}
