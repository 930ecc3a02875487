//! What MicroMDM's clients read: the answers to its calls, and the message about a Mac's answer.
//!
//! The shapes are those of MicroMDM 1.13 as far as the historic coordinator reads them
//! (coordinator-and-standards A.7); a strict reader of theirs finds every member it looks for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::ids::{SerialNumber, Udid};
use crate::mdm::foreign::Spelled;
use crate::time::Timestamp;

/// One Mac in the answer to `POST /v1/devices`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedDevice)]
pub struct Device {
    pub serial_number: SerialNumber,
    pub udid: Udid,
    pub enrollment_status: bool,
    pub last_seen: Timestamp,
}

/// The answer to `POST /v1/devices`: always a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedDevices)]
pub struct Devices {
    pub devices: Vec<Device>,
}

/// The answer to a command.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedCommand)]
pub struct Accepted<'a> {
    pub payload: Payload<'a>,
}

/// The command as it was accepted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedPayload)]
pub struct Payload<'a> {
    /// As the caller wrote it; only in the answer to a command in a property list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udid: Option<&'a str>,
    pub command_uuid: &'a Spelled,
    pub command: Asked,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RelayedQuestion)]
pub struct Asked {
    pub request_type: &'static str,
}

/// The message about a Mac's answer.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    pub topic: &'static str,
    pub event_id: &'a Spelled,
    pub created_at: Timestamp,
    pub acknowledge_event: AcknowledgeEvent<'a>,
}

#[derive(Debug, Serialize)]
pub struct AcknowledgeEvent<'a> {
    pub udid: &'a Udid,
    pub status: &'a str,
    pub command_uuid: &'a Spelled,
    /// The Mac's reply, byte for byte.
    pub raw_payload: String,
}

impl<'a> Message<'a> {
    /// The message about the answer to a command.
    pub fn about(
        command_uuid: &'a Spelled,
        udid: &'a Udid,
        status: &'a str,
        reply: &[u8],
        created_at: Timestamp,
    ) -> Self {
        Self {
            topic: "mdm.Connect",
            // There is one message about each command, and it bears one name however often it is sent.
            event_id: command_uuid,
            created_at,
            acknowledge_event: AcknowledgeEvent {
                udid,
                status,
                command_uuid,
                raw_payload: STANDARD.encode(reply),
            },
        }
    }
}
