//! Everything in the database as of one moment, read while servers go on: for a backup.
//!
//! On SQLite a reader sees the write-ahead log as it was when it began, and holds no writer up; the log
//! cannot be copied back past that point meanwhile, and grows. On PostgreSQL it is a transaction that
//! repeats its reads.

use std::ops::Deref;

use futures_util::TryStreamExt as _;
use migrations::{Migrator, MigratorTrait as _};
use sea_orm::{ConnectionTrait, QueryResult, Statement, StreamTrait as _};

use super::catalog::{self, Column, ColumnKind};
use super::{Read, Store, StoreError};
use crate::backup::{Table, Value};

/// Rows that are handed on together, in bytes, about.
const TOGETHER: usize = 256 * 1024;

/// One state of the whole database. It has every look-up of [`Read`].
#[derive(Debug)]
pub struct Snapshot {
    tx: Read,
    tables: Vec<Table>,
    columns: Vec<Vec<Column>>,
}

impl Store {
    /// The steps of the schema history that this program knows, in their order.
    pub fn schema_steps() -> Vec<String> {
        let steps = Migrator::migrations();
        steps.iter().map(|step| step.name().to_owned()).collect()
    }

    /// The steps of the schema history that were taken here, in their order.
    pub async fn schema(&self) -> Result<Vec<String>, StoreError> {
        let connection = &self.0.connections.read;
        let applied = Migrator::get_applied_migrations_read_only(connection).await?;
        Ok(applied.iter().map(|step| step.name().to_owned()).collect())
    }

    /// The state of this moment. Ends with what is returned: hold it no longer than needed.
    ///
    /// # Errors
    /// `Unavailable`; `Inconsistent` for a table whose columns cannot be copied.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let tx = self.read().await?;
        let mut tables = Vec::new();
        let mut all_columns = Vec::new();
        for name in catalog::tables(tx.tx()).await? {
            let columns = catalog::columns(tx.tx(), &name).await?;
            tables.push(Table {
                columns: columns.iter().map(|column| column.name.clone()).collect(),
                rows: catalog::count(tx.tx(), &name).await?,
                numbered_up_to: catalog::numbered_up_to(tx.tx(), &name).await?,
                name,
            });
            all_columns.push(columns);
        }
        Ok(Snapshot {
            tx,
            tables,
            columns: all_columns,
        })
    }
}

impl Snapshot {
    /// The tables, each after those it refers to.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Hands the rows of a table on, some at a time, as long as `take` takes them.
    ///
    /// # Errors
    /// What `take` says; `Unavailable`.
    pub async fn rows<E: From<StoreError>>(
        &self,
        table: usize,
        mut take: impl FnMut(Vec<Vec<Value>>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (Some(shape), Some(columns)) = (self.tables.get(table), self.columns.get(table)) else {
            return Ok(());
        };
        let wanted: Vec<String> = columns.iter().map(Column::read_as).collect();
        let sql = format!(
            "SELECT {} FROM {}",
            wanted.join(", "),
            catalog::name(&shape.name)
        );
        let tx = self.tx.tx();
        let statement = Statement::from_string(ConnectionTrait::get_database_backend(tx), sql);
        let found = tx.stream_raw(statement).await.map_err(StoreError::from)?;
        let mut found = std::pin::pin!(found);
        let (mut together, mut weight) = (Vec::new(), 0);
        while let Some(row) = found.try_next().await.map_err(StoreError::from)? {
            let values: Result<Vec<_>, _> = (0..)
                .zip(columns)
                .map(|(at, column)| column.value(&row, at))
                .collect();
            let values = values.map_err(StoreError::from)?;
            weight += values.iter().map(Value::weight).sum::<usize>();
            together.push(values);
            if weight >= TOGETHER {
                take(std::mem::take(&mut together))?;
                weight = 0;
            }
        }
        if together.is_empty() {
            Ok(())
        } else {
            take(together)
        }
    }
}

impl Deref for Snapshot {
    type Target = Read;

    fn deref(&self) -> &Read {
        &self.tx
    }
}

impl Column {
    /// As it is selected: of every whole number there is one width.
    fn read_as(&self) -> String {
        let name = catalog::name(&self.name);
        match self.kind {
            ColumnKind::Int => format!("CAST({name} AS bigint)"),
            ColumnKind::Bool => format!("CAST(CAST({name} AS integer) AS bigint)"),
            ColumnKind::Text | ColumnKind::Bytes => name,
        }
    }

    fn value(&self, row: &QueryResult, at: usize) -> Result<Value, sea_orm::DbErr> {
        let value = match self.kind {
            ColumnKind::Int | ColumnKind::Bool => {
                row.try_get_by_index::<Option<i64>>(at)?.map(Value::Int)
            }
            ColumnKind::Text => row.try_get_by_index::<Option<String>>(at)?.map(Value::Text),
            ColumnKind::Bytes => row
                .try_get_by_index::<Option<Vec<u8>>>(at)?
                .map(Value::Bytes),
        };
        Ok(value.unwrap_or(Value::Null))
    }
}
