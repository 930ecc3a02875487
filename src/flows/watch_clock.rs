//! Whether the clock can be believed: asked before anything is said of trust, and looked at all the
//! time. What was seen is kept in the store, so that neither a restart nor another node forgets it.

use std::time::Duration;

use super::{Context, Failure, resume};
use crate::audit::{Entry, Verb, Who, Words};
use crate::publication::event;
use crate::store::{Event, Read, Store};
use crate::time::watch::{ClockWatch, Mark, Trouble};
use crate::time::{Clock, Timestamp};

/// The fact that says what the latest time was.
const NEWEST: &str = "clock_newest";
/// The fact that says how often an operator said that the clock is right.
const ACCEPTED: &str = "clock_accepted";
/// How often what was seen is kept: after a restart, a clock that was set back by less is not noticed.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Begins to watch where a former run, or another node, left off.
pub async fn begin(store: &Store, clock: &dyn Clock) -> Result<ClockWatch, Failure> {
    let watch = ClockWatch::begin(clock.now(), clock.steady());
    if let Some(known) = kept(&store.read().await?).await? {
        watch.learn(known);
    }
    Ok(watch)
}

/// Why the clock is not believed now, if so.
pub fn trouble(ctx: &Context) -> Option<Trouble> {
    ctx.clock_watch.look(ctx.clock.now(), ctx.clock.steady())
}

/// Goes on only while the clock is believed: whatever is said of trust rests on it.
pub(super) fn demand(ctx: &Context) -> Result<(), Failure> {
    match trouble(ctx) {
        None => Ok(()),
        Some(trouble) => Err(Failure::Clock(trouble)),
    }
}

/// Looks at the clock, keeps what was seen, and tells of trouble that began or ended.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let trouble = trouble(ctx);
    ctx.metrics.clock(trouble.is_none());
    if ctx.clock_watch.is_news(trouble.is_some()) {
        match &trouble {
            Some(trouble) => tracing::error!(%trouble, "nothing is said of trust"),
            None => tracing::info!("the clock is believed again"),
        }
        if let Err(failure) = tell(ctx, trouble.as_ref()).await {
            // It is still to be told.
            ctx.clock_watch.is_news(trouble.is_none());
            return Err(failure);
        }
    }
    let known = kept(&ctx.store.read().await?).await?;
    if let Some(known) = known {
        ctx.clock_watch.learn(known);
    }
    let mark = ctx.clock_watch.mark(ctx.clock.now(), ctx.clock.steady());
    let Some(mark) = mark else { return Ok(()) };
    if known.is_none_or(|known| mark.newest.since(known.newest) >= KEEP_EVERY) {
        let mut tx = ctx.store.write().await?;
        tx.set_fact(NEWEST, &mark.newest.to_string()).await?;
        if let Some(known) = known {
            resume::note(&mut tx, known.newest, mark.newest).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// An operator says that the clock is right: what was seen before counts no more, on any node.
///
/// What was dated ahead of it meanwhile counts for nothing until its time comes, or until something
/// newer is there.
pub async fn accept(ctx: &Context, note: &str, who: &Who) -> Result<Timestamp, Failure> {
    if let Some(known) = kept(&ctx.store.read().await?).await? {
        ctx.clock_watch.learn(known);
    }
    let mark = ctx.clock_watch.accept(ctx.clock.now(), ctx.clock.steady());
    let mut tx = ctx.store.write().await?;
    let before = tx.fact(NEWEST).await?;
    let entry = Entry::new(who, Verb::ClockAccept, "clock", mark.newest)
        .before("newest", before.as_deref().map(Words))
        .after("newest", mark.newest)
        .why(Words(note));
    tx.record(entry);
    tx.set_fact(NEWEST, &mark.newest.to_string()).await?;
    tx.set_fact(ACCEPTED, &mark.accepted.to_string()).await?;
    let body = event::clock_accepted(mark.newest, note);
    let event = Event::new(event::SERVICE_CLOCK_ACCEPTED, mark.newest, body);
    tx.append_event_about(None, &event).await?;
    tx.commit().await?;
    tracing::warn!(note, "an operator says that the clock is right");
    Ok(mark.newest)
}

async fn tell(ctx: &Context, trouble: Option<&Trouble>) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    let body = event::clock_degraded(trouble);
    let event = Event::new(event::SERVICE_DEGRADED, now, body);
    tx.append_event_about(None, &event).await?;
    Ok(tx.commit().await?)
}

/// The latest time that was believed by any server on this database.
pub async fn newest_seen(store: &Store) -> Result<Option<Timestamp>, Failure> {
    let kept = kept(&store.read().await?).await?;
    Ok(kept.map(|mark| mark.newest))
}

async fn kept(tx: &Read) -> Result<Option<Mark>, Failure> {
    let unreadable = || Failure::Inconsistent("a kept time that cannot be read");
    let Some(newest) = tx.fact(NEWEST).await? else {
        return Ok(None);
    };
    let accepted = match tx.fact(ACCEPTED).await? {
        None => 0,
        Some(text) => text.parse().map_err(|_| unreadable())?,
    };
    Ok(Some(Mark {
        accepted,
        newest: Timestamp::parse(&newest).map_err(|_| unreadable())?,
    }))
}
