//! What is believed is read: by device, or the attempt under way.

use std::time::Duration;

use super::{Context, Failure};
use crate::enrollment::{Enrollment, Identity, State};
use crate::ids::{DeviceId, SerialNumber, Udid, VerificationId};
use crate::posture::Posture;
use crate::publication::posture_v1::{PostureV1, Sources};
use crate::publication::verification_v1::VerificationV1;
use crate::reason::Reason;
use crate::store::Read;
use crate::time::Timestamp;
use crate::verification::Verification;

/// Whoever waits looks again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A Mac as looked up.
#[derive(Debug)]
pub struct Found {
    pub enrollment: Enrollment,
    pub identity: Option<Identity>,
    pub last_seen: Option<Timestamp>,
}

/// How a Mac is named in a look-up.
#[derive(Debug, Clone)]
pub enum Name {
    Serial(SerialNumber),
    Udid(Udid),
    Device(DeviceId),
}

/// The Macs of that name; empty when there is none.
pub async fn find(ctx: &Context, name: &Name) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let tx = ctx.store.read().await?;
    let enrollments = match name {
        Name::Serial(serial) => tx.enrollments_by_serial(serial).await?,
        Name::Udid(udid) => tx.enrollment_by_udid(udid).await?.into_iter().collect(),
        Name::Device(device_id) => tx.enrollment(device_id).await?.into_iter().collect(),
    };
    for enrollment in enrollments {
        let identity = tx.identity(enrollment.identity).await?;
        let last_seen = tx.last_seen(&enrollment.device_id).await?;
        found.push(Found { enrollment, identity, last_seen });
    }
    Ok(found)
}

/// The posture of a Mac as of now.
pub async fn read_posture(ctx: &Context, device_id: &DeviceId) -> Result<Option<PostureV1>, Failure> {
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let Some(enrollment) = tx.enrollment(device_id).await? else { return Ok(None) };
    let posture = match tx.posture(device_id).await? {
        Some(posture) => posture,
        None => Posture::unknown(device_id.clone(), now),
    };
    let last = tx.verifications_of(device_id, 1).await?.pop();
    let attempt = match (&enrollment.state, &last) {
        (State::Enrolled, Some(verification)) => reasons(&tx, verification).await?,
        _ => Vec::new(),
    };
    Ok(Some(PostureV1::new(&Sources {
        enrollment: &enrollment,
        posture: &posture,
        policy: &ctx.policy,
        anchor: ctx.anchors.kind(),
        attempt: &attempt,
        now,
    })))
}

/// An attempt as of now.
pub async fn read_verification(
    ctx: &Context,
    verification_id: &VerificationId,
) -> Result<Option<VerificationV1>, Failure> {
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let Some(verification) = tx.verification(verification_id).await? else { return Ok(None) };
    let attempt = reasons(&tx, &verification).await?;
    drop(tx);
    let posture = read_posture(ctx, &verification.device_id).await?;
    let verdict = posture.map_or(Posture::unknown(verification.device_id.clone(), now).verdict, |p| {
        p.verdict
    });
    Ok(Some(VerificationV1::new(&verification, &attempt, verdict)))
}

/// An attempt once it has ended, or as it is after `wait`.
pub async fn await_verification(
    ctx: &Context,
    verification_id: &VerificationId,
    wait: Duration,
) -> Result<Option<VerificationV1>, Failure> {
    let Some(verification) = read_verification(ctx, verification_id).await? else {
        return Ok(None);
    };
    let mut watch = ctx.store.watch(&verification.device_id);
    let waiting = async {
        loop {
            let verification = read_verification(ctx, verification_id).await?;
            if verification.as_ref().is_none_or(|v| v.finished_at.is_some()) {
                return Ok::<_, Failure>(verification);
            }
            // A change made by another node is not announced here.
            let _ = tokio::time::timeout(LOOK_AGAIN, watch.changed()).await;
        }
    };
    match tokio::time::timeout(wait, waiting).await {
        Ok(ended) => ended,
        Err(_) => read_verification(ctx, verification_id).await,
    }
}

/// Why an attempt has not brought everything: what was refused in the Mac's name since it began,
/// then what the attempt itself knows.
async fn reasons(tx: &Read, verification: &Verification) -> Result<Vec<Reason>, Failure> {
    let refusals = tx.refusals_of(&verification.device_id, verification.created_at, 8).await?;
    let mut reasons: Vec<Reason> = Vec::new();
    // Oldest first: the cause stands in front.
    let refused = refusals.iter().rev().map(|refusal| refusal.reason);
    for reason in refused.chain(verification.reasons()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    Ok(reasons)
}
