//! When each token of the internal API was used last.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = big_integer_null("last_used_at");
        let table = Table::alter().table("api_tokens").add_column(column).take();
        manager.alter_table(table).await
    }
}
