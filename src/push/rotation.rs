//! The life of a push certificate: *staged*, tried as *canary*, *active*, *retired*; what may follow what.
//!
//! A fleet is the Macs of one topic. The topic stands in every profile and can never change there
//! (apple-protocol 9.4), so a certificate for another one serves none of the Macs that are enrolled.

use crate::ids::{CertificateHash, DeviceId, PushCertificateId, Topic};
use crate::push::PushCertificate;
use crate::push::canary::{Canary, Progress};
use crate::time::Timestamp;

/// Where a push certificate is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Checked and kept; nothing is pushed with it.
    Staged,
    /// Chosen Macs are pushed with it, and no others.
    Canary,
    /// All Macs of its topic are pushed with it.
    Active,
    /// Another took its place.
    Retired,
}

impl Standing {
    const ALL: [Self; 4] = [Self::Staged, Self::Canary, Self::Active, Self::Retired];

    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Canary => "canary",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|standing| standing.as_str() == word)
    }
}

/// A push certificate this service has, without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub push_certificate_id: PushCertificateId,
    pub topic: Topic,
    pub standing: Standing,
    pub sha256: CertificateHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub installed_at: Timestamp,
    pub retired_at: Option<Timestamp>,
}

/// Why a certificate is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misplaced {
    /// This very certificate is here already.
    Known(PushCertificateId, Standing),
    /// The one in use is valid for as long, or longer.
    NoLonger(Timestamp),
    /// It is for none of the fleets there are.
    OtherTopic(Vec<Topic>),
    /// It was said to begin a new fleet, and its topic is not new.
    NotNew,
}

/// Where a certificate that is acceptable by itself begins its life: the first of its topic is active
/// at once, because no Mac could try it; any other is staged. `new_fleet`: the operator means a topic
/// to begin that no Mac is enrolled under.
///
/// # Errors
/// [`Misplaced`].
pub fn place(
    candidate: &PushCertificate,
    held: &[Held],
    new_fleet: bool,
) -> Result<Standing, Misplaced> {
    let hash = candidate.hash();
    if let Some(known) = held.iter().find(|one| one.sha256 == hash) {
        let id = known.push_certificate_id.clone();
        return Err(Misplaced::Known(id, known.standing));
    }
    let fleets = fleets(held);
    if fleets.contains(&candidate.topic()) {
        if new_fleet {
            return Err(Misplaced::NotNew);
        }
        return match active(candidate.topic(), held) {
            Some(active) if active.not_after >= candidate.not_after() => {
                Err(Misplaced::NoLonger(active.not_after))
            }
            _ => Ok(Standing::Staged),
        };
    }
    if fleets.is_empty() || new_fleet {
        return Ok(Standing::Active);
    }
    Err(Misplaced::OtherTopic(fleets.into_iter().cloned().collect()))
}

/// Why a certificate is not tried by chosen Macs, or not taken into use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// It is in use.
    Active,
    /// Another took its place: rolling back brings it back, and nothing else does.
    Retired,
    /// The one in use is valid for as long, or longer.
    NoLonger(Timestamp),
    /// No Mac has tried it.
    NotTried,
    /// These Macs have not connected since they were pushed with it, or could not be pushed.
    NotCome(Vec<DeviceId>),
}

/// Whether a certificate may be tried by chosen Macs.
///
/// # Errors
/// [`NotReady::Active`], [`NotReady::Retired`].
pub fn may_be_tried(one: &Held) -> Result<(), NotReady> {
    match one.standing {
        Standing::Staged | Standing::Canary => Ok(()),
        Standing::Active => Err(NotReady::Active),
        Standing::Retired => Err(NotReady::Retired),
    }
}

/// Whether a certificate may take the place of the active one of its topic. Every Mac that was chosen
/// must have come, unless the operator takes it upon himself (`untried`).
///
/// # Errors
/// [`NotReady`].
pub fn may_be_activated(
    one: &Held,
    held: &[Held],
    canaries: &[Canary],
    untried: bool,
) -> Result<(), NotReady> {
    may_be_tried(one)?;
    if let Some(active) = active(&one.topic, held)
        && active.not_after >= one.not_after
    {
        return Err(NotReady::NoLonger(active.not_after));
    }
    if untried {
        return Ok(());
    }
    if canaries.is_empty() {
        return Err(NotReady::NotTried);
    }
    let missing: Vec<_> = canaries
        .iter()
        .filter(|canary| !matches!(canary.progress(), Progress::Came(_)))
        .map(|canary| canary.device_id.clone())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(NotReady::NotCome(missing))
    }
}

/// Whether a certificate may be thrown away with its key: one that Macs are pushed with may not, nor one that a
/// roll-back would bring back.
///
/// # Errors
/// Where it is in its life.
pub fn may_be_discarded(one: &Held) -> Result<(), Standing> {
    match one.standing {
        Standing::Staged | Standing::Canary => Ok(()),
        standing @ (Standing::Active | Standing::Retired) => Err(standing),
    }
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWayBack {
    /// No certificate of this topic is in use.
    NothingActive,
    /// The one in use was the first of its topic.
    NoFormer,
    /// The former one expired, at this time.
    Expired(Timestamp),
}

/// What a roll-back changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayBack<'a> {
    /// In use now; staged afterwards, and to be tried anew.
    pub newer: &'a Held,
    /// In use afterwards.
    pub former: &'a Held,
}

/// The way back to the certificate that was in use before.
///
/// # Errors
/// [`NoWayBack`].
pub fn way_back<'a>(
    topic: &Topic,
    held: &'a [Held],
    now: Timestamp,
) -> Result<WayBack<'a>, NoWayBack> {
    let newer = active(topic, held).ok_or(NoWayBack::NothingActive)?;
    let former = held
        .iter()
        .filter(|one| one.topic == *topic && one.standing == Standing::Retired)
        .max_by_key(|one| (one.retired_at, one.installed_at))
        .ok_or(NoWayBack::NoFormer)?;
    if former.not_after < now {
        return Err(NoWayBack::Expired(former.not_after));
    }
    Ok(WayBack { newer, former })
}

/// The certificate in use for a topic.
pub fn active<'a>(topic: &Topic, held: &'a [Held]) -> Option<&'a Held> {
    held.iter()
        .find(|one| one.standing == Standing::Active && one.topic == *topic)
}

/// Under which topic Macs enrol: that of the fleet that was begun last. A renewal in an older fleet
/// changes nothing about it.
pub fn enrolling(held: &[Held]) -> Option<&Topic> {
    let begun = |topic: &Topic| {
        let of_it = held.iter().filter(|one| one.topic == *topic);
        of_it
            .map(|one| (one.installed_at, &one.push_certificate_id))
            .min()
    };
    held.iter()
        .filter(|one| one.standing == Standing::Active)
        .map(|one| &one.topic)
        .max_by_key(|topic| begun(topic))
}

/// Every topic that has a certificate, each once.
fn fleets(held: &[Held]) -> Vec<&Topic> {
    let mut topics: Vec<_> = held.iter().map(|one| &one.topic).collect();
    topics.sort();
    topics.dedup();
    topics
}

#[cfg(test)]
#[path = "rotation_test.rs"]
mod tests;
