//! Is the holder of a session's key still there, and what does it say of its Mac now?
//!
//! The coordinator carries challenges of ours to the provider and brings the answers, or hands over
//! exchanges of its own. What comes of an answer is one durable step; the signatures are verified
//! before it.

use std::time::Duration;

use serde_json::{Value, json};

use super::bind_provider::end_silent;
use super::join_session::{Wake, darken, join, locked, tell};
use super::read_binding::read_binding;
use super::watch_clock::{demand, trouble};
use super::{Context, Failure};
use crate::entropy::draw;
use crate::ids::{ChallengeId, SessionId};
use crate::posture::Posture;
use crate::posture::continuity::gap;
use crate::provider::challenge::{AnswerRefusal, Asked, FinishedExchange};
use crate::provider::liveness::Taken;
use crate::provider::{Challenge, Response, Session, VerifiedAnswer};
use crate::publication::challenge_v1::{Outcome, OutcomeV1};
use crate::publication::event;
use crate::reason::Reason;
use crate::store::{Event, Glance, IssuedChallenge, StoreError, Write};
use crate::time::Timestamp;
use crate::verification::Kind;

/// How often a change is tried again that somebody else forestalled.
const TRIES: u32 = 3;
/// Sessions looked at in one go.
const BATCH: usize = 200;
/// A session of which nothing is heard for so long has ended, whoever forgot to say so.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Ended sessions and old challenges are kept for so long.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How the wish for a challenge is answered.
#[derive(Debug)]
pub enum Issued {
    Challenge(Box<IssuedChallenge>, Timestamp),
    BindingNotFound,
    /// One may still be answered, until this time.
    Outstanding(Timestamp),
}

/// How an answer is answered.
#[derive(Debug)]
pub enum Answered {
    /// `{outcome, reasons}`, and the session since.
    Concluded(Value, Option<Glance>),
    BindingNotFound,
    ChallengeNotFound,
}

/// What is challenged: a nonce and a time for the session's provider to sign.
pub async fn issue(ctx: &Context, session_id: &SessionId) -> Result<Issued, Failure> {
    demand(ctx)?;
    let now = ctx.clock.now();
    let rules = ctx.policy.rules.challenge.rules();
    let mut tx = ctx.store.write().await?;
    let session = locked(&mut tx, session_id, None).await?;
    let Some(mut session) = session.filter(Session::is_live) else {
        return Ok(Issued::BindingNotFound);
    };
    let challenge = Challenge::mint(draw(ctx.entropy.as_ref()), now);
    if session
        .liveness
        .issue(challenge.clone(), &rules, now)
        .is_err()
    {
        let until = session.liveness.answer_by().unwrap_or(now);
        return Ok(Issued::Outstanding(until));
    }
    let issued = IssuedChallenge {
        challenge_id: ChallengeId::new(now, ctx.entropy.as_ref()),
        session_id: session_id.clone(),
        challenge,
        outcome: None,
    };
    tx.insert_challenge(&issued).await?;
    tx.save_session(&session).await?;
    tx.commit().await?;
    let answer_by = issued.challenge.issued_at().plus(rules.answer_within);
    Ok(Issued::Challenge(Box::new(issued), answer_by))
}

/// The provider's answer to a challenge of ours, as it came. Repeated, it is answered as before.
pub async fn answer(
    ctx: &Context,
    challenge_id: &ChallengeId,
    response: &[u8],
) -> Result<Answered, Failure> {
    demand(ctx)?;
    let now = ctx.clock.now();
    let (issued, session) = {
        let tx = ctx.store.read().await?;
        let Some(issued) = tx.challenge(challenge_id).await? else {
            return Ok(Answered::ChallengeNotFound);
        };
        let session = tx.session(&issued.session_id).await?;
        (issued, session)
    };
    if let Some(outcome) = issued.outcome {
        let glance = read_binding(ctx, &issued.session_id).await?;
        return Ok(Answered::Concluded(outcome, glance));
    }
    let Some(session) = session.filter(Session::is_live) else {
        return Ok(Answered::BindingNotFound);
    };
    let policy = &ctx.policy.rules.challenge;
    let verified = Response::parse(response)
        .map_err(AnswerRefusal::Malformed)
        .and_then(|parsed| {
            parsed.verify(&Asked {
                challenge: &issued.challenge,
                key: &session.key,
                encryption_key: Some(&session.encryption_key),
                status_signature: policy.status_signature(),
                answer_within: policy.answer_within.0,
                received_at: now,
            })
        });
    let exchange = Exchange {
        challenge: &issued.challenge,
        challenge_id: Some(challenge_id),
        verified: &verified,
        response,
        received_at: now,
    };
    conclude(ctx, &session, &exchange, now).await
}

/// An exchange that the coordinator had with the provider itself; `None` for a response that never
/// came. Repeated, or older than what was counted, it changes nothing.
pub async fn hand_over(
    ctx: &Context,
    session_id: &SessionId,
    challenge: Challenge,
    response: Option<&[u8]>,
    received_at: Timestamp,
) -> Result<Answered, Failure> {
    demand(ctx)?;
    let now = ctx.clock.now();
    let session = ctx.store.read().await?.session(session_id).await?;
    let Some(session) = session.filter(Session::is_live) else {
        return Ok(Answered::BindingNotFound);
    };
    let policy = &ctx.policy.rules.challenge;
    let verified = match response {
        None => Err(AnswerRefusal::Late),
        Some(response) => Response::parse(response)
            .map_err(AnswerRefusal::Malformed)
            .and_then(|parsed| {
                let exchange = FinishedExchange {
                    challenge: challenge.clone(),
                    response: parsed,
                    received_at,
                };
                exchange.verify(
                    &session.key,
                    Some(&session.encryption_key),
                    policy.status_signature(),
                    policy.answer_within.0,
                    now,
                )
            }),
    };
    let exchange = Exchange {
        challenge: &challenge,
        challenge_id: None,
        verified: &verified,
        response: response.unwrap_or_default(),
        received_at,
    };
    conclude(ctx, &session, &exchange, now).await
}

/// A challenge with what became of it.
struct Exchange<'a> {
    challenge: &'a Challenge,
    /// Of a challenge of ours.
    challenge_id: Option<&'a ChallengeId>,
    verified: &'a Result<VerifiedAnswer, AnswerRefusal>,
    /// As it came.
    response: &'a [u8],
    received_at: Timestamp,
}

async fn conclude(
    ctx: &Context,
    asked: &Session,
    exchange: &Exchange<'_>,
    now: Timestamp,
) -> Result<Answered, Failure> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match conclude_once(ctx, asked, exchange, now).await {
            Err(Failure::Store(StoreError::Conflict)) if tries > 0 => {}
            outcome => return outcome,
        }
    }
}

async fn conclude_once(
    ctx: &Context,
    asked: &Session,
    exchange: &Exchange<'_>,
    now: Timestamp,
) -> Result<Answered, Failure> {
    let rules = ctx.policy.rules.challenge.rules();
    let mut tx = ctx.store.write().await?;
    if let Some(challenge_id) = exchange.challenge_id
        && let Some(known) = tx.challenge(challenge_id).await?
        && let Some(outcome) = known.outcome
    {
        // The same answer came twice at once.
        drop(tx);
        let glance = read_binding(ctx, &asked.session_id).await?;
        return Ok(Answered::Concluded(outcome, glance));
    }
    let session = locked(&mut tx, &asked.session_id, None).await?;
    // Another key by now: what was verified was verified for another binding.
    let is_asked = |session: &Session| {
        session.is_live()
            && session.binding_id == asked.binding_id
            && session.key.text() == asked.key.text()
    };
    let Some(mut session) = session.filter(is_asked) else {
        return Ok(Answered::BindingNotFound);
    };
    let before = session.liveness.good_until(&rules, now);
    let last_good_at = session.liveness.last_good_at();
    let outcome = exchange.verified.as_ref();
    let liveness = &mut session.liveness;
    let taken = match exchange.challenge_id {
        Some(_) => liveness.answered(exchange.challenge, outcome, &rules, now),
        None => liveness.handed_over(exchange.challenge, outcome, &rules, now),
    };
    let told = outcome_of(exchange, taken);
    if let Some(challenge_id) = exchange.challenge_id {
        tx.conclude_challenge(challenge_id, &told, now).await?;
    }
    let mut wake = None;
    if taken == Taken::Counted {
        if let Ok(answer) = outcome {
            session.goes_on(last_good_at, gap(&ctx.policy.rules), answer.received_at());
            wake = take_in(ctx, &mut tx, &mut session, exchange, answer, now).await?;
        }
        tx.save_session(&session).await?;
        let after = session.liveness.good_until(&rules, now);
        let runs_another = session.runs_instead != asked.runs_instead;
        if before.is_some() != after.is_some() || runs_another {
            let change = if after.is_some() {
                "answered"
            } else {
                "refused"
            };
            tell(ctx, &mut tx, &session, change, now).await?;
        }
    }
    tx.commit().await?;
    if let Some((device_id, priority)) = &wake {
        ctx.wakeups.ask(device_id, *priority);
    }
    if let Err(refusal) = outcome {
        tracing::info!(
            session.id = session.session_id.as_str(),
            refusal.code = refusal.reason().code(),
            detail = %refusal,
            "the answer to a challenge was refused"
        );
    }
    let glance = read_binding(ctx, &asked.session_id).await?;
    Ok(Answered::Concluded(told, glance))
}

/// An answer by the right key: what it says counts, and so does that it was given.
async fn take_in(
    ctx: &Context,
    tx: &mut Write,
    session: &mut Session,
    exchange: &Exchange<'_>,
    answer: &VerifiedAnswer,
    now: Timestamp,
) -> Result<Option<Wake>, Failure> {
    session.hear(answer);
    let negatives = answer.negatives();
    if !negatives.is_empty() {
        // One that is handed over long afterwards says nothing of the Mac as it is now.
        let is_recent = now.since(answer.received_at()) <= ctx.policy.rules.challenge.max_age.0;
        if is_recent {
            darken(ctx, tx, session, &negatives, answer.received_at(), now).await?;
        }
        return Ok(None);
    }
    let document = json!({
        "nonce": exchange.challenge.nonce(),
        "timestamp": exchange.challenge.timestamp(),
        "response": serde_json::from_slice::<Value>(exchange.response).ok(),
        "status_canonical": answer.status().canonical(),
        "status_signed": answer.is_status_signed(),
        "received_at": exchange.received_at,
    });
    tx.keep_exchange(&session.session_id, &document).await?;
    let posture = match &session.device_id {
        Some(device_id) => tx.posture(device_id).await?,
        None => None,
    };
    if let Some(posture) = &posture {
        keep_fresh(ctx, tx, session, posture, answer.received_at()).await?;
    }
    let named = posture.as_ref().and_then(Posture::key_to_name);
    if named.is_some_and(|key| key.se_public_key == session.key.text()) {
        return Ok(None);
    }
    // Whoever stood in its way may have fallen silent.
    let joined = join(ctx, tx, session, now).await?;
    if joined.proved {
        tell(ctx, tx, session, "proved", now).await?;
    }
    Ok(joined.wake)
}

/// Where the policy takes evidence for fresh while a process lives, its Mac is not asked meanwhile:
/// the process answered at `heard_at`.
async fn keep_fresh(
    ctx: &Context,
    tx: &mut Write,
    session: &Session,
    posture: &Posture,
    heard_at: Timestamp,
) -> Result<(), Failure> {
    let rules = &ctx.policy.rules;
    let Some(observed_at) = posture.reported.as_ref().map(|it| it.observed_at) else {
        return Ok(());
    };
    let is_covered = session
        .unbroken_since
        .is_some_and(|since| since <= observed_at);
    let is_proved = posture.proof_of(session.key.text()).is_some();
    if !rules.boot_continuity.enabled || !is_covered || !is_proved {
        return Ok(());
    }
    if let Some(mut agenda) = tx.agenda(&posture.device_id).await? {
        agenda.stays_true(Kind::SecurityInfo, heard_at.plus(gap(rules)));
        tx.keep_agenda(agenda);
    }
    Ok(())
}

fn outcome_of(exchange: &Exchange<'_>, taken: Taken) -> Value {
    let (outcome, reasons) = match (exchange.verified, taken) {
        (Err(AnswerRefusal::Late), _) => (Outcome::Refused, vec![Reason::AnswerTimeout]),
        (_, Taken::Unsolicited) => (Outcome::Unchanged, vec![Reason::AnswerUnsolicited]),
        (Err(refusal), Taken::Counted) => (Outcome::Refused, vec![refusal.reason()]),
        (Ok(answer), Taken::Counted) => match answer.negatives() {
            negatives if negatives.is_empty() => (Outcome::Good, negatives),
            negatives => (Outcome::Refused, negatives),
        },
    };
    json!(OutcomeV1 { outcome, reasons })
}

/// Writes down which challenges were not answered, and says that the next are due: whoever reads
/// counts them in any case. Sessions that nobody speaks of any more end.
pub async fn expire_due(ctx: &Context) -> Result<(), Failure> {
    if trouble(ctx).is_some() {
        // By such a clock nobody is late, and nobody was silent for a day.
        return Ok(());
    }
    let now = ctx.clock.now();
    loop {
        let late = ctx.store.read().await?.unanswered(now, BATCH).await?;
        for session_id in &late {
            match expire(ctx, session_id, now).await {
                // Somebody changes it just now; the next run sees what became of it.
                Err(Failure::Store(StoreError::Conflict)) | Ok(()) => {}
                Err(failure) => return Err(failure),
            }
        }
        if late.len() < BATCH {
            break;
        }
    }
    let forgotten = now.minus(FORGOTTEN_AFTER);
    let silent = ctx.store.read().await?.silent(forgotten, BATCH).await?;
    for session_id in &silent {
        end_silent(ctx, session_id, forgotten).await?;
    }
    Ok(())
}

/// Removes what is not asked for any more.
pub async fn tidy(ctx: &Context) -> Result<(), Failure> {
    let before = ctx.clock.now().minus(KEPT);
    let mut tx = ctx.store.write().await?;
    tx.forget_sessions(before).await?;
    Ok(tx.commit().await?)
}

async fn expire(ctx: &Context, session_id: &SessionId, now: Timestamp) -> Result<(), Failure> {
    let rules = ctx.policy.rules.challenge.rules();
    let mut tx = ctx.store.write().await?;
    let Some(mut session) = locked(&mut tx, session_id, None).await? else {
        return Ok(());
    };
    if !session.liveness.expire(now) {
        return Ok(());
    }
    tx.save_session(&session).await?;
    let event = Event::new(
        event::CHALLENGE_DUE,
        now,
        event::challenge_due(&session, now),
    );
    tx.append_event_about(session.device_id.as_ref(), &event)
        .await?;
    if session.liveness.time_outs(now) == rules.time_outs {
        tell(ctx, &mut tx, &session, "unanswered", now).await?;
    }
    tx.commit().await?;
    tracing::info!(
        session.id = session_id.as_str(),
        "a challenge was not answered in time"
    );
    Ok(())
}
