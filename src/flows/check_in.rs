//! A Mac joins, changes its address, or leaves.

use super::identify::{Identified, Proof, Signer, identify};
use super::join_session::join_waiting;
use super::refuse::{Refused, note};
use super::verify_now::first_verification;
use super::{Context, Failure};
use crate::attestation::Freshness;
use crate::enrollment::succession::{Newcomer, Standing, Succession, succession};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{
    Authenticated, Enrollment, Hardware, Identity, PushAddress, State, Ticket,
};
use crate::ids::{DeviceId, TicketId, Topic};
use crate::mdm::check_in::Message;
use crate::mdm::plist::{Dictionary, Value, to_xml};
use crate::mdm::{Channel, CheckIn, Sender};
use crate::posture::appraisal::Appraisal;
use crate::posture::merge::Beginning;
use crate::posture::{Attested, Notice, Occasion, Posture};
use crate::publication::event;
use crate::publication::posture_v1::relation;
use crate::reason::Reason;
use crate::store::{Event, Speaker, Write};
use crate::time::Timestamp;
use crate::verification::{Kind, Priority, State as Outcome};

/// Its name in metrics, and where refusals are kept.
pub const SURFACE: &str = "check_in";

/// How a check-in is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted, nothing to say.
    Empty,
    /// A property list.
    Plist(Vec<u8>),
    /// This user is not managed (UserAuthenticate).
    UserDeclined,
    /// Something this service does not offer.
    NotOffered,
    Refused(Reason),
}

/// Takes a check-in.
///
/// Nothing is accepted without proof that an identity issued here speaks.
/// Authenticate binds that identity to the Mac; everything else must come from the bound one.
pub async fn check_in(ctx: &Context, proof: Proof<'_>, body: &[u8]) -> Result<Reply, Failure> {
    let now = ctx.clock.now();
    let identified = match identify(ctx, SURFACE, proof, body, now).await? {
        Ok(identified) => identified,
        Err(reason) => return Ok(Reply::Refused(reason)),
    };
    let CheckIn { sender, message } = match CheckIn::decode(body) {
        Ok(check_in) => check_in,
        Err(refusal) => {
            return Ok(refused(
                ctx,
                refusal.reason(),
                None,
                refusal.to_string(),
                now,
            ));
        }
    };
    ctx.metrics.message("check_in", message.name());
    if let Message::Authenticate { .. } = &message {
        return authenticate(ctx, &identified, &sender, &message, now).await;
    }
    let speaker = match identified.speaker_for(&sender) {
        Ok(speaker) => speaker,
        Err(reason) => {
            return Ok(refused(
                ctx,
                reason,
                Some(&sender),
                message.name().to_owned(),
                now,
            ));
        }
    };
    if speaker.state == State::CheckedOut && !matches!(message, Message::CheckOut) {
        // A Mac that left comes back with Authenticate.
        let detail = format!("{} after CheckOut", message.name());
        return Ok(refused(
            ctx,
            Reason::NotEnrolled,
            Some(&sender),
            detail,
            now,
        ));
    }
    match message {
        Message::TokenUpdate {
            topic,
            token,
            magic,
        } => {
            // The user channel has an address of its own, which must not replace the Mac's; no
            // user is ever woken.
            if sender.channel == Channel::User {
                return Ok(Reply::Empty);
            }
            let address = PushAddress {
                token,
                magic,
                updated_at: now,
                dead_since: None,
            };
            token_update(ctx, speaker, &sender, topic, address, now).await
        }
        Message::CheckOut => check_out(ctx, speaker, now).await,
        Message::SetBootstrapToken(token) => {
            let mut tx = ctx.store.write().await?;
            tx.set_bootstrap_token(&speaker.device_id, token.as_ref())
                .await?;
            tx.commit().await?;
            Ok(Reply::Empty)
        }
        Message::GetBootstrapToken => {
            let tx = ctx.store.read().await?;
            Ok(match tx.bootstrap_token(&speaker.device_id).await? {
                None => Reply::Empty,
                Some(token) => {
                    let mut answer = Dictionary::default();
                    answer.set("BootstrapToken", Value::Data(token.expose().clone()));
                    Reply::Plist(to_xml(&answer))
                }
            })
        }
        Message::UserAuthenticate => Ok(Reply::UserDeclined),
        Message::DeclarativeManagement => Ok(Reply::NotOffered),
        Message::GetToken => {
            let detail = message.name().to_owned();
            Ok(refused(
                ctx,
                Reason::MessageUnsupported,
                Some(&sender),
                detail,
                now,
            ))
        }
        Message::Authenticate { .. } => Err(Failure::Inconsistent("Authenticate is taken above")),
    }
}

async fn authenticate(
    ctx: &Context,
    identified: &Identified,
    sender: &Sender,
    message: &Message,
    now: Timestamp,
) -> Result<Reply, Failure> {
    let Message::Authenticate {
        topic,
        serial,
        model,
        model_name,
        os_version,
        build_version,
    } = message
    else {
        return Err(Failure::Inconsistent(
            "only Authenticate opens an enrollment",
        ));
    };
    let mut tx = ctx.store.write().await?;
    let identity = match &identified.signer {
        Signer::Issued(identity) => (**identity).clone(),
        Signer::Bound(_) => match tx.identity(identified.certificate).await? {
            Some(identity) => identity,
            None => return Err(Failure::Inconsistent("a bound identity without its record")),
        },
    };
    let ticket = ticket_of(&tx, identity.ticket_id.as_ref()).await?;
    let own = match &identity.device_id {
        Some(device_id) => tx.enrollment(device_id).await?,
        None => None,
    };
    let by_udid = tx.enrollment_by_udid(&sender.udid).await?;
    let holder = match serial {
        Some(serial) => tx.holder(serial).await?,
        None => None,
    };
    let holders = holder.as_ref().and_then(|holder| holder.ticket_id.as_ref());
    let holder_ticket = ticket_of(&tx, holders).await?;
    let newcomer = Newcomer {
        udid: &sender.udid,
        serial: serial.as_ref(),
        identity: &identity,
        ticket: ticket.as_ref(),
    };
    let standing = Standing {
        own: own.as_ref(),
        by_udid: by_udid.as_ref(),
        holder: holder.as_ref(),
        holder_ticket: holder_ticket.as_ref(),
    };
    let decided = match succession(newcomer, standing, now) {
        Ok(_) if tx.active_push_certificate(topic).await?.is_none() => {
            Err(Reason::RequestMalformed)
        }
        decided => decided,
    };
    let succession = match decided {
        Ok(succession) => succession,
        Err(reason) => {
            step(
                &mut tx,
                &identity,
                Entry::refused(Step::Authenticated, reason, now),
            )
            .await?;
            tx.commit().await?;
            return Ok(refused(
                ctx,
                reason,
                Some(sender),
                "Authenticate".to_owned(),
                now,
            ));
        }
    };

    let by = Authenticated {
        serial: serial.clone(),
        identity: identity.certificate,
        // A renewed identity was issued for none: the Mac came in by the one it had.
        ticket_id: identity
            .ticket_id
            .clone()
            .or_else(|| own.as_ref()?.ticket_id.clone()),
        topic: topic.clone(),
        hardware: Hardware {
            model: model.clone(),
            model_name: model_name.clone(),
            os_version: os_version.clone(),
            build_version: build_version.clone(),
        },
    };
    let first = || {
        let device_id = DeviceId::new(now, ctx.entropy.as_ref());
        Enrollment::begin(device_id, sender.udid.clone(), &by, now)
    };
    let again = |known: &Enrollment| known.clone().authenticated(sender.udid.clone(), &by, now);
    let mut enrollment = match succession {
        Succession::First => first(),
        Succession::Again(known) | Succession::Displaces(known) => again(known),
        Succession::Contends(holder) => Enrollment {
            contends_with: Some(holder.device_id.clone()),
            ..own.as_ref().map_or_else(first, again)
        },
    };
    enrollment.proved_at = identity.proves_serial().then_some(now);
    let stands = enrollment.contends_with.is_none();
    if stands && enrollment.held_since.is_none() {
        enrollment.held_since = enrollment.proved_at;
    }
    let device_id = &enrollment.device_id;
    if let Some(other) = by_udid
        .as_ref()
        .filter(|other| stands && other.device_id != *device_id)
    {
        tx.yield_to(&other.device_id, device_id).await?;
    }
    tx.save_enrollment(&enrollment).await?;
    if let (Some(serial), Some(_)) = (serial, enrollment.serial_held_since()) {
        tx.make_contend(serial, device_id).await?;
    }
    if !tx.bind(identity.certificate, device_id).await? {
        // Another Mac was faster with the same certificate; nothing of this is kept.
        drop(tx);
        let reason = Reason::IdentityMismatch;
        return Ok(refused(
            ctx,
            reason,
            Some(sender),
            "Authenticate".to_owned(),
            now,
        ));
    }
    give_up_queue(&mut tx, device_id, Outcome::Superseded, now).await?;
    tx.set_bootstrap_token(device_id, None).await?;
    let statement = first_reading(&tx, &identity).await?;
    // Of a Mac nobody has heard anything of there is nothing to revise.
    let by = Beginning {
        statement,
        se_public_key: ticket.and_then(|ticket| ticket.se_public_key),
    };
    let new = (by.statement.is_some() || by.se_public_key.is_some())
        .then(|| Posture::unknown(device_id.clone(), now));
    revise(&mut tx, device_id, new, now, |posture| match succession {
        Succession::Displaces(_) => posture.begin_afresh(by, &ctx.policy, now),
        _ => posture.begin_anew(by, &ctx.policy, now),
    })
    .await?;
    let entry = Entry {
        reason: (!stands).then_some(Reason::PendingProof),
        ..Entry::done(Step::Authenticated, now)
    };
    step(&mut tx, &identity, entry).await?;
    tx.commit().await?;
    tracing::info!(
        device.id = device_id.as_str(),
        contends = !stands,
        "authenticated"
    );
    Ok(Reply::Empty)
}

async fn token_update(
    ctx: &Context,
    speaker: &Speaker,
    sender: &Sender,
    topic: Topic,
    address: PushAddress,
    now: Timestamp,
) -> Result<Reply, Failure> {
    let device_id = &speaker.device_id;
    let mut tx = ctx.store.write().await?;
    let Some(mut enrollment) = tx.enrollment(device_id).await? else {
        return Err(Failure::Inconsistent(
            "a bound identity without its enrollment",
        ));
    };
    let refusal = if enrollment.state == State::CheckedOut {
        Some(Reason::NotEnrolled)
    } else if topic != enrollment.topic && tx.active_push_certificate(&topic).await?.is_none() {
        // With a topic nobody here has the certificate for, the Mac could never be woken again.
        Some(Reason::RequestMalformed)
    } else {
        None
    };
    if let Some(reason) = refusal {
        drop(tx);
        return Ok(refused(
            ctx,
            reason,
            Some(sender),
            "TokenUpdate".to_owned(),
            now,
        ));
    }
    let moved = !enrollment
        .push
        .as_ref()
        .is_some_and(|former| former.reaches(&address));
    let first = enrollment.token_update(topic, address, now);
    tx.save_enrollment(&enrollment).await?;
    if first {
        if let Some(ticket_id) = &enrollment.ticket_id {
            tx.put_step(ticket_id, &Entry::done(Step::Enrolled, now))
                .await?;
        }
        let ticket = ticket_of(&tx, enrollment.ticket_id.as_ref()).await?;
        let body = event::device(device_id);
        tx.append_event(device_id, &Event::new(event::DEVICE_ENROLLED, now, body))
            .await?;
        let identity = tx.identity(speaker.certificate).await?;
        let relation = relation(&enrollment, identity.as_ref());
        revise(&mut tx, device_id, None, now, |posture| {
            posture.relate(relation, &ctx.policy, now)
        })
        .await?;
        let verification = first_verification(ctx, &enrollment, ticket.as_ref(), now);
        tx.save_verification(&verification).await?;
        let held = verification.part(Kind::Mda).and_then(|part| part.reason);
        if let (Some(ticket_id), Some(reason)) = (&enrollment.ticket_id, held) {
            tx.put_step(
                ticket_id,
                &Entry::waiting(Step::Attestation, Some(reason), now),
            )
            .await?;
        }
    }
    let mut wake = Vec::new();
    if let (true, Some(serial)) = (first, &enrollment.serial) {
        wake = join_waiting(ctx, &mut tx, serial, now).await?;
    }
    let mut owed = first.then_some(Priority::First);
    if !first && let Some(open) = tx.open_verification(device_id).await? {
        owed = Some(open.priority);
    }
    if moved
        && let Some(mut agenda) = tx.agenda(device_id).await?
        // Of a Mac that was never woken nothing is lost.
        && (!first || agenda.held(&ctx.settings.rules, now).is_some())
    {
        agenda.readdressed(now);
        tx.keep_agenda(agenda);
    }
    tx.commit().await?;
    ctx.store.seen(device_id, now);
    if first {
        tracing::info!(device.id = device_id.as_str(), "enrolled");
    }
    if let Some(priority) = owed {
        wake.push((device_id.clone(), priority));
    }
    for (device_id, priority) in &wake {
        ctx.wakeups.ask(device_id, *priority);
    }
    Ok(Reply::Empty)
}

async fn check_out(ctx: &Context, speaker: &Speaker, now: Timestamp) -> Result<Reply, Failure> {
    let device_id = &speaker.device_id;
    let mut tx = ctx.store.write().await?;
    let Some(mut enrollment) = tx.enrollment(device_id).await? else {
        return Err(Failure::Inconsistent(
            "a bound identity without its enrollment",
        ));
    };
    if enrollment.state == State::CheckedOut {
        // Said before: the same message again changes nothing.
        return Ok(Reply::Empty);
    }
    enrollment.check_out(now);
    tx.save_enrollment(&enrollment).await?;
    tx.set_bootstrap_token(device_id, None).await?;
    give_up_queue(&mut tx, device_id, Outcome::Cancelled, now).await?;
    revise(&mut tx, device_id, None, now, |posture| {
        posture.leave(&ctx.policy, now)
    })
    .await?;
    let body = event::device(device_id);
    tx.append_event(device_id, &Event::new(event::DEVICE_CHECKED_OUT, now, body))
        .await?;
    tx.commit().await?;
    tracing::info!(device.id = device_id.as_str(), "checked out");
    Ok(Reply::Empty)
}

/// What Apple stated of this Mac when its identity was issued.
async fn first_reading(tx: &Write, identity: &Identity) -> Result<Option<Attested>, Failure> {
    let Some(key) = tx.attested_key(identity.certificate).await? else {
        return Ok(None);
    };
    Ok(Some(Attested {
        occasion: Occasion::Acme,
        evidence_id: key.evidence().id(),
        freshness: Freshness::Fresh {
            minted_at: key.minted_at,
            se_public_key: key.token.se_public_key,
        },
        facts: key.statement,
        observed_at: key.verified_at,
        issued_by: None,
        not_after: key.not_after,
    }))
}

async fn ticket_of(tx: &Write, ticket_id: Option<&TicketId>) -> Result<Option<Ticket>, Failure> {
    Ok(match ticket_id {
        Some(ticket_id) => tx.ticket(ticket_id).await?,
        None => None,
    })
}

/// Gives up what was asked of the Mac, and says so.
pub(super) async fn give_up_queue(
    tx: &mut Write,
    device_id: &DeviceId,
    outcome: Outcome,
    now: Timestamp,
) -> Result<(), Failure> {
    let Some(verification_id) = tx.forget_queue(device_id, outcome, now).await? else {
        return Ok(());
    };
    if let Some(verification) = tx.verification(&verification_id).await? {
        let body = event::verification_finished(&verification);
        tx.append_event(
            device_id,
            &Event::new(event::VERIFICATION_FINISHED, now, body),
        )
        .await?;
    }
    Ok(())
}

/// Changes the Mac's posture, or this `new` one where there is none yet, and says so. Returns the
/// judgement.
pub(super) async fn revise(
    tx: &mut Write,
    device_id: &DeviceId,
    new: Option<Posture>,
    now: Timestamp,
    change: impl FnOnce(&mut Posture) -> Appraisal,
) -> Result<Option<Appraisal>, Failure> {
    let Some(mut posture) = tx.posture(device_id).await?.or(new) else {
        return Ok(None);
    };
    let previous = posture.verdict;
    let has_ended = posture.notice(now) == Some(Notice::Ended);
    let appraisal = change(&mut posture);
    tx.save_posture(&posture).await?;
    let body = match has_ended {
        true => event::posture_ended(&posture, previous, &appraisal.reasons),
        false => event::posture_changed(&posture, previous, &appraisal.reasons),
    };
    tx.append_event(device_id, &Event::new(event::POSTURE_CHANGED, now, body))
        .await?;
    Ok(Some(appraisal))
}

async fn step(tx: &mut Write, identity: &Identity, entry: Entry) -> Result<(), Failure> {
    if let Some(ticket_id) = &identity.ticket_id {
        tx.put_step(ticket_id, &entry).await?;
    }
    Ok(())
}

fn refused(
    ctx: &Context,
    reason: Reason,
    sender: Option<&Sender>,
    detail: String,
    at: Timestamp,
) -> Reply {
    let named = sender.map(|sender| sender.udid.clone());
    note(
        ctx,
        Refused {
            surface: SURFACE,
            reason,
            device_id: None,
            named,
            detail,
            at,
        },
    );
    Reply::Refused(reason)
}
