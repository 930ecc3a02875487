//! What happened becomes tokens: the outbox is read in its order, and what is news of a Mac's compliance
//! is laid into each stream that wants it, in the same step that says how far that went.
//!
//! So the outbox waits for this reader only, which waits for nobody; what a receiver has not taken waits
//! in its stream. That has an end, too: a stream from which nothing was taken for as long as events are
//! kept, or that holds too much, is disabled, and one token in it says so.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::watch;

use super::follow_events::RETAINED;
use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::ids::{DeviceId, SignalId};
use crate::posture::Posture;
use crate::posture::trust::Level;
use crate::publication::shared_signals::access::AccessKey;
use crate::publication::shared_signals::compliance::PostureChange;
use crate::publication::shared_signals::event_token::{Claims, Envelope};
use crate::publication::shared_signals::stream::Status;
use crate::publication::shared_signals::{DEVICE_COMPLIANCE_CHANGE, Transmitter};
use crate::publication::subject::Subject;
use crate::publication::{event, webhook};
use crate::store::{EventPage, NewSignal, NumberedEvent, SignalStream, Store, Write};
use crate::time::Timestamp;

/// Events that are read at once.
const PAGE: usize = 256;
/// Events without news that are passed over before that is written down.
const PASSED_OVER: i64 = 4096;
/// Tokens that wait in one stream.
pub const MOST_HELD: u64 = 100_000;

/// What is shared, by whom, and with whose leave.
#[derive(Debug)]
pub struct Signals {
    pub transmitter: Transmitter,
    pub access: AccessKey,
    /// Rises when there are new tokens on this node.
    pub(super) moved: watch::Sender<u64>,
    /// No event up to here is news that no token was made of.
    read_up_to: AtomicI64,
}

impl Signals {
    /// In the name of this transmitter.
    pub fn new(transmitter: Transmitter, access: AccessKey) -> Self {
        Self {
            transmitter,
            access,
            moved: watch::Sender::new(0),
            read_up_to: AtomicI64::new(0),
        }
    }

    pub(super) fn announce(&self) {
        self.moved
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Signals are shared from now on, or go on to be.
///
/// # Errors
/// When it cannot be kept.
pub async fn begin(store: &Store) -> Result<(), Failure> {
    let settled = store.settled_event().await?;
    let mut tx = store.write().await?;
    tx.begin_signals(settled).await?;
    Ok(tx.commit().await?)
}

/// Signals are not shared any more: nothing waits for them.
///
/// # Errors
/// When it cannot be kept.
pub async fn end(store: &Store) -> Result<(), Failure> {
    if store.read().await?.signals_made_up_to().await?.is_some() {
        let mut tx = store.write().await?;
        tx.end_signals().await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Makes tokens of everything that happened.
///
/// # Errors
/// When something cannot be read or kept.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let Some(signals) = &ctx.signals else {
        return Ok(());
    };
    if trouble(ctx).is_some() {
        // By such a clock nothing is dated.
        return Ok(());
    }
    loop {
        let Some(made) = ctx.store.read().await?.signals_made_up_to().await? else {
            return begin(&ctx.store).await;
        };
        let from = made.max(signals.read_up_to.load(Ordering::Relaxed));
        let page = ctx.store.event_page(from, PAGE).await?;
        if page.up_to <= from {
            return Ok(());
        }
        let changes = changes(&page)?;
        if changes.is_empty() {
            signals.read_up_to.fetch_max(page.up_to, Ordering::Relaxed);
            if page.up_to - made > PASSED_OVER {
                pass(ctx, made, page.up_to).await?;
            }
        } else if !make(ctx, signals, made, page.up_to, &changes).await? {
            // Another node was faster.
            return Ok(());
        }
    }
}

fn changes(page: &EventPage) -> Result<Vec<(&NumberedEvent, PostureChange)>, Failure> {
    let changed = page.events.iter();
    let changed = changed.filter(|event| event.event.name == event::POSTURE_CHANGED);
    let read = |event: &'_ NumberedEvent| serde_json::from_value(event.event.body.clone());
    changed
        .map(|event| {
            let change = read(event);
            let change = change.map_err(|_| Failure::Inconsistent("a change that is none"))?;
            Ok((event, change))
        })
        .collect()
}

/// Says how far the outbox was read, if nobody else did meanwhile.
async fn pass(ctx: &Context, made: i64, up_to: i64) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    if tx.signals_to_make_from().await? == Some(made) {
        tx.set_signals_made_up_to(up_to).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// False when somebody else went on from `made`.
async fn make(
    ctx: &Context,
    signals: &Signals,
    made: i64,
    up_to: i64,
    changes: &[(&NumberedEvent, PostureChange)],
) -> Result<bool, Failure> {
    let pseudonyms = pseudonyms(ctx, changes).await?;
    let ends_use = ctx.policy.rules.routing.floor == Level::Hardware;
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    if tx.signals_to_make_from().await? != Some(made) {
        return Ok(false);
    }
    let mut streams = Vec::new();
    for held in tx.signal_streams_to_change().await? {
        let stream = &held.stream;
        if stream.status != Status::Disabled && stream.wants(DEVICE_COMPLIANCE_CHANGE) {
            let excluded = tx.signal_exclusions(&stream.stream_id).await?;
            streams.push((held, excluded));
        }
    }
    for (event, change) in changes {
        let known = tx.signal_word(&change.device_id).await?;
        if let Some(word) = change.word(ends_use)
            && known != Some(word)
        {
            tx.set_signal_word(&change.device_id, word).await?;
        }
        let Some(news) = change.news(known, ends_use) else {
            continue;
        };
        let Some(pseudonym) = pseudonyms.get(&change.device_id) else {
            continue;
        };
        for (held, excluded) in &streams {
            if is_excluded(excluded, &change.device_id, pseudonym) {
                continue;
            }
            let envelope = envelope(ctx, &signals.transmitter, held, now);
            let txn = webhook::id(event.seq);
            let at = event.event.at;
            let claims = Claims::compliance_change(envelope, pseudonym, &news, at, txn);
            let signal = NewSignal {
                device_id: Some(change.device_id.clone()),
                at: now,
                claims,
            };
            tx.hold_signal(&held.stream.stream_id, &signal).await?;
        }
    }
    tx.set_signals_made_up_to(up_to).await?;
    tx.commit().await?;
    signals.announce();
    Ok(true)
}

fn is_excluded(excluded: &BTreeSet<String>, device_id: &DeviceId, pseudonym: &str) -> bool {
    excluded.contains(device_id.as_str()) || excluded.contains(pseudonym)
}

async fn pseudonyms(
    ctx: &Context,
    changes: &[(&NumberedEvent, PostureChange)],
) -> Result<HashMap<DeviceId, String>, Failure> {
    let now = ctx.clock.now();
    let read = ctx.store.read().await?;
    let mut pseudonyms = HashMap::new();
    for (_, change) in changes {
        let device_id = &change.device_id;
        let posture = read.posture(device_id).await?;
        // Who is known no more keeps the name of one who never proved a key.
        let posture = posture.unwrap_or_else(|| Posture::unknown(device_id.clone(), now));
        let subject = Subject::of_mac(&posture, ctx.subject_secret.expose());
        pseudonyms.insert(device_id.clone(), subject.as_str().to_owned());
    }
    Ok(pseudonyms)
}

/// A new token for this stream.
pub(super) fn envelope<'a>(
    ctx: &Context,
    transmitter: &'a Transmitter,
    held: &'a SignalStream,
    now: Timestamp,
) -> Envelope<'a> {
    Envelope {
        transmitter,
        jti: SignalId::new(now, ctx.entropy.as_ref()),
        audience: &held.stream.audience,
        now,
    }
}

/// Writes down how far the outbox was read, and disables streams that nobody takes anything from.
///
/// # Errors
/// When something cannot be read or kept.
pub async fn tidy(ctx: &Context) -> Result<(), Failure> {
    let Some(signals) = &ctx.signals else {
        return Ok(());
    };
    if trouble(ctx).is_some() {
        // By such a clock nothing is old.
        return Ok(());
    }
    let read = ctx.store.read().await?;
    let made = read.signals_made_up_to().await?;
    let streams = read.signal_streams().await?;
    drop(read);
    let read_up_to = signals.read_up_to.load(Ordering::Relaxed);
    if let Some(made) = made.filter(|made| *made < read_up_to) {
        pass(ctx, made, read_up_to).await?;
    }
    let now = ctx.clock.now();
    for held in streams {
        let mut tx = ctx.store.write().await?;
        let receiver_id = &held.stream.receiver_id;
        let Some(held) = tx.signal_stream_to_change(receiver_id).await? else {
            continue;
        };
        if end_if_overdue(ctx, signals, &mut tx, held, now).await? {
            tx.commit().await?;
            signals.announce();
        }
    }
    Ok(())
}

async fn end_if_overdue(
    ctx: &Context,
    signals: &Signals,
    tx: &mut Write,
    mut held: SignalStream,
    now: Timestamp,
) -> Result<bool, Failure> {
    let stream_id = held.stream.stream_id.clone();
    let oldest = tx.signals(&stream_id, false, 1).await?.pop();
    let is_old = oldest.is_some_and(|signal| now.since(signal.at) >= RETAINED);
    let is_full = tx.signal_count(&stream_id).await? > MOST_HELD;
    let why = match (is_old, is_full) {
        (false, false) => return Ok(false),
        (true, _) => "nothing was taken for 14 days",
        (false, true) => "as many tokens wait as may",
    };
    tx.drop_all_signals(&stream_id).await?;
    if held.stream.status == Status::Disabled {
        // Nobody even took what said so.
        return Ok(true);
    }
    tracing::warn!(stream.id = %stream_id, why, "a stream of shared signals is disabled");
    held.stream.status = Status::Disabled;
    held.stream.reason = Some(why.to_owned());
    let envelope = envelope(ctx, &signals.transmitter, &held, now);
    let claims = Claims::stream_updated(envelope, &stream_id, Status::Disabled, why);
    let signal = NewSignal {
        device_id: None,
        at: now,
        claims,
    };
    tx.save_signal_stream(&held).await?;
    tx.hold_signal(&stream_id, &signal).await?;
    Ok(true)
}
