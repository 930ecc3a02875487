//! The outbox: what others are told, numbered in the order in which it became true.

use std::fmt::Write as _;

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect, Statement};

use super::edit::{Datum, Edit};
use super::meta;
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

/// Events in the order of their numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    pub events: Vec<NumberedEvent>,
    /// Everything that is or ever will be numbered up to here, and after what was asked for, is in
    /// `events`.
    pub up_to: i64,
}

/// The fact that says up to which number events were removed.
pub(super) const REMOVED_UP_TO: &str = "events_removed_up_to";

impl Store {
    /// The events after `after`, at most `limit`. None is skipped for good: an event that is
    /// numbered earlier and committed later is waited for.
    pub async fn events_after(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<NumberedEvent>, StoreError> {
        Ok(self.event_page(after, limit).await?.events)
    }

    /// As [`Store::events_after`], with how far that went.
    pub async fn event_page(&self, after: i64, limit: usize) -> Result<EventPage, StoreError> {
        let newest = self.newest_event().await?;
        if newest <= after {
            return Ok(EventPage {
                events: Vec::new(),
                up_to: after,
            });
        }
        self.wait_for_the_late().await?;
        let found = Entity::find()
            .filter(Column::Seq.gt(after))
            .filter(Column::Seq.lte(newest))
            .order_by_asc(Column::Seq)
            .limit(row::limited(limit))
            .all(&self.0.connections.read)
            .await?;
        let events: Vec<NumberedEvent> = row::read_all(found)?;
        let up_to = match events.last() {
            Some(last) if events.len() >= limit => last.seq,
            _ => newest,
        };
        Ok(EventPage { events, up_to })
    }

    /// The number of the newest event that can be seen; 0 when there is none. An event that is
    /// numbered before it may still be committed: whoever goes on from here wants
    /// [`Store::settled_event`].
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

    /// When the first event after this one happened; `None` while there is none.
    pub async fn first_event_after(&self, seq: i64) -> Result<Option<Timestamp>, StoreError> {
        let found: Option<i64> = Entity::find()
            .select_only()
            .column(Column::At)
            .filter(Column::Seq.gt(seq))
            .order_by_asc(Column::Seq)
            .limit(1)
            .into_tuple()
            .one(&self.0.connections.read)
            .await?;
        Ok(found.map(Timestamp::from_millis))
    }

    /// A number up to which nothing will be committed any more: what is read of the state after
    /// this shows all of those events, and the events after it tell of everything later.
    pub async fn settled_event(&self) -> Result<i64, StoreError> {
        let newest = self.newest_event().await?;
        self.wait_for_the_late().await?;
        // All events may have been removed since.
        Ok(newest.max(self.events_removed_up_to().await?))
    }

    /// Up to which number events were removed: who has read no further misses some. 0 while none was.
    pub async fn events_removed_up_to(&self) -> Result<i64, StoreError> {
        removed_up_to(self.read().await?.fact(REMOVED_UP_TO).await?)
    }

    /// Whoever numbers events, or notes changes, shares this lock to its commit. Once it was had
    /// exclusively, everything numbered before is either visible or gone for good. SQLite has one
    /// writer at a time.
    pub(super) async fn wait_for_the_late(&self) -> Result<(), StoreError> {
        if !self.0.connections.backend.is_sqlite() {
            // One at a time: whoever waits holds a connection, of which there are few.
            let _turn = self.0.late.lock().await;
            let barrier = format!("SELECT pg_advisory_xact_lock({OUTBOX_LOCK})");
            self.0.connections.read.execute_unprepared(&barrier).await?;
        }
        Ok(())
    }
}

pub(super) fn removed_up_to(fact: Option<String>) -> Result<i64, StoreError> {
    let removed = fact.map(|fact| meta::number(REMOVED_UP_TO, &fact));
    Ok(removed.transpose()?.unwrap_or(0))
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

    /// Removes events of before `before`, the oldest first, and none after one that stays, nor one that
    /// a webhook was not told of or shared signals were not made of; at most about `limit` of them.
    /// Returns whether there may be more.
    pub async fn forget_events(
        &mut self,
        before: Timestamp,
        limit: i64,
    ) -> Result<bool, StoreError> {
        let told = self.webhooks().await?;
        let told = told.iter().map(|webhook| webhook.course.cursor);
        let told_up_to = told.chain(self.signals_made_up_to().await?).min();
        let removed = removed_up_to(self.fact_to_change(REMOVED_UP_TO).await?)?;
        let first_to_stay: Option<i64> = Entity::find()
            .select_only()
            .column(Column::Seq)
            .filter(Column::Seq.gt(removed))
            .filter(Column::At.gte(before.millis()))
            .order_by_asc(Column::Seq)
            .limit(1)
            .into_tuple()
            .one(self.tx())
            .await?;
        let last_to_go = match first_to_stay {
            Some(stays) => stays - 1,
            None => match self.newest_event_here().await? {
                Some(newest) => newest,
                None => return Ok(false),
            },
        };
        let last_to_go = last_to_go.min(told_up_to.unwrap_or(i64::MAX));
        let up_to = last_to_go.min(removed.saturating_add(limit));
        if up_to <= removed {
            return Ok(false);
        }
        Entity::delete_many()
            .filter(Column::Seq.lte(up_to))
            .exec(self.tx())
            .await?;
        self.set_fact(REMOVED_UP_TO, &up_to.to_string()).await?;
        Ok(up_to < last_to_go)
    }

    async fn newest_event_here(&self) -> Result<Option<i64>, StoreError> {
        let newest: Option<Option<i64>> = Entity::find()
            .select_only()
            .column_as(Column::Seq.max(), "newest")
            .into_tuple()
            .one(self.tx())
            .await?;
        Ok(newest.flatten())
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
