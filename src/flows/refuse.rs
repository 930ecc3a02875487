//! Something was refused: it is counted at once, and kept in the background. What administrators change is
//! kept elsewhere: in the audit log (`audit`).
//!
//! A flood of refusals must not become a flood of writes: the queue is bounded, lines of one kind
//! are joined, and what does not fit is counted only.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Context, Failure};
use crate::ids::{DeviceId, Udid};
use crate::reason::Reason;
use crate::store::Refusal;
use crate::time::Timestamp;

/// How many refusals wait to be kept at most.
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

/// Counts a refusal and has it kept.
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
        ctx.metrics.refusals_not_kept.inc();
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

/// What lines must share to be joined, and the order in which they are written: two nodes that
/// wrote the same lines in different orders could wait for each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    device_id: Option<DeviceId>,
    reason: Reason,
    surface: &'static str,
}

/// Keeps a batch, lines of one kind joined.
///
/// Which Mac a name belongs to is looked up first: looking up thousands of names would keep
/// everybody else from writing. Names of no Mac are not kept apart, whoever makes them up.
pub async fn record(ctx: &Context, batch: &[Refused]) -> Result<(), Failure> {
    let known = known(ctx, batch).await?;
    let lines = joined(batch, &known);
    let mut tx = ctx.store.write().await?;
    for line in lines.values() {
        tx.record_refusal(line).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// The Macs that have the names in a batch.
async fn known(ctx: &Context, batch: &[Refused]) -> Result<HashMap<Udid, DeviceId>, Failure> {
    let unresolved = batch.iter().filter(|refused| refused.device_id.is_none());
    let names: HashSet<&Udid> = unresolved
        .filter_map(|refused| refused.named.as_ref())
        .collect();
    let mut known = HashMap::new();
    if names.is_empty() {
        return Ok(known);
    }
    let tx = ctx.store.read().await?;
    for udid in names {
        if let Some(enrollment) = tx.enrollment_by_udid(udid).await? {
            known.insert(udid.clone(), enrollment.device_id);
        }
    }
    Ok(known)
}

fn joined(batch: &[Refused], known: &HashMap<Udid, DeviceId>) -> BTreeMap<Kind, Refusal> {
    let mut lines: BTreeMap<Kind, Refusal> = BTreeMap::new();
    for refused in batch {
        let named = || known.get(refused.named.as_ref()?);
        let device_id = refused.device_id.as_ref().or_else(named);
        let kind = Kind {
            device_id: device_id.cloned(),
            reason: refused.reason,
            surface: refused.surface,
        };
        let (surface, detail) = (refused.surface, &refused.detail);
        let line = lines.entry(kind).or_insert_with(|| Refusal {
            count: 0,
            ..Refusal::once(
                device_id.cloned(),
                refused.reason,
                surface,
                detail,
                refused.at,
            )
        });
        line.count += 1;
        line.last_at = line.last_at.max(refused.at);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(device_id: Option<&DeviceId>, named: Option<&Udid>, reason: Reason) -> Refused {
        Refused {
            surface: "connect",
            reason,
            device_id: device_id.cloned(),
            named: named.cloned(),
            detail: "detail".to_owned(),
            at: Timestamp::from_millis(1_000),
        }
    }

    fn udid(last: u32) -> Udid {
        Udid::parse(&format!("00000000-0000-4000-8000-{last:012}")).expect("a UDID")
    }

    #[test]
    fn lines_are_joined_by_mac_however_it_was_named() {
        let mac = DeviceId::parse("dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ").expect("an id");
        let known = HashMap::from([(udid(1), mac.clone())]);
        let mismatch = Reason::IdentityMismatch;
        let mut last = refused(None, Some(&udid(1)), mismatch);
        last.at = last.at.plus(Duration::from_secs(2));
        let batch = [
            refused(Some(&mac), None, mismatch),
            refused(None, Some(&udid(2)), mismatch),
            last.clone(),
            refused(None, None, mismatch),
            refused(Some(&mac), Some(&udid(2)), mismatch),
            refused(None, Some(&udid(3)), mismatch),
            refused(None, Some(&udid(3)), Reason::NotEnrolled),
            Refused {
                surface: "check_in",
                ..refused(Some(&mac), None, mismatch)
            },
        ];
        let lines = joined(&batch, &known);
        let seen: Vec<_> = lines
            .values()
            .map(|line| {
                (
                    line.subject.as_str(),
                    line.reason,
                    line.surface.as_str(),
                    line.count,
                )
            })
            .collect();
        // Reasons in the order of their declaration.
        let mut unknown = [
            ("-", mismatch, "connect", 3),
            ("-", Reason::NotEnrolled, "connect", 1),
        ];
        unknown.sort_by_key(|line| line.1);
        let of_the_mac = [
            (mac.as_str(), mismatch, "check_in", 1),
            (mac.as_str(), mismatch, "connect", 3),
        ];
        assert_eq!(seen, [&unknown[..], &of_the_mac].concat());
        let spans: Vec<_> = lines.values().map(|line| (line.at, line.last_at)).collect();
        assert_eq!(spans[3], (Timestamp::from_millis(1_000), last.at));
    }
}
