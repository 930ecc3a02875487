//! A few look-ups by key that see one state of the database: what a verdict is made of.
//!
//! On SQLite they are made on the thread that asks (see [`super::lookup`]); on PostgreSQL, and within a
//! transaction that has changed something, they go the way of every other statement.

use sea_orm::{ConnectionTrait as _, Statement, Value};

use super::edit::Datum;
use super::exchange::Columns;
use super::lookup::Snapshot;
use super::row::{self, Row};
use super::{Read, Refusal, Store, StoreError, bindings, refusals};
use crate::enrollment::{IdentityKind, State};
use crate::ids::{DeviceId, SerialNumber, SessionId};
use crate::posture::Posture;
use crate::provider::{BinaryHash, Platform, Session};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Verification;

/// One state of the database.
#[derive(Debug)]
pub struct Glimpse<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Lookup(Snapshot<'a>),
    Own(Box<Read>),
    Within(&'a Read),
}

/// What is known of a Mac that is judged.
#[derive(Debug, Clone)]
pub struct Standpoint {
    pub state: State,
    pub serial: Option<SerialNumber>,
    /// Another enrollment stands where this one would.
    pub contends: bool,
    /// What the identity is by which it speaks, and when that ends.
    pub identity: Option<(IdentityKind, Timestamp)>,
    pub posture: Option<Posture>,
    /// The latest attempt to get evidence.
    pub attempt: Option<Verification>,
}

impl Store {
    /// One state of the database, as of the first look-up.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn glimpse(&self) -> Result<Glimpse<'_>, StoreError> {
        Ok(Glimpse(match &self.0.lookup {
            Some(lookup) => Source::Lookup(lookup.snapshot()?),
            None => Source::Own(Box::new(self.read().await?)),
        }))
    }
}

impl Read {
    /// The state that this transaction sees.
    pub fn glimpse(&self) -> Glimpse<'_> {
        Glimpse(Source::Within(self))
    }
}

impl Glimpse<'_> {
    /// The Mac.
    pub async fn standpoint(
        &mut self,
        device_id: &DeviceId,
    ) -> Result<Option<Standpoint>, StoreError> {
        const SQL: &str = "SELECT e.device_id, e.state, e.serial, e.contends_with, i.kind, \
             i.not_after, p.body, v.body FROM enrollments e \
             LEFT JOIN identities i ON i.certificate = e.identity \
             LEFT JOIN postures p ON p.device_id = e.device_id \
             LEFT JOIN verifications v ON v.verification_id = (SELECT w.verification_id \
                FROM verifications w WHERE w.device_id = e.device_id \
                ORDER BY w.verification_id DESC LIMIT 1) \
             WHERE e.device_id = $1";
        let found = self
            .rows(SQL, [Datum::text(device_id)], Found::read)
            .await?;
        row::read_one(found.into_iter().next())
    }

    /// What was refused to a Mac since a time, the latest first.
    pub async fn refusals_of(
        &mut self,
        device_id: &DeviceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Refusal>, StoreError> {
        let keys = [
            Datum::text(device_id),
            Datum::int(since.millis()),
            Datum::int(row::counted(row::limited(limit))),
        ];
        let found = self.rows(refusals::OF_MAC, keys, refusals::Model::read);
        row::read_all(found.await?)
    }

    /// The nonce that was handed to a Mac at this time.
    pub async fn nonce_minted_at(
        &mut self,
        device_id: &DeviceId,
        minted_at: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        const SQL: &str = "SELECT nonce FROM nonces WHERE device_id = $1 AND minted_at = $2";
        let keys = [Datum::text(device_id), Datum::int(minted_at.millis())];
        let found = self.rows(SQL, keys, |row| row.bytes(0)).await?;
        let nonce = found.into_iter().flatten().next();
        Ok(nonce.and_then(|nonce| row::digest(&nonce)))
    }

    /// The session.
    pub async fn session(&mut self, session_id: &SessionId) -> Result<Option<Session>, StoreError> {
        const SQL: &str = "SELECT session, binding_id, body FROM bindings WHERE session = $1";
        let found = self
            .rows(SQL, [Datum::text(session_id)], bindings::Registered::read)
            .await?;
        row::read_one(found.into_iter().next())
    }

    /// Sessions about a Mac that have not ended, the oldest first.
    pub async fn sessions_of(&mut self, device_id: &DeviceId) -> Result<Vec<Session>, StoreError> {
        const SQL: &str = "SELECT session, binding_id, body FROM bindings \
             WHERE device_id = $1 AND ended_at IS NULL ORDER BY binding_id";
        let found = self.rows(SQL, [Datum::text(device_id)], bindings::Registered::read);
        row::read_all(found.await?)
    }

    /// Whether a session that runs this program may be routed to: `release_unknown` or
    /// `release_revoked` when not.
    pub async fn release_standing(
        &mut self,
        hash: &BinaryHash,
        platform: &Platform,
    ) -> Result<Result<(), Reason>, StoreError> {
        const SQL: &str =
            "SELECT revoked_at FROM releases WHERE binary_hash = $1 AND platform = $2";
        let keys = [
            Datum::bytes(hash.as_bytes().to_vec()),
            Datum::text(platform.as_str()),
        ];
        let found = self.rows(SQL, keys, |row| row.int(0)).await?;
        Ok(match found.first() {
            None => Err(Reason::ReleaseUnknown),
            Some(Some(_)) => Err(Reason::ReleaseRevoked),
            Some(None) => Ok(()),
        })
    }

    /// The rows that these keys lead to.
    pub(super) async fn rows<T>(
        &mut self,
        sql: &'static str,
        keys: impl Into<Vec<Datum>>,
        mut read: impl FnMut(&dyn Columns) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let keys: Vec<Datum> = keys.into();
        let transaction = match &mut self.0 {
            Source::Lookup(snapshot) => return snapshot.rows(sql, &keys, |row| read(row)),
            Source::Own(transaction) => transaction.tx(),
            Source::Within(transaction) => transaction.tx(),
        };
        let statement = Statement::from_sql_and_values(
            transaction.get_database_backend(),
            sql,
            keys.into_iter().map(Value::from),
        );
        let found = transaction.query_all_raw(statement).await?;
        found.iter().map(|row| read(row)).collect()
    }
}

/// The columns of [`Glimpse::standpoint`].
struct Found {
    device_id: String,
    state: String,
    serial: Option<String>,
    contends_with: Option<String>,
    identity_kind: Option<String>,
    identity_ends: Option<i64>,
    posture: Option<String>,
    attempt: Option<String>,
}

impl Found {
    fn read(row: &dyn Columns) -> Result<Self, StoreError> {
        Ok(Self {
            device_id: row.text(0)?.unwrap_or_default(),
            state: row.text(1)?.unwrap_or_default(),
            serial: row.text(2)?,
            contends_with: row.text(3)?,
            identity_kind: row.text(4)?,
            identity_ends: row.int(5)?,
            posture: row.text(6)?,
            attempt: row.text(7)?,
        })
    }
}

impl Row for Found {
    type Noun = Standpoint;
    const TABLE: &'static str = "enrollments, or what belongs to it,";

    fn id(&self) -> String {
        self.device_id.clone()
    }

    fn noun(self) -> Option<Standpoint> {
        let identity = match (self.identity_kind.as_deref(), self.identity_ends) {
            (Some(kind), Some(ends)) => {
                Some((IdentityKind::from_word(kind)?, Timestamp::from_millis(ends)))
            }
            _ => None,
        };
        Some(Standpoint {
            state: State::from_word(&self.state)?,
            serial: row::parsed_if_any(self.serial.as_deref(), SerialNumber::parse)?,
            contends: self.contends_with.is_some(),
            identity,
            posture: row::parsed_if_any(self.posture.as_deref(), serde_json::from_str)?,
            attempt: row::parsed_if_any(self.attempt.as_deref(), serde_json::from_str)?,
        })
    }
}
