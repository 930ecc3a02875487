//! To which Mac does a provider session belong, and who says so?
//!
//! A session only claims a serial number, and serial numbers stand in the public feed. It is joined
//! to the Mac of that number by proof: the ticket that enrolled the Mac named the session's key, or
//! is of the session's account, or an operator said so. The same rule is applied when a session is
//! registered, when the Mac enrols after its session began, and when one who stood in the way left.

use super::check_in::revise;
use super::read_binding::judged;
use super::verify_now::bring_forward;
use super::{Context, Failure};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{Enrollment, State, Ticket};
use crate::ids::{DeviceId, SerialNumber, SessionId};
use crate::posture::Posture;
use crate::posture::key_binding::{Proof, same_key};
use crate::provider::Session;
use crate::publication::event;
use crate::publication::posture_v1::relation;
use crate::reason::Reason;
use crate::store::{Event, Read, Write};
use crate::time::Timestamp;
use crate::verification::agenda::Cause;
use crate::verification::{Kind, Priority};

/// Who is to be woken once all is kept, and how urgent it is.
pub(super) type Wake = (DeviceId, Priority);

/// What joining came to.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The session is about another Mac than before, or about one at last.
    pub(super) found: bool,
    /// Its key was proved just now, or is the one to be named from now on.
    pub(super) proved: bool,
    /// A question may be asked now that was held back: wake this Mac after the commit.
    pub(super) wake: Option<Wake>,
}

/// The session, locked, and before it the Mac it is about or would be joined to.
pub(super) async fn locked(
    tx: &mut Write,
    session_id: &SessionId,
    claimed: Option<&SerialNumber>,
) -> Result<Option<Session>, Failure> {
    let found = match tx.is_alone() {
        true => None,
        false => Read::session(tx, session_id).await?,
    };
    let known = found
        .as_ref()
        .and_then(|found| found.claimed_serial.as_ref());
    let is_settled = found
        .as_ref()
        .is_some_and(|found| found.device_id.is_some())
        && claimed.is_none_or(|claimed| Some(claimed) == known);
    if !tx.is_alone()
        && !is_settled
        && let Some(serial) = claimed.or(known)
    {
        for claimant in tx.enrollments_by_serial(serial).await? {
            tx.enrollment(&claimant.device_id).await?;
        }
    }
    Ok(tx.session(session_id).await?)
}

/// Finds the session's Mac and proves its key for it, as far as that can be done now. The caller
/// keeps the session.
pub(super) async fn join(
    ctx: &Context,
    tx: &mut Write,
    session: &mut Session,
    now: Timestamp,
) -> Result<Joined, Failure> {
    let mut joined = Joined::default();
    let Some((enrollment, ticket)) = mac_of(tx, session).await? else {
        return Ok(joined);
    };
    let device_id = enrollment.device_id.clone();
    joined.found = session.device_id.as_ref() != Some(&device_id);
    session.device_id = Some(device_id.clone());
    let posture = tx.posture(&device_id).await?;
    let others = others(tx, session, &device_id).await?;
    tell_of_rivals(ctx, tx, session, others.clone(), now).await?;
    if enrollment.state != State::Enrolled || !session.has_spoken() {
        return Ok(joined);
    }
    let (text, posture) = (
        session.key.text(),
        posture.unwrap_or_else(|| Posture::unknown(device_id.clone(), now)),
    );
    let Some(proof) = posture
        .proof_of(text)
        .or(proof_by(session, ticket.as_ref()))
    else {
        return Ok(joined);
    };
    let is_named = |key: &crate::posture::key_binding::ProvedKey| key.se_public_key == text;
    if posture.key_to_name().is_some_and(is_named) {
        return Ok(joined);
    }
    // Whoever is proved and answers is not pushed aside by whoever comes second: its key would not be
    // named any more.
    let rules = ctx.policy.rules.challenge.rules();
    let is_held = others.iter().any(|other| {
        posture.proof_of(other.key.text()).is_some()
            && other.liveness.good_until(&rules, now).is_some()
    });
    if is_held {
        return Ok(joined);
    }
    let (key, former) = (text.to_owned(), posture);
    prove(ctx, tx, &enrollment, &key, proof, Some(former), now).await?;
    joined.proved = true;
    joined.wake = release_attestation(tx, &enrollment, now).await?;
    Ok(joined)
}

/// Proves a key for a Mac, and says so.
pub(super) async fn prove(
    ctx: &Context,
    tx: &mut Write,
    enrollment: &Enrollment,
    key: &str,
    proof: Proof,
    posture: Option<Posture>,
    now: Timestamp,
) -> Result<(), Failure> {
    let device_id = &enrollment.device_id;
    let identity = tx.identity(enrollment.identity).await?;
    let relation = relation(enrollment, identity.as_ref());
    revise(tx, device_id, posture, now, |posture| {
        posture.prove_key(key, proof, now);
        posture.relate(relation, &ctx.policy, now)
    })
    .await?;
    Ok(())
}

/// What the ticket that enrolled the Mac says of the session.
fn proof_by(session: &Session, ticket: Option<&Ticket>) -> Option<Proof> {
    let ticket = ticket?;
    let names = |key: &String| same_key(key, session.key.text());
    if ticket.se_public_key.as_ref().is_some_and(names) {
        return Some(Proof::Ticket);
    }
    // An absent account is nobody's.
    let is_of_account = ticket.account.is_some() && ticket.account == session.account;
    is_of_account.then_some(Proof::Account)
}

/// The Mac a session is about: among those that say they have the serial number, the one whose word
/// joins it to the session; otherwise the one that stands.
async fn mac_of(
    tx: &mut Write,
    session: &Session,
) -> Result<Option<(Enrollment, Option<Ticket>)>, Failure> {
    let Some(serial) = &session.claimed_serial else {
        return Ok(None);
    };
    let mut best = None;
    for claimant in tx.enrollments_by_serial(serial).await? {
        if !matches!(claimant.state, State::Enrolled | State::CheckedOut) {
            continue;
        }
        let ticket = match &claimant.ticket_id {
            Some(ticket_id) => tx.ticket(ticket_id).await?,
            None => None,
        };
        let posture = tx.posture(&claimant.device_id).await?;
        let is_proved = posture.is_some_and(|it| it.proof_of(session.key.text()).is_some());
        let worth = match proof_by(session, ticket.as_ref()) {
            _ if is_proved => 3,
            Some(Proof::Ticket) => 2,
            Some(_) => 1,
            None => 0,
        };
        // Of equals the first: the one that stands.
        if best.as_ref().is_none_or(|(best, _, _)| worth > *best) {
            best = Some((worth, claimant, ticket));
        }
    }
    Ok(best.map(|(_, claimant, ticket)| (claimant, ticket)))
}

/// The other live sessions about the same Mac.
async fn others(
    tx: &mut Write,
    session: &Session,
    device_id: &DeviceId,
) -> Result<Vec<Session>, Failure> {
    let Some(serial) = &session.claimed_serial else {
        return Ok(Vec::new());
    };
    let mut others = tx.sessions_claiming(serial).await?;
    others.retain(|other| {
        other.session_id != session.session_id && other.device_id.as_ref() == Some(device_id)
    });
    Ok(others)
}

/// Two sessions that live, of different keys, claim one Mac: said once of each pair of keys.
async fn tell_of_rivals(
    ctx: &Context,
    tx: &mut Write,
    session: &mut Session,
    others: Vec<Session>,
    now: Timestamp,
) -> Result<(), Failure> {
    let max_age = ctx.policy.rules.challenge.max_age.0;
    for mut other in others {
        let heard_at = other.liveness.last_good_at().max(Some(other.began_at));
        let is_heard = heard_at.is_some_and(|at| now < at.plus(max_age));
        if other.key.point() == session.key.point() || !is_heard {
            continue;
        }
        let is_new = session.meets(other.key.point()) & other.meets(session.key.point());
        if let Some(device_id) = session.device_id.clone().filter(|_| is_new) {
            tx.save_session(&other).await?;
            let body = event::binding_conflict(&device_id, session, &other);
            tx.append_event_about(
                Some(&device_id),
                &Event::new(event::BINDING_CONFLICT, now, body),
            )
            .await?;
        }
    }
    Ok(())
}

/// A key can be named that no statement names: the next question to Apple comes as soon as Apple
/// answers it anew, and the first, if it was held for want of a key, now.
pub(super) async fn release_attestation(
    tx: &mut Write,
    enrollment: &Enrollment,
    now: Timestamp,
) -> Result<Option<Wake>, Failure> {
    let device_id = &enrollment.device_id;
    let held = tx.open_verification(device_id).await?.filter(|open| {
        let part = open.part(Kind::Mda);
        part.and_then(|part| part.reason) == Some(Reason::AwaitingBinding)
    });
    bring_forward(tx, device_id, &[Kind::Mda], Cause::KeyChanged, now).await?;
    let Some(held) = held else { return Ok(None) };
    if let Some(ticket_id) = &enrollment.ticket_id {
        tx.put_step(ticket_id, &Entry::waiting(Step::Attestation, None, now))
            .await?;
    }
    Ok(Some((device_id.clone(), held.priority)))
}

/// The sessions that wait for the Mac of this serial number are joined to it, or to whoever took its
/// place. Returns which Macs are to be woken after the commit.
pub(super) async fn join_waiting(
    ctx: &Context,
    tx: &mut Write,
    serial: &SerialNumber,
    now: Timestamp,
) -> Result<Vec<Wake>, Failure> {
    let mut wake = Vec::new();
    for waiting in tx.sessions_claiming(serial).await? {
        // Whoever came before in this loop may have changed it.
        let Some(mut session) = Read::session(tx, &waiting.session_id).await? else {
            continue;
        };
        let joined = join(ctx, tx, &mut session, now).await?;
        if joined.found || joined.proved {
            tx.save_session(&session).await?;
            let change = if joined.proved { "proved" } else { "joined" };
            tell(ctx, tx, &session, change, now).await?;
        }
        wake.extend(joined.wake);
    }
    Ok(wake)
}

/// Says what happened to a session, and what it amounts to since.
pub(super) async fn tell(
    ctx: &Context,
    tx: &mut Write,
    session: &Session,
    change: &str,
    now: Timestamp,
) -> Result<(), Failure> {
    let judgement = judged(ctx, tx, session, now).await?;
    let event = Event::new(
        event::BINDING_CHANGED,
        now,
        event::binding_changed(session, change, &judgement),
    );
    Ok(tx
        .append_event_about(session.device_id.as_ref(), &event)
        .await?)
}

/// The provider's key, if it is proved for its Mac, said something against that Mac. What Apple has
/// stated for a nonce of afterwards is newer: a blob can be shown again. True when it counts.
pub(super) async fn darken(
    ctx: &Context,
    tx: &mut Write,
    session: &Session,
    negatives: &[Reason],
    said_at: Timestamp,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(device_id) = session.device_id.as_ref().filter(|_| !negatives.is_empty()) else {
        return Ok(false);
    };
    let posture = tx.posture(device_id).await?;
    let counts = |posture: &Posture| {
        let stated = posture.attested.as_ref();
        let stated = stated.filter(|stated| !stated.facts.contradicts_full_security());
        let minted_at = stated.and_then(|stated| stated.freshness.minted_at());
        posture.proof_of(session.key.text()).is_some() && minted_at.is_none_or(|at| at <= said_at)
    };
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Ok(false);
    };
    if !posture.as_ref().is_some_and(counts) {
        return Ok(false);
    }
    let identity = tx.identity(enrollment.identity).await?;
    let relation = relation(&enrollment, identity.as_ref());
    revise(tx, device_id, None, now, |posture| {
        for reason in negatives {
            posture.self_report_negative(*reason, now);
        }
        posture.relate(relation, &ctx.policy, now)
    })
    .await?;
    Ok(true)
}

/// The session's process, or its macOS, is another than that of the session before: SIP and boot
/// policy may have changed with a restart, so the Mac is asked again soon. True when it is.
pub(super) async fn ask_after_restart(
    ctx: &Context,
    tx: &mut Write,
    session: &Session,
    former: Option<&Session>,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(device_id) = &session.device_id else {
        return Ok(false);
    };
    let earlier = match former {
        Some(_) => None,
        None => tx.former_session(device_id, &session.session_id).await?,
    };
    // A release makes every process a new one, so that alone asks nobody, unless the policy takes
    // evidence for fresh while a process lives.
    let counts_processes = ctx.policy.rules.boot_continuity.enabled;
    let is_evidence = former.or(earlier.as_ref()).is_some_and(|former| {
        session.shows_restart_since(former)
            || (counts_processes && former.encryption_key != session.encryption_key)
    });
    let posture = tx.posture(device_id).await?;
    let is_proved = posture.is_some_and(|it| it.proof_of(session.key.text()).is_some());
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Ok(false);
    };
    if !is_evidence || !is_proved || enrollment.state != State::Enrolled {
        return Ok(false);
    }
    let kinds = [Kind::SecurityInfo];
    bring_forward(tx, device_id, &kinds, Cause::Restarted, now).await?;
    Ok(true)
}
