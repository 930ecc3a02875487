//! A Mac is to be woken: it has questions to answer.
//!
//! Asking is cheap and may happen from anywhere: the Mac's name goes into a bounded queue. What a
//! full queue loses the next sweep finds again, because what is owed stands in the store.

use tokio::sync::mpsc;

use super::{Context, Failure};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{Enrollment, PushAddress, State};
use crate::entropy::draw;
use crate::ids::DeviceId;
use crate::push::outcome::{Duty, PushOutcome};
use crate::push::wake::{Expiration, Wake};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Verification;

/// How many Macs wait to be woken at most.
const QUEUE: usize = 16 * 1024;

/// Where Macs wait to be woken.
#[derive(Debug)]
pub struct Wakeups(mpsc::Sender<DeviceId>);

/// The other end, for the worker.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<DeviceId>);

/// A queue of Macs to be woken.
pub fn queue() -> (Wakeups, Waiting) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Wakeups(sender), Waiting(receiver))
}

impl Wakeups {
    /// Asks that a Mac be woken soon. Returns false when the queue is full.
    pub fn ask(&self, device_id: &DeviceId) -> bool {
        self.0.try_send(device_id.clone()).is_ok()
    }
}

impl Waiting {
    /// The next Mac to be woken; `None` when the service stops.
    pub async fn next(&mut self) -> Option<DeviceId> {
        self.0.recv().await
    }
}

/// Wakes a Mac, if it owes an answer and may be woken, and writes down what APNs said.
pub async fn wake(ctx: &Context, device_id: &DeviceId) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let (enrollment, verification) = {
        let tx = ctx.store.read().await?;
        (
            tx.enrollment(device_id).await?,
            tx.open_verification(device_id).await?,
        )
    };
    let (Some(enrollment), Some(verification)) = (enrollment, verification) else {
        return Ok(());
    };
    if enrollment.state != State::Enrolled || !verification.may_push(now) {
        return Ok(());
    }
    let outcome = match &enrollment.push {
        Some(PushAddress {
            token,
            magic,
            dead_since: None,
            ..
        }) => {
            let expiration = Expiration::usual(now);
            match Wake::new(enrollment.topic.clone(), token, magic, expiration) {
                Ok(push) => Some(ctx.apns.send(&push, push_id(ctx)).await),
                Err(_) => None,
            }
        }
        _ => None,
    };
    ctx.metrics
        .pushed(outcome.as_ref().map_or("no_address", PushOutcome::name));
    record(ctx, &enrollment, outcome, now).await
}

async fn record(
    ctx: &Context,
    enrollment: &Enrollment,
    outcome: Option<PushOutcome>,
    now: Timestamp,
) -> Result<(), Failure> {
    let device_id = &enrollment.device_id;
    let token_from = enrollment
        .push
        .as_ref()
        .map_or(now, |address| address.updated_at);
    let duty = outcome.as_ref().map(|outcome| outcome.duty(token_from));
    let reason = match duty {
        Some(Duty::Wait) => None,
        Some(Duty::AwaitTokenUpdate) | None => Some(Reason::PushTokenInvalid),
        Some(Duty::BackOff) => Some(Reason::PushThrottled),
        Some(Duty::PushAgain | Duty::StopTopic | Duty::Retry | Duty::Report) => {
            Some(Reason::ServiceDegraded)
        }
    };
    let mut tx = ctx.store.write().await?;
    let address = |known: &Enrollment| known.push.as_ref().map(|push| push.updated_at);
    let now_known = tx.enrollment(device_id).await?;
    if now_known.as_ref().and_then(address) != address(enrollment) {
        // The Mac has another address by now: this outcome says nothing about that one.
        drop(tx);
        ctx.wakeups.ask(device_id);
        return Ok(());
    }
    if duty == Some(Duty::AwaitTokenUpdate) {
        tx.mark_push_dead(device_id, token_from, now).await?;
    }
    // Read again: the Mac may have answered while the push was under way.
    if let Some(mut verification) = tx.open_verification(device_id).await? {
        note(&mut verification, reason, now);
        tx.save_verification(&verification).await?;
    }
    if let Some(ticket_id) = &enrollment.ticket_id {
        let entry = match reason {
            None => Entry::done(Step::Pushed, now),
            Some(reason) => Entry::waiting(Step::Pushed, Some(reason), now),
        };
        tx.put_step(ticket_id, &entry).await?;
    }
    tx.commit().await?;
    if let Some(reason) = reason {
        tracing::info!(
            device.id = device_id.as_str(),
            refusal.code = reason.code(),
            outcome = outcome.as_ref().map(PushOutcome::name),
            "the Mac was not woken"
        );
    }
    Ok(())
}

fn note(verification: &mut Verification, reason: Option<Reason>, now: Timestamp) {
    match reason {
        None => verification.pushed(now),
        Some(reason) => verification.not_pushed(reason, now),
    }
}

/// Names one push in every attempt to send it.
fn push_id(ctx: &Context) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(draw(ctx.entropy.as_ref())).into_uuid()
}
