//! A backup reads one state of everything, and holds nobody up.

use attestd::backup::Value;
use attestd::store::{Snapshot, StoreError};

use crate::harness::database::Database;

/// The facts in a snapshot.
async fn facts(snapshot: &Snapshot) -> Vec<Vec<Value>> {
    let mut tables = snapshot.tables().iter();
    let place = tables.position(|table| table.name == "service_meta");
    let mut found = Vec::new();
    let read = snapshot.rows(place.expect("the table"), |rows| {
        found.extend(rows);
        Ok::<_, StoreError>(())
    });
    read.await.expect("reads");
    found
}

async fn state(db: &Database, name: &str) {
    let mut tx = db.store.write().await.expect("begins");
    tx.set_fact(name, "so").await.expect("stated");
    tx.commit().await.expect("commits");
}

on_both! {
    async fn a_snapshot_holds_no_writer_up_and_sees_nothing_of_what_comes_later(db: Database) {
        state(&db, "before").await;
        let beside = db.beside().await;
        let snapshot = beside.snapshot().await.expect("a snapshot");
        // Committed while the snapshot is held: the writer waits for nobody.
        state(&db, "after").await;
        let names = |rows: Vec<Vec<Value>>| -> Vec<Value> {
            rows.into_iter().filter_map(|row| row.into_iter().next()).collect()
        };
        let seen = names(facts(&snapshot).await);
        assert!(seen.contains(&Value::Text("before".to_owned())), "{seen:?}");
        assert!(!seen.contains(&Value::Text("after".to_owned())), "{seen:?}");
        drop(snapshot);
        let later = names(facts(&beside.snapshot().await.expect("another")).await);
        assert!(later.contains(&Value::Text("after".to_owned())), "{later:?}");
    }
}

on_both! {
    async fn every_table_is_in_a_snapshot_after_those_it_refers_to(db: Database) {
        let snapshot = db.store.snapshot().await.expect("a snapshot");
        let names: Vec<_> = snapshot.tables().iter().map(|table| table.name.as_str()).collect();
        let place = |name: &str| names.iter().position(|it| *it == name).expect(name);
        for (first, then) in [
            ("tickets", "identities"),
            ("identities", "enrollments"),
            ("enrollments", "commands"),
            ("verifications", "commands"),
            ("webhooks", "webhook_dead_letters"),
        ] {
            assert!(place(first) < place(then), "{names:?}");
        }
        assert!(!names.contains(&"seaql_migrations"));
        assert!(names.len() > 35, "{names:?}");
    }
}
