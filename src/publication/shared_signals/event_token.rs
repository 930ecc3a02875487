//! Security event tokens (RFC 8417): one event each, about one subject, with no `sub` and no `exp`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::compliance::Change;
use super::{DEVICE_COMPLIANCE_CHANGE, STREAM_UPDATED, Transmitter, VERIFICATION};
use crate::ids::{SignalId, StreamId};
use crate::time::Timestamp;

/// The claims of a token, before it is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub jti: SignalId,
    pub iat: i64,
    pub aud: String,
    /// What it goes back to: the event of that number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    pub sub_id: Value,
    /// Exactly one.
    pub events: Map<String, Value>,
}

/// Which token, to whom, and from when.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub transmitter: &'a Transmitter,
    pub jti: SignalId,
    pub audience: &'a str,
    pub now: Timestamp,
}

impl Claims {
    /// A Mac began, or ceased, to be compliant. `at`: when it became true; `txn`: the event that says so.
    pub fn compliance_change(
        envelope: Envelope<'_>,
        pseudonym: &str,
        change: &Change,
        at: Timestamp,
        txn: String,
    ) -> Self {
        let mut event = json!({
            "previous_status": change.previous,
            "current_status": change.current,
            "event_timestamp": at.seconds(),
            "initiating_entity": change.initiator,
            "reason_admin": { "en": change.reason_admin },
        });
        if let (Some(text), Some(members)) = (&change.reason_user, event.as_object_mut()) {
            members.insert("reason_user".to_owned(), json!({ "en": text }));
        }
        let subject = envelope.transmitter.subject(pseudonym);
        let mut claims = Self::new(envelope, subject, DEVICE_COMPLIANCE_CHANGE, event);
        claims.txn = Some(txn);
        claims
    }

    /// The answer to who asks whether its stream works, with what it gave along.
    pub fn verification(envelope: Envelope<'_>, stream_id: &StreamId, state: Option<&str>) -> Self {
        let event = match state {
            Some(state) => json!({ "state": state }),
            None => json!({}),
        };
        Self::new(envelope, of_stream(stream_id), VERIFICATION, event)
    }

    /// The transmitter changed the status of the stream.
    pub fn stream_updated(
        envelope: Envelope<'_>,
        stream_id: &StreamId,
        status: super::stream::Status,
        reason: &str,
    ) -> Self {
        let event = json!({ "status": status, "reason": reason });
        Self::new(envelope, of_stream(stream_id), STREAM_UPDATED, event)
    }

    fn new(envelope: Envelope<'_>, sub_id: Value, name: &str, event: Value) -> Self {
        Self {
            iss: envelope.transmitter.issuer.clone(),
            jti: envelope.jti,
            iat: envelope.now.seconds(),
            aud: envelope.audience.to_owned(),
            txn: None,
            sub_id,
            events: Map::from_iter([(name.to_owned(), event)]),
        }
    }
}

fn of_stream(stream_id: &StreamId) -> Value {
    json!({ "format": "opaque", "id": stream_id })
}

#[cfg(test)]
mod tests {
    use super::super::compliance::{Compliance, Initiator};
    use super::*;
    use crate::entropy::SeededEntropy;

    /// The synthetic SET of the coordinator's interface (B.3), with its values put in.
    #[test]
    fn a_change_of_compliance_has_the_members_of_the_example() {
        let transmitter = Transmitter {
            issuer: "https://mdm.darkbloom.example".to_owned(),
            url: "https://mdm.darkbloom.example".to_owned(),
            tenant: Some("darkbloom-prod".to_owned()),
        };
        let now = Timestamp::from_seconds(1_789_905_600);
        let jti = SignalId::new(now, &SeededEntropy::new(1));
        let change = Change {
            previous: Compliance::Compliant,
            current: Compliance::NotCompliant,
            initiator: Initiator::Policy,
            reason_admin: "secure_boot_reduced".to_owned(),
            reason_user: None,
        };
        let envelope = Envelope {
            transmitter: &transmitter,
            jti: jti.clone(),
            audience: "https://coordinator.darkbloom.example",
            now,
        };
        let at = Timestamp::from_seconds(1_789_905_597);
        let claims =
            Claims::compliance_change(envelope, "pseudonym", &change, at, "evt_7".to_owned());
        assert_eq!(
            serde_json::to_value(&claims).expect("JSON"),
            json!({
                "iss": "https://mdm.darkbloom.example", "jti": jti, "iat": 1_789_905_600,
                "aud": "https://coordinator.darkbloom.example", "txn": "evt_7",
                "sub_id": {
                    "format": "complex",
                    "device": { "format": "iss_sub", "iss": "https://mdm.darkbloom.example", "sub": "pseudonym" },
                    "tenant": { "format": "opaque", "id": "darkbloom-prod" },
                },
                "events": { DEVICE_COMPLIANCE_CHANGE: {
                    "previous_status": "compliant", "current_status": "not-compliant",
                    "event_timestamp": 1_789_905_597, "initiating_entity": "policy",
                    "reason_admin": { "en": "secure_boot_reduced" },
                } },
            })
        );
        let kept = serde_json::to_string(&claims).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Claims>(&kept).expect("reads back"),
            claims
        );
    }
}
