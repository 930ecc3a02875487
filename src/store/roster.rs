//! Who may speak, kept in memory by the one server that owns a SQLite database.
//!
//! An Idle from a Mac that owes nothing is answered from here without touching the database. The
//! roster is true because every write that touches a device renews its entry while the writer is
//! still held; an entry that cannot be renewed is dropped, and the database is asked instead.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

use sea_orm::{DatabaseConnection, FromQueryResult, Statement, Value};

use super::error::StoreError;
use super::row::{self, Row};
use crate::enrollment::{Identity, IdentityKind, State};
use crate::ids::{CertificateHash, DeviceId, TicketId, Udid};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A certificate this service issued, and for whom it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The current identity of an enrollment.
    Bound(Arc<Speaker>),
    /// Issued, but not the current identity of any Mac: not yet, or not any more.
    Issued(Box<Identity>),
}

/// The Mac a certificate speaks for, as far as routing a message needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    pub certificate: CertificateHash,
    pub device_id: DeviceId,
    pub udid: Udid,
    pub state: State,
    pub identity_kind: IdentityKind,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// When something is, or will be, owed to this Mac, or ripe to be asked; `None` when nothing is.
    pub owes_from: Option<Timestamp>,
    pub ticket_id: Option<TicketId>,
    /// The enrollment this one contends with.
    pub contends_with: Option<DeviceId>,
}

impl Speaker {
    /// Whether it may speak at `now` at all.
    ///
    /// # Refusals
    /// `revoked`, `identity_expired`.
    pub fn usable(&self, now: Timestamp) -> Result<(), Reason> {
        if self.revoked_at.is_some() {
            Err(Reason::Revoked)
        } else if now < self.not_before || now > self.not_after {
            Err(Reason::IdentityExpired)
        } else {
            Ok(())
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Roster(RwLock<Option<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    by_certificate: HashMap<CertificateHash, Arc<Speaker>>,
    by_device: HashMap<DeviceId, CertificateHash>,
}

impl Roster {
    /// Reads everybody.
    pub(super) async fn load(&self, connection: &DatabaseConnection) -> Result<(), StoreError> {
        let mut entries = Entries::default();
        for speaker in speakers(connection, "", []).await? {
            entries.put(speaker);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(entries);
        Ok(())
    }

    /// The Mac this certificate speaks for; `None` says only that the database must be asked.
    pub(super) fn find(&self, certificate: &CertificateHash) -> Option<Arc<Speaker>> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.as_ref()?.by_certificate.get(certificate).cloned()
    }

    /// Renews the entry of a device that a write touched.
    pub(super) async fn renew(&self, connection: &DatabaseConnection, device_id: &DeviceId) {
        let value = Value::from(device_id.as_str());
        let found = speakers(connection, "WHERE e.device_id = $1", [value]).await;
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = entries.as_mut() else {
            return;
        };
        entries.drop_device(device_id);
        match found {
            Ok(speakers) => speakers
                .into_iter()
                .for_each(|speaker| entries.put(speaker)),
            Err(error) => tracing::warn!(
                device.id = %device_id,
                %error,
                "a roster entry cannot be renewed; the database is asked until the next write"
            ),
        }
    }

    /// Notes what an exchange did to the debt towards a device: the only thing in an entry that an
    /// exchange can change.
    pub(super) fn owe(&self, device_id: &DeviceId, owes_from: Option<Timestamp>) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = entries.as_mut() else {
            return;
        };
        let Some(speaker) = entries
            .by_device
            .get(device_id)
            .and_then(|certificate| entries.by_certificate.get_mut(certificate))
        else {
            return;
        };
        if speaker.owes_from != owes_from {
            Arc::make_mut(speaker).owes_from = owes_from;
        }
    }
}

impl Entries {
    fn put(&mut self, speaker: Speaker) {
        self.by_device
            .insert(speaker.device_id.clone(), speaker.certificate);
        self.by_certificate
            .insert(speaker.certificate, Arc::new(speaker));
    }

    fn drop_device(&mut self, device_id: &DeviceId) {
        if let Some(certificate) = self.by_device.remove(device_id)
            // A contender's certificate may speak for the one it contended with by now.
            && let Entry::Occupied(entry) = self.by_certificate.entry(certificate)
            && entry.get().device_id == *device_id
        {
            entry.remove();
        }
    }
}

const SPEAKERS: &str = "SELECT i.certificate, i.kind, i.not_before, i.not_after, i.revoked_at, \
     e.device_id, e.udid, e.state, e.ticket_id, e.contends_with, a.owes_from \
     FROM identities i \
     JOIN enrollments e ON e.identity = i.certificate AND e.device_id = i.device_id \
     LEFT JOIN agendas a ON a.device_id = e.device_id ";

/// The Mac that a certificate speaks for, from the database, in one statement.
pub(super) async fn speaker_of(
    connection: &DatabaseConnection,
    certificate: &CertificateHash,
) -> Result<Option<Speaker>, StoreError> {
    let value = Value::from(certificate.as_bytes().to_vec());
    let found = speakers(connection, "WHERE i.certificate = $1", [value]).await?;
    Ok(found.into_iter().next())
}

async fn speakers<const N: usize>(
    connection: &DatabaseConnection,
    condition: &str,
    values: [Value; N],
) -> Result<Vec<Speaker>, StoreError> {
    let statement = Statement::from_sql_and_values(
        connection.get_database_backend(),
        format!("{SPEAKERS}{condition}"),
        values,
    );
    let rows = SpeakerRow::find_by_statement(statement)
        .all(connection)
        .await?;
    row::read_all(rows)
}

#[derive(FromQueryResult)]
struct SpeakerRow {
    certificate: Vec<u8>,
    kind: String,
    not_before: i64,
    not_after: i64,
    revoked_at: Option<i64>,
    device_id: String,
    udid: String,
    state: String,
    ticket_id: Option<String>,
    contends_with: Option<String>,
    owes_from: Option<i64>,
}

impl Row for SpeakerRow {
    type Noun = Speaker;
    const TABLE: &'static str = "enrollments";

    fn id(&self) -> String {
        self.device_id.clone()
    }

    fn noun(self) -> Option<Speaker> {
        Some(Speaker {
            certificate: CertificateHash::from_bytes(row::digest(&self.certificate)?),
            device_id: row::parsed(&self.device_id, DeviceId::parse)?,
            udid: row::parsed(&self.udid, Udid::parse)?,
            state: State::from_word(&self.state)?,
            identity_kind: IdentityKind::from_word(&self.kind)?,
            not_before: Timestamp::from_millis(self.not_before),
            not_after: Timestamp::from_millis(self.not_after),
            revoked_at: row::time(self.revoked_at),
            owes_from: row::time(self.owes_from),
            ticket_id: row::parsed_if_any(self.ticket_id.as_deref(), TicketId::parse)?,
            contends_with: row::parsed_if_any(self.contends_with.as_deref(), DeviceId::parse)?,
        })
    }
}
