//! Anybody reads the public feed, from memory. Whoever finds it older than a few seconds has it looked
//! through, everybody else waits for that: what changed since is read from the store, and what time may
//! have ended is judged anew. Only what reads differently then is written and compressed again.
//!
//! Every provider is judged for now and for the last moment at which somebody may still be shown the
//! answer; what does not hold at both is not said.

mod document;
mod memory;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;

pub use self::document::{Document, Part};
use self::memory::Memory;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::publication::feed::{Disclosure, Terms};
use crate::time::Timestamp;

/// How old an answer may get here.
pub const RENEWED: Duration = Duration::from_secs(5);
/// How long others may keep what they were told.
pub const KEPT_BY_OTHERS: Duration = Duration::from_secs(10);

/// The public feed of one process.
#[derive(Debug)]
pub struct Feed {
    disclosure: Disclosure,
    shown: RwLock<Option<Shown>>,
    memory: Arc<Mutex<Memory>>,
}

/// The feed as it was at one time.
#[derive(Debug, Clone)]
struct Shown {
    from: Timestamp,
    document: Arc<Document>,
}

impl Feed {
    /// A feed that says so much.
    pub fn new(disclosure: Disclosure) -> Self {
        Self {
            disclosure,
            shown: RwLock::default(),
            memory: Arc::default(),
        }
    }

    /// The feed as it is, or was within [`RENEWED`].
    ///
    /// # Errors
    /// Also while the clock is not believed.
    pub async fn read(self: &Arc<Self>, ctx: &Arc<Context>) -> Result<Arc<Document>, Failure> {
        demand(ctx)?;
        if let Some(document) = self.shown_at(ctx.clock.now()) {
            return Ok(document);
        }
        // Whoever began it may leave: what was done so far is not done again.
        let (feed, ctx) = (Arc::clone(self), Arc::clone(ctx));
        let renewed = tokio::spawn(async move { feed.renewed(&ctx).await }).await;
        renewed.map_err(|_| Failure::Inconsistent("the feed could not be made"))?
    }

    fn shown_at(&self, now: Timestamp) -> Option<Arc<Document>> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes nothing new.
        let shown = shown
            .as_ref()
            .filter(|shown| shown.from <= now && now < shown.from.plus(RENEWED));
        shown.map(|shown| Arc::clone(&shown.document))
    }

    async fn renewed(&self, ctx: &Arc<Context>) -> Result<Arc<Document>, Failure> {
        let mut memory = Arc::clone(&self.memory).lock_owned().await;
        let now = ctx.clock.now();
        if let Some(document) = self.shown_at(now) {
            return Ok(document);
        }
        memory.look(ctx, now, self.disclosure).await?;
        let disclosure = self.disclosure;
        let context = Arc::clone(ctx);
        // Of a large fleet it takes longer than whoever waits for this thread should.
        let made = tokio::task::spawn_blocking(move || {
            let terms = Terms {
                server_id: &context.settings.server_id,
                disclosure,
                policy: &context.policy,
                anchor: context.anchors.kind(),
            };
            let until = now.plus(RENEWED + KEPT_BY_OTHERS);
            let document = memory.document(&terms, now, until);
            (document, memory)
        });
        let made = made.await;
        // Whoever waits for the memory finds the answer when it is free.
        let (document, _memory) =
            made.map_err(|_| Failure::Inconsistent("the feed could not be written"))?;
        let (document, written) = document?;
        ctx.metrics.feed_renewed(written);
        let shown = Shown {
            from: now,
            document: Arc::clone(&document),
        };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(document)
    }
}
