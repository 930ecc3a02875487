//! What nobody needs any more is removed: answers of Macs, the attempts they came in and what was believed
//! then, once they are older than the settings say. What is believed now, its evidence however old, the
//! ledger of nonces, the audit log and the transparency log stay.
//!
//! Once a day it goes through all Macs, some at a time; how far it came is kept, and one node at a time
//! does the next few.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, Failure, watch_clock};
use crate::ids::{DeviceId, EvidenceId};
use crate::store::{Read, Removed, Write};
use crate::time::Timestamp;

/// The fact that says how far it came.
const COURSE: &str = "old_removed";
/// How many Macs in one go: others write in between.
const BATCH: usize = 4;
/// From one time through all Macs to the next.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is to be done until tomorrow, or while the clock cannot be believed.
    Rests,
    More,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Course {
    begun_at: Option<Timestamp>,
    /// The last Mac that was looked at; `None` before the first, and after the last.
    after: Option<DeviceId>,
    under_way: bool,
    answers: u64,
    attempts: u64,
    postures: u64,
}

/// Runs once.
pub async fn run_once(ctx: &Context) -> Result<Progress, Failure> {
    if watch_clock::trouble(ctx).is_some() {
        // By such a clock nothing is old.
        return Ok(Progress::Rests);
    }
    let now = ctx.clock.now();
    if rests(&read(ctx.store.read().await?.fact(COURSE).await?)?, now) {
        return Ok(Progress::Rests);
    }
    let mut tx = ctx.store.write().await?;
    tx.state_fact(COURSE, &written(&Course::default())?).await?;
    let mut course = read(tx.fact_to_change(COURSE).await?)?;
    if rests(&course, now) {
        return Ok(Progress::Rests);
    }
    if !course.under_way {
        course = Course {
            begun_at: Some(now),
            under_way: true,
            ..Course::default()
        };
    }
    let before = now.minus(ctx.settings.kept);
    let macs = tx.macs(course.after.as_ref(), BATCH).await?;
    let mut done = macs.len() < BATCH;
    for device_id in macs {
        let (removed, more) = remove(&mut tx, &device_id, before).await?;
        course.add(removed);
        if more {
            // The same Mac goes on in the next run.
            done = false;
            break;
        }
        course.after = Some(device_id);
    }
    if done {
        course.under_way = false;
        course.after = None;
    }
    tx.set_fact(COURSE, &written(&course)?).await?;
    tx.commit().await?;
    if done && course.found_any() {
        let Course {
            answers,
            attempts,
            postures,
            ..
        } = course;
        tracing::info!(
            answers,
            attempts,
            postures,
            "what was kept long enough is removed"
        );
    }
    Ok(if done {
        Progress::Rests
    } else {
        Progress::More
    })
}

async fn remove(
    tx: &mut Write,
    device_id: &DeviceId,
    before: Timestamp,
) -> Result<(Removed, bool), Failure> {
    // What is believed changes to newer evidence only: nobody need be kept from changing it.
    let posture = Read::posture(tx, device_id).await?;
    let kept: Vec<EvidenceId> = posture
        .iter()
        .flat_map(|posture| posture.evidence())
        .collect();
    Ok(tx.remove_old(device_id, before, &kept).await?)
}

fn rests(course: &Course, now: Timestamp) -> bool {
    let begun = |at: Timestamp| now < at.plus(EVERY);
    !course.under_way && course.begun_at.is_some_and(begun)
}

impl Course {
    fn add(&mut self, removed: Removed) {
        self.answers = self.answers.saturating_add(removed.answers);
        self.attempts = self.attempts.saturating_add(removed.attempts);
        self.postures = self.postures.saturating_add(removed.postures);
    }

    fn found_any(&self) -> bool {
        self.answers > 0 || self.attempts > 0 || self.postures > 0
    }
}

fn read(fact: Option<String>) -> Result<Course, Failure> {
    let read = |text: String| serde_json::from_str(&text);
    let course = fact.map(read).transpose();
    course
        .map(Option::unwrap_or_default)
        .map_err(|_| Failure::Inconsistent("a course of removals that cannot be read"))
}

fn written(course: &Course) -> Result<String, Failure> {
    serde_json::to_string(course)
        .map_err(|_| Failure::Inconsistent("a course of removals that cannot be written"))
}
