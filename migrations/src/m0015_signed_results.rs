//! The keys that results are signed by, and the policies that results were judged by.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, text};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("result_keys")
                    .col(text("kid").primary_key())
                    .col(text("alg"))
                    .col(big_integer("generation"))
                    .col(text("jwk"))
                    .col(blob("key_sealed"))
                    .col(big_integer("made_at"))
                    .col(big_integer("signs_from"))
                    .col(big_integer_null("signs_until"))
                    .col(big_integer_null("withdrawn_at"))
                    .take(),
            )
            .await?;
        // Two who make the next key at the same time: one is refused.
        manager
            .create_index(
                Index::create()
                    .name("result_keys_by_generation")
                    .table("result_keys")
                    .col("alg")
                    .col("generation")
                    .unique()
                    .take(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("policies")
                    .col(text("sha256").primary_key())
                    .col(text("policy_id"))
                    .col(big_integer("first_used_at"))
                    .col(text("body"))
                    .take(),
            )
            .await
    }
}
