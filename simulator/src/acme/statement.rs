//! What answers the challenge: Apple's attestation object (apple-protocol 7.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::apple::Chain;

/// A Mac's answer to a device-attest-01 challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChallengeAnswer {
    /// The payload asks for no attestation.
    Unattested,
    /// Apple's leaf over the identity's key, with its intermediate.
    Attested(Chain),
    /// Apple gave none: the reason goes along with an empty chain.
    Failed(String),
}

impl ChallengeAnswer {
    /// The JWS payload.
    pub fn payload(&self) -> String {
        let encoded = |chain: &[&[u8]]| URL_SAFE_NO_PAD.encode(attestation_object(chain));
        match self {
            Self::Unattested => json!({}),
            Self::Attested(chain) => {
                json!({ "attObj": encoded(&[&chain.leaf, &chain.intermediate]) })
            }
            Self::Failed(why) => json!({ "attObj": encoded(&[]), "error": why }),
        }
        .to_string()
    }
}

/// The freshness Apple puts into the leaf for this token: its SHA-256, no key authorization
/// (apple-protocol 6.5).
pub fn freshness(token: &str) -> [u8; 32] {
    openssl::sha::sha256(token.as_bytes())
}

/// CBOR `{"fmt": "apple", "attStmt": {"x5c": [certificate, …]}}`, in this order.
pub fn attestation_object(chain: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, MAP, 2);
    text(&mut out, "fmt");
    text(&mut out, "apple");
    text(&mut out, "attStmt");
    head(&mut out, MAP, 1);
    text(&mut out, "x5c");
    head(&mut out, ARRAY, chain.len());
    for certificate in chain {
        head(&mut out, BYTES, certificate.len());
        out.extend_from_slice(certificate);
    }
    out
}

// Major types (RFC 8949 3.1), already in the upper three bits.
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

fn text(out: &mut Vec<u8>, value: &str) {
    head(out, TEXT, value.len());
    out.extend_from_slice(value.as_bytes());
}

/// The initial byte and the argument in its shortest form (RFC 8949 4.2.1).
fn head(out: &mut Vec<u8>, major: u8, argument: usize) {
    if let Ok(byte) = u8::try_from(argument) {
        if byte < 24 {
            out.push(major | byte);
        } else {
            out.extend([major | 24, byte]);
        }
    } else if let Ok(two) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend(two.to_be_bytes());
    } else if let Ok(four) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend(four.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend((argument as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use openssl::x509::X509;

    use super::*;

    fn der(pem: &[u8]) -> Vec<u8> {
        X509::from_pem(pem).unwrap().to_der().unwrap()
    }

    #[test]
    fn the_objects_are_the_fixtures_bytes() {
        let empty = include_bytes!("../../fixtures/acme-attobj-empty-x5c.cbor");
        assert_eq!(attestation_object(&[]), empty);
        let good = include_bytes!("../../fixtures/acme-attobj-good.cbor");
        let leaf = der(include_bytes!("../../fixtures/sim-acme-attest-leaf.pem"));
        let intermediate = der(include_bytes!("../../fixtures/sim-mda-subca1.pem"));
        assert_eq!(attestation_object(&[&leaf, &intermediate]), good);
    }

    #[test]
    fn a_failure_is_told_beside_an_empty_chain() {
        assert_eq!(ChallengeAnswer::Unattested.payload(), "{}");
        assert_eq!(
            ChallengeAnswer::Failed("no way to Apple".into()).payload(),
            r#"{"attObj":"omNmbXRlYXBwbGVnYXR0U3RtdKFjeDVjgA","error":"no way to Apple"}"#
        );
    }

    #[test]
    fn arguments_take_their_shortest_form() {
        for (length, expected) in [
            (23, &[0x57][..]),
            (24, &[0x58, 24]),
            (256, &[0x59, 1, 0]),
            (65_536, &[0x5a, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            head(&mut out, BYTES, length);
            assert_eq!(out, expected, "{length}");
        }
    }
}
