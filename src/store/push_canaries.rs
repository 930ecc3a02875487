//! Macs that try a push certificate before it is used for all.

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, QueryOrder, Statement, sea_query::Expr};

use super::row::{self, Row};
use super::{Read, StoreError, Write};
use crate::ids::{DeviceId, PushCertificateId};
use crate::push::Standing;
use crate::push::canary::Canary;
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "push_canaries")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub push_certificate_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_id: String,
        pub asked_at: i64,
        pub taken_until: i64,
        pub refused: Option<String>,
        pub trouble: Option<String>,
        pub sent_at: Option<i64>,
        pub came_at: Option<i64>,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity, Model};

/// A Mac, and the certificate it tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    pub push_certificate_id: PushCertificateId,
    pub canary: Canary,
}

impl Read {
    /// The Macs that were chosen to try a certificate, in the order of their ids.
    pub async fn canaries(&self, of: &PushCertificateId) -> Result<Vec<Canary>, StoreError> {
        let found = Entity::find()
            .filter(Column::PushCertificateId.eq(of.as_str()))
            .order_by_asc(Column::DeviceId)
            .all(self.tx())
            .await?;
        let found: Vec<Trial> = row::read_all(found)?;
        Ok(found.into_iter().map(|trial| trial.canary).collect())
    }

    /// Trials of certificates that are not in use, chosen since `since`, that are not over.
    pub async fn open_trials(&self, since: Timestamp) -> Result<Vec<Trial>, StoreError> {
        let statement = Statement::from_sql_and_values(
            self.tx().get_database_backend(),
            "SELECT c.* FROM push_canaries c JOIN push_certificates p \
             ON p.push_certificate_id = c.push_certificate_id \
             WHERE p.state = $1 AND c.came_at IS NULL AND c.refused IS NULL AND c.asked_at >= $2 \
             ORDER BY c.push_certificate_id, c.device_id",
            [
                Value::from(Standing::Canary.as_str()),
                Value::from(since.millis()),
            ],
        );
        let found = Entity::find()
            .from_raw_sql(statement)
            .all(self.tx())
            .await?;
        row::read_all(found)
    }
}

impl Write {
    /// These Macs try a certificate, and those that were chosen before do not.
    pub async fn choose_canaries(
        &mut self,
        of: &PushCertificateId,
        chosen: &[Canary],
    ) -> Result<(), StoreError> {
        self.forget_canaries(of).await?;
        for canary in chosen {
            let model = ActiveModel {
                push_certificate_id: Set(of.to_string()),
                device_id: Set(canary.device_id.to_string()),
                asked_at: Set(canary.asked_at.millis()),
                taken_until: Set(0),
                refused: Set(None),
                trouble: Set(None),
                sent_at: Set(None),
                came_at: Set(None),
            };
            Entity::insert(model)
                .exec_without_returning(self.tx())
                .await?;
        }
        Ok(())
    }

    /// Nobody tries a certificate any more, and what came of it is forgotten.
    pub async fn forget_canaries(&mut self, of: &PushCertificateId) -> Result<(), StoreError> {
        Entity::delete_many()
            .filter(Column::PushCertificateId.eq(of.as_str()))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Takes a trial for this node until `until`; false when another has it, or it is no more.
    pub async fn take_trial(
        &mut self,
        trial: &Trial,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let taken = Entity::update_many()
            .col_expr(Column::TakenUntil, Expr::value(until.millis()))
            .filter(same(trial))
            .filter(Column::TakenUntil.lte(now.millis()))
            .filter(Column::SentAt.is_null())
            .filter(Column::Refused.is_null())
            .exec(self.tx())
            .await?;
        Ok(taken.rows_affected > 0)
    }

    /// Leaves a trial to whichever node comes first, from `from` on.
    pub async fn release_trial(
        &mut self,
        trial: &Trial,
        from: Timestamp,
    ) -> Result<(), StoreError> {
        Entity::update_many()
            .col_expr(Column::TakenUntil, Expr::value(from.millis()))
            .filter(same(trial))
            .exec(self.tx())
            .await?;
        Ok(())
    }

    /// Writes down how far a trial is. One that was chosen anew meanwhile is left alone.
    pub async fn note_trial(&mut self, trial: &Trial) -> Result<(), StoreError> {
        let canary = &trial.canary;
        Entity::update_many()
            .col_expr(Column::Refused, Expr::value(canary.refused.clone()))
            .col_expr(Column::Trouble, Expr::value(canary.trouble.clone()))
            .col_expr(
                Column::SentAt,
                Expr::value(canary.sent_at.map(Timestamp::millis)),
            )
            .col_expr(
                Column::CameAt,
                Expr::value(canary.came_at.map(Timestamp::millis)),
            )
            .filter(same(trial))
            .exec(self.tx())
            .await?;
        Ok(())
    }
}

/// The row of a trial, unless it was begun anew.
fn same(trial: &Trial) -> sea_orm::Condition {
    sea_orm::Condition::all()
        .add(Column::PushCertificateId.eq(trial.push_certificate_id.as_str()))
        .add(Column::DeviceId.eq(trial.canary.device_id.as_str()))
        .add(Column::AskedAt.eq(trial.canary.asked_at.millis()))
}

impl Row for Model {
    type Noun = Trial;
    const TABLE: &'static str = "push_canaries";

    fn id(&self) -> String {
        format!("{}/{}", self.push_certificate_id, self.device_id)
    }

    fn noun(self) -> Option<Trial> {
        Some(Trial {
            push_certificate_id: row::parsed(&self.push_certificate_id, PushCertificateId::parse)?,
            canary: Canary {
                device_id: row::parsed(&self.device_id, DeviceId::parse)?,
                asked_at: Timestamp::from_millis(self.asked_at),
                refused: self.refused,
                trouble: self.trouble,
                sent_at: row::time(self.sent_at),
                came_at: row::time(self.came_at),
            },
        })
    }
}
