//! The steps of an enrolment: the latest entry for each stands.

use sea_orm::entity::prelude::*;
use sea_orm::{Statement, Value};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::enrollment::trace::{Entry, Standing, Step};
use crate::ids::TicketId;
use crate::reason::Reason;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "steps")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub ticket_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub step: String,
        pub standing: String,
        pub at: i64,
        pub reason: Option<String>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Read {
    /// What is known of an enrolment's steps, in the order in which they happen.
    pub async fn steps(&self, ticket_id: &TicketId) -> Result<Vec<Entry>, StoreError> {
        let found = Entity::find()
            .filter(Column::TicketId.eq(ticket_id.as_str()))
            .all(self.tx())
            .await?;
        let mut entries = row::read_all(found)?;
        entries.sort_by_key(|entry: &Entry| entry.step);
        Ok(entries)
    }

    /// When the steps of an enrolment were done for the first time; those that never were are not among
    /// them.
    pub async fn first_done(
        &self,
        ticket_id: &TicketId,
    ) -> Result<Vec<(Step, Timestamp)>, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT step, first_done_at FROM steps \
             WHERE ticket_id = $1 AND first_done_at IS NOT NULL",
            [Value::from(ticket_id.as_str())],
        );
        let mut done = Vec::new();
        for found in self.tx().query_all_raw(statement).await? {
            let word: String = found.try_get_by_index(0)?;
            let step = Step::from_word(&word).ok_or_else(|| StoreError::Inconsistent {
                table: Model::TABLE,
                id: format!("{ticket_id}/{word}"),
            })?;
            done.push((step, Timestamp::from_millis(found.try_get_by_index(1)?)));
        }
        Ok(done)
    }
}

impl Write {
    /// Notes how a step stands. An entry older than the one kept changes nothing.
    ///
    /// # Errors
    /// `Conflict` when there is no such ticket.
    pub async fn put_step(
        &mut self,
        ticket_id: &TicketId,
        entry: &Entry,
    ) -> Result<(), StoreError> {
        self.step(ticket_id);
        put(ticket_id, entry).apply(self.tx()).await
    }
}

pub(super) fn put(ticket_id: &TicketId, entry: &Entry) -> Edit {
    let done = (entry.standing == Standing::Done).then_some(entry.at);
    Edit::new(
        "INSERT INTO steps (ticket_id, step, standing, at, reason, first_done_at) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (ticket_id, step) DO UPDATE \
         SET standing = excluded.standing, at = excluded.at, reason = excluded.reason, \
         first_done_at = COALESCE(steps.first_done_at, excluded.first_done_at) \
         WHERE excluded.at >= steps.at",
        [
            Datum::text(ticket_id),
            Datum::text(entry.step.as_str()),
            Datum::text(entry.standing.as_str()),
            Datum::int(entry.at.millis()),
            Datum::Text(entry.reason.map(|reason| reason.code().to_owned())),
            Datum::Int(row::millis(done)),
        ],
    )
}

impl Row for Model {
    type Noun = Entry;
    const TABLE: &'static str = "steps";

    fn id(&self) -> String {
        format!("{}/{}", self.ticket_id, self.step)
    }

    fn noun(self) -> Option<Entry> {
        Some(Entry {
            step: Step::from_word(&self.step)?,
            standing: Standing::from_word(&self.standing)?,
            at: Timestamp::from_millis(self.at),
            reason: match self.reason {
                None => None,
                Some(code) => Some(Reason::from_code(&code)?),
            },
        })
    }
}
