//! The owner of a Mac reads how far the enrolment is, once or as it goes on.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, Failure};
use crate::enrollment::Ticket;
use crate::enrollment::ticket::is_progress_id;
use crate::enrollment::trace::{Entry, Step};
use crate::publication::progress_v1::ProgressV1;
use crate::reason::Reason;
use crate::store::{Read, Watch, Watched};
use crate::time::Timestamp;

/// Whoever follows looks again at least this often: a step that another node wrote, and the end of
/// a ticket, are announced by nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

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
    progress_of(&tx, &ticket, now).await.map(Some)
}

/// The steps of a ticket in the state that a transaction sees.
pub(super) async fn progress_of(
    tx: &Read,
    ticket: &Ticket,
    now: Timestamp,
) -> Result<ProgressV1, Failure> {
    let mut entries = tx.steps(&ticket.ticket_id).await?;
    if let Some(ended) = ended(tx, ticket, now).await? {
        entries.retain(|entry| entry.step != ended.step);
        entries.push(ended);
    }
    Ok(ProgressV1::new(ticket, &entries, now))
}

/// Somebody who is told of every step.
#[derive(Debug)]
pub struct Follower {
    ctx: Arc<Context>,
    progress_id: String,
    watch: Watch,
    told: Option<ProgressV1>,
}

/// Begins to follow; `None` when no ticket has this progress id.
pub async fn follow(ctx: &Arc<Context>, progress_id: &str) -> Result<Option<Follower>, Failure> {
    if !is_progress_id(progress_id) {
        return Ok(None);
    }
    let found = ctx
        .store
        .read()
        .await?
        .ticket_by_progress_id(progress_id)
        .await?;
    Ok(found.map(|ticket| Follower {
        ctx: Arc::clone(ctx),
        progress_id: progress_id.to_owned(),
        watch: ctx.store.watch(Watched::Steps(&ticket.ticket_id)),
        told: None,
    }))
}

impl Follower {
    /// The progress as soon as it differs from what was returned last: at once the first time.
    /// `None` once nothing is known of it any more.
    pub async fn next(&mut self) -> Result<Option<ProgressV1>, Failure> {
        loop {
            let Some(progress) = follow_progress(&self.ctx, &self.progress_id).await? else {
                return Ok(None);
            };
            if self.told.as_ref() != Some(&progress) {
                self.told = Some(progress.clone());
                return Ok(Some(progress));
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.watch.changed()).await;
        }
    }
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
