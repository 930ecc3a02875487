//! The attempts of one Mac, the last first: every reading of its posture looks for it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_index(
                Index::create()
                    .name("verifications_of_a_device")
                    .table("verifications")
                    .col("device_id")
                    .col("verification_id")
                    .take(),
            )
            .await
    }
}
