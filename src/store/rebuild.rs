//! A database is built anew from what a backup holds: whole, or not at all.
//!
//! On SQLite it is built beside its place, under a name of its own, and moved there when it is complete.
//! On PostgreSQL everything, the tables included, is one transaction.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use migrations::{Migrator, MigratorTrait as _};
use sea_orm::{ConnectionTrait as _, Statement};

use super::catalog::{self, Column, ColumnKind};
use super::database::{self, Backend, SCHEMA_LOCK};
use super::{Store, StoreError, Write};
use crate::backup::{Table, Value};
use crate::secret::Sealer;

/// Values in one statement: SQLite takes 32,766, PostgreSQL twice as many.
const VALUES_AT_ONCE: usize = 30_000;
/// What a database that is being built is called, after its name.
const UNFINISHED: &str = ".restoring";

/// A database that is being built.
#[derive(Debug)]
pub struct Rebuild {
    store: Store,
    tx: Write,
    place: Option<Place>,
    columns: Vec<Vec<Column>>,
    tables: Vec<Table>,
}

/// Where a SQLite database will stand.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    unfinished: PathBuf,
    /// No server starts there meanwhile.
    _lock: File,
}

/// A database that is complete but for the last word.
#[derive(Debug)]
pub struct Rebuilt {
    store: Store,
    tx: Write,
    place: Option<Place>,
}

/// What stands where a database is to be built: tables, and how many rows they have. None where there is
/// nothing.
///
/// # Errors
/// `AddressMalformed`, `Unavailable`.
pub async fn occupants(
    url: &str,
    sealer: Arc<dyn Sealer>,
) -> Result<Vec<(String, u64)>, StoreError> {
    if let Backend::Sqlite(path) = Backend::of(url)? {
        let length = fs::metadata(&path).map_or(0, |about| about.len());
        if length == 0 {
            return Ok(Vec::new());
        }
    }
    let store = Store::open(url, sealer).await?;
    let tx = store.read().await?;
    let mut found = Vec::new();
    for table in catalog::tables(tx.tx()).await? {
        let rows = catalog::count(tx.tx(), &table).await?;
        found.push((table, rows));
    }
    Ok(found)
}

impl Rebuild {
    /// Begins where there is nothing, with the tables of a schema that had taken so many steps.
    ///
    /// # Errors
    /// `InUse` where a server runs there; `Unavailable`; `Inconsistent` for a table or column that is not
    /// in that schema.
    pub async fn begin(
        url: &str,
        sealer: Arc<dyn Sealer>,
        steps: usize,
        tables: &[Table],
    ) -> Result<Self, StoreError> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let place = match Backend::of(url)? {
            Backend::Sqlite(path) => Some(Place::take(path)?),
            Backend::Postgres => None,
        };
        let url = match &place {
            Some(place) => format!("sqlite://{}", place.unfinished.display()),
            None => url.to_owned(),
        };
        let store = Store::open_exclusive(&url, sealer).await?;
        // A step may leave its transaction on SQLite, so there it is not within ours.
        if place.is_some() {
            Migrator::up(&store.0.connections.write, Some(steps)).await?;
        }
        let tx = store.write().await?;
        if place.is_none() {
            let lock = format!("SELECT pg_advisory_xact_lock({SCHEMA_LOCK})");
            tx.tx().execute_unprepared(&lock).await?;
            Migrator::up(tx.tx(), Some(steps)).await?;
        }
        let mut columns = Vec::new();
        for table in tables {
            columns.push(columns_of(&tx, table).await?);
        }
        Ok(Self {
            store,
            tx,
            place,
            columns,
            tables: tables.to_vec(),
        })
    }

    /// Adds rows to a table.
    ///
    /// # Errors
    /// `Conflict` for rows that cannot stand there; `Inconsistent` for rows of another shape;
    /// `Unavailable`.
    pub async fn add(&mut self, table: usize, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        let (Some(shape), Some(columns)) = (self.tables.get(table), self.columns.get(table)) else {
            return Err(catalog::odd("rows", "of no table"));
        };
        let names: Vec<_> = columns.iter().map(|it| catalog::name(&it.name)).collect();
        let into = format!(
            "INSERT INTO {} ({}) VALUES ",
            catalog::name(&shape.name),
            names.join(", ")
        );
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            let at_once = (VALUES_AT_ONCE / columns.len().max(1)).max(1);
            let mut values = Vec::new();
            let mut places = Vec::new();
            for row in rows.by_ref().take(at_once) {
                if row.len() != columns.len() {
                    return Err(catalog::odd(&shape.name, "a row of another length"));
                }
                let first = values.len() + 1;
                let numbers: Vec<_> = (first..first + row.len())
                    .map(|n| format!("${n}"))
                    .collect();
                places.push(format!("({})", numbers.join(", ")));
                for (value, column) in row.into_iter().zip(columns) {
                    let fits = column.bind(value);
                    values.push(fits.ok_or_else(|| catalog::odd(&shape.name, &column.name))?);
                }
            }
            let sql = format!("{into}{}", places.join(", "));
            let backend = self.tx.tx().get_database_backend();
            let statement = Statement::from_sql_and_values(backend, sql, values);
            self.tx.tx().execute_raw(statement).await?;
        }
        Ok(())
    }

    /// Everything was added: brings the schema up to date, and gives the numbers of rows on where they
    /// were.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn finish(self) -> Result<Rebuilt, StoreError> {
        let Self {
            store,
            tx,
            place,
            tables,
            ..
        } = self;
        for table in &tables {
            let Some(number) = table.numbered_up_to else {
                continue;
            };
            let newest = catalog::numbered_up_to(tx.tx(), &table.name).await?;
            let number = number.max(newest.unwrap_or(0));
            catalog::number_after(tx.tx(), &table.name, number).await?;
        }
        let tx = if place.is_some() {
            tx.commit().await?;
            store.migrate().await?;
            store.write().await?
        } else {
            Migrator::up(tx.tx(), None).await?;
            tx
        };
        Ok(Rebuilt { store, tx, place })
    }
}

impl Rebuilt {
    /// For what is to be said in the same step.
    pub fn write(&mut self) -> &mut Write {
        &mut self.tx
    }

    /// Puts it in its place: from here on it is there, and whole.
    ///
    /// # Errors
    /// `Unavailable`: then nothing is there, unless it happened in the commit of PostgreSQL, after which
    /// nobody knows.
    pub async fn complete(self) -> Result<(), StoreError> {
        let Self { store, tx, place } = self;
        tx.commit().await?;
        let Some(place) = place else { return Ok(()) };
        let connections = &store.0.connections;
        connections.read.close_by_ref().await?;
        connections.write.close_by_ref().await?;
        drop(store);
        place.settle()
    }
}

impl Place {
    fn take(path: PathBuf) -> Result<Self, StoreError> {
        let lock = database::hold(&path)?;
        let unfinished = with(&path, UNFINISHED);
        let place = Self {
            path,
            unfinished,
            _lock: lock,
        };
        // What a restore left that came to no end.
        place.clear();
        Ok(place)
    }

    fn settle(&self) -> Result<(), StoreError> {
        let connection = rusqlite::Connection::open(&self.unfinished)?;
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0));
        // Everything into the one file that is moved.
        text("PRAGMA journal_mode = delete")?;
        let found = text("PRAGMA quick_check(1)")?;
        if found != "ok" {
            return Err(catalog::odd("the new database", &found));
        }
        let broken = connection.prepare("PRAGMA foreign_key_check")?.exists([])?;
        if broken {
            return Err(catalog::odd("the new database", "a reference to nothing"));
        }
        drop(connection);
        let moved = || -> std::io::Result<()> {
            File::open(&self.unfinished)?.sync_all()?;
            // Only ever an empty one is there.
            fs::rename(&self.unfinished, &self.path)?;
            match self.path.parent() {
                Some(folder) => File::open(folder)?.sync_all(),
                None => Ok(()),
            }
        };
        moved().map_err(StoreError::unavailable)
    }

    fn clear(&self) {
        for end in ["", "-wal", "-shm", "-journal", ".lock"] {
            // Most are not there.
            let _ = fs::remove_file(with(&self.unfinished, end));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clear();
    }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The columns that rows of a backup go to.
async fn columns_of(tx: &Write, table: &Table) -> Result<Vec<Column>, StoreError> {
    let known = catalog::columns(tx.tx(), &table.name).await?;
    let find = |name: &String| {
        let found = known.iter().find(|column| column.name == *name).cloned();
        found.ok_or_else(|| catalog::odd(&table.name, name))
    };
    table.columns.iter().map(find).collect()
}

impl Column {
    /// A value as this column takes it; none where it cannot stand there.
    fn bind(&self, value: Value) -> Option<sea_orm::Value> {
        Some(match (self.kind, value) {
            (ColumnKind::Int, Value::Int(number)) => number.into(),
            (ColumnKind::Bool, Value::Int(number)) => (number != 0).into(),
            (ColumnKind::Text, Value::Text(text)) => text.into(),
            (ColumnKind::Bytes, Value::Bytes(bytes)) => bytes.into(),
            (ColumnKind::Int, Value::Null) => None::<i64>.into(),
            (ColumnKind::Bool, Value::Null) => None::<bool>.into(),
            (ColumnKind::Text, Value::Null) => None::<String>.into(),
            (ColumnKind::Bytes, Value::Null) => None::<Vec<u8>>.into(),
            _ => return None,
        })
    }
}
