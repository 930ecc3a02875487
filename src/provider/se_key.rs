//! The provider's Secure Enclave key: a P-256 public key, and the text it was given in.
//!
//! The same point has two texts (64 and 65 bytes), and the text, not the point, is what nonces are
//! made of. So the text is kept as it came, and keys are told apart by their points.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::signature::{BadSignature, Signature};
use crate::reason::Reason;

/// No text longer than this is decoded; 65 bytes make 88 characters.
const LONGEST: usize = 128;

/// A SubjectPublicKeyInfo on P-256 up to the coordinates of an uncompressed point (RFC 5480 section 2).
const SPKI: [u8; 27] = *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";

/// A P-256 public key with the text it was given in: standard base64 with padding of `X‖Y` (64
/// bytes) or `04‖X‖Y` (65 bytes). The point is on the curve.
///
/// There is no equality between keys as such: compare [`SePublicKey::point`] for the key, or
/// [`SePublicKey::text`] for what is hashed.
#[derive(Clone)]
pub struct SePublicKey {
    text: String,
    point: SePoint,
    // Read once, where the point is checked anyway: a challenge has two signatures by it.
    key: Arc<ParsedPublicKey>,
}

/// A point on P-256 as `X‖Y`: what keys are indexed and compared by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SePoint([u8; 64]);

/// Why a text is no Secure Enclave key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeKeyRefusal {
    /// Other characters, no padding, white space, or bits left over.
    #[error("the key is not standard base64 with padding")]
    NotBase64,
    /// Neither 64 bytes nor 65 that begin with 04.
    #[error("the key is not a point of 64 bytes, or of 65 that begin with 04")]
    NotAPoint,
    /// Coordinates that are not those of a point.
    #[error("the point is not on P-256")]
    NotOnTheCurve,
}

impl SeKeyRefusal {
    /// Its code.
    pub fn reason(self) -> Reason {
        Reason::KeyRejected
    }
}

impl SePublicKey {
    /// Reads the text of a key.
    ///
    /// # Refusals
    /// See [`SeKeyRefusal`].
    pub fn parse(text: &str) -> Result<Self, SeKeyRefusal> {
        let point = SePoint::read(text)?;
        let mut uncompressed = [0x04; 65];
        uncompressed[1..].copy_from_slice(&point.0);
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, uncompressed)
            .map_err(|_| SeKeyRefusal::NotOnTheCurve)?;
        Ok(Self {
            text: text.to_owned(),
            point,
            key: Arc::new(key),
        })
    }

    /// Reads a DER SubjectPublicKeyInfo of an uncompressed point. Its text is then that of 64 bytes,
    /// whatever the provider gives elsewhere: compare the point.
    ///
    /// # Refusals
    /// [`SeKeyRefusal::NotAPoint`], [`SeKeyRefusal::NotOnTheCurve`].
    pub fn from_spki(der: &[u8]) -> Result<Self, SeKeyRefusal> {
        match der.strip_prefix(&SPKI) {
            Some(coordinates) if coordinates.len() == 64 => {
                Self::parse(&STANDARD.encode(coordinates))
            }
            _ => Err(SeKeyRefusal::NotAPoint),
        }
    }

    /// The key as a DER SubjectPublicKeyInfo, which is what other software reads.
    pub fn to_spki(&self) -> Vec<u8> {
        [&SPKI[..], &self.point.0].concat()
    }

    /// The text as it was given: what nonces and tokens hash.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key itself.
    pub fn point(&self) -> SePoint {
        self.point
    }

    /// Checks a signature over `message` (not its digest): ECDSA with SHA-256.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        self.key
            .verify_sig(message, signature.as_der())
            .map_err(|_| BadSignature)
    }
}

impl SePoint {
    /// The point that a text names, be it on the curve or not: enough to tell keys apart that were
    /// read before.
    ///
    /// # Refusals
    /// [`SeKeyRefusal::NotBase64`], [`SeKeyRefusal::NotAPoint`].
    pub fn read(text: &str) -> Result<Self, SeKeyRefusal> {
        if text.len() > LONGEST {
            return Err(SeKeyRefusal::NotAPoint);
        }
        let bytes = STANDARD.decode(text).map_err(|_| SeKeyRefusal::NotBase64)?;
        let coordinates = match &bytes[..] {
            [0x04, coordinates @ ..] if bytes.len() == 65 => coordinates,
            coordinates => coordinates,
        };
        let point = coordinates
            .try_into()
            .map_err(|_| SeKeyRefusal::NotAPoint)?;
        Ok(Self(point))
    }

    /// `X‖Y`.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// The text as it was given.
impl fmt::Display for SePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SePublicKey({})", self.text)
    }
}

/// The one text of the point: standard base64 of its 64 bytes.
impl fmt::Display for SePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for SePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SePoint({self})")
    }
}

impl Serialize for SePublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SePublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl utoipa::ToSchema for SePublicKey {}

impl utoipa::PartialSchema for SePublicKey {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::json::text_schema(
            "A Secure Enclave key: standard base64 of 64 bytes (X, Y) or 65 (an uncompressed point).",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_provider::{NONCE_SCHEMES, Provider};
    use super::*;
    use crate::ids::sha256;

    fn texts() -> (String, String) {
        let schemes: serde_json::Value = serde_json::from_str(NONCE_SCHEMES).expect("JSON");
        let text = |name: &str| schemes[name].as_str().expect("text").to_owned();
        (text("se_public_key"), text("se_public_key_65"))
    }

    #[test]
    fn both_texts_of_a_key_are_one_point_and_two_texts() {
        let (short, long) = texts();
        let a = SePublicKey::parse(&short).expect("64 bytes");
        let b = SePublicKey::parse(&long).expect("65 bytes");
        assert_eq!(a.point(), b.point());
        assert_eq!(a.point().to_string(), short);
        assert_eq!((a.text(), b.text()), (&*short, &*long));
        assert_eq!(b.to_string(), long);
        // What each text makes of the historic nonce.
        assert_eq!(
            [&a, &b].map(|key| hex::encode(sha256(key.text().as_bytes()))),
            [
                "421c6758c40c0cb8f28ae7bbe1dffc9e3ea60c5994e13091c6881e94ec3c8ba7",
                "494df96edf62ffd6cfcee15a3be4527f090ca81b78161acc893834e8257192ad"
            ]
        );
    }

    #[test]
    fn every_other_text_is_refused() {
        use SeKeyRefusal::{NotAPoint, NotBase64, NotOnTheCurve};
        let (short, long) = texts();
        let bytes = STANDARD.decode(&long).expect("base64");
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            STANDARD.encode(bytes)
        };
        let rows = [
            (String::new(), NotAPoint),
            (short.trim_end_matches('=').to_owned(), NotBase64),
            (format!("{short}\n"), NotBase64),
            (short.replace('+', "-").replace('/', "_"), NotBase64),
            (short.replace("Eg==", "Eh=="), NotBase64),
            (format!("{long}AAAA"), NotBase64),
            ("A".repeat(200), NotAPoint),
            (with(&|bytes| bytes.push(0)), NotAPoint),
            (with(&|bytes| bytes.truncate(33)), NotAPoint),
            (with(&|bytes| bytes[0] = 0x06), NotAPoint),
            (with(&|bytes| bytes[0] = 0x00), NotAPoint),
            (with(&|bytes| bytes[64] ^= 1), NotOnTheCurve),
            (STANDARD.encode([0; 64]), NotOnTheCurve),
            (STANDARD.encode([0xff; 64]), NotOnTheCurve),
        ];
        for (text, refusal) in rows {
            assert_eq!(SePublicKey::parse(&text).err(), Some(refusal), "{text}");
            assert_eq!(refusal.reason(), Reason::KeyRejected);
        }
    }

    #[test]
    fn a_key_goes_to_other_software_and_back() {
        let (_, long) = texts();
        let key = SePublicKey::parse(&long).expect("a key");
        let spki = key.to_spki();
        let theirs = openssl::pkey::PKey::public_key_from_der(&spki).expect("a key");
        assert_eq!(theirs.public_key_to_der().expect("DER"), spki);
        let back = SePublicKey::from_spki(&spki).expect("a key");
        assert_eq!(back.point(), key.point());
        for change in [
            &spki[1..],
            &spki[..90],
            &[&spki[..], &[0]].concat(),
            key.point().as_bytes(),
            &[&spki[..26], &[2], &spki[27..]].concat(),
            &[&spki[..90], &[spki[90] ^ 1]].concat(),
        ] {
            assert!(SePublicKey::from_spki(change).is_err());
        }
    }

    #[test]
    fn a_key_is_stored_as_its_text() {
        let (_, long) = texts();
        let key = SePublicKey::parse(&long).expect("a key");
        let stored = serde_json::to_string(&key).expect("JSON");
        assert_eq!(stored, format!("\"{long}\""));
        let back: SePublicKey = serde_json::from_str(&stored).expect("a key");
        assert_eq!((back.text(), back.point()), (key.text(), key.point()));
        assert!(serde_json::from_str::<SePublicKey>("\"AAAA\"").is_err());
    }

    #[test]
    fn a_signature_is_of_one_key_over_one_message() {
        let (ours, other) = (Provider::new(), Provider::new());
        let signature = Signature::parse(&ours.sign(b"message")).expect("a signature");
        assert_eq!(ours.key().verify(b"message", &signature), Ok(()));
        assert_eq!(ours.key().verify(b"Message", &signature), Err(BadSignature));
        assert_eq!(
            other.key().verify(b"message", &signature),
            Err(BadSignature)
        );
    }
}
