//! What Apple stated of a key, by the evidence it is: the public feed shows the chain.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_index(
                Index::create()
                    .name("attested_keys_by_evidence")
                    .table("attested_keys")
                    .col("evidence_id")
                    .take(),
            )
            .await
    }
}
