//! Commands relayed for an old coordinator: by which name it knows them, which question answers them,
//! and what it is still to be told.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{CommandUuid, DeviceId};
use crate::mdm::foreign::Spelled;
use crate::reason::Reason;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::verification::Kind;

/// A command as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// The name it was promised, or chose.
    pub name: Spelled,
    pub device_id: DeviceId,
    pub kind: Kind,
    pub asked_at: Timestamp,
    /// A question that is handed over later is not its answer any more.
    pub waits_until: Timestamp,
    /// The command that answers it, once one was handed over.
    pub asked: Option<CommandUuid>,
    pub answer: Option<RelayedAnswer>,
}

/// What the coordinator is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayedAnswer {
    /// Apple's word.
    pub status: String,
    /// The Mac's reply, byte for byte. A reply may hold what nobody else keeps of it: it is stored
    /// sealed, and until it was told.
    pub reply: Secret<Vec<u8>>,
    pub at: Timestamp,
    /// When it is tried to tell, and how often that was.
    pub tell_at: Timestamp,
    pub tries: u32,
}

/// What a message of a Mac does to commands that are relayed.
#[derive(Debug, Clone)]
pub enum Relay {
    /// A question of this kind was handed over: whoever waits for one waits for this.
    Asked {
        kind: Kind,
        asked: CommandUuid,
        at: Timestamp,
    },
    /// It was answered.
    Answered {
        asked: CommandUuid,
        status: String,
        /// The reply, sealed for [`relayed_place`].
        sealed: Vec<u8>,
        at: Timestamp,
    },
    /// It was answered by something that is not passed on.
    Withheld {
        asked: CommandUuid,
        reason: Reason,
        at: Timestamp,
    },
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "relayed_commands")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub command_uuid: String,
        pub spelled: String,
        pub device_id: String,
        pub kind: String,
        pub asked_at: i64,
        pub waits_until: i64,
        pub asked: Option<String>,
        pub status: Option<String>,
        pub sealed: Option<Vec<u8>>,
        pub answered_at: Option<i64>,
        pub tell_at: Option<i64>,
        pub tries: i64,
        pub outcome: Option<String>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

/// Where the replies of a Mac are sealed for.
pub fn relayed_place(device_id: &DeviceId) -> String {
    format!("relayed_commands.sealed:{device_id}")
}

impl Read {
    /// The relayed command of this name.
    pub async fn relayed(&self, command_uuid: &CommandUuid) -> Result<Option<Relayed>, StoreError> {
        let found = Entity::find_by_id(command_uuid.as_str())
            .one(self.tx())
            .await?;
        found.map(|row| self.open_relayed(row)).transpose()
    }

    /// How many commands of a Mac are neither told nor given up.
    pub async fn relayed_waiting(
        &self,
        device_id: &DeviceId,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::Outcome.is_null())
            .filter(Column::WaitsUntil.gt(now.millis()))
            .count(self.tx())
            .await?)
    }

    /// Answers that are to be told now, the oldest first.
    pub async fn relayed_to_tell(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Relayed>, StoreError> {
        let found = Entity::find()
            .filter(Column::TellAt.lte(now.millis()))
            .order_by_asc(Column::TellAt)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        found
            .into_iter()
            .map(|row| self.open_relayed(row))
            .collect()
    }

    /// What became of a relayed command: `told`, `given_up`, or why its answer was withheld.
    pub async fn relayed_outcome(
        &self,
        command_uuid: &CommandUuid,
    ) -> Result<Option<String>, StoreError> {
        let found = Entity::find_by_id(command_uuid.as_str())
            .one(self.tx())
            .await?;
        Ok(found.and_then(|row| row.outcome))
    }

    fn open_relayed(&self, row: Model) -> Result<Relayed, StoreError> {
        let reply = match &row.sealed {
            None => None,
            Some(sealed) => {
                let place = format!("relayed_commands.sealed:{}", row.device_id);
                let opened = self.inner().sealer.open(&place, sealed);
                Some(Secret::new(opened.map_err(|source| {
                    StoreError::Unsealable {
                        table: "relayed_commands",
                        id: row.command_uuid.clone(),
                        source,
                    }
                })?))
            }
        };
        row::read(Opened { row, reply })
    }
}

impl Write {
    /// Keeps a new relayed command.
    ///
    /// # Errors
    /// `Conflict` when its name is taken.
    pub async fn insert_relayed(&mut self, relayed: &Relayed) -> Result<(), StoreError> {
        let answer = relayed.answer.as_ref();
        let place = relayed_place(&relayed.device_id);
        let seal = |reply: &Secret<Vec<u8>>| self.inner().sealer.seal(&place, reply.expose());
        let model = ActiveModel {
            command_uuid: Set(relayed.name.command_uuid().to_string()),
            spelled: Set(relayed.name.to_string()),
            device_id: Set(relayed.device_id.to_string()),
            kind: Set(relayed.kind.as_str().to_owned()),
            asked_at: Set(relayed.asked_at.millis()),
            waits_until: Set(relayed.waits_until.millis()),
            asked: Set(relayed.asked.as_ref().map(ToString::to_string)),
            status: Set(answer.map(|answer| answer.status.clone())),
            sealed: Set(answer.map(|answer| seal(&answer.reply))),
            answered_at: Set(answer.map(|answer| answer.at.millis())),
            tell_at: Set(answer.map(|answer| answer.tell_at.millis())),
            tries: Set(0),
            outcome: Set(None),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Nobody else tells it before `until`. False when somebody else was faster.
    pub async fn take_relayed(
        &mut self,
        relayed: &Relayed,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(answer) = &relayed.answer else {
            return Ok(false);
        };
        let outcome = Entity::update_many()
            .col_expr(Column::TellAt, Expr::value(until.millis()))
            .filter(Column::CommandUuid.eq(relayed.name.command_uuid().as_str()))
            .filter(Column::TellAt.eq(answer.tell_at.millis()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }

    /// It could not be told, and is tried again then.
    pub async fn put_off_relayed(
        &mut self,
        command_uuid: &CommandUuid,
        tell_at: Timestamp,
    ) -> Result<(), StoreError> {
        let edit = Edit::new(
            "UPDATE relayed_commands SET tell_at = $1, tries = tries + 1 \
             WHERE command_uuid = $2 AND outcome IS NULL",
            [Datum::int(tell_at.millis()), Datum::text(command_uuid)],
        );
        edit.apply(self.tx()).await
    }

    /// There is nothing more to tell, and the reply is forgotten.
    pub async fn end_relayed(
        &mut self,
        command_uuid: &CommandUuid,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let edit = Edit::new(
            "UPDATE relayed_commands SET outcome = $1, sealed = NULL, tell_at = NULL \
             WHERE command_uuid = $2",
            [Datum::text(outcome), Datum::text(command_uuid)],
        );
        edit.apply(self.tx()).await
    }

    /// The Mac's enrollment began anew or ended: nobody answers what was asked before.
    pub(super) async fn forget_relayed_of(
        &mut self,
        device_id: &DeviceId,
    ) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::AnsweredAt.is_null())
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Forgets what was asked before then.
    pub async fn forget_relayed(&mut self, before: Timestamp) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::AskedAt.lt(before.millis()))
            .exec(self.tx())
            .await?;
        Ok(())
    }
}

/// What a message of this Mac does to them.
pub(super) fn follow(device_id: &DeviceId, relay: Relay) -> Edit {
    match relay {
        Relay::Asked { kind, asked, at } => Edit::new(
            "UPDATE relayed_commands SET asked = $1 WHERE device_id = $2 AND kind = $3 \
             AND answered_at IS NULL AND waits_until > $4",
            [
                Datum::text(&asked),
                Datum::text(device_id),
                Datum::text(kind.as_str()),
                Datum::int(at.millis()),
            ],
        ),
        Relay::Answered {
            asked,
            status,
            sealed,
            at,
        } => Edit::new(
            "UPDATE relayed_commands SET status = $1, sealed = $2, answered_at = $3, tell_at = $4 \
             WHERE asked = $5 AND device_id = $6 AND answered_at IS NULL",
            [
                Datum::text(status),
                Datum::bytes(sealed),
                Datum::int(at.millis()),
                Datum::int(at.millis()),
                Datum::text(&asked),
                Datum::text(device_id),
            ],
        ),
        Relay::Withheld { asked, reason, at } => Edit::new(
            "UPDATE relayed_commands SET outcome = $1, answered_at = $2 \
             WHERE asked = $3 AND device_id = $4 AND answered_at IS NULL",
            [
                Datum::text(reason.code()),
                Datum::int(at.millis()),
                Datum::text(&asked),
                Datum::text(device_id),
            ],
        ),
    }
}

/// A row whose reply was opened.
struct Opened {
    row: Model,
    reply: Option<Secret<Vec<u8>>>,
}

impl Row for Opened {
    type Noun = Relayed;
    const TABLE: &'static str = "relayed_commands";

    fn id(&self) -> String {
        self.row.command_uuid.clone()
    }

    fn noun(self) -> Option<Relayed> {
        let Self { row, reply } = self;
        let answer = match (row.status, reply, row.answered_at, row.tell_at) {
            (Some(status), Some(reply), Some(at), Some(tell_at)) => Some(RelayedAnswer {
                status,
                reply,
                at: Timestamp::from_millis(at),
                tell_at: Timestamp::from_millis(tell_at),
                tries: u32::try_from(row.tries).ok()?,
            }),
            _ => None,
        };
        Some(Relayed {
            name: row::parsed(&row.spelled, Spelled::parse)?,
            device_id: row::parsed(&row.device_id, DeviceId::parse)?,
            kind: Kind::from_word(&row.kind)?,
            asked_at: Timestamp::from_millis(row.asked_at),
            waits_until: Timestamp::from_millis(row.waits_until),
            asked: row::parsed_if_any(row.asked.as_deref(), CommandUuid::parse)?,
            answer,
        })
    }
}
