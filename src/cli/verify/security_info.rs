//! `attestd verify security-info`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Answer, Unreadable, input};
use crate::mdm::plist::{Dictionary, Malformed, claims_to_be_one, read_dictionary};
use crate::mdm::security_info::SecurityInfo;
use crate::reason::Reason;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The reply as the Mac sent it, XML or binary property list.
    #[arg(value_name = "REPLY.plist")]
    reply: PathBuf,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let bytes = input::bytes(&arguments.reply)?;
    let report = match reply(&bytes)? {
        Ok(report) => report,
        Err(malformed) => return Ok(refused(Reason::AnswerMalformed, malformed)),
    };
    if let Err(answer) = acknowledged(&report) {
        return Ok(*answer);
    }
    if !report.has("SecurityInfo") {
        return Ok(refused(
            Reason::FieldMissing,
            "the reply has no SecurityInfo",
        ));
    }
    Ok(match SecurityInfo::read(&report) {
        Ok(facts) => Answer::new(Some(json!(facts))),
        Err(refusal) => refused(Reason::AnswerMalformed, refusal),
    })
}

/// The property list in `bytes`; `Ok(Err)` is one that breaks a rule.
pub(super) fn reply(bytes: &[u8]) -> Result<Result<Dictionary<'_>, Malformed>, Unreadable> {
    match read_dictionary(bytes) {
        Ok(report) => Ok(Ok(report)),
        Err(_) if !claims_to_be_one(bytes) => {
            Err(Unreadable("the input is no property list".to_owned()))
        }
        Err(malformed) => Ok(Err(malformed)),
    }
}

/// Whether the Mac carried the command out; the answer for the caller when not.
pub(super) fn acknowledged(report: &Dictionary<'_>) -> Result<(), Box<Answer>> {
    let (reason, detail) = match report.string("Status") {
        Ok(Some("Acknowledged")) => return Ok(()),
        Ok(Some("NotNow")) => (Reason::NotNow, "the Mac said NotNow"),
        Ok(Some("Error" | "CommandFormatError")) => (
            Reason::CommandError,
            "the Mac did not carry the command out",
        ),
        _ => (
            Reason::AnswerMalformed,
            "the reply has no Status of a command",
        ),
    };
    Err(Box::new(refused(reason, detail)))
}

pub(super) fn refused(reason: Reason, detail: impl ToString) -> Answer {
    let mut answer = Answer::new(None);
    answer.refuse(&[reason], detail);
    answer
}
