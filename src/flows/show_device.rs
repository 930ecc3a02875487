//! An operator asks what the matter is with a Mac: all that is known of it, in one answer.

use super::Failure;
use super::follow_progress::progress_of;
use super::read_binding::look_at_mac;
use super::read_posture::{describe, judge_by};
use crate::attestation::Anchor;
use crate::enrollment::{Enrollment, Identity};
use crate::ids::DeviceId;
use crate::posture::policy::Policy;
use crate::publication::binding_v1::Standing;
use crate::publication::device_v1::DeviceV1;
use crate::publication::posture_v1::PostureV1;
use crate::publication::progress_v1::ProgressV1;
use crate::publication::story_v1::{PushesV1, StoryV1, WhyV1, asks, who_acts};
use crate::publication::verification_v1::VerificationV1;
use crate::store::{MacGlance, Read, Store};
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{Agenda, Verification};

/// By what a reader judges that has no server around it.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub store: &'a Store,
    pub policy: &'a Policy,
    pub anchor: Anchor,
    pub rules: &'a Rules,
    pub now: Timestamp,
}

/// All that is known of a Mac.
#[derive(Debug)]
pub struct Story {
    enrollment: Enrollment,
    identity: Option<Identity>,
    last_seen: Option<Timestamp>,
    mac: MacGlance,
    posture: PostureV1,
    /// `None`: it came in without a ticket.
    steps: Option<ProgressV1>,
    /// The latest attempt.
    attempt: Option<(Verification, VerificationV1)>,
    agenda: Option<Agenda>,
}

/// Reads it in one state of the database; `None` when there is no such Mac.
pub async fn show_device(by: &By<'_>, device_id: &DeviceId) -> Result<Option<Story>, Failure> {
    let tx = by.store.read().await?;
    let Some(enrollment) = tx.enrollment(device_id).await? else {
        return Ok(None);
    };
    let (mac, posture) = judged(&tx, device_id, by).await?;
    let ticket = match &enrollment.ticket_id {
        Some(ticket_id) => tx.ticket(ticket_id).await?,
        None => None,
    };
    let steps = match &ticket {
        Some(ticket) => Some(progress_of(&tx, ticket, by.now).await?),
        None => None,
    };
    let attempt = match tx.verifications_of(device_id, 1).await?.pop() {
        Some(verification) => {
            let described = describe(&tx, &verification).await?;
            Some((verification, described))
        }
        None => None,
    };
    Ok(Some(Story {
        identity: tx.identity(enrollment.identity).await?,
        last_seen: tx.last_seen(device_id).await?,
        agenda: tx.agenda(device_id).await?,
        enrollment,
        mac,
        posture,
        steps,
        attempt,
    }))
}

/// A Mac that is there, and what is believed of it.
pub(super) async fn judged(
    tx: &Read,
    device_id: &DeviceId,
    by: &By<'_>,
) -> Result<(MacGlance, PostureV1), Failure> {
    let glance = look_at_mac(&mut tx.glimpse(), device_id, by.now).await?;
    let glance = glance.ok_or(Failure::Inconsistent("an enrollment that cannot be judged"))?;
    let posture = judge_by(by.policy, by.anchor, &glance, by.now);
    Ok((glance, posture))
}

impl Story {
    /// As others read it.
    pub fn publish<'a>(&'a self, by: &By<'a>) -> StoryV1<'a> {
        let By {
            policy, rules, now, ..
        } = *by;
        let identity = self.identity.as_ref();
        let open = self.attempt.as_ref().map(|(verification, _)| verification);
        let open = open.filter(|verification| !verification.is_finished());
        let asks = asks(self.agenda.as_ref(), open, rules);
        let sessions = self.mac.sessions.iter().map(|(session, release)| {
            let standing = Standing {
                session,
                mac: Some(&self.mac.mac),
                release: *release,
            };
            standing.publish(policy, now)
        });
        StoryV1 {
            evaluated_at: now,
            device: DeviceV1::new(&self.enrollment, identity, self.last_seen, now),
            posture: &self.posture,
            why: self
                .posture
                .reasons
                .iter()
                .copied()
                .map(WhyV1::from)
                .collect(),
            steps: self.steps.as_ref(),
            verification: self.attempt.as_ref().map(|(_, described)| described),
            sessions: sessions.collect(),
            pushes: PushesV1::new(self.agenda.as_ref(), rules, now),
            who_acts: who_acts(&self.posture, open, &asks),
            asks,
        }
    }
}
