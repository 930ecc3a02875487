//! Shared Signals (OpenID SSF 1.0, B.3 of the coordinator's interface): changes of compliance as
//! security event tokens, in streams that each receiver sets up for itself.
//!
//! A stream's receiver is told when a Mac begins or ceases to be compliant, and nothing else of it: the
//! profile (CAEP 1.0) has no word for what is not known.

pub mod access;
pub mod compliance;
pub mod discovery;
pub mod event_token;
mod member;
pub mod poll;
pub mod receiver;
mod schema;
pub mod stream;
#[cfg(test)]
mod stream_test;
pub mod subject;

use serde_json::{Value, json};

pub use self::member::Malformed;

/// CAEP 1.0: a Mac began, or ceased, to be compliant.
pub const DEVICE_COMPLIANCE_CHANGE: &str =
    "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";
/// SSF 1.0: the receiver asked whether its stream works.
pub const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// SSF 1.0: the transmitter changed the status of the stream.
pub const STREAM_UPDATED: &str =
    "https://schemas.openid.net/secevent/ssf/event-type/stream-updated";

/// Tokens are posted to the receiver (RFC 8935).
pub const PUSH: &str = "urn:ietf:rfc:8935";
/// The receiver asks for them (RFC 8936).
pub const POLL: &str = "urn:ietf:rfc:8936";

/// `typ` of a security event token (RFC 8417 section 2.3).
pub const TYP: &str = "secevent+jwt";
/// Its media type.
pub const MEDIA_TYPE: &str = "application/secevent+jwt";

/// Who transmits, as it names itself and its Macs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmitter {
    /// The canonical URL of the service.
    pub issuer: String,
    /// The URL that receivers reach its listener by, without a path.
    pub url: String,
    /// The fleet, where the receiver knows several.
    pub tenant: Option<String>,
}

impl Transmitter {
    /// Where this is asked for.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// How a token names a Mac: by its pseudonym, and the fleet it is of.
    pub fn subject(&self, pseudonym: &str) -> Value {
        let mut subject = json!({
            "format": "complex",
            "device": { "format": "iss_sub", "iss": self.issuer, "sub": pseudonym },
        });
        if let (Some(tenant), Some(members)) = (&self.tenant, subject.as_object_mut()) {
            members.insert(
                "tenant".to_owned(),
                json!({ "format": "opaque", "id": tenant }),
            );
        }
        subject
    }
}
