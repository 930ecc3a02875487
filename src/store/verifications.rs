//! Verifications: a JSON body, and columns for what is searched by.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write, commands};
use crate::ids::{DeviceId, VerificationId};
use crate::time::Timestamp;
use crate::verification::{State, Verification};

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "verifications")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub verification_id: String,
        pub device_id: String,
        pub body: String,
        pub created_at: i64,
        pub deadline: i64,
        pub finished_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod requests {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "verification_requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub idempotency_key: String,
        pub request_hash: Vec<u8>,
        pub verification_id: String,
        pub at: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// The verification.
    pub async fn verification(
        &self,
        verification_id: &VerificationId,
    ) -> Result<Option<Verification>, StoreError> {
        let found = Entity::find_by_id(verification_id.as_str())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// The open verification of a Mac; there is at most one.
    pub async fn open_verification(
        &self,
        device_id: &DeviceId,
    ) -> Result<Option<Verification>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::FinishedAt.is_null())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// The verifications of a Mac, the newest first.
    pub async fn verifications_of(
        &self,
        device_id: &DeviceId,
        limit: usize,
    ) -> Result<Vec<Verification>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .order_by_desc(Column::VerificationId)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// What an idempotency key was used for: the hash of the request, and its verification.
    pub async fn request(
        &self,
        idempotency_key: &str,
    ) -> Result<Option<([u8; 32], VerificationId)>, StoreError> {
        let found = requests::Entity::find_by_id(idempotency_key)
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

impl Write {
    /// As [`Read::verification`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn verification(
        &mut self,
        verification_id: &VerificationId,
    ) -> Result<Option<Verification>, StoreError> {
        match Read::verification(self, verification_id).await? {
            None => Ok(None),
            Some(found) => {
                self.lock_device(&found.device_id).await?;
                Read::verification(self, verification_id).await
            }
        }
    }

    /// As [`Read::open_verification`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn open_verification(
        &mut self,
        device_id: &DeviceId,
    ) -> Result<Option<Verification>, StoreError> {
        self.lock_device(device_id).await?;
        Read::open_verification(self, device_id).await
    }

    /// Keeps a verification, new or changed.
    ///
    /// # Errors
    /// `Conflict` when it is open and the Mac has another open one, or there is no such Mac.
    pub async fn save_verification(
        &mut self,
        verification: &Verification,
    ) -> Result<(), StoreError> {
        self.touch(&verification.device_id);
        save(verification)?.apply(self.tx()).await?;
        self.news(&verification.device_id)
            .attempts
            .push(verification.clone());
        Ok(())
    }

    /// Remembers that a request led to a verification, be it a new or a joined one.
    ///
    /// # Errors
    /// `Conflict` when the key was used before.
    pub async fn remember_request(
        &mut self,
        idempotency_key: &str,
        request_hash: [u8; 32],
        verification_id: &VerificationId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let model = requests::ActiveModel {
            idempotency_key: Set(idempotency_key.to_owned()),
            request_hash: Set(request_hash.to_vec()),
            verification_id: Set(verification_id.to_string()),
            at: Set(now.millis()),
        };
        requests::Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// The enrollment begins anew or ends: gives the open verification up as `ended`, and forgets
    /// the commands that are out. Returns the verification given up.
    pub async fn forget_queue(
        &mut self,
        device_id: &DeviceId,
        ended: State,
        now: Timestamp,
    ) -> Result<Option<VerificationId>, StoreError> {
        commands::supersede(self, device_id, now).await?;
        self.forget_relayed_of(device_id).await?;
        let Some(mut verification) = self.open_verification(device_id).await? else {
            return Ok(None);
        };
        verification.cancel(ended, now);
        self.save_verification(&verification).await?;
        Ok(Some(verification.verification_id))
    }
}

pub(super) fn save(verification: &Verification) -> Result<Edit, StoreError> {
    Ok(Edit::that_must_change(
        "INSERT INTO verifications \
         (verification_id, device_id, body, created_at, deadline, finished_at) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (verification_id) DO UPDATE SET body = excluded.body, \
         deadline = excluded.deadline, finished_at = excluded.finished_at \
         WHERE verifications.device_id = excluded.device_id",
        [
            Datum::text(&verification.verification_id),
            Datum::text(&verification.device_id),
            Datum::text(row::body("verification", verification)?),
            Datum::int(verification.created_at.millis()),
            Datum::int(verification.deadline.millis()),
            Datum::Int(verification.finished.as_ref().map(|end| end.at.millis())),
        ],
    ))
}

impl Row for Model {
    type Noun = Verification;
    const TABLE: &'static str = "verifications";

    fn id(&self) -> String {
        self.verification_id.clone()
    }

    fn noun(self) -> Option<Verification> {
        row::parsed(&self.body, serde_json::from_str)
    }
}

impl Row for requests::Model {
    type Noun = ([u8; 32], VerificationId);
    const TABLE: &'static str = "verification_requests";

    fn id(&self) -> String {
        self.idempotency_key.clone()
    }

    fn noun(self) -> Option<([u8; 32], VerificationId)> {
        Some((
            row::digest(&self.request_hash)?,
            row::parsed(&self.verification_id, VerificationId::parse)?,
        ))
    }
}
