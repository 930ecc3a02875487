//! Signed tokens: JSON Web Signatures in compact form (RFC 7515).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};

use super::jwk::{Algorithm, Jwk};
use crate::json;
use crate::pki::Signer;
use crate::pki::key::KeyFailure;
use crate::pki::tlv::{tag, whole};

/// Octets of each number of a P-256 signature.
const HALF: usize = 32;

#[derive(Serialize)]
struct Header<'a> {
    alg: Algorithm,
    kid: &'a str,
    typ: &'a str,
}

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("the payload cannot be written as JSON")]
    Payload,
    #[error("the key does not sign")]
    Key(#[from] KeyFailure),
    /// Another kind of key than the algorithm is of.
    #[error("the signature has another form than its algorithm says")]
    Form,
}

/// The payload as a token of this type, signed.
///
/// # Errors
/// See [`Unsigned`].
pub fn compact(
    payload: &impl Serialize,
    typ: &str,
    kid: &str,
    alg: Algorithm,
    signer: &dyn Signer,
) -> Result<String, Unsigned> {
    let header = serde_json::to_vec(&Header { alg, kid, typ }).map_err(|_| Unsigned::Payload)?;
    let payload = serde_json::to_vec(payload).map_err(|_| Unsigned::Payload)?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = signer.sign(token.as_bytes())?;
    let signature = match alg {
        Algorithm::Es256 => fixed(&signature).ok_or(Unsigned::Form)?.to_vec(),
        Algorithm::Rs256 => signature,
    };
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// A token that has the form of one. Its signature is not verified yet.
#[derive(Debug)]
pub struct Token {
    pub kid: String,
    pub payload: Map<String, Value>,
    signed: String,
    signature: Vec<u8>,
}

/// Why a token is none, or is not this key's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the token is not three parts of base64url, the first two one JSON object each")]
    Form,
    #[error("the token is of another type, or by another algorithm than ES256")]
    Kind,
    /// RFC 7515 section 4.1.11: nothing is understood here that could be critical.
    #[error("the token has a critical extension")]
    Critical,
    #[error("the token names no key")]
    NoKey,
    #[error("the signature of the token does not verify")]
    Signature,
}

impl Token {
    /// Reads a token of this type, signed by ES256: the only algorithm that is taken.
    ///
    /// # Errors
    /// See [`TokenRefusal`].
    pub fn parse(text: &str, typ: &str) -> Result<Self, TokenRefusal> {
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenRefusal::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenRefusal::Form)?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenRefusal::Form);
        let object = |text: &str| json::object(&part(text)?).map_err(|_| TokenRefusal::Form);
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(TokenRefusal::Critical);
        }
        let says = |name: &str| header.get(name).and_then(Value::as_str);
        if says("typ") != Some(typ) || says("alg") != Some(Algorithm::Es256.as_str()) {
            return Err(TokenRefusal::Kind);
        }
        Ok(Self {
            kid: says("kid").ok_or(TokenRefusal::NoKey)?.to_owned(),
            payload: object(payload)?,
            signed: signed.to_owned(),
            signature: part(signature)?,
        })
    }

    /// Whether this key signed it.
    ///
    /// # Errors
    /// [`TokenRefusal::Signature`], also for a key of another kind.
    pub fn verify(&self, key: &Jwk) -> Result<(), TokenRefusal> {
        let point = key.numbers.point().ok_or(TokenRefusal::Signature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| TokenRefusal::Signature)
    }
}

/// RFC 7518 section 3.4: both numbers, 32 octets each, from the SEQUENCE of two INTEGERs.
fn fixed(der: &[u8]) -> Option<[u8; 2 * HALF]> {
    let mut inside = whole(der, tag::SEQUENCE).ok()?.inside();
    let mut both = [0; 2 * HALF];
    for half in both.chunks_exact_mut(HALF) {
        let number = inside.integer().ok()?;
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        let at = HALF.checked_sub(number.len())?;
        half[at..].copy_from_slice(number);
    }
    inside.finish().ok()?;
    Some(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_are_padded() {
        let der = |r: &[u8], s: &[u8]| {
            let number = |n: &[u8]| [&[2, n.len() as u8], n].concat();
            let both = [number(r), number(s)].concat();
            [&[0x30, both.len() as u8], both.as_slice()].concat()
        };
        let (long, short) = ([[0].as_slice(), &[0xff; 32]].concat(), vec![7]);
        let signature = fixed(&der(&long, &short)).expect("two numbers");
        assert_eq!(signature[..32], [0xff; 32]);
        assert_eq!((signature[62], signature[63]), (0, 7));
        let too_long = [[1].as_slice(), &[0xff; 32]].concat();
        let three = [&[0x30, 9], [2_u8, 1, 7].repeat(3).as_slice()].concat();
        for bad in [&der(&too_long, &short)[..], &three, &[0x30, 0], &[]] {
            assert_eq!(fixed(bad), None);
        }
    }
}
