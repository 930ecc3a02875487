//! What one person wants done with push certificates, and another is to confirm.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("push_proposals")
                    .col(text("push_proposal_id").primary_key())
                    // One at a time for each fleet.
                    .col(text("topic").unique_key())
                    .col(text("act"))
                    .col(text("push_certificate_id"))
                    .col(text_null("untried_because"))
                    // What tells one person from another, and how they are shown.
                    .col(text("person"))
                    .col(text("proposed_by"))
                    .col(big_integer("proposed_at"))
                    .col(big_integer("good_until"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("push_proposals", "push_certificate_id")
                            .to("push_certificates", "push_certificate_id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .take(),
            )
            .await
    }
}
