//! The only place that knows which kind of database it is: addresses, connections, locks.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction,
    IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};

use super::error::StoreError;

/// How long a statement waits for another process's write before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Pages of the writer thread in memory: room for the pages of a whole batch, which would be
/// written twice otherwise.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
/// The write-ahead log is copied into the file after this many pages (16 MiB): what is changed
/// often is then copied once for many changes.
const CHECKPOINT_PAGES: i64 = 4096;
/// Connections that read beside the one that writes (SQLite).
const READERS: u32 = 4;
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// A connection that was idle for longer is tested before it is used again: a test before every
/// use doubles the latency of a statement.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);

/// Any fixed number of our own.
pub(super) const SCHEMA_LOCK: i64 = 0x6174_7465_7374_6401;

/// The kinds of database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// The file.
    Sqlite(PathBuf),
    Postgres,
}

/// Connections to one database.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) backend: Backend,
    /// SQLite: exactly one connection.
    pub(super) write: DatabaseConnection,
    pub(super) read: DatabaseConnection,
}

impl Backend {
    /// Reads a database address.
    pub(super) fn of(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres);
        }
        let path = url
            .strip_prefix("sqlite://")
            .filter(|path| !path.is_empty() && !path.contains(['?', '#']))
            .ok_or(StoreError::AddressMalformed)?;
        Ok(Self::Sqlite(PathBuf::from(path)))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres => "postgresql",
        }
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Begins a transaction that will write. On SQLite it takes the write lock at once: a
    /// transaction that read first and writes later fails instead of waiting when another process
    /// wrote in between.
    pub(super) async fn begin_write(
        &self,
        connection: &DatabaseConnection,
    ) -> Result<DatabaseTransaction, StoreError> {
        let options = TransactionOptions {
            sqlite_transaction_mode: self.is_sqlite().then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(connection.begin_with_options(options).await?)
    }

    /// Begins a transaction that sees one state of the database throughout.
    pub(super) async fn begin_read(
        &self,
        connection: &DatabaseConnection,
    ) -> Result<DatabaseTransaction, StoreError> {
        let options = match self {
            Self::Sqlite(_) => TransactionOptions::default(),
            Self::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                sqlite_transaction_mode: None,
            },
        };
        Ok(connection.begin_with_options(options).await?)
    }
}

impl Connections {
    /// Keeps other nodes from changing the schema until the transaction ends (PostgreSQL).
    pub(super) async fn alone_with_the_schema(
        &self,
    ) -> Result<Option<DatabaseTransaction>, StoreError> {
        if self.backend.is_sqlite() {
            return Ok(None);
        }
        let tx = self.backend.begin_write(&self.write).await?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            .await?;
        Ok(Some(tx))
    }
}

/// Opens the database behind an address. Its owner makes a SQLite file that is not there; anybody
/// else is told that there is none.
pub(super) async fn connect(url: &str, owner: bool) -> Result<Connections, StoreError> {
    let backend = Backend::of(url)?;
    let (write, read) = match &backend {
        Backend::Sqlite(path) => {
            let write = sqlite(path, 1, Use::Write { create: owner }).await?;
            // After the writer, so that the file exists and is in WAL mode.
            let read = sqlite(path, READERS, Use::Read).await?;
            (write, read)
        }
        Backend::Postgres => {
            let pool = postgres(url).await?;
            (pool.clone(), pool)
        }
    };
    Ok(Connections {
        backend,
        write,
        read,
    })
}

/// What connections to a SQLite file are for.
#[derive(Debug, Clone, Copy)]
enum Use {
    Write { create: bool },
    Read,
}

async fn sqlite(
    path: &Path,
    connections: u32,
    purpose: Use,
) -> Result<DatabaseConnection, StoreError> {
    let file = path.to_owned();
    // The address is only a carrier here: the file name is set below, because a name with a
    // question mark or a percent sign does not survive an address.
    let mut options = ConnectOptions::new("sqlite://file");
    options
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(move |sqlite| {
            let sqlite = sqlite
                .filename(&file)
                .create_if_missing(matches!(purpose, Use::Write { create: true }))
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .pragma("temp_store", "memory")
                .busy_timeout(BUSY_TIMEOUT);
            match purpose {
                Use::Write { .. } => sqlite,
                Use::Read => sqlite.pragma("query_only", "on"),
            }
        });
    Ok(Database::connect(options).await?)
}

async fn postgres(url: &str) -> Result<DatabaseConnection, StoreError> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(POSTGRES_CONNECTIONS)
        .min_connections(1)
        .acquire_timeout(BUSY_TIMEOUT)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false)
        .set_application_name("attestd");
    Ok(Database::connect(options).await?)
}

/// The connection of the writer thread.
pub(super) fn sqlite_for_the_writer(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    // Undo pages of savepoints stay in memory; spilled to a file they cost more than the writes.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.set_prepared_statement_cache_capacity(64);
    plan_once(&connection)?;
    Ok(connection)
}

/// A connection that finds rows by their keys.
pub(super) fn sqlite_for_lookups(path: &Path) -> Result<rusqlite::Connection, StoreError> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", "on")?;
    plan_once(&connection)?;
    Ok(connection)
}

/// A statement is planned whatever its values are. Otherwise one whose LIMIT is a value is compiled anew
/// for each (SQLite, "The Query Planner Stability Guarantee"), which costs more than the look-up.
fn plan_once(connection: &rusqlite::Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Serial numbers and postures are nobody else's business.
const PRIVATE: u32 = 0o600;

/// Takes the lock that keeps a second server off a SQLite database, and makes the file private.
pub(super) fn lock(database: &Path) -> Result<File, StoreError> {
    let lock = hold(database)?;
    // SQLite takes an empty file for a new database, and gives its mode to the log beside it. Left
    // to make the file itself, it would let everybody read.
    let made = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(PRIVATE)
        .open(database);
    made.map_err(StoreError::unavailable)?;
    Ok(lock)
}

/// Takes the lock, whether or not there is a database yet. The operating system gives it back when the
/// process ends, however it ends.
pub(super) fn hold(database: &Path) -> Result<File, StoreError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source: std::io::Error| StoreError::LockFile {
        path: path.display().to_string(),
        source: Arc::new(source),
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.display().to_string())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, DbBackend, Statement};

    use super::*;

    #[tokio::test]
    async fn every_writing_connection_survives_a_power_cut_and_checks_references() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("attestd.db");
        let orm = sqlite(&path, 1, Use::Write { create: true })
            .await
            .expect("opens");
        let own = sqlite_for_the_writer(&path).expect("opens");
        for (pragma, expected) in [("synchronous", 2), ("foreign_keys", 1)] {
            let sql = format!("PRAGMA {pragma}");
            let select = Statement::from_string(DbBackend::Sqlite, sql.as_str());
            let row = orm.query_one_raw(select).await.expect("answers");
            let set: i32 = row.expect("a row").try_get_by_index(0).expect("a number");
            assert_eq!(set, expected, "{pragma} of the ORM's connection");
            let set: i32 = own.query_row(&sql, [], |row| row.get(0)).expect("a number");
            assert_eq!(set, expected, "{pragma} of the writer thread's connection");
        }
        let mode: String = own
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .expect("a word");
        assert_eq!(mode, "wal");
    }

    #[test]
    fn addresses_are_told_apart() {
        let path = PathBuf::from("/var/lib/attestd/attestd.db");
        let sqlite = Backend::of("sqlite:///var/lib/attestd/attestd.db").expect("well formed");
        assert_eq!(sqlite, Backend::Sqlite(path));
        let postgres = Backend::of("postgres://attestd@db/attestd").expect("well formed");
        assert_eq!(postgres, Backend::Postgres);
    }
}
