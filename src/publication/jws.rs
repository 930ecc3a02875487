//! Signed tokens: JSON Web Signatures in compact form (RFC 7515), written here, read by `verify`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::jwk::Algorithm;
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
