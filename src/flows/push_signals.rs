//! Tokens are posted to receivers that want them so (RFC 8935).
//!
//! As with webhooks a round belongs to one stream, and what came of it is kept in one step: what was
//! taken, and what was refused for good, is gone from the stream; whatever is not kept is sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::deliver::{self, PAGE, Sending, TAKEN, is_taken, judged};
use super::sign_result::{Known, known};
use super::watch_clock::trouble;
use super::{Context, Failure, transmit_signals};
use crate::entropy::draw;
use crate::ids::DeviceId;
use crate::outbound::Answer;
use crate::publication::delivery::{Outcome, Page};
use crate::publication::jwk::Algorithm;
use crate::publication::jws;
use crate::publication::shared_signals::poll::error_code;
use crate::publication::shared_signals::stream::{Delivery, Status};
use crate::publication::shared_signals::{MEDIA_TYPE, TYP};
use crate::secret::Secret;
use crate::store::{HeldSignal, SignalStream, StoreError};
use crate::time::Timestamp;

/// Makes tokens of what happened, and says which streams may be pushed to now.
///
/// # Errors
/// When something cannot be read or kept.
pub async fn due(ctx: &Context) -> Result<Vec<SignalStream>, Failure> {
    if ctx.signals.is_none() || trouble(ctx).is_some() {
        return Ok(Vec::new());
    }
    transmit_signals::run_once(ctx).await?;
    let now = ctx.clock.now();
    let mut streams = ctx.store.read().await?.signal_streams().await?;
    streams.retain(|held| {
        let is_pushed = matches!(held.stream.wishes.delivery, Delivery::Push { .. });
        let is_open = held.stream.status != Status::Paused;
        is_pushed && is_open && held.course.may_send(now) && !is_taken(ctx, held.taken_until, now)
    });
    Ok(streams)
}

/// Posts what waits in one stream. Returns whether anything was sent.
///
/// # Errors
/// When something cannot be read or kept.
pub async fn round(ctx: &Context, mut held: SignalStream) -> Result<bool, Failure> {
    let now = ctx.clock.now();
    let Delivery::Push {
        endpoint,
        authorization,
    } = held.stream.wishes.delivery.clone()
    else {
        return Ok(false);
    };
    let read = ctx.store.read().await?;
    let waiting = read.signals(&held.stream.stream_id, false, PAGE).await?;
    let receiver = read.signal_receiver(&held.stream.receiver_id).await?;
    drop(read);
    let lanes = deliver::lanes(&held.course, waiting.iter(), now);
    let Some(receiver) = receiver.filter(|_| !lanes.is_empty()) else {
        return Ok(false);
    };
    let manner = Pushed {
        ctx,
        known: known(ctx).await?,
        authorization,
    };
    // Without a key nothing is sent, and no token is to blame.
    manner.known.signer(Algorithm::Rs256, now)?;
    let mut tx = ctx.store.write().await?;
    if !tx.take_signal_stream(&mut held, now.plus(TAKEN)).await? {
        return Ok(false);
    }
    tx.commit().await?;
    let (url, root) = (endpoint.expose(), receiver.root.as_deref());
    let sending = Sending::new(ctx, &manner, url, receiver.allow_private, root)?;
    let outcomes = sending.send(lanes).await;
    let sent = !outcomes.is_empty();

    let now = ctx.clock.now();
    let messages: Vec<_> = waiting
        .iter()
        .map(|signal| (signal.seq, signal.at))
        .collect();
    let page = Page {
        messages: &messages,
        up_to: messages.last().map_or(0, |(seq, _)| *seq),
        // The stream comes to an end by itself, and says so.
        patience: Duration::MAX,
    };
    let jitter = u16::from_be_bytes(draw(ctx.entropy.as_ref()));
    let given_up = held.course.note(&page, &outcomes, now, jitter);
    held.course = held.course.without_place();
    for given_up in &given_up {
        ctx.metrics.signal("given_up");
        tracing::warn!(stream.id = %held.stream.stream_id, seq = given_up.seq, why = given_up.why, "a token was given up");
    }
    let delivered = |seq: i64| outcomes.get(&seq) == Some(&Outcome::Delivered);
    let is_over = |seq: i64| delivered(seq) || given_up.iter().any(|it| it.seq == seq);
    let over = waiting.iter().filter(|signal| is_over(signal.seq));
    let over: Vec<_> = over.map(|signal| signal.claims.jti.to_string()).collect();
    let mut tx = ctx.store.write().await?;
    match tx.save_signal_course(&held).await {
        // It was changed or removed meanwhile: what was sent may be sent again.
        Err(StoreError::Conflict) => return Ok(sent),
        saved => saved?,
    }
    tx.drop_signals(&held.stream.stream_id, &over).await?;
    tx.commit().await?;
    Ok(sent)
}

impl deliver::Message for HeldSignal {
    fn seq(&self) -> i64 {
        self.seq
    }

    fn device_id(&self) -> Option<&DeviceId> {
        self.device_id.as_ref()
    }
}

/// The token, signed by whoever signs now.
///
/// # Errors
/// Without a key.
pub(super) fn signed(
    known: &Known,
    signal: &HeldSignal,
    now: Timestamp,
) -> Result<String, Failure> {
    let (kid, signer) = known.signer(Algorithm::Rs256, now)?;
    let token = jws::compact(&signal.claims, TYP, kid, Algorithm::Rs256, signer);
    token.map_err(Failure::Unsigned)
}

struct Pushed<'a> {
    ctx: &'a Context,
    known: Arc<Known>,
    authorization: Option<Secret<String>>,
}

impl deliver::Manner<HeldSignal> for Pushed<'_> {
    fn write(&self, signal: &HeldSignal) -> Option<(HeaderMap, Bytes)> {
        let token = signed(&self.known, signal, self.ctx.clock.now()).ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json);
        if let Some(authorization) = &self.authorization {
            let mut value = HeaderValue::from_str(authorization.expose()).ok()?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Some((headers, token.into()))
    }

    /// RFC 8935 section 2.3: 400 says what is wrong with the token.
    fn judge(&self, answer: &Answer) -> Outcome {
        let error = serde_json::from_slice::<serde_json::Value>(&answer.body).ok();
        match error.as_ref().and_then(error_code) {
            Some(code) if answer.status == 400 => Outcome::Refused(code.to_owned()),
            _ => judged(answer.status),
        }
    }

    fn count(&self, outcome: &'static str) {
        self.ctx.metrics.signal(outcome);
    }
}
