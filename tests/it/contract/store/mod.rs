//! What the store promises, on SQLite and on PostgreSQL.

/// A test that runs on both databases, as `name::on_sqlite` and `name::on_postgresql`.
macro_rules! on_both {
    (async fn $name:ident($db:ident: Database) $body:block) => {
        async fn $name($db: crate::harness::database::Database) $body

        mod $name {
            use crate::harness::database::Database;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                super::$name(Database::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgresql() {
                super::$name(Database::postgresql().await).await;
            }
        }
    };
}

mod agenda;
mod audit;
mod bindings;
mod directories;
mod enrollment;
mod events;
mod exchange;
mod fixture;
mod operation;
mod releases;
mod roster;
mod schema;
mod sealing;
mod snapshot;
mod succession;
mod verification;
