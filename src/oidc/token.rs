//! A token in compact form (RFC 7515 section 3.1), before anything of it is believed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::claims::{Bearer, Expected};
use super::key_set::{Algorithm, KeySet};
use super::refused::Refused;
use crate::json;
use crate::time::Timestamp;

/// The largest token read.
pub const MAX_TOKEN: usize = 12 * 1024;
/// The largest header read; it names a key and little else.
const MAX_HEADER: usize = 2 * 1024;

/// A token that has the form of one. Nothing in it is believed yet.
pub struct AccessToken<'a> {
    alg: Algorithm,
    kid: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

/// Whether somebody means this to be such a token: three parts. A token that this service made has one.
pub fn has_form(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> AccessToken<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`Refused`]: what shows without a key.
    pub fn parse(text: &'a str) -> Result<Self, Refused> {
        if text.len() > MAX_TOKEN {
            return Err(Refused::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refused::Malformed)?;
        if header.len() > MAX_HEADER {
            return Err(Refused::TooLong);
        }
        let header = object(header)?;
        // RFC 7515 section 4.1.11: nothing is understood here that could be critical. A key that a token brings,
        // or an address of one, is the sender's word (RFC 8725 sections 3.9 and 3.10).
        let extensions = ["crit", "b64", "jwk", "jku", "x5u", "zip", "enc"];
        if extensions.iter().any(|name| header.contains_key(*name)) {
            return Err(Refused::Extension);
        }
        if !is_of_access(header.get("typ")) {
            return Err(Refused::Type);
        }
        // RFC 7519 section 5.2: `JWT` there means that another token is inside.
        if header.contains_key("cty") {
            return Err(Refused::Type);
        }
        let alg = header.get("alg").and_then(Value::as_str);
        let alg = alg.and_then(Algorithm::from_word);
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Refused::Malformed),
        };
        Ok(Self {
            alg: alg.ok_or(Refused::Algorithm)?,
            kid,
            signed,
            signature: part(signature)?,
            claims: object(claims)?,
        })
    }

    /// Whom it is about, once the issuer's key has signed it and everything is as expected.
    ///
    /// # Errors
    /// [`Refused`]. Of a token that none of the keys signed, nothing else is said.
    pub fn verify(
        &self,
        keys: &KeySet,
        expected: &Expected,
        now: Timestamp,
    ) -> Result<Bearer, Refused> {
        let key = keys.find(self.kid.as_deref(), self.alg)?;
        key.verify(self.alg, self.signed.as_bytes(), &self.signature)?;
        Bearer::of(&self.claims, expected, now)
    }
}

/// RFC 9068 section 2.1, with the short form of RFC 7515 section 4.1.9; a provider that does not know it says `JWT`,
/// or nothing (RFC 7519 section 5.1).
fn is_of_access(typ: Option<&Value>) -> bool {
    let known = ["at+jwt", "application/at+jwt", "JWT"];
    match typ {
        None => true,
        Some(Value::String(typ)) => known.iter().any(|known| typ.eq_ignore_ascii_case(known)),
        Some(_) => false,
    }
}

/// base64url as RFC 7515 section 2 has it: no padding, no white space, no bits left over.
fn part(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed)
}

fn object(text: &str) -> Result<Map<String, Value>, Refused> {
    json::object(&part(text)?).map_err(|_| Refused::Malformed)
}

/// Without anything of it: whoever has a token may use it.
impl fmt::Debug for AccessToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("alg", &self.alg)
            .finish_non_exhaustive()
    }
}
