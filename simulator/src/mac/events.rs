//! What a Mac does, told as it happens, and what it remembers afterwards.

use serde::Serialize;

use super::identity_payload::IdentityKind;
use crate::apple::Chain;

/// One step of one Mac's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MacEvent {
    /// Milliseconds since 1970 by the world's clock.
    pub at_ms: i64,
    pub serial: String,
    #[serde(flatten)]
    pub step: MacStep,
}

/// The steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum MacStep {
    /// The server gave a profile and macOS would install it.
    ProfileReceived { signed: bool },
    /// An identity certificate is there: hexadecimal SHA-256 of it, and the protocol it came by
    /// (none for a former server's).
    IdentityIssued {
        certificate: String,
        kind: Option<IdentityKind>,
    },
    /// Authenticate was accepted.
    Authenticated,
    /// TokenUpdate was accepted: the Mac is enrolled.
    Enrolled,
    /// The installation ended here, and macOS rolled it back.
    EnrollmentFailed { why: String },
    /// A push with this Mac's PushMagic arrived.
    Pushed,
    /// A push with a foreign PushMagic arrived and was ignored.
    PushIgnored,
    /// A command arrived.
    Asked {
        request_type: String,
        command_uuid: String,
    },
    /// A reply got its 2xx.
    Answered {
        request_type: String,
        command_uuid: String,
        status: String,
    },
    /// The server had nothing more to ask.
    SessionEnded { answered: usize },
    /// The session broke off; the Mac tries again.
    SessionFailed { why: String },
    /// The profile is gone.
    Unenrolled { why: String },
}

/// One command as this Mac remembers it.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub at_ms: i64,
    pub command_uuid: String,
    pub request_type: String,
    /// The command's bytes as received.
    pub command: Vec<u8>,
    /// DeviceAttestationNonce, where there was one.
    pub nonce: Option<Vec<u8>>,
    /// The chain in the answer, and whether Apple was asked for it just then.
    pub attestation: Option<(Chain, bool)>,
    pub status: String,
    /// The reply's bytes as sent, and their Mdm-Signature.
    pub reply: Vec<u8>,
    pub signature: Option<String>,
    /// How often the reply was sent.
    pub sends: u32,
    /// The 2xx that ended it; `None` while the server has not acknowledged it.
    pub acknowledged: Option<u16>,
}
