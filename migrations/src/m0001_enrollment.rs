//! Tickets, identity certificates, enrollments and the steps their owners see.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, blob_null, text, text_null};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("tickets")
                    .col(text("ticket_id").primary_key())
                    .col(blob("secret").unique_key())
                    .col(text("progress_id").unique_key())
                    .col(text_null("serial"))
                    .col(text_null("account"))
                    .col(text_null("se_public_key"))
                    .col(big_integer("created_at"))
                    .col(big_integer("expires_at"))
                    .col(big_integer_null("used_at"))
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("identities")
                    .col(blob("certificate").primary_key())
                    .col(blob("der"))
                    .col(text("kind"))
                    .col(text_null("ticket_id"))
                    .col(text_null("serial"))
                    .col(text_null("device_id"))
                    .col(big_integer("issued_at"))
                    .col(big_integer("not_before"))
                    .col(big_integer("not_after"))
                    .col(big_integer_null("revoked_at"))
                    .col(text_null("transaction_id"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("identities", "ticket_id")
                            .to("tickets", "ticket_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("identities_of_a_ticket")
                    .table("identities")
                    .col("ticket_id")
                    .col("transaction_id")
                    .unique()
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("identities_of_a_device")
                    .table("identities")
                    .col("device_id")
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("enrollments")
                    .col(text("device_id").primary_key())
                    .col(text("udid").unique_key())
                    .col(text_null("serial"))
                    .col(text("state"))
                    // One certificate speaks for one Mac.
                    .col(blob("identity").unique_key())
                    .col(text_null("ticket_id"))
                    .col(text("topic"))
                    .col(blob_null("push_sealed"))
                    .col(big_integer_null("push_updated_at"))
                    .col(big_integer_null("push_dead_since"))
                    .col(text("hardware"))
                    .col(blob_null("bootstrap_sealed"))
                    .col(big_integer("authenticated_at"))
                    .col(big_integer_null("enrolled_at"))
                    .col(big_integer_null("checked_out_at"))
                    .col(big_integer_null("last_seen"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("enrollments", "identity")
                            .to("identities", "certificate"),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .from("enrollments", "ticket_id")
                            .to("tickets", "ticket_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("enrollments_of_a_serial")
                    .table("enrollments")
                    .col("serial")
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("steps")
                    .col(text("ticket_id"))
                    .col(text("step"))
                    .col(text("standing"))
                    .col(big_integer("at"))
                    .col(text_null("reason"))
                    .primary_key(Index::create().col("ticket_id").col("step"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("steps", "ticket_id")
                            .to("tickets", "ticket_id"),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["steps", "enrollments", "identities", "tickets"] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
