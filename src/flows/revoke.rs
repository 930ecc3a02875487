//! An operator withdraws trust in a Mac, or gives it back.

use super::Failure;
use super::check_in::give_up_queue;
use crate::audit::{Entry, Verb, Who, Words};
use crate::enrollment::Enrollment;
use crate::ids::DeviceId;
use crate::posture::policy::Policy;
use crate::posture::{Posture, Verdict};
use crate::publication::event;
use crate::publication::posture_v1::relation;
use crate::store::{Event, Store, Write};
use crate::time::Timestamp;
use crate::verification::State as Outcome;

/// The longest note that is kept, in characters.
pub const MAX_NOTE: usize = 500;

/// What a withdrawal, or its end, came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub device_id: DeviceId,
    /// False when it was so before; then nothing was done.
    pub changed: bool,
    pub revocation_epoch: u64,
    /// How many identities were withdrawn.
    pub identities: usize,
    pub verdict: Verdict,
}

/// Withdraws every identity of a Mac and trust in the Mac itself, whoever enrols it again. `None`
/// when there is no such Mac.
///
/// Messages that its identities sign are refused from then on, so it leaves no trace of its own any
/// more. What stands against it stays until [`restore`].
pub async fn revoke(
    store: &Store,
    policy: &Policy,
    device_id: &DeviceId,
    note: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Option<Changed>, Failure> {
    let mut tx = store.write().await?;
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Ok(None);
    };
    let mut identities = 0;
    for identity in tx.identities_of(device_id).await? {
        if tx.revoke_identity(identity.certificate, now).await? {
            identities += 1;
        }
    }
    let mut posture = believed(&mut tx, device_id, now).await?;
    let (epoch, verdict) = (posture.revocation_epoch, posture.verdict);
    let changed = posture.revoke(now);
    if changed {
        give_up_queue(&mut tx, device_id, Outcome::Cancelled, now).await?;
        tell(
            &mut tx,
            device_id,
            event::DEVICE_REVOKED,
            note,
            &posture,
            now,
        )
        .await?;
        keep(&mut tx, &enrollment, &mut posture, policy, now).await?;
    }
    if changed || identities > 0 {
        let entry = Entry::new(who, Verb::DeviceRevoke, device_id, now)
            .before("revocation_epoch", epoch)
            .before("verdict", verdict.as_str())
            .after("revocation_epoch", posture.revocation_epoch)
            .after("verdict", posture.verdict.as_str())
            .after("identities_withdrawn", identities)
            .why(Words(note));
        tx.record(entry);
    }
    tx.commit().await?;
    tracing::info!(
        device.id = device_id.as_str(),
        changed,
        identities,
        "revoked"
    );
    Ok(Some(Changed {
        device_id: device_id.clone(),
        changed: changed || identities > 0,
        revocation_epoch: posture.revocation_epoch,
        identities,
        verdict: posture.verdict,
    }))
}

/// Gives trust in a Mac back. Its identities stay withdrawn: it enrols again. `None` when there is no
/// such Mac.
pub async fn restore(
    store: &Store,
    policy: &Policy,
    device_id: &DeviceId,
    note: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Option<Changed>, Failure> {
    let mut tx = store.write().await?;
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Ok(None);
    };
    let mut posture = believed(&mut tx, device_id, now).await?;
    let verdict = posture.verdict;
    let changed = posture.restore();
    if changed {
        tell(
            &mut tx,
            device_id,
            event::DEVICE_RESTORED,
            note,
            &posture,
            now,
        )
        .await?;
        keep(&mut tx, &enrollment, &mut posture, policy, now).await?;
        let entry = Entry::new(who, Verb::DeviceRestore, device_id, now)
            .before("verdict", verdict.as_str())
            .after("verdict", posture.verdict.as_str())
            .after("revocation_epoch", posture.revocation_epoch)
            .why(Words(note));
        tx.record(entry);
        tx.commit().await?;
    }
    tracing::info!(device.id = device_id.as_str(), changed, "restored");
    Ok(Some(Changed {
        device_id: device_id.clone(),
        changed,
        revocation_epoch: posture.revocation_epoch,
        identities: 0,
        verdict: posture.verdict,
    }))
}

async fn believed(
    tx: &mut Write,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<Posture, Failure> {
    let known = tx.posture(device_id).await?;
    Ok(known.unwrap_or_else(|| Posture::unknown(device_id.clone(), now)))
}

async fn keep(
    tx: &mut Write,
    enrollment: &Enrollment,
    posture: &mut Posture,
    policy: &Policy,
    now: Timestamp,
) -> Result<(), Failure> {
    let previous = posture.verdict;
    let identity = tx.identity(enrollment.identity).await?;
    let appraisal = posture.relate(relation(enrollment, identity.as_ref()), policy, now);
    tx.save_posture(posture).await?;
    let event = Event::new(
        event::POSTURE_CHANGED,
        now,
        event::posture_changed(posture, previous, &appraisal.reasons),
    );
    Ok(tx.append_event(&enrollment.device_id, &event).await?)
}

async fn tell(
    tx: &mut Write,
    device_id: &DeviceId,
    name: &str,
    note: &str,
    posture: &Posture,
    now: Timestamp,
) -> Result<(), Failure> {
    let event = Event::new(
        name,
        now,
        event::revocation(device_id, posture.revocation_epoch, note),
    );
    Ok(tx.append_event(device_id, &event).await?)
}
