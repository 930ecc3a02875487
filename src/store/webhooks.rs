//! Who is told of events by messages, how far that is, and the messages that were given up.
//! Whoever delivers takes a webhook for a while ([`turns`](super::turns)).

use sea_orm::entity::prelude::*;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::turns::Turn;
use super::{Event, NumberedEvent, Read, StoreError, Write};
use crate::ids::{DeviceId, WebhookId, WebhookName};
use crate::publication::delivery::Course;
use crate::publication::webhook::SigningSecret;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Somebody who is told of events by messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub webhook_id: WebhookId,
    pub name: WebhookName,
    pub url: Secret<String>,
    pub secret: SigningSecret,
    /// Names of events; all of them where there is none.
    pub events: Option<Vec<String>>,
    pub allow_private: bool,
    /// A root instead of the public ones, PEM.
    pub root: Option<String>,
    pub created_at: Timestamp,
    pub course: Course,
    pub taken_until: Timestamp,
    /// Of what was read.
    pub revision: i64,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub event: NumberedEvent,
    pub why: String,
    pub given_up_at: Timestamp,
    /// It is to be sent again, since then.
    pub replay_since: Option<Timestamp>,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhooks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub webhook_id: String,
        pub name: String,
        pub sealed: Vec<u8>,
        pub events: Option<String>,
        pub allow_private: bool,
        pub root: Option<String>,
        pub created_at: i64,
        pub revision: i64,
        pub taken_until: i64,
        pub course: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod dead {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_dead_letters")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub webhook_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        pub device_id: String,
        pub name: String,
        pub at: i64,
        pub body: String,
        pub why: String,
        pub given_up_at: i64,
        pub replay_since: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

/// What is sealed of a webhook.
#[derive(Serialize, Deserialize)]
struct Sealed {
    url: String,
    secret: String,
}

impl Read {
    /// Every webhook, the first made first.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let found = Entity::find()
            .order_by_asc(Column::WebhookId)
            .all(self.tx())
            .await?;
        found
            .into_iter()
            .map(|row| self.open_webhook(row))
            .collect()
    }

    /// Messages to a webhook that were given up, in the order of their numbers; only those that are to
    /// be sent again, if so wished.
    pub async fn dead_letters(
        &self,
        webhook_id: &WebhookId,
        only_replayed: bool,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut query = dead::Entity::find()
            .filter(dead::Column::WebhookId.eq(webhook_id.as_str()))
            .order_by_asc(dead::Column::Seq)
            .limit(row::limited(limit));
        if only_replayed {
            query = query.filter(dead::Column::ReplaySince.is_not_null());
        }
        row::read_all(query.all(self.tx()).await?)
    }

    /// How many messages to a webhook were given up.
    pub async fn dead_letter_count(&self, webhook_id: &WebhookId) -> Result<u64, StoreError> {
        Ok(dead::Entity::find()
            .filter(dead::Column::WebhookId.eq(webhook_id.as_str()))
            .count(self.tx())
            .await?)
    }

    fn open_webhook(&self, row: Model) -> Result<Webhook, StoreError> {
        let unsealable = |source| StoreError::Unsealable {
            table: "webhooks",
            id: row.webhook_id.clone(),
            source,
        };
        let place = place(&row.webhook_id);
        let sealed = self.inner().sealer.open(&place, &row.sealed);
        let sealed = Secret::new(sealed.map_err(unsealable)?);
        row::read(Opened { row, sealed })
    }
}

impl Write {
    /// Keeps a new webhook.
    ///
    /// # Errors
    /// `Conflict` when its name is taken.
    pub async fn insert_webhook(&mut self, webhook: &Webhook) -> Result<(), StoreError> {
        let sealed = Sealed {
            url: webhook.url.expose().clone(),
            secret: webhook.secret.text().expose().clone(),
        };
        let sealed = Secret::new(row::body("webhook", &sealed)?);
        let id = webhook.webhook_id.to_string();
        let plain = sealed.expose().as_bytes();
        let model = ActiveModel {
            sealed: Set(self.inner().sealer.seal(&place(&id), plain)),
            webhook_id: Set(id),
            name: Set(webhook.name.to_string()),
            events: Set(match &webhook.events {
                Some(events) => Some(row::body("events", events)?),
                None => None,
            }),
            allow_private: Set(webhook.allow_private),
            root: Set(webhook.root.clone()),
            created_at: Set(webhook.created_at.millis()),
            revision: Set(webhook.revision),
            taken_until: Set(webhook.taken_until.millis()),
            course: Set(row::body("course", &webhook.course)?),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// Removes a webhook and what was given up of it. False when there is none of this name.
    pub async fn remove_webhook(&mut self, name: &WebhookName) -> Result<bool, StoreError> {
        let outcome = Entity::delete_many()
            .filter(Column::Name.eq(name.as_str()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected == 1)
    }

    /// Takes a webhook, as it was read, until then. False when somebody else was faster.
    pub async fn take_webhook(
        &mut self,
        webhook: &mut Webhook,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let taken = turn(webhook).take(self, until).await?;
        if taken {
            webhook.revision += 1;
            webhook.taken_until = until;
        }
        Ok(taken)
    }

    /// Keeps how far a webhook is, and gives it back.
    ///
    /// # Errors
    /// `Conflict` when it is another's by now, or is no more.
    pub async fn save_course(&mut self, webhook: &Webhook) -> Result<(), StoreError> {
        turn(webhook).give_back(self, &webhook.course).await
    }

    /// The webhook of this name; on PostgreSQL nobody else changes it until the end.
    pub async fn webhook_to_change(
        &mut self,
        name: &WebhookName,
    ) -> Result<Option<Webhook>, StoreError> {
        let mut query = Entity::find().filter(Column::Name.eq(name.as_str()));
        if !self.is_alone() {
            query = query.lock_exclusive();
        }
        let found = query.one(self.tx()).await?;
        found.map(|row| self.open_webhook(row)).transpose()
    }

    /// Moves a webhook to elsewhere, whoever has taken it: what comes of that is not kept, and others
    /// leave it alone for as long as was said.
    ///
    /// # Errors
    /// `Conflict` when it is no longer as it was read.
    pub async fn move_course(&mut self, webhook: &Webhook) -> Result<(), StoreError> {
        turn(webhook).displace(self, &webhook.course).await
    }

    /// Keeps a message that is given up, in the place of what was known of it.
    pub async fn keep_dead_letter(
        &mut self,
        webhook_id: &WebhookId,
        letter: &DeadLetter,
    ) -> Result<(), StoreError> {
        let event = &letter.event;
        let edit = Edit::new(
            "INSERT INTO webhook_dead_letters \
             (webhook_id, seq, device_id, name, at, body, why, given_up_at, replay_since) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (webhook_id, seq) DO UPDATE SET why = excluded.why, \
             given_up_at = excluded.given_up_at, replay_since = excluded.replay_since",
            [
                Datum::text(webhook_id),
                Datum::int(event.seq),
                Datum::text(event.device_id.as_ref().map_or("", DeviceId::as_str)),
                Datum::text(&event.event.name),
                Datum::int(event.event.at.millis()),
                Datum::text(row::body("event", &event.event.body)?),
                Datum::text(&letter.why),
                Datum::int(letter.given_up_at.millis()),
                Datum::Int(row::millis(letter.replay_since)),
            ],
        );
        edit.apply(self.tx()).await
    }

    /// Forgets a message that arrived after all.
    pub async fn remove_dead_letter(
        &mut self,
        webhook_id: &WebhookId,
        seq: i64,
    ) -> Result<(), StoreError> {
        dead::Entity::delete_many()
            .filter(dead::Column::WebhookId.eq(webhook_id.as_str()))
            .filter(dead::Column::Seq.eq(seq))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Has everything that was given up sent again. How many messages that is.
    pub async fn replay_dead_letters(
        &mut self,
        webhook_id: &WebhookId,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let outcome = dead::Entity::update_many()
            .col_expr(dead::Column::ReplaySince, Expr::value(now.millis()))
            .filter(dead::Column::WebhookId.eq(webhook_id.as_str()))
            .exec(self.tx())
            .await?;
        Ok(outcome.rows_affected)
    }

    /// Forgets what was given up before then.
    pub async fn forget_dead_letters(&mut self, before: Timestamp) -> Result<(), StoreError> {
        dead::Entity::delete_many()
            .filter(dead::Column::GivenUpAt.lt(before.millis()))
            .filter(dead::Column::ReplaySince.is_null())
            .exec(self.tx())
            .await?;
        Ok(())
    }
}

fn turn(webhook: &Webhook) -> Turn<'_> {
    Turn {
        table: "webhooks",
        column: "webhook_id",
        id: webhook.webhook_id.as_str(),
        revision: webhook.revision,
    }
}

/// Where the sealed value belongs.
fn place(id: &str) -> String {
    format!("webhooks.sealed:{id}")
}

/// A row and what was sealed in it.
struct Opened {
    row: Model,
    sealed: Secret<Vec<u8>>,
}

impl Row for Opened {
    type Noun = Webhook;
    const TABLE: &'static str = "webhooks";

    fn id(&self) -> String {
        self.row.webhook_id.clone()
    }

    fn noun(self) -> Option<Webhook> {
        let row = self.row;
        let sealed: Sealed = serde_json::from_slice(self.sealed.expose()).ok()?;
        let secret = Secret::new(sealed.secret);
        Some(Webhook {
            webhook_id: row::parsed(&row.webhook_id, WebhookId::parse)?,
            name: row::parsed(&row.name, WebhookName::parse)?,
            url: Secret::new(sealed.url),
            secret: SigningSecret::parse(secret.expose()).ok()?,
            events: row::parsed_if_any(row.events.as_deref(), serde_json::from_str)?,
            allow_private: row.allow_private,
            root: row.root,
            created_at: Timestamp::from_millis(row.created_at),
            course: row::parsed(&row.course, serde_json::from_str)?,
            taken_until: Timestamp::from_millis(row.taken_until),
            revision: row.revision,
        })
    }
}

impl Row for dead::Model {
    type Noun = DeadLetter;
    const TABLE: &'static str = "webhook_dead_letters";

    fn id(&self) -> String {
        format!("{}/{}", self.webhook_id, self.seq)
    }

    fn noun(self) -> Option<DeadLetter> {
        let device_id = Some(self.device_id.as_str()).filter(|id| !id.is_empty());
        Some(DeadLetter {
            event: NumberedEvent {
                seq: self.seq,
                device_id: row::parsed_if_any(device_id, DeviceId::parse)?,
                event: Event {
                    name: self.name,
                    at: Timestamp::from_millis(self.at),
                    body: row::parsed(&self.body, serde_json::from_str)?,
                },
            },
            why: self.why,
            given_up_at: Timestamp::from_millis(self.given_up_at),
            replay_since: row::time(self.replay_since),
        })
    }
}
