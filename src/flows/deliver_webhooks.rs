//! Those who are told of events by messages are told: some events at a time, those of one Mac one after
//! the other.
//!
//! A round belongs to one webhook, so that a receiver that hangs holds up itself. Whoever goes on with a
//! webhook takes it first; what came of the round is kept in one step, and whatever is not kept is sent
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::deliver::{self, PAGE, Sending, TAKEN, is_taken, judged};
use super::{Context, Failure};
use crate::entropy::draw;
use crate::ids::DeviceId;
use crate::outbound::Answer;
use crate::publication::delivery::{Outcome, PATIENCE, Page};
use crate::publication::webhook::{self, Message};
use crate::store::{DeadLetter, EventPage, NumberedEvent, StoreError, Webhook};
use crate::time::Timestamp;

/// How long messages that were given up are kept.
pub const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Every webhook that may be sent to now, unless somebody else is at it.
pub async fn due(ctx: &Context) -> Result<Vec<Webhook>, Failure> {
    let now = ctx.clock.now();
    let mut webhooks = ctx.store.read().await?.webhooks().await?;
    webhooks
        .retain(|webhook| webhook.course.may_send(now) && !is_taken(ctx, webhook.taken_until, now));
    Ok(webhooks)
}

/// Tells one webhook what there is to tell. Returns whether anything was sent.
pub async fn round(ctx: &Context, mut webhook: Webhook) -> Result<bool, Failure> {
    let now = ctx.clock.now();
    let page = ctx.store.event_page(webhook.course.cursor, PAGE).await?;
    let again = ctx.store.read().await?;
    let again = again.dead_letters(&webhook.webhook_id, true, PAGE).await?;
    let lanes = deliver::lanes(&webhook.course, wanted(&webhook, &page), now);
    let moves = settles(&webhook, &page);
    if lanes.is_empty() && again.is_empty() && !moves {
        return Ok(false);
    }
    let mut tx = ctx.store.write().await?;
    if !tx.take_webhook(&mut webhook, now.plus(TAKEN)).await? {
        return Ok(false);
    }
    tx.commit().await?;

    let manner = Signed {
        ctx,
        webhook: &webhook,
    };
    let (url, root) = (webhook.url.expose(), webhook.root.as_deref());
    let sending = Sending::new(ctx, &manner, url, webhook.allow_private, root)?;
    let replayed = sending
        .send_in_order(again.iter().map(|letter| &letter.event))
        .await;
    let outcomes = sending.send(lanes).await;
    let sent = !outcomes.is_empty() || !replayed.is_empty();
    match keep(ctx, webhook, &page, outcomes, (again, replayed)).await {
        // Somebody moved or removed it meanwhile: what was sent may be sent again.
        Err(Failure::Store(StoreError::Conflict)) => Ok(sent),
        kept => kept.map(|()| sent),
    }
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
        patience: PATIENCE,
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
        tracing::warn!(%webhook.name, seq = letter.event.seq, why = letter.why, "a message was given up");
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

impl deliver::Message for NumberedEvent {
    fn seq(&self) -> i64 {
        self.seq
    }

    fn device_id(&self) -> Option<&DeviceId> {
        self.device_id.as_ref()
    }
}

/// Messages as the webhook's secret signs them.
struct Signed<'a> {
    ctx: &'a Context,
    webhook: &'a Webhook,
}

impl deliver::Manner<NumberedEvent> for Signed<'_> {
    fn write(&self, event: &NumberedEvent) -> Option<(HeaderMap, Bytes)> {
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
        Some((headers, body.into()))
    }

    fn judge(&self, answer: &Answer) -> Outcome {
        judged(answer.status)
    }

    fn count(&self, outcome: &'static str) {
        self.ctx.metrics.webhook_message(outcome);
    }
}
