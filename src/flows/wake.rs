//! A Mac is to be woken: it has questions to answer.
//!
//! Asking is cheap and may happen from anywhere: the Mac's name goes into a bounded queue. What a
//! full queue loses the next sweep finds again, because what is owed stands in the store.
//!
//! A push is taken out of the Mac's budget in a step of its own before it is sent, and given back if
//! APNs did not take it: neither a restart nor another node sends one more.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::rotate_push_certificate::take_into_use;
use super::sweep::with_what_is_due;
use super::{Context, Failure};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{PushAddress, State};
use crate::entropy::draw;
use crate::ids::{DeviceId, VerificationId};
use crate::push::outcome::{CertificateFault, Duty, Passing, PushOutcome};
use crate::push::rate::Rate;
use crate::push::wake::{Expiration, Wake};
use crate::reason::Reason;
use crate::store::{Changes, Review};
use crate::telemetry::traces::{Span, Traces};
use crate::time::{Clock, Timestamp};
use crate::verification::Priority;
use crate::verification::agenda::budget::LEASE;
use crate::verification::waiting::{Queue, Waiting};

/// Macs that fell due are put into the queue only as far as they can be woken within this time: the
/// patience with a Mac goes from when its attempt began.
const AHEAD: Duration = Duration::from_secs(60);

/// Where Macs wait to be woken, and how many are within any second.
#[derive(Debug)]
pub struct Wakeups {
    queue: Mutex<Queue>,
    rate: Mutex<Rate>,
    /// As many as are planned ahead at most.
    ahead: usize,
    arrived: Notify,
    clock: Arc<dyn Clock>,
}

/// Who is to be woken next.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// This Mac, now. Its push counts as sent.
    Wake(Waiting),
    /// Somebody, but not before this time: as many pushes as may be have left within a second.
    NotBefore(Timestamp),
    Nobody,
}

impl Wakeups {
    /// An empty queue of at most `room` Macs, emptied at no more than `per_second`.
    pub fn new(room: usize, per_second: NonZeroU32, clock: Arc<dyn Clock>) -> Self {
        let within = u64::from(per_second.get()).saturating_mul(AHEAD.as_secs());
        Self {
            queue: Mutex::new(Queue::new(room)),
            rate: Mutex::new(Rate::new(per_second)),
            ahead: room.min(usize::try_from(within).unwrap_or(usize::MAX)),
            arrived: Notify::new(),
            clock,
        }
    }

    /// Asks that a Mac be woken soon. Returns false when the queue is full.
    pub fn ask(&self, device_id: &DeviceId, priority: Priority) -> bool {
        self.put(device_id, priority, true)
    }

    /// As [`Wakeups::ask`], because the Mac is due: nobody insists on it.
    pub(super) fn plan(&self, device_id: &DeviceId, priority: Priority) {
        self.put(device_id, priority, false);
    }

    /// Whether a Mac waits.
    pub(super) fn awaits(&self, device_id: &DeviceId) -> bool {
        self.queue().awaits(device_id)
    }

    fn put(&self, device_id: &DeviceId, priority: Priority, asked: bool) -> bool {
        let taken = self
            .queue()
            .put(device_id, priority, asked, self.clock.now());
        if taken {
            self.arrived.notify_one();
        }
        taken
    }

    /// Whether the queue takes nobody else.
    pub fn is_full(&self) -> bool {
        self.queue().room() == 0
    }

    /// How many Macs wait.
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// How long the one has waited that waits longest.
    pub fn oldest(&self) -> Duration {
        let oldest = self.queue().oldest();
        oldest.map_or(Duration::ZERO, |since| self.clock.now().since(since))
    }

    /// How many more Macs may be planned now.
    pub(super) fn room_ahead(&self) -> usize {
        let queue = self.queue();
        queue.room().min(self.ahead.saturating_sub(queue.len()))
    }

    /// Whose turn it is.
    pub fn turn(&self, now: Timestamp) -> Turn {
        let mut queue = self.queue();
        if queue.is_empty() {
            return Turn::Nobody;
        }
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free_from) = rate.free_from(now) {
            return Turn::NotBefore(free_from);
        }
        match queue.take() {
            None => Turn::Nobody,
            Some(waiting) => {
                rate.leave(now);
                Turn::Wake(waiting)
            }
        }
    }

    /// Returns once somebody came into the queue.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes whoever may be woken now, one after the other; returns how many had their turn.
pub async fn run_once(ctx: &Context) -> Result<usize, Failure> {
    let mut turns = 0;
    while let Turn::Wake(waiting) = ctx.wakeups.turn(ctx.clock.now()) {
        wake_waiting(ctx, &waiting).await?;
        turns += 1;
    }
    Ok(turns)
}

/// Wakes a Mac that somebody asks for, if it owes an answer and may be woken, and writes down what
/// APNs said.
pub async fn wake(ctx: &Context, device_id: &DeviceId) -> Result<(), Failure> {
    let waiting = Waiting {
        device_id: device_id.clone(),
        asked: true,
    };
    wake_waiting(ctx, &waiting).await
}

/// Wakes a Mac whose turn it is, if it owes an answer and may be woken, and writes down what APNs
/// said.
pub async fn wake_waiting(ctx: &Context, waiting: &Waiting) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let device_id = &waiting.device_id;
    let Some(begun) = begin(ctx, waiting, now).await? else {
        return Ok(());
    };
    let Some((topic, address)) = ctx.store.push_address(device_id).await? else {
        return Err(Failure::Inconsistent("a Mac to be woken that is not there"));
    };
    let outcome = match &address {
        Some(PushAddress {
            token,
            magic,
            dead_since: None,
            ..
        }) => {
            let expiration = Expiration::usual(now);
            match Wake::new(topic, token, magic, expiration) {
                Ok(push) => Some(send(ctx, &push).await?),
                Err(_) => None,
            }
        }
        _ => None,
    };
    let word = outcome.as_ref().map_or("no_address", PushOutcome::name);
    ctx.metrics.pushed(word);
    if let Some(traces) = &ctx.traces {
        trace(traces, device_id, &begun, word, (now, ctx.clock.now()));
    }
    let addressed_at = address.as_ref().map(|address| address.updated_at);
    let ended = Ended::of(outcome, addressed_at, now);
    conclude(ctx, device_id, ended).await
}

/// Sends a push. A topic whose first certificate came into use a moment ago is not followed yet, and
/// its first Macs are not to wait for the next attempt.
async fn send(ctx: &Context, push: &Wake) -> Result<PushOutcome, Failure> {
    let absent = PushOutcome::CertificateFault(CertificateFault::Absent);
    let outcome = ctx.apns.send(push, push_id(ctx)).await;
    if outcome != absent {
        return Ok(outcome);
    }
    take_into_use(ctx, 0).await?;
    Ok(ctx.apns.send(push, push_id(ctx)).await)
}

/// A push that was taken out of the budget.
struct Begun {
    /// What it is for.
    round: Option<VerificationId>,
    /// That began with it, because the Mac is due.
    is_new: bool,
}

fn trace(
    traces: &Traces,
    device_id: &DeviceId,
    begun: &Begun,
    outcome: &str,
    (from, to): (Timestamp, Timestamp),
) {
    let Some(round) = &begun.round else { return };
    if begun.is_new {
        traces.record(Span::new(round, device_id, "sweep", "", (from, from)));
    }
    let push = Span::new(round, device_id, "wake", "", (from, to));
    traces.record(push.with("outcome", outcome));
}

/// Asks what is due, and takes the push out of the budget, in one step. `None` when the Mac is not
/// woken now.
async fn begin(ctx: &Context, waiting: &Waiting, now: Timestamp) -> Result<Option<Begun>, Failure> {
    let (rules, entropy) = (ctx.settings.rules.clone(), Arc::clone(&ctx.entropy));
    let asked = waiting.asked;
    let begun = ctx
        .store
        .review(&waiting.device_id, move |mut review| {
            let mut changes = Changes::default();
            if review.state != State::Enrolled {
                return (changes, None);
            }
            let is_joined = review.verification.is_some();
            let is_due = with_what_is_due(&mut review, &rules, entropy.as_ref(), now);
            if is_due {
                changes.verification.clone_from(&review.verification);
            }
            let Review {
                mut agenda,
                verification,
                ..
            } = review;
            if agenda.begin_push(asked, &rules, now) {
                changes.agenda = Some(agenda);
                changes.leased_until = Some(now.plus(LEASE));
                let begun = Begun {
                    round: verification.map(|open| open.verification_id),
                    is_new: is_due && !is_joined,
                };
                return (changes, Some(begun));
            }
            // Whoever asked reads why nothing happens.
            if asked
                && let (Some(mut open), Some(hold)) = (verification, agenda.held(&rules, now))
                && let Some(reason) = hold.reason
            {
                open.not_pushed(reason, Some(hold.until), now);
                changes.verification = Some(open);
            }
            (changes, None)
        })
        .await?;
    Ok(begun.flatten())
}

/// What became of a push.
struct Ended {
    outcome: Option<&'static str>,
    duty: Option<Duty>,
    /// Why the Mac was not woken; `None` when APNs took the push.
    reason: Option<Reason>,
    /// It may have been delivered all the same.
    lost: bool,
    /// When the address it went to was brought.
    addressed_at: Option<Timestamp>,
    at: Timestamp,
}

impl Ended {
    fn of(outcome: Option<PushOutcome>, addressed_at: Option<Timestamp>, at: Timestamp) -> Self {
        let duty = outcome
            .as_ref()
            .map(|outcome| outcome.duty(addressed_at.unwrap_or(at)));
        let reason = match duty {
            Some(Duty::Wait) => None,
            Some(Duty::AwaitTokenUpdate) | None => Some(Reason::PushTokenInvalid),
            Some(Duty::BackOff) => Some(Reason::PushThrottled),
            Some(Duty::PushAgain | Duty::StopTopic | Duty::Retry | Duty::Report) => {
                Some(Reason::ServiceDegraded)
            }
        };
        let lost = matches!(
            outcome,
            Some(PushOutcome::RetryLater(
                Passing::Deadline | Passing::Disconnected
            ))
        );
        Self {
            outcome: outcome.as_ref().map(PushOutcome::name),
            duty,
            reason,
            lost,
            addressed_at,
            at,
        }
    }
}

async fn conclude(ctx: &Context, device_id: &DeviceId, ended: Ended) -> Result<(), Failure> {
    let (reason, outcome) = (ended.reason, ended.outcome);
    let stale = ctx
        .store
        .review(device_id, move |review| note(review, &ended))
        .await?;
    if let Some(Some(priority)) = stale {
        // The Mac has another address by now: this outcome says nothing about that one.
        ctx.wakeups.ask(device_id, priority);
    } else if let Some(reason) = reason {
        tracing::info!(
            device.id = device_id.as_str(),
            refusal.code = reason.code(),
            outcome,
            "the Mac was not woken"
        );
    }
    Ok(())
}

/// Writes the outcome down. Returns how urgent the attempt is when the push went to another address
/// than the Mac has by now.
fn note(review: Review, ended: &Ended) -> (Changes, Option<Priority>) {
    let Review {
        addressed_at,
        mut agenda,
        verification,
        ..
    } = review;
    let mut changes = Changes::default();
    if addressed_at != ended.addressed_at {
        agenda.pushed();
        changes.agenda = Some(agenda);
        return (changes, verification.map(|open| open.priority));
    }
    match ended.reason {
        None => agenda.pushed(),
        Some(reason) => agenda.not_pushed(reason, ended.lost, ended.at),
    }
    changes.agenda = Some(agenda);
    if ended.duty == Some(Duty::AwaitTokenUpdate) {
        changes.push_dead = ended.addressed_at.map(|updated_at| (updated_at, ended.at));
    }
    // The Mac may have answered while the push was under way, and be asked something else by now:
    // why it is not woken for that is not to be written over.
    let pushed_for = verification.filter(|open| open.created_at <= ended.at);
    if let Some(mut open) = pushed_for {
        match ended.reason {
            None => open.pushed(ended.at),
            Some(reason) => open.not_pushed(reason, None, ended.at),
        }
        changes.verification = Some(open);
    }
    changes.steps.push(match ended.reason {
        None => Entry::done(Step::Pushed, ended.at),
        Some(reason) => Entry::waiting(Step::Pushed, Some(reason), ended.at),
    });
    (changes, None)
}

/// Names one push in every attempt to send it.
pub(super) fn push_id(ctx: &Context) -> uuid::Uuid {
    uuid::Builder::from_random_bytes(draw(ctx.entropy.as_ref())).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::{Agenda, Kind, Request, Verification};

    fn pushed_at() -> Timestamp {
        Timestamp::from_seconds(1_800_000_000)
    }

    /// A Mac of which an attempt is open that began so long after the push.
    fn review(after: Duration) -> Review {
        let device_id = DeviceId::parse("dev_01J8ZQ4Z0000000000000000AB").expect("a name");
        let verification_id =
            VerificationId::parse("ver_01J8ZQ4Z0000000000000000AB").expect("a name");
        let request = Request {
            kinds: vec![Kind::SecurityInfo],
            priority: Priority::Expired,
            occasion: "requested".to_owned(),
            patience: Duration::from_secs(600),
        };
        let began = pushed_at().plus(after);
        let mut open = Verification::start(verification_id, device_id.clone(), &request, began);
        let until = began.plus(Duration::from_secs(3_600));
        open.not_pushed(Reason::PushThrottled, Some(until), began);
        Review {
            device_id: device_id.clone(),
            ticket_id: None,
            state: State::Enrolled,
            addressed_at: None,
            verification: Some(open),
            agenda: Agenda::new(device_id, pushed_at()),
        }
    }

    fn written(after: Duration, reason: Option<Reason>) -> Option<Verification> {
        let ended = Ended {
            outcome: None,
            duty: None,
            reason,
            lost: false,
            addressed_at: None,
            at: pushed_at(),
        };
        note(review(after), &ended).0.verification
    }

    #[test]
    fn a_push_is_told_of_in_the_attempt_it_was_for() {
        let open = written(Duration::ZERO, None).expect("told");
        assert_eq!(open.last_pushed_at(), Some(pushed_at()));
        let open = written(Duration::ZERO, Some(Reason::ServiceDegraded)).expect("told");
        assert_eq!(open.reasons(), [Reason::ServiceDegraded]);
    }

    #[test]
    fn what_apns_says_late_is_not_told_in_a_later_attempt() {
        for reason in [None, Some(Reason::ServiceDegraded)] {
            assert_eq!(written(Duration::from_millis(1), reason), None);
        }
    }
}
