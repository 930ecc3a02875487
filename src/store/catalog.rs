//! What tables there are, as the database itself says: so that no table is forgotten in a backup.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, Statement};

use super::StoreError;
use crate::backup::in_order_of_reference;

/// The table in which the schema history keeps account of itself.
const HISTORY: &str = "seaql_migrations";

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnKind,
}

/// What stands in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Int,
    Bool,
    Text,
    Bytes,
}

/// Our tables, each after those it refers to.
pub(super) async fn tables(tx: &DatabaseTransaction) -> Result<Vec<String>, StoreError> {
    let (tables, references) = match tx.get_database_backend() {
        DbBackend::Sqlite => (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
             ORDER BY name",
            "SELECT t.name, f.\"table\" FROM sqlite_master t, pragma_foreign_key_list(t.name) f \
             WHERE t.type = 'table'",
        ),
        _ => (
            "SELECT table_name::text FROM information_schema.tables \
             WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name",
            "SELECT c.relname::text, f.relname::text FROM pg_constraint k \
             JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE k.contype = 'f' AND n.nspname = current_schema()",
        ),
    };
    let names = all(tx, tables, |row| row.try_get_by_index::<String>(0)).await?;
    let names = names.into_iter().filter(|name| name != HISTORY).collect();
    let pairs = all(tx, references, |row| {
        Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
    });
    let ordered = in_order_of_reference(names, &pairs.await?);
    ordered.ok_or_else(|| odd("schema", "references in a circle"))
}

/// The columns of a table, in their order.
pub(super) async fn columns(
    tx: &DatabaseTransaction,
    table: &str,
) -> Result<Vec<Column>, StoreError> {
    let sql = match tx.get_database_backend() {
        DbBackend::Sqlite => format!("SELECT name, type FROM pragma_table_info({})", text(table)),
        _ => format!(
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = {} ORDER BY ordinal_position",
            text(table)
        ),
    };
    let found: Vec<(String, String)> = all(tx, &sql, |row| {
        Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
    })
    .await?;
    let column = |(name, declared): (String, String)| {
        let kind = kind(&declared).ok_or_else(|| odd(table, &name))?;
        Ok(Column { name, kind })
    };
    found.into_iter().map(column).collect()
}

fn kind(declared: &str) -> Option<ColumnKind> {
    let declared = declared.to_ascii_lowercase();
    let has = |word: &str| declared.contains(word);
    if has("bool") {
        Some(ColumnKind::Bool)
    } else if has("int") {
        Some(ColumnKind::Int)
    } else if has("text") || has("char") {
        Some(ColumnKind::Text)
    } else if has("blob") || has("bytea") {
        Some(ColumnKind::Bytes)
    } else {
        None
    }
}

/// The sequence that numbers the rows of a table (PostgreSQL), if one does.
pub(super) async fn sequence(
    tx: &DatabaseTransaction,
    table: &str,
) -> Result<Option<String>, StoreError> {
    let sql = format!(
        "SELECT pg_get_serial_sequence(quote_ident(table_name), column_name) \
         FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = {}",
        text(table)
    );
    let found = all(tx, &sql, |row| row.try_get_by_index::<Option<String>>(0)).await?;
    Ok(found.into_iter().flatten().next())
}

/// The last number that was given to a row of a table, where its rows are numbered.
pub(super) async fn numbered_up_to(
    tx: &DatabaseTransaction,
    table: &str,
) -> Result<Option<i64>, StoreError> {
    let sql = match tx.get_database_backend() {
        DbBackend::Sqlite => format!(
            "SELECT seq FROM sqlite_sequence WHERE name = {}",
            text(table)
        ),
        _ => match sequence(tx, table).await? {
            None => return Ok(None),
            // A sequence that was never used says 1, and that it was not.
            Some(name) => {
                format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name}")
            }
        },
    };
    one(tx, &sql).await
}

/// The next row of a table gets a number after this one.
pub(super) async fn number_after(
    tx: &DatabaseTransaction,
    table: &str,
    number: i64,
) -> Result<(), StoreError> {
    let name = text(table);
    let sql = match tx.get_database_backend() {
        DbBackend::Sqlite => format!(
            "DELETE FROM sqlite_sequence WHERE name = {name}; \
             INSERT INTO sqlite_sequence (name, seq) VALUES ({name}, {number})"
        ),
        _ => match sequence(tx, table).await? {
            None => return Err(odd(table, "no sequence")),
            Some(sequence) => format!(
                "SELECT setval({}, GREATEST({number}, 1), {number} > 0)",
                text(&sequence)
            ),
        },
    };
    tx.execute_unprepared(&sql).await?;
    Ok(())
}

/// How many rows a table has.
pub(super) async fn count(tx: &DatabaseTransaction, table: &str) -> Result<u64, StoreError> {
    let sql = format!("SELECT COUNT(*) FROM {}", name(table));
    let found = one(tx, &sql).await?;
    u64::try_from(found.unwrap_or(0)).map_err(|_| odd(table, "a count below zero"))
}

/// A name, as statements have it.
pub(super) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, as statements have it.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn odd(table: &str, what: &str) -> StoreError {
    StoreError::Inconsistent {
        table: "the catalogue",
        id: format!("{table}: {what}"),
    }
}

async fn one(tx: &DatabaseTransaction, sql: &str) -> Result<Option<i64>, StoreError> {
    let found = all(tx, sql, |row| row.try_get_by_index(0)).await?;
    Ok(found.into_iter().next())
}

async fn all<T>(
    tx: &DatabaseTransaction,
    sql: &str,
    read: impl Fn(&QueryResult) -> Result<T, sea_orm::DbErr>,
) -> Result<Vec<T>, StoreError> {
    let statement = Statement::from_string(tx.get_database_backend(), sql);
    let rows = tx.query_all_raw(statement).await?;
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}
