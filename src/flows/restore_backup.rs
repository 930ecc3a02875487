//! A restored database is made fit to be gone on with: nobody knows what happened after the backup was
//! made, so nothing that may have been used since is used again, and no number goes back.

use super::Failure;
use super::check_in::give_up_queue;
use crate::audit::{Entry, Verb, Who, Words};
use crate::backup::Manifest;
use crate::publication::event;
use crate::store::{Event, Read, Write};
use crate::time::Timestamp;
use crate::verification::State as Outcome;

/// The fact that says when the database was restored last.
const RESTORED_AT: &str = "restored_at";
/// The fact that says when the log began anew, with another key.
const LOG_BEGAN_ANEW_AT: &str = "log_began_anew_at";
/// The fact by which agendas that were kept by other rules are looked at once when a server starts.
const AGENDAS_BY: &str = "agendas_by";

/// Numbers of events that are left out. More than a service has in its life: at a thousand a second these
/// are eleven days without a pause.
pub const EVENTS_LEFT_OUT: i64 = 1_000_000_000;
/// Revisions of a posture that are left out; one is made at most for each message of a Mac.
pub const REVISIONS_LEFT_OUT: u64 = 1_000_000;
/// Withdrawals of one Mac that are left out; each is an act of an operator.
pub const EPOCHS_LEFT_OUT: u64 = 1_000;

/// What becomes of the transparency log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogGoesOn {
    /// Where the backup ends: right only if nothing was published after it.
    Continued,
    /// From nothing, with another key.
    Anew,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Tickets that nobody had used.
    pub tickets_voided: u64,
    /// Macs of whom an answer was awaited.
    pub questions_given_up: usize,
    pub postures: u64,
    /// Events are numbered from here on.
    pub events_after: i64,
}

/// When the database was restored last; none where it never was.
pub(super) async fn restored_at(tx: &Read) -> Result<Option<Timestamp>, Failure> {
    time_of(tx, RESTORED_AT).await
}

/// When the log began anew, with another key; none where it never did.
pub(super) async fn log_began_anew_at(tx: &Read) -> Result<Option<Timestamp>, Failure> {
    time_of(tx, LOG_BEGAN_ANEW_AT).await
}

async fn time_of(tx: &Read, fact: &str) -> Result<Option<Timestamp>, Failure> {
    const UNREADABLE: Failure = Failure::Inconsistent("a kept time that cannot be read");
    let known = tx.fact(fact).await?;
    let read = known.map(|text| Timestamp::parse(&text).map_err(|_| UNREADABLE));
    read.transpose()
}

/// Who orders it, and why.
#[derive(Debug, Clone, Copy)]
pub struct Ordered<'a> {
    pub who: &'a Who,
    pub why: &'a str,
}

/// Settles what must not be gone on with as it stands, and tells of it.
///
/// # Errors
/// When something cannot be read or stored.
pub async fn settle(
    tx: &mut Write,
    backup: &Manifest,
    log: LogGoesOn,
    ordered: Ordered<'_>,
    now: Timestamp,
) -> Result<Settled, Failure> {
    // First: what is told below has numbers that nobody has seen.
    let events_after = tx.leave_a_gap_in_events(EVENTS_LEFT_OUT).await?;
    let tickets_voided = tx.void_open_tickets(backup.made_at.min(now)).await?;
    let postures = tx
        .raise_postures(REVISIONS_LEFT_OUT, EPOCHS_LEFT_OUT)
        .await?;
    // An answer may have been given already, and whoever kept it must not give it again.
    let asked = tx.asked_devices().await?;
    for device_id in &asked {
        give_up_queue(tx, device_id, Outcome::Cancelled, now).await?;
    }
    // It may have been confirmed, or withdrawn, since.
    tx.forget_push_proposals().await?;
    if log == LogGoesOn::Anew {
        tx.forget_log().await?;
        tx.set_fact(LOG_BEGAN_ANEW_AT, &now.to_string()).await?;
    }
    tx.set_fact(RESTORED_AT, &now.to_string()).await?;
    tx.forget_fact(AGENDAS_BY).await?;
    let entry = Entry::new(ordered.who, Verb::ServiceRestore, "service", now)
        .after("backup_made_at", backup.made_at)
        .after("log_begins_anew", log == LogGoesOn::Anew)
        .why(Words(ordered.why));
    tx.record(entry);
    let body = event::service_restored(backup.made_at, now, ordered.why);
    let event = Event::new(event::SERVICE_RESTORED, now, body);
    tx.append_event_about(None, &event).await?;
    Ok(Settled {
        tickets_voided,
        questions_given_up: asked.len(),
        postures,
        events_after,
    })
}
