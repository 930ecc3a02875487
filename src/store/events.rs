//! The outbox: what others are told, numbered in the order in which it became true.

use std::fmt::Write as _;

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect, Statement};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::transaction::OUTBOX_LOCK;
use super::{Store, StoreError, Write};
use crate::ids::DeviceId;
use crate::time::Timestamp;

/// Something others are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub at: Timestamp,
    pub body: serde_json::Value,
}

impl Event {
    /// Something of this name happened now.
    pub fn new(name: &str, now: Timestamp, body: serde_json::Value) -> Self {
        Self {
            name: name.to_owned(),
            at: now,
            body,
        }
    }
}

/// An event in the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberedEvent {
    /// Rises; there may be gaps.
    pub seq: i64,
    /// The Mac it is about; a provider session need not be about one.
    pub device_id: Option<DeviceId>,
    pub event: Event,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub seq: i64,
        pub device_id: String,
        pub name: String,
        pub at: i64,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

impl Store {
    /// The events after `after`, at most `limit`. None is skipped for good: an event that is
    /// numbered earlier and committed later is waited for.
    pub async fn events_after(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NumberedEvent>, StoreError> {
        let connection = &self.0.connections.read;
        let newest = self.newest_event().await?;
        if newest <= after {
            return Ok(Vec::new());
        }
        if !self.0.connections.backend.is_sqlite() {
            // Whoever numbers events shares this lock to its commit. Once it was had exclusively,
            // everything numbered before `newest` is either visible or gone for good.
            let barrier = format!("SELECT pg_advisory_xact_lock({OUTBOX_LOCK})");
            connection.execute_unprepared(&barrier).await?;
        }
        let found = Entity::find()
            .filter(Column::Seq.gt(after))
            .filter(Column::Seq.lte(newest))
            .order_by_asc(Column::Seq)
            .limit(row::limited(limit))
            .all(connection)
            .await?;
        row::read_all(found)
    }

    /// The number of the newest event that can be seen; 0 when there is none.
    pub async fn newest_event(&self) -> Result<i64, StoreError> {
        let connection = &self.0.connections.read;
        let statement = Statement::from_string(
            connection.get_database_backend(),
            "SELECT COALESCE(MAX(seq), 0) FROM events",
        );
        match connection.query_one_raw(statement).await? {
            Some(found) => Ok(found.try_get_by_index(0)?),
            None => Ok(0),
        }
    }
}

impl Write {
    /// Appends an event about a Mac.
    pub async fn append_event(
        &mut self,
        device_id: &DeviceId,
        event: &Event,
    ) -> Result<(), StoreError> {
        self.touch(device_id);
        self.append_event_about(Some(device_id), event).await
    }

    /// Appends an event about a provider session, and the Mac it is about, if there is one. The Mac
    /// itself does not change by it.
    pub async fn append_event_about(
        &mut self,
        device_id: Option<&DeviceId>,
        event: &Event,
    ) -> Result<(), StoreError> {
        self.lock_outbox().await?;
        if let Some(edit) = append(device_id, std::slice::from_ref(event))? {
            edit.apply(self.tx()).await?;
        }
        Ok(())
    }
}

/// One statement for all, so that they are numbered in the order given. `None` when there are none.
pub(super) fn append(
    device_id: Option<&DeviceId>,
    events: &[Event],
) -> Result<Option<Edit>, StoreError> {
    if events.is_empty() {
        return Ok(None);
    }
    let mut sql = String::from("INSERT INTO events (device_id, name, at, body) VALUES ");
    let mut values = Vec::with_capacity(1 + 3 * events.len());
    // The column knows no NULL since its first step, and SQLite changes no column.
    values.push(Datum::text(device_id.map_or("", DeviceId::as_str)));
    for (index, event) in events.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let first = 2 + 3 * index;
        let _ = write!(sql, "{comma}($1, ${first}, ${}, ${})", first + 1, first + 2);
        values.push(Datum::text(&event.name));
        values.push(Datum::int(event.at.millis()));
        values.push(Datum::text(row::body("event", &event.body)?));
    }
    Ok(Some(Edit::new(sql, values)))
}

impl Row for Model {
    type Noun = NumberedEvent;
    const TABLE: &'static str = "events";

    fn id(&self) -> String {
        self.seq.to_string()
    }

    fn noun(self) -> Option<NumberedEvent> {
        Some(NumberedEvent {
            seq: self.seq,
            device_id: row::parsed_if_any(
                Some(self.device_id.as_str()).filter(|id| !id.is_empty()),
                DeviceId::parse,
            )?,
            event: Event {
                name: self.name,
                at: Timestamp::from_millis(self.at),
                body: row::parsed(&self.body, serde_json::from_str)?,
            },
        })
    }
}
