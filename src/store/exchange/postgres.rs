//! The exchange on PostgreSQL: one transaction, as few round trips as the rules allow: begin, lock,
//! load, one statement that writes everything, commit.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, Statement, Value};

use super::{About, Changes, Columns, Effect, Exchange, Loaded, judge, load as load_sql};
use crate::store::edit::Edit;
use crate::store::transaction::OUTBOX_LOCK;
use crate::store::watch::Watched;
use crate::store::{Inner, StoreError, row};

pub(in crate::store) async fn exchange<T>(
    inner: &Inner,
    about: About,
    decide: impl FnOnce(Exchange) -> (Changes, T),
) -> Result<Option<T>, StoreError> {
    let connections = &inner.connections;
    let tx = connections.backend.begin_write(&connections.write).await?;
    let Some(exchange) = load(&tx, &about).await? else {
        return Ok(None);
    };
    let (subject, changes, answer) = judge(exchange, decide)?;
    let (edits, effect) = changes.edits(subject, &inner.rules())?;
    if !edits.is_empty() {
        write_all(&tx, edits).await?;
    }
    tx.commit().await?;
    publish(inner, &effect);
    Ok(Some(answer))
}

/// Tells whoever in this process waits for it.
pub(in crate::store) fn publish(inner: &Inner, effect: &Effect) {
    if effect.changed {
        inner.announcer.changed(Watched::Device(&effect.device_id));
    }
    if let Some(ticket_id) = &effect.stepped {
        inner.announcer.changed(Watched::Steps(ticket_id));
    }
    if effect.appended {
        inner.announcer.appended();
    }
}

/// Locks the Mac, then reads. Two statements: one that waits for a lock and reads other tables in
/// the same breath sees those tables as they were before it waited (PostgreSQL manual, 13.2.1).
/// The second also takes part in the lock of the outbox, see `Store::events_after`.
async fn load(tx: &DatabaseTransaction, about: &About) -> Result<Option<Exchange>, StoreError> {
    let device_id = Value::from(about.device_id.as_str());
    let lock = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT 1 FROM enrollments WHERE device_id = $1 FOR UPDATE",
        [device_id.clone()],
    );
    if tx.query_one_raw(lock).await?.is_none() {
        return Ok(None);
    }
    let select = Statement::from_sql_and_values(
        DbBackend::Postgres,
        load_sql!(", pg_advisory_xact_lock_shared($4)"),
        [
            about.command_uuid.as_ref().map(ToString::to_string).into(),
            about.nonce.map(Vec::from).into(),
            device_id,
            OUTBOX_LOCK.into(),
        ],
    );
    match tx.query_one_raw(select).await? {
        None => Ok(None),
        Some(found) => row::read(Loaded::read(&found)?).map(Some),
    }
}

/// Carries all edits out as one statement. References between their rows are checked at its end
/// (PostgreSQL manual, 7.8.4 and SET CONSTRAINTS), so their order does not matter; no two of them
/// are about the same row.
pub(in crate::store) async fn write_all(
    tx: &DatabaseTransaction,
    edits: Vec<Edit>,
) -> Result<(), StoreError> {
    let mut writes = String::new();
    let mut counts = String::new();
    let mut values: Vec<Value> = Vec::new();
    let mut counted = 0;
    for (index, edit) in edits.into_iter().enumerate() {
        let lead = if index == 0 { "WITH" } else { "," };
        let sql = renumbered(&edit.sql, values.len());
        let _ = write!(writes, "{lead} w{index} AS ({sql} RETURNING 1)");
        values.extend(edit.values.into_iter().map(Value::from));
        if edit.must_change {
            let _ = write!(counts, ", (SELECT COUNT(*) FROM w{index})");
            counted += 1;
        }
    }
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!("{writes} SELECT 1{counts}"),
        values,
    );
    let row = tx.query_one_raw(statement).await?;
    for column in 1..=counted {
        let changed: i64 = match &row {
            Some(row) => row.try_get_by_index(column)?,
            None => 0,
        };
        if changed == 0 {
            return Err(StoreError::Conflict);
        }
    }
    Ok(())
}

/// The statement with its values numbered from `$offset + 1` on. Our statements carry every value
/// as a parameter, so a dollar sign is always one.
fn renumbered(sql: &str, offset: usize) -> String {
    let mut parts = sql.split('$');
    let mut renumbered = String::with_capacity(sql.len() + 16);
    renumbered.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = part.split_at(digits);
        let number = number.parse::<usize>().unwrap_or_default() + offset;
        let _ = write!(renumbered, "${number}{rest}");
    }
    renumbered
}

impl Columns for QueryResult {
    fn text(&self, index: usize) -> Result<Option<String>, StoreError> {
        Ok(self.try_get_by_index(index)?)
    }

    fn int(&self, index: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.try_get_by_index(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.try_get_by_index(index)?)
    }
}

#[cfg(test)]
mod tests {
    use super::renumbered;

    #[test]
    fn values_are_numbered_after_those_before() {
        assert_eq!(
            renumbered("VALUES ($1, $2, $12)", 10),
            "VALUES ($11, $12, $22)"
        );
        assert_eq!(renumbered("SELECT 1", 3), "SELECT 1");
    }
}
