//! The Macs of a server that this one replaces are adopted: all of a file, or none.

use std::time::Duration;

use super::Failure;
use super::verify_now::first_attempt;
use crate::audit::{Entry, Verb, Who, Words};
use crate::enrollment::fleet::{Adoptee, Fault, named_twice};
use crate::enrollment::profile::Constants;
use crate::entropy::Entropy;
use crate::ids::{DeviceId, sha256};
use crate::posture::Posture;
use crate::publication::event;
use crate::store::{Event, Read, Store};
use crate::time::Timestamp;

/// How long an adopted Mac may take to answer for the first time: it may be asleep, and nothing
/// makes it come by itself.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What importing needs besides the file.
#[derive(Debug)]
pub struct Import<'a> {
    pub store: &'a Store,
    pub entropy: &'a dyn Entropy,
    /// What this server's profiles say, which the adopted Macs' profiles must say, too.
    pub profiles: &'a Constants,
    /// How long the first attestation waits for a provider key to name.
    pub attestation_hold: Duration,
    pub who: &'a Who,
    pub now: Timestamp,
}

/// What came of a file.
#[derive(Debug)]
pub struct Imported {
    pub lines: Vec<(usize, Outcome)>,
    /// Something was written: no line was refused, and it was no rehearsal.
    pub written: bool,
}

/// What comes of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The Mac is adopted, or would be.
    Adopted(DeviceId),
    /// It was adopted before, with this very identity; what it said since stands.
    Known(DeviceId),
    Refused(Vec<Fault>),
}

impl Imported {
    /// Whether every line can be taken.
    pub fn is_good(&self) -> bool {
        self.lines
            .iter()
            .all(|(_, outcome)| !matches!(outcome, Outcome::Refused(_)))
    }
}

/// Checks every line of a file, empty ones passed over, and then adopts all of them, or nobody. A
/// rehearsal writes nothing.
///
/// # Errors
/// What keeps the store from working; faults of lines are in the answer.
pub async fn import_fleet(
    import: &Import<'_>,
    file: &str,
    rehearsal: bool,
) -> Result<Imported, Failure> {
    let mut faults: Vec<(usize, Fault)> = Vec::new();
    let mut adoptees: Vec<(usize, Adoptee)> = Vec::new();
    for (index, line) in file.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match Adoptee::read(line, import.profiles, import.now) {
            Ok(adoptee) => adoptees.push((index + 1, adoptee)),
            Err(fault) => faults.push((index + 1, fault)),
        }
    }
    faults.extend(named_twice(&adoptees));

    let mut tx = import.store.write().await?;
    let mut lines: Vec<(usize, Outcome)> = Vec::new();
    let mut new: Vec<(DeviceId, Adoptee)> = Vec::new();
    for (line, adoptee) in adoptees {
        match known(&tx, &adoptee).await? {
            Ok(Some(device_id)) => lines.push((line, Outcome::Known(device_id))),
            Ok(None) => {
                let device_id = DeviceId::new(import.now, import.entropy);
                lines.push((line, Outcome::Adopted(device_id.clone())));
                new.push((device_id, adoptee));
            }
            Err(fault) => faults.push((line, fault)),
        }
    }
    for (line, fault) in faults {
        let at = lines.iter().position(|(number, _)| *number == line);
        match at.map(|at| &mut lines[at].1) {
            Some(Outcome::Refused(known)) => known.push(fault),
            Some(other) => *other = Outcome::Refused(vec![fault]),
            None => lines.push((line, Outcome::Refused(vec![fault]))),
        }
    }
    lines.sort_by_key(|(line, _)| *line);
    let mut imported = Imported {
        lines,
        written: false,
    };
    if rehearsal || new.is_empty() || !imported.is_good() {
        return Ok(imported);
    }
    let adopted = new.len();
    for (device_id, adoptee) in new {
        tx.insert_identity(&adoptee.identity(&device_id, import.now))
            .await?;
        tx.save_enrollment(&adoptee.enrollment(device_id.clone(), import.now))
            .await?;
        tx.save_posture(&Posture::unknown(device_id.clone(), import.now))
            .await?;
        let first = first_attempt(
            &device_id,
            import.attestation_hold,
            PATIENCE,
            import.entropy,
            import.now,
        );
        tx.save_verification(&first).await?;
        let event = Event::new(
            event::DEVICE_ENROLLED,
            import.now,
            event::device(&device_id),
        );
        tx.append_event(&device_id, &event).await?;
    }
    let entry = Entry::new(import.who, Verb::FleetImport, "fleet", import.now)
        .after("macs", adopted)
        .after("file_sha256", Words(&hex::encode(sha256(file.as_bytes()))));
    tx.record(entry);
    tx.commit().await?;
    imported.written = true;
    Ok(imported)
}

/// Whether the Mac was adopted before, or why it cannot be.
async fn known(tx: &Read, adoptee: &Adoptee) -> Result<Result<Option<DeviceId>, Fault>, Failure> {
    let certificate = adoptee.certificate();
    if let Some(enrollment) = tx.enrollment_by_udid(&adoptee.udid).await? {
        // Once adopted it may have renewed its identity since.
        let own = tx.identities_of(&enrollment.device_id).await?;
        let is_own = own
            .iter()
            .any(|identity| identity.certificate == certificate);
        return Ok(if is_own {
            Ok(Some(enrollment.device_id))
        } else {
            Err(Fault::Enrolled(enrollment.device_id))
        });
    }
    if tx.identity(certificate).await?.is_some() {
        return Ok(Err(Fault::Taken));
    }
    if let Some(serial) = &adoptee.serial
        && let Some(holder) = tx.holder(serial).await?
    {
        return Ok(Err(Fault::Held(holder.device_id)));
    }
    if tx.active_push_certificate(&adoptee.topic).await?.is_none() {
        return Ok(Err(Fault::Topic(adoptee.topic.clone())));
    }
    Ok(Ok(None))
}
