//! A session on the command channel, message by message.

use attestd_sim::mac::{ATTESTATION, messages, query_responses, security_info};
use attestd_sim::{Mac, Reply, Signing};
use plist::{Dictionary, Value};

/// A command as a Mac was given it.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub uuid: String,
    pub kind: String,
    pub nonce: Option<Vec<u8>>,
    pub bytes: Vec<u8>,
}

impl Asked {
    /// The command in an answer; `None` when the answer has no body.
    ///
    /// # Panics
    /// When the answer is anything but 200, or its body is no command.
    pub fn read(reply: &Reply) -> Option<Self> {
        assert_eq!(reply.status, 200, "{reply:?}");
        if reply.body.is_empty() {
            return None;
        }
        let top = reply.plist().expect("a property list");
        let top = top.as_dictionary().expect("a dictionary");
        let command = top.get("Command").and_then(Value::as_dictionary);
        let command = command.expect("a command");
        let text = |from: &Dictionary, key| {
            from.get(key)
                .and_then(Value::as_string)
                .expect(key)
                .to_owned()
        };
        Some(Self {
            uuid: text(top, "CommandUUID"),
            kind: text(command, "RequestType"),
            nonce: command
                .get("DeviceAttestationNonce")
                .and_then(Value::as_data)
                .map(<[u8]>::to_vec),
            bytes: reply.body.to_vec(),
        })
    }
}

/// Says Idle.
pub async fn idle(mac: &Mac) -> Option<Asked> {
    let body = messages::idle(&mac.spec());
    Asked::read(&say(mac, &body).await)
}

/// Says anything on the command channel, signed by the Mac.
pub async fn say(mac: &Mac, body: &Dictionary) -> Reply {
    mac.connect_with(body, Signing::Own)
        .await
        .expect("an answer")
}

/// Answers a command with a bare status.
pub async fn answer(mac: &Mac, asked: &Asked, status: &str) -> Option<Asked> {
    let body = messages::status_reply(&mac.spec(), &asked.uuid, status);
    Asked::read(&say(mac, &body).await)
}

/// Answers a command with a dictionary.
pub async fn acknowledge(mac: &Mac, asked: &Asked, key: &str, value: Dictionary) -> Option<Asked> {
    Asked::read(&say(mac, &acknowledgment(mac, &asked.uuid, key, value)).await)
}

/// The body of such an answer.
pub fn acknowledgment(mac: &Mac, uuid: &str, key: &str, value: Dictionary) -> Dictionary {
    let mut body = messages::status_reply(&mac.spec(), uuid, "Acknowledged");
    body.insert(key.to_owned(), Value::Dictionary(value));
    body
}

/// Answers SecurityInfo as the Mac is.
pub async fn report(mac: &Mac, asked: &Asked) -> Option<Asked> {
    assert_eq!(asked.kind, "SecurityInfo");
    acknowledge(mac, asked, "SecurityInfo", security_info(&mac.spec())).await
}

/// Answers DeviceInformation with this chain, leaf first.
pub async fn present(mac: &Mac, asked: &Asked, chain: &[Vec<u8>]) -> Option<Asked> {
    Asked::read(&say(mac, &presentation(mac, asked, chain)).await)
}

/// The body of such an answer.
pub fn presentation(mac: &Mac, asked: &Asked, chain: &[Vec<u8>]) -> Dictionary {
    let queries = [
        "SerialNumber",
        "ProvisioningUDID",
        "OSVersion",
        "BuildVersion",
    ];
    let mut responses = query_responses(&mac.spec(), queries, 1041);
    let chain = chain.iter().cloned().map(Value::Data).collect();
    responses.insert(ATTESTATION.to_owned(), Value::Array(chain));
    acknowledgment(mac, &asked.uuid, "QueryResponses", responses)
}
