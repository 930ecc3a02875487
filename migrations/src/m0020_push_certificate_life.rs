//! The life of a push certificate: the key that one is asked for, when it came into use and when it was
//! replaced, and the Macs that try it before all do.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One by one: SQLite takes no more.
        for column in [
            text_null("apple_account"),
            big_integer_null("activated_at"),
            big_integer_null("retired_at"),
            // What the operator said who took it into use without a trial.
            text_null("untried_because"),
            // How many days before its end was told last.
            big_integer_null("expiry_told"),
        ] {
            manager
                .alter_table(
                    Table::alter()
                        .table("push_certificates")
                        .add_column(column)
                        .take(),
                )
                .await?;
        }
        manager
            .create_table(
                Table::create()
                    .table("push_canaries")
                    .col(text("push_certificate_id"))
                    .col(text("device_id"))
                    .col(big_integer("asked_at"))
                    // A node that pushes takes the row until then.
                    .col(big_integer("taken_until"))
                    .col(text_null("refused"))
                    .col(text_null("trouble"))
                    .col(big_integer_null("sent_at"))
                    .col(big_integer_null("came_at"))
                    .primary_key(Index::create().col("push_certificate_id").col("device_id"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("push_canaries", "push_certificate_id")
                            .to("push_certificates", "push_certificate_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("push_requests")
                    .col(text("push_request_id").primary_key())
                    .col(text_null("apple_account"))
                    .col(blob("spki").unique_key())
                    .col(blob("csr"))
                    .col(blob("key_sealed"))
                    .col(big_integer("requested_at"))
                    .take(),
            )
            .await?;
        // All of them came into use when they were installed.
        manager
            .get_connection()
            .execute_unprepared("UPDATE push_certificates SET activated_at = installed_at")
            .await?;
        Ok(())
    }
}
