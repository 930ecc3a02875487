//! The Macs that are due, to be woken or looked at.
//!
//! On SQLite one process owns the store, so that a walk only reads: who waits to be woken stands in
//! that process's queue. On PostgreSQL nodes share the Macs: whoever walks marks those it gets, past
//! the rows that somebody else is marking, and whoever dies after that is waited for as long as the
//! mark says, and no longer.

use rusqlite::params;
use sea_orm::{ConnectionTrait, DbBackend, Statement, Value};

use super::agendas::{LANES, lane, read};
use super::lookup::Lookup;
use super::{Inner, Read, Store, StoreError, row};
use crate::ids::DeviceId;
use crate::time::Timestamp;
use crate::verification::Agenda;
use crate::verification::agenda::budget::LEASE;

/// A Mac that is due.
#[derive(Debug, Clone)]
pub struct DueMac {
    pub device_id: DeviceId,
    /// `None`: it has none yet, one is made when the Mac is looked at.
    pub agenda: Option<Agenda>,
}

/// A walk along the Macs that are due, the most urgent first and among them those that wait the
/// longest.
#[derive(Debug)]
pub struct DueMacs<'a> {
    store: &'a Inner,
    now: Timestamp,
    lane: usize,
    /// The last row of this lane that was read: when it was due, and where it stands.
    after: (i64, i64),
}

/// The rest of those that are due since the same time: entries of one time stand in the order of their
/// rows. Apart from the later ones, because only so the index is entered where the walk has come to.
const SINCE_THEN: &str = "SELECT due_at, rowid, device_id, body FROM agendas \
     WHERE priority = $1 AND due_at = $2 AND rowid > $3 ORDER BY rowid LIMIT $4";

const SINCE_LATER: &str = "SELECT due_at, rowid, device_id, body FROM agendas \
     WHERE priority = $1 AND due_at > $2 AND due_at <= $3 ORDER BY due_at, rowid LIMIT $4";

const ON_POSTGRESQL: &str = "UPDATE agendas SET due_at = $1 WHERE device_id IN \
     (SELECT device_id FROM agendas WHERE priority = $2 AND due_at <= $3 ORDER BY due_at LIMIT $4 \
     FOR UPDATE SKIP LOCKED) RETURNING device_id, body";

impl Store {
    /// A walk along the Macs that are due at `now`.
    pub fn due(&self, now: Timestamp) -> DueMacs<'_> {
        DueMacs {
            store: &self.0,
            now,
            lane: 0,
            after: FIRST,
        }
    }
}

impl Read {
    /// How many Macs enrolled before `time` and are to be asked now or later; counting ends at `limit`.
    pub async fn awaited_since(&self, time: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT COUNT(*) FROM (SELECT 1 FROM agendas a \
             JOIN enrollments e ON e.device_id = a.device_id \
             WHERE a.due_at IS NOT NULL AND e.authenticated_at < $1 LIMIT $2) AS awaited",
            [
                Value::from(time.millis()),
                row::counted(row::limited(limit)).into(),
            ],
        );
        let found = self.tx().query_one_raw(statement).await?;
        let count: i64 = match found {
            Some(row) => row.try_get_by_index(0)?,
            None => 0,
        };
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

/// Rows that are read at once: as long others wait for a look-up.
const PAGE: i64 = 256;

/// Before every row.
const FIRST: (i64, i64) = (i64::MIN, i64::MIN);

impl DueMacs<'_> {
    /// The next of them, `limit` at most, but for those that are known to be; empty at the end. On
    /// PostgreSQL nobody else gets them for [`LEASE`].
    ///
    /// # Errors
    /// When the database does not answer, or an agenda cannot be read.
    pub async fn next(
        &mut self,
        limit: usize,
        is_known: impl Fn(&DeviceId) -> bool,
    ) -> Result<Vec<DueMac>, StoreError> {
        while let Some(priority) = LANES.get(self.lane).filter(|_| limit > 0) {
            let lane = lane(*priority);
            let inner = self.store;
            let found = match &inner.lookup {
                Some(lookup) => self.along_the_index(lookup, lane, limit, &is_known)?,
                None if inner.connections.backend.is_sqlite() => {
                    return Err(StoreError::NotTheOwner);
                }
                None => self.take(lane, limit).await?,
            };
            if !found.is_empty() {
                return Ok(found);
            }
            self.lane += 1;
            self.after = FIRST;
        }
        Ok(Vec::new())
    }

    fn along_the_index(
        &mut self,
        lookup: &Lookup,
        lane: i64,
        limit: usize,
        is_known: &impl Fn(&DeviceId) -> bool,
    ) -> Result<Vec<DueMac>, StoreError> {
        let mut macs = Vec::new();
        while macs.len() < limit {
            let page = self.page(lookup, lane)?;
            if page.is_empty() {
                break;
            }
            for (place, device_id, body) in page {
                if macs.len() == limit {
                    break;
                }
                self.after = place;
                let device_id = known_as(&device_id)?;
                if !is_known(&device_id) {
                    macs.push(due_mac(device_id, body.as_deref())?);
                }
            }
        }
        Ok(macs)
    }

    fn page(&self, lookup: &Lookup, lane: i64) -> Result<Vec<Found>, StoreError> {
        let (due_at, row) = self.after;
        let mut found = Vec::new();
        if self.after != FIRST {
            found = lookup.some(SINCE_THEN, params![lane, due_at, row, PAGE], place)?;
        }
        if found.is_empty() {
            let later = params![lane, due_at, self.now.millis(), PAGE];
            found = lookup.some(SINCE_LATER, later, place)?;
        }
        Ok(found)
    }

    /// A commit of its own.
    async fn take(&self, lane: i64, limit: usize) -> Result<Vec<DueMac>, StoreError> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            ON_POSTGRESQL,
            [
                Value::from(self.now.plus(LEASE).millis()),
                lane.into(),
                self.now.millis().into(),
                row::counted(row::limited(limit)).into(),
            ],
        );
        let connections = &self.store.connections;
        let mut taken = Vec::new();
        for found in connections.write.query_all_raw(statement).await? {
            let device_id: String = found.try_get_by_index(0)?;
            let body: Option<String> = found.try_get_by_index(1)?;
            taken.push(due_mac(known_as(&device_id)?, body.as_deref())?);
        }
        Ok(taken)
    }
}

/// Where a row stands in the index, and what is in it.
type Found = ((i64, i64), String, Option<String>);

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    Ok(((row.get(0)?, row.get(1)?), row.get(2)?, row.get(3)?))
}

fn known_as(device_id: &str) -> Result<DeviceId, StoreError> {
    DeviceId::parse(device_id).map_err(|_| StoreError::Inconsistent {
        table: "agendas",
        id: device_id.to_owned(),
    })
}

fn due_mac(device_id: DeviceId, body: Option<&str>) -> Result<DueMac, StoreError> {
    let agenda = body.map(|body| read(&device_id, body)).transpose()?;
    Ok(DueMac { device_id, agenda })
}
