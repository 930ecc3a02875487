//! Takes out of an embedded database what no question of the run looks at any more.
//!
//! The server keeps all evidence; ninety days of two thousand Macs are some 60 GB of it. So while
//! the server is down, what is older than two days is taken out: evidence, concluded commands, ended
//! attempts, the history of postures and the outbox. The nonce ledger, postures, identities and
//! enrollments stay: what is believed hangs on them.

use std::path::Path;

use rusqlite::Connection;

use crate::time::{DAY, Ms};

/// What is older than this is taken out.
const KEPT: Ms = 2 * DAY;

/// Trims the database in this file, which nobody has open.
pub fn trim(file: &Path, now: Ms) -> anyhow::Result<()> {
    let connection = Connection::open(file)?;
    // Evidence and nonces refer to commands that go.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    for (table, condition) in [
        ("evidence", "received_at < ?1"),
        ("commands", "concluded_at < ?1 OR handed_over_at < ?1"),
        ("posture_history", "at < ?1"),
        ("events", "at < ?1"),
        ("verifications", "finished_at < ?1"),
    ] {
        let statement = format!("DELETE FROM {table} WHERE {condition}");
        connection.execute(&statement, [now - KEPT])?;
    }
    Ok(())
}
