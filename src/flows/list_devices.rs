//! An operator looks for Macs: page by page, each as of now.

use std::collections::HashSet;

use super::Failure;
use super::check_policy::subjects;
use super::show_device::{By, judged};
use crate::enrollment::{Enrollment, Identity};
use crate::ids::DeviceId;
use crate::posture::Verdict;
use crate::posture::appraisal::appraise;
use crate::publication::device_v1::{DeviceLineV1, DeviceV1};
use crate::publication::posture_v1::PostureV1;
use crate::store::{Read, Sieve};
use crate::time::Timestamp;

/// Most Macs in one page.
pub const MOST: usize = 500;

/// Macs read at a time while those of a verdict are looked for.
const AT_A_TIME: usize = 500;

/// One Mac of a page.
#[derive(Debug)]
pub struct Listed {
    pub enrollment: Enrollment,
    pub identity: Option<Identity>,
    pub last_seen: Option<Timestamp>,
    pub posture: PostureV1,
}

/// One page.
#[derive(Debug)]
pub struct Page {
    pub devices: Vec<Listed>,
    /// The Mac after which the next page begins; `None` on the last one.
    pub next: Option<DeviceId>,
}

impl Listed {
    /// As others read it.
    pub fn publish(&self, now: Timestamp) -> DeviceLineV1<'_> {
        let identity = self.identity.as_ref();
        DeviceLineV1 {
            device: DeviceV1::new(&self.enrollment, identity, self.last_seen, now),
            verdict: self.posture.verdict,
            trust_level: self.posture.trust_level,
            usable_until: self.posture.usable_until,
            reasons: &self.posture.reasons,
        }
    }
}

/// Lists at most `limit` Macs after `after` that pass the sieve, in the order of their ids. A verdict ends
/// by time alone, so those of one verdict are found by judging: many at a time, with a memory that stays
/// flat, and only as far as the page needs.
pub async fn list_devices(
    by: &By<'_>,
    sieve: &Sieve,
    verdict: Option<Verdict>,
    after: Option<&DeviceId>,
    limit: usize,
) -> Result<Page, Failure> {
    let limit = limit.clamp(1, MOST);
    let mut devices = Vec::new();
    let mut after = after.cloned();
    loop {
        // Each time a state of its own: the store is free between two.
        let tx = by.store.read().await?;
        let wanted = match verdict {
            // One more, to know whether there is a next page.
            None => limit + 1,
            Some(_) => AT_A_TIME,
        };
        let found = tx.enrollments_like(sieve, after.as_ref(), wanted).await?;
        let is_last = found.len() < wanted;
        let Some(last) = found.last().map(|last| last.device_id.clone()) else {
            return Ok(Page {
                devices,
                next: None,
            });
        };
        let found = match verdict {
            None => found,
            Some(verdict) => those_of(&tx, found, verdict, by).await?,
        };
        for enrollment in found {
            if devices.len() == limit {
                let next = devices.last().map(|last: &Listed| &last.enrollment);
                let next = next.map(|last| last.device_id.clone());
                return Ok(Page { devices, next });
            }
            devices.push(listed(&tx, enrollment, by).await?);
        }
        if is_last {
            return Ok(Page {
                devices,
                next: None,
            });
        }
        after = Some(last);
    }
}

/// Those of this verdict.
async fn those_of(
    tx: &Read,
    enrollments: Vec<Enrollment>,
    verdict: Verdict,
    by: &By<'_>,
) -> Result<Vec<Enrollment>, Failure> {
    let subjects = subjects(tx, enrollments.clone(), by.now).await?;
    let of_it: HashSet<_> = subjects
        .into_iter()
        .filter(|subject| {
            let mac = subject.mac.at(by.now);
            appraise(mac.posture, by.policy, mac.circumstances).verdict == verdict
        })
        .map(|subject| subject.mac.device_id)
        .collect();
    Ok(enrollments
        .into_iter()
        .filter(|enrollment| of_it.contains(&enrollment.device_id))
        .collect())
}

async fn listed(tx: &Read, enrollment: Enrollment, by: &By<'_>) -> Result<Listed, Failure> {
    let (_, posture) = judged(tx, &enrollment.device_id, by).await?;
    Ok(Listed {
        identity: tx.identity(enrollment.identity).await?,
        last_seen: tx.last_seen(&enrollment.device_id).await?,
        enrollment,
        posture,
    })
}
