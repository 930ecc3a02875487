//! What is believed of each Mac, what was believed before, and the outbox.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_pk_auto, text};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("postures")
                    .col(text("device_id").primary_key())
                    .col(big_integer("revision"))
                    .col(big_integer("revocation_epoch"))
                    .col(text("verdict"))
                    .col(text("body"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("postures", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("posture_history")
                    .col(text("device_id"))
                    .col(big_integer("revision"))
                    .col(big_integer("at"))
                    .col(text("verdict"))
                    .col(text("body"))
                    .primary_key(Index::create().col("device_id").col("revision"))
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("events")
                    .col(big_pk_auto("seq"))
                    .col(text("device_id"))
                    .col(text("name"))
                    .col(big_integer("at"))
                    .col(text("body"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["events", "posture_history", "postures"] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
