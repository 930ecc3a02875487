//! Verifications, the commands handed over for them, the nonce ledger and the evidence received.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, blob_null, boolean, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("verifications")
                    .col(text("verification_id").primary_key())
                    .col(text("device_id"))
                    .col(text("body"))
                    .col(big_integer("created_at"))
                    .col(big_integer("deadline"))
                    .col(big_integer_null("owes_from"))
                    .col(big_integer_null("finished_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("verifications", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("one_open_verification_per_device")
                    .table("verifications")
                    .col("device_id")
                    .unique()
                    .and_where(Expr::col("finished_at").is_null())
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("open_verifications_by_deadline")
                    .table("verifications")
                    .col("deadline")
                    .and_where(Expr::col("finished_at").is_null())
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("open_verifications_by_debt")
                    .table("verifications")
                    .col("owes_from")
                    .and_where(Expr::col("owes_from").is_not_null())
                    .take(),
            )
            .await?;

        // Several requests may join one verification, each under a key of its own.
        manager
            .create_table(
                Table::create()
                    .table("verification_requests")
                    .col(text("idempotency_key").primary_key())
                    .col(blob("request_hash"))
                    .col(text("verification_id"))
                    .col(big_integer("at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("verification_requests", "verification_id")
                            .to("verifications", "verification_id"),
                    )
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("commands")
                    .col(text("command_uuid").primary_key())
                    .col(text("device_id"))
                    .col(text("verification_id"))
                    .col(text("kind"))
                    .col(blob("identity"))
                    .col(text("state"))
                    .col(big_integer("handed_over_at"))
                    .col(big_integer_null("concluded_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("commands", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .from("commands", "verification_id")
                            .to("verifications", "verification_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("outstanding_commands")
                    .table("commands")
                    .col("device_id")
                    .and_where(Expr::col("concluded_at").is_null())
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("nonces")
                    .col(text("command_uuid").primary_key())
                    .col(text("device_id"))
                    .col(blob("nonce"))
                    .col(text("scheme"))
                    .col(big_integer("minted_at"))
                    .col(text("inputs"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("nonces", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .take(),
            )
            .await?;
        // Not unique: a legacy nonce is the same for every command of a Mac. In the order of time,
        // so that the first hand-over is found without sorting.
        manager
            .create_index(
                Index::create()
                    .name("nonces_of_a_device")
                    .table("nonces")
                    .col("device_id")
                    .col("nonce")
                    .col("minted_at")
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("evidence")
                    .col(blob("evidence_id").primary_key())
                    .col(text("device_id"))
                    .col(text("command_uuid"))
                    .col(text("kind"))
                    .col(big_integer("received_at"))
                    .col(blob("stored"))
                    .col(blob_null("signature"))
                    .col(boolean("raw"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("evidence", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("evidence_of_a_device")
                    .table("evidence")
                    .col("device_id")
                    .col("received_at")
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "evidence",
            "nonces",
            "commands",
            "verification_requests",
            "verifications",
        ] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
