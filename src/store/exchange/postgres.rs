//! The exchange on PostgreSQL: one transaction, as few round trips as the rules allow.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, QueryResult, Statement, Value};

use super::{About, Changes, Columns, Exchange, LOAD, Loaded, judge};
use crate::store::transaction::OUTBOX_LOCK;
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
    let (edits, effect) = changes.edits(subject)?;
    for edit in edits {
        edit.apply(&tx).await?;
    }
    tx.commit().await?;
    if effect.changed {
        inner.announcer.changed(&effect.device_id);
    }
    if effect.appended {
        inner.announcer.appended();
    }
    Ok(Some(answer))
}

/// Locks the Mac, then reads. Two statements: one that waits for a lock and reads other tables in
/// the same breath sees those tables as they were before it waited (PostgreSQL manual, 13.2.1).
async fn load(tx: &DatabaseTransaction, about: &About) -> Result<Option<Exchange>, StoreError> {
    let device_id = Value::from(about.device_id.as_str());
    let lock = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT 1, pg_advisory_xact_lock_shared($2) FROM enrollments WHERE device_id = $1 FOR UPDATE",
        [device_id.clone(), Value::from(OUTBOX_LOCK)],
    );
    if tx.query_one_raw(lock).await?.is_none() {
        return Ok(None);
    }
    let select = Statement::from_sql_and_values(
        DbBackend::Postgres,
        LOAD,
        [
            device_id,
            about.command_uuid.as_ref().map(ToString::to_string).into(),
            about.nonce.map(Vec::from).into(),
        ],
    );
    match tx.query_one_raw(select).await? {
        None => Ok(None),
        Some(found) => row::read(Loaded::read(&found)?).map(Some),
    }
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
