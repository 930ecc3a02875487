//! A Mac may enrol: a ticket is made.

use super::{Context, Failure};
use crate::enrollment::Ticket;
use crate::enrollment::ticket::Bounds;
use crate::secret::Secret;

/// A ticket and its secret, which is not kept.
#[derive(Debug)]
pub struct Issued {
    pub ticket: Ticket,
    pub secret: Secret<String>,
}

/// Makes and stores a ticket.
pub async fn issue_ticket(ctx: &Context, bounds: Bounds) -> Result<Issued, Failure> {
    let now = ctx.clock.now();
    let (ticket, secret) = Ticket::issue(bounds, now, ctx.entropy.as_ref());
    let mut tx = ctx.store.write().await?;
    tx.insert_ticket(&ticket).await?;
    tx.commit().await?;
    Ok(Issued { ticket, secret })
}
