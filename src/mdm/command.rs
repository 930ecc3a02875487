//! Commands: what a Mac can be asked. The list is read-only by type: nothing in this service can
//! build a command that changes, locks or erases a Mac.
//!
//! Source: Apple `mdm/commands/information.security.yaml`, `information.device.yaml`.

use std::borrow::Cow;
use std::fmt;

use super::plist::{Dictionary, Value, to_xml};

/// What is queried beside the attestation: the reply carries only what was asked for, and the
/// serial number and ProvisioningUDID are compared with the attested ones.
pub const ATTESTATION_QUERIES: [&str; 5] = [
    "SerialNumber",
    "ProvisioningUDID",
    "OSVersion",
    "BuildVersion",
    "DevicePropertiesAttestation",
];

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// What the operating system reports of its security.
    SecurityInfo,
    /// What Apple attests, with a nonce of 1 to 32 bytes; ours are always 32.
    DevicePropertiesAttestation { nonce: [u8; 32] },
}

impl Command {
    /// One of each kind, for whoever wants to say what a Mac can be asked.
    pub const EACH: [Self; 2] = [
        Self::SecurityInfo,
        Self::DevicePropertiesAttestation { nonce: [0; 32] },
    ];

    /// Apple's name of the command.
    pub fn request_type(&self) -> &'static str {
        match self {
            Self::SecurityInfo => "SecurityInfo",
            Self::DevicePropertiesAttestation { .. } => "DeviceInformation",
        }
    }

    /// The properties it asks for by name; empty for a command that takes none.
    pub fn queries(&self) -> &'static [&'static str] {
        match self {
            Self::SecurityInfo => &[],
            Self::DevicePropertiesAttestation { .. } => &ATTESTATION_QUERIES,
        }
    }

    /// The command as the Mac is given it: XML property list.
    pub fn encode(&self, command_uuid: &impl fmt::Display) -> Vec<u8> {
        let command_uuid = command_uuid.to_string();
        let mut command = Dictionary::default();
        if let Self::DevicePropertiesAttestation { nonce } = self {
            command.set("DeviceAttestationNonce", Value::Data(nonce.to_vec()));
        }
        if !self.queries().is_empty() {
            let queries = self.queries().iter().copied().map(text).collect();
            command.set("Queries", Value::Array(queries));
        }
        command.set("RequestType", text(self.request_type()));
        let mut top = Dictionary::default();
        top.set("Command", Value::Dictionary(command));
        top.set("CommandUUID", text(&command_uuid));
        to_xml(&top)
    }
}

fn text(value: &str) -> Value<'_> {
    Value::String(Cow::Borrowed(value))
}

#[cfg(test)]
mod tests {
    use super::super::plist::read_dictionary;
    use super::*;
    use crate::ids::CommandUuid;

    #[test]
    fn an_attestation_command_carries_its_nonce_as_data() {
        let uuid = CommandUuid::parse("00000004-0000-4000-8000-000000000004").expect("valid");
        let bytes = Command::DevicePropertiesAttestation { nonce: [7; 32] }.encode(&uuid);
        let top = read_dictionary(&bytes).expect("well formed");
        let command = top.dictionary("Command").expect("typed").expect("present");
        assert_eq!(
            command.data("DeviceAttestationNonce"),
            Ok(Some(&[7; 32][..]))
        );
        assert_eq!(command.string("RequestType"), Ok(Some("DeviceInformation")));
        assert_eq!(
            command.array("Queries").map(|q| q.map(<[_]>::len)),
            Ok(Some(5))
        );
    }

    #[test]
    fn every_kind_of_command_is_listed() {
        // A further kind does not compile until it has a number, and fails until it is listed.
        let number = |command: &Command| match command {
            Command::SecurityInfo => 0,
            Command::DevicePropertiesAttestation { .. } => 1,
        };
        let listed: Vec<_> = Command::EACH.iter().map(number).collect();
        assert_eq!(listed, [0, 1]);
    }

    #[test]
    fn security_info_has_no_parameters() {
        let uuid = CommandUuid::parse("00000001-0000-4000-8000-000000000001").expect("valid");
        let bytes = Command::SecurityInfo.encode(&uuid);
        let top = read_dictionary(&bytes).expect("well formed");
        assert_eq!(top.string("CommandUUID"), Ok(Some(uuid.as_str())));
        let command = top.dictionary("Command").expect("typed").expect("present");
        assert_eq!(command.iter().count(), 1);
    }
}
