//! When a step of an enrolment was done for the first time: what the time to trust is counted to.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = big_integer_null("first_done_at");
        manager
            .alter_table(Table::alter().table("steps").add_column(column).take())
            .await?;
        // Whatever its step says now: of who was here before, the first time is over.
        manager
            .get_connection()
            .execute_unprepared("UPDATE steps SET first_done_at = at")
            .await?;
        Ok(())
    }
}
