//! Check-ins: a Mac joins, changes its address, or leaves.
//!
//! Source: Apple `mdm/checkin/*.yaml`.

use super::plist::read_dictionary;
use super::{Channel, Refusal, Sender, label};
use crate::ids::{SerialNumber, Topic};
use crate::secret::Secret;

/// Longest push token that is taken; 32 bytes today, documented as opaque.
const MAX_TOKEN: usize = 100;
/// Longest PushMagic that is taken; a UUID today.
const MAX_MAGIC: usize = 200;
/// Longest bootstrap token that is kept.
const MAX_BOOTSTRAP_TOKEN: usize = 8 * 1024;

/// A check-in and who it says it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckIn {
    pub sender: Sender,
    pub message: Message,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// "I am about to install the MDM payload."
    Authenticate {
        topic: Topic,
        serial: Option<SerialNumber>,
        model: Option<String>,
        model_name: Option<String>,
        os_version: Option<String>,
        build_version: Option<String>,
    },
    /// How to wake this Mac (or user); the first one completes an enrollment.
    TokenUpdate {
        topic: Topic,
        token: Secret<Vec<u8>>,
        magic: Secret<String>,
    },
    /// The profile was removed. One attempt, no retry.
    CheckOut,
    /// `None` erases it.
    SetBootstrapToken(Option<Secret<Vec<u8>>>),
    GetBootstrapToken,
    /// A directory or mobile user logs in.
    UserAuthenticate,
    DeclarativeManagement,
    GetToken,
}

impl CheckIn {
    /// Reads a check-in body.
    ///
    /// # Refusals
    /// Anything but a well-formed property list with the keys Apple's schema demands; account
    /// driven enrollments; message types this service has no answer for.
    pub fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let top = read_dictionary(body)?;
        let kind = top
            .string("MessageType")?
            .ok_or(Refusal::Key("MessageType"))?;
        let sender = Sender::read(&top)?;
        let topic = || -> Result<Topic, Refusal> {
            let text = top.string("Topic")?.ok_or(Refusal::Key("Topic"))?;
            Topic::parse(text).map_err(|_| Refusal::Key("Topic"))
        };
        let message = match kind {
            "Authenticate" => Message::Authenticate {
                topic: topic()?,
                serial: match top.string("SerialNumber")? {
                    Some(text) => {
                        Some(SerialNumber::parse(text).map_err(|_| Refusal::Key("SerialNumber"))?)
                    }
                    None => None,
                },
                model: label(&top, "Model")?,
                model_name: label(&top, "ModelName")?,
                os_version: label(&top, "OSVersion")?,
                build_version: label(&top, "BuildVersion")?,
            },
            "TokenUpdate" => {
                let token = top.data("Token")?.ok_or(Refusal::Key("Token"))?;
                if token.is_empty() || token.len() > MAX_TOKEN {
                    return Err(Refusal::Key("Token"));
                }
                let magic = top.string("PushMagic")?.ok_or(Refusal::Key("PushMagic"))?;
                if magic.is_empty() || magic.len() > MAX_MAGIC {
                    return Err(Refusal::Key("PushMagic"));
                }
                Message::TokenUpdate {
                    topic: topic()?,
                    token: Secret::new(token.to_vec()),
                    magic: Secret::new(magic.to_owned()),
                }
            }
            "CheckOut" => Message::CheckOut,
            "SetBootstrapToken" => match top.data("BootstrapToken")?.unwrap_or_default() {
                [] => Message::SetBootstrapToken(None),
                token if token.len() > MAX_BOOTSTRAP_TOKEN => {
                    return Err(Refusal::Key("BootstrapToken"));
                }
                token => Message::SetBootstrapToken(Some(Secret::new(token.to_vec()))),
            },
            "GetBootstrapToken" => Message::GetBootstrapToken,
            "UserAuthenticate" => Message::UserAuthenticate,
            "DeclarativeManagement" => Message::DeclarativeManagement,
            "GetToken" => Message::GetToken,
            _ => return Err(Refusal::Unsupported),
        };
        let device_only = !matches!(
            message,
            Message::TokenUpdate { .. }
                | Message::UserAuthenticate
                | Message::DeclarativeManagement
                | Message::GetToken
        );
        if device_only && sender.channel == Channel::User {
            return Err(Refusal::Unsupported);
        }
        Ok(Self { sender, message })
    }
}

impl Message {
    /// Apple's name of the message type; also the metric label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authenticate { .. } => "Authenticate",
            Self::TokenUpdate { .. } => "TokenUpdate",
            Self::CheckOut => "CheckOut",
            Self::SetBootstrapToken(_) => "SetBootstrapToken",
            Self::GetBootstrapToken => "GetBootstrapToken",
            Self::UserAuthenticate => "UserAuthenticate",
            Self::DeclarativeManagement => "DeclarativeManagement",
            Self::GetToken => "GetToken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(kind: &str, rest: &str) -> Vec<u8> {
        format!(
            "<plist version=\"1.0\"><dict><key>MessageType</key><string>{kind}</string>\
             <key>Topic</key><string>com.apple.mgmt.External.0f0e</string>\
             <key>UDID</key><string>5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D</string>{rest}</dict></plist>"
        )
        .into_bytes()
    }

    fn message(kind: &str, rest: &str) -> Result<Message, Refusal> {
        CheckIn::decode(&body(kind, rest)).map(|check_in| check_in.message)
    }

    #[test]
    fn reads_authenticate_with_and_without_a_serial() {
        let with = message(
            "Authenticate",
            "<key>SerialNumber</key><string>SIMQ4T2W7P</string>",
        );
        let Ok(Message::Authenticate { serial, .. }) = with else {
            panic!("{with:?}")
        };
        assert_eq!(serial.map(|s| s.to_string()).as_deref(), Some("SIMQ4T2W7P"));
        assert!(matches!(
            message("Authenticate", ""),
            Ok(Message::Authenticate { serial: None, .. })
        ));
        let bad = message("Authenticate", "<key>SerialNumber</key><string>no</string>");
        assert_eq!(bad, Err(Refusal::Key("SerialNumber")));
    }

    #[test]
    fn a_user_channel_token_is_told_apart() {
        let rest = "<key>Token</key><data>AAEC</data><key>PushMagic</key><string>m</string>";
        let device = CheckIn::decode(&body("TokenUpdate", rest)).expect("device");
        assert_eq!(device.sender.channel, Channel::Device);
        let user = format!("{rest}<key>UserID</key><string>AB</string>");
        let user = CheckIn::decode(&body("TokenUpdate", &user)).expect("user");
        assert_eq!(user.sender.channel, Channel::User);
        let user_authenticate = "<key>UserID</key><string>AB</string>";
        assert_eq!(
            message("Authenticate", user_authenticate),
            Err(Refusal::Unsupported)
        );
    }

    #[test]
    fn an_empty_or_missing_bootstrap_token_erases() {
        for rest in ["", "<key>BootstrapToken</key><data></data>"] {
            assert_eq!(
                message("SetBootstrapToken", rest),
                Ok(Message::SetBootstrapToken(None))
            );
        }
        let set = message(
            "SetBootstrapToken",
            "<key>BootstrapToken</key><data>AAEC</data>",
        );
        assert!(matches!(set, Ok(Message::SetBootstrapToken(Some(_)))));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(message("ReturnToService", ""), Err(Refusal::Unsupported));
        assert_eq!(message("TokenUpdate", ""), Err(Refusal::Key("Token")));
        let empty = "<key>Token</key><data></data><key>PushMagic</key><string>m</string>";
        assert_eq!(message("TokenUpdate", empty), Err(Refusal::Key("Token")));
        let anonymous = b"<plist><dict><key>MessageType</key><string>Authenticate</string>\
            <key>EnrollmentID</key><string>x</string></dict></plist>";
        assert_eq!(CheckIn::decode(anonymous), Err(Refusal::Unsupported));
    }
}
