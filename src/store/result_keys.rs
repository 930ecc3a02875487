//! The keys that results are signed by. The private halves are sealed; none is ever removed, because
//! old results are checked by the public halves.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect, sea_query::Expr};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::publication::jwk::Algorithm;
use crate::publication::keyring::ResultKey;
use crate::secret::Secret;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "result_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        pub alg: String,
        pub generation: i64,
        pub jwk: String,
        pub key_sealed: Vec<u8>,
        pub made_at: i64,
        pub signs_from: i64,
        pub signs_until: Option<i64>,
        pub withdrawn_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// Every key there ever was, the first made first.
    pub async fn result_keys(&self) -> Result<Vec<ResultKey>, StoreError> {
        let found = Entity::find()
            .order_by_asc(Column::MadeAt)
            .order_by_asc(Column::Generation)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// The private half of a key: PKCS #8, DER.
    ///
    /// # Errors
    /// `Unsealable`, besides what every look-up may meet.
    pub async fn result_key_pkcs8(&self, kid: &str) -> Result<Option<Secret<Vec<u8>>>, StoreError> {
        let sealed: Option<Vec<u8>> = Entity::find_by_id(kid)
            .select_only()
            .column(Column::KeySealed)
            .into_tuple()
            .one(self.tx())
            .await?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let plain = self.inner().sealer.open(&place(kid), &sealed);
        let plain = plain.map_err(|source| StoreError::Unsealable {
            table: Model::TABLE,
            id: kid.to_owned(),
            source,
        })?;
        Ok(Some(Secret::new(plain)))
    }
}

impl Write {
    /// Keeps a new key.
    ///
    /// # Errors
    /// `Conflict` when somebody else keeps another one at the same moment.
    pub async fn keep_result_key(
        &mut self,
        key: &ResultKey,
        pkcs8: &Secret<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let alg = key.jwk.alg.as_str();
        let newest: Option<Option<i64>> = Entity::find()
            .select_only()
            .column_as(Column::Generation.max(), "newest")
            .filter(Column::Alg.eq(alg))
            .into_tuple()
            .one(self.tx())
            .await?;
        let kid = &key.jwk.kid;
        let model = ActiveModel {
            kid: Set(kid.clone()),
            alg: Set(alg.to_owned()),
            generation: Set(newest.flatten().unwrap_or(0) + 1),
            jwk: Set(row::body("key", &key.jwk)?),
            key_sealed: Set(self.inner().sealer.seal(&place(kid), pkcs8.expose())),
            made_at: Set(key.made_at.millis()),
            signs_from: Set(key.signs_from.millis()),
            signs_until: Set(row::millis(key.signs_until)),
            withdrawn_at: Set(row::millis(key.withdrawn_at)),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// The keys of this algorithm that sign without an end sign no more from then on.
    pub async fn end_result_keys(
        &mut self,
        alg: Algorithm,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        Entity::update_many()
            .col_expr(Column::SignsUntil, Expr::value(until.millis()))
            .filter(Column::Alg.eq(alg.as_str()))
            .filter(Column::SignsUntil.is_null())
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// A key signs no more from then on.
    pub async fn end_result_key(&mut self, kid: &str, until: Timestamp) -> Result<(), StoreError> {
        Entity::update_many()
            .col_expr(Column::SignsUntil, Expr::value(until.millis()))
            .filter(Column::Kid.eq(kid))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Nothing signed by this key counts any more. False when there is no such key, or it was so
    /// before.
    pub async fn withdraw_result_key(
        &mut self,
        kid: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = Entity::update_many()
            .col_expr(Column::WithdrawnAt, Expr::value(now.millis()))
            .filter(Column::Kid.eq(kid))
            .filter(Column::WithdrawnAt.is_null())
            .exec(self.tx())
            .await?;
        Ok(done.rows_affected > 0)
    }
}

/// Where the sealed key belongs.
fn place(kid: &str) -> String {
    format!("result_keys.key_sealed:{kid}")
}

impl Row for Model {
    type Noun = ResultKey;
    const TABLE: &'static str = "result_keys";

    fn id(&self) -> String {
        self.kid.clone()
    }

    fn noun(self) -> Option<ResultKey> {
        let jwk: crate::publication::jwk::Jwk = row::parsed(&self.jwk, serde_json::from_str)?;
        if jwk.kid != self.kid || Algorithm::from_word(&self.alg) != Some(jwk.alg) {
            return None;
        }
        Some(ResultKey {
            jwk,
            made_at: Timestamp::from_millis(self.made_at),
            signs_from: Timestamp::from_millis(self.signs_from),
            signs_until: row::time(self.signs_until),
            withdrawn_at: row::time(self.withdrawn_at),
        })
    }
}
