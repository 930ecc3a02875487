//! The audit log: a chain of what administrators changed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, text};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("audit")
                    .col(big_integer("seq").primary_key())
                    .col(text("subject"))
                    // As it was hashed, byte for byte.
                    .col(text("entry"))
                    .col(blob("hash"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("audit_by_subject")
                    .table("audit")
                    .col("subject")
                    .col("seq")
                    .take(),
            )
            .await
    }
}
