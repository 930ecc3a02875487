//! Who is told of events by messages, how far that is, and what could not be told.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, boolean, text, text_null};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("webhooks")
                    .col(text("webhook_id").primary_key())
                    .col(text("name").unique_key())
                    // Address and signing secret: an address may hold a secret of its receiver.
                    .col(blob("sealed"))
                    // Names of events, a JSON list; all of them where there is none.
                    .col(text_null("events"))
                    .col(boolean("allow_private"))
                    .col(text_null("root"))
                    .col(big_integer("created_at"))
                    // Rises whenever somebody takes it or moves its course.
                    .col(big_integer("revision"))
                    // Somebody delivers until then.
                    .col(big_integer("taken_until"))
                    .col(text("course"))
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("webhook_dead_letters")
                    .col(text("webhook_id"))
                    .col(big_integer("seq"))
                    // The event itself: the outbox does not keep it for ever.
                    .col(text("device_id"))
                    .col(text("name"))
                    .col(big_integer("at"))
                    .col(text("body"))
                    .col(text("why"))
                    .col(big_integer("given_up_at"))
                    // Since when it is to be sent again.
                    .col(big_integer_null("replay_since"))
                    .primary_key(Index::create().col("webhook_id").col("seq"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("webhook_dead_letters", "webhook_id")
                            .to("webhooks", "webhook_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["webhook_dead_letters", "webhooks"] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
