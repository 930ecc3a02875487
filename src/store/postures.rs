//! What is believed of each Mac now, and what was believed at each revision.

use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use super::edit::{Datum, Edit};
use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::DeviceId;
use crate::posture::Posture;
use crate::time::Timestamp;

mod current {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "postures")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
        pub revision: i64,
        pub revocation_epoch: i64,
        pub verdict: String,
        pub notice_at: Option<i64>,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod history {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "posture_history")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub revision: i64,
        pub at: i64,
        pub verdict: String,
        pub body: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

impl Read {
    /// What is believed of a Mac; `None` when nothing ever was.
    pub async fn posture(&self, device_id: &DeviceId) -> Result<Option<Posture>, StoreError> {
        let found = current::Entity::find_by_id(device_id.as_str())
            .one(self.tx())
            .await?;
        row::read_one(found)
    }

    /// At most `limit` postures in the order of their Macs' ids, from the one after `after` on.
    pub async fn postures(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Posture>, StoreError> {
        let mut query = current::Entity::find()
            .order_by_asc(current::Column::DeviceId)
            .limit(row::limited(limit));
        if let Some(after) = after {
            query = query.filter(current::Column::DeviceId.gt(after.as_str()));
        }
        row::read_all(query.all(self.tx()).await?)
    }

    /// The Macs of [`Read::postures`], without what is believed of them.
    pub async fn posture_ids(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut query = current::Entity::find()
            .select_only()
            .column(current::Column::DeviceId)
            .order_by_asc(current::Column::DeviceId)
            .limit(row::limited(limit));
        if let Some(after) = after {
            query = query.filter(current::Column::DeviceId.gt(after.as_str()));
        }
        let ids: Vec<String> = query.into_tuple().all(self.tx()).await?;
        let named = |id: String| {
            DeviceId::parse(&id).map_err(|_| StoreError::Inconsistent {
                table: "postures",
                id,
            })
        };
        ids.into_iter().map(named).collect()
    }

    /// Macs of whose verdict's end there is something to tell, those that wait the longest first.
    pub async fn ending(&self, now: Timestamp, limit: usize) -> Result<Vec<DeviceId>, StoreError> {
        let found = current::Entity::find()
            .filter(current::Column::NoticeAt.lte(now.millis()))
            .order_by_asc(current::Column::NoticeAt)
            .limit(row::limited(limit))
            .all(self.tx())
            .await?;
        let postures = row::read_all(found)?;
        Ok(postures
            .into_iter()
            .map(|posture| posture.device_id)
            .collect())
    }

    /// The postures of these Macs, of those that have one; in no order.
    pub async fn postures_of(&self, devices: &[DeviceId]) -> Result<Vec<Posture>, StoreError> {
        let names = devices.iter().map(DeviceId::as_str);
        let found = current::Entity::find()
            .filter(current::Column::DeviceId.is_in(names))
            .all(self.tx())
            .await?;
        row::read_all(found)
    }

    /// What was believed of a Mac, the newest revision first, from the one before `before` on.
    pub async fn posture_history(
        &self,
        device_id: &DeviceId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posture>, StoreError> {
        let mut query = history::Entity::find()
            .filter(history::Column::DeviceId.eq(device_id.as_str()))
            .order_by_desc(history::Column::Revision)
            .limit(row::limited(limit));
        if let Some(before) = before {
            query = query.filter(history::Column::Revision.lt(row::counted(before)));
        }
        row::read_all(query.all(self.tx()).await?)
    }
}

impl Write {
    /// As [`Read::posture`]; on PostgreSQL nobody else changes the Mac until the end.
    pub async fn posture(&mut self, device_id: &DeviceId) -> Result<Option<Posture>, StoreError> {
        self.lock_device(device_id).await?;
        Read::posture(self, device_id).await
    }

    /// What is believed from now on; it also stays in the history.
    ///
    /// # Errors
    /// `Conflict` when a later revision is stored already, or there is no such Mac.
    pub async fn save_posture(&mut self, posture: &Posture) -> Result<(), StoreError> {
        self.touch(&posture.device_id);
        for edit in save(posture)? {
            edit.apply(self.tx()).await?;
        }
        self.news(&posture.device_id).posture = Some(posture.clone());
        Ok(())
    }
}

pub(super) fn save(posture: &Posture) -> Result<[Edit; 2], StoreError> {
    let body = Datum::text(row::body("posture", posture)?);
    let device_id = Datum::text(&posture.device_id);
    let revision = Datum::int(row::counted(posture.revision));
    let verdict = Datum::text(posture.verdict.as_str());
    Ok([
        Edit::that_must_change(
            "INSERT INTO postures \
             (device_id, revision, revocation_epoch, verdict, notice_at, body) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (device_id) DO UPDATE SET revision = excluded.revision, \
             revocation_epoch = excluded.revocation_epoch, verdict = excluded.verdict, \
             notice_at = excluded.notice_at, body = excluded.body WHERE excluded.revision >= postures.revision",
            [
                device_id.clone(),
                revision.clone(),
                Datum::int(row::counted(posture.revocation_epoch)),
                verdict.clone(),
                Datum::Int(row::millis(posture.notice_at())),
                body.clone(),
            ],
        ),
        Edit::new(
            "INSERT INTO posture_history (device_id, revision, at, verdict, body) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (device_id, revision) DO UPDATE SET at = excluded.at, \
             verdict = excluded.verdict, body = excluded.body",
            [
                device_id,
                revision,
                Datum::int(posture.revised_at.millis()),
                verdict,
                body,
            ],
        ),
    ])
}

impl Row for current::Model {
    type Noun = Posture;
    const TABLE: &'static str = "postures";

    fn id(&self) -> String {
        self.device_id.clone()
    }

    fn noun(self) -> Option<Posture> {
        row::parsed(&self.body, serde_json::from_str)
    }
}

impl Row for history::Model {
    type Noun = Posture;
    const TABLE: &'static str = "posture_history";

    fn id(&self) -> String {
        format!("{}/{}", self.device_id, self.revision)
    }

    fn noun(self) -> Option<Posture> {
        row::parsed(&self.body, serde_json::from_str)
    }
}
