//! DeviceInformation: the queried properties, and Apple's attestation beside them.
//!
//! Source: Apple `mdm/commands/information.device.yaml`.

use serde::{Deserialize, Serialize};

use super::plist::{Dictionary, Value};
use super::{Refusal, label};

/// Most certificates that are looked at.
const MAX_CHAIN: usize = 4;

/// What a Mac said of itself in QueryResponses. `None` is "not said": queries that are unknown or
/// not permitted are dropped by the Mac without a word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct QueryResponses {
    #[serde(rename = "UDID", skip_serializing_if = "Option::is_none")]
    pub udid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    #[serde(rename = "ProvisioningUDID", skip_serializing_if = "Option::is_none")]
    pub provisioning_udid: Option<String>,
    #[serde(rename = "OSVersion", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_version: Option<String>,
}

/// A DeviceInformation reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInformation {
    pub queried: QueryResponses,
    pub attestation: Attestation,
}

/// The member DevicePropertiesAttestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestation {
    /// The member is missing: Intel, a virtual machine, an older macOS, a missing right, or Apple
    /// could not be reached. Unavailable, not bad.
    Absent,
    /// Certificates as received, leaf first, DER.
    Chain(Vec<Vec<u8>>),
    /// There, but not one to four pieces of data.
    Malformed,
}

impl DeviceInformation {
    /// Reads the QueryResponses dictionary of an acknowledged report.
    ///
    /// # Refusals
    /// No QueryResponses dictionary; a text property of another type.
    pub fn read(report: &Dictionary<'_>) -> Result<Self, Refusal> {
        let responses = report
            .dictionary("QueryResponses")?
            .ok_or(Refusal::Key("QueryResponses"))?;
        // Identifiers are compared with Apple's: what is not as it must be stays so.
        let identifier = |key| responses.string(key).map(|text| text.map(str::to_owned));
        let queried = QueryResponses {
            udid: identifier("UDID")?,
            serial_number: identifier("SerialNumber")?,
            provisioning_udid: identifier("ProvisioningUDID")?,
            os_version: label(responses, "OSVersion")?,
            build_version: label(responses, "BuildVersion")?,
        };
        let attestation = match responses.value("DevicePropertiesAttestation") {
            None => Attestation::Absent,
            Some(Value::Array(items)) => {
                let chain: Option<Vec<_>> = items
                    .iter()
                    .map(|item| match item {
                        Value::Data(der) => Some(der.clone()),
                        _ => None,
                    })
                    .collect();
                match chain {
                    Some(chain) if (1..=MAX_CHAIN).contains(&chain.len()) => {
                        Attestation::Chain(chain)
                    }
                    _ => Attestation::Malformed,
                }
            }
            Some(_) => Attestation::Malformed,
        };
        Ok(Self {
            queried,
            attestation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plist::read_dictionary;
    use super::*;

    fn read(responses: &str) -> Result<DeviceInformation, Refusal> {
        let bytes = format!(
            "<plist><dict><key>QueryResponses</key><dict>{responses}</dict></dict></plist>"
        );
        DeviceInformation::read(&read_dictionary(bytes.as_bytes()).expect("well formed"))
    }

    #[test]
    fn an_absent_attestation_is_told_from_a_malformed_one() {
        let of = |responses: &str| read(responses).expect("well formed").attestation;
        assert_eq!(of(""), Attestation::Absent);
        let member = |value: &str| format!("<key>DevicePropertiesAttestation</key>{value}");
        assert_eq!(of(&member("<array/>")), Attestation::Malformed);
        assert_eq!(of(&member("<data>AA==</data>")), Attestation::Malformed);
        assert_eq!(
            of(&member("<array><string>x</string></array>")),
            Attestation::Malformed
        );
        let five = "<data>AA==</data>".repeat(5);
        assert_eq!(
            of(&member(&format!("<array>{five}</array>"))),
            Attestation::Malformed
        );
        let two = "<array><data>AA==</data><data>AQ==</data></array>";
        assert_eq!(of(&member(two)), Attestation::Chain(vec![vec![0], vec![1]]));
    }

    #[test]
    fn the_reply_may_carry_only_the_udid() {
        let reply = read("<key>UDID</key><string>5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D</string>");
        let queried = reply.expect("well formed").queried;
        assert!(queried.udid.is_some() && queried.serial_number.is_none());
    }

    #[test]
    fn no_responses_is_no_reply() {
        let bytes = b"<plist><dict/></plist>";
        let top = read_dictionary(bytes).expect("well formed");
        assert_eq!(
            DeviceInformation::read(&top),
            Err(Refusal::Key("QueryResponses"))
        );
    }
}
