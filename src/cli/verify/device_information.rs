//! `attestd verify device-information`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::mda::{self, Options};
use super::security_info::{acknowledged, refused, reply};
use super::{Answer, Unreadable, input};
use crate::attestation::{Evidence, Statement};
use crate::mdm::device_information::{Attestation, DeviceInformation, QueryResponses};
use crate::reason::Reason;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The reply as the Mac sent it, XML or binary property list.
    #[arg(value_name = "REPLY.plist")]
    reply: PathBuf,
    #[command(flatten)]
    pub(super) options: Options,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let anchors = input::anchors(arguments.options.root.as_deref())?;
    let bytes = input::bytes(&arguments.reply)?;
    let mut answer = examine(&bytes, &anchors, &arguments.options)?;
    answer.member("anchor", json!(anchors.kind()));
    Ok(answer)
}

fn examine(
    bytes: &[u8],
    anchors: &crate::attestation::Anchors,
    options: &Options,
) -> Result<Answer, Unreadable> {
    let report = match reply(bytes)? {
        Ok(report) => report,
        Err(malformed) => return Ok(refused(Reason::AnswerMalformed, malformed)),
    };
    if let Err(answer) = acknowledged(&report) {
        return Ok(*answer);
    }
    if !report.has("QueryResponses") {
        return Ok(refused(
            Reason::FieldMissing,
            "the reply has no QueryResponses",
        ));
    }
    let information = match DeviceInformation::read(&report) {
        Ok(information) => information,
        Err(refusal) => return Ok(refused(Reason::AnswerMalformed, refusal)),
    };
    let queried = json!(information.queried);
    let certificates = match information.attestation {
        Attestation::Chain(certificates) => certificates,
        Attestation::Absent => {
            let mut answer = refused(
                Reason::AttestationUnavailable,
                "the reply has no DevicePropertiesAttestation",
            );
            answer.claims = Some(json!({ "device_reported": queried }));
            return Ok(answer);
        }
        Attestation::Malformed => {
            let mut answer = refused(
                Reason::ChainInvalid,
                "DevicePropertiesAttestation is not a leaf and an intermediate",
            );
            answer.claims = Some(json!({ "device_reported": queried }));
            return Ok(answer);
        }
    };
    let evidence = Evidence { certificates };
    let mut answer = mda::judge(&evidence, anchors, options);
    if answer.refused.is_empty()
        && let Some((statement, _)) = evidence.unverified_statement(0)
        && let Some(detail) = contradiction(&information.queried, &statement)
    {
        answer.refuse(&[Reason::SerialMismatch], detail);
    }
    if let Some(claims) = &mut answer.claims {
        claims["device_reported"] = queried;
    } else {
        answer.claims = Some(json!({ "device_reported": queried }));
    }
    Ok(answer)
}

/// Where the Mac names itself otherwise than Apple names it. What one of them leaves out
/// contradicts nothing.
fn contradiction(queried: &QueryResponses, stated: &Statement) -> Option<&'static str> {
    if let (Some(queried), Some(stated)) = (&queried.serial_number, &stated.serial)
        && queried != stated.as_str()
    {
        return Some("the reply and the attestation name different serial numbers");
    }
    if let (Some(queried), Some(stated)) = (&queried.provisioning_udid, &stated.provisioning_udid)
        && !queried.eq_ignore_ascii_case(stated.as_str())
    {
        return Some("the reply and the attestation name different ProvisioningUDIDs");
    }
    None
}
