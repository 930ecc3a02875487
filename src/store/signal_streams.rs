//! Streams of shared signals, one for each receiver, and the Macs that each wants to hear nothing of.
//!
//! Whoever adds a token to a stream, or changes it, has it locked (PostgreSQL): so the tokens of a stream
//! are committed in the order of their numbers, and none is passed over.

use std::collections::BTreeSet;

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::turns::Turn;
use super::{Read, StoreError, Write};
use crate::ids::{ReceiverId, StreamId};
use crate::publication::delivery::Course;
use crate::publication::shared_signals::stream::{Delivery, Status, Stream, Wishes};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A stream, and how far its receiver was told by push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalStream {
    pub stream: Stream,
    pub course: Course,
    pub taken_until: Timestamp,
    /// Of what was read.
    pub revision: i64,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal_streams")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub stream_id: String,
        pub receiver_id: String,
        pub sealed: Vec<u8>,
        pub events_requested: String,
        pub description: Option<String>,
        pub status: String,
        pub reason: Option<String>,
        pub verified_at: Option<i64>,
        pub created_at: i64,
        pub revision: i64,
        pub taken_until: i64,
        pub course: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod exclusion {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signal_exclusions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub stream_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub mac: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

/// What is sealed of a stream: where its tokens are posted to, and with what.
#[derive(Default, Serialize, Deserialize)]
struct Sealed {
    endpoint: Option<String>,
    authorization: Option<String>,
}

impl Read {
    /// Every stream with the audience of its receiver, the first made first.
    pub async fn signal_streams(&self) -> Result<Vec<SignalStream>, StoreError> {
        let found = Entity::find()
            .order_by_asc(Column::StreamId)
            .all(self.tx())
            .await?;
        self.open_streams(found).await
    }

    /// The stream of a receiver.
    pub async fn signal_stream_of(
        &self,
        receiver_id: &ReceiverId,
    ) -> Result<Option<SignalStream>, StoreError> {
        let found = Entity::find()
            .filter(Column::ReceiverId.eq(receiver_id.as_str()))
            .all(self.tx())
            .await?;
        Ok(self.open_streams(found).await?.pop())
    }

    /// The Macs that a stream is not told of: pseudonyms, and ids.
    pub async fn signal_exclusions(
        &self,
        stream_id: &StreamId,
    ) -> Result<BTreeSet<String>, StoreError> {
        let found = exclusion::Entity::find()
            .filter(exclusion::Column::StreamId.eq(stream_id.as_str()))
            .all(self.tx())
            .await?;
        Ok(found.into_iter().map(|row| row.mac).collect())
    }

    async fn open_streams(&self, rows: Vec<Model>) -> Result<Vec<SignalStream>, StoreError> {
        let mut streams = Vec::with_capacity(rows.len());
        for row in rows {
            let unsealable = |source| StoreError::Unsealable {
                table: "signal_streams",
                id: row.stream_id.clone(),
                source,
            };
            let sealed = self
                .inner()
                .sealer
                .open(&place(&row.stream_id), &row.sealed);
            let sealed = Secret::new(sealed.map_err(unsealable)?);
            let of = row::parsed(&row.receiver_id, ReceiverId::parse);
            let audience = match of {
                Some(receiver_id) => self.signal_receiver(&receiver_id).await?,
                None => None,
            };
            let audience = audience.map(|receiver| receiver.audience);
            streams.push(row::read(Opened {
                row,
                sealed,
                audience,
            })?);
        }
        Ok(streams)
    }
}

impl Write {
    /// Keeps a new stream.
    ///
    /// # Errors
    /// `Conflict` when its receiver has one already.
    pub async fn insert_signal_stream(&mut self, held: &SignalStream) -> Result<(), StoreError> {
        let stream = &held.stream;
        let id = stream.stream_id.to_string();
        let model = ActiveModel {
            sealed: Set(self.sealed(stream)?),
            stream_id: Set(id),
            receiver_id: Set(stream.receiver_id.to_string()),
            events_requested: Set(row::body("events", &stream.wishes.events_requested)?),
            description: Set(stream.wishes.description.clone()),
            status: Set(row::body("status", &stream.status)?),
            reason: Set(stream.reason.clone()),
            verified_at: Set(row::millis(stream.verified_at)),
            created_at: Set(stream.created_at.millis()),
            revision: Set(held.revision),
            taken_until: Set(held.taken_until.millis()),
            course: Set(row::body("course", &held.course)?),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// As [`Read::signal_stream_of`], locked to the end.
    pub async fn signal_stream_to_change(
        &mut self,
        receiver_id: &ReceiverId,
    ) -> Result<Option<SignalStream>, StoreError> {
        let query = Entity::find().filter(Column::ReceiverId.eq(receiver_id.as_str()));
        Ok(self.locked_streams(query).await?.pop())
    }

    /// As [`Read::signal_streams`], locked to the end.
    pub async fn signal_streams_to_change(&mut self) -> Result<Vec<SignalStream>, StoreError> {
        self.locked_streams(Entity::find()).await
    }

    async fn locked_streams(
        &mut self,
        query: Select<Entity>,
    ) -> Result<Vec<SignalStream>, StoreError> {
        // In one order for all, so that nobody waits for who waits.
        let mut query = query.order_by_asc(Column::StreamId);
        if !self.is_alone() {
            query = query.lock_exclusive();
        }
        let found = query.all(self.tx()).await?;
        self.open_streams(found).await
    }

    /// Keeps what a stream is to be, in place of what it was. Who delivers to it at this moment keeps
    /// nothing of that.
    ///
    /// # Errors
    /// `Conflict` when it is no longer as it was read.
    pub async fn save_signal_stream(&mut self, held: &SignalStream) -> Result<(), StoreError> {
        let stream = &held.stream;
        let wishes = &stream.wishes;
        let edit = Edit::that_must_change(
            "UPDATE signal_streams SET sealed = $1, events_requested = $2, description = $3, \
             status = $4, reason = $5, verified_at = $6, course = $7, revision = revision + 1 \
             WHERE stream_id = $8 AND revision = $9",
            [
                Datum::bytes(self.sealed(stream)?),
                Datum::text(row::body("events", &wishes.events_requested)?),
                Datum::Text(wishes.description.clone()),
                Datum::text(row::body("status", &stream.status)?),
                Datum::Text(stream.reason.clone()),
                Datum::Int(row::millis(stream.verified_at)),
                Datum::text(row::body("course", &held.course)?),
                Datum::text(&stream.stream_id),
                Datum::int(held.revision),
            ],
        );
        edit.apply(self.tx()).await
    }

    /// The stream was asked whether it works. Who delivers to it goes on.
    pub async fn set_signal_stream_verified(
        &mut self,
        stream_id: &StreamId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let edit = Edit::that_must_change(
            "UPDATE signal_streams SET verified_at = $1 WHERE stream_id = $2",
            [Datum::int(now.millis()), Datum::text(stream_id)],
        );
        edit.apply(self.tx()).await
    }

    /// Removes a stream, and what waits in it.
    pub async fn remove_signal_stream(&mut self, stream_id: &StreamId) -> Result<(), StoreError> {
        Entity::delete_by_id(stream_id.as_str())
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Takes a stream, as it was read, until then. False when somebody else was faster.
    pub async fn take_signal_stream(
        &mut self,
        held: &mut SignalStream,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let taken = turn(held).take(self, until).await?;
        if taken {
            held.revision += 1;
            held.taken_until = until;
        }
        Ok(taken)
    }

    /// Keeps how far a stream is, and gives it back.
    ///
    /// # Errors
    /// `Conflict` when it is another's by now, was changed, or is no more.
    pub async fn save_signal_course(&mut self, held: &SignalStream) -> Result<(), StoreError> {
        turn(held).give_back(self, &held.course).await
    }

    /// Has a stream told no more, or again, of the Mac of this name.
    pub async fn exclude_from_signals(
        &mut self,
        stream_id: &StreamId,
        mac: &str,
        is_excluded: bool,
    ) -> Result<(), StoreError> {
        let values = [Datum::text(stream_id), Datum::text(mac)];
        let edit = if is_excluded {
            Edit::new(
                "INSERT INTO signal_exclusions (stream_id, mac) VALUES ($1, $2) \
                 ON CONFLICT DO NOTHING",
                values,
            )
        } else {
            Edit::new(
                "DELETE FROM signal_exclusions WHERE stream_id = $1 AND mac = $2",
                values,
            )
        };
        edit.apply(self.tx()).await
    }

    fn sealed(&self, stream: &Stream) -> Result<Vec<u8>, StoreError> {
        let sealed = match &stream.wishes.delivery {
            Delivery::Poll => Sealed::default(),
            Delivery::Push {
                endpoint,
                authorization,
            } => Sealed {
                endpoint: Some(endpoint.expose().clone()),
                authorization: authorization.as_ref().map(|text| text.expose().clone()),
            },
        };
        let plain = Secret::new(row::body("stream", &sealed)?);
        let place = place(stream.stream_id.as_str());
        Ok(self.inner().sealer.seal(&place, plain.expose().as_bytes()))
    }
}

fn turn(held: &SignalStream) -> Turn<'_> {
    Turn {
        table: "signal_streams",
        column: "stream_id",
        id: held.stream.stream_id.as_str(),
        revision: held.revision,
    }
}

/// Where the sealed value belongs.
fn place(id: &str) -> String {
    format!("signal_streams.sealed:{id}")
}

/// A row, what was sealed in it, and what its receiver says of it.
struct Opened {
    row: Model,
    sealed: Secret<Vec<u8>>,
    audience: Option<String>,
}

impl Row for Opened {
    type Noun = SignalStream;
    const TABLE: &'static str = "signal_streams";

    fn id(&self) -> String {
        self.row.stream_id.clone()
    }

    fn noun(self) -> Option<SignalStream> {
        let row = self.row;
        let sealed: Sealed = serde_json::from_slice(self.sealed.expose()).ok()?;
        let delivery = match sealed.endpoint {
            None => Delivery::Poll,
            Some(endpoint) => Delivery::Push {
                endpoint: Secret::new(endpoint),
                authorization: sealed.authorization.map(Secret::new),
            },
        };
        let status: Status = row::parsed(&row.status, serde_json::from_str)?;
        Some(SignalStream {
            stream: Stream {
                stream_id: row::parsed(&row.stream_id, StreamId::parse)?,
                receiver_id: row::parsed(&row.receiver_id, ReceiverId::parse)?,
                audience: self.audience?,
                wishes: Wishes {
                    delivery,
                    events_requested: row::parsed(&row.events_requested, serde_json::from_str)?,
                    description: row.description,
                },
                status,
                reason: row.reason,
                verified_at: row::time(row.verified_at),
                created_at: Timestamp::from_millis(row.created_at),
            },
            course: row::parsed(&row.course, serde_json::from_str)?,
            taken_until: Timestamp::from_millis(row.taken_until),
            revision: row.revision,
        })
    }
}
