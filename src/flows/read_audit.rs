//! An auditor reads who changed what, and whether that is all; the end of the chain is told to whoever
//! keeps logs elsewhere.

use super::{Context, Failure};
use crate::audit::{Chain, Fault, Head, Link};
use crate::store::Store;

/// Links in one answer at most.
pub const MOST: u64 = 1_000;

/// Some of the chain.
#[derive(Debug, Clone)]
pub struct Page {
    /// In their order.
    pub links: Vec<Link>,
    /// The end of the whole chain, as of the same moment.
    pub head: Head,
    /// More follow after the last.
    pub more: bool,
}

/// Links after one of this number; about one subject, if it is given.
///
/// # Errors
/// When they cannot be read.
pub async fn page(
    store: &Store,
    after: i64,
    subject: Option<&str>,
    at_most: u64,
) -> Result<Page, Failure> {
    let tx = store.read().await?;
    let at_most = at_most.min(MOST);
    let mut links = tx.audit_after(after, subject, at_most + 1).await?;
    let more = links.len() as u64 > at_most;
    links.truncate(usize::try_from(at_most).unwrap_or(usize::MAX));
    let head = tx.audit_head().await?;
    Ok(Page { links, head, more })
}

/// Looks at the whole chain, as of one moment. Where it ends, or what is wrong with it.
///
/// # Errors
/// When it cannot be read.
pub async fn check(
    store: &Store,
    remembered: Option<Head>,
) -> Result<Result<Head, Fault>, Failure> {
    let tx = store.read().await?;
    let mut chain = Chain::from_the_beginning(remembered);
    let mut after = i64::MIN;
    loop {
        let links = tx.audit_after(after, None, MOST).await?;
        let Some(last) = links.last() else {
            return Ok(chain.end());
        };
        after = last.seq;
        for link in &links {
            if let Err(fault) = chain.follow(link) {
                return Ok(Err(fault));
            }
        }
    }
}

/// Runs once: writes the end of the chain to the log where it is another than `told`, and returns it. Whoever
/// keeps that line elsewhere can tell whether the chain was cut off or written anew since.
///
/// # Errors
/// When it cannot be read.
pub async fn tell_head(ctx: &Context, told: Option<Head>) -> Result<Head, Failure> {
    let head = ctx.store.read().await?.audit_head().await?;
    ctx.metrics.audit_head(head.seq);
    if told != Some(head) {
        tracing::info!(audit.head = %head, "the end of the audit log");
    }
    Ok(head)
}
