//! Look-ups by a key on SQLite, on the thread that asks.
//!
//! Through the ORM a statement crosses to a thread of its pool and back, which costs ten times the
//! look-up. A reader of a write-ahead log waits for no writer, and a row that is found by its key is
//! a few pages, nearly always in memory: that is what may be asked for here, or a short stretch of an
//! index, and nothing that scans.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Params, Row};

use super::StoreError;
use super::database::sqlite_for_lookups;

pub(super) struct Lookup(Mutex<Connection>);

impl Lookup {
    pub(super) fn open(database: &Path) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(sqlite_for_lookups(database)?)))
    }

    /// The row a key leads to.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        key: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row(key, read).optional()?)
    }

    /// Some rows along an index, as many as the statement says: nobody else looks anything up
    /// meanwhile.
    pub(super) fn some<T>(
        &self,
        sql: &str,
        from: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare_cached(sql)?;
        let found = statement.query_map(from, read)?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}
