//! Reports: a Mac asks for work or brings an answer.
//!
//! Source: Apple "Sending MDM commands to a device"; `mdm/commands/*.yaml`.

use super::plist::{Dictionary, read_dictionary};
use super::{Refusal, Sender};
use crate::ids::CommandUuid;

/// A report and who it says it is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Report<'a> {
    pub sender: Sender,
    pub status: Status,
    /// The whole message, for the reader of the command that was answered.
    pub body: Dictionary<'a>,
}

/// What the Mac says about the command it was given, or that it has nothing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Idle,
    Acknowledged(CommandUuid),
    /// Not carried out. The chain's codes and domains may change between releases: they are
    /// logged, never decided upon.
    Error(CommandUuid, Vec<Cause>),
    /// The command was malformed: a fault of ours, never sent again unchanged.
    CommandFormatError(CommandUuid),
    /// Understood, cannot be carried out now.
    NotNow(CommandUuid),
    /// About a command whose name is none of ours: the result a Mac still had for the server it was
    /// managed by before. It is said again until it is taken (Apple, "Sending MDM commands to a
    /// device"), so it must not be refused.
    Foreign,
}

/// One link of an error chain; the first is the outermost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub code: i128,
    pub domain: String,
}

impl<'a> Report<'a> {
    /// Reads a report body.
    ///
    /// # Refusals
    /// Anything but a well-formed property list with a known Status, and a CommandUUID where the
    /// Status demands one.
    pub fn decode(body: &'a [u8]) -> Result<Self, Refusal> {
        let body = read_dictionary(body)?;
        let sender = Sender::read(&body)?;
        let word = body.string("Status")?.ok_or(Refusal::Key("Status"))?;
        let about = |status: &dyn Fn(CommandUuid) -> Result<Status, Refusal>| {
            let name = body.string("CommandUUID")?.filter(|name| !name.is_empty());
            let name = name.ok_or(Refusal::Key("CommandUUID"))?;
            CommandUuid::parse(name).map_or(Ok(Status::Foreign), status)
        };
        let status = match word {
            "Idle" => Status::Idle,
            "Acknowledged" => about(&|command| Ok(Status::Acknowledged(command)))?,
            "Error" => about(&|command| Ok(Status::Error(command, causes(&body)?)))?,
            "CommandFormatError" => about(&|command| Ok(Status::CommandFormatError(command)))?,
            "NotNow" => about(&|command| Ok(Status::NotNow(command)))?,
            _ => return Err(Refusal::Unsupported),
        };
        Ok(Self {
            sender,
            status,
            body,
        })
    }
}

impl Status {
    /// Apple's name, where it has one; also the metric label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Acknowledged(_) => "Acknowledged",
            Self::Error(..) => "Error",
            Self::CommandFormatError(_) => "CommandFormatError",
            Self::NotNow(_) => "NotNow",
            Self::Foreign => "foreign",
        }
    }

    /// The command it is about.
    pub fn command_uuid(&self) -> Option<&CommandUuid> {
        match self {
            Self::Idle | Self::Foreign => None,
            Self::Acknowledged(uuid)
            | Self::Error(uuid, _)
            | Self::CommandFormatError(uuid)
            | Self::NotNow(uuid) => Some(uuid),
        }
    }
}

fn causes(body: &Dictionary<'_>) -> Result<Vec<Cause>, Refusal> {
    use super::plist::Value;
    let chain = body.array("ErrorChain")?.unwrap_or_default();
    let mut causes = Vec::new();
    for link in chain.iter().take(8) {
        if let Value::Dictionary(link) = link {
            let code = match link.value("ErrorCode") {
                Some(Value::Integer(code)) => *code,
                _ => 0,
            };
            causes.push(Cause {
                code,
                domain: super::label(link, "ErrorDomain")?.unwrap_or_default(),
            });
        }
    }
    Ok(causes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(rest: &str) -> Vec<u8> {
        format!(
            "<plist version=\"1.0\"><dict><key>UDID</key>\
             <string>5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D</string>{rest}</dict></plist>"
        )
        .into_bytes()
    }

    const UUID: &str =
        "<key>CommandUUID</key><string>00000001-0000-4000-8000-000000000001</string>";

    #[test]
    fn every_status_is_read() {
        for (status, command) in [
            ("Idle", false),
            ("Acknowledged", true),
            ("Error", true),
            ("CommandFormatError", true),
            ("NotNow", true),
        ] {
            let bytes = body(&format!("<key>Status</key><string>{status}</string>{UUID}"));
            let report = Report::decode(&bytes).expect(status);
            assert_eq!(report.status.name(), status);
            assert_eq!(report.status.command_uuid().is_some(), command);
        }
    }

    #[test]
    fn an_answer_without_its_command_is_refused() {
        let bytes = body("<key>Status</key><string>Acknowledged</string>");
        assert_eq!(Report::decode(&bytes), Err(Refusal::Key("CommandUUID")));
        let nameless = "<key>Status</key><string>NotNow</string>\
                        <key>CommandUUID</key><string></string>";
        let bytes = body(nameless);
        assert_eq!(Report::decode(&bytes), Err(Refusal::Key("CommandUUID")));
    }

    #[test]
    fn a_status_nobody_knows_is_no_status_that_is_known() {
        for status in ["Done", "idle", "", "Acknowledged "] {
            let bytes = body(&format!("<key>Status</key><string>{status}</string>{UUID}"));
            assert_eq!(
                Report::decode(&bytes),
                Err(Refusal::Unsupported),
                "{status}"
            );
        }
    }

    #[test]
    fn the_result_of_a_command_of_another_server_is_told_apart() {
        for status in ["Acknowledged", "Error", "CommandFormatError", "NotNow"] {
            let bytes = body(&format!(
                "<key>Status</key><string>{status}</string>\
                 <key>CommandUUID</key><string>CMD1</string>"
            ));
            let report = Report::decode(&bytes).expect("well formed");
            assert_eq!(report.status, Status::Foreign);
        }
    }

    #[test]
    fn an_error_chain_is_kept_for_the_log() {
        let bytes = body(&format!(
            "<key>Status</key><string>Error</string>{UUID}<key>ErrorChain</key><array><dict>\
             <key>ErrorCode</key><integer>12021</integer><key>ErrorDomain</key>\
             <string>MCMDMErrorDomain</string></dict></array>"
        ));
        let report = Report::decode(&bytes).expect("well formed");
        let Status::Error(_, causes) = report.status else {
            panic!("{:?}", report.status)
        };
        assert_eq!(
            causes,
            [Cause {
                code: 12021,
                domain: "MCMDMErrorDomain".into()
            }]
        );
    }
}
