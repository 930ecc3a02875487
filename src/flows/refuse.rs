//! Something was refused: it is counted at once, and one line goes to the audit in the background.
//!
//! A flood of refusals must not become a flood of writes: the queue is bounded, lines of one kind
//! are joined, and what does not fit is counted only.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Context, Failure};
use crate::ids::{DeviceId, Udid};
use crate::reason::Reason;
use crate::store::Refusal;
use crate::time::Timestamp;

/// How many refusals wait for the audit at most.
const QUEUE: usize = 1024;

/// One refusal.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The flow that refused.
    pub surface: &'static str,
    pub reason: Reason,
    /// The Mac it is about, when known.
    pub device_id: Option<DeviceId>,
    /// The Mac it names; a claim, when not known.
    pub named: Option<Udid>,
    pub detail: String,
    pub at: Timestamp,
}

/// Where refusals wait.
#[derive(Debug)]
pub struct Refusals(mpsc::Sender<Refused>);

/// The other end, for the worker.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<Refused>);

/// A queue of refusals.
pub fn queue() -> (Refusals, Waiting) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Refusals(sender), Waiting(receiver))
}

/// Counts a refusal and hands it to the audit.
pub fn note(ctx: &Context, refused: Refused) {
    ctx.metrics.refused(refused.surface, refused.reason);
    tracing::info!(
        surface = refused.surface,
        refusal.code = refused.reason.code(),
        detail = refused.detail,
        device.id = refused.device_id.as_ref().map(DeviceId::as_str),
        "refused"
    );
    if let Err(TrySendError::Full(_)) = ctx.refusals.0.try_send(refused) {
        ctx.metrics.refusals_not_audited.inc();
    }
}

impl Waiting {
    /// Waits for refusals and takes all there are; empty when there will be no more.
    pub async fn take(&mut self) -> Vec<Refused> {
        let mut batch = Vec::new();
        self.0.recv_many(&mut batch, QUEUE).await;
        batch
    }

    /// Takes what there is, and nothing after it: the service stops.
    pub fn take_last(&mut self) -> Vec<Refused> {
        self.0.close();
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

/// What lines must share to be joined.
#[derive(PartialEq, Eq, Hash)]
struct Kind {
    device_id: Option<DeviceId>,
    named: Option<Udid>,
    reason: Reason,
    surface: &'static str,
}

/// Writes a batch to the audit, lines of one kind joined.
pub async fn record(ctx: &Context, batch: Vec<Refused>) -> Result<(), Failure> {
    let mut lines: HashMap<Kind, Refusal> = HashMap::new();
    for refused in batch {
        let key = Kind {
            device_id: refused.device_id.clone(),
            named: refused.named.clone(),
            reason: refused.reason,
            surface: refused.surface,
        };
        let line = lines.entry(key).or_insert_with(|| Refusal {
            subject: "-".to_owned(),
            device_id: refused.device_id.clone(),
            reason: refused.reason,
            surface: refused.surface.to_owned(),
            detail: refused.detail.clone(),
            at: refused.at,
            last_at: refused.at,
            count: 0,
        });
        line.count += 1;
        line.last_at = line.last_at.max(refused.at);
    }
    let mut tx = ctx.store.write().await?;
    for (kind, mut line) in lines {
        if line.device_id.is_none()
            && let Some(udid) = kind.named
        {
            line.device_id = tx.enrollment_by_udid(&udid).await?.map(|found| found.device_id);
        }
        if let Some(device_id) = &line.device_id {
            line.subject = device_id.to_string();
        }
        tx.record_refusal(&line).await?;
    }
    tx.commit().await?;
    Ok(())
}
