//! Commands that an old coordinator asked for through the MicroMDM interface, and what it is told.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob_null, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("relayed_commands")
                    // The name the coordinator knows it by.
                    .col(text("command_uuid").primary_key())
                    // As the coordinator wrote it.
                    .col(text("spelled"))
                    .col(text("device_id"))
                    .col(text("kind"))
                    .col(big_integer("asked_at"))
                    // Whoever asked no longer waits after that.
                    .col(big_integer("waits_until"))
                    // The command that was handed over and answers it.
                    .col(text_null("asked"))
                    .col(text_null("status"))
                    // The reply, until it was told.
                    .col(blob_null("sealed"))
                    .col(big_integer_null("answered_at"))
                    // When it is (again) tried to tell; nothing is to be told where there is none.
                    .col(big_integer_null("tell_at"))
                    .col(big_integer("tries"))
                    .col(text_null("outcome"))
                    .take(),
            )
            .await?;
        for (name, column) in [
            ("relayed_commands_of_a_mac", "device_id"),
            ("relayed_commands_by_question", "asked"),
            ("relayed_commands_to_tell", "tell_at"),
            ("relayed_commands_by_age", "asked_at"),
        ] {
            manager
                .create_index(
                    Index::create()
                        .name(name)
                        .table("relayed_commands")
                        .col(column)
                        .take(),
                )
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table("relayed_commands").take())
            .await
    }
}
