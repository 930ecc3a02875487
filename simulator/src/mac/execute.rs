//! What a Mac does with one command (apple-protocol 3, 4, 5).

use plist::{Dictionary, Value};

use super::messages::{self, right};
use super::{ATTESTATION, Enrolled, Lie, Mac, MacError, query_responses, security_info};
use crate::apple::Chain;
use crate::keys::{self, KeyKind};
use crate::plist_xml::dictionary;

/// A command as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) uuid: String,
    pub(super) request_type: String,
    pub(super) body: Dictionary,
}

impl Command {
    /// Reads {CommandUUID, Command: {RequestType, …}}.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let value: Value = plist::from_bytes(bytes).ok()?;
        let top = value.as_dictionary()?;
        let body = top.get("Command")?.as_dictionary()?.clone();
        Some(Self {
            uuid: top.get("CommandUUID")?.as_string()?.to_owned(),
            request_type: body.get("RequestType")?.as_string()?.to_owned(),
            body,
        })
    }

    /// The nonce, where it is one.
    pub(super) fn nonce(&self) -> Option<&[u8]> {
        self.body
            .get("DeviceAttestationNonce")
            .and_then(Value::as_data)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) reply: Dictionary,
    pub(super) status: &'static str,
    pub(super) attestation: Option<(Chain, bool)>,
}

/// Commands macOS executes even in Power Nap on battery (apple-protocol 3.3).
const NEVER_NOT_NOW: [&str; 9] = [
    "DeleteUser",
    "DeviceLock",
    "EraseDevice",
    "RestartDevice",
    "ShutDownDevice",
    "UserList",
    "ActivationLockBypassCode",
    "ClearActivationLockBypassCode",
    "UnlockUserAccount",
];

impl Mac {
    pub(super) async fn execute(
        &self,
        enrolled: &Enrolled,
        command: &Command,
    ) -> Result<Executed, MacError> {
        let rights = enrolled.profile.mdm.access_rights;
        let kind = command.request_type.as_str();
        if self.state().power_nap && !NEVER_NOT_NOW.contains(&kind) {
            return Ok(self.bare(command, "NotNow"));
        }
        let needed = match kind {
            "SecurityInfo" => right::SECURITY,
            "ProfileList" | "CertificateList" => right::INSPECT_PROFILES,
            // Each query has its own right; the command needs none.
            "DeviceInformation" => 0,
            _ => return Ok(self.refused(command, 12021, "The request type is not supported.")),
        };
        if rights & needed != needed {
            return Ok(self.refused(command, 12007, "Not authorized for this request."));
        }
        match kind {
            "SecurityInfo" => Ok(self.done(
                command,
                "SecurityInfo",
                Value::Dictionary(security_info(&self.spec())),
            )),
            "CertificateList" => {
                let entry = dictionary([
                    ("CommonName", common_name(enrolled).into()),
                    ("Data", Value::Data(enrolled.identity.certificate.to_der()?)),
                    ("IsIdentity", true.into()),
                ]);
                Ok(self.done(
                    command,
                    "CertificateList",
                    Value::Array(vec![Value::Dictionary(entry)]),
                ))
            }
            "ProfileList" => {
                let entry = dictionary([
                    ("IsEncrypted", false.into()),
                    ("IsManaged", true.into()),
                    (
                        "PayloadIdentifier",
                        enrolled.profile.identifier.as_str().into(),
                    ),
                    ("PayloadUUID", enrolled.profile.uuid.as_str().into()),
                    ("PayloadVersion", 1.into()),
                ]);
                Ok(self.done(
                    command,
                    "ProfileList",
                    Value::Array(vec![Value::Dictionary(entry)]),
                ))
            }
            _ => self.device_information(command, rights).await,
        }
    }

    async fn device_information(
        &self,
        command: &Command,
        rights: i64,
    ) -> Result<Executed, MacError> {
        let Some(queries) = queries(command) else {
            return Ok(self.bare(command, "CommandFormatError"));
        };
        // Data of 1 to 32 bytes, or absent (apple-protocol 5.2).
        let nonce = match command.body.get("DeviceAttestationNonce") {
            None => None,
            Some(value) => match value.as_data() {
                Some(nonce) if (1..=32).contains(&nonce.len()) => Some(nonce),
                _ => return Ok(self.bare(command, "CommandFormatError")),
            },
        };
        let mut responses =
            query_responses(&self.spec().presented(), queries.iter().copied(), rights);
        let mut attestation = None;
        if queries.contains(&ATTESTATION) && rights & right::DEVICE_INFORMATION != 0 {
            attestation = self.attest(nonce).await?;
            if let Some((chain, _)) = &attestation {
                let both = vec![
                    Value::Data(chain.leaf.clone()),
                    Value::Data(chain.intermediate.clone()),
                ];
                responses.insert(ATTESTATION.into(), Value::Array(both));
            }
        }
        let mut executed = self.done(command, "QueryResponses", Value::Dictionary(responses));
        executed.attestation = attestation;
        Ok(executed)
    }

    /// The chain for this nonce, or nothing where the Mac cannot be attested: the key is then
    /// absent and the command still acknowledged (apple-protocol 5.4).
    async fn attest(&self, nonce: Option<&[u8]>) -> Result<Option<(Chain, bool)>, MacError> {
        let spec = self.spec();
        let now = self.inner.world.clock().now_ms();
        let apple = self.inner.world.apple();
        if let Some(Lie::RelaysAnotherMac(victim)) = &spec.lie {
            tokio::time::sleep(self.attestation_delay()).await;
            let chain = apple.attest(victim, &keys::generate(KeyKind::P384)?, nonce, now)?;
            return Ok(Some((chain, true)));
        }
        if matches!(spec.lie, Some(Lie::ReplaysOldChain))
            && let Some(first) = self.state().first_chain.clone()
        {
            return Ok(Some((first, false)));
        }
        let cached = self.state().attestation.served_from_cache(nonce, now);
        if cached.is_none() {
            if !spec.can_be_attested() {
                return Ok(None);
            }
            tokio::time::sleep(self.attestation_delay()).await;
        }
        let now = self.inner.world.clock().now_ms();
        let mut state = self.state();
        let made = state
            .attestation
            .attestation(apple, &spec.attested_state(), nonce, now)?;
        state.first_chain.get_or_insert_with(|| made.0.clone());
        Ok(Some(made))
    }

    fn bare(&self, command: &Command, status: &'static str) -> Executed {
        let reply = messages::status_reply(&self.spec().presented(), &command.uuid, status);
        Executed {
            reply,
            status,
            attestation: None,
        }
    }

    fn done(&self, command: &Command, key: &str, value: Value) -> Executed {
        let mut executed = self.bare(command, "Acknowledged");
        if self.spec().names_request_type {
            executed
                .reply
                .insert("RequestType".into(), command.request_type.as_str().into());
        }
        executed.reply.insert(key.to_owned(), value);
        executed
    }

    fn refused(&self, command: &Command, code: i64, text: &str) -> Executed {
        let mut executed = self.bare(command, "Error");
        executed
            .reply
            .insert("RequestType".into(), command.request_type.as_str().into());
        executed
            .reply
            .insert("ErrorChain".into(), messages::error_chain(code, text));
        executed
    }
}

/// The queries, which must be a non-empty array of strings.
fn queries(command: &Command) -> Option<Vec<&str>> {
    let found: Option<Vec<&str>> = command
        .body
        .get("Queries")?
        .as_array()?
        .iter()
        .map(Value::as_string)
        .collect();
    found.filter(|queries| !queries.is_empty())
}

fn common_name(enrolled: &Enrolled) -> String {
    let name = enrolled.identity.certificate.subject_name();
    let entry = name.entries_by_nid(openssl::nid::Nid::COMMONNAME).next();
    entry
        .and_then(|entry| entry.data().to_string().ok())
        .unwrap_or_default()
}
