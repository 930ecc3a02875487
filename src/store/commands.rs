//! Commands as handed over.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, sea_query::Expr};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{CertificateHash, CommandUuid, DeviceId, VerificationId};
use crate::time::Timestamp;
use crate::verification::{Command, CommandState, Kind};

pub(super) mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "commands")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub command_uuid: String,
        pub device_id: String,
        pub verification_id: String,
        pub kind: String,
        pub identity: Vec<u8>,
        pub state: String,
        pub handed_over_at: i64,
        pub concluded_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// The command.
    pub async fn command(&self, command_uuid: &CommandUuid) -> Result<Option<Command>, StoreError> {
        let found = Entity::find_by_id(command_uuid.as_str())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// The commands of a Mac that were never answered nor replaced, the oldest first.
    pub async fn outstanding_commands(
        &self,
        device_id: &DeviceId,
    ) -> Result<Vec<Command>, StoreError> {
        let found = Entity::find()
            .filter(Column::DeviceId.eq(device_id.as_str()))
            .filter(Column::ConcludedAt.is_null())
            .filter(Column::State.eq(CommandState::Outstanding.as_str()))
            .order_by_asc(Column::HandedOverAt)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// Keeps a command, new or changed.
    ///
    /// # Errors
    /// `Conflict` when it belongs to another Mac, or its verification is not known.
    pub async fn save_command(&mut self, command: &Command) -> Result<(), StoreError> {
        self.touch(&command.device_id);
        save(command).apply(self.tx()).await
    }
}

/// No outstanding command of this Mac will be answered.
pub(super) async fn supersede(
    write: &mut Write,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<(), StoreError> {
    write.touch(device_id);
    Entity::update_many()
        .col_expr(
            Column::State,
            Expr::value(CommandState::Superseded.as_str()),
        )
        .col_expr(Column::ConcludedAt, Expr::value(now.millis()))
        .filter(Column::DeviceId.eq(device_id.as_str()))
        .filter(Column::ConcludedAt.is_null())
        .exec(write.tx())
        .await?;
    Ok(())
}

/// A command that is handed over takes the place of an earlier one of its kind: a Mac that asks for
/// work has not got the earlier one, and at most one question of a kind is out.
///
/// What is outstanding is not concluded: saying so makes it a look-up by index, where a state that is
/// bound later would walk through every command there ever was.
pub(super) fn supersede_earlier(command: &Command) -> Option<Edit> {
    (command.state == CommandState::Outstanding).then(|| {
        Edit::new(
            "UPDATE commands SET state = $1, concluded_at = $2 \
             WHERE device_id = $3 AND kind = $4 AND command_uuid <> $5 AND state = $6 \
             AND concluded_at IS NULL",
            [
                Datum::text(CommandState::Superseded.as_str()),
                Datum::int(command.handed_over_at.millis()),
                Datum::text(&command.device_id),
                Datum::text(command.kind.as_str()),
                Datum::text(&command.command_uuid),
                Datum::text(CommandState::Outstanding.as_str()),
            ],
        )
    })
}

pub(super) fn save(command: &Command) -> Edit {
    Edit::that_must_change(
        "INSERT INTO commands (command_uuid, device_id, verification_id, kind, identity, state, \
         handed_over_at, concluded_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (command_uuid) DO UPDATE SET verification_id = excluded.verification_id, \
         identity = excluded.identity, state = excluded.state, \
         handed_over_at = excluded.handed_over_at, concluded_at = excluded.concluded_at \
         WHERE commands.device_id = excluded.device_id",
        [
            Datum::text(&command.command_uuid),
            Datum::text(&command.device_id),
            Datum::text(&command.verification_id),
            Datum::text(command.kind.as_str()),
            Datum::bytes(*command.identity.as_bytes()),
            Datum::text(command.state.as_str()),
            Datum::int(command.handed_over_at.millis()),
            Datum::Int(row::millis(command.concluded_at)),
        ],
    )
}

impl Row for Model {
    type Noun = Command;
    const TABLE: &'static str = "commands";

    fn id(&self) -> String {
        self.command_uuid.clone()
    }

    fn noun(self) -> Option<Command> {
        Some(Command {
            command_uuid: row::parsed(&self.command_uuid, CommandUuid::parse)?,
            device_id: row::parsed(&self.device_id, DeviceId::parse)?,
            verification_id: row::parsed(&self.verification_id, VerificationId::parse)?,
            kind: Kind::from_word(&self.kind)?,
            identity: CertificateHash::from_bytes(row::digest(&self.identity)?),
            state: CommandState::from_word(&self.state)?,
            handed_over_at: Timestamp::from_millis(self.handed_over_at),
            concluded_at: row::time(self.concluded_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use migrations::{Migrator, MigratorTrait as _};
    use sea_orm::{ConnectOptions, Database, DbBackend, Statement};

    use super::*;
    use crate::entropy::SeededEntropy;

    /// A hand-over is on the hot path: what it costs must not grow with the commands there ever were.
    #[tokio::test]
    async fn an_earlier_command_is_found_by_the_index_of_what_is_outstanding() {
        let (now, entropy) = (Timestamp::from_millis(0), SeededEntropy::new(1));
        let edit = supersede_earlier(&Command {
            command_uuid: CommandUuid::new(&entropy),
            device_id: DeviceId::new(now, &entropy),
            verification_id: VerificationId::new(now, &entropy),
            kind: Kind::SecurityInfo,
            identity: CertificateHash::of(b"the Mac"),
            state: CommandState::Outstanding,
            handed_over_at: now,
            concluded_at: None,
        });
        let edit = edit.expect("it is outstanding");
        let mut options = ConnectOptions::new("sqlite::memory:");
        options.max_connections(1);
        let database = Database::connect(options).await.expect("opens");
        Migrator::up(&database, None).await.expect("migrates");
        let sql = format!("EXPLAIN QUERY PLAN {}", edit.sql);
        let values = edit.values.into_iter().map(sea_orm::Value::from);
        let explain = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
        let steps = database.query_all_raw(explain).await.expect("explains");
        let plan: Vec<String> = steps
            .iter()
            .map(|step| step.try_get_by_index(3).expect("a text"))
            .collect();
        let found = |step: &String| step.contains("USING INDEX outstanding_commands");
        assert!(plan.len() == 1 && plan.iter().all(found), "{plan:?}");
    }
}
