//! A coordinator follows what happens: every event, in the order of its number, from a cursor on.
//!
//! One reader for each node ([`run_once`]) takes new events from the outbox and lays them into memory;
//! whoever follows takes them from there, each at its own pace, and is no more than a cursor. So a
//! slow one costs nobody anything: memory forgets what is too old, and who was not fast enough is told
//! to begin anew. Whoever comes with an older cursor reads the outbox up to where memory begins, a few
//! at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};

use super::{Context, Failure, watch_clock};
use crate::ids::DeviceId;
use crate::publication::event_stream::{Lapse, Wanted, block};
use crate::store::NumberedEvent;

/// Events in memory.
const KEPT: usize = 2048;
/// What they may take together; one has a few hundred bytes.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Events that are read at once.
const PAGE: usize = 256;
/// Those who read older events from the store at the same time.
const CATCHING_UP: usize = 4;
/// Who is further behind lists everything again: that is less to read.
const FAR_BEHIND: i64 = 100_000;
/// When the outbox could not be read for so long, nobody is left to believe that nothing happens.
const DEAF: Duration = Duration::from_secs(5);
/// How long an event can be read again.
pub const RETAINED: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Events that are removed in one step.
const REMOVED_AT_ONCE: i64 = 10_000;

/// The events of this node's memory, and who follows them.
#[derive(Debug)]
pub struct Outlet {
    ring: Mutex<Ring>,
    /// Rises whenever there is more in the ring, or it was made anew.
    moved: watch::Sender<u64>,
    /// Somebody follows who did not before.
    arrived: Notify,
    followers: AtomicUsize,
    catching_up: Semaphore,
}

#[derive(Debug, Default)]
struct Ring {
    /// From where to where; `None` while nobody follows.
    span: Option<(i64, i64)>,
    events: VecDeque<Arc<Told>>,
    bytes: usize,
    read_at: Option<Instant>,
}

/// An event as it is told, written once for all.
#[derive(Debug)]
struct Told {
    seq: i64,
    name: String,
    device_id: Option<DeviceId>,
    block: Bytes,
}

impl Told {
    fn new(event: &NumberedEvent) -> Self {
        Self {
            seq: event.seq,
            name: event.event.name.clone(),
            device_id: event.device_id.clone(),
            block: block(event.seq, &event.event.name, &event.event.body).into(),
        }
    }
}

/// What memory has for a cursor.
enum Found {
    /// Nothing is kept yet.
    Cold,
    /// The cursor lies before what is kept.
    Before,
    Events(Vec<Arc<Told>>),
    /// The outbox cannot be read.
    Deaf,
}

impl Default for Outlet {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            moved: watch::Sender::new(0),
            arrived: Notify::new(),
            followers: AtomicUsize::new(0),
            catching_up: Semaphore::new(CATCHING_UP),
        }
    }
}

impl Outlet {
    /// Returns when somebody begins to follow.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// How many follow.
    pub fn followers(&self) -> usize {
        self.followers.load(Ordering::Relaxed)
    }

    /// Up to where the outbox was read; `None` while nobody follows.
    pub(super) fn read_up_to(&self) -> Option<i64> {
        self.ring().span.map(|(_, up_to)| up_to)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.moved
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn find(&self, cursor: i64) -> Found {
        let ring = self.ring();
        let Some((floor, _)) = ring.span else {
            return Found::Cold;
        };
        if ring.read_at.is_none_or(|at| at.elapsed() > DEAF) {
            return Found::Deaf;
        }
        if cursor < floor {
            return Found::Before;
        }
        let from = ring.events.partition_point(|told| told.seq <= cursor);
        Found::Events(ring.events.range(from..).take(PAGE).cloned().collect())
    }
}

impl Ring {
    fn begin(&mut self, at: i64) {
        *self = Self {
            span: Some((at, at)),
            read_at: Some(Instant::now()),
            ..Self::default()
        };
    }

    fn extend(&mut self, events: &[NumberedEvent], up_to: i64) {
        let Some((mut floor, _)) = self.span else {
            return;
        };
        for event in events {
            let told = Told::new(event);
            self.bytes += told.block.len();
            self.events.push_back(Arc::new(told));
            while self.events.len() > KEPT || self.bytes > KEPT_BYTES {
                let Some(oldest) = self.events.pop_front() else {
                    break;
                };
                self.bytes -= oldest.block.len();
                floor = oldest.seq;
            }
        }
        self.span = Some((floor, up_to));
        self.read_at = Some(Instant::now());
    }
}

/// Takes what is new from the outbox into memory, if anybody follows. Returns whether there may be
/// more.
pub async fn run_once(ctx: &Context) -> Result<bool, Failure> {
    let outlet = &ctx.outlet;
    ctx.metrics.event_followers(outlet.followers());
    if outlet.followers() == 0 {
        *outlet.ring() = Ring::default();
        return Ok(false);
    }
    let read_up_to = outlet.ring().span.map(|(_, up_to)| up_to);
    let Some(read_up_to) = read_up_to else {
        let settled = ctx.store.settled_event().await?;
        outlet.ring().begin(settled);
        outlet.announce();
        return Ok(false);
    };
    let page = ctx.store.event_page(read_up_to, PAGE).await?;
    if !page.events.is_empty() {
        // Who hears of a change here and then asks here is not answered with what was before it.
        ctx.store.follow_changes().await?;
    }
    let more = page.events.len() == PAGE;
    outlet.ring().extend(&page.events, page.up_to);
    if !page.events.is_empty() {
        outlet.announce();
    }
    Ok(more)
}

/// Removes events that nobody can want any more.
pub async fn tidy(ctx: &Context) -> Result<(), Failure> {
    if watch_clock::trouble(ctx).is_some() {
        // By such a clock nothing is old.
        return Ok(());
    }
    let before = ctx.clock.now().minus(RETAINED);
    loop {
        let mut tx = ctx.store.write().await?;
        let more = tx.forget_events(before, REMOVED_AT_ONCE).await?;
        tx.commit().await?;
        if !more {
            return Ok(());
        }
    }
}

/// Somebody who follows.
#[derive(Debug)]
pub struct Follower {
    ctx: Arc<Context>,
    wanted: Wanted,
    cursor: Arc<AtomicI64>,
    moved: watch::Receiver<u64>,
    /// Was level with memory once.
    is_level: bool,
}

/// How following begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// What was told, or is known already, ends here.
    pub cursor: i64,
    /// The reader knows nothing for sure any more.
    pub lapse: Option<Lapse>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Some events, as they are told, in their order.
    Events(Bytes),
    /// The reader was too slow: it begins anew, after this.
    TooSlow(i64),
    /// The outbox cannot be read: nothing is known of what happens.
    Deaf,
}

/// Begins to follow after the cursor, a number as it was told; at the present without one.
pub async fn follow(
    ctx: &Arc<Context>,
    after: Option<&str>,
    wanted: Wanted,
) -> Result<(Follower, Beginning), Failure> {
    // Counted before anything is read: memory is kept from now on.
    ctx.outlet.followers.fetch_add(1, Ordering::SeqCst);
    let mut follower = Follower {
        ctx: Arc::clone(ctx),
        wanted,
        cursor: Arc::default(),
        moved: ctx.outlet.moved.subscribe(),
        is_level: false,
    };
    let beginning = begin(ctx, after).await?;
    follower.go_to(beginning.cursor);
    ctx.outlet.arrived.notify_one();
    Ok((follower, beginning))
}

async fn begin(ctx: &Context, after: Option<&str>) -> Result<Beginning, Failure> {
    let settled = ctx.store.settled_event().await?;
    let Some(after) = after else {
        return Ok(Beginning {
            cursor: settled,
            lapse: None,
        });
    };
    // As it was told: digits and nothing else, so that one place has one name.
    let is_plain = !after.is_empty() && after.bytes().all(|digit| digit.is_ascii_digit());
    let lapse = match after.parse::<i64>().ok().filter(|_| is_plain) {
        None => Lapse::Unknown,
        Some(cursor) if cursor > settled => Lapse::Ahead,
        Some(cursor) if settled - cursor > FAR_BEHIND => Lapse::TooOld,
        Some(cursor) if cursor < ctx.store.events_removed_up_to().await? => Lapse::TooOld,
        Some(cursor) => {
            return Ok(Beginning {
                cursor,
                lapse: None,
            });
        }
    };
    Ok(Beginning {
        cursor: settled,
        lapse: Some(lapse),
    })
}

impl Follower {
    /// Everything up to here was returned, or was not wanted. It rises only while [`Follower::next`] is
    /// awaited.
    pub fn cursor(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.cursor)
    }

    /// The next events, as soon as there are some.
    pub async fn next(&mut self) -> Result<Next, Failure> {
        let began = Instant::now();
        loop {
            self.moved.borrow_and_update();
            let cursor = self.cursor.load(Ordering::Relaxed);
            let told = match self.ctx.outlet.find(cursor) {
                Found::Cold if began.elapsed() > DEAF => return Ok(Next::Deaf),
                Found::Cold => Vec::new(),
                Found::Deaf => return Ok(Next::Deaf),
                Found::Before if self.is_level => {
                    let settled = self.ctx.store.settled_event().await?;
                    return Ok(Next::TooSlow(settled));
                }
                Found::Before => {
                    if let Some(events) = self.catch_up(cursor).await? {
                        return Ok(events);
                    }
                    continue;
                }
                Found::Events(told) => {
                    self.is_level = true;
                    told
                }
            };
            match told.last() {
                Some(last) => {
                    self.go_to(last.seq);
                    if let Some(events) = self.choose(told.iter().map(Arc::as_ref)) {
                        return Ok(events);
                    }
                }
                // Looked at from time to time, lest the reader of the outbox has died.
                None => drop(tokio::time::timeout(DEAF, self.moved.changed()).await),
            }
        }
    }

    /// Reads from the outbox what memory has no more.
    async fn catch_up(&mut self, cursor: i64) -> Result<Option<Next>, Failure> {
        let ctx = Arc::clone(&self.ctx);
        let place = ctx.outlet.catching_up.acquire().await;
        let page = ctx.store.event_page(cursor, PAGE).await?;
        drop(place);
        if !page.events.is_empty() {
            ctx.store.follow_changes().await?;
        }
        // Nothing may have been removed under it meanwhile.
        if cursor < ctx.store.events_removed_up_to().await? {
            let settled = ctx.store.settled_event().await?;
            return Ok(Some(Next::TooSlow(settled)));
        }
        let told: Vec<_> = page.events.iter().map(Told::new).collect();
        self.go_to(page.up_to);
        Ok(self.choose(told.iter()))
    }

    fn choose<'a>(&self, told: impl Iterator<Item = &'a Told>) -> Option<Next> {
        let wanted = told.filter(|told| self.wanted.includes(&told.name, told.device_id.as_ref()));
        let mut text = Vec::new();
        for told in wanted {
            text.extend_from_slice(&told.block);
        }
        (!text.is_empty()).then(|| Next::Events(text.into()))
    }

    fn go_to(&mut self, cursor: i64) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.ctx.outlet.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Event;
    use crate::time::Timestamp;

    fn event(seq: i64, length: usize) -> NumberedEvent {
        let body = json!({ "note": "x".repeat(length) });
        NumberedEvent {
            seq,
            device_id: None,
            event: Event::new("device.revoked", Timestamp::from_seconds(1), body),
        }
    }

    fn seqs(outlet: &Outlet, cursor: i64) -> Option<Vec<i64>> {
        match outlet.find(cursor) {
            Found::Events(told) => Some(told.iter().map(|told| told.seq).collect()),
            _ => None,
        }
    }

    #[test]
    fn memory_holds_the_newest_and_never_more_than_it_may() {
        let outlet = Outlet::default();
        assert!(matches!(outlet.find(0), Found::Cold));
        outlet.ring().begin(10);
        assert_eq!(seqs(&outlet, 10), Some(Vec::new()));
        assert!(matches!(outlet.find(9), Found::Before));

        // There may be gaps.
        outlet.ring().extend(&[event(12, 1), event(15, 1)], 17);
        assert_eq!(seqs(&outlet, 10), Some(vec![12, 15]));
        assert_eq!(seqs(&outlet, 13), Some(vec![15]));
        assert_eq!(seqs(&outlet, 17), Some(Vec::new()));

        let last = 17 + i64::try_from(KEPT).expect("small");
        let many: Vec<_> = (18..=last).map(|seq| event(seq, 1)).collect();
        outlet.ring().extend(&many, last);
        assert_eq!(outlet.ring().events.len(), KEPT);
        assert!(matches!(outlet.find(14), Found::Before), "15 is gone");
        assert_eq!(seqs(&outlet, 17).map(|seqs| seqs.len()), Some(PAGE));

        for seq in last + 1..last + 20 {
            outlet.ring().extend(&[event(seq, KEPT_BYTES / 8)], seq);
            assert!(outlet.ring().bytes <= KEPT_BYTES);
        }
        let ring = outlet.ring();
        let bytes: usize = ring.events.iter().map(|told| told.block.len()).sum();
        assert_eq!(ring.bytes, bytes);
    }

    #[test]
    fn nobody_is_left_to_believe_that_nothing_happens() {
        let outlet = Outlet::default();
        outlet.ring().begin(10);
        let long_ago = Instant::now()
            .checked_sub(DEAF * 2)
            .expect("a machine that runs");
        outlet.ring().read_at = Some(long_ago);
        assert!(matches!(outlet.find(10), Found::Deaf));
        outlet.ring().extend(&[], 10);
        assert_eq!(seqs(&outlet, 10), Some(Vec::new()));
    }
}
