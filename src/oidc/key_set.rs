//! The keys of a provider: a JWK set (RFC 7517) in which only public keys count that verify signatures by an
//! algorithm of the list.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::refused::Refused;
use crate::json;

/// Most of a key set that is read.
pub const MAX_KEY_SET: usize = 256 * 1024;
/// Most keys of a set; a provider has a handful.
const MOST_KEYS: usize = 64;
/// The largest `kid` that counts.
const MAX_KID: usize = 256;
/// Octets of the modulus of an RSA key: 2,048 bits at least (RFC 7518 section 3.3), and no more than is quickly
/// verified.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The algorithms that are taken (RFC 7518, RFC 8037): asymmetric, and each of one kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

/// Keys of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    kid: Option<String>,
    /// The only algorithm it is for, where the set says so.
    alg: Option<Algorithm>,
    numbers: Numbers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Numbers {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key set that is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKeySet {
    #[error("the key set is not one JSON object without repeated names and with a list of keys")]
    Malformed,
    #[error("the key set has more than {MOST_KEYS} keys")]
    TooMany,
    #[error("the key set has no key that verifies RS256, PS256, ES256, ES384 or EdDSA")]
    NoKey,
}

impl Algorithm {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "RS256" => Self::Rs256,
            "PS256" => Self::Ps256,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 section 2.2 names the curve in the algorithm; either word is this one here.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used here are passed over (RFC 7517 section 5).
    ///
    /// # Errors
    /// [`UnusableKeySet`].
    pub fn parse(text: &[u8]) -> Result<Self, UnusableKeySet> {
        let set = json::object(text).map_err(|_| UnusableKeySet::Malformed)?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(UnusableKeySet::Malformed);
        };
        if keys.len() > MOST_KEYS {
            return Err(UnusableKeySet::TooMany);
        }
        let keys: Vec<_> = keys
            .iter()
            .filter_map(Value::as_object)
            .filter_map(Key::read)
            .collect();
        match keys.is_empty() {
            true => Err(UnusableKeySet::NoKey),
            false => Ok(Self(keys)),
        }
    }

    /// How many keys count.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one key that this may be signed by.
    pub(super) fn find(&self, kid: Option<&str>, alg: Algorithm) -> Result<&Key, Refused> {
        let named = self.0.iter().filter(|key| match kid {
            Some(kid) => key.kid.as_deref() == Some(kid),
            None => true,
        });
        let named: Vec<_> = named.collect();
        let mut fitting = named.iter().filter(|key| key.fits(alg));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(Refused::NoKeyId),
            (None, _) if named.is_empty() => Err(Refused::UnknownKey),
            (None, _) => Err(Refused::KeyMismatch),
        }
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let octets = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        // A private key that was published is a private key no more.
        if jwk.contains_key("d") || jwk.contains_key("k") {
            return None;
        }
        if jwk.get("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops") {
            let mut operations = operations.as_array()?.iter();
            operations.find(|operation| *operation == "verify")?;
        }
        let alg = match jwk.get("alg") {
            None => None,
            Some(alg) => Some(Algorithm::from_word(alg.as_str()?)?),
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= MAX_KID => Some(kid.clone()),
            Some(_) => return None,
        };
        let point = |length: usize| {
            let (x, y) = (octets("x")?, octets("y")?);
            let is_whole = x.len() == length && y.len() == length;
            is_whole.then(|| [&[4], x.as_slice(), y.as_slice()].concat())
        };
        let numbers = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (octets("n")?, octets("e")?);
                // RFC 7518 section 6.3.1: as few octets as it takes.
                let is_fine = MODULUS.contains(&n.len()) && n.first() != Some(&0);
                let odd = e.last().is_some_and(|last| last % 2 == 1) && e != [1];
                (is_fine && odd && e.len() <= 4).then_some(Numbers::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => {
                let point = point(32)?;
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()?;
                Numbers::P256(point)
            }
            ("EC", Some("P-384")) => {
                let point = point(48)?;
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &point).ok()?;
                Numbers::P384(point)
            }
            ("OKP", Some("Ed25519")) => {
                let point = octets("x").filter(|x| x.len() == 32)?;
                ParsedPublicKey::new(&ED25519, &point).ok()?;
                Numbers::Ed25519(point)
            }
            _ => return None,
        };
        let key = Self { kid, alg, numbers };
        let is_whole = alg.is_none_or(|alg| key.fits(alg));
        is_whole.then_some(key)
    }

    fn fits(&self, alg: Algorithm) -> bool {
        let of_kind = match (&self.numbers, alg) {
            (Numbers::Rsa { .. }, Algorithm::Rs256 | Algorithm::Ps256)
            | (Numbers::P256(_), Algorithm::Es256)
            | (Numbers::P384(_), Algorithm::Es384)
            | (Numbers::Ed25519(_), Algorithm::EdDsa) => true,
            (
                Numbers::Rsa { .. } | Numbers::P256(_) | Numbers::P384(_) | Numbers::Ed25519(_),
                _,
            ) => false,
        };
        of_kind && self.alg.is_none_or(|only| only == alg)
    }

    pub(super) fn verify(
        &self,
        alg: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Refused> {
        let verified =
            match (&self.numbers, alg) {
                (Numbers::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                    .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature),
                (Numbers::Rsa { n, e }, Algorithm::Ps256) => RsaPublicKeyComponents { n, e }
                    .verify(&RSA_PSS_2048_8192_SHA256, signed, signature),
                (Numbers::P256(point), Algorithm::Es256) => {
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(signed, signature)
                }
                (Numbers::P384(point), Algorithm::Es384) => {
                    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                        .verify(signed, signature)
                }
                (Numbers::Ed25519(point), Algorithm::EdDsa) => {
                    UnparsedPublicKey::new(&ED25519, point).verify(signed, signature)
                }
                (
                    Numbers::Rsa { .. } | Numbers::P256(_) | Numbers::P384(_) | Numbers::Ed25519(_),
                    _,
                ) => return Err(Refused::KeyMismatch),
            };
        verified.map_err(|_| Refused::Signature)
    }
}
