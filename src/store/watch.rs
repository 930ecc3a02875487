//! Waiting for a device to change, within this process.
//!
//! It only shortens waiting: with several nodes on PostgreSQL a change made by another node is not
//! announced here, so whoever waits must also look again from time to time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::ids::DeviceId;

/// Announces what was committed.
#[derive(Debug)]
pub(super) struct Announcer {
    waiting: Mutex<HashMap<DeviceId, watch::Sender<u64>>>,
    appended: watch::Sender<u64>,
}

/// A place in the queue of those who wait for one device.
#[derive(Debug)]
pub struct DeviceWatch {
    device_id: DeviceId,
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

    /// A commit changed this device.
    pub(super) fn changed(&self, device_id: &DeviceId) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(device_id) {
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

    pub(super) fn follow(self: &Arc<Self>, device_id: &DeviceId) -> DeviceWatch {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = waiting
            .entry(device_id.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        DeviceWatch {
            device_id: device_id.clone(),
            receiver,
            announcer: Arc::clone(self),
        }
    }
}

impl DeviceWatch {
    /// Returns once a commit has changed the device since the watch began, or since this last
    /// returned. Begin the watch before reading, and no change is missed.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives in the announcer, which this watch keeps alive.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for DeviceWatch {
    fn drop(&mut self) {
        let mut waiting = self
            .announcer
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // This receiver is still counted.
        if waiting
            .get(&self.device_id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waiting.remove(&self.device_id);
        }
    }
}
