//! The texts of the policies that results were judged by: whoever reads an old result can read what
//! "affirming" meant.

use std::collections::HashMap;

use sea_orm::QuerySelect;
use sea_orm::entity::prelude::*;

use super::edit::{Datum, Edit};
use super::{Read, StoreError, Write};
use crate::posture::policy::Policy;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "policies")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub sha256: String,
        pub policy_id: String,
        pub first_used_at: i64,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity};

impl Read {
    /// The text of every policy that was ever used, by its SHA-256 in hexadecimal: one for each change of
    /// the configuration.
    pub async fn policies(&self) -> Result<HashMap<String, String>, StoreError> {
        let found: Vec<(String, String)> = Entity::find()
            .select_only()
            .column(Column::Sha256)
            .column(Column::Body)
            .into_tuple()
            .all(self.tx())
            .await?;
        Ok(found.into_iter().collect())
    }
}

impl Write {
    /// Keeps the text of a policy; one that is known stays as it is.
    pub async fn keep_policy(&mut self, policy: &Policy, now: Timestamp) -> Result<(), StoreError> {
        let keep = Edit::new(
            "INSERT INTO policies (sha256, policy_id, first_used_at, body) VALUES ($1, $2, $3, $4) \
             ON CONFLICT DO NOTHING",
            [
                Datum::text(&policy.sha256),
                Datum::text(&policy.id),
                Datum::int(now.millis()),
                Datum::text(&policy.text),
            ],
        );
        keep.apply(self.tx()).await
    }
}
