//! When each token was used last: soft state, noted where a token is read from the database, which is every three
//! seconds at most, and written once a minute. No request waits for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sea_orm::{ConnectionTrait as _, Statement};

use super::{Store, StoreError};
use crate::ids::ApiTokenId;
use crate::time::Timestamp;

/// Sorted, so that two nodes that flush the same rows cannot wait for each other in a circle.
#[derive(Debug, Default)]
pub(super) struct TokenUse(Mutex<BTreeMap<ApiTokenId, Timestamp>>);

impl TokenUse {
    pub(super) fn note(&self, id: &ApiTokenId, now: Timestamp) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = used.entry(id.clone()).or_insert(now);
        *last = now.max(*last);
    }

    fn take(&self) -> BTreeMap<ApiTokenId, Timestamp> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store {
    /// Writes when tokens were used since the last time. Lost when the process ends before.
    ///
    /// # Errors
    /// `Unavailable`; what was not written is kept for the next time.
    pub async fn flush_token_use(&self) -> Result<(), StoreError> {
        let used = self.0.token_use.take();
        if used.is_empty() {
            return Ok(());
        }
        let written = self.write_token_use(&used).await;
        if written.is_err() {
            for (id, at) in &used {
                self.0.token_use.note(id, *at);
            }
        }
        written
    }

    async fn write_token_use(
        &self,
        used: &BTreeMap<ApiTokenId, Timestamp>,
    ) -> Result<(), StoreError> {
        let write = self.write().await?;
        for (id, at) in used {
            let tx = write.tx();
            let statement = Statement::from_sql_and_values(
                tx.get_database_backend(),
                "UPDATE api_tokens SET last_used_at = $1 WHERE api_token_id = $2 \
                 AND (last_used_at IS NULL OR last_used_at < $1)",
                [at.millis().into(), id.as_str().into()],
            );
            tx.execute_raw(statement).await?;
        }
        write.commit().await
    }
}
