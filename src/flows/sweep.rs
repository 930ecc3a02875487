//! What is due: Macs are asked (again) and woken, attempts past their deadline end, and who holds a
//! serial number is settled where that was interrupted.

use std::sync::Arc;

use super::conclude::{Judge, step_of};
use super::take_over::settle;
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::enrollment::trace::Entry;
use crate::entropy::Entropy;
use crate::ids::{DeviceId, VerificationId};
use crate::publication::event;
use crate::reason::Reason;
use crate::store::{Changes, Event, Review};
use crate::telemetry::traces::Span;
use crate::time::Timestamp;
use crate::verification::agenda::{Rules, Step};
use crate::verification::{Agenda, Kind, Priority, Progress, Request, Verification};

/// How many Macs are looked at in one step: others who write wait for its end.
const BATCH: usize = 256;

/// Runs once: forgets what was abandoned, settles what was left, and plans what is due, no further
/// ahead than Macs can be woken.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    if trouble(ctx).is_some() {
        // By such a clock nothing is due.
        return Ok(());
    }
    let now = ctx.clock.now();
    forget_abandoned(ctx, now).await?;
    let unsettled = ctx.store.read().await?.unsettled(BATCH).await?;
    for device_id in &unsettled {
        settle(ctx, device_id).await?;
    }
    plan(ctx, now).await
}

/// Puts Macs that are due among those that wait to be woken; what they are asked is decided, and kept,
/// when their turn comes. Attempts that are over end here.
async fn plan(ctx: &Context, now: Timestamp) -> Result<(), Failure> {
    let rules = &ctx.settings.rules;
    let mut walk = ctx.store.due(now);
    loop {
        let limit = ctx.wakeups.room_ahead().min(BATCH);
        let due = walk.next(limit, |mac| ctx.wakeups.awaits(mac)).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut overdue = Vec::new();
        for mac in due {
            let step = mac.agenda.map(|agenda| agenda.step(rules, now));
            match step {
                Some(Step::Ask(_, priority) | Step::Wake(priority)) => {
                    ctx.wakeups.plan(&mac.device_id, priority);
                }
                Some(Step::Expire | Step::Nothing) | None => overdue.push(mac.device_id),
            }
        }
        look_at(ctx, overdue, now).await?;
        // Those who ask are not made to wait for the end of a long walk.
        tokio::task::yield_now().await;
    }
}
/// Ends what is over of attempts, and finds anew when these Macs are next due.
async fn look_at(ctx: &Context, devices: Vec<DeviceId>, now: Timestamp) -> Result<(), Failure> {
    let rules = Arc::clone(&ctx.settings.rules);
    let looked_at = ctx
        .store
        .review_all(devices, move |review| look(review, &rules, now))
        .await?;
    for Looked {
        device_id,
        wake,
        timed_out,
        finished,
    } in &looked_at
    {
        if let (Some(traces), Some(round)) = (&ctx.traces, finished) {
            Span::of_round(round)
                .into_iter()
                .for_each(|span| traces.record(span));
        }
        if let Some(reasons) = timed_out {
            tracing::info!(
                device.id = device_id.as_str(),
                ?reasons,
                "the Mac did not answer in time"
            );
        }
        if let Some(priority) = wake {
            ctx.wakeups.plan(device_id, *priority);
        }
    }
    Ok(())
}

/// What became of a Mac that was looked at.
struct Looked {
    device_id: DeviceId,
    wake: Option<Priority>,
    /// Why, where it did not answer in time.
    timed_out: Option<Vec<Reason>>,
    /// The attempt, where it is over.
    finished: Option<Verification>,
}

fn look(review: Review, rules: &Rules, now: Timestamp) -> (Changes, Looked) {
    let mut looked = Looked {
        device_id: review.device_id.clone(),
        wake: None,
        timed_out: None,
        finished: None,
    };
    let changes = match review.agenda.step(rules, now) {
        Step::Nothing => Changes::default(),
        Step::Expire => expire(review, &mut looked, now),
        Step::Ask(_, priority) | Step::Wake(priority) => {
            looked.wake = Some(priority);
            Changes::default()
        }
    };
    (changes, looked)
}

fn expire(review: Review, looked: &mut Looked, now: Timestamp) -> Changes {
    let mut changes = Changes::default();
    let Some(mut verification) = review.verification else {
        // An attempt that is not there (any more) is none.
        let mut agenda = review.agenda;
        agenda.forget_attempt();
        changes.agenda = Some(agenda);
        return changes;
    };
    let finished = verification.settle(None, now);
    for part in &verification.parts {
        if part.progress == Progress::TimedOut && part.ended_at == Some(now) {
            let step = step_of(part.kind);
            let entry = Entry::waiting(step, Some(Reason::AnswerTimeout), now);
            changes.steps.push(entry);
        }
    }
    if finished {
        changes.events.push(Event::new(
            event::VERIFICATION_FINISHED,
            now,
            event::verification_finished(&verification),
        ));
    }
    looked.timed_out = Some(verification.reasons());
    looked.finished = finished.then(|| verification.clone());
    changes.verification = Some(verification);
    changes
}

/// What a Mac is asked that is woken because it is due: with the agenda as it is then.
pub(super) fn with_what_is_due(
    review: &mut Review,
    rules: &Rules,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> bool {
    let Step::Ask(kinds, priority) = review.agenda.step(rules, now) else {
        return false;
    };
    let request = due(&kinds, priority, rules);
    let open = review.verification.take();
    let verification = ask(open, &review.device_id, &request, entropy, now);
    review.agenda.attempts(&verification);
    review.verification = Some(verification);
    true
}

/// What a Mac that connects is asked: whatever it owes, and at once what it would soon be woken for. If
/// it comes late, but before its silence was noted, it is in time.
pub(super) fn with_what_is_ripe(
    known: Option<Verification>,
    agenda: &Agenda,
    judge: &Judge,
) -> Option<Verification> {
    let (rules, now) = (&judge.rules, judge.now);
    let mut kinds = agenda.ripe(rules, now);
    let open = known.as_ref().filter(|known| !known.is_finished());
    kinds.extend(open.iter().flat_map(|open| open.overdue(now)));
    if kinds.is_empty() {
        return known;
    }
    let request = due(&kinds, agenda.priority(&kinds, rules, now), rules);
    let entropy = judge.entropy.as_ref();
    Some(ask(
        open.cloned(),
        &agenda.device_id,
        &request,
        entropy,
        now,
    ))
}

/// What is asked of a Mac that is due, or that comes by itself.
fn due(kinds: &[Kind], priority: Priority, rules: &Rules) -> Request {
    let occasion = match priority {
        Priority::First => "nothing is known",
        Priority::Expired => "what was known counts no longer",
        Priority::Refresh => "due",
    };
    Request {
        kinds: kinds.to_vec(),
        priority,
        occasion: occasion.to_owned(),
        patience: rules.patience,
    }
}

/// A new attempt, or the open one with more to ask.
pub(super) fn ask(
    open: Option<Verification>,
    device_id: &DeviceId,
    request: &Request,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Verification {
    match open {
        Some(mut open) => {
            open.join(request, now);
            open
        }
        None => {
            let verification_id = VerificationId::new(now, entropy);
            Verification::start(verification_id, device_id.clone(), request, now)
        }
    }
}

/// ACME orders end with their tickets. Looked for first without a turn to write: an hour mostly
/// passes without any.
async fn forget_abandoned(ctx: &Context, now: Timestamp) -> Result<(), Failure> {
    if !ctx
        .store
        .read()
        .await?
        .has_ended_acme_directories(now)
        .await?
    {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    let forgotten = tx.forget_acme_directories(now).await?;
    tx.commit().await?;
    tracing::debug!(forgotten, "ACME directories of ended tickets forgotten");
    Ok(())
}
