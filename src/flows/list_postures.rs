//! A coordinator lists what is believed of every Mac, page by page, and knows from which event on to
//! follow so that nothing is missed.

use super::read_posture::read_posture;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::DeviceId;
use crate::publication::posture_v1::PostureV1;

/// Most postures in one answer.
pub const MOST: usize = 500;

/// One page.
#[derive(Debug)]
pub struct Listing {
    /// With the first page: every event after this one tells of a change that the pages may not show,
    /// and every earlier change is in them.
    pub cursor: Option<i64>,
    pub postures: Vec<PostureV1>,
    /// The Mac after which the next page begins; `None` on the last one.
    pub next: Option<DeviceId>,
}

/// Lists at most `limit` Macs after `after`, in the order of their ids, each as of now.
///
/// # Errors
/// Also while the clock is not believed.
pub async fn list_postures(
    ctx: &Context,
    after: Option<&DeviceId>,
    limit: usize,
) -> Result<Listing, Failure> {
    demand(ctx)?;
    // The cursor first: what changes from here on is told again, rather than not at all.
    let cursor = match after {
        None => Some(ctx.store.settled_event().await?),
        Some(_) => None,
    };
    // And then memory, which another node's commits reach a moment later than the outbox.
    ctx.store.follow_changes().await?;
    let limit = limit.clamp(1, MOST);
    let devices = ctx.store.read().await?.posture_ids(after, limit).await?;
    let mut postures = Vec::with_capacity(devices.len());
    for device_id in &devices {
        postures.extend(Box::pin(read_posture(ctx, device_id)).await?);
    }
    let next = devices.into_iter().nth(limit - 1);
    Ok(Listing {
        cursor,
        postures,
        next,
    })
}
