//! The owner of a Mac reads how far the enrolment is.

use super::{Context, Failure};
use crate::enrollment::ticket::is_progress_id;
use crate::publication::progress_v1::ProgressV1;

/// The steps so far; `None` when no ticket has this progress id.
pub async fn follow_progress(
    ctx: &Context,
    progress_id: &str,
) -> Result<Option<ProgressV1>, Failure> {
    if !is_progress_id(progress_id) {
        return Ok(None);
    }
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let Some(ticket) = tx.ticket_by_progress_id(progress_id).await? else {
        return Ok(None);
    };
    let entries = tx.steps(&ticket.ticket_id).await?;
    Ok(Some(ProgressV1::new(&ticket, &entries, now)))
}
