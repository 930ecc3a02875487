//! Enrollment tickets. A ticket is redeemed once, whoever tries at the same time.

use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, Store, StoreError, Write};
use crate::enrollment::{Protocol, Ticket};
use crate::ids::{SecretHash, SerialNumber, TicketId};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tickets")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub ticket_id: String,
        pub secret: Vec<u8>,
        pub progress_id: String,
        pub serial: Option<String>,
        pub account: Option<String>,
        pub se_public_key: Option<String>,
        pub protocol: String,
        pub created_at: i64,
        pub expires_at: i64,
        pub used_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(super) use table::Model;
use table::{ActiveModel, Column, Entity};

/// The columns of a ticket `t`, as [`Model::from_row`] reads them.
macro_rules! columns {
    () => {
        "t.ticket_id, t.secret, t.progress_id, t.serial, t.account, t.se_public_key, t.protocol, \
         t.created_at, t.expires_at, t.used_at"
    };
}
pub(super) use columns;

impl Model {
    /// How many columns it has.
    pub(super) const COLUMNS: usize = 10;

    /// A row that begins with [`columns!`].
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            ticket_id: row.get(0)?,
            secret: row.get(1)?,
            progress_id: row.get(2)?,
            serial: row.get(3)?,
            account: row.get(4)?,
            se_public_key: row.get(5)?,
            protocol: row.get(6)?,
            created_at: row.get(7)?,
            expires_at: row.get(8)?,
            used_at: row.get(9)?,
        })
    }
}

impl Store {
    /// The ticket whose secret has this hash, outside a transaction.
    pub async fn ticket_by_secret(&self, secret: SecretHash) -> Result<Option<Ticket>, StoreError> {
        if let Some(lookup) = &self.0.lookup {
            let found = lookup.one(
                concat!("SELECT ", columns!(), " FROM tickets t WHERE t.secret = $1"),
                [secret.as_bytes()],
                Model::from_row,
            )?;
            return row::read_one(found);
        }
        let found = Entity::find()
            .filter(Column::Secret.eq(secret.as_bytes().to_vec()))
            .one(&self.0.connections.read)
            .await?;
        row::read_one(found)
    }
}

impl Read {
    /// The ticket.
    pub async fn ticket(&self, ticket_id: &TicketId) -> Result<Option<Ticket>, StoreError> {
        row::read_one(
            Entity::find_by_id(ticket_id.as_str())
                .one(self.tx())
                .await?,
        )
    }

    /// The ticket whose secret has this hash.
    pub async fn ticket_by_secret(&self, secret: SecretHash) -> Result<Option<Ticket>, StoreError> {
        let found = Entity::find()
            .filter(Column::Secret.eq(secret.as_bytes().to_vec()))
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// The ticket whose progress is read under this name.
    pub async fn ticket_by_progress_id(
        &self,
        progress_id: &str,
    ) -> Result<Option<Ticket>, StoreError> {
        let found = Entity::find()
            .filter(Column::ProgressId.eq(progress_id))
            .one(self.tx())
            .await?;
        row::read_one(found)
    }
}

impl Write {
    /// Keeps a new ticket.
    ///
    /// # Errors
    /// `Conflict` when id, secret or progress id is taken.
    pub async fn insert_ticket(&mut self, ticket: &Ticket) -> Result<(), StoreError> {
        let model = ActiveModel {
            ticket_id: Set(ticket.ticket_id.to_string()),
            secret: Set(ticket.secret.as_bytes().to_vec()),
            progress_id: Set(ticket.progress_id.clone()),
            serial: Set(ticket.serial.as_ref().map(ToString::to_string)),
            account: Set(ticket.account.clone()),
            se_public_key: Set(ticket.se_public_key.clone()),
            protocol: Set(ticket.protocol.as_str().to_owned()),
            created_at: Set(ticket.created_at.millis()),
            expires_at: Set(ticket.expires_at.millis()),
            used_at: Set(row::millis(ticket.used_at)),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Uses the ticket up. False when it was used before or has expired: of any number of attempts,
    /// one gets true.
    pub async fn redeem(
        &mut self,
        ticket_id: &TicketId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        match redeem(ticket_id, now).apply(self.tx()).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Uses a ticket up; a `Conflict` when it was used before or has expired.
pub(super) fn redeem(ticket_id: &TicketId, now: Timestamp) -> Edit {
    Edit::that_must_change(
        "UPDATE tickets SET used_at = $1 \
         WHERE ticket_id = $2 AND used_at IS NULL AND expires_at > $3",
        [
            Datum::int(now.millis()),
            Datum::text(ticket_id),
            Datum::int(now.millis()),
        ],
    )
}

impl Row for Model {
    type Noun = Ticket;
    const TABLE: &'static str = "tickets";

    fn id(&self) -> String {
        self.ticket_id.clone()
    }

    fn noun(self) -> Option<Ticket> {
        Some(Ticket {
            ticket_id: row::parsed(&self.ticket_id, TicketId::parse)?,
            secret: SecretHash::from_bytes(row::digest(&self.secret)?),
            progress_id: self.progress_id,
            serial: row::parsed_if_any(self.serial.as_deref(), SerialNumber::parse)?,
            account: self.account,
            se_public_key: self.se_public_key,
            protocol: Protocol::from_word(&self.protocol)?,
            created_at: Timestamp::from_millis(self.created_at),
            expires_at: Timestamp::from_millis(self.expires_at),
            used_at: row::time(self.used_at),
        })
    }
}
