//! A Mac's relation with this service: from ticket to check-out.
//!
//! [`Ticket`] lets one Mac in once, [`Identity`] is the certificate it speaks with,
//! [`Enrollment`] is the Mac itself, and [`trace`] tells its owner how far it got.

pub mod fleet;
pub mod identity;
pub mod outline;
pub mod platform;
pub mod profile;
pub mod succession;
pub mod ticket;
pub mod trace;
pub mod tries;

use serde::{Deserialize, Serialize};

pub use self::identity::{Identity, IdentityKind};
pub use self::platform::{Platform, Protocol};
pub use self::ticket::Ticket;
use crate::ids::{CertificateHash, DeviceId, SerialNumber, TicketId, Topic, Udid};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::time::Timestamp;

/// One relation with a Mac, device channel. One enrollment stands under a UDID; others may contend.
///
/// UDID and `serial` are what the Mac said in Authenticate: claims signed by its identity key, of
/// which Apple's attestation proves the serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrollment {
    pub device_id: DeviceId,
    pub udid: Udid,
    pub serial: Option<SerialNumber>,
    pub state: State,
    /// The one certificate that may speak for this Mac.
    pub identity: CertificateHash,
    /// The ticket it came in by; `None` for an adopted Mac.
    pub ticket_id: Option<TicketId>,
    pub topic: Topic,
    pub push: Option<PushAddress>,
    pub hardware: Hardware,
    pub authenticated_at: Timestamp,
    /// First TokenUpdate after the last Authenticate.
    pub enrolled_at: Option<Timestamp>,
    pub checked_out_at: Option<Timestamp>,
    /// The enrollment that stands where this one would: it holds the serial number, or the UDID.
    /// Once superseded: the one this one became.
    pub contends_with: Option<DeviceId>,
    /// Since when this enrollment holds its serial number; for ever, whoever comes after.
    pub held_since: Option<Timestamp>,
    /// When Apple proved the serial number on the present channel: since the last Authenticate.
    pub proved_at: Option<Timestamp>,
}

/// How far an enrollment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EnrollmentState)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Authenticate was accepted. macOS may still roll the profile back: the Mac does not count
    /// as enrolled before TokenUpdate.
    Pending,
    /// TokenUpdate arrived; the Mac can be woken.
    Enrolled,
    /// CheckOut arrived; the Mac is not asked any more.
    CheckedOut,
    /// It contended, was proved, and took the place of the one it contended with: it is that one
    /// now, and what was learnt before is kept under this name.
    Superseded,
}

/// Where and how APNs reaches a Mac (TokenUpdate). Both parts are secret: whoever holds them can
/// wake the Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushAddress {
    /// Opaque bytes, 32 today.
    pub token: Secret<Vec<u8>>,
    pub magic: Secret<String>,
    pub updated_at: Timestamp,
    /// Set when APNs said that the token is dead (410, or 400 BadDeviceToken) after `updated_at`.
    /// It ends pushes until the next TokenUpdate, never the enrollment.
    pub dead_since: Option<Timestamp>,
}

impl PushAddress {
    /// Whether what was pushed to this address reaches who is at the other one. TokenUpdates are
    /// repeated for many causes (apple-protocol 1.6); only some bring a new address.
    pub fn reaches(&self, other: &Self) -> bool {
        self.dead_since.is_none() && self.token == other.token && self.magic == other.magic
    }
}

/// What the Mac said of its hardware and system in Authenticate; self-reported, for display.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Hardware {
    pub model: Option<String>,
    pub model_name: Option<String>,
    pub os_version: Option<String>,
    pub build_version: Option<String>,
}

impl State {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enrolled => "enrolled",
            Self::CheckedOut => "checked_out",
            Self::Superseded => "superseded",
        }
    }

    /// The state with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Enrolled,
            Self::CheckedOut,
            Self::Superseded,
        ]
        .into_iter()
        .find(|s| s.as_str() == word)
    }
}

impl Enrollment {
    /// Whether a Mac that says it has `serial` can be the one known by this UDID: a serial number
    /// and a hardware UUID belong to one logic board and never part.
    ///
    /// # Refusals
    /// `serial_mismatch`.
    pub fn is_of(&self, serial: Option<&SerialNumber>) -> Result<(), Reason> {
        if self.serial.is_some() && self.serial.as_ref() != serial {
            return Err(Reason::SerialMismatch);
        }
        Ok(())
    }

    /// Authenticate under `udid`: a new relation begins, whatever came before. Push address,
    /// enrollment time and proof are cleared; the device id stays, so that history stays, and a
    /// held serial number stays held.
    #[must_use]
    pub fn authenticated(self, udid: Udid, by: &Authenticated, now: Timestamp) -> Self {
        Self {
            held_since: self.serial_held_since(),
            contends_with: self.contends_with,
            ..Self::begin(self.device_id, udid, by, now)
        }
    }

    /// A contender was proved: what it said and the channel it said it on are this Mac's now.
    #[must_use]
    pub fn taken_over_by(self, contender: &Self) -> Self {
        Self {
            held_since: self.serial_held_since(),
            device_id: self.device_id,
            contends_with: None,
            ..contender.clone()
        }
    }

    /// It became the enrollment whose place it took.
    pub fn supersede(&mut self) {
        self.state = State::Superseded;
        self.push = None;
    }

    /// A Mac seen for the first time.
    pub fn begin(device_id: DeviceId, udid: Udid, by: &Authenticated, now: Timestamp) -> Self {
        Self {
            device_id,
            udid,
            serial: by.serial.clone(),
            state: State::Pending,
            identity: by.identity,
            ticket_id: by.ticket_id.clone(),
            topic: by.topic.clone(),
            push: None,
            hardware: by.hardware.clone(),
            authenticated_at: now,
            enrolled_at: None,
            checked_out_at: None,
            contends_with: None,
            held_since: None,
            proved_at: None,
        }
    }

    /// TokenUpdate on the device channel. The first one completes the enrollment (returns true);
    /// later ones only bring a new address.
    pub fn token_update(&mut self, topic: Topic, push: PushAddress, now: Timestamp) -> bool {
        let first = self.state == State::Pending;
        if first {
            self.state = State::Enrolled;
            self.enrolled_at = Some(now);
        }
        self.topic = topic;
        self.push = Some(push);
        first
    }

    /// CheckOut: the Mac left. Its address is dropped; it is never woken again.
    pub fn check_out(&mut self, now: Timestamp) {
        self.state = State::CheckedOut;
        self.push = None;
        self.checked_out_at = Some(now);
    }
}

/// What an accepted Authenticate establishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated {
    pub serial: Option<SerialNumber>,
    pub identity: CertificateHash,
    pub ticket_id: Option<TicketId>,
    pub topic: Topic,
    pub hardware: Hardware,
}
