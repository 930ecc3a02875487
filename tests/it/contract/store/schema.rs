//! The schema history: from nothing to now, the same on both databases.

use std::collections::BTreeSet;

use attestd::store::{Store, StoreError};
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
