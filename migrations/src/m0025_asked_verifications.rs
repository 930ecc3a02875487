//! Macs of which somebody at the command line wants fresh evidence: whichever server runs asks them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("asked_verifications")
                    // Also the idempotency key of the request that a server makes of it.
                    .col(text("asked_id").primary_key())
                    .col(text("device_id"))
                    .col(text("kinds"))
                    .col(text("occasion"))
                    .col(big_integer("asked_at"))
                    .col(text_null("verification_id"))
                    .col(text_null("refused"))
                    .take(),
            )
            .await
    }
}
