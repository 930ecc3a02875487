//! Attested identities: what happened under each ticket's ACME directory, and what Apple stated of
//! the keys that certificates were issued for.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, blob, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Tickets that were made before were all for SCEP.
        manager
            .alter_table(
                Table::alter()
                    .table("tickets")
                    .add_column(text("protocol").default("scep"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("acme_directories")
                    .col(text("ticket_id").primary_key())
                    // Whoever writes names the revision it read: of two at once, one wins.
                    .col(big_integer("revision"))
                    .col(big_integer("expires_at"))
                    .col(text("body"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("acme_directories_by_end")
                    .table("acme_directories")
                    .col("expires_at")
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("attested_keys")
                    .col(blob("certificate").primary_key())
                    .col(blob("evidence_id"))
                    .col(text("serial"))
                    .col(big_integer("verified_at"))
                    .col(text("body"))
                    .take(),
            )
            .await
    }
}
