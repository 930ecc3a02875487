//! What was kept of a Mac for long enough: its answers, the attempts they came in, what was believed
//! then. The ledger of nonces is no part of it: it must know whatever a Mac was ever handed.

use sea_orm::entity::prelude::*;
use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, Statement, Value};

use super::row;
use super::{Read, StoreError, Write};
use crate::ids::{DeviceId, EvidenceId, VerificationId};
use crate::time::Timestamp;

/// Rows of one kind that are removed of one Mac in one go.
const AT_ONCE: i64 = 200;

/// How much was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub answers: u64,
    pub attempts: u64,
    pub postures: u64,
}

mod macs {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "enrollments")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Read {
    /// At most `limit` Macs in the order of their ids, from the one after `after` on, whatever became of them.
    pub async fn macs(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut query = macs::Entity::find()
            .order_by_asc(macs::Column::DeviceId)
            .limit(row::limited(limit));
        if let Some(after) = after {
            query = query.filter(macs::Column::DeviceId.gt(after.as_str()));
        }
        let named = |found: macs::Model| {
            DeviceId::parse(&found.device_id).map_err(|_| StoreError::Inconsistent {
                table: "enrollments",
                id: found.device_id,
            })
        };
        query.all(self.tx()).await?.into_iter().map(named).collect()
    }
}

impl Write {
    /// Removes what came from a Mac before `before`, but for `kept`, the newest attempt, and what was believed at
    /// `before`. Returns how much, and whether there may be more.
    pub async fn remove_old(
        &mut self,
        device_id: &DeviceId,
        before: Timestamp,
        kept: &[EvidenceId],
    ) -> Result<(Removed, bool), StoreError> {
        let (postures, more_postures) = self.remove_postures(device_id, before).await?;
        let (attempts, more_attempts) = self.remove_attempts(device_id, before).await?;
        let removed = Removed {
            answers: self.remove_answers(device_id, before, kept).await?,
            attempts,
            postures,
        };
        Ok((removed, more_postures || more_attempts))
    }

    async fn remove_answers(
        &self,
        device_id: &DeviceId,
        before: Timestamp,
        kept: &[EvidenceId],
    ) -> Result<u64, StoreError> {
        let mut sql = "DELETE FROM evidence WHERE device_id = $1 AND received_at < $2".to_owned();
        let mut values: Vec<Value> = vec![device_id.as_str().into(), before.millis().into()];
        if !kept.is_empty() {
            sql.push_str(" AND evidence_id NOT IN (");
            sql.push_str(&places(3, kept.len()));
            sql.push(')');
            values.extend(kept.iter().map(|id| Value::from(id.as_bytes().to_vec())));
        }
        self.delete(sql, values).await
    }

    /// Those that ended before then, with what was said under them. One that a command is still out of stays.
    async fn remove_attempts(
        &self,
        device_id: &DeviceId,
        before: Timestamp,
    ) -> Result<(u64, bool), StoreError> {
        let backend = self.tx().get_database_backend();
        let earlier = VerificationId::earliest(before);
        let found = self
            .tx()
            .query_all_raw(Statement::from_sql_and_values(
                backend,
                "SELECT verification_id FROM verifications v WHERE device_id = $1 \
                 AND verification_id < $2 AND finished_at < $3 \
                 AND verification_id < (SELECT MAX(verification_id) FROM verifications WHERE device_id = $1) \
                 AND NOT EXISTS (SELECT 1 FROM commands c \
                 WHERE c.verification_id = v.verification_id AND c.concluded_at IS NULL) \
                 ORDER BY verification_id LIMIT $4",
                [
                        device_id.as_str().into(),
                        earlier.as_str().into(),
                        before.millis().into(),
                        AT_ONCE.into(),
                    ],
            ))
            .await?;
        let ids = found
            .iter()
            .map(|row| row.try_get_by_index::<String>(0))
            .collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Ok((0, false));
        }
        let places = places(1, ids.len());
        let values = || {
            ids.iter()
                .map(|id| Value::from(id.as_str()))
                .collect::<Vec<_>>()
        };
        for table in ["commands", "verification_requests"] {
            let sql = format!("DELETE FROM {table} WHERE verification_id IN ({places})");
            self.delete(sql, values()).await?;
        }
        let sql = format!("DELETE FROM verifications WHERE verification_id IN ({places})");
        let removed = self.delete(sql, values()).await?;
        Ok((
            removed,
            i64::try_from(ids.len()).is_ok_and(|found| found == AT_ONCE),
        ))
    }

    /// The one in force at `before` stays: attempts that ended later may have ended with it.
    async fn remove_postures(
        &self,
        device_id: &DeviceId,
        before: Timestamp,
    ) -> Result<(u64, bool), StoreError> {
        let backend = self.tx().get_database_backend();
        let found = self
            .tx()
            .query_all_raw(Statement::from_sql_and_values(
                backend,
                "SELECT revision, at FROM posture_history WHERE device_id = $1 ORDER BY revision LIMIT $2",
                [device_id.as_str().into(), AT_ONCE.into()],
            ))
            .await?;
        let mut in_force = None;
        for row in &found {
            let (revision, at): (i64, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            if at >= before.millis() {
                break;
            }
            in_force = Some(revision);
        }
        let Some(in_force) = in_force else {
            return Ok((0, false));
        };
        let removed = self
            .delete(
                "DELETE FROM posture_history WHERE device_id = $1 AND revision < $2".to_owned(),
                vec![device_id.as_str().into(), in_force.into()],
            )
            .await?;
        Ok((removed, removed.saturating_add(1) == AT_ONCE.unsigned_abs()))
    }

    async fn delete(&self, sql: String, values: Vec<Value>) -> Result<u64, StoreError> {
        let backend = self.tx().get_database_backend();
        let statement = Statement::from_sql_and_values(backend, sql, values);
        Ok(self.tx().execute_raw(statement).await?.rows_affected())
    }
}

/// `$3, $4, …`
fn places(first: usize, count: usize) -> String {
    let each: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    each.join(", ")
}
