//! Fresh evidence is wanted of a Mac: a verification is started, or the open one joined.

use std::time::Duration;

use super::sweep::ask;
use super::{Context, Failure};
use crate::enrollment::{Enrollment, State, Ticket};
use crate::entropy::Entropy;
use crate::ids::{DeviceId, VerificationId};
use crate::publication::event;
use crate::reason::Reason;
use crate::store::{Event, StoreError, Write};
use crate::telemetry::traces::Span;
use crate::time::Timestamp;
use crate::verification::agenda::Cause;
use crate::verification::{Kind, Priority, Request, Verification};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub device_id: DeviceId,
    pub kinds: Vec<Kind>,
    pub priority: Priority,
    pub occasion: String,
    pub deadline: Option<Timestamp>,
    /// The caller's name for this request, and the hash of everything in it.
    pub idempotency: Option<(String, [u8; 32])>,
}

/// How it is answered.
#[derive(Debug)]
pub enum Outcome {
    /// Started, joined, or the same request as before.
    Verification(Box<Verification>),
    DeviceNotFound,
    NotEnrolled,
    /// The deadline is not ahead. A request repeated under its idempotency key is answered all the
    /// same: its deadline lay ahead when it was made.
    DeadlinePassed,
    /// The same idempotency key with another request.
    IdempotencyMismatch,
    /// As many Macs wait to be woken as may.
    QueueFull,
}

/// Starts or joins a verification and has the Mac woken.
pub async fn verify_now(ctx: &Context, wanted: &Wanted) -> Result<Outcome, Failure> {
    // Two calls with one key at the same time: the second finds the first one's request.
    match attempt(ctx, wanted).await {
        Err(Failure::Store(StoreError::Conflict)) => attempt(ctx, wanted).await,
        outcome => outcome,
    }
}

async fn attempt(ctx: &Context, wanted: &Wanted) -> Result<Outcome, Failure> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    if let Some((key, hash)) = &wanted.idempotency
        && let Some((known_hash, verification_id)) = tx.request(key).await?
    {
        if known_hash != *hash {
            return Ok(Outcome::IdempotencyMismatch);
        }
        return match tx.verification(&verification_id).await? {
            Some(verification) => Ok(Outcome::Verification(Box::new(verification))),
            None => Err(Failure::Inconsistent(
                "a remembered request without its verification",
            )),
        };
    }
    if wanted.deadline.is_some_and(|deadline| deadline <= now) {
        return Ok(Outcome::DeadlinePassed);
    }
    let Some(enrollment) = tx.enrollment(&wanted.device_id).await? else {
        return Ok(Outcome::DeviceNotFound);
    };
    if enrollment.state != State::Enrolled {
        return Ok(Outcome::NotEnrolled);
    }
    let patience = wanted
        .deadline
        .map_or(ctx.settings.patience, |deadline| deadline.since(now));
    let request = Request {
        kinds: wanted.kinds.clone(),
        priority: wanted.priority,
        occasion: wanted.occasion.clone(),
        patience,
    };
    if ctx.wakeups.is_full() {
        return Ok(Outcome::QueueFull);
    }
    let open = tx.open_verification(&wanted.device_id).await?;
    let Some(mut agenda) = tx.agenda(&wanted.device_id).await? else {
        return Err(Failure::Inconsistent("a Mac without its agenda"));
    };
    let entropy = ctx.entropy.as_ref();
    let mut verification = ask(open, &wanted.device_id, &request, entropy, now);
    if wanted.kinds.contains(&Kind::Mda)
        && let Some(eligible_at) = agenda.eligible_at().filter(|time| *time > now)
    {
        // Apple would only repeat itself: it is asked as soon as it would not.
        verification.put_off(Kind::Mda, Reason::AppleRateLimit, eligible_at);
        agenda.bring_forward(&[Kind::Mda], Cause::Asked(wanted.priority), now);
    }
    if let Some(hold) = agenda.held(&ctx.settings.rules, now)
        && let Some(reason) = hold.reason
    {
        verification.not_pushed(reason, Some(hold.until), now);
    }
    tx.keep_agenda(agenda);
    if verification.settle(None, now) {
        let event = Event::new(
            event::VERIFICATION_FINISHED,
            now,
            event::verification_finished(&verification),
        );
        tx.append_event(&wanted.device_id, &event).await?;
    }
    tx.save_verification(&verification).await?;
    if let Some((key, hash)) = &wanted.idempotency {
        tx.remember_request(key, *hash, &verification.verification_id, now)
            .await?;
    }
    tx.commit().await?;
    if let Some(traces) = &ctx.traces {
        let round = &verification.verification_id;
        let span = (now, ctx.clock.now());
        traces.record(Span::new(round, &wanted.device_id, "verify_now", "", span));
        Span::of_round(&verification)
            .into_iter()
            .for_each(|span| traces.record(span));
    }
    if !verification.is_finished() {
        ctx.wakeups.ask(&wanted.device_id, verification.priority);
    }
    Ok(Outcome::Verification(Box::new(verification)))
}

/// Something happened because of which these kinds are to be asked for before they are due: the
/// sweep finds the Mac at once, within its push budget and Apple's seven days. A first attestation
/// that waited for a provider's key to name waits no longer once there is one.
pub async fn bring_forward(
    tx: &mut Write,
    device_id: &DeviceId,
    kinds: &[Kind],
    cause: Cause,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(mut agenda) = tx.agenda(device_id).await? else {
        return Ok(());
    };
    agenda.bring_forward(kinds, cause, now);
    tx.keep_agenda(agenda);
    if cause != Cause::KeyChanged {
        return Ok(());
    }
    if let Some(mut open) = tx.open_verification(device_id).await?
        && let Some(held) = open.part(Kind::Mda)
        && held.reason == Some(Reason::AwaitingBinding)
    {
        open.recall(Kind::Mda);
        tx.save_verification(&open).await?;
    }
    Ok(())
}

/// The first verification of a Mac that has just enrolled.
///
/// The first attestation is not wasted: unless the ticket names the provider's key already, it is
/// held until one is known, or for as long as the configuration says. A contender does not wait: who
/// it is hangs on the attestation.
pub(super) fn first_verification(
    ctx: &Context,
    enrollment: &Enrollment,
    ticket: Option<&Ticket>,
    now: Timestamp,
) -> Verification {
    let names_key = ticket.is_some_and(|ticket| ticket.se_public_key.is_some());
    let hold = if names_key || enrollment.contends_with.is_some() {
        Duration::ZERO
    } else {
        ctx.settings.attestation_hold
    };
    let (patience, entropy) = (ctx.settings.patience, ctx.entropy.as_ref());
    first_attempt(&enrollment.device_id, hold, patience, entropy, now)
}

/// The first verification of a Mac, its attestation held for `hold`.
pub(super) fn first_attempt(
    device_id: &DeviceId,
    hold: Duration,
    patience: Duration,
    entropy: &dyn Entropy,
    now: Timestamp,
) -> Verification {
    let request = Request {
        kinds: vec![Kind::SecurityInfo, Kind::Mda],
        priority: Priority::First,
        occasion: "enrolled".to_owned(),
        patience,
    };
    let verification_id = VerificationId::new(now, entropy);
    let mut verification = Verification::start(verification_id, device_id.clone(), &request, now);
    if !hold.is_zero() {
        verification.defer(Kind::Mda, Reason::AwaitingBinding, now.plus(hold));
    }
    verification
}
