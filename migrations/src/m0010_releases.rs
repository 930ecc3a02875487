//! Releases of the provider software with all that happened to them, and the requests for profiles
//! that provider keys signed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, big_pk_auto, blob, text};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("releases")
                    .col(blob("binary_hash"))
                    .col(text("platform"))
                    .col(text("version"))
                    .col(big_integer("registered_at"))
                    .col(big_integer_null("revoked_at"))
                    .col(text("body"))
                    .primary_key(Index::create().col("binary_hash").col("platform"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("release_history")
                    .col(big_pk_auto("seq"))
                    .col(big_integer("at"))
                    .col(text("action"))
                    .col(blob("binary_hash"))
                    .col(text("platform"))
                    .col(text("version"))
                    .col(text("who"))
                    .col(text("why"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("enroll_requests")
                    .col(blob("name").primary_key())
                    .col(big_integer("until"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("enroll_requests_by_end")
                    .table("enroll_requests")
                    .col("until")
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["enroll_requests", "release_history", "releases"] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
