//! Wishes of people at the command line for fresh evidence, and what a server made of them.

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{AskedId, DeviceId, VerificationId};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::verification::Kind;

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub asked_id: AskedId,
    pub device_id: DeviceId,
    pub kinds: Vec<Kind>,
    /// Why, in the asker's words.
    pub occasion: String,
    pub asked_at: Timestamp,
    /// `None` until a server has looked at it.
    pub answered: Option<Answered>,
}

/// What a server made of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    Verification(VerificationId),
    Refused(Reason),
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "asked_verifications")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub asked_id: String,
        pub device_id: String,
        pub kinds: String,
        pub occasion: String,
        pub asked_at: i64,
        pub verification_id: Option<String>,
        pub refused: Option<String>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// The wish.
    pub async fn asked(&self, asked_id: &AskedId) -> Result<Option<Asked>, StoreError> {
        row::read_one(Entity::find_by_id(asked_id.as_str()).one(self.tx()).await?)
    }

    /// Wishes no server has looked at, the oldest first.
    pub async fn open_wishes(&self, limit: usize) -> Result<Vec<Asked>, StoreError> {
        let found = Entity::find()
            .filter(Column::VerificationId.is_null())
            .filter(Column::Refused.is_null())
            .order_by_asc(Column::AskedId)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Keeps a new wish.
    pub async fn insert_asked(&mut self, asked: &Asked) -> Result<(), StoreError> {
        let kinds: Vec<_> = asked.kinds.iter().map(|kind| kind.as_str()).collect();
        let (verification_id, refused) = columns(asked.answered.as_ref());
        let model = ActiveModel {
            asked_id: Set(asked.asked_id.to_string()),
            device_id: Set(asked.device_id.to_string()),
            kinds: Set(kinds.join(" ")),
            occasion: Set(asked.occasion.clone()),
            asked_at: Set(asked.asked_at.millis()),
            verification_id: Set(verification_id),
            refused: Set(refused),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// A server has looked at a wish.
    pub async fn answer_asked(
        &mut self,
        asked_id: &AskedId,
        answered: &Answered,
    ) -> Result<(), StoreError> {
        let (verification_id, refused) = columns(Some(answered));
        Entity::update_many()
            .col_expr(Column::VerificationId, Expr::value(verification_id))
            .col_expr(Column::Refused, Expr::value(refused))
            .filter(Column::AskedId.eq(asked_id.as_str()))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Forgets wishes of before.
    pub async fn forget_asked(&mut self, before: Timestamp) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::AskedAt.lt(before.millis()))
            .exec(self.tx())
            .await?;
        Ok(())
    }
}

fn columns(answered: Option<&Answered>) -> (Option<String>, Option<String>) {
    match answered {
        None => (None, None),
        Some(Answered::Verification(id)) => (Some(id.to_string()), None),
        Some(Answered::Refused(reason)) => (None, Some(reason.code().to_owned())),
    }
}

impl Row for Model {
    type Noun = Asked;
    const TABLE: &'static str = "asked_verifications";

    fn id(&self) -> String {
        self.asked_id.clone()
    }

    fn noun(self) -> Option<Asked> {
        let kinds = self.kinds.split(' ').map(Kind::from_word);
        let answered = match (self.verification_id.as_deref(), self.refused.as_deref()) {
            (None, None) => None,
            (Some(id), None) => Some(Answered::Verification(row::parsed(
                id,
                VerificationId::parse,
            )?)),
            (_, Some(code)) => Some(Answered::Refused(Reason::from_code(code)?)),
        };
        Some(Asked {
            asked_id: row::parsed(&self.asked_id, AskedId::parse)?,
            device_id: row::parsed(&self.device_id, DeviceId::parse)?,
            kinds: kinds.collect::<Option<_>>()?,
            occasion: self.occasion,
            asked_at: Timestamp::from_millis(self.asked_at),
            answered,
        })
    }
}
