//! What can go wrong with stored state. Not found is no error: it is `None`.

use std::error::Error;
use std::sync::Arc;

use sea_orm::{DbErr, SqlErr};

use crate::secret::Unsealable;

/// Why the store could not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or does not do what it must. Nothing was changed, unless it
    /// happened in a commit: then nobody knows, and asking again must be safe.
    #[error("the database cannot be used")]
    Unavailable(#[source] Cause),
    /// A row says something no code of this service ever wrote.
    #[error("row {id} of {table} cannot be understood")]
    Inconsistent { table: &'static str, id: String },
    /// A sealed value does not open: the master key is another one, or the row was changed.
    #[error("the secret in row {id} of {table} cannot be opened")]
    Unsealable {
        table: &'static str,
        id: String,
        #[source]
        source: Unsealable,
    },
    /// The change contradicts what is stored already: a name is taken, a reference leads nowhere,
    /// or somebody else was faster.
    #[error("the change contradicts what is stored")]
    Conflict,
    /// The database address is of no known form.
    #[error("a database address is sqlite:///path/to/file.db or postgres://user@host/name")]
    AddressMalformed,
    /// Another server has this SQLite database open.
    #[error("another server runs on this database (lock file {0})")]
    InUse(String),
    /// The lock file of a SQLite database cannot be made.
    #[error("the lock file {path} cannot be used")]
    LockFile {
        path: String,
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Only the server that holds a SQLite database exclusively may change what is about a Mac:
    /// it answers from memory and would not notice.
    #[error("a device was to be changed beside the server that owns this database")]
    NotTheOwner,
    /// The decision of an exchange panicked; nothing of it was kept.
    #[error("the decision of an exchange panicked")]
    DecisionPanicked,
}

/// The error below, kept for the log; cheap to hand to everybody who waited.
pub type Cause = Arc<dyn Error + Send + Sync>;

impl StoreError {
    /// The database failed in a way that says nothing about the change.
    pub(super) fn unavailable(cause: impl Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Arc::new(cause))
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(
                SqlErr::UniqueConstraintViolation(_) | SqlErr::ForeignKeyConstraintViolation(_),
            ) => Self::Conflict,
            _ => Self::unavailable(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => Self::Conflict,
            _ => Self::unavailable(error),
        }
    }
}

/// What a column should have held and did not: only ever our own fault, so it is an error below
/// [`StoreError::Unavailable`].
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be written as JSON")]
pub(super) struct Unwritable(
    pub(super) &'static str,
    #[source] pub(super) serde_json::Error,
);
