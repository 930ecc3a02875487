//! Provider sessions, their challenges, and what changed lately.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, big_pk_auto, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

const INDEXES: &[(&str, &str)] = &[
    ("bindings_of_a_mac", "device_id"),
    ("bindings_by_key", "se_point"),
    ("bindings_by_claim", "claimed_serial"),
    ("bindings_by_time_out", "timeout_at"),
    ("bindings_by_silence", "silent_from"),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("bindings")
                    .col(text("session").primary_key())
                    .col(text("binding_id").unique_key())
                    // The Mac it is about, proved or merely claimed.
                    .col(text_null("device_id"))
                    .col(text("se_point"))
                    .col(text_null("claimed_serial"))
                    .col(text_null("account"))
                    .col(big_integer("began_at"))
                    .col(big_integer_null("ended_at"))
                    // When the time for the outstanding challenge is up.
                    .col(big_integer_null("timeout_at"))
                    // When it was heard of last.
                    .col(big_integer("silent_from"))
                    .col(text("body"))
                    // As it came, for whoever verifies it again: blob and signature.
                    .col(text("registration"))
                    // The last challenge that was answered well, and its answer.
                    .col(text_null("exchange"))
                    .take(),
            )
            .await?;
        for (name, column) in INDEXES {
            manager
                .create_index(
                    Index::create()
                        .name(*name)
                        .table("bindings")
                        .col(*column)
                        .take(),
                )
                .await?;
        }

        manager
            .create_table(
                Table::create()
                    .table("challenges")
                    .col(text("challenge_id").primary_key())
                    .col(text("session"))
                    .col(text("body"))
                    .col(big_integer("issued_at"))
                    .col(big_integer_null("answered_at"))
                    .col(text_null("outcome"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("challenges_by_age")
                    .table("challenges")
                    .col("issued_at")
                    .take(),
            )
            .await?;

        // What the other nodes must forget; written on PostgreSQL only.
        manager
            .create_table(
                Table::create()
                    .table("changes")
                    .col(big_pk_auto("seq"))
                    .col(text("subject"))
                    .col(big_integer("at"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["changes", "challenges", "bindings"] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
