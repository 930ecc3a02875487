//! Nonces are made from a head of the transparency log: which one, and of when it is.
//!
//! Kept in memory, because a question is handed over on the store's writer, which waits for nothing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::append_to_log::{Head, Log, append_in, head};
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::attestation::freshness::Beacon;
use crate::json;
use crate::store::Read;
use crate::time::Timestamp;
use crate::transparency::entry::Entry;

/// A log to which nothing was added for so long gets an entry that says the time: a statement for a nonce counts
/// as old as the head the nonce was made from.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The head that nonces are made from, on one node.
#[derive(Debug)]
pub struct Beacons {
    wanted: bool,
    newest: RwLock<Option<Arc<Beacon>>>,
}

impl Beacons {
    /// None yet; and never one, unless nonces are to be made from heads.
    pub fn new(wanted: bool) -> Self {
        Self {
            wanted,
            newest: RwLock::default(),
        }
    }

    /// The newest that was drawn.
    pub fn newest(&self) -> Option<Arc<Beacon>> {
        let newest = self.newest.read();
        newest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, beacon: Beacon) {
        let newest = self.newest.write();
        *newest.unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(beacon));
    }
}

/// Draws the newest head, where nonces are made from heads: the newest that is witnessed, where witnesses are
/// asked.
///
/// # Errors
/// When something cannot be read or stored; the former head is used as long as it may be.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let Some(log) = ctx.log.as_ref().filter(|log| log.beacon.wanted) else {
        return Ok(());
    };
    if trouble(ctx).is_some() {
        // By such a clock nothing is dated.
        return Ok(());
    }
    let now = ctx.clock.now();
    let known = log.beacon.newest();
    let is_known = |head: &Head| {
        let known = known.as_ref();
        known.is_some_and(|known| known.size == head.checkpoint.size)
    };
    let newest = head(ctx, log).await?;
    let is_idle = match &newest {
        None => true,
        Some(head) if is_known(head) => known.as_ref().is_some_and(|it| is_over(it.head_at, now)),
        Some(head) => is_over(of_head(&ctx.store.read().await?, head).await?.head_at, now),
    };
    if is_idle {
        say_the_time(ctx, log, now).await?;
    }
    let drawn = match log.witnesses.each() {
        [] => head(ctx, log).await?,
        _ => log.witnesses.newest(),
    };
    if let Some(drawn) = drawn.filter(|head| !is_known(head)) {
        let beacon = of_head(&ctx.store.read().await?, &drawn).await?;
        log.beacon.keep(beacon);
    }
    Ok(())
}

/// A time to come is none that a nonce may bear.
fn is_over(head_at: Timestamp, now: Timestamp) -> bool {
    head_at > now || now.since(head_at) >= IDLE
}

/// Of several nodes one says it.
async fn say_the_time(ctx: &Context, log: &Log, now: Timestamp) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    let (_, held) = append_in(&mut tx, log, Vec::new()).await?;
    if held.checkpoint.size > 0 && !is_over(of_head(&tx, &held).await?.head_at, now) {
        return Ok(());
    }
    let (_, head) = append_in(&mut tx, log, vec![Entry::Time.encode(now)]).await?;
    tx.commit().await?;
    log.keep(head);
    Ok(())
}

/// The head, and when the last of its entries was added.
async fn of_head(tx: &Read, head: &Head) -> Result<Beacon, Failure> {
    const UNREADABLE: Failure = Failure::Inconsistent("the log's last entry cannot be read");
    let checkpoint = &head.checkpoint;
    let last = checkpoint.size.checked_sub(1).ok_or(UNREADABLE)?;
    let entries = tx.log_entries(last..checkpoint.size).await?;
    let entry = entries.first().ok_or(UNREADABLE)?;
    let entry = json::object(entry).map_err(|_| UNREADABLE)?;
    let iat = entry.get("iat").and_then(serde_json::Value::as_i64);
    Ok(Beacon {
        origin: checkpoint.origin.clone(),
        size: checkpoint.size,
        root: checkpoint.root,
        head_at: Timestamp::from_seconds(iat.ok_or(UNREADABLE)?),
    })
}
