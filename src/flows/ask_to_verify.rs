//! An operator at the command line wants fresh evidence of Macs. A command is not a server: it cannot be
//! heard by a Mac, and on SQLite may not touch one. So the wish is kept, and whichever server runs on the
//! database makes an attempt of it, as of any request.

use std::time::Duration;

use super::read_posture::describe;
use super::verify_now::{Outcome, Wanted, verify_now};
use super::{Context, Failure};
use crate::audit::{Entry, Verb, Who, Words};
use crate::enrollment::State;
use crate::entropy::Entropy;
use crate::ids::{AskedId, DeviceId, sha256};
use crate::publication::verification_v1::VerificationV1;
use crate::reason::Reason;
use crate::store::{Answered, Asked, Store};
use crate::time::Timestamp;
use crate::verification::{Kind, Priority};

/// Nobody waits for an answer any longer, and no server that starts then asks.
pub const GOOD_FOR: Duration = Duration::from_secs(60 * 60);
/// Wishes a server looks at in one run.
const AT_A_TIME: usize = 64;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    pub kinds: &'a [Kind],
    /// Why, in the asker's words.
    pub why: &'a str,
    pub who: &'a Who,
    pub now: Timestamp,
}

/// How far a wish is.
#[derive(Debug)]
pub enum Course {
    /// No server has looked at it.
    Waiting,
    Refused(Reason),
    Asked(Box<VerificationV1>),
}

/// Leaves the wish to the servers. `Err` names a Mac that is not enrolled, and nothing is wished then.
pub async fn ask(
    store: &Store,
    devices: &[DeviceId],
    wish: &Wish<'_>,
    entropy: &dyn Entropy,
) -> Result<Result<Vec<Asked>, DeviceId>, Failure> {
    let mut tx = store.write().await?;
    // Those that nobody read the answer of.
    tx.forget_asked(wish.now.minus(2 * GOOD_FOR)).await?;
    let mut left = Vec::with_capacity(devices.len());
    for device_id in devices {
        // Only read: what is about a Mac is the servers' to change.
        let found = tx.glimpse().standpoint(device_id).await?;
        if !found.is_some_and(|found| found.state == State::Enrolled) {
            return Ok(Err(device_id.clone()));
        }
        let asked = Asked {
            asked_id: AskedId::new(wish.now, entropy),
            device_id: device_id.clone(),
            kinds: wish.kinds.to_vec(),
            occasion: wish.why.to_owned(),
            asked_at: wish.now,
            answered: None,
        };
        tx.insert_asked(&asked).await?;
        let kinds: Vec<_> = wish.kinds.iter().map(|kind| kind.as_str()).collect();
        let entry = Entry::new(wish.who, Verb::DeviceVerify, device_id, wish.now)
            .after("kinds", kinds)
            .why(Words(wish.why));
        tx.record(entry);
        left.push(asked);
    }
    tx.commit().await?;
    Ok(Ok(left))
}

/// How far it is.
pub async fn follow(store: &Store, asked_id: &AskedId) -> Result<Course, Failure> {
    let tx = store.read().await?;
    let asked = tx.asked(asked_id).await?;
    match asked.and_then(|asked| asked.answered) {
        None => Ok(Course::Waiting),
        Some(Answered::Refused(reason)) => Ok(Course::Refused(reason)),
        Some(Answered::Verification(id)) => match tx.verification(&id).await? {
            None => Err(Failure::Inconsistent(
                "an answered wish without its attempt",
            )),
            Some(attempt) => Ok(Course::Asked(Box::new(describe(&tx, &attempt).await?))),
        },
    }
}

/// Runs once, in a server: makes attempts of what is wished.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let open = ctx.store.read().await?.open_wishes(AT_A_TIME).await?;
    for asked in open {
        let now = ctx.clock.now();
        let answered = if now.since(asked.asked_at) > GOOD_FOR {
            Answered::Refused(Reason::AnswerTimeout)
        } else {
            // Of two servers that see it, or of one that ended in between, there is one attempt: the wish is
            // the name of the request.
            let name = asked.asked_id.to_string();
            let hash = sha256(name.as_bytes());
            let wanted = Wanted {
                device_id: asked.device_id.clone(),
                kinds: asked.kinds.clone(),
                priority: Priority::First,
                occasion: asked.occasion.clone(),
                deadline: None,
                idempotency: Some((name, hash)),
            };
            match verify_now(ctx, &wanted).await? {
                Outcome::Verification(attempt) => Answered::Verification(attempt.verification_id),
                Outcome::DeviceNotFound => Answered::Refused(Reason::DeviceNotFound),
                Outcome::NotEnrolled => Answered::Refused(Reason::NotEnrolled),
                // Later, when there is room.
                Outcome::QueueFull => return Ok(()),
                Outcome::DeadlinePassed | Outcome::IdempotencyMismatch => {
                    return Err(Failure::Inconsistent("a wish that is another request"));
                }
            }
        };
        let mut tx = ctx.store.write().await?;
        tx.answer_asked(&asked.asked_id, &answered).await?;
        tx.commit().await?;
    }
    Ok(())
}
