//! Whatever must move is looked at: answers that are judged, events that are read, background work. What
//! stands still is told: by metric, log, and the event `service.degraded`. On the way is measured what
//! nobody else has a reason to look at: how old verdicts are, and how far behind those are who are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::watch_clock::trouble;
use super::{Context, Failure};
use crate::publication::event;
use crate::store::{Event, Write};
use crate::time::Timestamp;
use crate::verification::standstill::{
    MANY, Standstill, Verdicts, of_events, of_verdicts, patience,
};

/// The fact that says when an answer was judged last.
const MOVED_AT: &str = "verdicts_moved_at";
/// The fact that says whether it was told that verdicts stand still.
const TOLD: &str = "verdicts_told";
/// How long the outbox may take.
const TELLING: Duration = Duration::from_secs(5);
/// How often the former is kept: after a restart, nobody is blamed for less.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What is seen on this node.
#[derive(Debug)]
pub struct Watched {
    began: Timestamp,
    /// When an answer was judged here last, in milliseconds; 0 before.
    judged_at: AtomicI64,
    hearts: Mutex<Vec<Arc<Beat>>>,
    /// What this node told that is not over.
    told: Mutex<Vec<Standstill>>,
}

#[derive(Debug)]
struct Beat {
    worker: &'static str,
    allowed: Duration,
    last: Mutex<Instant>,
    rests: AtomicBool,
}

/// A worker that is to come to the end of its runs. One that dies, hangs or fails again and again beats
/// no more.
#[derive(Debug)]
pub struct Heart(Arc<Beat>);

impl Heart {
    /// A run came to its end.
    pub fn beats(&self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A run came to this end.
    pub fn beat<T>(&self, done: &Result<T, Failure>) {
        if done.is_ok() {
            self.beats();
        }
    }

    /// The worker has nothing more to do.
    pub fn rests(&self) {
        self.0.rests.store(true, Ordering::Relaxed);
    }
}

impl Watched {
    /// Begins to look at this time.
    pub fn new(began: Timestamp) -> Self {
        Self {
            began,
            judged_at: AtomicI64::new(0),
            hearts: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// A worker begins, which may take so long from the end of a run to the next.
    pub fn heart(&self, worker: &'static str, allowed: Duration) -> Heart {
        let beat = Arc::new(Beat {
            worker,
            allowed,
            last: Mutex::new(Instant::now()),
            rests: AtomicBool::new(false),
        });
        self.hearts().push(Arc::clone(&beat));
        Heart(beat)
    }

    /// An answer was judged.
    pub fn judged(&self, at: Timestamp) {
        self.judged_at.fetch_max(at.millis(), Ordering::Relaxed);
    }

    fn judged_at(&self) -> Option<Timestamp> {
        let at = self.judged_at.load(Ordering::Relaxed);
        (at > 0).then(|| Timestamp::from_millis(at))
    }

    fn hearts(&self) -> MutexGuard<'_, Vec<Arc<Beat>>> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long each worker has been silent, of those of one name the longest, and whether that is too
    /// long.
    fn silences(&self) -> BTreeMap<&'static str, (Duration, bool)> {
        let mut silences: BTreeMap<_, (Duration, bool)> = BTreeMap::new();
        for beat in self.hearts().iter() {
            if beat.rests.load(Ordering::Relaxed) {
                continue;
            }
            let last = beat.last.lock().unwrap_or_else(PoisonError::into_inner);
            let silence = last.elapsed();
            let known = silences.entry(beat.worker).or_default();
            known.0 = known.0.max(silence);
            known.1 |= silence > beat.allowed;
        }
        silences
    }

    /// Notes that something stands still, or does not; returns whether that is news.
    fn is_news(&self, what: Standstill, stands: bool) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(&what) == stands {
            return false;
        }
        told.retain(|known| *known != what);
        if stands {
            told.push(what);
        }
        true
    }
}

/// Runs once: measures, and tells of what began to stand still, or moves again.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let now = ctx.clock.now();
    ctx.metrics.watched(now);
    // First what needs no database: that it is away is seen by this.
    let silent = look_at_workers(ctx);
    tell_here(ctx, Standstill::Worker, silent.as_deref(), now).await?;
    if trouble(ctx).is_some() {
        // By such a clock nothing is late.
        return Ok(());
    }
    ctx.metrics
        .verdict_ages(ctx.store.board().verdict_ages(now));
    let unread = look_at_outbox(ctx, now).await?;
    let unread = unread.filter(|unread| of_events(Some(*unread)));
    let detail = unread.map(|unread| format!("unread for {} s", unread.as_secs()));
    tell_here(ctx, Standstill::Events, detail.as_deref(), now).await?;
    look_at_verdicts(ctx, now).await
}

/// The names of workers that are silent for too long.
fn look_at_workers(ctx: &Context) -> Option<String> {
    let mut silent = Vec::new();
    for (worker, (silence, too_long)) in ctx.watched.silences() {
        ctx.metrics.worker_silent(worker, silence);
        if too_long {
            silent.push(worker);
        }
    }
    (!silent.is_empty()).then(|| silent.join(", "))
}

/// Measures how far behind those are who are told of events. Returns how old the first event is that
/// nobody on this node read who must.
async fn look_at_outbox(ctx: &Context, now: Timestamp) -> Result<Option<Duration>, Failure> {
    let tx = ctx.store.read().await?;
    let webhooks = tx.webhooks().await?;
    let told = webhooks.iter().map(|webhook| webhook.course.cursor).min();
    let signals = match &ctx.signals {
        Some(_) => tx.signals_made_up_to().await?,
        None => None,
    };
    drop(tx);
    let mut read = None;
    for (reader, cursor) in [
        ("webhooks", told),
        ("shared_signals", signals),
        ("event_streams", ctx.outlet.read_up_to()),
    ] {
        let behind = match cursor {
            None => None,
            Some(cursor) => ctx.store.first_event_after(cursor).await?,
        };
        let lag = behind.map(|at| now.since(at));
        ctx.metrics.outbox_lag(reader, lag.unwrap_or_default());
        // A webhook waits for its receiver, and that is told elsewhere.
        if reader != "webhooks" {
            read = read.max(lag);
        }
    }
    Ok(read)
}

async fn look_at_verdicts(ctx: &Context, now: Timestamp) -> Result<(), Failure> {
    let rules = &ctx.settings.rules;
    let moved_at = moved_at(ctx, now).await?;
    let tx = ctx.store.read().await?;
    let mut enrolled = 0;
    for count in [MANY, 1] {
        let before = now.minus(patience(rules, count));
        enrolled = tx.awaited_since(before, MANY).await?;
        if enrolled >= MANY {
            break;
        }
    }
    drop(tx);
    let seen = Verdicts {
        enrolled,
        moved_at: moved_at.max(ctx.watched.began),
    };
    let stands = of_verdicts(seen, rules, now);
    ctx.metrics
        .stands_still(Standstill::Verdicts.as_str(), stands);
    tell_of_verdicts(ctx, stands, moved_at, now).await
}

/// When an answer was judged last, on any node; at first, now.
async fn moved_at(ctx: &Context, now: Timestamp) -> Result<Timestamp, Failure> {
    let kept = ctx.store.read().await?.fact(MOVED_AT).await?;
    let unreadable = |_| Failure::Inconsistent("a kept time that cannot be read");
    let kept = kept.as_deref().map(Timestamp::parse).transpose();
    let kept = kept.map_err(unreadable)?;
    let newest = kept.max(ctx.watched.judged_at()).unwrap_or(now);
    if kept.is_none_or(|kept| newest.since(kept) >= KEEP_EVERY) {
        let mut tx = ctx.store.write().await?;
        tx.set_fact(MOVED_AT, &newest.to_string()).await?;
        tx.commit().await?;
    }
    Ok(newest)
}

/// Tells once, whichever node sees it first.
async fn tell_of_verdicts(
    ctx: &Context,
    stands: bool,
    moved_at: Timestamp,
    now: Timestamp,
) -> Result<(), Failure> {
    let word = if stands { "still" } else { "moving" };
    let known = ctx.store.read().await?.fact(TOLD).await?;
    if known.as_deref().unwrap_or("moving") == word {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    tx.state_fact(TOLD, "moving").await?;
    if tx.fact_to_change(TOLD).await?.as_deref() == Some(word) {
        // Another node was faster.
        return Ok(());
    }
    tx.set_fact(TOLD, word).await?;
    let detail = stands.then(|| format!("no answer of a Mac was judged since {moved_at}"));
    append(&mut tx, Standstill::Verdicts, detail.as_deref(), now).await?;
    tx.commit().await?;
    log(Standstill::Verdicts, detail.as_deref());
    Ok(())
}

/// Tells of what only this node sees, once.
async fn tell_here(
    ctx: &Context,
    what: Standstill,
    detail: Option<&str>,
    now: Timestamp,
) -> Result<(), Failure> {
    let stands = detail.is_some();
    ctx.metrics.stands_still(what.as_str(), stands);
    if !ctx.watched.is_news(what, stands) {
        return Ok(());
    }
    log(what, detail);
    let tell = async {
        let mut tx = ctx.store.write().await?;
        append(&mut tx, what, detail, now).await?;
        Ok(tx.commit().await?)
    };
    // Who keeps the outbox from being read may keep it from being written, too: the metric and the log have
    // said it, and nobody hears of an event then.
    let told = timeout(TELLING, tell).await;
    if !matches!(told, Ok(Ok(()))) {
        // It is still to be told.
        ctx.watched.is_news(what, !stands);
    }
    told.unwrap_or(Ok(()))
}

async fn append(
    tx: &mut Write,
    what: Standstill,
    detail: Option<&str>,
    now: Timestamp,
) -> Result<(), Failure> {
    let body = event::degraded(detail.is_some(), Some(what.as_str()), detail);
    let event = Event::new(event::SERVICE_DEGRADED, now, body);
    Ok(tx.append_event_about(None, &event).await?)
}

fn log(what: Standstill, detail: Option<&str>) {
    let cause = what.as_str();
    match detail {
        Some(detail) => tracing::error!(cause, detail, "something that must move stands still"),
        None => tracing::info!(cause, "it moves again"),
    }
}
