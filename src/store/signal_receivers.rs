//! Receivers of shared signals: OAuth clients. Of their secrets only hashes are kept.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{ReceiverId, ReceiverName, SecretHash};
use crate::publication::shared_signals::access::Scope;
use crate::publication::shared_signals::receiver::Receiver;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal_receivers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub receiver_id: String,
        pub name: String,
        pub secret: Vec<u8>,
        pub audience: String,
        pub scope: String,
        pub allow_private: bool,
        pub root: Option<String>,
        pub created_at: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

impl Read {
    /// Every receiver, the first made first.
    pub async fn signal_receivers(&self) -> Result<Vec<Receiver>, StoreError> {
        let found = Entity::find()
            .order_by_asc(Column::ReceiverId)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// A receiver by its id.
    pub async fn signal_receiver(
        &self,
        receiver_id: &ReceiverId,
    ) -> Result<Option<Receiver>, StoreError> {
        let found = Entity::find_by_id(receiver_id.as_str())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

impl Write {
    /// Keeps a new receiver.
    ///
    /// # Errors
    /// `Conflict` when its name is taken.
    pub async fn insert_signal_receiver(&mut self, receiver: &Receiver) -> Result<(), StoreError> {
        let model = ActiveModel {
            receiver_id: Set(receiver.receiver_id.to_string()),
            name: Set(receiver.name.to_string()),
            secret: Set(receiver.secret.as_bytes().to_vec()),
            audience: Set(receiver.audience.clone()),
            scope: Set(receiver.scope.to_string()),
            allow_private: Set(receiver.allow_private),
            root: Set(receiver.root.clone()),
            created_at: Set(receiver.created_at.millis()),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Removes a receiver, its stream, and what waits in it. False when there is none of this name.
    pub async fn remove_signal_receiver(
        &mut self,
        name: &ReceiverName,
    ) -> Result<bool, StoreError> {
        let outcome = Entity::delete_many()
            .filter(Column::Name.eq(name.as_str()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }
}

impl Row for Model {
    type Noun = Receiver;
    const TABLE: &'static str = "signal_receivers";

    fn id(&self) -> String {
        self.receiver_id.clone()
    }

    fn noun(self) -> Option<Receiver> {
        Some(Receiver {
            receiver_id: row::parsed(&self.receiver_id, ReceiverId::parse)?,
            name: row::parsed(&self.name, ReceiverName::parse)?,
            secret: SecretHash::from_bytes(row::digest(&self.secret)?),
            audience: self.audience,
            scope: Scope::parse(&self.scope)?,
            allow_private: self.allow_private,
            root: self.root,
            created_at: Timestamp::from_millis(self.created_at),
        })
    }
}
