//! The JSON Web Signature around every request (RFC 8555 section 6.2, RFC 7515).
//!
//! ES256 and nothing else: the one algorithm that a server must have, and the one Apple's client
//! signs with. Parsed first, so that what is refused for its form costs no cryptography.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::MAX_BODY;
use super::refusal::Refusal;
use crate::json;

/// The largest protected header read; Apple's has 400 bytes.
const MAX_HEADER: usize = 4 * 1024;

/// A P-256 key that signs requests: the uncompressed point, on the curve.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AccountKey([u8; 65]);

/// Who signed, as the protected header says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SignedBy {
    /// RFC 8555 section 6.2: the key itself, for newAccount.
    Key(AccountKey),
    /// The URL of an account, for everything else.
    Account(String),
}

/// A request body that has the form of a JWS. Its signature is not verified yet.
pub(super) struct Jws {
    /// What the signature covers.
    signed: String,
    signature: Vec<u8>,
    payload: Vec<u8>,
    pub(super) nonce: String,
    pub(super) url: String,
    pub(super) by: SignedBy,
}

impl Jws {
    /// Reads a body.
    ///
    /// # Refusals
    /// `malformed`, `badSignatureAlgorithm`, `badPublicKey`, and `badNonce` for a missing nonce.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > MAX_BODY {
            return Err(Refusal::TooLarge);
        }
        let mut members =
            json::object(body).map_err(|_| malformed("the body is not one JSON object"))?;
        // RFC 8555 section 6.2: flattened, one signature, no unprotected header. Other members
        // must be passed over (RFC 7515 section 7.2.2).
        if members.contains_key("signatures") {
            return Err(malformed("the JWS is not in flattened form"));
        }
        if members.contains_key("header") {
            return Err(malformed("the JWS has an unprotected header"));
        }
        let protected = string(&mut members, "protected")?;
        let payload = string(&mut members, "payload")?;
        let signature = decode(&string(&mut members, "signature")?, "signature")?;
        if protected.len() > MAX_HEADER {
            return Err(malformed("the protected header is too large"));
        }
        let header = decode(&protected, "protected")?;
        let header =
            json::object(&header).map_err(|_| malformed("the header is not one JSON object"))?;
        let (nonce, url, by) = read_header(header)?;
        Ok(Self {
            payload: decode(&payload, "payload")?,
            signed: format!("{protected}.{payload}"),
            signature,
            nonce,
            url,
            by,
        })
    }

    /// The payload, once the signature over it is this key's.
    pub(super) fn verify(self, key: &AccountKey) -> Result<Vec<u8>, Refusal> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.0)
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| Refusal::Signature)?;
        Ok(self.payload)
    }
}

fn read_header(mut header: Map<String, Value>) -> Result<(String, String, SignedBy), Refusal> {
    // RFC 7515 section 4.1.11: what is critical and not understood refuses the whole; nothing is
    // understood here that could be critical. RFC 7797's "b64" is forbidden by RFC 8555.
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(malformed("the header has a critical extension"));
    }
    if string(&mut header, "alg")? != "ES256" {
        return Err(Refusal::Algorithm);
    }
    let url = string(&mut header, "url")?;
    // RFC 8555 section 6.5: a missing nonce is an unacceptable one; one of other characters than
    // base64url's makes no JWS of this protocol.
    let nonce = match header.remove("nonce") {
        None => return Err(Refusal::Nonce),
        Some(Value::String(nonce)) if nonce.bytes().all(is_base64url) => nonce,
        Some(_) => return Err(malformed("nonce is not base64url")),
    };
    let by = match (header.remove("jwk"), header.remove("kid")) {
        (Some(Value::Object(jwk)), None) => SignedBy::Key(AccountKey::from_jwk(&jwk)?),
        (None, Some(Value::String(url))) => SignedBy::Account(url),
        (Some(_), Some(_)) => return Err(malformed("the header has both jwk and kid")),
        (None, None) => return Err(malformed("the header has neither jwk nor kid")),
        (Some(_), None) => return Err(malformed("jwk is not an object")),
        (None, Some(_)) => return Err(malformed("kid is not a string")),
    };
    Ok((nonce, url, by))
}

fn string(members: &mut Map<String, Value>, name: &'static str) -> Result<String, Refusal> {
    match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Refusal::Member(name)),
    }
}

/// base64url as RFC 7515 section 2 has it: no padding, no white space, no bits left over.
pub(super) fn decode(text: &str, name: &'static str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::Base64(name))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

fn malformed(what: &'static str) -> Refusal {
    Refusal::Malformed(what)
}

impl AccountKey {
    /// A JWK of kind EC on P-256 (RFC 7518 section 6.2.1).
    fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, Refusal> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("kty") != Some("EC") || text("crv") != Some("P-256") {
            return Err(Refusal::AccountKey("ES256 needs an EC key on P-256"));
        }
        // A private key that was sent is a private key no more.
        if jwk.contains_key("d") {
            return Err(Refusal::AccountKey("jwk holds a private key"));
        }
        let mut point = [0; 65];
        point[0] = 0x04;
        for (name, place) in [("x", 1..33), ("y", 33..65)] {
            let coordinate = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            match coordinate {
                Some(coordinate) if coordinate.len() == 32 => {
                    point[place].copy_from_slice(&coordinate);
                }
                _ => return Err(Refusal::AccountKey("a coordinate is not 32 bytes")),
            }
        }
        Self::from_point(point).ok_or(Refusal::AccountKey("the point is not on the curve"))
    }

    fn from_point(point: [u8; 65]) -> Option<Self> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?;
        Some(Self(point))
    }
}

impl Serialize for AccountKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for AccountKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let point = bytes.and_then(|bytes| <[u8; 65]>::try_from(bytes).ok());
        // It was on the curve when it was stored; verification fails if it is not.
        point
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not an account key"))
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountKey({})", URL_SAFE_NO_PAD.encode(&self.0[1..7]))
    }
}
