//! `POST /v2/enroll`: a provider asks for a profile, signed by its Secure Enclave key.
//!
//! The ticket that is made for it names the key, so that when the Mac enrols it is known which key
//! asked for this Mac's profile. That keeps a stranger from claiming somebody's serial number; it
//! does not keep the owner of two Macs from using the key of one with the profile of the other.
//!
//! # What is signed
//! ECDSA on P-256 with SHA-256 over five fields, each after its length as 4 bytes, big endian:
//!
//! | field | bytes |
//! | --- | --- |
//! | tag | `attestd-enroll-v2` |
//! | server id | this service's canonical name, the one in `transcript-v1` nonces |
//! | key | the text of `se_public_key` |
//! | nonce | the text of `nonce` |
//! | timestamp | the text of `timestamp` |
//!
//! The tag keeps it apart from challenges, which have none: those begin with a base64 character, and
//! this with a zero byte. The server id keeps it from being taken to another service. The key's text
//! is signed because it, and not the point, will be hashed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::members::{Malformed, Members};
use super::se_key::{SeKeyRefusal, SePublicKey};
use super::signature::{BadSignature, Signature, SignatureRefusal};
use super::{CLOCK_SKEW, is_timely};
use crate::ids::{sha256, transcript};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest body read; an honest one has some 300 bytes.
pub const MAX_REQUEST: usize = 4 * 1024;

/// A request that its key signed, for this service and lately. [`EnrollRequest::verify`] is the only
/// way to get one. Whether it was made before is for who remembers [`EnrollRequest::once`].
#[derive(Debug, Clone)]
pub struct EnrollRequest {
    key: SePublicKey,
    once: Once,
}

/// Under what a request is remembered, so that it is granted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// SHA-256 over key and nonce, by point and bytes: another spelling of either is no new request.
    pub name: [u8; 32],
    /// When it may be forgotten: it is refused for its age from then on.
    pub until: Timestamp,
}

/// Why a request is none that can be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollRefusal {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    SeKey(#[from] SeKeyRefusal),
    #[error("the request is too old, or of a time that lies ahead")]
    Untimely,
    #[error(transparent)]
    Signature(#[from] SignatureRefusal),
    #[error(transparent)]
    BadSignature(#[from] BadSignature),
}

impl EnrollRefusal {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(Malformed::TooLarge(_)) => Reason::RequestTooLarge,
            Self::Malformed(_) => Reason::RequestMalformed,
            Self::SeKey(refusal) => refusal.reason(),
            Self::Untimely => Reason::TimestampOutOfWindow,
            Self::Signature(refusal) => refusal.reason(),
            Self::BadSignature(refusal) => refusal.reason(),
        }
    }
}

const KNOWN: &[&str] = &["nonce", "se_public_key", "signature", "timestamp"];

/// What a request signs.
pub fn signed_bytes(server_id: &str, key: &str, nonce: &str, timestamp: &str) -> Vec<u8> {
    let fields = ["attestd-enroll-v2", server_id, key, nonce, timestamp];
    transcript(&fields.map(str::as_bytes))
}

impl EnrollRequest {
    /// Reads and verifies a body. The nonce is 16 to 64 bytes in standard base64 with padding, the
    /// timestamp RFC 3339, within two minutes of `now`.
    ///
    /// # Refusals
    /// See [`EnrollRefusal`]; unknown members are one.
    pub fn verify(body: &[u8], server_id: &str, now: Timestamp) -> Result<Self, EnrollRefusal> {
        let mut members = Members::read(body, MAX_REQUEST, KNOWN)?;
        members.refuse_others(KNOWN)?;
        let nonce = members.text("nonce")?;
        let nonce_bytes = match STANDARD.decode(&nonce) {
            Ok(bytes) if (16..=64).contains(&bytes.len()) => bytes,
            _ => return Err(Malformed::Form("nonce").into()),
        };
        let timestamp = members.text("timestamp")?;
        let stated = Timestamp::parse(&timestamp).map_err(|_| Malformed::Form("timestamp"))?;
        if !is_timely(stated, CLOCK_SKEW, now) {
            return Err(EnrollRefusal::Untimely);
        }
        let signature = Signature::parse(&members.text("signature")?)?;
        let key = SePublicKey::parse(&members.text("se_public_key")?)?;
        let signed = signed_bytes(server_id, key.text(), &nonce, &timestamp);
        key.verify(&signed, &signature)?;
        let name = sha256(&transcript(&[
            b"attestd-enroll-once-v2",
            key.point().as_bytes(),
            &nonce_bytes,
        ]));
        let until = stated
            .plus(CLOCK_SKEW)
            .plus(std::time::Duration::from_millis(1));
        Ok(Self {
            key,
            once: Once { name, until },
        })
    }

    /// Who asks.
    pub fn key(&self) -> &SePublicKey {
        &self.key
    }

    /// Under what it is remembered.
    pub fn once(&self) -> &Once {
        &self.once
    }
}

impl utoipa::ToSchema for EnrollRequest {
    fn name() -> std::borrow::Cow<'static, str> {
        "SignedEnrollRequest".into()
    }
}

/// Read by hand, because no member may stand there twice.
impl utoipa::PartialSchema for EnrollRequest {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder};
        let mut schema = ObjectBuilder::new()
            .description(Some(
                "A request for a profile, signed by the provider's key.",
            ))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        for name in KNOWN {
            let member = match *name {
                "se_public_key" => SePublicKey::schema(),
                "timestamp" => Timestamp::schema(),
                _ => String::schema(),
            };
            schema = schema.property(*name, member).required(*name);
        }
        schema.into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_provider::Provider;
    use super::*;

    const SERVER: &str = "mdm.example.org";
    const NONCE: &str = "BwcHBwcHBwcHBwcHBwcHBw==";

    fn now() -> Timestamp {
        Timestamp::parse("2026-09-20T12:00:00Z").expect("a time")
    }

    fn body(provider: &Provider, key: &str, nonce: &str, timestamp: &str) -> Value {
        let signed = signed_bytes(SERVER, key, nonce, timestamp);
        json!({
            "se_public_key": key, "nonce": nonce, "timestamp": timestamp,
            "signature": provider.sign(&signed),
        })
    }

    fn verify(body: &Value) -> Result<EnrollRequest, EnrollRefusal> {
        EnrollRequest::verify(body.to_string().as_bytes(), SERVER, now())
    }

    fn good(provider: &Provider) -> Value {
        body(
            provider,
            provider.key().text(),
            NONCE,
            "2026-09-20T12:00:00Z",
        )
    }

    #[test]
    fn what_is_signed_is_what_the_document_says() {
        assert_eq!(
            signed_bytes("mdm.example.org", "BKey", "AA==", "2026-09-20T12:00:00Z"),
            b"\0\0\0\x11attestd-enroll-v2\0\0\0\x0fmdm.example.org\0\0\0\x04BKey\
              \0\0\0\x04AA==\0\0\0\x142026-09-20T12:00:00Z"
        );
    }

    #[test]
    fn a_provider_asks_for_a_profile_by_its_key() {
        let provider = Provider::new();
        let request = verify(&good(&provider)).expect("signed");
        assert_eq!(request.key().text(), provider.key().text());
        let again = verify(&good(&provider)).expect("signed");
        assert_eq!(again.once(), request.once(), "only the signature differs");
        // The same key by its other text is no new request.
        let long = provider.key_65();
        let other = body(&provider, long.text(), NONCE, "2026-09-20T12:00:01Z");
        let other = verify(&other).expect("signed");
        assert_eq!(other.once().name, request.once().name);
        assert_eq!(other.key().text(), long.text());
        let another = body(
            &provider,
            long.text(),
            "CAgICAgICAgICAgICAgICA==",
            "2026-09-20T12:00:00Z",
        );
        assert_ne!(verify(&another).expect("signed").once(), request.once());
        let by_another = verify(&good(&Provider::new())).expect("signed");
        assert_ne!(by_another.once().name, request.once().name);
    }

    #[test]
    fn nothing_signed_for_something_else_is_a_request() {
        let (provider, other) = (Provider::new(), Provider::new());
        let request = good(&provider);
        let bytes = request.to_string();
        let elsewhere = EnrollRequest::verify(bytes.as_bytes(), "mdm.example.com", now());
        assert_eq!(elsewhere.err(), Some(BadSignature.into()));
        let long = provider.key_65();
        for (name, value) in [
            ("se_public_key", json!(other.key().text())),
            ("se_public_key", json!(long.text())),
            ("nonce", json!("CAgICAgICAgICAgICAgICA==")),
            ("timestamp", json!("2026-09-20T12:00:01Z")),
            ("timestamp", json!("2026-09-20T12:00:00.0Z")),
            ("signature", json!(provider.sign(b"something else"))),
        ] {
            let mut changed = request.clone();
            changed[name] = value;
            let refused = verify(&changed).expect_err(name);
            assert_eq!(refused, BadSignature.into());
            assert_eq!(refused.reason(), Reason::SignatureInvalid);
        }
        // A challenge's answer: nonce and timestamp, nothing around them.
        let mut answer = request;
        answer["signature"] =
            json!(provider.sign(format!("{NONCE}2026-09-20T12:00:00Z").as_bytes()));
        assert_eq!(verify(&answer).err(), Some(BadSignature.into()));
    }

    #[test]
    fn a_request_is_of_now_and_remembered_as_long_as_it_could_be_repeated() {
        let provider = Provider::new();
        for (timestamp, expected) in [
            ("2026-09-20T11:58:00Z", true),
            ("2026-09-20T11:57:59Z", false),
            ("2026-09-20T12:02:00Z", true),
            ("2026-09-20T12:02:01Z", false),
        ] {
            let request = body(&provider, provider.key().text(), NONCE, timestamp);
            let result = verify(&request);
            assert_eq!(result.is_ok(), expected, "{timestamp}");
            match result {
                Ok(request_of_now) => {
                    let until = request_of_now.once().until;
                    let bytes = request.to_string();
                    let at = |now| EnrollRequest::verify(bytes.as_bytes(), SERVER, now).is_ok();
                    assert!(!at(until));
                    assert!(at(until.minus(std::time::Duration::from_millis(1))));
                }
                Err(refusal) => {
                    assert_eq!(refusal.reason(), Reason::TimestampOutOfWindow);
                }
            }
        }
    }

    #[test]
    fn a_request_has_its_four_members_and_no_others() {
        let request = good(&Provider::new());
        for name in KNOWN {
            let mut without = request.clone();
            without[*name] = Value::Null;
            assert_eq!(
                verify(&without).err(),
                Some(Malformed::Missing(name).into())
            );
        }
        for (name, value, reason) in [
            ("nonce", json!("BwcH"), Reason::RequestMalformed),
            (
                "nonce",
                json!(STANDARD.encode([7; 65])),
                Reason::RequestMalformed,
            ),
            (
                "nonce",
                json!(NONCE.trim_end_matches('=')),
                Reason::RequestMalformed,
            ),
            ("timestamp", json!("today"), Reason::RequestMalformed),
            ("se_public_key", json!("BwcH"), Reason::KeyRejected),
            ("signature", json!("BwcH"), Reason::SignatureInvalid),
            (
                "serial_number",
                json!("SIMQ4T2W7P"),
                Reason::RequestMalformed,
            ),
            ("Nonce", json!(NONCE), Reason::RequestMalformed),
        ] {
            let mut wrong = request.clone();
            wrong[name] = value;
            let refused = verify(&wrong).expect_err(name);
            assert_eq!(refused.reason(), reason, "{name}");
        }
        let twice = request.to_string().replacen('{', "{\"nonce\":\"\",", 1);
        let refused = EnrollRequest::verify(twice.as_bytes(), SERVER, now()).err();
        assert_eq!(refused, Some(Malformed::NotAnObject.into()));
        let mut large = request;
        large["nonce"] = json!("B".repeat(5000));
        let refused = verify(&large).expect_err("too large");
        assert_eq!(refused.reason(), Reason::RequestTooLarge);
    }
}
