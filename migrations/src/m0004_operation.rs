//! What operating the service needs: push certificates, API tokens, refusals, and its own facts.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, big_pk_auto, blob, text, text_null,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("push_certificates")
                    .col(text("push_certificate_id").primary_key())
                    // Rises with every installation; tells other processes that something changed.
                    .col(big_integer("generation").unique_key())
                    .col(text("topic"))
                    .col(text("state"))
                    .col(text("chain"))
                    .col(blob("key_sealed"))
                    .col(blob("sha256"))
                    .col(big_integer("not_before"))
                    .col(big_integer("not_after"))
                    .col(big_integer("installed_at"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("one_active_push_certificate_per_topic")
                    .table("push_certificates")
                    .col("topic")
                    .unique()
                    .and_where(Expr::col("state").eq(Expr::cust("'active'")))
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("api_tokens")
                    .col(text("api_token_id").primary_key())
                    .col(blob("secret").unique_key())
                    .col(text("role"))
                    .col(text("label"))
                    .col(big_integer("created_at"))
                    .col(big_integer_null("expires_at"))
                    .col(big_integer_null("revoked_at"))
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("refusals")
                    .col(big_pk_auto("refusal_id"))
                    .col(text("subject"))
                    .col(text_null("device_id"))
                    .col(text("reason"))
                    .col(text("surface"))
                    .col(text("detail"))
                    .col(big_integer("at"))
                    .col(big_integer("last_at"))
                    .col(big_integer("count"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("refusals_of_a_subject")
                    .table("refusals")
                    .col("subject")
                    .col("reason")
                    .col("surface")
                    .col("at")
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("refusals_of_a_device")
                    .table("refusals")
                    .col("device_id")
                    .col("last_at")
                    .take(),
            )
            .await?;

        manager
            .create_table(
                Table::create()
                    .table("service_meta")
                    .col(text("name").primary_key())
                    .col(text("value"))
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            "service_meta",
            "refusals",
            "api_tokens",
            "push_certificates",
        ] {
            manager
                .drop_table(Table::drop().table(table).take())
                .await?;
        }
        Ok(())
    }
}
