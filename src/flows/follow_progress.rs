//! The owner of a Mac reads how far the enrolment is.

use super::{Context, Failure};
use crate::enrollment::Ticket;
use crate::enrollment::ticket::is_progress_id;
use crate::enrollment::trace::{Entry, Step};
use crate::publication::progress_v1::ProgressV1;
use crate::reason::Reason;
use crate::store::Read;
use crate::time::Timestamp;

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
    let mut entries = tx.steps(&ticket.ticket_id).await?;
    if let Some(ended) = ended(&tx, &ticket, now).await? {
        entries.retain(|entry| entry.step != ended.step);
        entries.push(ended);
    }
    Ok(Some(ProgressV1::new(&ticket, &entries, now)))
}

/// The identity by which the Mac is heard does not count any more: nothing that it says reaches the
/// other steps, so this one tells its owner.
async fn ended(tx: &Read, ticket: &Ticket, now: Timestamp) -> Result<Option<Entry>, Failure> {
    let Some(enrollment) = tx.enrollment_of_ticket(&ticket.ticket_id).await? else {
        return Ok(None);
    };
    let identity = tx.identity(enrollment.identity).await?;
    Ok(identity.and_then(|identity| {
        let reason = identity.usable(now).err()?;
        let at = match reason {
            Reason::Revoked => identity.revoked_at.unwrap_or(now),
            _ => identity.not_after,
        };
        Some(Entry::refused(Step::Identity, reason, at))
    }))
}
