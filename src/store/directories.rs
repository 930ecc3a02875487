//! ACME directories in use, kept in memory by the one server that owns a SQLite database.
//!
//! A Mac goes through its directory in nine requests within a minute. Memory holds what was
//! committed last. It need not be trusted: whoever writes names the revision it read, and finds out
//! in the database that it was not the latest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::OpenDirectory;
use crate::ids::SecretHash;

/// Directories in memory, of about ten kilobytes each. Those that end first make room.
const CAPACITY: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Directories(Mutex<HashMap<SecretHash, OpenDirectory>>);

impl Directories {
    pub(super) fn find(&self, secret: &SecretHash) -> Option<OpenDirectory> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(secret).cloned()
    }

    /// Keeps what was read or committed; an earlier revision does not replace a later one.
    pub(super) fn keep(&self, open: OpenDirectory) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get_mut(&open.ticket.secret) {
            if known.revision < open.revision {
                *known = open;
            }
            return;
        }
        if kept.len() >= CAPACITY {
            let first = kept.values().min_by_key(|open| open.ticket.expires_at);
            let first = first.map(|open| open.ticket.secret);
            first.and_then(|secret| kept.remove(&secret));
        }
        kept.insert(open.ticket.secret, open);
    }

    /// Forgets one that may be another by now.
    pub(super) fn forget(&self, secret: &SecretHash) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(secret);
    }
}
