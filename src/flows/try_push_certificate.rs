//! Chosen Macs try a push certificate before it is used for all: a push by it must bring them to
//! connect. An operator chooses; whichever server runs on the database pushes, and writes down who came.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::name_mac::{Unnamed, named};
use super::rotate_push_certificate::{NotTaken, accept, found};
use super::wake::push_id;
use super::{Context, Failure};
use crate::apns::TrialLine;
use crate::audit::{Entry, Verb, Who};
use crate::enrollment::{PushAddress, State};
use crate::ids::{DeviceId, PushCertificateId, Topic};
use crate::push::PushOutcome;
use crate::push::canary::{Canary, MOST, NO_ADDRESS};
use crate::push::outcome::Duty;
use crate::push::rotation::{Standing, may_be_tried};
use crate::push::wake::{Expiration, Wake};
use crate::store::{Store, StoreError, Trial};
use crate::time::Timestamp;

/// A Mac that was chosen longer ago than this is waited for no more.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// A node that took a trial and says nothing for so long may have died: longer than a push may take.
const LEASE: Duration = Duration::from_secs(60);
/// What APNs could not take for a cause that passes is repeated after this.
const AGAIN: Duration = Duration::from_secs(5);

/// Why no Macs try a certificate.
#[derive(Debug, thiserror::Error)]
pub enum NotTried {
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    #[error("choose 1 to {MOST} Macs")]
    HowMany,
    #[error(transparent)]
    Unnamed(#[from] Unnamed),
    #[error("{0} is not enrolled")]
    NotEnrolled(DeviceId),
    #[error("{device_id} is enrolled under topic {topic}: a certificate of another cannot push it")]
    OtherTopic { device_id: DeviceId, topic: Topic },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The Macs of these names: device ids, or serial numbers of those that stand first.
///
/// # Errors
/// [`NotTried`] of the first name that names none.
pub async fn chosen(store: &Store, names: &[String]) -> Result<Vec<DeviceId>, NotTried> {
    if names.len() > MOST {
        return Err(NotTried::HowMany);
    }
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(named(store, name).await?);
    }
    Ok(chosen)
}

/// Has these Macs try a certificate that is not in use. Whoever was chosen before is forgotten.
pub async fn begin(
    store: &Store,
    id: &PushCertificateId,
    chosen: &[DeviceId],
    who: &Who,
    now: Timestamp,
) -> Result<Vec<Canary>, NotTried> {
    let mut chosen = chosen.to_vec();
    chosen.sort();
    chosen.dedup();
    if !(1..=MOST).contains(&chosen.len()) {
        return Err(NotTried::HowMany);
    }
    let mut tx = store.write().await?;
    let one = found(&tx, id).await?;
    may_be_tried(&one.held()).map_err(NotTaken::from)?;
    accept(&one, now)?;
    for device_id in &chosen {
        match tx.enrollment(device_id).await? {
            Some(mac) if mac.state != State::Enrolled => {
                return Err(NotTried::NotEnrolled(device_id.clone()));
            }
            None => return Err(NotTried::NotEnrolled(device_id.clone())),
            Some(mac) if mac.topic != one.topic => {
                return Err(NotTried::OtherTopic {
                    device_id: device_id.clone(),
                    topic: mac.topic,
                });
            }
            Some(_) => {}
        }
    }
    let canaries: Vec<_> = chosen
        .into_iter()
        .map(|device_id| Canary::ask(device_id, now))
        .collect();
    tx.choose_canaries(id, &canaries).await?;
    tx.push_certificate_is_tried(id).await?;
    let macs: Vec<_> = canaries.iter().map(|canary| &canary.device_id).collect();
    let entry = Entry::new(who, Verb::PushCertificateCanary, id, now)
        .before("standing", one.standing.as_str())
        .after("standing", Standing::Canary.as_str())
        .after("macs", macs);
    tx.record(entry);
    tx.commit().await?;
    Ok(canaries)
}

/// Runs once: pushes whoever was chosen and has not been pushed, and writes down who came since.
pub async fn run_once(ctx: &Context) -> Result<(), Failure> {
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let open = tx.open_trials(now.minus(PATIENCE)).await?;
    if open.is_empty() {
        return Ok(());
    }
    let mut came = Vec::new();
    for trial in &open {
        if let Some(sent_at) = trial.canary.sent_at {
            let last_seen = tx.last_seen(&trial.canary.device_id).await?;
            if let Some(at) = last_seen.filter(|at| *at >= sent_at) {
                let mut trial = trial.clone();
                trial.canary.came_at = Some(at);
                came.push(trial);
            }
        }
    }
    drop(tx);
    note(ctx, &came).await?;
    let mut unsent: HashMap<_, Vec<_>> = HashMap::new();
    for trial in open {
        if trial.canary.sent_at.is_none() {
            let of_one = unsent.entry(trial.push_certificate_id.clone());
            of_one.or_default().push(trial);
        }
    }
    for (id, trials) in unsent {
        push_all(ctx, &id, trials, now).await?;
    }
    Ok(())
}

/// Pushes the Macs that try one certificate, at the same time.
async fn push_all(
    ctx: &Context,
    id: &PushCertificateId,
    trials: Vec<Trial>,
    now: Timestamp,
) -> Result<(), Failure> {
    let mut tx = ctx.store.write().await?;
    let Some(certificate) = tx.push_certificate(id).await? else {
        return Ok(());
    };
    let mut taken = Vec::new();
    for trial in trials {
        if tx.take_trial(&trial, now.plus(LEASE), now).await? {
            taken.push(trial);
        }
    }
    tx.commit().await?;
    if taken.is_empty() {
        return Ok(());
    }
    let line = match accept(&certificate, now) {
        Ok(accepted) => ctx.apns.trial(&accepted, &certificate.private_key).ok(),
        Err(error) => {
            tracing::warn!(push_certificate.id = id.as_str(), %error, "a push certificate cannot be tried");
            None
        }
    };
    let pushed = taken.into_iter().map(|mut trial| {
        let (line, topic) = (line.as_ref(), &certificate.topic);
        async move {
            let outcome = push_one(ctx, line, topic, &trial.canary.device_id, now).await?;
            settle(&mut trial.canary, &outcome, now);
            tracing::info!(
                push_certificate.id = trial.push_certificate_id.as_str(),
                device.id = trial.canary.device_id.as_str(),
                outcome = outcome.name(),
                "a push certificate is tried"
            );
            Ok::<_, Failure>(trial)
        }
    });
    let pushed: Vec<Trial> = join_all(pushed)
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    note(ctx, &pushed).await?;
    let again: Vec<_> = pushed
        .iter()
        .filter(|trial| trial.canary.trouble.is_some())
        .collect();
    if !again.is_empty() {
        let mut tx = ctx.store.write().await?;
        for trial in again {
            tx.release_trial(trial, ctx.clock.now().plus(AGAIN)).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// What became of the push to one Mac.
enum Tried {
    NoAddress,
    Unusable,
    Ended(PushOutcome),
}

impl Tried {
    fn name(&self) -> &'static str {
        match self {
            Self::NoAddress => NO_ADDRESS,
            Self::Unusable => "unusable",
            Self::Ended(outcome) => outcome.name(),
        }
    }
}

async fn push_one(
    ctx: &Context,
    line: Option<&TrialLine>,
    of: &Topic,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<Tried, Failure> {
    let Some(line) = line else {
        return Ok(Tried::Unusable);
    };
    let wake = match ctx.store.push_address(device_id).await? {
        Some((
            topic,
            Some(PushAddress {
                token,
                magic,
                dead_since: None,
                ..
            }),
        )) if topic == *of => Wake::new(topic, &token, &magic, Expiration::usual(now)).ok(),
        _ => None,
    };
    let Some(wake) = wake else {
        return Ok(Tried::NoAddress);
    };
    let outcome = line.send(&wake, push_id(ctx)).await;
    ctx.metrics.pushed(outcome.name());
    Ok(Tried::Ended(outcome))
}

/// Nothing is concluded about the Mac: it was the certificate that was tried.
fn settle(canary: &mut Canary, tried: &Tried, sent_at: Timestamp) {
    canary.trouble = None;
    let word = tried.name().to_owned();
    match tried {
        Tried::Ended(PushOutcome::Accepted) => canary.sent_at = Some(sent_at),
        Tried::Ended(outcome) if outcome.duty(sent_at) == Duty::Retry => {
            canary.trouble = Some(word);
        }
        Tried::Ended(_) | Tried::NoAddress | Tried::Unusable => canary.refused = Some(word),
    }
}

async fn note(ctx: &Context, trials: &[Trial]) -> Result<(), Failure> {
    if trials.is_empty() {
        return Ok(());
    }
    let mut tx = ctx.store.write().await?;
    for trial in trials {
        tx.note_trial(trial).await?;
    }
    Ok(tx.commit().await?)
}
