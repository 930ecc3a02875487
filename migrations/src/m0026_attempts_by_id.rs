//! What was said under an attempt goes with it: found by the attempt's id, which rises with time.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, table) in [
            ("commands_of_an_attempt", "commands"),
            ("requests_of_an_attempt", "verification_requests"),
        ] {
            let index = Index::create()
                .name(name)
                .table(table)
                .col("verification_id")
                .take();
            manager.create_index(index).await?;
        }
        Ok(())
    }
}
