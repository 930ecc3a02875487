//! Another policy was switched on: what is believed of each Mac is judged by it, and those who wait for
//! changes are told of those whose verdict is another.
//!
//! No reader depends on this: whoever reads a posture has it judged at that moment. It goes through all
//! Macs once, some at a time; how far it came is kept, and one node at a time goes on from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check_in::revise;
use super::{Context, Failure, watch_clock};
use crate::ids::DeviceId;
use crate::posture::Posture;
use crate::posture::appraisal::{Appraisal, Circumstances, Relation, appraise};
use crate::publication::posture_v1::relation;
use crate::time::Timestamp;

/// The fact that says by which policy postures were judged last, and how far that came.
const JUDGED_BY: &str = "judged_by";
/// How many Macs are looked at in one go.
const BATCH: usize = 256;
/// Whoever began a part and does not finish it is waited for as long as this.
const LEASE: Duration = Duration::from_secs(60);

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every Mac was judged by the policy in force.
    Done,
    More,
    /// Another node is at it, or nothing can be judged now.
    NotNow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Course {
    policy_id: String,
    /// The last Mac that was looked at.
    after: Option<DeviceId>,
    done: bool,
    /// Somebody is at the next part until then.
    taken_until: Option<Timestamp>,
}

/// Runs once.
pub async fn run_once(ctx: &Context) -> Result<Progress, Failure> {
    some(ctx, BATCH).await
}

/// Judges at most so many Macs.
pub async fn some(ctx: &Context, at_most: usize) -> Result<Progress, Failure> {
    if watch_clock::trouble(ctx).is_some() {
        return Ok(Progress::NotNow);
    }
    let now = ctx.clock.now();
    let course = match take(ctx, now).await? {
        Ok(course) => course,
        Err(progress) => return Ok(progress),
    };
    let tx = ctx.store.read().await?;
    let postures = tx.postures(course.after.as_ref(), at_most).await?;
    let mut others = Vec::new();
    for posture in &postures {
        let Some(enrollment) = tx.enrollment(&posture.device_id).await? else {
            continue;
        };
        let identity = tx.identity(enrollment.identity).await?;
        let relation = relation(&enrollment, identity.as_ref());
        if !stands(posture, &judged(ctx, posture, relation, now)) {
            others.push(posture.device_id.clone());
        }
    }
    drop(tx);
    for device_id in &others {
        judge(ctx, device_id, now).await?;
    }
    let done = postures.len() < at_most;
    let last = postures.into_iter().next_back();
    let next = Course {
        after: last
            .map(|posture| posture.device_id)
            .or(course.after.clone()),
        done,
        taken_until: None,
        ..course.clone()
    };
    let mut tx = ctx.store.write().await?;
    // Whoever waited too long for this, or runs by another policy, goes by its own.
    if read(tx.fact_to_change(JUDGED_BY).await?)?.as_ref() == Some(&course) {
        tx.set_fact(JUDGED_BY, &written(&next)?).await?;
        tx.commit().await?;
    }
    if !others.is_empty() {
        let policy = &ctx.policy.id;
        tracing::info!(policy, macs = others.len(), "judged by another policy");
    }
    Ok(if done { Progress::Done } else { Progress::More })
}

/// Takes the next part, if there is one and nobody is at it.
async fn take(ctx: &Context, now: Timestamp) -> Result<Result<Course, Progress>, Failure> {
    let ours = |course: &Course| course.policy_id == ctx.policy.id;
    let known = read(ctx.store.read().await?.fact(JUDGED_BY).await?)?;
    if known.is_some_and(|course| ours(&course) && course.done) {
        return Ok(Err(Progress::Done));
    }
    let mut tx = ctx.store.write().await?;
    let known = read(tx.fact_to_change(JUDGED_BY).await?)?;
    let course = match known.filter(ours) {
        Some(course) if course.taken_until.is_some_and(|until| now < until) => {
            return Ok(Err(Progress::NotNow));
        }
        known => Course {
            policy_id: ctx.policy.id.clone(),
            after: known.and_then(|course| course.after),
            done: false,
            taken_until: Some(now.plus(LEASE)),
        },
    };
    tx.set_fact(JUDGED_BY, &written(&course)?).await?;
    tx.commit().await?;
    Ok(Ok(course))
}

async fn judge(ctx: &Context, device_id: &DeviceId, now: Timestamp) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    // Read again: newer evidence may have come, which was judged by this policy.
    let Some(mut posture) = tx.posture(device_id).await? else {
        return Ok(());
    };
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Err(Failure::Inconsistent("a posture without its enrollment"));
    };
    let identity = tx.identity(enrollment.identity).await?;
    let relation = relation(&enrollment, identity.as_ref());
    let appraisal = judged(ctx, &posture, relation, now);
    if stands(&posture, &appraisal) {
        return Ok(());
    }
    if appraisal.verdict == posture.verdict {
        // It ends at another time, which is no revision: those who are told of ends are told then.
        posture.usable_until = appraisal.usable_until;
        posture.told_of_end = false;
        tx.save_posture(&posture).await?;
    } else {
        revise(&mut tx, device_id, None, now, |posture| {
            posture.relate(relation, &ctx.policy, now)
        })
        .await?;
    }
    Ok(tx.commit().await?)
}

fn judged(ctx: &Context, posture: &Posture, relation: Relation, now: Timestamp) -> Appraisal {
    let circumstances = Circumstances {
        relation,
        attempt: &[],
        now,
    };
    appraise(posture, &ctx.policy, circumstances)
}

fn stands(posture: &Posture, appraisal: &Appraisal) -> bool {
    posture.verdict == appraisal.verdict && posture.usable_until == appraisal.usable_until
}

fn read(fact: Option<String>) -> Result<Option<Course>, Failure> {
    let read = |text: String| serde_json::from_str(&text);
    let course = fact.map(read).transpose();
    course.map_err(|_| Failure::Inconsistent("a course of judgements that cannot be read"))
}

fn written(course: &Course) -> Result<String, Failure> {
    serde_json::to_string(course)
        .map_err(|_| Failure::Inconsistent("a course of judgements that cannot be written"))
}
