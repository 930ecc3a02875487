//! What is next for each Mac, and when: the one thing that is searched for what is due.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, text, text_null};

#[derive(Debug, DeriveMigrationName)]
pub struct Migration;

/// A Mac that is known already is looked at once: its agenda is made from what is stored of it.
const BEGIN: &str = "INSERT INTO agendas (device_id, priority, due_at, owes_from) \
     SELECT e.device_id, 2, 0, v.owes_from FROM enrollments e \
     LEFT JOIN verifications v ON v.device_id = e.device_id AND v.finished_at IS NULL \
     WHERE e.state = 'enrolled'";

const OWED: &str = "UPDATE verifications SET owes_from = a.owes_from FROM agendas a \
     WHERE a.device_id = verifications.device_id AND verifications.finished_at IS NULL";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("agendas")
                    .col(text("device_id").primary_key())
                    .col(big_integer("priority"))
                    .col(big_integer_null("due_at"))
                    .col(big_integer_null("owes_from"))
                    .col(text_null("body"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("agendas", "device_id")
                            .to("enrollments", "device_id"),
                    )
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("agendas_by_urgency")
                    .table("agendas")
                    .col("priority")
                    .col("due_at")
                    .and_where(Expr::col("due_at").is_not_null())
                    .take(),
            )
            .await?;
        manager.get_connection().execute_unprepared(BEGIN).await?;
        for index in [
            "open_verifications_by_deadline",
            "open_verifications_by_debt",
        ] {
            manager
                .drop_index(Index::drop().name(index).table("verifications").to_owned())
                .await?;
        }
        manager
            .alter_table(
                Table::alter()
                    .table("verifications")
                    .drop_column("owes_from")
                    .take(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter()
                    .table("verifications")
                    .add_column(big_integer_null("owes_from"))
                    .take(),
            )
            .await?;
        manager.get_connection().execute_unprepared(OWED).await?;
        for (name, column, when) in [
            (
                "open_verifications_by_deadline",
                "deadline",
                Expr::col("finished_at").is_null(),
            ),
            (
                "open_verifications_by_debt",
                "owes_from",
                Expr::col("owes_from").is_not_null(),
            ),
        ] {
            manager
                .create_index(
                    Index::create()
                        .name(name)
                        .table("verifications")
                        .col(column)
                        .and_where(when)
                        .take(),
                )
                .await?;
        }
        manager
            .drop_table(Table::drop().table("agendas").take())
            .await
    }
}
