//! A receiver takes what waits in its stream, and says what arrived (RFC 8936).

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::push_signals::signed;
use super::sign_result::known;
use super::transmit_signals::Signals;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::publication::shared_signals::poll::PollRequest;
use crate::publication::shared_signals::receiver::Receiver;
use crate::publication::shared_signals::stream::{Delivery, Status};
use crate::store::{HeldSignal, SignalStream};

/// How long a receiver that waits is kept waiting.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How often it is looked whether another node made a token.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a receiver gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Names of tokens, and the tokens.
    pub sets: Vec<(String, String)>,
    pub more: bool,
}

/// Hands out what waits, after what the receiver says was noted. It waits for something to come, if it
/// may; `stop` ends that. `None`: the receiver has no such stream, or is pushed to.
///
/// # Errors
/// While the clock is not believed, without a key, and when something cannot be read or kept.
pub async fn poll_signals(
    ctx: &Context,
    signals: &Signals,
    receiver: &Receiver,
    stream_id: &str,
    request: &PollRequest,
    stop: &CancellationToken,
) -> Result<Option<Polled>, Failure> {
    demand(ctx)?;
    let began = Instant::now();
    let mut moved = signals.moved.subscribe();
    let mut is_told = request.ack.is_empty() && request.refused.is_empty();
    loop {
        moved.borrow_and_update();
        let Some(held) = polled(ctx, receiver, stream_id).await? else {
            return Ok(None);
        };
        if !is_told {
            note(ctx, &held, request).await?;
            is_told = true;
        }
        let waiting = waiting(ctx, &held, request.max_events + 1).await?;
        let is_over = request.return_immediately
            || request.max_events == 0
            || began.elapsed() >= LONGEST_WAIT
            || stop.is_cancelled();
        if is_over || !waiting.is_empty() {
            return Ok(Some(handed_out(ctx, &waiting, request.max_events).await?));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = timeout(LOOK_AGAIN, moved.changed()) => {}
        }
    }
}

async fn polled(
    ctx: &Context,
    receiver: &Receiver,
    stream_id: &str,
) -> Result<Option<SignalStream>, Failure> {
    let read = ctx.store.read().await?;
    let held = read.signal_stream_of(&receiver.receiver_id).await?;
    Ok(held.filter(|held| {
        let stream = &held.stream;
        stream.stream_id.as_str() == stream_id && stream.wishes.delivery == Delivery::Poll
    }))
}

/// Forgets what arrived, and what is not taken.
async fn note(ctx: &Context, held: &SignalStream, request: &PollRequest) -> Result<(), Failure> {
    let stream_id = &held.stream.stream_id;
    let mut tx = ctx.store.write().await?;
    let delivered = tx.drop_signals(stream_id, &request.ack).await?;
    let names: Vec<_> = request.refused.keys().cloned().collect();
    let refused = tx.drop_signals(stream_id, &names).await?;
    tx.commit().await?;
    for _ in 0..delivered {
        ctx.metrics.signal("delivered");
    }
    for _ in 0..refused {
        ctx.metrics.signal("given_up");
    }
    if let Some((jti, why)) = request.refused.iter().next().filter(|_| refused > 0) {
        tracing::warn!(stream.id = %stream_id, refused, jti, why, "a receiver does not take tokens");
    }
    Ok(())
}

async fn waiting(
    ctx: &Context,
    held: &SignalStream,
    limit: usize,
) -> Result<Vec<HeldSignal>, Failure> {
    if held.stream.status == Status::Paused {
        return Ok(Vec::new());
    }
    let read = ctx.store.read().await?;
    Ok(read.signals(&held.stream.stream_id, false, limit).await?)
}

async fn handed_out(ctx: &Context, waiting: &[HeldSignal], most: usize) -> Result<Polled, Failure> {
    let known = known(ctx).await?;
    let now = ctx.clock.now();
    let mut sets = Vec::new();
    for signal in waiting.iter().take(most) {
        let token = signed(&known, signal, now)?;
        sets.push((signal.claims.jti.to_string(), token));
        // A signature takes a millisecond, and there may be a hundred.
        tokio::task::yield_now().await;
    }
    Ok(Polled {
        sets,
        more: waiting.len() > most,
    })
}
