//! What changed lately, for the memory of other servers on the same PostgreSQL.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Statement, Value};

use super::board::Key;
use super::edit::{Datum, Edit};
use super::{Store, StoreError};

/// How long an entry stays. A server that reads the log again after half of that may have missed
/// some, and forgets everything.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// How often old entries are removed.
const TIDIED: Duration = Duration::from_secs(60);

/// How far the log was read.
#[derive(Debug, Default)]
pub(super) struct Position(std::sync::Mutex<Option<Read>>);

#[derive(Debug, Clone, Copy)]
struct Read {
    seq: i64,
    at: Instant,
    tidied_at: Instant,
}

/// The entries of a transaction that writes; on PostgreSQL only, with the lock of the outbox.
pub(super) fn note(keys: &[Key]) -> Option<Edit> {
    if keys.is_empty() {
        return None;
    }
    let values: Vec<_> = (1..=keys.len())
        .map(|number| format!("(${number}, CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT))"))
        .collect();
    let sql = format!(
        "INSERT INTO changes (subject, at) VALUES {}",
        values.join(", ")
    );
    let texts: Vec<_> = keys.iter().map(|key| Datum::text(key.to_text())).collect();
    Some(Edit::new(sql, texts))
}

impl Store {
    /// Forgets what others changed since this was called last. SQLite has one server; there only
    /// releases are changed beside it, by commands.
    ///
    /// # Errors
    /// `Unavailable`; until it succeeds again, memory is not used.
    pub async fn follow_changes(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        if inner.connections.backend.is_sqlite() {
            return self.follow_releases().await;
        }
        let now = Instant::now();
        let position = &inner.position.0;
        let former = *position.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.newest_change().await?;
        let continued = former.filter(|read| read.at.elapsed() < KEPT / 2);
        if let Some(read) = continued.filter(|read| read.seq < newest) {
            let keys = self.changes_between(read.seq, newest).await?;
            inner.board.forget(Key::distinct(&keys));
        }
        let mut tidied_at = former.map_or(now, |read| read.tidied_at);
        if tidied_at.elapsed() > TIDIED {
            self.tidy_changes().await?;
            tidied_at = now;
        }
        inner.board.followed(now, continued.is_none());
        *position.lock().unwrap_or_else(PoisonError::into_inner) = Some(Read {
            seq: newest,
            at: now,
            tidied_at,
        });
        Ok(())
    }

    async fn newest_change(&self) -> Result<i64, StoreError> {
        let connection = &self.0.connections.read;
        let statement = Statement::from_string(
            connection.get_database_backend(),
            "SELECT COALESCE(MAX(seq), 0) FROM changes",
        );
        match connection.query_one_raw(statement).await? {
            Some(found) => Ok(found.try_get_by_index(0)?),
            None => Ok(0),
        }
    }

    /// None is skipped, as of events.
    async fn changes_between(&self, after: i64, newest: i64) -> Result<Vec<String>, StoreError> {
        self.wait_for_the_late().await?;
        let connection = &self.0.connections.read;
        let statement = Statement::from_sql_and_values(
            connection.get_database_backend(),
            "SELECT subject FROM changes WHERE seq > $1 AND seq <= $2",
            [Value::from(after), Value::from(newest)],
        );
        let rows = connection.query_all_raw(statement).await?;
        let subjects = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(subjects.collect::<Result<_, _>>()?)
    }

    async fn tidy_changes(&self) -> Result<(), StoreError> {
        let connection = &self.0.connections.write;
        let oldest = format!(
            "DELETE FROM changes WHERE at < \
             CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT) - {}",
            KEPT.as_millis()
        );
        connection.execute_unprepared(&oldest).await?;
        Ok(())
    }
}
