//! Provider sessions and their challenges: a JSON body each, and columns for what is searched by.

use sea_orm::entity::prelude::*;
use sea_orm::{Condition, QueryOrder, QuerySelect, Statement};

use super::edit::{Datum, Edit};
use super::exchange::Columns;
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{BindingId, ChallengeId, DeviceId, SerialNumber, SessionId};
use crate::provider::{Challenge, SePoint, Session};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "bindings")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub session: String,
        pub binding_id: String,
        pub device_id: Option<String>,
        pub se_point: String,
        pub claimed_serial: Option<String>,
        pub account: Option<String>,
        pub began_at: i64,
        pub ended_at: Option<i64>,
        pub timeout_at: Option<i64>,
        pub silent_from: i64,
        pub body: String,
        pub registration: String,
        pub exchange: Option<String>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod challenges {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "challenges")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub challenge_id: String,
        pub session: String,
        pub body: String,
        pub issued_at: i64,
        pub answered_at: Option<i64>,
        pub outcome: Option<String>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

/// A challenge of ours, and what became of it.
#[derive(Debug, Clone)]
pub struct IssuedChallenge {
    pub challenge_id: ChallengeId,
    pub session_id: SessionId,
    pub challenge: Challenge,
    /// What whoever brought the answer was told, as JSON.
    pub outcome: Option<serde_json::Value>,
}

impl Read {
    /// The session.
    pub async fn session(&self, session_id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.glimpse().session(session_id).await
    }

    /// Sessions about any of these Macs that have not ended, the oldest first.
    pub async fn sessions_of_all(&self, devices: &[DeviceId]) -> Result<Vec<Session>, StoreError> {
        let names = devices.iter().map(DeviceId::as_str);
        self.live_sessions(Column::DeviceId.is_in(names)).await
    }

    /// Sessions that claim this serial number and have not ended, the oldest first.
    pub async fn sessions_claiming(
        &self,
        serial: &SerialNumber,
    ) -> Result<Vec<Session>, StoreError> {
        self.live_sessions(Column::ClaimedSerial.eq(serial.as_str()))
            .await
    }

    /// The session about a Mac that began last, besides this one, whether it has ended or not.
    pub async fn former_session(
        &self,
        device_id: &DeviceId,
        besides: &SessionId,
    ) -> Result<Option<Session>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::Session.ne(besides.as_str()))
            .order_by_desc(Column::BindingId)
            .limit(1)
            .one(self.tx())
            .await?;
        row::read_one(found.map(Registered::from))
    }

    /// Sessions of this key that have not ended, the oldest first.
    pub async fn sessions_of_key(&self, point: SePoint) -> Result<Vec<Session>, StoreError> {
        self.live_sessions(Column::SePoint.eq(point.to_string()))
            .await
    }

    async fn live_sessions(&self, condition: Expr) -> Result<Vec<Session>, StoreError> {
        let found = Entity::find()
            .filter(condition)
            .filter(Column::EndedAt.is_null())
            .order_by_asc(Column::BindingId)
            .all(self.tx())
            .await?;
        row::read_all(found.into_iter().map(Registered::from).collect())
    }

    /// Sessions whose time to answer was up before `now`, the most overdue first.
    pub async fn unanswered(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let late = Condition::all().add(Column::TimeoutAt.lt(now.millis()));
        self.named(late, Column::TimeoutAt, limit).await
    }

    /// Sessions that have not ended and that nothing was heard of since `before`.
    pub async fn silent(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let silent = Condition::all()
            .add(Column::SilentFrom.lt(before.millis()))
            .add(Column::EndedAt.is_null());
        self.named(silent, Column::SilentFrom, limit).await
    }

    /// Some of the sessions that have not ended: those named after this one, in order.
    pub async fn live_session_ids(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let after = after.map_or("", SessionId::as_str);
        let live = Condition::all()
            .add(Column::EndedAt.is_null())
            .add(Column::Session.gt(after));
        self.named(live, Column::Session, limit).await
    }

    async fn named(
        &self,
        condition: Condition,
        order: Column,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let found: Vec<String> = Entity::find()
            .filter(condition)
            .order_by_asc(order)
            .select_only()
            .column(Column::Session)
            .limit(row::limited(limit))
            .into_tuple()
            .all(self.tx())
            .await?;
        Ok(found
            .iter()
            .filter_map(|session| SessionId::parse(session).ok())
            .collect())
    }

    /// What a session was registered with, as it came: blob and signature.
    pub async fn registration(
        &self,
        session_id: &SessionId,
    ) -> Result<Option<serde_json::Value>, StoreError> {
        let found = Entity::find_by_id(session_id.as_str())
            .one(self.tx())
            .await?;
        Ok(found.and_then(|row| serde_json::from_str(&row.registration).ok()))
    }

    /// The last challenge a session answered well, with its answer.
    pub async fn last_exchange(
        &self,
        session_id: &SessionId,
    ) -> Result<Option<serde_json::Value>, StoreError> {
        let found = Entity::find_by_id(session_id.as_str())
            .one(self.tx())
            .await?;
        let exchange = found.and_then(|row| row.exchange);
        Ok(exchange.and_then(|exchange| serde_json::from_str(&exchange).ok()))
    }

    /// The challenge.
    pub async fn challenge(
        &self,
        challenge_id: &ChallengeId,
    ) -> Result<Option<IssuedChallenge>, StoreError> {
        let found = challenges::Entity::find_by_id(challenge_id.as_str())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

impl Write {
    /// As [`Read::session`]; on PostgreSQL nobody else changes it, or the Mac it is about, until the
    /// end. Macs are locked before sessions, everywhere.
    ///
    /// # Errors
    /// `Conflict` when it became about another Mac meanwhile.
    pub async fn session(&mut self, session_id: &SessionId) -> Result<Option<Session>, StoreError> {
        let Some(found) = Read::session(self, session_id).await? else {
            return Ok(None);
        };
        if self.is_alone() {
            return Ok(Some(found));
        }
        if let Some(device_id) = &found.device_id {
            self.lock_device(device_id).await?;
        }
        self.lock_session(session_id).await?;
        let locked = Read::session(self, session_id).await?;
        match &locked {
            Some(locked) if locked.device_id != found.device_id => Err(StoreError::Conflict),
            _ => Ok(locked),
        }
    }

    /// As [`Read::sessions_claiming`], locked. Whoever asks has locked their Mac before.
    pub async fn sessions_claiming(
        &mut self,
        serial: &SerialNumber,
    ) -> Result<Vec<Session>, StoreError> {
        if !self.is_alone() {
            for session in Read::sessions_claiming(self, serial).await? {
                self.lock_session(&session.session_id).await?;
            }
        }
        Read::sessions_claiming(self, serial).await
    }

    async fn lock_session(&self, session_id: &SessionId) -> Result<(), StoreError> {
        let lock = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT 1 FROM bindings WHERE session = $1 FOR UPDATE",
            [session_id.as_str().into()],
        );
        self.tx().query_one_raw(lock).await?;
        Ok(())
    }

    /// Keeps a session nobody knew, and what it was registered with.
    ///
    /// # Errors
    /// `Conflict` when it is known by now.
    pub async fn insert_session(
        &mut self,
        session: &Session,
        registration: &serde_json::Value,
    ) -> Result<(), StoreError> {
        self.session_changes(session);
        let mut values = columns(session)?;
        values.push(Datum::text(registration));
        let edit = Edit::new(
            "INSERT INTO bindings (session, binding_id, device_id, se_point, claimed_serial, \
             account, began_at, ended_at, timeout_at, silent_from, body, registration) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            values,
        );
        edit.apply(self.tx()).await
    }

    /// Keeps a session that has changed.
    pub async fn save_session(&mut self, session: &Session) -> Result<(), StoreError> {
        // The Mac it was about before is told of, too.
        if let Some(before) = Read::session(self, &session.session_id).await? {
            self.session_changes(&before);
        }
        self.session_changes(session);
        let edit = Edit::that_must_change(
            "UPDATE bindings SET session = $1, binding_id = $2, device_id = $3, se_point = $4, \
             claimed_serial = $5, account = $6, began_at = $7, ended_at = $8, timeout_at = $9, \
             silent_from = $10, body = $11 WHERE session = $12",
            [columns(session)?, vec![Datum::text(&session.session_id)]].concat(),
        );
        edit.apply(self.tx()).await
    }

    /// Keeps what a session was registered with anew.
    pub async fn keep_registration(
        &mut self,
        session_id: &SessionId,
        registration: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let edit = Edit::that_must_change(
            "UPDATE bindings SET registration = $1, exchange = NULL WHERE session = $2",
            [Datum::text(registration), Datum::text(session_id)],
        );
        edit.apply(self.tx()).await
    }

    /// Keeps the last challenge a session answered well.
    pub async fn keep_exchange(
        &mut self,
        session_id: &SessionId,
        exchange: &serde_json::Value,
    ) -> Result<(), StoreError> {
        let edit = Edit::that_must_change(
            "UPDATE bindings SET exchange = $1 WHERE session = $2",
            [Datum::text(exchange), Datum::text(session_id)],
        );
        edit.apply(self.tx()).await
    }

    /// Keeps a challenge that is on its way.
    pub async fn insert_challenge(&mut self, issued: &IssuedChallenge) -> Result<(), StoreError> {
        let edit = Edit::new(
            "INSERT INTO challenges (challenge_id, session, body, issued_at) VALUES ($1, $2, $3, $4)",
            [
                Datum::text(&issued.challenge_id),
                Datum::text(&issued.session_id),
                Datum::text(row::body("challenge", &issued.challenge)?),
                Datum::int(issued.challenge.issued_at().millis()),
            ],
        );
        edit.apply(self.tx()).await
    }

    /// Keeps what became of a challenge.
    ///
    /// # Errors
    /// `Conflict` when that was kept before.
    pub async fn conclude_challenge(
        &mut self,
        challenge_id: &ChallengeId,
        outcome: &serde_json::Value,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let edit = Edit::that_must_change(
            "UPDATE challenges SET answered_at = $1, outcome = $2 \
             WHERE challenge_id = $3 AND outcome IS NULL",
            [
                Datum::int(now.millis()),
                Datum::text(outcome),
                Datum::text(challenge_id),
            ],
        );
        edit.apply(self.tx()).await
    }

    /// Forgets challenges that were issued, and sessions that ended, before `before`.
    pub async fn forget_sessions(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let before = Datum::int(before.millis());
        for sql in [
            "DELETE FROM challenges WHERE issued_at < $1",
            "DELETE FROM bindings WHERE ended_at < $1",
        ] {
            Edit::new(sql, [before.clone()]).apply(self.tx()).await?;
        }
        Ok(())
    }
}

/// The values of the columns `session` to `body`.
fn columns(session: &Session) -> Result<Vec<Datum>, StoreError> {
    let liveness = &session.liveness;
    let timeout_at = liveness.answer_by().filter(|_| session.is_live());
    Ok(vec![
        Datum::text(&session.session_id),
        Datum::text(&session.binding_id),
        Datum::Text(session.device_id.as_ref().map(ToString::to_string)),
        Datum::text(session.key.point()),
        Datum::Text(session.claimed_serial.as_ref().map(ToString::to_string)),
        Datum::Text(session.account.clone()),
        Datum::int(session.began_at.millis()),
        Datum::Int(row::millis(session.ended.map(|ended| ended.at))),
        Datum::Int(row::millis(timeout_at)),
        Datum::int(session.heard_at().millis()),
        Datum::text(row::body("session", session)?),
    ])
}

/// A session without what it was registered with.
pub(super) struct Registered {
    session: String,
    binding_id: String,
    body: String,
}

impl Registered {
    /// The columns `session, binding_id, body`.
    pub(super) fn read(row: &dyn Columns) -> Result<Self, StoreError> {
        Ok(Self {
            session: row.text(0)?.unwrap_or_default(),
            binding_id: row.text(1)?.unwrap_or_default(),
            body: row.text(2)?.unwrap_or_default(),
        })
    }
}

impl From<Model> for Registered {
    fn from(row: Model) -> Self {
        Self {
            session: row.session,
            binding_id: row.binding_id,
            body: row.body,
        }
    }
}

impl Row for Registered {
    type Noun = Session;
    const TABLE: &'static str = "bindings";

    fn id(&self) -> String {
        self.session.clone()
    }

    fn noun(self) -> Option<Session> {
        let session: Session = row::parsed(&self.body, serde_json::from_str)?;
        let binding_id = row::parsed(&self.binding_id, BindingId::parse)?;
        (session.binding_id == binding_id).then_some(session)
    }
}

impl Row for challenges::Model {
    type Noun = IssuedChallenge;
    const TABLE: &'static str = "challenges";

    fn id(&self) -> String {
        self.challenge_id.clone()
    }

    fn noun(self) -> Option<IssuedChallenge> {
        Some(IssuedChallenge {
            challenge_id: row::parsed(&self.challenge_id, ChallengeId::parse)?,
            session_id: row::parsed(&self.session, SessionId::parse)?,
            challenge: row::parsed(&self.body, serde_json::from_str)?,
            outcome: row::parsed_if_any(self.outcome.as_deref(), serde_json::from_str)?,
        })
    }
}
