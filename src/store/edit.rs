//! One changing statement with its values.
//!
//! What the hot path writes is described once, as [`Edit`]s, and carried out by whoever holds the
//! transaction: the ORM's, or the writer thread of SQLite. The text is the same for both databases.

use std::borrow::Cow;

use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement, Value};

use super::error::StoreError;

/// A statement that changes rows; `$1` is the first value. The numbers first appear in rising
/// order: the ORM binds by number, SQLite's own library in the order of appearance.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) sql: Cow<'static, str>,
    pub(super) values: Vec<Datum>,
    /// Changing no row means that somebody was faster.
    pub(super) must_change: bool,
}

/// A value as both databases store it.
#[derive(Debug, Clone)]
pub(super) enum Datum {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Bool(bool),
}

impl Edit {
    /// A statement that may find nothing to change.
    pub(super) fn new(sql: impl Into<Cow<'static, str>>, values: impl Into<Vec<Datum>>) -> Self {
        Self {
            sql: sql.into(),
            values: values.into(),
            must_change: false,
        }
    }

    /// A statement that must change a row.
    pub(super) fn that_must_change(
        sql: impl Into<Cow<'static, str>>,
        values: impl Into<Vec<Datum>>,
    ) -> Self {
        Self {
            must_change: true,
            ..Self::new(sql, values)
        }
    }

    /// Carries it out in a transaction of the ORM.
    pub(super) async fn apply(self, tx: &DatabaseTransaction) -> Result<(), StoreError> {
        let values = self.values.into_iter().map(Value::from);
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), self.sql, values);
        let changed = tx.execute_raw(statement).await?.rows_affected();
        if self.must_change && changed == 0 {
            return Err(StoreError::Conflict);
        }
        Ok(())
    }

    /// Carries it out on the connection of the writer thread.
    pub(super) fn apply_to(&self, connection: &rusqlite::Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(&self.sql)?;
        let changed = statement.execute(rusqlite::params_from_iter(&self.values))?;
        if self.must_change && changed == 0 {
            return Err(StoreError::Conflict);
        }
        Ok(())
    }
}

impl Datum {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(Some(text.to_string()))
    }

    pub(super) fn int(number: i64) -> Self {
        Self::Int(Some(number))
    }

    pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(Some(bytes.into()))
    }
}

impl From<Datum> for Value {
    fn from(datum: Datum) -> Self {
        match datum {
            Datum::Text(text) => text.into(),
            Datum::Int(number) => number.into(),
            Datum::Bytes(bytes) => bytes.into(),
            Datum::Bool(flag) => flag.into(),
        }
    }
}

impl rusqlite::ToSql for Datum {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Int(number) => number.to_sql(),
            Self::Bytes(bytes) => bytes.to_sql(),
            Self::Bool(flag) => flag.to_sql(),
        }
    }
}
