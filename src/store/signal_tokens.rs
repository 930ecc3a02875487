//! Tokens that wait for their receivers, the last word that was known of each Mac, and how far the
//! outbox was read for both.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write, meta};
use crate::ids::{DeviceId, StreamId};
use crate::publication::shared_signals::compliance::Compliance;
use crate::publication::shared_signals::event_token::Claims;
use crate::time::Timestamp;

/// A token to be kept until it was delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSignal {
    /// The Mac it is about; none where it is about the stream.
    pub device_id: Option<DeviceId>,
    pub at: Timestamp,
    pub claims: Claims,
}

/// A token that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldSignal {
    /// Rises within a stream; there are gaps.
    pub seq: i64,
    pub device_id: Option<DeviceId>,
    /// Since when.
    pub at: Timestamp,
    pub claims: Claims,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal_tokens")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub seq: i64,
        pub stream_id: String,
        pub jti: String,
        pub device_id: String,
        pub at: i64,
        pub claims: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod word {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal_words")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
        pub is_compliant: bool,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{Column, Entity, Model};

/// The fact that says up to which event signals were made.
const MADE_UP_TO: &str = "signals_made_up_to";

impl Read {
    /// The tokens that wait in a stream, in their order; with `of_stream`, only those about the stream.
    pub async fn signals(
        &self,
        stream_id: &StreamId,
        of_stream: bool,
        limit: usize,
    ) -> Result<Vec<HeldSignal>, StoreError> {
        let mut query = Entity::find()
            .filter(Column::StreamId.eq(stream_id.as_str()))
            .order_by_asc(Column::Seq)
            .limit(row::limited(limit));
        if of_stream {
            query = query.filter(Column::DeviceId.eq(""));
        }
        row::read_all(query.all(self.tx()).await?)
    }

    /// How many tokens wait in a stream.
    pub async fn signal_count(&self, stream_id: &StreamId) -> Result<u64, StoreError> {
        Ok(Entity::find()
            .filter(Column::StreamId.eq(stream_id.as_str()))
            .count(self.tx())
            .await?)
    }

    /// The last word that was known of a Mac.
    pub async fn signal_word(
        &self,
        device_id: &DeviceId,
    ) -> Result<Option<Compliance>, StoreError> {
        let found = word::Entity::find_by_id(device_id.as_str())
            .one(self.tx())
            .await?;
        Ok(found.map(|row| match row.is_compliant {
            true => Compliance::Compliant,
            false => Compliance::NotCompliant,
        }))
    }

    /// Up to which event signals were made; none while they never were.
    pub async fn signals_made_up_to(&self) -> Result<Option<i64>, StoreError> {
        let fact = self.fact(MADE_UP_TO).await?;
        fact.map(|fact| meta::number(MADE_UP_TO, &fact)).transpose()
    }
}

impl Write {
    /// As [`Read::signals_made_up_to`]; on PostgreSQL nobody else goes on until the end.
    pub async fn signals_to_make_from(&mut self) -> Result<Option<i64>, StoreError> {
        let fact = self.fact_to_change(MADE_UP_TO).await?;
        fact.map(|fact| meta::number(MADE_UP_TO, &fact)).transpose()
    }

    /// Signals are made of what happens after this event, unless they are made already.
    pub async fn begin_signals(&mut self, seq: i64) -> Result<(), StoreError> {
        self.state_fact(MADE_UP_TO, &seq.to_string()).await?;
        Ok(())
    }

    /// Signals were made up to this event.
    pub async fn set_signals_made_up_to(&mut self, seq: i64) -> Result<(), StoreError> {
        self.set_fact(MADE_UP_TO, &seq.to_string()).await
    }

    /// Signals are made no more: no event is kept for them, and when they are again, what was known of
    /// Macs is old.
    pub async fn end_signals(&mut self) -> Result<(), StoreError> {
        word::Entity::delete_many().exec(self.tx()).await?;
        self.forget_fact(MADE_UP_TO).await
    }

    /// Keeps a token until it was delivered. The stream is locked by whoever calls.
    pub async fn hold_signal(
        &mut self,
        stream_id: &StreamId,
        signal: &NewSignal,
    ) -> Result<(), StoreError> {
        let device_id = signal.device_id.as_ref();
        let edit = Edit::new(
            "INSERT INTO signal_tokens (stream_id, jti, device_id, at, claims) \
             VALUES ($1, $2, $3, $4, $5)",
            [
                Datum::text(stream_id),
                Datum::text(&signal.claims.jti),
                Datum::text(device_id.map_or("", DeviceId::as_str)),
                Datum::int(signal.at.millis()),
                Datum::text(row::body("claims", &signal.claims)?),
            ],
        );
        edit.apply(self.tx()).await
    }

    /// Forgets tokens of a stream by their names. How many there were.
    pub async fn drop_signals(
        &mut self,
        stream_id: &StreamId,
        names: &[String],
    ) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for some in names.chunks(500) {
            let outcome = Entity::delete_many()
                .filter(Column::StreamId.eq(stream_id.as_str()))
                .filter(Column::Jti.is_in(some))
                .exec(self.tx())
                .await?;
            dropped += outcome.rows_affected;
        }
        Ok(dropped)
    }

    /// Forgets everything that waits in a stream.
    pub async fn drop_all_signals(&mut self, stream_id: &StreamId) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::StreamId.eq(stream_id.as_str()))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// From now on this is the word for a Mac.
    pub async fn set_signal_word(
        &mut self,
        device_id: &DeviceId,
        word: Compliance,
    ) -> Result<(), StoreError> {
        let edit = Edit::new(
            "INSERT INTO signal_words (device_id, is_compliant) VALUES ($1, $2) \
             ON CONFLICT (device_id) DO UPDATE SET is_compliant = excluded.is_compliant",
            [
                Datum::text(device_id),
                Datum::Bool(word == Compliance::Compliant),
            ],
        );
        edit.apply(self.tx()).await
    }
}

impl Row for Model {
    type Noun = HeldSignal;
    const TABLE: &'static str = "signal_tokens";

    fn id(&self) -> String {
        self.jti.clone()
    }

    fn noun(self) -> Option<HeldSignal> {
        let device_id = Some(self.device_id.as_str()).filter(|id| !id.is_empty());
        Some(HeldSignal {
            seq: self.seq,
            device_id: row::parsed_if_any(device_id, DeviceId::parse)?,
            at: Timestamp::from_millis(self.at),
            claims: row::parsed(&self.claims, serde_json::from_str)?,
        })
    }
}
