//! Commands as another server's clients write them: what of it can be asked here.
//!
//! Nothing is passed through. Of a command that somebody else wrote its name, its kind and its nonce are
//! read, and the question is written anew ([`super::Command`]): what is not on that list cannot be asked.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::command::{ATTESTATION_QUERIES, Command};
use super::plist::{Dictionary, Value, read_dictionary};
use crate::ids::{CommandUuid, Malformed};

/// A command's name as somebody else wrote it. Names are the same in either case; but whoever wrote one
/// looks for it letter by letter, in what it is told and in the Mac's own reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Spelled {
    text: String,
    command_uuid: CommandUuid,
}

impl Spelled {
    /// Reads a name.
    ///
    /// # Errors
    /// Anything but a UUID.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (text, command_uuid) = (text.to_owned(), CommandUuid::parse(text)?);
        Ok(Self { text, command_uuid })
    }

    /// The name, however it is written.
    pub fn command_uuid(&self) -> &CommandUuid {
        &self.command_uuid
    }
}

impl From<CommandUuid> for Spelled {
    fn from(command_uuid: CommandUuid) -> Self {
        let text = command_uuid.to_string();
        Self { text, command_uuid }
    }
}

impl TryFrom<String> for Spelled {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        Self::parse(&text)
    }
}

impl From<Spelled> for String {
    fn from(spelled: Spelled) -> Self {
        spelled.text
    }
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    SecurityInfo,
    /// DeviceInformation with DevicePropertiesAttestation, and the nonce that Apple is to repeat.
    Attestation {
        nonce: Option<[u8; 32]>,
    },
}

/// The only query that makes a DeviceInformation an attestation.
const ATTESTATION: &str = "DevicePropertiesAttestation";

impl Question {
    /// The question of this request type and these queries.
    ///
    /// # Refusals
    /// `Unsupported` for every other: a type that is not on the list, a query that is no part of an
    /// attestation, a DeviceInformation without one.
    pub fn of<'a>(
        request_type: &str,
        mut queries: impl Iterator<Item = &'a str> + Clone,
        nonce: Option<[u8; 32]>,
    ) -> Result<Self, Refusal> {
        let known = Command::EACH
            .iter()
            .any(|command| command.request_type() == request_type);
        let mut listed = queries.clone();
        match request_type {
            "SecurityInfo" if listed.next().is_none() && nonce.is_none() => Ok(Self::SecurityInfo),
            "DeviceInformation"
                if known
                    && queries.any(|query| query == ATTESTATION)
                    && listed.all(|query| ATTESTATION_QUERIES.contains(&query)) =>
            {
                Ok(Self::Attestation { nonce })
            }
            _ => Err(Refusal::Unsupported),
        }
    }

    /// Apple's name of the command.
    pub fn request_type(self) -> &'static str {
        match self {
            Self::SecurityInfo => Command::SecurityInfo.request_type(),
            Self::Attestation { .. } => {
                Command::DevicePropertiesAttestation { nonce: [0; 32] }.request_type()
            }
        }
    }
}

/// Reads a command as a property list, with its name.
///
/// # Refusals
/// Anything but a well-formed command that can be asked; a member that is none of Apple's for it; a
/// nonce of another length than those of the ledger have.
pub fn read_command(bytes: &[u8]) -> Result<(Spelled, Question), Refusal> {
    let top = read_dictionary(bytes)?;
    only(&top, &["Command", "CommandUUID"])?;
    let name = top.string("CommandUUID")?;
    let name = name.and_then(|name| Spelled::parse(name).ok());
    let name = name.ok_or(Refusal::Key("CommandUUID"))?;
    let command = top.dictionary("Command")?.ok_or(Refusal::Key("Command"))?;
    let request_type = command.string("RequestType")?;
    let request_type = request_type.ok_or(Refusal::Key("RequestType"))?;
    let queries = command.array("Queries")?.unwrap_or_default();
    let mut names = Vec::with_capacity(queries.len());
    for query in queries {
        let Value::String(query) = query else {
            return Err(Refusal::Key("Queries"));
        };
        names.push(query.as_ref());
    }
    let nonce = match command.data("DeviceAttestationNonce")? {
        None => None,
        Some(nonce) => Some(
            nonce
                .try_into()
                .map_err(|_| Refusal::Key("DeviceAttestationNonce"))?,
        ),
    };
    let question = Question::of(request_type, names.into_iter(), nonce)?;
    only(
        command,
        &["RequestType", "Queries", "DeviceAttestationNonce"],
    )?;
    Ok((name, question))
}

fn only(dictionary: &Dictionary<'_>, keys: &[&str]) -> Result<(), Refusal> {
    if dictionary.iter().all(|(key, _)| keys.contains(&key)) {
        Ok(())
    } else {
        Err(Refusal::Unsupported)
    }
}

impl utoipa::ToSchema for Spelled {}

impl utoipa::PartialSchema for Spelled {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::json::text_schema("The name of a command, letter by letter as it was given.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "0e0f2b52-70a5-4da0-a6e0-0a6d9a1c1b2c";

    fn command(inner: &str) -> Vec<u8> {
        format!(
            "<plist version=\"1.0\"><dict><key>Command</key><dict>{inner}</dict>\
             <key>CommandUUID</key><string>{NAME}</string></dict></plist>"
        )
        .into_bytes()
    }

    fn attestation(rest: &str) -> Vec<u8> {
        command(&format!(
            "<key>RequestType</key><string>DeviceInformation</string><key>Queries</key><array>\
             <string>DevicePropertiesAttestation</string></array>{rest}"
        ))
    }

    #[test]
    fn what_the_old_coordinator_writes_is_read() {
        let nonce = "<key>DeviceAttestationNonce</key>\
                     <data>mEoWnyjNA91Q30dyckF0v1c0c2sgOEkY/kTspGfYapg=</data>";
        let (name, question) = read_command(&attestation(nonce)).expect("a command");
        assert_eq!(name.to_string(), NAME, "as it was written");
        assert_eq!(name.command_uuid().as_str(), NAME.to_uppercase());
        let Question::Attestation { nonce: Some(nonce) } = question else {
            panic!("{question:?}")
        };
        assert!(hex::encode(nonce).starts_with("984a169f28cd03dd"));
        assert_eq!(question.request_type(), "DeviceInformation");
        let (_, question) = read_command(&attestation("")).expect("a command");
        assert_eq!(question, Question::Attestation { nonce: None });
        let info = command("<key>RequestType</key><string>SecurityInfo</string>");
        let (_, question) = read_command(&info).expect("a command");
        assert_eq!(question, Question::SecurityInfo);
    }

    #[test]
    fn nothing_else_can_be_asked() {
        for request_type in [
            "EraseDevice",
            "DeviceLock",
            "InstallProfile",
            "ProfileList",
            "RestartDevice",
            "securityinfo",
            "",
        ] {
            let bytes = command(&format!(
                "<key>RequestType</key><string>{request_type}</string>"
            ));
            assert_eq!(
                read_command(&bytes),
                Err(Refusal::Unsupported),
                "{request_type}"
            );
            let refused = Question::of(request_type, std::iter::empty(), None);
            assert_eq!(refused, Err(Refusal::Unsupported));
        }
        for inner in [
            // No attestation; a query that asks for something personal; a pin beside the question.
            "<key>RequestType</key><string>DeviceInformation</string>",
            "<key>RequestType</key><string>DeviceInformation</string><key>Queries</key><array>\
             <string>SerialNumber</string></array>",
            "<key>RequestType</key><string>DeviceInformation</string><key>Queries</key><array>\
             <string>DevicePropertiesAttestation</string><string>DeviceName</string></array>",
            "<key>RequestType</key><string>SecurityInfo</string><key>PIN</key><string>1</string>",
            "<key>RequestType</key><string>SecurityInfo</string><key>Queries</key><array>\
             <string>DevicePropertiesAttestation</string></array>",
        ] {
            assert_eq!(
                read_command(&command(inner)),
                Err(Refusal::Unsupported),
                "{inner}"
            );
        }
        for inner in [
            "<key>DeviceAttestationNonce</key><data>AAAA</data>",
            "<key>DeviceAttestationNonce</key><string>AAAA</string>",
        ] {
            let refused = read_command(&attestation(inner)).expect_err(inner);
            assert_ne!(refused, Refusal::Unsupported, "{inner}");
        }
        assert!(read_command(b"{}").is_err());
        let nameless = b"<plist version=\"1.0\"><dict><key>Command</key><dict/></dict></plist>";
        assert_eq!(read_command(nameless), Err(Refusal::Key("CommandUUID")));
    }
}
