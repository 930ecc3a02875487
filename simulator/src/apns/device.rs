//! One device token at the push service: what is stored for it, and whether it is listened to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;

/// A notification as it reached the Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The PushMagic; a Mac that does not know it does nothing.
    pub magic: String,
    pub apns_id: String,
}

/// The one notification APNs keeps per topic and device (apple-protocol 9.1).
#[derive(Debug, Clone)]
struct Pending {
    delivered: Delivered,
    /// Seconds since 1970 after which it is dropped; `None` when the sender gave no time.
    expires_at: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    awake: bool,
    pending: Option<Pending>,
    /// When the token stopped being valid, milliseconds since 1970.
    dead_since: Option<i64>,
}

/// The service's side of a token.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) topic: String,
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
}

impl Device {
    pub(super) fn new(topic: &str, clock: Clock) -> Self {
        Self {
            topic: topic.to_owned(),
            clock,
            state: Mutex::new(State {
                awake: true,
                ..State::default()
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a notification, replacing the one that waits. `expiration` is the header: 0 means
    /// try once and do not store, nothing means the service's own limit.
    pub(super) fn push(&self, delivered: Delivered, expiration: Option<i64>) {
        let mut state = self.state();
        if expiration == Some(0) && !state.awake {
            return;
        }
        let expires_at = expiration.filter(|at| *at > 0);
        state.pending = Some(Pending {
            delivered,
            expires_at,
        });
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the token; the first end counts.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.dead_since.get_or_insert(self.clock.now_ms());
        state.pending = None;
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn dead_since(&self) -> Option<i64> {
        self.state().dead_since
    }
}

/// A Mac's side of its token. Dropping it does not end the token: a Mac that is switched off is
/// merely silent.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub(super) device: Arc<Device>,
}

impl Inbox {
    /// Waits for the next notification; `None` once the token has ended.
    pub async fn next(&self) -> Option<Delivered> {
        loop {
            let changed = self.device.changed.notified();
            {
                let mut state = self.device.state();
                if state.dead_since.is_some() {
                    return None;
                }
                if state.awake
                    && let Some(pending) = state.pending.take()
                {
                    let late = pending
                        .expires_at
                        .is_some_and(|at| at < self.device.clock.now_seconds());
                    if !late {
                        return Some(pending.delivered);
                    }
                }
            }
            changed.await;
        }
    }

    /// Sleeping Macs get nothing; the newest notification waits until it expires.
    pub fn sleep(&self) {
        self.device.state().awake = false;
    }

    /// Awake again: what waits is delivered.
    pub fn wake(&self) {
        self.device.state().awake = true;
        self.device.changed.notify_one();
    }

    /// Whether a notification waits.
    pub fn has_pending(&self) -> bool {
        self.device.state().pending.is_some()
    }

    /// Whether pushes are delivered at present.
    pub fn is_awake(&self) -> bool {
        self.device.state().awake
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(clock: &Clock) -> Inbox {
        Inbox {
            device: Arc::new(Device::new("topic", clock.clone())),
        }
    }

    fn note(magic: &str) -> Delivered {
        Delivered {
            magic: magic.into(),
            apns_id: "id".into(),
        }
    }

    #[tokio::test]
    async fn pushes_to_a_sleeping_mac_coalesce_to_the_newest() {
        let inbox = inbox(&Clock::fixed(0));
        inbox.sleep();
        inbox.device.push(note("one"), Some(1_000));
        inbox.device.push(note("two"), Some(1_000));
        let waiting =
            tokio::time::timeout(std::time::Duration::from_millis(20), inbox.next()).await;
        assert!(waiting.is_err(), "nothing is delivered to a sleeping Mac");
        inbox.wake();
        assert_eq!(inbox.next().await, Some(note("two")));
        assert!(!inbox.has_pending());
    }

    #[tokio::test]
    async fn expiration_drops_what_waits_too_long_and_zero_is_never_stored() {
        let clock = Clock::fixed(0);
        let inbox = inbox(&clock);
        inbox.sleep();
        inbox.device.push(note("never stored"), Some(0));
        assert!(!inbox.has_pending());
        inbox.device.push(note("late"), Some(10));
        clock.advance(11_000);
        inbox.wake();
        inbox.device.end();
        assert_eq!(inbox.next().await, None);
    }
}
