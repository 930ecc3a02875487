//! Bearer tokens of the internal API; only their hashes are kept.

use std::sync::Arc;
use std::time::Instant;

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, sea_query::Expr};

use super::board::Key;
use super::row::{self, Row};
use super::{Read, Store, StoreError, Write};
use crate::ids::{ApiTokenId, SecretHash};
use crate::time::Timestamp;

/// A bearer token of the internal API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    pub api_token_id: ApiTokenId,
    pub secret: SecretHash,
    /// What it may be used for, as the internal API names it.
    pub role: String,
    /// Who has it, in the operator's words.
    pub label: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// When it let somebody in last, as far as it was written down; every few seconds at most.
    pub last_used_at: Option<Timestamp>,
}

impl ApiToken {
    /// Whether it is neither withdrawn nor over.
    pub fn is_good_at(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub api_token_id: String,
        pub secret: Vec<u8>,
        pub role: String,
        pub label: String,
        pub created_at: i64,
        pub expires_at: Option<i64>,
        pub revoked_at: Option<i64>,
        pub last_used_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Store {
    /// The token with this hash, be it expired or revoked; as it was at most
    /// [`TOKEN_KEPT`](super::TOKEN_KEPT) ago, if it was there. That it is used now is noted whenever it is read.
    pub async fn api_token(
        &self,
        secret: SecretHash,
        now: Timestamp,
    ) -> Result<Option<Arc<ApiToken>>, StoreError> {
        if let Some(token) = self.board().token(&secret) {
            return Ok(Some(token));
        }
        // Apart: the state of a question to the database is kilobytes, which every answer would move.
        Box::pin(self.load_api_token(secret, now)).await
    }

    async fn load_api_token(
        &self,
        secret: SecretHash,
        now: Timestamp,
    ) -> Result<Option<Arc<ApiToken>>, StoreError> {
        let fill = self.board().begin();
        let read_at = Instant::now();
        let token = self.read().await?.api_token_by_secret(secret).await?;
        let token = token.map(Arc::new);
        if let Some(token) = &token {
            if token.is_good_at(now) {
                self.0.token_use.note(&token.api_token_id, now);
            }
            fill.keep_token(token, read_at);
        }
        Ok(token)
    }
}

impl Read {
    /// The token with this hash, be it expired or revoked.
    pub async fn api_token_by_secret(
        &self,
        secret: SecretHash,
    ) -> Result<Option<ApiToken>, StoreError> {
        let found = Entity::find()
            .filter(Column::Secret.eq(secret.as_bytes().to_vec()))
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// Every token, the oldest first.
    pub async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        let found = Entity::find()
            .order_by_asc(Column::ApiTokenId)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Keeps a new token.
    ///
    /// # Errors
    /// `Conflict` when id or secret is taken.
    pub async fn insert_api_token(&mut self, token: &ApiToken) -> Result<(), StoreError> {
        let model = ActiveModel {
            api_token_id: Set(token.api_token_id.to_string()),
            secret: Set(token.secret.as_bytes().to_vec()),
            role: Set(token.role.clone()),
            label: Set(token.label.clone()),
            created_at: Set(token.created_at.millis()),
            expires_at: Set(row::millis(token.expires_at)),
            revoked_at: Set(row::millis(token.revoked_at)),
            last_used_at: Set(row::millis(token.last_used_at)),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Withdraws a token. False when it was withdrawn before, or there is none.
    pub async fn revoke_api_token(
        &mut self,
        api_token_id: &ApiTokenId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.changes(Key::Tokens);
        let outcome = Entity::update_many()
            .col_expr(Column::RevokedAt, Expr::value(now.millis()))
            .filter(Column::ApiTokenId.eq(api_token_id.as_str()))
            .filter(Column::RevokedAt.is_null())
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }
}

impl Row for Model {
    type Noun = ApiToken;
    const TABLE: &'static str = "api_tokens";

    fn id(&self) -> String {
        self.api_token_id.clone()
    }

    fn noun(self) -> Option<ApiToken> {
        Some(ApiToken {
            api_token_id: row::parsed(&self.api_token_id, ApiTokenId::parse)?,
            secret: SecretHash::from_bytes(row::digest(&self.secret)?),
            role: self.role,
            label: self.label,
            created_at: Timestamp::from_millis(self.created_at),
            expires_at: row::time(self.expires_at),
            revoked_at: row::time(self.revoked_at),
            last_used_at: row::time(self.last_used_at),
        })
    }
}
