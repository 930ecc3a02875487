//! An old coordinator asks a Mac as it asked MicroMDM.
//!
//! What it asks joins what this service asks by itself: one attempt, one question of a kind, one push
//! budget, and the answer is judged like every other. The coordinator is promised the name by which it
//! will be told of the answer ([`super::relay_answer`]).

use std::time::Duration;

use tokio::sync::Notify;

use super::read_posture::{Name, find};
use super::sweep::ask;
use super::{Context, Failure};
use crate::attestation::{Evidence, verify};
use crate::enrollment::{Enrollment, State};
use crate::ids::{CommandUuid, SerialNumber, Udid};
use crate::keys::BearerKey;
use crate::mdm::Report;
use crate::mdm::device_information::{Attestation, DeviceInformation};
use crate::mdm::foreign::{Question, Spelled};
use crate::outbound::{Reach, Target};
use crate::posture::Posture;
use crate::publication::micromdm::Device;
use crate::reason::Reason;
use crate::secret::Secret;
use crate::store::{Read, Relayed, RelayedAnswer, StoreError, Write};
use crate::time::Timestamp;
use crate::verification::{
    ANSWER_LIFETIME, CommandState, Kind, Priority, Progress, Promised, Request, Verification,
};

/// Commands of one Mac that wait at a time: the historic coordinator keeps as many answers.
pub const MOST_WAITING: u64 = 16;

/// Replies of a Mac that are looked through for one that may be told again.
const REPLIES: usize = 32;

/// Who the old coordinator is, and where it is told of answers.
#[derive(Debug)]
pub struct Relaying {
    pub key: BearerKey,
    pub webhook: Target,
    pub reach: Reach,
    /// Presented to the webhook as `X-Webhook-Token`.
    pub token: Option<Secret<String>>,
    /// Something may be to be told.
    pub answered: Notify,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub udid: Udid,
    pub question: Question,
    /// The name the coordinator gave it; it is given one where there is none.
    pub name: Option<Spelled>,
}

/// How it is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer will be told under this name.
    Accepted(Spelled),
    DeviceNotFound,
    NotEnrolled,
    /// The name is that of another command.
    NameTaken,
    /// As many commands of this Mac wait as may, or as many Macs to be woken.
    QueueFull,
    /// Apple makes no other statement before this time, and there is none that may be told again.
    AppleRateLimit(Timestamp),
}

/// How a wish to wake a Mac is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// It is woken, or was just now.
    Soon,
    /// There is nothing to ask it.
    NothingToAsk,
    /// It was woken as often as may be.
    NotBefore(Timestamp),
    DeviceNotFound,
    NotEnrolled,
    QueueFull,
}

/// The Macs of this serial number that may be asked: one, or none.
pub async fn devices(ctx: &Context, serial: &SerialNumber) -> Result<Vec<Device>, Failure> {
    let mut devices = Vec::new();
    for found in find(ctx, &Name::Serial(serial.clone())).await? {
        let enrollment = found.enrollment;
        if enrollment.contends_with.is_some() {
            continue;
        }
        let tx = ctx.store.read().await?;
        devices.push(Device {
            serial_number: serial.clone(),
            enrollment_status: is_heard(&tx, &enrollment).await?,
            last_seen: found.last_seen.unwrap_or(enrollment.authenticated_at),
            udid: enrollment.udid,
        });
    }
    Ok(devices)
}

/// Has a Mac asked, and woken.
pub async fn relay_command(ctx: &Context, wanted: &Wanted) -> Result<Outcome, Failure> {
    // Two with one name at the same time: the second finds the first one's command.
    match attempt(ctx, wanted).await {
        Err(Failure::Store(StoreError::Conflict)) => attempt(ctx, wanted).await,
        outcome => outcome,
    }
}

/// Wakes a Mac that has something to answer, within its budget.
pub async fn wake(ctx: &Context, udid: &Udid) -> Result<Woken, Failure> {
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let Some(enrollment) = addressed(&tx, udid).await? else {
        return Ok(Woken::DeviceNotFound);
    };
    if !is_heard(&tx, &enrollment).await? {
        return Ok(Woken::NotEnrolled);
    }
    let device_id = &enrollment.device_id;
    let Some(open) = tx.open_verification(device_id).await? else {
        return Ok(Woken::NothingToAsk);
    };
    let Some(agenda) = tx.agenda(device_id).await? else {
        return Err(Failure::Inconsistent("a Mac without its agenda"));
    };
    if !open.owes(now) {
        return Ok(Woken::NothingToAsk);
    }
    if let Some(hold) = agenda.held(&ctx.settings.rules, now) {
        // Its client asks twice for one push: with the command, and by itself. A Mac that is about to
        // connect is asked everything.
        return Ok(match hold.reason {
            Some(_) if !agenda.is_expected(now) => Woken::NotBefore(hold.until),
            _ => Woken::Soon,
        });
    }
    Ok(if ctx.wakeups.ask(device_id, Priority::Expired) {
        Woken::Soon
    } else {
        Woken::QueueFull
    })
}

/// Only one Mac speaks for a UDID; whoever contends with it is not asked on anybody's behalf.
async fn addressed(tx: &Read, udid: &Udid) -> Result<Option<Enrollment>, Failure> {
    let found = tx.enrollments_by_udid(udid).await?;
    Ok(found.into_iter().find(|it| it.contends_with.is_none()))
}

/// Whether the Mac is enrolled and trust in it was not withdrawn: otherwise nobody answers.
async fn is_heard(tx: &Read, enrollment: &Enrollment) -> Result<bool, Failure> {
    if enrollment.state != State::Enrolled {
        return Ok(false);
    }
    let posture = tx.posture(&enrollment.device_id).await?;
    Ok(!posture
        .is_some_and(|it: Posture| it.held.iter().any(|held| held.reason == Reason::Revoked)))
}

async fn attempt(ctx: &Context, wanted: &Wanted) -> Result<Outcome, Failure> {
    let now = ctx.clock.now();
    let (kind, nonce) = match wanted.question {
        Question::SecurityInfo => (Kind::SecurityInfo, None),
        Question::Attestation { nonce } => (Kind::Mda, nonce),
    };
    let mut tx = ctx.store.write().await?;
    let Some(enrollment) = addressed(&tx, &wanted.udid).await? else {
        return Ok(Outcome::DeviceNotFound);
    };
    let device_id = enrollment.device_id.clone();
    // As it is, and as nobody else changes it now.
    let Some(enrollment) = tx.enrollment(&device_id).await? else {
        return Ok(Outcome::DeviceNotFound);
    };
    if !is_heard(&tx, &enrollment).await? {
        return Ok(Outcome::NotEnrolled);
    }
    if let Some(name) = &wanted.name {
        match tx.relayed(name.command_uuid()).await? {
            // The same again: it was not sure that the first arrived.
            Some(known) if known.device_id == device_id && known.kind == kind => {
                return Ok(Outcome::Accepted(known.name));
            }
            Some(_) => return Ok(Outcome::NameTaken),
            None if tx.command(name.command_uuid()).await?.is_some() => {
                return Ok(Outcome::NameTaken);
            }
            None => {}
        }
    }
    if tx.relayed_waiting(&device_id, now).await? >= MOST_WAITING || ctx.wakeups.is_full() {
        return Ok(Outcome::QueueFull);
    }
    let open = tx.open_verification(&device_id).await?;
    let Some(agenda) = tx.agenda(&device_id).await? else {
        return Err(Failure::Inconsistent("a Mac without its agenda"));
    };
    if kind == Kind::Mda {
        let part = open.as_ref().and_then(|open| open.part(kind));
        let is_asked = part.is_some_and(|part| part.progress.is_owed() && !part.is_put_off());
        let limit = agenda.eligible_at().filter(|from| *from > now && !is_asked);
        if let Some(reply) = known_reply(ctx, &tx, &enrollment, nonce, limit.is_some()).await? {
            let name = wanted.name.clone();
            let name = name.unwrap_or_else(|| CommandUuid::new(ctx.entropy.as_ref()).into());
            let mut relayed = waiting(&name, &enrollment, kind, now);
            relayed.answer = Some(RelayedAnswer {
                status: "Acknowledged".to_owned(),
                reply: Secret::new(reply),
                at: now,
                tell_at: now,
                tries: 0,
            });
            tx.insert_relayed(&relayed).await?;
            tx.commit().await?;
            told_soon(ctx);
            return Ok(Outcome::Accepted(name));
        }
        if let Some(limit) = limit {
            return Ok(Outcome::AppleRateLimit(limit));
        }
    }
    let request = Request {
        kinds: vec![kind],
        priority: Priority::Expired,
        occasion: "relayed".to_owned(),
        patience: ctx.settings.patience,
    };
    let mut verification = ask(open, &device_id, &request, ctx.entropy.as_ref(), now);
    if nonce.is_some()
        && let Some(part) = verification.part(kind)
        && part.reason == Some(Reason::AwaitingBinding)
    {
        // Whoever has a nonce knows the provider's key, and that is what it was held for.
        verification.recall(kind);
    }
    let out = outstanding(&tx, &verification, kind, now).await?;
    let name = promise(ctx, &mut verification, wanted, (kind, nonce), out.as_ref());
    if let Some(hold) = agenda.held(&ctx.settings.rules, now)
        && let Some(reason) = hold.reason
    {
        verification.not_pushed(reason, Some(hold.until), now);
    }
    if tx.relayed(name.command_uuid()).await?.is_none() {
        let mut relayed = waiting(&name, &enrollment, kind, now);
        relayed.asked = out;
        tx.insert_relayed(&relayed).await?;
    }
    tx.save_verification(&verification).await?;
    tx.commit().await?;
    ctx.wakeups.ask(&device_id, verification.priority);
    Ok(Outcome::Accepted(name))
}

fn told_soon(ctx: &Context) {
    if let Some(relay) = &ctx.settings.relay {
        relay.answered.notify_one();
    }
}

fn waiting(name: &Spelled, mac: &Enrollment, kind: Kind, now: Timestamp) -> Relayed {
    Relayed {
        name: name.clone(),
        device_id: mac.device_id.clone(),
        kind,
        asked_at: now,
        waits_until: now.plus(ANSWER_LIFETIME),
        asked: None,
        answer: None,
    }
}

/// The question of this kind that the Mac has and may still answer.
async fn outstanding(
    tx: &Write,
    verification: &Verification,
    kind: Kind,
    now: Timestamp,
) -> Result<Option<CommandUuid>, Failure> {
    let part = verification.part(kind);
    let delivered = part.filter(|part| part.progress == Progress::Delivered);
    let Some(name) = delivered.and_then(|part| part.command_uuid.as_ref()) else {
        return Ok(None);
    };
    let command = tx.command(name).await?.filter(|command| {
        command.state == CommandState::Outstanding
            && now.since(command.handed_over_at) < ANSWER_LIFETIME
    });
    Ok(command.map(|command| command.command_uuid))
}

/// The name by which the coordinator is told. What was not handed over yet, or is handed over again,
/// bears it; a question that is out keeps its own.
fn promise(
    ctx: &Context,
    verification: &mut Verification,
    wanted: &Wanted,
    (kind, nonce): (Kind, Option<[u8; 32]>),
    out: Option<&CommandUuid>,
) -> Spelled {
    let former = verification.part(kind).and_then(|it| it.promised.clone());
    let nonce = nonce.or(former.as_ref().and_then(|former| former.nonce));
    let promised = match (&wanted.name, out, former) {
        (Some(name), _, _) => Promised {
            name: name.clone(),
            nonce,
            used: false,
        },
        // It is one question, and it has a name.
        (None, Some(out), former)
            if former
                .as_ref()
                .is_none_or(|it| it.name.command_uuid() != out) =>
        {
            Promised {
                name: out.clone().into(),
                nonce: None,
                used: true,
            }
        }
        (None, _, Some(former)) => former,
        (None, _, None) => Promised {
            name: CommandUuid::new(ctx.entropy.as_ref()).into(),
            nonce,
            used: false,
        },
    };
    let name = promised.name.clone();
    verification.promise(kind, promised);
    name
}

/// A reply of this Mac's that is told again instead of asking: the one with this nonce, which macOS
/// would only repeat; or the newest, where Apple makes no other now. It is verified anew.
async fn known_reply(
    ctx: &Context,
    tx: &Read,
    mac: &Enrollment,
    nonce: Option<[u8; 32]>,
    newest: bool,
) -> Result<Option<Vec<u8>>, Failure> {
    if nonce.is_none() && !newest {
        return Ok(None);
    }
    let now = ctx.clock.now();
    let usable_for: Duration = ctx.settings.rules.mda.usable_for.0;
    let since = mac.authenticated_at.max(now.minus(usable_for));
    let replies = tx.replies_of(&mac.device_id, Kind::Mda, since, REPLIES);
    let mut last = None;
    for kept in replies.await? {
        let Some(code) = verified_code(ctx, mac, &kept.stored, now) else {
            continue;
        };
        if nonce.is_some() && nonce == code {
            return Ok(Some(kept.stored));
        }
        last.get_or_insert(kept.stored);
    }
    Ok(last.filter(|_| newest))
}

/// The freshness code in a reply that is about this Mac and good today; `None` for any other.
fn verified_code(
    ctx: &Context,
    mac: &Enrollment,
    reply: &[u8],
    now: Timestamp,
) -> Option<Option<[u8; 32]>> {
    let report = Report::decode(reply).ok()?;
    let Attestation::Chain(certificates) = DeviceInformation::read(&report.body).ok()?.attestation
    else {
        return None;
    };
    let evidence = Evidence { certificates };
    let verified = verify(&evidence, &ctx.anchors, &ctx.intermediates, now).ok()?;
    let usable_until = verified
        .not_before()
        .plus(ctx.settings.rules.mda.usable_for.0);
    if mac.serial.is_none() || verified.statement().serial != mac.serial || usable_until <= now {
        return None;
    }
    let code = verified.freshness_code(32);
    Some(code.and_then(|code| code.try_into().ok()))
}
