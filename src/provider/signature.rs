//! Signatures of the provider's Secure Enclave key: ECDSA on P-256 with SHA-256, as standard base64
//! with padding of strict DER.
//!
//! Both halves of the range of `s` are taken: CryptoKit does not normalise, and half of all honest
//! signatures have a high `s`. What is refused is another spelling of the same pair of numbers,
//! which a lenient reader would take (Go's ignores bytes after the DER).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki::tlv::{DerFault, tag, whole};
use crate::reason::Reason;

/// No text longer than this is decoded; a SEQUENCE of two INTEGERs of 33 bytes has 72 bytes, which
/// make 96 characters.
const LONGEST: usize = 128;

/// A signature that has the form of one. Whose it is, and over what, is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

/// Why a text is no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureRefusal {
    /// Longer than any signature by a P-256 key.
    #[error("the signature is too long")]
    TooLong,
    /// Other characters, no padding, white space, or bits left over.
    #[error("the signature is not standard base64 with padding")]
    NotBase64,
    /// Trailing bytes, negative or padded integers, a length not in its shortest form.
    #[error("the signature is not DER: {0}")]
    NotDer(DerFault),
}

/// The signature is not this key's over this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

impl SignatureRefusal {
    /// Its code: whatever is wrong with it, it proves nothing.
    pub fn reason(self) -> Reason {
        Reason::SignatureInvalid
    }
}

impl BadSignature {
    /// Its code.
    pub fn reason(self) -> Reason {
        Reason::SignatureInvalid
    }
}

impl Signature {
    /// Reads the text of a signature.
    ///
    /// # Refusals
    /// See [`SignatureRefusal`].
    pub fn parse(text: &str) -> Result<Self, SignatureRefusal> {
        if text.len() > LONGEST {
            return Err(SignatureRefusal::TooLong);
        }
        let der = STANDARD
            .decode(text)
            .map_err(|_| SignatureRefusal::NotBase64)?;
        is_pair(&der).map_err(SignatureRefusal::NotDer)?;
        Ok(Self(der))
    }

    /// The DER of it.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

/// RFC 3279 section 2.2.3: a SEQUENCE of two positive INTEGERs.
fn is_pair(der: &[u8]) -> Result<(), DerFault> {
    let mut pair = whole(der, tag::SEQUENCE)?.inside();
    for _ in 0..2 {
        if pair.integer()?[0] & 0x80 != 0 {
            return Err(DerFault::Value);
        }
    }
    pair.finish()
}

#[cfg(test)]
mod tests {
    use openssl::bn::BigNum;
    use openssl::ecdsa::EcdsaSig;

    use super::super::test_provider::Provider;
    use super::*;

    /// The order of P-256, FIPS 186-4 D.1.2.3.
    const ORDER: &str = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";

    fn der(provider: &Provider) -> Vec<u8> {
        STANDARD.decode(provider.sign(b"message")).expect("base64")
    }

    #[test]
    fn both_halves_of_s_are_taken() {
        let provider = Provider::new();
        let signed = EcdsaSig::from_der(&der(&provider)).expect("a pair");
        let order = BigNum::from_hex_str(ORDER).expect("a number");
        let mut other = BigNum::new().expect("a number");
        other.checked_sub(&order, signed.s()).expect("a number");
        let r = signed.r().to_owned().expect("a number");
        let mirrored = EcdsaSig::from_private_components(r, other).expect("a pair");
        // One of the two has the high s.
        for der in [signed, mirrored].map(|pair| pair.to_der().expect("DER")) {
            let signature = Signature::parse(&STANDARD.encode(der)).expect("form");
            assert_eq!(provider.key().verify(b"message", &signature), Ok(()));
        }
    }

    #[test]
    fn another_spelling_of_a_good_signature_is_refused() {
        use SignatureRefusal::{NotBase64, NotDer, TooLong};
        let good = der(&Provider::new());
        let text = STANDARD.encode(&good);
        let r = usize::from(good[3]);
        let spelled = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut der = good.clone();
            change(&mut der);
            STANDARD.encode(der)
        };
        let rows = [
            (String::new(), NotDer(DerFault::Truncated)),
            (format!("{text}="), NotBase64),
            (format!(" {text}"), NotBase64),
            (format!("{text}{}", "A".repeat(100)), TooLong),
            (spelled(&|der| der.push(0)), NotDer(DerFault::Trailing)),
            (
                spelled(&|der| {
                    der.truncate(der.len() - 1);
                }),
                NotDer(DerFault::Truncated),
            ),
            // A third element inside.
            (
                spelled(&|der| {
                    der.extend([0x05, 0x00]);
                    der[1] += 2;
                }),
                NotDer(DerFault::Trailing),
            ),
            // r with a zero in front that it does not need, or without the one it needs.
            (
                spelled(&|der| {
                    if der[4] == 0 {
                        der.remove(4);
                        der[1] -= 1;
                        der[3] -= 1;
                    } else {
                        der.insert(4, 0);
                        der[1] += 1;
                        der[3] += 1;
                    }
                }),
                NotDer(DerFault::Value),
            ),
            // A length in two bytes where one is enough.
            (
                spelled(&|der| der.insert(1, 0x81)),
                NotDer(DerFault::Length),
            ),
            (spelled(&|der| der[4 + r] = 0x04), NotDer(DerFault::Tag)),
            (spelled(&|der| der[0] = 0x31), NotDer(DerFault::Tag)),
        ];
        for (text, refusal) in rows {
            assert_eq!(Signature::parse(&text), Err(refusal), "{text}");
            assert_eq!(refusal.reason(), Reason::SignatureInvalid);
        }
    }

    #[test]
    fn numbers_out_of_range_verify_nothing() {
        let provider = Provider::new();
        for der in [
            &b"\x30\x06\x02\x01\x00\x02\x01\x00"[..],
            b"\x30\x06\x02\x01\x01\x02\x01\x00",
            b"\x30\x06\x02\x01\x01\x02\x01\x01",
        ] {
            let signature = Signature::parse(&STANDARD.encode(der)).expect("form");
            assert_eq!(
                provider.key().verify(b"message", &signature),
                Err(BadSignature)
            );
        }
    }
}
