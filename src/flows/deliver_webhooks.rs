//! Those who are told of events by messages are told: some events at a time, those of one Mac one after
//! the other.
//!
//! A round belongs to one webhook, so that a receiver that hangs holds up itself. Whoever goes on with a
//! webhook takes it first; what came of the round is kept in one step, and whatever is not kept is sent
//! again.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Context, Failure};
use crate::entropy::draw;
use crate::ids::DeviceId;
use crate::outbound::{Fault, Line, Reach, Target};
use crate::publication::delivery::{Outcome, PATIENCE, Page};
use crate::publication::webhook::{self, Message};
use crate::store::{DeadLetter, EventPage, NumberedEvent, StoreError, Webhook};
use crate::time::Timestamp;

/// Events that are looked at in one round: a message that is refused holds up no more than these.
const PAGE: usize = 256;
/// Connections to one receiver.
const LANES: usize = 8;
/// After so long a round begins no more messages. With the deadline of one it ends well within [`TAKEN`].
const ROUND: Duration = Duration::from_secs(20);
/// How long others leave a webhook to whoever took it.
const TAKEN: Duration = Duration::from_secs(60);
/// How long messages that were given up are kept.
pub const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Every webhook that may be sent to now, unless somebody else is at it.
pub async fn due(ctx: &Context) -> Result<Vec<Webhook>, Failure> {
    let now = ctx.clock.now();
    let mut webhooks = ctx.store.read().await?.webhooks().await?;
    webhooks.retain(|webhook| webhook.course.may_send(now) && !is_taken(ctx, webhook, now));
    Ok(webhooks)
}

/// Whether another node is at it. A server that has its database to itself only finds what it left
/// behind itself; and nobody takes one for longer than a clock that was wrong says.
fn is_taken(ctx: &Context, webhook: &Webhook, now: Timestamp) -> bool {
    let until = webhook.taken_until;
    !ctx.store.is_ours_alone() && now < until && until.since(now) <= TAKEN
}

/// Tells one webhook what there is to tell. Returns whether anything was sent.
pub async fn round(ctx: &Context, mut webhook: Webhook) -> Result<bool, Failure> {
    let now = ctx.clock.now();
    let page = ctx.store.event_page(webhook.course.cursor, PAGE).await?;
    let again = ctx.store.read().await?;
    let again = again.dead_letters(&webhook.webhook_id, true, PAGE).await?;
    let lanes = lanes(&webhook, &page, now);
    let moves = settles(&webhook, &page);
    if lanes.is_empty() && again.is_empty() && !moves {
        return Ok(false);
    }
    let mut tx = ctx.store.write().await?;
    if !tx.take_webhook(&mut webhook, now.plus(TAKEN)).await? {
        return Ok(false);
    }
    tx.commit().await?;

    let sending = Sending::new(ctx, &webhook)?;
    let replayed = sending
        .send_in_order(again.iter().map(|letter| &letter.event))
        .await;
    let lanes = futures_util::stream::iter(lanes);
    lanes
        .for_each_concurrent(LANES, |lane| sending.send_lane(lane))
        .await;
    let outcomes = sending
        .outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let sent = !outcomes.is_empty() || !replayed.is_empty();
    match keep(ctx, webhook, &page, outcomes, (again, replayed)).await {
        // Somebody moved or removed it meanwhile: what was sent may be sent again.
        Err(Failure::Store(StoreError::Conflict)) => Ok(sent),
        kept => kept.map(|()| sent),
    }
}

/// What is to be sent now, by Mac; what is about none is in an order of its own.
fn lanes<'a>(
    webhook: &Webhook,
    page: &'a EventPage,
    now: Timestamp,
) -> Vec<Vec<&'a NumberedEvent>> {
    let mut lanes: BTreeMap<Option<&DeviceId>, Vec<&NumberedEvent>> = BTreeMap::new();
    for event in wanted(webhook, page) {
        if !webhook.course.is_settled(event.seq) {
            lanes
                .entry(event.device_id.as_ref())
                .or_default()
                .push(event);
        }
    }
    // Nothing overtakes what waits to be tried again.
    lanes.retain(|_, lane| {
        lane.first()
            .is_some_and(|event| webhook.course.is_due(event.seq, now))
    });
    let mut lanes: Vec<_> = lanes.into_values().collect();
    lanes.sort_by_key(|lane| lane.first().map(|event| event.seq));
    lanes
}

fn wanted<'a>(webhook: &Webhook, page: &'a EventPage) -> impl Iterator<Item = &'a NumberedEvent> {
    let names = webhook.events.clone();
    let is_wanted = move |event: &&NumberedEvent| {
        let names = names.as_ref();
        names.is_none_or(|names| names.contains(&event.event.name))
    };
    page.events.iter().filter(is_wanted)
}

/// Whether the cursor can move without anything being sent.
fn settles(webhook: &Webhook, page: &EventPage) -> bool {
    let open = wanted(webhook, page).find(|event| !webhook.course.is_settled(event.seq));
    open.map_or(page.up_to, |event| event.seq - 1) > webhook.course.cursor
}

/// Keeps what came of a round.
async fn keep(
    ctx: &Context,
    mut webhook: Webhook,
    page: &EventPage,
    outcomes: BTreeMap<i64, Outcome>,
    (again, replayed): (Vec<DeadLetter>, BTreeMap<i64, Outcome>),
) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let messages: Vec<_> = wanted(&webhook, page)
        .map(|event| (event.seq, event.event.at))
        .collect();
    let noted = Page {
        messages: &messages,
        up_to: page.up_to,
    };
    let jitter = u16::from_be_bytes(draw(ctx.entropy.as_ref()));
    let mut all = outcomes;
    // Where the receiver is not reached, everything waits, whatever was to be sent.
    let unreached = |outcome: &&Outcome| matches!(outcome, Outcome::Unreached(_));
    if let Some(outcome) = replayed.values().find(unreached) {
        all.entry(webhook.course.cursor)
            .or_insert_with(|| outcome.clone());
    }
    let given_up = webhook.course.note(&noted, &all, now, jitter);
    let mut tx = ctx.store.write().await?;
    tx.save_course(&webhook).await?;
    for given_up in given_up {
        let event = page.events.iter().find(|event| event.seq == given_up.seq);
        let Some(event) = event else { continue };
        let letter = DeadLetter {
            event: event.clone(),
            why: given_up.why,
            given_up_at: now,
            replay_since: None,
        };
        tx.keep_dead_letter(&webhook.webhook_id, &letter).await?;
        ctx.metrics.webhook_message("given_up");
        tracing::warn!(webhook = %webhook.name, seq = letter.event.seq, why = letter.why, "a message was given up");
    }
    for letter in again {
        match replayed.get(&letter.event.seq) {
            Some(Outcome::Delivered) => {
                let seq = letter.event.seq;
                tx.remove_dead_letter(&webhook.webhook_id, seq).await?;
            }
            Some(Outcome::Refused(why)) => put_back(&mut tx, &webhook, letter, why, now).await?,
            Some(Outcome::Unreached(why)) if is_late(&letter, now) => {
                put_back(&mut tx, &webhook, letter, why, now).await?;
            }
            Some(Outcome::Unreached(_)) | None => {}
        }
    }
    Ok(tx.commit().await?)
}

fn is_late(letter: &DeadLetter, now: Timestamp) -> bool {
    let since = letter.replay_since;
    since.is_none_or(|since| now.since(since) >= PATIENCE)
}

/// A message that was to be sent again is given up again.
async fn put_back(
    tx: &mut crate::store::Write,
    webhook: &Webhook,
    letter: DeadLetter,
    why: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let letter = DeadLetter {
        why: why.to_owned(),
        given_up_at: now,
        replay_since: None,
        ..letter
    };
    Ok(tx.keep_dead_letter(&webhook.webhook_id, &letter).await?)
}

/// Forgets what was given up long ago.
pub async fn tidy(ctx: &Context) -> Result<(), Failure> {
    let before = ctx.clock.now().minus(DEAD_KEPT);
    let mut tx = ctx.store.write().await?;
    tx.forget_dead_letters(before).await?;
    Ok(tx.commit().await?)
}

/// The messages of a round on their way.
struct Sending<'a> {
    ctx: &'a Context,
    webhook: &'a Webhook,
    target: Target,
    reach: Reach,
    began: Instant,
    /// The receiver was not reached: nothing more is sent.
    is_over: AtomicBool,
    outcomes: Mutex<BTreeMap<i64, Outcome>>,
}

impl<'a> Sending<'a> {
    fn new(ctx: &'a Context, webhook: &'a Webhook) -> Result<Self, Failure> {
        Ok(Self {
            ctx,
            webhook,
            target: Target::parse(webhook.url.expose(), webhook.allow_private)
                .map_err(|_| Failure::Inconsistent("a webhook without a usable address"))?,
            reach: Reach {
                allow_private: webhook.allow_private,
                root: webhook.root.as_ref().map(|root| root.clone().into_bytes()),
            },
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            outcomes: Mutex::default(),
        })
    }

    async fn send_lane(&self, lane: Vec<&NumberedEvent>) {
        let outcomes = self.send_in_order(lane.into_iter()).await;
        let mut all = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(outcomes);
    }

    /// Sends until one is not delivered.
    async fn send_in_order(
        &self,
        events: impl Iterator<Item = &NumberedEvent>,
    ) -> BTreeMap<i64, Outcome> {
        let mut outcomes = BTreeMap::new();
        let mut line = None;
        for event in events {
            let is_late = self.began.elapsed() > ROUND;
            if is_late || self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let outcome = self.send(&mut line, event).await;
            let goes_on = outcome == Outcome::Delivered;
            let label = match &outcome {
                Outcome::Delivered => "delivered",
                Outcome::Refused(_) => "refused",
                Outcome::Unreached(_) => "unreached",
            };
            self.ctx.metrics.webhook_message(label);
            if matches!(outcome, Outcome::Unreached(_)) {
                self.is_over.store(true, Ordering::Relaxed);
            }
            outcomes.insert(event.seq, outcome);
            if !goes_on {
                break;
            }
        }
        outcomes
    }

    async fn send(&self, line: &mut Option<Line>, event: &NumberedEvent) -> Outcome {
        let Some((headers, body)) = self.message(event) else {
            return Outcome::Refused("cannot be written".to_owned());
        };
        let line = match line {
            Some(line) => line,
            None => match self.ctx.outbound.line(self.target.clone(), &self.reach) {
                Ok(new) => line.insert(new),
                Err(_) => return Outcome::Unreached(Fault::Untrusted.as_str().to_owned()),
            },
        };
        match line.post(&headers, &body).await {
            Ok(answer) => judged(answer.status),
            Err(fault) => Outcome::Unreached(fault.as_str().to_owned()),
        }
    }

    fn message(&self, event: &NumberedEvent) -> Option<(HeaderMap, Bytes)> {
        let message = Message {
            name: &event.event.name,
            timestamp: event.event.at,
            seq: event.seq,
            data: &event.event.body,
        };
        let body = serde_json::to_vec(&message).ok()?;
        let id = webhook::id(event.seq);
        let sent_at = self.ctx.clock.now().millis().div_euclid(1000);
        let signature = self.webhook.secret.sign(&id, sent_at, &body);
        let mut headers = HeaderMap::new();
        let mut add = |name, value: String| {
            let value = HeaderValue::from_str(&value).ok()?;
            headers.insert(HeaderName::from_static(name), value);
            Some(())
        };
        add(webhook::ID, id)?;
        add(webhook::TIMESTAMP, sent_at.to_string())?;
        add(webhook::SIGNATURE, signature)?;
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let agent = HeaderValue::from_static(concat!("attestd/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        Some((headers, body.into()))
    }
}

/// What a status says: taken, not this one, or not now.
fn judged(status: u16) -> Outcome {
    let said = format!("answered {status}");
    match status {
        200..=299 => Outcome::Delivered,
        408 | 429 | 500..=599 => Outcome::Unreached(said),
        _ => Outcome::Refused(said),
    }
}
