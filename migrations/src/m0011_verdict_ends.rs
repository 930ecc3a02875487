//! When subscribers are to be told that a verdict is about to end, or has ended.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter()
                    .table("postures")
                    .add_column(big_integer_null("notice_at"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("postures_by_notice")
                    .table("postures")
                    .col("notice_at")
                    .take(),
            )
            .await
    }
}
