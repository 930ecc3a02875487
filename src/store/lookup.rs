//! Look-ups by a key on SQLite, on the thread that asks.
//!
//! Through the ORM a statement crosses to a thread of its pool and back, which costs ten times the
//! look-up. A reader of a write-ahead log waits for no writer, and a row that is found by its key is
//! a few pages, nearly always in memory: that is what may be asked for here, or a short stretch of an
//! index, and nothing that scans.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Params, Row, params_from_iter};

use super::StoreError;
use super::database::sqlite_for_lookups;
use super::edit::Datum;
use super::exchange::sqlite::stopped;

/// Connections that are kept while nobody uses them: as many as there may be threads that ask.
const KEPT: usize = 16;

pub(super) struct Lookup {
    database: PathBuf,
    free: Mutex<Vec<Connection>>,
}

/// A connection within a transaction that reads. It is as if nothing changed until it is dropped.
pub(super) struct Snapshot<'a> {
    /// There until it is dropped.
    connection: Option<Connection>,
    lookup: &'a Lookup,
}

impl Lookup {
    pub(super) fn open(database: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            database: database.to_owned(),
            free: Mutex::new(vec![sqlite_for_lookups(database)?]),
        })
    }

    /// The row a key leads to.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        key: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row(key, read).optional()?)
        })
    }

    /// Some rows along an index, as many as the statement says.
    pub(super) fn some<T>(
        &self,
        sql: &str,
        from: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let found = statement.query_map(from, read)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// One state of the database for several look-ups.
    pub(super) fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        let connection = self.take()?;
        connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        Ok(Snapshot {
            connection: Some(connection),
            lookup: self,
        })
    }

    fn with<T>(
        &self,
        ask: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = self.take()?;
        let answer = ask(&connection);
        self.put_back(connection);
        answer
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let kept = self.free().pop();
        kept.map_or_else(|| sqlite_for_lookups(&self.database), Ok)
    }

    fn put_back(&self, connection: Connection) {
        let mut free = self.free();
        if free.len() < KEPT {
            free.push(connection);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot<'_> {
    /// The rows that these keys lead to.
    pub(super) fn rows<T>(
        &mut self,
        sql: &str,
        keys: &[Datum],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.connection.as_ref().ok_or_else(stopped)?;
        let mut statement = connection.prepare_cached(sql)?;
        let mut found = statement.query(params_from_iter(keys))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(read(row)?);
        }
        Ok(rows)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let ended = connection
            .prepare_cached("COMMIT")
            .and_then(|mut statement| statement.execute([]));
        // One whose transaction did not end is closed, which ends it.
        if ended.is_ok() {
            self.lookup.put_back(connection);
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
