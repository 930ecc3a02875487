//! A receiver sets its stream up, changes it, and asks whether it works (SSF 1.0 section 8.1).
//!
//! One stream for each receiver. What it says is read before anything here; what is not its own to say is
//! refused, and an address it may not name, too.

use super::transmit_signals::{Signals, envelope};
use super::{Context, Failure};
use crate::ids::StreamId;
use crate::outbound::{Target, UnusableTarget};
use crate::publication::delivery::Course;
use crate::publication::shared_signals::Malformed;
use crate::publication::shared_signals::event_token::Claims;
use crate::publication::shared_signals::receiver::Receiver;
use crate::publication::shared_signals::stream::{
    Configuration, Delivery, MIN_VERIFICATION_INTERVAL, Request, Status, StatusShown, Stream,
    Wishes,
};
use crate::publication::shared_signals::subject::Subject;
use crate::store::{NewSignal, SignalStream, StoreError, Write};
use crate::time::Timestamp;

/// Macs that one stream may be told nothing of.
pub const MOST_EXCLUDED: usize = 10_000;
/// Answers to questions whether it works that wait in one stream.
const MOST_VERIFICATIONS: usize = 100;

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the receiver has no such stream")]
    NoStream,
    #[error("the receiver has a stream already: one is what it may have")]
    Exists,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Target(#[from] UnusableTarget),
    #[error("the endpoint is an address that is not of the public Internet")]
    PrivateTarget,
    #[error(
        "the stream was asked less than {MIN_VERIFICATION_INTERVAL} seconds ago, or too many answers wait in it"
    )]
    TooSoon,
    #[error("the stream is disabled")]
    Disabled,
    #[error("{MOST_EXCLUDED} Macs are removed from the stream, and may be no more")]
    TooManyExcluded,
}

type Outcome<T> = Result<Result<T, Refused>, Failure>;

/// How a stream is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// What is not said stays (PATCH).
    Update,
    /// What is not said is not wished for (PUT).
    Replace,
}

/// Makes the receiver's stream. It is told of what happens from now on.
///
/// # Errors
/// When it cannot be kept.
pub async fn create(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    request: &Request,
) -> Outcome<Configuration> {
    let now = ctx.clock.now();
    if request.stream_id.is_some() {
        let refused = Malformed("stream_id is the transmitter's to choose".to_owned());
        return Ok(Err(refused.into()));
    }
    let stream = Stream {
        stream_id: StreamId::new(now, ctx.entropy.as_ref()),
        receiver_id: receiver.receiver_id.clone(),
        audience: receiver.audience.clone(),
        wishes: request.whole(),
        status: Status::Enabled,
        reason: None,
        verified_at: None,
        created_at: now,
    };
    if let Err(refused) = check(signals, receiver, &stream, request) {
        return Ok(Err(refused));
    }
    let held = SignalStream {
        stream,
        course: Course::default(),
        taken_until: Timestamp::from_millis(0),
        revision: 0,
    };
    // So that it begins after what happened before.
    super::transmit_signals::run_once(ctx).await?;
    let mut tx = ctx.store.write().await?;
    match tx.insert_signal_stream(&held).await {
        Ok(()) => {}
        Err(StoreError::Conflict) => return Ok(Err(Refused::Exists)),
        Err(error) => return Err(error.into()),
    }
    tx.commit().await?;
    Ok(Ok(held.stream.configuration(&signals.transmitter)))
}

/// The receiver's streams: one or none; of a named one, that, or a refusal.
///
/// # Errors
/// When it cannot be read.
pub async fn read(
    ctx: &Context,
    receiver: &Receiver,
    stream_id: Option<&str>,
) -> Outcome<Option<Stream>> {
    let read = ctx.store.read().await?;
    let held = read.signal_stream_of(&receiver.receiver_id).await?;
    let stream = held.map(|held| held.stream);
    Ok(match stream_id {
        None => Ok(stream),
        Some(id) => named(stream, id).map(Some),
    })
}

/// Changes or replaces the stream.
///
/// # Errors
/// When it cannot be kept.
pub async fn change(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    request: &Request,
    manner: Manner,
) -> Outcome<Configuration> {
    let Some(stream_id) = &request.stream_id else {
        let refused = Malformed("stream_id is missing".to_owned());
        return Ok(Err(refused.into()));
    };
    let mut tx = ctx.store.write().await?;
    let mut held = match find(&mut tx, receiver, stream_id).await? {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    let before = &held.stream.wishes;
    let wishes = match manner {
        Manner::Update => request.over(before),
        Manner::Replace => request.whole(),
    };
    held.stream.wishes = wishes.with_header_of(before);
    if let Err(refused) = check(signals, receiver, &held.stream, request) {
        return Ok(Err(refused));
    }
    // What went wrong before went wrong elsewhere.
    held.course = Course::default();
    tx.save_signal_stream(&held).await?;
    tx.commit().await?;
    signals.announce();
    Ok(Ok(held.stream.configuration(&signals.transmitter)))
}

/// Removes the stream, and what waits in it.
///
/// # Errors
/// When that cannot be kept.
pub async fn delete(ctx: &Context, receiver: &Receiver, stream_id: &str) -> Outcome<()> {
    let mut tx = ctx.store.write().await?;
    let held = match find(&mut tx, receiver, stream_id).await? {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    tx.remove_signal_stream(&held.stream.stream_id).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

/// Sets the status. What waits is lost when it is disabled, and delivered when it is enabled.
///
/// # Errors
/// When that cannot be kept.
pub async fn set_status(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    stream_id: &str,
    (status, reason): (Status, Option<String>),
) -> Outcome<StatusShown> {
    // What happened before is told by the status that was.
    super::transmit_signals::run_once(ctx).await?;
    let mut tx = ctx.store.write().await?;
    let mut held = match find(&mut tx, receiver, stream_id).await? {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    held.stream.status = status;
    held.stream.reason = reason;
    held.course = Course::default();
    tx.save_signal_stream(&held).await?;
    if status == Status::Disabled {
        tx.drop_all_signals(&held.stream.stream_id).await?;
    }
    tx.commit().await?;
    signals.announce();
    Ok(Ok(held.stream.status()))
}

/// Has the stream told of a Mac again, or told of it no more. A subject that names no Mac here is taken
/// without a word: who asks learns nothing of whom this service knows.
///
/// # Errors
/// When that cannot be kept.
pub async fn include(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    stream_id: &str,
    subject: &Subject,
    is_included: bool,
) -> Outcome<()> {
    // What happened before is told by what held then.
    super::transmit_signals::run_once(ctx).await?;
    let mut tx = ctx.store.write().await?;
    let held = match find(&mut tx, receiver, stream_id).await? {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    let Some(mac) = subject.mac(&signals.transmitter) else {
        return Ok(Ok(()));
    };
    let stream_id = &held.stream.stream_id;
    if !is_included && tx.signal_exclusions(stream_id).await?.len() >= MOST_EXCLUDED {
        return Ok(Err(Refused::TooManyExcluded));
    }
    tx.exclude_from_signals(stream_id, &mac, !is_included)
        .await?;
    tx.commit().await?;
    Ok(Ok(()))
}

/// Lays a token into the stream that says no more than that it works, and brings back `state`.
///
/// # Errors
/// When it cannot be kept.
pub async fn verify(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    stream_id: &str,
    state: Option<&str>,
) -> Outcome<()> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    let held = match find(&mut tx, receiver, stream_id).await? {
        Ok(held) => held,
        Err(refused) => return Ok(Err(refused)),
    };
    if held.stream.status == Status::Disabled {
        return Ok(Err(Refused::Disabled));
    }
    let stream_id = held.stream.stream_id.clone();
    let asked = held.stream.verified_at;
    let is_soon =
        asked.is_some_and(|at| at <= now && now.since(at).as_secs() < MIN_VERIFICATION_INTERVAL);
    let waiting = tx.signals(&stream_id, true, MOST_VERIFICATIONS).await?;
    if is_soon || waiting.len() >= MOST_VERIFICATIONS {
        return Ok(Err(Refused::TooSoon));
    }
    let envelope = envelope(ctx, &signals.transmitter, &held, now);
    let claims = Claims::verification(envelope, &stream_id, state);
    let signal = NewSignal {
        device_id: None,
        at: now,
        claims,
    };
    tx.set_signal_stream_verified(&stream_id, now).await?;
    tx.hold_signal(&stream_id, &signal).await?;
    tx.commit().await?;
    signals.announce();
    Ok(Ok(()))
}

async fn find(
    tx: &mut Write,
    receiver: &Receiver,
    stream_id: &str,
) -> Result<Result<SignalStream, Refused>, Failure> {
    let held = tx.signal_stream_to_change(&receiver.receiver_id).await?;
    let held = held.filter(|held| held.stream.stream_id.as_str() == stream_id);
    Ok(held.ok_or(Refused::NoStream))
}

fn named(stream: Option<Stream>, stream_id: &str) -> Result<Stream, Refused> {
    stream
        .filter(|stream| stream.stream_id.as_str() == stream_id)
        .ok_or(Refused::NoStream)
}

fn check(
    signals: &Signals,
    receiver: &Receiver,
    stream: &Stream,
    request: &Request,
) -> Result<(), Refused> {
    request.agrees(stream, &signals.transmitter)?;
    let Wishes { delivery, .. } = &stream.wishes;
    let Delivery::Push { endpoint, .. } = delivery else {
        return Ok(());
    };
    let target = Target::parse(endpoint.expose(), receiver.allow_private)?;
    if target.is_private_address() && !receiver.allow_private {
        return Err(Refused::PrivateTarget);
    }
    Ok(())
}
