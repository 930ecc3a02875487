//! Keys that were made here for push certificates that are still to come; sealed.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::PushRequestId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// A request for a push certificate, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest {
    pub push_request_id: PushRequestId,
    pub apple_account: Option<String>,
    /// The public key, SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
    /// PKCS #8, DER.
    pub private_key: Secret<Vec<u8>>,
    pub requested_at: Timestamp,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "push_requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub push_request_id: String,
        pub apple_account: Option<String>,
        pub spki: Vec<u8>,
        pub csr: Vec<u8>,
        pub key_sealed: Vec<u8>,
        pub requested_at: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// Requests that no certificate came for yet, the newest first.
    pub async fn push_requests(&self) -> Result<Vec<PushRequest>, StoreError> {
        let found = Entity::find()
            .order_by_desc(Column::PushRequestId)
            .all(self.tx())
            .await?;
        found.into_iter().map(|row| self.opened(row)).collect()
    }

    /// The request with this public key.
    pub async fn push_request_for(&self, spki: &[u8]) -> Result<Option<PushRequest>, StoreError> {
        let found = Entity::find()
            .filter(Column::Spki.eq(spki.to_vec()))
            .one(self.tx())
            .await?;
        found.map(|row| self.opened(row)).transpose()
    }

    fn opened(&self, row: Model) -> Result<PushRequest, StoreError> {
        let key = self
            .inner()
            .sealer
            .open(&place(&row.push_request_id), &row.key_sealed)
            .map_err(|source| StoreError::Unsealable {
                table: "push_requests",
                id: row.push_request_id.clone(),
                source,
            })?;
        row::read(Opened {
            row,
            key: Secret::new(key),
        })
    }
}

impl Write {
    /// Keeps a request and its key.
    pub async fn insert_push_request(&mut self, request: &PushRequest) -> Result<(), StoreError> {
        let id = request.push_request_id.to_string();
        let key_sealed = self
            .inner()
            .sealer
            .seal(&place(&id), request.private_key.expose());
        let model = ActiveModel {
            push_request_id: Set(id),
            apple_account: Set(request.apple_account.clone()),
            spki: Set(request.spki.clone()),
            csr: Set(request.csr.clone()),
            key_sealed: Set(key_sealed),
            requested_at: Set(request.requested_at.millis()),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Forgets a request and its key; false when there is none.
    pub async fn forget_push_request(&mut self, id: &PushRequestId) -> Result<bool, StoreError> {
        let gone = Entity::delete_by_id(id.as_str()).exec(self.tx()).await?;
        Ok(gone.rows_affected > 0)
    }
}

/// Where the sealed key belongs.
fn place(id: &str) -> String {
    format!("push_requests.key_sealed:{id}")
}

/// A row and its private key in clear.
struct Opened {
    row: Model,
    key: Secret<Vec<u8>>,
}

impl Row for Opened {
    type Noun = PushRequest;
    const TABLE: &'static str = "push_requests";

    fn id(&self) -> String {
        self.row.push_request_id.clone()
    }

    fn noun(self) -> Option<PushRequest> {
        let row = self.row;
        Some(PushRequest {
            push_request_id: row::parsed(&row.push_request_id, PushRequestId::parse)?,
            apple_account: row.apple_account,
            spki: row.spki,
            csr: row.csr,
            private_key: self.key,
            requested_at: Timestamp::from_millis(row.requested_at),
        })
    }
}
