//! Apple proved a serial number on a Mac's channel: it is settled who holds it.
//!
//! The proof itself was written with the evidence, in one step about one Mac; where nobody else says
//! to have the serial number, that step settled who holds it. Otherwise what follows is about two, so
//! it is a step of its own; when it is lost, the next message of the Mac or the next sweep finds it
//! owed.

use super::check_in::{give_up_queue, revise};
use super::conclude::verdict_step;
use super::join_session::join_waiting;
use super::{Context, Failure};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{Enrollment, State};
use crate::ids::{DeviceId, SerialNumber, VerificationId};
use crate::posture::Posture;
use crate::publication::event;
use crate::publication::posture_v1::relation;
use crate::store::{Event, Write};
use crate::time::Timestamp;
use crate::verification::{Kind, Priority, Request, State as Outcome, Verification};

/// Settles who holds the serial number of this Mac, where that is owed. Returns under which id the
/// Mac is known from now on, when that is another.
///
/// The first to prove a serial number holds it, and everybody else who claims it contends. A
/// contender that proves it takes the holder's place: its channel, its name, its address are the
/// holder's, whose history and negatives go on.
pub async fn settle(ctx: &Context, device_id: &DeviceId) -> Result<Option<DeviceId>, Failure> {
    let now = ctx.clock.now();
    let mut tx = ctx.store.write().await?;
    let Some(proved) = tx.enrollment(device_id).await? else {
        return Ok(None);
    };
    let (Some(serial), Some(_)) = (&proved.serial, proved.proved_at) else {
        return Ok(None);
    };
    if proved.state == State::Superseded {
        return Ok(proved.contends_with);
    }
    match tx.holder(serial).await? {
        Some(holder) if holder.device_id != proved.device_id => {
            take_over(ctx, tx, holder, proved, now).await
        }
        _ if proved.contends_with.is_none() && proved.held_since.is_some() => Ok(None),
        _ => {
            let serial = serial.clone();
            hold(ctx, tx, proved, &serial, now).await?;
            Ok(None)
        }
    }
}

/// Nobody holds the serial number yet.
async fn hold(
    ctx: &Context,
    mut tx: Write,
    mut proved: Enrollment,
    serial: &SerialNumber,
    now: Timestamp,
) -> Result<(), Failure> {
    if !stands_under_its_udid(&mut tx, &proved, &proved.device_id).await? {
        return unsettled(tx, proved).await;
    }
    let contended = proved.contends_with.take().is_some();
    proved.held_since = proved.proved_at;
    tx.save_enrollment(&proved).await?;
    tx.make_contend(serial, &proved.device_id).await?;
    if contended {
        let identity = tx.identity(proved.identity).await?;
        let relation = relation(&proved, identity.as_ref());
        revise(&mut tx, &proved.device_id, None, now, |posture| {
            posture.relate(relation, &ctx.policy, now)
        })
        .await?;
    }
    tx.commit().await?;
    tracing::info!(
        device.id = proved.device_id.as_str(),
        "holds its serial number"
    );
    Ok(())
}

async fn take_over(
    ctx: &Context,
    mut tx: Write,
    holder: Enrollment,
    mut contender: Enrollment,
    now: Timestamp,
) -> Result<Option<DeviceId>, Failure> {
    if !stands_under_its_udid(&mut tx, &contender, &holder.device_id).await? {
        unsettled(tx, contender).await?;
        return Ok(None);
    }
    let (from, to) = (contender.device_id.clone(), holder.device_id.clone());
    let owed = owed(&mut tx, &from).await?;
    give_up_queue(&mut tx, &from, Outcome::Superseded, now).await?;
    give_up_queue(&mut tx, &to, Outcome::Superseded, now).await?;
    let bootstrap_token = tx.bootstrap_token(&from).await?;

    let successor = holder.taken_over_by(&contender);
    contender.supersede();
    contender.contends_with = Some(to.clone());
    // In this order: a certificate speaks for one Mac.
    tx.save_enrollment(&contender).await?;
    tx.save_enrollment(&successor).await?;
    tx.hand_on(&from, &to).await?;
    tx.set_bootstrap_token(&from, None).await?;
    tx.set_bootstrap_token(&to, bootstrap_token.as_ref())
        .await?;

    if let (Some(contenders), Some(mut agenda)) = (tx.agenda(&from).await?, tx.agenda(&to).await?) {
        agenda.take_over(&contenders);
        tx.keep_agenda(agenda);
    }
    let learnt = tx.posture(&from).await?;
    let identity = tx.identity(successor.identity).await?;
    let relation = relation(&successor, identity.as_ref());
    let new = learnt.is_some().then(|| Posture::unknown(to.clone(), now));
    let judged = revise(&mut tx, &to, new, now, |posture| {
        if let Some(learnt) = learnt {
            posture.take_over(learnt, now);
        }
        posture.relate(relation, &ctx.policy, now)
    })
    .await?;
    revise(&mut tx, &from, None, now, |posture| {
        posture.leave(&ctx.policy, now)
    })
    .await?;
    if let Some(ticket_id) = &successor.ticket_id {
        tx.put_step(ticket_id, &Entry::done(Step::Authenticated, now))
            .await?;
        if let Some(judged) = &judged {
            tx.put_step(ticket_id, &verdict_step(judged, now)).await?;
        }
    }
    let again = (!owed.is_empty()).then(|| asked_again(ctx, &to, owed, now));
    if let Some(verification) = &again {
        tx.save_verification(verification).await?;
    }
    let wake = match &successor.serial {
        Some(serial) => join_waiting(ctx, &mut tx, serial, now).await?,
        None => Vec::new(),
    };
    let body = event::taken_over(&to, &from);
    tx.append_event(&to, &Event::new(event::DEVICE_TAKEN_OVER, now, body))
        .await?;
    tx.commit().await?;
    ctx.store.seen(&to, now);
    tracing::info!(
        device.id = to.as_str(),
        contender.id = from.as_str(),
        "a contender was proved and took the place"
    );
    if let Some(verification) = &again {
        ctx.wakeups.ask(&to, verification.priority);
    }
    for (device_id, priority) in &wake {
        ctx.wakeups.ask(device_id, *priority);
    }
    Ok(Some(to))
}

/// Whoever stands under the Mac's UDID yields, unless Apple proved it, too: then two Macs claim one
/// UDID, and the one that stands keeps it.
async fn stands_under_its_udid(
    tx: &mut Write,
    proved: &Enrollment,
    becomes: &DeviceId,
) -> Result<bool, Failure> {
    let Some(standing) = tx.enrollment_by_udid(&proved.udid).await? else {
        return Ok(true);
    };
    if standing.device_id == proved.device_id || standing.device_id == *becomes {
        return Ok(true);
    }
    if standing.holds_serial() {
        return Ok(false);
    }
    tx.yield_to(&standing.device_id, becomes).await?;
    Ok(true)
}

/// It goes on contending; the next proof is weighed anew.
async fn unsettled(mut tx: Write, mut proved: Enrollment) -> Result<(), Failure> {
    tracing::warn!(
        device.id = proved.device_id.as_str(),
        "two Macs whose serial numbers Apple proved claim one UDID"
    );
    proved.proved_at = None;
    tx.save_enrollment(&proved).await?;
    tx.commit().await?;
    Ok(())
}

/// What the contender has not answered yet.
async fn owed(tx: &mut Write, device_id: &DeviceId) -> Result<Vec<Kind>, Failure> {
    let open = tx.open_verification(device_id).await?;
    let parts = open.iter().flat_map(|verification| &verification.parts);
    Ok(parts
        .filter(|part| part.progress.is_owed())
        .map(|part| part.kind)
        .collect())
}

fn asked_again(
    ctx: &Context,
    device_id: &DeviceId,
    kinds: Vec<Kind>,
    now: Timestamp,
) -> Verification {
    let request = Request {
        kinds,
        priority: Priority::First,
        occasion: "taken over".to_owned(),
        patience: ctx.settings.patience,
    };
    let verification_id = VerificationId::new(now, ctx.entropy.as_ref());
    Verification::start(verification_id, device_id.clone(), &request, now)
}
