//! Limits that no address gets around: by ticket and by serial number. On each node by itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::enrollment::ticket::LIFETIME;
use crate::enrollment::tries::Tries;
use crate::ids::{SerialNumber, TicketId};
use crate::time::Timestamp;

/// Requests for an identity by SCEP that were refused, of one ticket: a client that is set right by its
/// owner between two tries needs a handful. Of ACME a ticket has as many orders as `acme` says.
const REFUSED: u32 = 20;

/// Profiles that strangers have made for one serial number within an hour. Whoever is known by a key, an
/// account or to a coordinator is not counted, nor is who leaves the number out: nobody is kept away from
/// enrolment by somebody who uses up the share of a number.
const PROFILES: u32 = 20;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What was tried.
#[derive(Debug)]
pub struct Limits {
    refused: Mutex<Tries<TicketId>>,
    profiles: Mutex<Tries<SerialNumber>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            refused: Mutex::new(Tries::new(REFUSED, LIFETIME)),
            profiles: Mutex::new(Tries::new(PROFILES, HOUR)),
        }
    }
}

impl Limits {
    /// Whether this ticket was refused as often as may be.
    pub(super) fn is_exhausted(&self, ticket_id: &TicketId, now: Timestamp) -> bool {
        lock(&self.refused).are_spent(ticket_id, now)
    }

    /// This ticket was refused. Returns whether that was for the last time.
    pub(super) fn refused(&self, ticket_id: &TicketId, now: Timestamp) -> bool {
        let mut refused = lock(&self.refused);
        refused.count(ticket_id, now);
        refused.are_spent(ticket_id, now)
    }

    /// Whether a stranger may have one more profile for this serial number; counted if so.
    pub(super) fn allow_profile(&self, serial: &SerialNumber, now: Timestamp) -> bool {
        lock(&self.profiles).allows(serial, now)
    }
}

fn lock<T>(tries: &Mutex<T>) -> MutexGuard<'_, T> {
    tries.lock().unwrap_or_else(PoisonError::into_inner)
}
