//! Apple's MDM protocol on the wire: bytes to types and back, and nothing else.
//!
//! A Mac sends two kinds of message with PUT: check-ins ([`CheckIn`]) and, when it asks for work or
//! brings an answer, reports ([`Report`]). It is given commands ([`Command`]). Source: Apple's
//! device-management schemas (`mdm/checkin/*.yaml`, `mdm/commands/*.yaml`).

pub mod check_in;
pub mod client_certificate;
pub mod command;
pub mod device_information;
pub mod foreign;
pub mod plist;
pub mod report;
pub mod security_info;
pub mod signature;

pub use self::check_in::CheckIn;
pub use self::command::Command;
pub use self::report::Report;

use self::plist::Dictionary;
use crate::ids::Udid;
use crate::reason::Reason;

/// Content type of check-ins.
pub const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
/// Content type of reports.
pub const REPORT: &str = "application/x-apple-aspen-mdm";
/// Content type of enrollment profiles.
pub const PROFILE: &str = "application/x-apple-aspen-config";

/// Who a message says it is from. A claim: what proves it is the signature beside the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub udid: Udid,
    pub channel: Channel,
}

/// Device or user channel of the same Mac. They have separate tokens and separate queues, and
/// posture is read from the device channel only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Device,
    User,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("not a well-formed property list: {0}")]
    Plist(#[from] plist::Malformed),
    #[error("the key {0} is missing or does not have its form")]
    Key(&'static str),
    #[error("a message of a kind this service does not take")]
    Unsupported,
}

impl Refusal {
    /// The stable code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Plist(plist::Malformed::TooLarge) => Reason::RequestTooLarge,
            Self::Plist(_) | Self::Key(_) => Reason::RequestMalformed,
            Self::Unsupported => Reason::MessageUnsupported,
        }
    }
}

impl Sender {
    /// Reads UDID and UserID. Account-driven enrollments (EnrollmentID, no UDID) are not taken:
    /// they leave out the serial number and every attested identifier.
    fn read(top: &Dictionary<'_>) -> Result<Self, Refusal> {
        let udid = match top.string("UDID")? {
            Some(text) => Udid::parse(text).map_err(|_| Refusal::Key("UDID"))?,
            None if top.has("EnrollmentID") => return Err(Refusal::Unsupported),
            None => return Err(Refusal::Key("UDID")),
        };
        let user = top.string("UserID")?.is_some() || top.has("EnrollmentUserID");
        Ok(Self {
            udid,
            channel: if user { Channel::User } else { Channel::Device },
        })
    }
}

/// A short text for display only: cut to 100 characters, control characters dropped.
fn label(top: &Dictionary<'_>, key: &str) -> Result<Option<String>, Refusal> {
    Ok(top
        .string(key)?
        .map(|text| text.chars().filter(|c| !c.is_control()).take(100).collect()))
}
