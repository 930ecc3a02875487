//! The transparency log: its entries, and the hashes above them that are shown in tiles.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, small_integer};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("log_entries")
                    .col(big_integer("position").primary_key())
                    .col(blob("body"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("log_hashes")
                    .col(small_integer("level"))
                    .col(big_integer("position"))
                    .col(blob("hash"))
                    .primary_key(Index::create().col("level").col("position"))
                    .take(),
            )
            .await
    }
}
