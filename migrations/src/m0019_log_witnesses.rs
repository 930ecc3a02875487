//! Heads of the transparency log that witnesses signed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("log_cosignatures")
                    .col(text("witness"))
                    .col(big_integer("size"))
                    .col(text("head"))
                    .col(text("line"))
                    .col(big_integer("signed_at"))
                    .primary_key(Index::create().col("witness").col("size"))
                    .take(),
            )
            .await
    }
}
