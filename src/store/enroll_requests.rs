//! Requests for profiles that provider keys signed: each is granted once, and remembered until it is
//! refused for its age anyway.

use sea_orm::entity::prelude::*;

use super::edit::{Datum, Edit};
use super::{Read, StoreError, Write};
use crate::time::Timestamp;

mod table {
    use sea_orm::entity::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "enroll_requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: Vec<u8>,
        pub until: i64,
    }

    #[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use table::Entity;

impl Read {
    /// Whether a request of this name was granted and is still remembered.
    pub async fn enroll_request_granted(&self, name: &[u8; 32]) -> Result<bool, StoreError> {
        let found = Entity::find_by_id(name.to_vec()).one(self.tx()).await?;
        Ok(found.is_some())
    }
}

impl Write {
    /// Remembers that a request is granted, until `until`; forgets those whose time is up. False when
    /// it was granted before: of any number of attempts, one gets true.
    pub async fn grant_enroll_request(
        &mut self,
        name: &[u8; 32],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let forget = "DELETE FROM enroll_requests WHERE until <= $1";
        Edit::new(forget, [Datum::int(now.millis())])
            .apply(self.tx())
            .await?;
        let grant = Edit::that_must_change(
            "INSERT INTO enroll_requests (name, until) VALUES ($1, $2) \
             ON CONFLICT (name) DO NOTHING",
            [Datum::bytes(*name), Datum::int(until.millis())],
        );
        match grant.apply(self.tx()).await {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
