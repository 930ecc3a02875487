//! One attempt to get evidence from one Mac.
//!
//! A Mac has at most one open verification; who asks again joins it. Each kind of evidence in it
//! is owed until the Mac has answered, refused or let the deadline pass. A [`Command`] exists only
//! once it was handed over: its name, and for an attestation its nonce, are made in that moment,
//! so that a question delivered late never spends Apple's weekly attestation on an old nonce.

pub mod agenda;
pub mod standstill;
pub mod trace;
mod transition;
pub mod waiting;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::agenda::Agenda;
pub use self::transition::Request;
use crate::ids::{CertificateHash, CommandUuid, DeviceId, VerificationId};
use crate::mdm::foreign::Spelled;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A late answer still counts this long after its command was handed over
/// (the historic coordinator's outstanding-command lifetime).
pub const ANSWER_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// How often one kind is handed over within one verification before it counts as failed.
pub const MAX_ATTEMPTS: u32 = 5;

/// How often one kind is handed over within one verification at most, NotNow or not: an honest Mac
/// asks again when it wakes, a loop would fill the store.
pub const MAX_HAND_OVERS: u32 = 100;

/// What is asked for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[schema(as = EvidenceKind)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SecurityInfo: what the operating system reports.
    SecurityInfo,
    /// DeviceInformation with DevicePropertiesAttestation: what Apple attests.
    Mda,
}

/// Where one kind stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = EvidenceProgress)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    Queued,
    /// Not before a time, for a reason; nothing is asked meanwhile.
    Deferred,
    Pushed,
    Delivered,
    NotNow,
    Answered,
    Failed,
    TimedOut,
    Cancelled,
}

/// Why it is asked, and so how urgently.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Nothing is known of this Mac yet.
    First,
    /// What was known has expired.
    Expired,
    /// What is known is renewed ahead of time.
    Refresh,
}

/// How a finished verification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = VerificationState)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Pushed,
    Delivered,
    NotNow,
    Answered,
    TimedOut,
    Failed,
    Cancelled,
    Superseded,
}

/// One kind within a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub kind: Kind,
    pub progress: Progress,
    pub command_uuid: Option<CommandUuid>,
    /// How often it was handed over and not answered NotNow.
    pub attempt: u32,
    /// How often it was handed over.
    #[serde(default)]
    pub hand_overs: u32,
    pub pushed_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    /// Nothing is handed over before.
    pub not_before: Option<Timestamp>,
    /// Nobody is woken for it before, because the Mac's budget is spent; a Mac that connects by itself
    /// is asked all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub woken_from: Option<Timestamp>,
    /// When it counts as timed out; the attempt's own where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When it was found to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What the next hand-over is called, where somebody was told so already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Promised>,
}

/// A name that somebody waits for: the coordinator of a relayed command knows it by the CommandUUID in
/// the Mac's own reply, so the question must bear it, and bear it again when it is handed over again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promised {
    pub name: Spelled,
    /// What that coordinator wants Apple to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<[u8; 32]>,
    /// It was handed over under this name, and with this nonce if there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

/// One attempt to get evidence from one Mac.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub verification_id: VerificationId,
    pub device_id: DeviceId,
    pub priority: Priority,
    /// Why it was asked for, in the asker's words.
    pub occasion: String,
    pub parts: Vec<Part>,
    pub created_at: Timestamp,
    pub deadline: Timestamp,
    /// Set once nothing is owed any more.
    pub finished: Option<Finished>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    pub state: State,
    pub at: Timestamp,
    pub reasons: Vec<Reason>,
    /// The posture revision that holds what was learnt; `None` when nothing was.
    pub posture_revision: Option<u64>,
}

/// One question as handed to one Mac.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub command_uuid: CommandUuid,
    pub device_id: DeviceId,
    pub verification_id: VerificationId,
    pub kind: Kind,
    /// The identity it was handed to; only that one may answer.
    pub identity: CertificateHash,
    pub state: CommandState,
    pub handed_over_at: Timestamp,
    pub concluded_at: Option<Timestamp>,
}

/// Where a handed-over question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandState {
    /// The Mac has it and has not answered.
    Outstanding,
    /// The Mac said NotNow; the next hand-over is a new command.
    NotNow,
    Answered,
    /// Error or CommandFormatError.
    Failed,
    /// A later hand-over of the same kind took its place.
    Superseded,
}

impl Kind {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecurityInfo => "security_info",
            Self::Mda => "mda",
        }
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::SecurityInfo, Self::Mda]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl CommandState {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::NotNow => "not_now",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }

    /// The state with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Outstanding,
            Self::NotNow,
            Self::Answered,
            Self::Failed,
            Self::Superseded,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }
}

impl Command {
    /// Whether a reply from `identity` at `now` is one that was asked for.
    ///
    /// # Refusals
    /// `identity_mismatch` when another identity answers; `answer_unsolicited` when it was
    /// answered already, replaced, or is older than [`ANSWER_LIFETIME`].
    pub fn accepts(&self, identity: CertificateHash, now: Timestamp) -> Result<(), Reason> {
        if self.identity != identity {
            Err(Reason::IdentityMismatch)
        } else if self.state != CommandState::Outstanding
            || now.since(self.handed_over_at) > ANSWER_LIFETIME
        {
            Err(Reason::AnswerUnsolicited)
        } else {
            Ok(())
        }
    }
}
