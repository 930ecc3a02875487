//! Public keys as JSON Web Keys (RFC 7517, RFC 7518 section 6), named by their thumbprints (RFC 7638).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ids::sha256;
use crate::pki::key::{KeyAlgorithm, PublicKey};
use crate::pki::tlv::{tag, whole};

/// The algorithms that results are signed by.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[schema(as = JwsAlgorithm)]
pub enum Algorithm {
    /// Attestation results.
    #[serde(rename = "ES256")]
    Es256,
    /// Security event tokens, as their interoperability profile demands.
    #[serde(rename = "RS256")]
    Rs256,
}

/// A public key that verifies signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Jwk {
    #[serde(flatten)]
    pub numbers: Numbers,
    pub alg: Algorithm,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub purpose: String,
    /// The RFC 7638 thumbprint with SHA-256.
    pub kid: String,
}

/// The numbers of a key, base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = KeyNumbers)]
#[serde(tag = "kty")]
pub enum Numbers {
    #[serde(rename = "EC")]
    Ec { crv: String, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

impl Algorithm {
    /// Its name in headers and key sets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Es256, Self::Rs256]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == word)
    }
}

impl Jwk {
    /// The key set entry of a DER SubjectPublicKeyInfo; `None` unless it is P-256 or RSA.
    pub fn of(spki: &[u8]) -> Option<Self> {
        let key = PublicKey::parse(spki).ok()?;
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (numbers, alg) = match key.algorithm() {
            KeyAlgorithm::P256 => {
                let point = key.bits().strip_prefix(&[0x04])?;
                let (x, y) = point.split_at_checked(32)?;
                let (x, y) = (text(x), text(y));
                let crv = "P-256".to_owned();
                (Numbers::Ec { crv, x, y }, Algorithm::Es256)
            }
            KeyAlgorithm::Rsa { .. } => {
                let (n, e) = rsa_numbers(key.bits())?;
                let (n, e) = (text(n), text(e));
                (Numbers::Rsa { n, e }, Algorithm::Rs256)
            }
            KeyAlgorithm::P384 => return None,
        };
        let kid = numbers.thumbprint();
        Some(Self {
            numbers,
            alg,
            purpose: "sig".to_owned(),
            kid,
        })
    }
}

impl Numbers {
    /// A point of P-256, uncompressed; `None` for every other key.
    pub fn point(&self) -> Option<[u8; 65]> {
        let Self::Ec { crv, x, y } = self else {
            return None;
        };
        let number =
            |text: &str| -> Option<[u8; 32]> { URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok() };
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&number(x)?);
        point[33..].copy_from_slice(&number(y)?);
        (crv == "P-256").then_some(point)
    }

    /// RFC 7638: SHA-256 over the required members in the order of their names, without white space.
    fn thumbprint(&self) -> String {
        let canonical = match self {
            Self::Ec { crv, x, y } => {
                format!("{{\"crv\":\"{crv}\",\"kty\":\"EC\",\"x\":\"{x}\",\"y\":\"{y}\"}}")
            }
            Self::Rsa { n, e } => format!("{{\"e\":\"{e}\",\"kty\":\"RSA\",\"n\":\"{n}\"}}"),
        };
        URL_SAFE_NO_PAD.encode(sha256(canonical.as_bytes()))
    }
}

/// RSAPublicKey (RFC 8017 appendix A.1.1), without the zero that keeps a number positive.
fn rsa_numbers(bits: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut inside = whole(bits, tag::SEQUENCE).ok()?.inside();
    let (n, e) = (inside.integer().ok()?, inside.integer().ok()?);
    Some((
        n.strip_prefix(&[0]).unwrap_or(n),
        e.strip_prefix(&[0]).unwrap_or(e),
    ))
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use serde_json::json;

    use super::*;

    /// RFC 7638 section 3.1.
    #[test]
    fn the_thumbprint_of_the_standard() {
        let numbers = Numbers::Rsa {
            n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw".to_owned(),
            e: "AQAB".to_owned(),
        };
        assert_eq!(
            numbers.thumbprint(),
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
        );
    }

    #[test]
    fn keys_are_read_from_what_openssl_writes() {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let ec = EcKey::generate(&group).expect("a key");
        let spki = PKey::from_ec_key(ec).and_then(|key| key.public_key_to_der());
        let jwk = Jwk::of(&spki.expect("der")).expect("a JWK");
        assert_eq!(jwk.alg, Algorithm::Es256);
        let shown = serde_json::to_value(&jwk).expect("JSON");
        assert_eq!(
            (&shown["kty"], &shown["use"]),
            (&json!("EC"), &json!("sig"))
        );
        assert_eq!(
            serde_json::from_value::<Jwk>(shown).expect("reads back"),
            jwk
        );

        let rsa = Rsa::generate(2048).expect("a key");
        let modulus = URL_SAFE_NO_PAD.encode(rsa.n().to_vec());
        let spki = PKey::from_rsa(rsa).and_then(|key| key.public_key_to_der());
        let jwk = Jwk::of(&spki.expect("der")).expect("a JWK");
        let e = "AQAB".to_owned();
        assert_eq!(
            (jwk.alg, jwk.numbers),
            (Algorithm::Rs256, Numbers::Rsa { n: modulus, e })
        );

        let group = EcGroup::from_curve_name(Nid::SECP384R1).expect("a curve");
        let other = EcKey::generate(&group).and_then(PKey::from_ec_key);
        let spki = other.and_then(|key| key.public_key_to_der()).expect("der");
        for spki in [spki.as_slice(), b"", b"\x30\x00"] {
            assert_eq!(Jwk::of(spki), None);
        }
    }
}
