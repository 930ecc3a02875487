//! The attestation object that a Mac answers a challenge with, and what makes it acceptable.
//!
//! A CBOR map of `fmt` ("apple") and `attStmt`, which holds `x5c`: leaf and intermediate, and
//! nothing besides (apple-protocol 7.2). It differs from a DeviceInformation attestation in two
//! things: the freshness code is SHA-256 of the token's text, and the key in the leaf is the one
//! that a certificate is wanted for.

use subtle::ConstantTimeEq;

use super::attested::AttestedKey;
use super::cbor::{CborFault, Reader};
use super::token::TokenInputs;
use crate::attestation::{self, Anchors, Evidence, VerifiedEvidence};
use crate::ids::{SerialNumber, sha256};
use crate::pki::{KeyAlgorithm, KnownIntermediates, PublicKey};
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest attestation object read: two certificates of the largest size, and what is around
/// them.
const MAX_OBJECT: usize = 20 * 1024;

/// More certificates are not even listed.
const MAX_CERTIFICATES: usize = 4;

/// An attestation object that has its form. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationObject {
    evidence: Evidence,
}

/// Why an attestation object is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatementRefusal {
    /// No attObj, or an empty x5c: what Apple's client sends when it got no attestation.
    #[error("the Mac brought no attestation")]
    Missing,
    #[error("attObj is not base64url without padding")]
    Encoding,
    #[error("it is larger than {MAX_OBJECT} bytes")]
    TooLarge,
    #[error("its CBOR is not as it must be: {0}")]
    Cbor(#[from] CborFault),
    /// A member too many, too few, or out of order.
    #[error("its members are not exactly fmt and attStmt with x5c")]
    Members,
    #[error("its format is not \"apple\"")]
    Format,
    #[error("x5c must hold leaf and intermediate, and holds {0} certificates")]
    Length(usize),
    #[error("{0}")]
    Chain(#[from] attestation::Refusal),
    #[error("the leaf has no freshness code")]
    FreshnessAbsent,
    #[error("the freshness code is not SHA-256 of this challenge's token")]
    FreshnessOther,
    #[error("the leaf states no serial number")]
    SerialAbsent,
    #[error("the attestation is about another serial number")]
    SerialOther,
    #[error("the attested key is not on P-256 or P-384")]
    Key,
}

/// The challenge that an attestation must answer.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// Its token, as text.
    pub token: &'a str,
    /// What the token was made of.
    pub inputs: &'a TokenInputs,
    /// When it was minted.
    pub minted_at: Timestamp,
    /// The serial number the profile was made for; without one, any that Apple states.
    pub serial: Option<&'a SerialNumber>,
}

impl StatementRefusal {
    /// The stable codes, cause first.
    pub fn reasons(&self) -> Vec<Reason> {
        match self {
            Self::Missing => vec![Reason::AttestationUnavailable, Reason::ChainInvalid],
            Self::Encoding | Self::TooLarge | Self::Cbor(_) | Self::Members | Self::Format => {
                vec![Reason::AnswerMalformed]
            }
            Self::Length(_) => vec![Reason::ChainInvalid],
            Self::Chain(refusal) => vec![refusal.reason()],
            Self::FreshnessAbsent => vec![Reason::FieldMissing, Reason::NonceUnrecognized],
            Self::FreshnessOther => vec![Reason::NonceUnrecognized],
            Self::SerialAbsent => vec![Reason::FieldMissing, Reason::SerialMismatch],
            Self::SerialOther => vec![Reason::SerialMismatch],
            Self::Key => vec![Reason::KeyRejected],
        }
    }

    /// The cause.
    pub fn reason(&self) -> Reason {
        self.reasons()[0]
    }
}

impl AttestationObject {
    /// Reads an attestation object.
    ///
    /// # Refusals
    /// Anything but the one form: another member, another order, another format, trailing bytes.
    /// Whether it holds the right certificates is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementRefusal> {
        if bytes.len() > MAX_OBJECT {
            return Err(StatementRefusal::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        if reader.map()? != 2 || reader.text()? != "fmt" {
            return Err(StatementRefusal::Members);
        }
        if reader.text()? != "apple" {
            return Err(StatementRefusal::Format);
        }
        if reader.text()? != "attStmt" || reader.map()? != 1 || reader.text()? != "x5c" {
            return Err(StatementRefusal::Members);
        }
        let length = reader.array()?;
        if length > MAX_CERTIFICATES {
            return Err(StatementRefusal::Length(length));
        }
        let mut certificates = Vec::with_capacity(length);
        for _ in 0..length {
            certificates.push(reader.bytes()?.to_vec());
        }
        reader.finish()?;
        Ok(Self {
            evidence: Evidence { certificates },
        })
    }

    /// The certificates, leaf first, as they came.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Verifies that Apple made the statement. Whether it answers a challenge: [`answers`].
    ///
    /// # Refusals
    /// [`StatementRefusal::Missing`] when there are no certificates, `Length` when there are not
    /// two (a root is not dropped here, as in a DeviceInformation reply), `Chain`.
    pub fn verify(
        &self,
        anchors: &Anchors,
        known: &KnownIntermediates,
        now: Timestamp,
    ) -> Result<VerifiedEvidence, StatementRefusal> {
        match self.evidence.certificates.len() {
            0 => Err(StatementRefusal::Missing),
            2 => Ok(attestation::verify(&self.evidence, anchors, known, now)?),
            other => Err(StatementRefusal::Length(other)),
        }
    }
}

/// Whether a statement was made for the challenge with this token.
pub fn answers(verified: &VerifiedEvidence, token: &str) -> Result<(), StatementRefusal> {
    let expected = sha256(token.as_bytes());
    match verified.freshness_code(expected.len()) {
        None => Err(StatementRefusal::FreshnessAbsent),
        Some(code) if code.ct_eq(&expected).into() => Ok(()),
        Some(_) => Err(StatementRefusal::FreshnessOther),
    }
}

/// The attested key, when it is of a kind that a Secure Enclave has (apple-protocol 1.4).
pub fn attested_key(verified: &VerifiedEvidence) -> Result<PublicKey<'_>, StatementRefusal> {
    match PublicKey::parse(verified.key()) {
        Ok(key) if matches!(key.algorithm(), KeyAlgorithm::P256 | KeyAlgorithm::P384) => Ok(key),
        _ => Err(StatementRefusal::Key),
    }
}

/// Whether `key` is the attested one: same kind, same point.
pub fn is_attested(key: &PublicKey<'_>, attested: &PublicKey<'_>) -> bool {
    key.algorithm() == attested.algorithm() && key.bits() == attested.bits()
}

/// The serial number a statement is about, when it may be the one.
pub fn serial<'a>(
    verified: &'a VerifiedEvidence,
    expected: Option<&SerialNumber>,
) -> Result<&'a SerialNumber, StatementRefusal> {
    let stated = verified.statement().serial.as_ref();
    let stated = stated.ok_or(StatementRefusal::SerialAbsent)?;
    match expected {
        Some(expected) if expected != stated => Err(StatementRefusal::SerialOther),
        _ => Ok(stated),
    }
}

/// Everything that makes an answer to a challenge acceptable, the chain first.
pub fn judge(
    object: &[u8],
    challenge: &Challenge<'_>,
    anchors: &Anchors,
    known: &KnownIntermediates,
    now: Timestamp,
) -> Result<AttestedKey, StatementRefusal> {
    let object = AttestationObject::parse(object)?;
    let verified = object.verify(anchors, known, now)?;
    answers(&verified, challenge.token)?;
    let serial = serial(&verified, challenge.serial)?.clone();
    let spki = attested_key(&verified)?.spki().to_vec();
    let [leaf, intermediate] = <[Vec<u8>; 2]>::try_from(object.evidence.certificates)
        .map_err(|others| StatementRefusal::Length(others.len()))?;
    Ok(AttestedKey {
        serial,
        spki,
        statement: verified.statement().clone(),
        anchor: verified.anchor(),
        token: challenge.inputs.clone(),
        minted_at: challenge.minted_at,
        verified_at: now,
        not_after: verified.not_after(),
        leaf,
        intermediate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = include_bytes!("../../tests/fixtures/acme/acme-attobj-good.cbor");

    /// An object of these parts, written as they are.
    fn parsed(parts: &[&[u8]]) -> Result<usize, StatementRefusal> {
        AttestationObject::parse(&parts.concat()).map(|object| object.evidence.certificates.len())
    }

    #[test]
    fn the_one_form_is_read_with_any_few_certificates() {
        let object = AttestationObject::parse(GOOD).expect("of the form");
        let lengths: Vec<_> = object
            .evidence()
            .certificates
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(lengths, [865, 615]);
        let head = b"\xa2\x63fmt\x65apple\x67attStmt\xa1\x63x5c";
        assert_eq!(parsed(&[head, b"\x80"]), Ok(0));
        assert_eq!(parsed(&[head, b"\x81\x40"]), Ok(1));
        assert_eq!(parsed(&[head, b"\x84\x41\0\x41\0\x41\0\x41\0"]), Ok(4));
        let many = parsed(&[head, b"\x85\x41\0\x41\0\x41\0\x41\0\x41\0"]);
        assert_eq!(many, Err(StatementRefusal::Length(5)));
    }

    #[test]
    fn no_other_members_order_format_or_spelling() {
        use CborFault as Fault;
        use StatementRefusal as Refused;
        let (fmt, statement) = (&b"\x63fmt\x65apple"[..], &b"\x67attStmt\xa1\x63x5c\x80"[..]);
        assert_eq!(parsed(&[b"\xa2", fmt, statement]), Ok(0));
        for (what, parts, refusal) in [
            ("nothing", vec![], Refused::Cbor(Fault::Truncated)),
            (
                "no map",
                vec![&b"\x82"[..], fmt, statement],
                Refused::Cbor(Fault::Type),
            ),
            ("fmt alone", vec![b"\xa1", fmt], Refused::Members),
            (
                "fmt twice",
                vec![b"\xa3", fmt, fmt, statement],
                Refused::Members,
            ),
            ("fmt for attStmt", vec![b"\xa2", fmt, fmt], Refused::Members),
            (
                "attStmt twice",
                vec![b"\xa3", fmt, statement, statement],
                Refused::Members,
            ),
            (
                "authData",
                vec![b"\xa3", fmt, statement, b"\x68authData\x40"],
                Refused::Members,
            ),
            (
                "the other order",
                vec![b"\xa2", statement, fmt],
                Refused::Members,
            ),
            (
                "packed",
                vec![b"\xa2\x63fmt\x66packed", statement],
                Refused::Format,
            ),
            (
                "Apple",
                vec![b"\xa2\x63fmt\x65Apple", statement],
                Refused::Format,
            ),
            (
                "a number",
                vec![b"\xa2\x63fmt\x01", statement],
                Refused::Cbor(Fault::Type),
            ),
            (
                "fmt as bytes",
                vec![b"\xa2\x43fmt\x65apple", statement],
                Refused::Cbor(Fault::Type),
            ),
            (
                "no x5c",
                vec![b"\xa2", fmt, b"\x67attStmt\xa0"],
                Refused::Members,
            ),
            (
                "alg",
                vec![b"\xa2", fmt, b"\x67attStmt\xa2\x63alg\x26\x63x5c\x80"],
                Refused::Members,
            ),
            (
                "x5c twice",
                vec![b"\xa2", fmt, b"\x67attStmt\xa2\x63x5c\x80\x63x5c\x80"],
                Refused::Members,
            ),
            (
                "x5c of text",
                vec![b"\xa2", fmt, b"\x67attStmt\xa1\x63x5c\x81\x61a"],
                Refused::Cbor(Fault::Type),
            ),
            (
                "x5c no array",
                vec![b"\xa2", fmt, b"\x67attStmt\xa1\x63x5c\x40"],
                Refused::Cbor(Fault::Type),
            ),
            (
                "indefinite map",
                vec![b"\xbf", fmt, statement, b"\xff"],
                Refused::Cbor(Fault::Length),
            ),
            (
                "indefinite x5c",
                vec![b"\xa2", fmt, b"\x67attStmt\xa1\x63x5c\x9f\xff"],
                Refused::Cbor(Fault::Length),
            ),
            (
                "long form",
                vec![b"\xb8\x02", fmt, statement],
                Refused::Cbor(Fault::Length),
            ),
            (
                "a tag",
                vec![b"\xd9\xd9\xf7\xa2", fmt, statement],
                Refused::Cbor(Fault::Type),
            ),
            (
                "cut",
                vec![b"\xa2", fmt, &statement[..5]],
                Refused::Cbor(Fault::Truncated),
            ),
            (
                "trailing",
                vec![b"\xa2", fmt, statement, b"\0"],
                Refused::Cbor(Fault::Trailing),
            ),
        ] {
            assert_eq!(parsed(&parts), Err(refusal), "{what}");
            assert_eq!(refusal.reasons(), [Reason::AnswerMalformed], "{what}");
        }
        let large = [GOOD, &vec![0; MAX_OBJECT]].concat();
        assert_eq!(parsed(&[&large]), Err(Refused::TooLarge));
    }

    #[test]
    fn no_cut_object_is_read_and_no_bytes_make_it_panic() {
        for length in 0..GOOD.len() {
            assert!(
                AttestationObject::parse(&GOOD[..length]).is_err(),
                "{length}"
            );
        }
        for index in 0..GOOD.len() {
            let mut other = GOOD.to_vec();
            other[index] ^= 0xff;
            let _ = AttestationObject::parse(&other);
        }
    }
}
