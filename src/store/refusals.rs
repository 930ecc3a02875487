//! What was refused. The same refusal again within a minute is counted, not
//! written out: who sends rubbish must not fill the disk.

use std::time::Duration;

use sea_orm::entity::prelude::*;
use sea_orm::{
    ActiveValue::{NotSet, Set},
    QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait as _},
};

use super::board::Key;
use super::exchange::Columns;
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::DeviceId;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Refusals of one kind within this time of the first are one line.
const ONE_LINE: Duration = Duration::from_secs(60);

/// Something was refused, once or several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whom it was about: a device id, a serial number cut short, or `-`.
    pub subject: String,
    pub device_id: Option<DeviceId>,
    pub reason: Reason,
    /// Where it was refused: the name of a flow.
    pub surface: String,
    /// What the first one was about, without anything secret or personal.
    pub detail: String,
    /// The first one.
    pub at: Timestamp,
    /// The last one.
    pub last_at: Timestamp,
    pub count: u64,
}

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "refusals")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub refusal_id: i64,
        pub subject: String,
        pub device_id: Option<String>,
        pub reason: String,
        pub surface: String,
        pub detail: String,
        pub at: i64,
        pub last_at: i64,
        pub count: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(super) use table::Model;
use table::{ActiveModel, Column, Entity};

/// What was refused to a Mac since a time, the latest first.
pub(super) const OF_MAC: &str = "SELECT refusal_id, subject, device_id, reason, surface, detail, at, \
     last_at, count FROM refusals WHERE device_id = $1 AND last_at >= $2 \
     ORDER BY last_at DESC, refusal_id DESC LIMIT $3";

impl Model {
    /// The columns of [`OF_MAC`].
    pub(super) fn read(row: &dyn Columns) -> Result<Self, StoreError> {
        Ok(Self {
            refusal_id: row.int(0)?.unwrap_or_default(),
            subject: row.text(1)?.unwrap_or_default(),
            device_id: row.text(2)?,
            reason: row.text(3)?.unwrap_or_default(),
            surface: row.text(4)?.unwrap_or_default(),
            detail: row.text(5)?.unwrap_or_default(),
            at: row.int(6)?.unwrap_or_default(),
            last_at: row.int(7)?.unwrap_or_default(),
            count: row.int(8)?.unwrap_or_default(),
        })
    }
}

impl Refusal {
    /// One refusal now.
    pub fn once(
        device_id: Option<DeviceId>,
        reason: Reason,
        surface: &str,
        detail: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            subject: device_id
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string),
            device_id,
            reason,
            surface: surface.to_owned(),
            detail: detail.to_owned(),
            at: now,
            last_at: now,
            count: 1,
        }
    }
}

impl Read {
    /// What was refused to a Mac since a time, the latest first.
    pub async fn refusals_of(
        &self,
        device_id: &DeviceId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Refusal>, StoreError> {
        self.glimpse().refusals_of(device_id, since, limit).await
    }

    /// How often each reason was given since a time, the most frequent first.
    pub async fn refusal_counts(&self, since: Timestamp) -> Result<Vec<(Reason, u64)>, StoreError> {
        let found: Vec<(String, i64)> = Entity::find()
            .select_only()
            .column(Column::Reason)
            // A sum of BIGINT is NUMERIC on PostgreSQL.
            .column_as(Column::Count.sum().cast_as("bigint"), "total")
            .filter(Column::LastAt.gte(since.millis()))
            .group_by(Column::Reason)
            .into_tuple()
            .all(self.tx())
            .await?;
        let mut counts = found
            .into_iter()
            .map(|(code, total)| {
                let reason = Reason::from_code(&code).ok_or(StoreError::Inconsistent {
                    table: Model::TABLE,
                    id: code,
                })?;
                Ok((reason, u64::try_from(total).unwrap_or(0)))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        counts.sort_by_key(|(reason, total)| (std::cmp::Reverse(*total), *reason));
        Ok(counts)
    }
}

impl Write {
    /// Writes a refusal down, or counts it with the line of the same kind that is less than a
    /// minute old.
    pub async fn record_refusal(&mut self, refusal: &Refusal) -> Result<(), StoreError> {
        if let Some(device_id) = &refusal.device_id {
            self.changes(Key::Mac(device_id.clone()));
        }
        let counted = row::counted(refusal.count);
        let same = Entity::find()
            .filter(Column::Subject.eq(refusal.subject.as_str()))
            .filter(Column::Reason.eq(refusal.reason.code()))
            .filter(Column::Surface.eq(refusal.surface.as_str()))
            .filter(Column::At.gt(refusal.at.minus(ONE_LINE).millis()))
            .order_by_desc(Column::At)
            .one(self.tx())
            .await?;
        if let Some(line) = same {
            Entity::update_many()
                .col_expr(Column::Count, Expr::col(Column::Count).add(counted))
                .col_expr(Column::LastAt, Expr::value(refusal.last_at.millis()))
                .filter(Column::RefusalId.eq(line.refusal_id))
                .exec(self.tx())
                .await?;
            return Ok(());
        }
        let model = ActiveModel {
            refusal_id: NotSet,
            subject: Set(refusal.subject.clone()),
            device_id: Set(refusal.device_id.as_ref().map(ToString::to_string)),
            reason: Set(refusal.reason.code().to_owned()),
            surface: Set(refusal.surface.clone()),
            detail: Set(refusal.detail.clone()),
            at: Set(refusal.at.millis()),
            last_at: Set(refusal.last_at.millis()),
            count: Set(counted),
        };
        Entity::insert(model)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }
}

impl Row for Model {
    type Noun = Refusal;
    const TABLE: &'static str = "refusals";

    fn id(&self) -> String {
        self.refusal_id.to_string()
    }

    fn noun(self) -> Option<Refusal> {
        Some(Refusal {
            subject: self.subject,
            device_id: row::parsed_if_any(self.device_id.as_deref(), DeviceId::parse)?,
            reason: Reason::from_code(&self.reason)?,
            surface: self.surface,
            detail: self.detail,
            at: Timestamp::from_millis(self.at),
            last_at: Timestamp::from_millis(self.last_at),
            count: u64::try_from(self.count).ok()?,
        })
    }
}
