//! For a while nobody served Macs: the server was down, or its database was. A Mac that a push brought
//! meanwhile found nobody, and APNs keeps no other push for it; so nobody's silence of before is held
//! against them, and whoever was silent is woken again within the hour.
//!
//! It goes through all Macs once, some at a time; how far it came is kept, and any node goes on from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, Failure};
use crate::ids::DeviceId;
use crate::store::{Changes, Review, Write};
use crate::time::Timestamp;

/// The fact that says when serving went on, and which Macs are done.
const COURSE: &str = "resumed";
/// How many Macs are looked at in one go.
const BATCH: usize = 512;
/// The latest time is kept once a minute (`watch_clock`): if it is older than this, nobody served.
const INTERRUPTED: Duration = Duration::from_secs(90);

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    More,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Course {
    /// When serving went on.
    from: Timestamp,
    /// The last Mac that was looked at.
    after: Option<DeviceId>,
    done: bool,
}

/// Notes that nobody served from `last` to `now`, if that is long enough to matter.
pub(super) async fn note(tx: &mut Write, last: Timestamp, now: Timestamp) -> Result<(), Failure> {
    let gap = now.since(last);
    if gap < INTERRUPTED {
        return Ok(());
    }
    let course = Course {
        from: now,
        after: None,
        done: false,
    };
    tracing::warn!(
        seconds = gap.as_secs(),
        "nobody served Macs for a while: those that were silent are woken again"
    );
    Ok(tx.set_fact(COURSE, &written(&course)?).await?)
}

/// Goes on with the next Macs, if anything was interrupted.
pub async fn run_once(ctx: &Context) -> Result<Progress, Failure> {
    some(ctx, BATCH).await
}

/// Looks at no more than so many Macs.
pub async fn some(ctx: &Context, at_most: usize) -> Result<Progress, Failure> {
    let tx = ctx.store.read().await?;
    let course = read(tx.fact(COURSE).await?)?;
    let Some(course) = course.filter(|course| !course.done) else {
        return Ok(Progress::Done);
    };
    let macs = tx.macs(course.after.as_ref(), at_most).await?;
    drop(tx);
    let done = macs.len() < at_most;
    let after = macs.last().cloned().or_else(|| course.after.clone());
    let (rules, now) = (ctx.settings.rules.clone(), ctx.clock.now());
    let forgive = move |Review { mut agenda, .. }: Review| {
        let mut changes = Changes::default();
        if agenda.was_unheard(&rules, now) {
            changes.agenda = Some(agenda);
        }
        (changes, ())
    };
    ctx.store.review_all(macs, forgive).await?;
    let mut tx = ctx.store.write().await?;
    // Another node may have done the same, or serving was interrupted again.
    if read(tx.fact_to_change(COURSE).await?)?.as_ref() == Some(&course) {
        let next = Course {
            after,
            done,
            ..course
        };
        tx.set_fact(COURSE, &written(&next)?).await?;
        tx.commit().await?;
    }
    Ok(if done { Progress::Done } else { Progress::More })
}

fn read(fact: Option<String>) -> Result<Option<Course>, Failure> {
    let read = |text: String| serde_json::from_str(&text);
    let course = fact.map(read).transpose();
    course.map_err(|_| Failure::Inconsistent("an interruption that cannot be read"))
}

fn written(course: &Course) -> Result<String, Failure> {
    serde_json::to_string(course)
        .map_err(|_| Failure::Inconsistent("an interruption that cannot be written"))
}
