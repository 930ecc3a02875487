//! When each Mac was last heard: soft state, kept in memory and written in batches.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use sea_orm::{ConnectionTrait, Statement, Value};

use super::error::StoreError;
use super::{Read, Store, row};
use crate::ids::DeviceId;
use crate::time::Timestamp;

/// Devices per statement.
const BATCH: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashMap<DeviceId, Timestamp>>);

impl Seen {
    fn note(&self, device_id: &DeviceId, now: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(device_id) {
            Some(last) => *last = now.max(*last),
            None => {
                seen.insert(device_id.clone(), now);
            }
        }
    }

    fn last(&self, device_id: &DeviceId) -> Option<Timestamp> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(device_id).copied()
    }

    /// Sorted, so that two nodes that flush the same rows cannot wait for each other in a circle.
    fn take(&self) -> BTreeMap<DeviceId, Timestamp> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen).into_iter().collect()
    }
}

impl Store {
    /// Notes that a Mac was heard. Lost when the process ends before [`Store::flush_seen`].
    pub fn seen(&self, device_id: &DeviceId, now: Timestamp) {
        self.0.seen.note(device_id, now);
    }

    /// Writes what [`Store::seen`] noted, a few hundred devices per statement.
    ///
    /// # Errors
    /// `Unavailable`; what was not written is kept for the next time.
    pub async fn flush_seen(&self) -> Result<(), StoreError> {
        let seen: Vec<_> = self.0.seen.take().into_iter().collect();
        if seen.is_empty() {
            return Ok(());
        }
        let written = self.write_seen(&seen).await;
        if written.is_err() {
            for (device_id, at) in &seen {
                self.0.seen.note(device_id, *at);
            }
        }
        written
    }

    async fn write_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<(), StoreError> {
        let write = self.write().await?;
        for batch in seen.chunks(BATCH) {
            let mut sql =
                String::from("UPDATE enrollments SET last_seen = s.column2 FROM (VALUES ");
            let mut values = Vec::with_capacity(batch.len() * 2);
            for (index, (device_id, at)) in batch.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let first = index * 2 + 1;
                // PostgreSQL takes an untyped parameter in VALUES for text.
                let _ = write!(sql, "{comma}(${first}, CAST(${} AS BIGINT))", first + 1);
                values.push(Value::from(device_id.as_str()));
                values.push(Value::from(at.millis()));
            }
            sql.push_str(
                ") AS s WHERE enrollments.device_id = s.column1 \
                 AND (enrollments.last_seen IS NULL OR enrollments.last_seen < s.column2)",
            );
            let tx = write.tx();
            let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
            tx.execute_raw(statement).await?;
        }
        write.commit().await
    }
}

impl Read {
    /// When a Mac was last heard, as far as this node knows.
    pub async fn last_seen(&self, device_id: &DeviceId) -> Result<Option<Timestamp>, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT last_seen FROM enrollments WHERE device_id = $1",
            [Value::from(device_id.as_str())],
        );
        let row = self.tx().query_one_raw(statement).await?;
        let stored: Option<i64> = match row {
            Some(row) => row.try_get_by_index(0)?,
            None => None,
        };
        Ok(row::time(stored).max(self.inner().seen.last(device_id)))
    }
}
