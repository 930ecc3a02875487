//! Who may speak for a Mac when its serial number is held: contenders beside holders, identities
//! that renew others.
//!
//! A UDID is a claim, so two enrollments may make it: one that stands, and others that contend.
//! One certificate still speaks for one enrollment; an enrollment whose place was taken keeps its
//! row, for what was learnt under it, and speaks no more.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, blob_null, text, text_null};
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// The columns of `enrollments` before this step, in order.
const FORMER: &str = "device_id, udid, serial, state, identity, ticket_id, topic, push_sealed, \
    push_updated_at, push_dead_since, hardware, bootstrap_sealed, authenticated_at, enrolled_at, \
    checked_out_at, last_seen";

/// A definite negative attestation counts as proof of the serial number too; one that nothing dates
/// does not.
const HELD: &str = "UPDATE enrollments SET held_since = authenticated_at, \
    proved_at = authenticated_at WHERE serial IS NOT NULL AND device_id IN \
    (SELECT device_id FROM postures WHERE body LIKE '%\"class\":\"fresh\"%' \
    OR body LIKE '%\"class\":\"cached_known\"%') AND NOT EXISTS (SELECT 1 FROM enrollments o \
    WHERE o.serial = enrollments.serial AND o.device_id <> enrollments.device_id)";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        if manager.get_database_backend() == DbBackend::Sqlite {
            rebuild(manager).await?;
        } else {
            connection
                .execute_unprepared(
                    "ALTER TABLE enrollments DROP CONSTRAINT enrollments_udid_key, \
                     DROP CONSTRAINT enrollments_identity_key, \
                     ADD COLUMN contends_with TEXT, ADD COLUMN held_since BIGINT, \
                     ADD COLUMN proved_at BIGINT",
                )
                .await?;
        }
        for index in [
            Index::create()
                .name("one_standing_enrollment_per_udid")
                .table("enrollments")
                .col("udid")
                .unique()
                .and_where(Expr::col("contends_with").is_null())
                .take(),
            Index::create()
                .name("enrollments_of_a_udid")
                .table("enrollments")
                .col("udid")
                .take(),
            Index::create()
                .name("one_enrollment_per_identity")
                .table("enrollments")
                .col("identity")
                .unique()
                .and_where(Expr::col("state").ne("superseded"))
                .take(),
            Index::create()
                .name("one_holder_per_serial")
                .table("enrollments")
                .col("serial")
                .unique()
                .and_where(Expr::col("held_since").is_not_null())
                .take(),
            Index::create()
                .name("enrollments_of_a_ticket")
                .table("enrollments")
                .col("ticket_id")
                .take(),
            // Proved, and not yet settled who holds the serial number: rare, and short.
            Index::create()
                .name("serials_to_settle")
                .table("enrollments")
                .col("proved_at")
                .and_where(Expr::col("proved_at").is_not_null())
                .and_where(Expr::col("held_since").is_null())
                .take(),
        ] {
            manager.create_index(index).await?;
        }
        connection.execute_unprepared(HELD).await?;

        manager
            .alter_table(
                Table::alter()
                    .table("identities")
                    .add_column(blob_null("renews"))
                    .take(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("renewals_of_an_identity")
                    .table("identities")
                    .col("renews")
                    .and_where(Expr::col("renews").is_not_null())
                    .take(),
            )
            .await
    }
}

/// SQLite cannot drop a constraint: the table is made anew (SQLite, "Making Other Kinds Of Table
/// Schema Changes"). References are not checked meanwhile, because dropping the old table would
/// delete what others refer to; nothing else writes while the schema changes.
async fn rebuild(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    connection
        .execute_unprepared("PRAGMA foreign_keys = OFF")
        .await?;
    let done = async {
        connection.execute_unprepared("BEGIN IMMEDIATE").await?;
        manager
            .create_table(
                Table::create()
                    .table("enrollments_rebuilt")
                    .col(text("device_id").primary_key())
                    .col(text("udid"))
                    .col(text_null("serial"))
                    .col(text("state"))
                    .col(blob("identity"))
                    .col(text_null("ticket_id"))
                    .col(text("topic"))
                    .col(blob_null("push_sealed"))
                    .col(big_integer_null("push_updated_at"))
                    .col(big_integer_null("push_dead_since"))
                    .col(text("hardware"))
                    .col(blob_null("bootstrap_sealed"))
                    .col(big_integer("authenticated_at"))
                    .col(big_integer_null("enrolled_at"))
                    .col(big_integer_null("checked_out_at"))
                    .col(big_integer_null("last_seen"))
                    .col(text_null("contends_with"))
                    .col(big_integer_null("held_since"))
                    .col(big_integer_null("proved_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("enrollments_rebuilt", "identity")
                            .to("identities", "certificate"),
                    )
                    .foreign_key(
                        ForeignKey::create()
                            .from("enrollments_rebuilt", "ticket_id")
                            .to("tickets", "ticket_id"),
                    )
                    .take(),
            )
            .await?;
        connection
            .execute_unprepared(&format!(
                "INSERT INTO enrollments_rebuilt ({FORMER}) SELECT {FORMER} FROM enrollments; \
                 DROP TABLE enrollments; \
                 ALTER TABLE enrollments_rebuilt RENAME TO enrollments; \
                 CREATE INDEX enrollments_of_a_serial ON enrollments (serial); COMMIT"
            ))
            .await
    }
    .await;
    if done.is_err() {
        // May say that there is nothing to roll back; the cause is what is reported.
        let _ = connection.execute_unprepared("ROLLBACK").await;
    }
    connection
        .execute_unprepared("PRAGMA foreign_keys = ON")
        .await?;
    done.map(|_| ())
}
