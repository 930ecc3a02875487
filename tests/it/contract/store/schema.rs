//! The schema history: from nothing to now, the same on both databases.

use std::collections::BTreeSet;

use attestd::store::{Store, StoreError};
use migrations::MigratorTrait as _;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::harness::database::{Database, sealer};

/// Every table and column, as `table.column`.
async fn columns(connection: &DatabaseConnection, sql: &str) -> BTreeSet<String> {
    let select = Statement::from_string(connection.get_database_backend(), sql);
    let rows = connection.query_all_raw(select).await.expect("answers");
    rows.iter()
        .map(|row| {
            let table: String = row.try_get_by_index(0).expect("a name");
            let column: String = row.try_get_by_index(1).expect("a name");
            format!("{table}.{column}")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_databases_have_the_same_tables_and_columns() {
    let sqlite = Database::sqlite().await;
    let postgresql = Database::postgresql().await;
    let of_sqlite = columns(
        &sqlite.plain().await,
        "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
    )
    .await;
    let of_postgresql = columns(
        &postgresql.plain().await,
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT) \
         FROM information_schema.columns WHERE table_schema = 'public'",
    )
    .await;
    assert!(of_sqlite.contains("enrollments.push_sealed"));
    assert_eq!(of_sqlite, of_postgresql);
}

on_both! {
    async fn an_empty_database_is_migrated_once_and_again_without_harm(db: Database) {
        let empty = db.empty_sibling().await;
        assert!(!empty.store.schema_is_current().await.expect("answers"));
        let node = empty.beside().await;
        let (first, second) = tokio::join!(empty.store.migrate(), async {
            // Two nodes start at once; a SQLite database has one server.
            if empty.store.backend() == "postgresql" {
                node.migrate().await
            } else {
                Ok(())
            }
        });
        first.expect("migrates");
        second.expect("finds nothing to do");
        empty.store.migrate().await.expect("finds nothing to do");
        assert!(empty.store.schema_is_current().await.expect("answers"));
    }
}

#[tokio::test]
async fn an_address_of_no_known_form_is_refused() {
    for url in [
        "",
        "attestd.db",
        "mysql://localhost/attestd",
        "sqlite://",
        "sqlite:///a?mode=ro",
    ] {
        let opened = Store::open(url, sealer()).await;
        assert!(
            matches!(opened, Err(StoreError::AddressMalformed)),
            "{url}: {opened:?}"
        );
    }
}

#[tokio::test]
async fn only_its_owner_makes_a_sqlite_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("attestd.db");
    let url = format!("sqlite://{}", path.display());
    let opened = Store::open(&url, sealer()).await;
    assert!(
        matches!(opened, Err(StoreError::Unavailable(_))),
        "{opened:?}"
    );
    assert!(!path.exists());
    Store::open_exclusive(&url, sealer()).await.expect("opens");
    assert!(path.exists());
}

/// What a database of the first step holds of two Macs: the first was attested, the second was not.
const OF_THE_FIRST_STEP: &str = "\
    INSERT INTO tickets (ticket_id, secret, progress_id, created_at, expires_at) \
        VALUES ('TKT1', CAST('secret' AS BYTES), 'progress', 1, 2);\
    INSERT INTO identities (certificate, der, kind, ticket_id, device_id, issued_at, not_before, \
        not_after) VALUES (CAST('CRT1' AS BYTES), CAST('1' AS BYTES), 'scep', 'TKT1', 'DEV1', 1, \
        1, 9), (CAST('CRT2' AS BYTES), CAST('2' AS BYTES), 'scep', NULL, 'DEV2', 1, 1, 9);\
    INSERT INTO enrollments (device_id, udid, serial, state, identity, ticket_id, topic, hardware, \
        authenticated_at) VALUES \
        ('DEV1', 'UDID1', 'SERIAL01', 'enrolled', CAST('CRT1' AS BYTES), 'TKT1', 'TOPIC', '{}', 5), \
        ('DEV2', 'UDID2', 'SERIAL02', 'enrolled', CAST('CRT2' AS BYTES), NULL, 'TOPIC', '{}', 6);\
    INSERT INTO verifications (verification_id, device_id, body, created_at, deadline) \
        VALUES ('ver_1', 'DEV1', '{}', 1, 2);\
    INSERT INTO postures (device_id, revision, revocation_epoch, verdict, body) VALUES \
        ('DEV1', 1, 0, 'affirming', '{\"freshness\":{\"class\":\"fresh\",\"minted_at\":1}}'), \
        ('DEV2', 1, 0, 'unknown', '{\"freshness\":{\"class\":\"unrecognized\"}}');";

/// A statement with its names spelt out.
fn spelt_out(statement: &str, backend: &str) -> String {
    let bytes = if backend == "sqlite" { "BLOB" } else { "BYTEA" };
    statement
        .replace("BYTES", bytes)
        .replace("TOPIC", "com.apple.mgmt.External.1")
        .replace("CRT", "a certificate hash of 32 bytes ")
        .replace("TKT", "tkt_01J8ZZZZZZZZZZZZZZZZZZZZZ")
        .replace("DEV", "dev_01J8ZZZZZZZZZZZZZZZZZZZZZ")
        .replace("UDID", "00000000-0000-4000-8000-00000000000")
}

on_both! {
    async fn a_database_of_the_first_step_keeps_its_macs_and_learns_who_holds_what(db: Database) {
        let old = db.empty_sibling().await;
        let spelt_out = |statement| spelt_out(statement, old.store.backend());
        let connection = old.plain().await;
        migrations::Migrator::up(&connection, Some(4)).await.expect("as it was");
        let filled = connection.execute_unprepared(&spelt_out(OF_THE_FIRST_STEP)).await;
        filled.expect("filled");
        connection.close().await.expect("closes");
        old.store.migrate().await.expect("migrates");

        let connection = old.plain().await;
        let select = "SELECT device_id, held_since FROM enrollments WHERE contends_with IS NULL \
                      ORDER BY device_id";
        let select = Statement::from_string(connection.get_database_backend(), select);
        let rows = connection.query_all_raw(select).await.expect("answers");
        let rows: Vec<(String, Option<i64>)> = rows
            .iter()
            .map(|row| {
                let device_id = row.try_get_by_index(0).expect("an id");
                (device_id, row.try_get_by_index(1).expect("a time"))
            })
            .collect();
        assert_eq!(rows, [(spelt_out("DEV1"), Some(5)), (spelt_out("DEV2"), None)]);
        // What belongs to a Mac still does, and nothing can be kept of one that is not there.
        for (statement, is_kept) in [
            ("UPDATE verifications SET device_id = 'DEV2'", true),
            ("UPDATE verifications SET device_id = 'DEV3'", false),
            ("DELETE FROM enrollments WHERE device_id = 'DEV1'", false),
            ("UPDATE enrollments SET udid = 'UDID1'", false),
            ("UPDATE enrollments SET serial = 'SERIAL01', held_since = 7", false),
        ] {
            let done = connection.execute_unprepared(&spelt_out(statement)).await;
            assert_eq!(done.is_ok(), is_kept, "{statement}: {done:?}");
        }
    }
}
