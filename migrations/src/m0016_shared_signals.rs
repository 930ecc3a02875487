//! Receivers of shared signals, their streams, and the tokens that wait for them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, big_pk_auto, blob, boolean, text, text_null,
};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("signal_receivers")
                    .col(text("receiver_id").primary_key())
                    .col(text("name").unique_key())
                    // The hash of its secret.
                    .col(blob("secret"))
                    .col(text("audience"))
                    .col(text("scope"))
                    .col(boolean("allow_private"))
                    .col(text_null("root"))
                    .col(big_integer("created_at"))
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("signal_streams")
                    .col(text("stream_id").primary_key())
                    // One stream for each receiver.
                    .col(text("receiver_id").unique_key())
                    // Where tokens are posted to and the header they carry: both may be secrets.
                    .col(blob("sealed"))
                    .col(text("events_requested"))
                    .col(text_null("description"))
                    .col(text("status"))
                    .col(text_null("reason"))
                    .col(big_integer_null("verified_at"))
                    .col(big_integer("created_at"))
                    // As of webhooks: who delivers takes it, and keeps what came of that.
                    .col(big_integer("revision"))
                    .col(big_integer("taken_until"))
                    .col(text("course"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("signal_streams", "receiver_id")
                            .to("signal_receivers", "receiver_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("signal_tokens")
                    .col(big_pk_auto("seq"))
                    .col(text("stream_id"))
                    .col(text("jti").unique_key())
                    // The Mac it is about; empty where it is about the stream.
                    .col(text("device_id"))
                    .col(big_integer("at"))
                    .col(text("claims"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("signal_tokens", "stream_id")
                            .to("signal_streams", "stream_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("signal_tokens_of_a_stream")
                    .table("signal_tokens")
                    .col("stream_id")
                    .col("seq")
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("signal_exclusions")
                    .col(text("stream_id"))
                    // A pseudonym, or the id of a Mac.
                    .col(text("mac"))
                    .primary_key(Index::create().col("stream_id").col("mac"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("signal_exclusions", "stream_id")
                            .to("signal_streams", "stream_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        // The last word that was known of each Mac.
        manager
            .create_table(
                Table::create()
                    .table("signal_words")
                    .col(text("device_id").primary_key())
                    .col(boolean("is_compliant"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "signal_words",
            "signal_exclusions",
            "signal_tokens",
            "signal_streams",
            "signal_receivers",
        ] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
