//! Facts about the service itself, such as its server id.

use sea_orm::ActiveValue::Set;
use sea_orm::QuerySelect as _;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DbBackend, Statement};

use super::edit::{Datum, Edit};
use super::{Read, Store, StoreError, Write};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "service_meta")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub value: String,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::{ActiveModel, Column, Entity};

/// The number that a fact is.
pub(super) fn number(name: &str, fact: &str) -> Result<i64, StoreError> {
    fact.parse().map_err(|_| StoreError::Inconsistent {
        table: "service_meta",
        id: name.to_owned(),
    })
}

impl Store {
    /// What the clock of the database's own machine shows; `None` where it is this machine's.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn server_time(&self) -> Result<Option<Timestamp>, StoreError> {
        if self.0.connections.backend.is_sqlite() {
            return Ok(None);
        }
        let statement = Statement::from_string(
            DbBackend::Postgres,
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        );
        let row = self.0.connections.read.query_one_raw(statement).await?;
        let millis: Option<i64> = row.map(|row| row.try_get_by_index(0)).transpose()?;
        Ok(millis.map(Timestamp::from_millis))
    }
}

impl Read {
    /// A fact about the service.
    pub async fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = Entity::find_by_id(name).one(self.tx()).await?;
        Ok(found.map(|row| row.value))
    }
}

impl Write {
    /// As [`Read::fact`]; on PostgreSQL nobody else states it anew until the end, if it is stated.
    pub async fn fact_to_change(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        let mut query = Entity::find_by_id(name);
        if !self.is_alone() {
            query = query.lock_exclusive();
        }
        Ok(query.one(self.tx()).await?.map(|row| row.value))
    }

    /// States a fact about the service unless it is stated already; returns what stands, whoever stated
    /// it.
    pub async fn state_fact(&mut self, name: &str, value: &str) -> Result<String, StoreError> {
        let state = Edit::new(
            "INSERT INTO service_meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            [Datum::text(name), Datum::text(value)],
        );
        state.apply(self.tx()).await?;
        let stands = self.fact(name).await?;
        stands.ok_or_else(|| StoreError::Inconsistent {
            table: "service_meta",
            id: name.to_owned(),
        })
    }

    /// States a fact about the service, in place of what was stated before.
    pub async fn set_fact(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        let model = ActiveModel {
            name: Set(name.to_owned()),
            value: Set(value.to_owned()),
        };
        let replace = OnConflict::column(Column::Name)
            .update_column(Column::Value)
            .to_owned();
        Entity::insert(model)
            .on_conflict(replace)
            .exec_without_returning(self.tx())
            .await?;
        Ok(())
    }

    /// States nothing any more.
    pub async fn forget_fact(&mut self, name: &str) -> Result<(), StoreError> {
        Entity::delete_by_id(name).exec(self.tx()).await?;
        Ok(())
    }
}
