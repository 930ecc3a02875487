//! Events as messages to a webhook, and the signature over them.
//!
//! The form is that of Standard Webhooks 1.0: the headers `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`, an HMAC over all three parts under a secret written `whsec_…`, and a body with
//! `type`, `timestamp` and `data`.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use crate::secret::Secret;
use crate::time::Timestamp;

/// Names the message: the same in every attempt.
pub const ID: &str = "webhook-id";
/// When it was sent, in seconds since 1970.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// `v1,` and the signature in base64.
pub const SIGNATURE: &str = "webhook-signature";

const PREFIX: &str = "whsec_";
/// Bytes a secret has at least and at most, by the standard.
const SHORTEST: usize = 24;
const LONGEST: usize = 64;

/// What a webhook's messages are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecret(Secret<Vec<u8>>);

/// A text that is no secret of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook's secret is whsec_ and 24 to 64 random bytes in base64")]
pub struct MalformedSecret;

impl SigningSecret {
    /// A new secret of these random bytes.
    pub fn new(random: &[u8; 32]) -> Self {
        Self(Secret::new(random.to_vec()))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`MalformedSecret`], also for bytes that are certainly not random.
    pub fn parse(text: &str) -> Result<Self, MalformedSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(MalformedSecret)?;
        let bytes = Secret::new(STANDARD.decode(encoded).map_err(|_| MalformedSecret)?);
        let is_long_enough = (SHORTEST..=LONGEST).contains(&bytes.expose().len());
        let mut kinds = bytes.expose().clone();
        kinds.sort_unstable();
        kinds.dedup();
        if !is_long_enough || kinds.len() < SHORTEST / 2 {
            return Err(MalformedSecret);
        }
        Ok(Self(bytes))
    }

    /// The text form, for whoever checks signatures.
    pub fn text(&self) -> Secret<String> {
        Secret::new(format!("{PREFIX}{}", STANDARD.encode(self.0.expose())))
    }

    /// The signature over a message, as its header has it.
    pub fn sign(&self, id: &str, sent_at: i64, body: &[u8]) -> String {
        let key = Key::new(HMAC_SHA256, self.0.expose());
        let mut signed = format!("{id}.{sent_at}.").into_bytes();
        signed.extend_from_slice(body);
        format!("v1,{}", STANDARD.encode(sign(&key, &signed).as_ref()))
    }
}

/// The body of a message.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    /// The event's name.
    #[serde(rename = "type")]
    pub name: &'a str,
    pub timestamp: Timestamp,
    /// The event's number: rises with what happened, and is the cursor of the event stream.
    pub seq: i64,
    pub data: &'a Value,
}

/// The name of the message about an event: the same whenever, and to whomever, it is sent.
pub fn id(seq: i64) -> String {
    format!("evt_{seq}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example in the standard's own libraries.
        let secret =
            SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_reads_back_and_a_weak_one_is_none() {
        let secret = SigningSecret::new(&std::array::from_fn(|i| u8::try_from(i).expect("small")));
        let text = secret.text();
        assert_eq!(SigningSecret::parse(text.expose()), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "SigningSecret([secret])");
        let encoded = |bytes: &[u8]| format!("whsec_{}", STANDARD.encode(bytes));
        let many: Vec<u8> = (0..100).collect();
        for bad in [
            String::new(),
            "whsec_".to_owned(),
            text.expose().replace("whsec_", ""),
            text.expose().replace("whsec_", "whpk_"),
            format!("{} ", text.expose()),
            encoded(&many[..23]),
            encoded(&many[..65]),
            encoded(&[0; 32]),
            encoded(b"abcabcabcabcabcabcabcabcabcabc"),
        ] {
            assert_eq!(SigningSecret::parse(&bad), Err(MalformedSecret), "{bad}");
        }
    }

    #[test]
    fn a_message_has_the_members_of_the_standard() {
        let message = Message {
            name: "posture.changed",
            timestamp: Timestamp::from_seconds(1_790_847_007),
            seq: 7,
            data: &json!({ "revision": 3 }),
        };
        assert_eq!(
            serde_json::to_string(&message).expect("JSON"),
            "{\"type\":\"posture.changed\",\"timestamp\":\"2026-10-01T09:30:07Z\",\"seq\":7,\
             \"data\":{\"revision\":3}}"
        );
        assert_eq!(id(7), "evt_7");
    }
}
