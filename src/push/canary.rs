//! Macs that are pushed by a certificate before all are: what became of it.

use crate::ids::DeviceId;
use crate::time::Timestamp;

/// No more Macs than this try one certificate: each costs a push beyond its budget.
pub const MOST: usize = 100;

/// One Mac that was chosen to try a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    pub device_id: DeviceId,
    pub asked_at: Timestamp,
    /// Why no push was taken for good: the name of an outcome, or [`NO_ADDRESS`].
    pub refused: Option<String>,
    /// Why the last attempt to push must be repeated: the name of an outcome.
    pub trouble: Option<String>,
    /// When the push that APNs took was sent.
    pub sent_at: Option<Timestamp>,
    /// When the Mac connected first after that.
    pub came_at: Option<Timestamp>,
}

/// The Mac has no push address, or one that is dead.
pub const NO_ADDRESS: &str = "no_address";

/// How far it is with one Mac.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// No server has pushed yet, or the push must be repeated.
    Waiting,
    /// APNs took the push; the Mac has not connected since.
    Sent,
    /// The Mac connected: the certificate does what it is for.
    Came(Timestamp),
    /// No push was taken, and none will be.
    Refused(&'a str),
}

impl Canary {
    /// A Mac that was chosen now.
    pub fn ask(device_id: DeviceId, now: Timestamp) -> Self {
        Self {
            device_id,
            asked_at: now,
            refused: None,
            trouble: None,
            sent_at: None,
            came_at: None,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress<'_> {
        match (self.came_at, &self.refused, self.sent_at) {
            (Some(at), ..) => Progress::Came(at),
            (None, Some(why), _) => Progress::Refused(why),
            (None, None, Some(_)) => Progress::Sent,
            (None, None, None) => Progress::Waiting,
        }
    }

    /// Whether nothing more will come of it.
    pub fn is_over(&self) -> bool {
        matches!(self.progress(), Progress::Came(_) | Progress::Refused(_))
    }
}

impl Progress<'_> {
    /// A word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Came(_) => "came",
            Self::Refused(_) => "refused",
        }
    }
}
