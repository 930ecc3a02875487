//! Waiting for a device or an enrolment to change, within this process.
//!
//! It only shortens waiting: with several nodes on PostgreSQL a change made by another node is not
//! announced here, so whoever waits must also look again from time to time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::ids::{DeviceId, TicketId};

/// Announces what was committed.
#[derive(Debug)]
pub(super) struct Announcer {
    /// By id: those of devices and of tickets are never the same.
    waiting: Mutex<HashMap<String, watch::Sender<u64>>>,
    appended: watch::Sender<u64>,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy)]
pub enum Watched<'a> {
    Device(&'a DeviceId),
    /// The steps of the enrolment by this ticket.
    Steps(&'a TicketId),
}

/// A place in the queue of those who wait for one thing.
#[derive(Debug)]
pub struct Watch {
    id: String,
    receiver: watch::Receiver<u64>,
    announcer: Arc<Announcer>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            appended: watch::Sender::new(0),
        }
    }

    /// A commit changed this.
    pub(super) fn changed(&self, subject: Watched<'_>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(subject.id()) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// A commit appended events.
    pub(super) fn appended(&self) {
        self.appended
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn follow_events(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    pub(super) fn follow(self: &Arc<Self>, subject: Watched<'_>) -> Watch {
        let id = subject.id();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = waiting
            .entry(id.to_owned())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        Watch {
            id: id.to_owned(),
            receiver,
            announcer: Arc::clone(self),
        }
    }
}

impl Watched<'_> {
    fn id(&self) -> &str {
        match self {
            Self::Device(id) => id.as_str(),
            Self::Steps(id) => id.as_str(),
        }
    }
}

impl Watch {
    /// Returns once a commit has changed the subject since the watch began, or since this last
    /// returned. Begin the watch before reading, and no change is missed.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives in the announcer, which this watch keeps alive.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self
            .announcer
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // This receiver is still counted.
        if waiting
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waiting.remove(&self.id);
        }
    }
}
