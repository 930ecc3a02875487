//! Public keys, and what signs and decrypts behind a trait.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA1_ASN1, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1,
    ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1,
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use const_oid::ObjectIdentifier;

use super::tlv::{Reader, tag, whole};
use super::{PkiError, oid, write};
use crate::secret::Secret;

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// Only where [`LegacyDigest::Allowed`].
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// Whether SHA-1 may stand under a signature here. Allowed for `Mdm-Signature` and SCEP requests,
/// where the one who signs is the one who chose the text; never in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyDigest {
    Refused,
    Allowed,
}

/// A signature algorithm as an AlgorithmIdentifier names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5, RFC 8017 section 8.2.
    Rsa(Digest),
    /// ECDSA with the signature as a DER SEQUENCE of two integers, RFC 5480.
    Ecdsa(Digest),
}

/// The kind of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA with a modulus of this many bits.
    Rsa {
        bits: usize,
    },
    P256,
    P384,
}

/// A public key in place: RSA of 2,048 to 8,192 bits, P-256 or P-384.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey<'a> {
    algorithm: KeyAlgorithm,
    spki: &'a [u8],
    bits: &'a [u8],
}

/// A private key that signs, wherever it is kept.
pub trait Signer: Send + Sync + fmt::Debug {
    /// The public half, as a DER SubjectPublicKeyInfo.
    fn public_key_spki(&self) -> &[u8];

    /// What [`Signer::sign`] makes.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// Signs `message` (not its digest).
    ///
    /// # Errors
    /// When the keeper of the key fails or refuses.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure>;
}

/// An RSA private key that opens what was encrypted to its certificate.
pub trait Decryptor: Send + Sync + fmt::Debug {
    /// The content key of `length` bytes that was encrypted to this key by RSAES-PKCS1-v1_5
    /// (RFC 8017 section 7.2.2). Bad padding, or a content key of another length, is not told: the
    /// answer then is a key nobody knows, the same each time for the same ciphertext, and the content
    /// does not open under it. Whoever could tell bad padding from a bad key would have a decryption
    /// oracle (RFC 3218).
    ///
    /// # Errors
    /// Only for what shows without the private key: a ciphertext of another length than the modulus,
    /// or a `length` over 32.
    fn decrypt_content_key(
        &self,
        ciphertext: &[u8],
        length: usize,
    ) -> Result<Secret<Vec<u8>>, KeyFailure>;
}

/// A private key did not do its work. Says no more, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the private key operation failed")]
pub struct KeyFailure;

impl Digest {
    /// Reads an AlgorithmIdentifier of a digest. RFC 5754 section 2: parameters absent or NULL.
    pub fn parse(algorithm: &[u8]) -> Result<Self, PkiError> {
        let (oid, parameters) = algorithm_parts(algorithm)?;
        if !matches!(parameters, None | Some([tag::NULL, 0])) {
            return Err(PkiError::UnsupportedAlgorithm);
        }
        [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|digest| digest.oid().as_bytes() == oid)
            .ok_or(PkiError::UnsupportedAlgorithm)
    }

    /// Its name in a message.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha1 => oid::SHA1,
            Self::Sha256 => oid::SHA256,
            Self::Sha384 => oid::SHA384,
            Self::Sha512 => oid::SHA512,
        }
    }

    /// Its AlgorithmIdentifier as we write it: parameters absent (RFC 5754 section 2).
    pub fn to_der(self) -> Vec<u8> {
        write::sequence(&[&write::oid(self.oid())])
    }

    /// Its name in our answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The digest of the concatenation of `parts`.
    pub fn of(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        });
        for part in parts {
            context.update(part);
        }
        context.finish()
    }
}

impl SignatureAlgorithm {
    /// Reads the AlgorithmIdentifier of a certificate, request or other X.509 signature.
    /// RSA: parameters NULL (RFC 4055 section 5); ECDSA: absent (RFC 5758 section 3.2).
    pub fn parse(algorithm: &[u8]) -> Result<Self, PkiError> {
        let (oid, parameters) = algorithm_parts(algorithm)?;
        let digests = [Digest::Sha1, Digest::Sha256, Digest::Sha384, Digest::Sha512];
        let found = digests
            .into_iter()
            .flat_map(|digest| [Self::Rsa(digest), Self::Ecdsa(digest)])
            .find(|known| known.oid().as_bytes() == oid);
        match (found, parameters) {
            (Some(Self::Rsa(digest)), Some([tag::NULL, 0])) => Ok(Self::Rsa(digest)),
            (Some(Self::Ecdsa(digest)), None) => Ok(Self::Ecdsa(digest)),
            _ => Err(PkiError::UnsupportedAlgorithm),
        }
    }

    /// The digest under the signature.
    pub fn digest(self) -> Digest {
        match self {
            Self::Rsa(digest) | Self::Ecdsa(digest) => digest,
        }
    }

    /// Its name.
    pub fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Rsa(Digest::Sha1) => oid::SHA1_WITH_RSA,
            Self::Rsa(Digest::Sha256) => oid::SHA256_WITH_RSA,
            Self::Rsa(Digest::Sha384) => oid::SHA384_WITH_RSA,
            Self::Rsa(Digest::Sha512) => oid::SHA512_WITH_RSA,
            Self::Ecdsa(Digest::Sha1) => oid::ECDSA_WITH_SHA1,
            Self::Ecdsa(Digest::Sha256) => oid::ECDSA_WITH_SHA256,
            Self::Ecdsa(Digest::Sha384) => oid::ECDSA_WITH_SHA384,
            Self::Ecdsa(Digest::Sha512) => oid::ECDSA_WITH_SHA512,
        }
    }

    /// Its AlgorithmIdentifier.
    pub fn to_der(self) -> Vec<u8> {
        match self {
            Self::Rsa(_) => write::sequence(&[&write::oid(self.oid()), &write::null()]),
            Self::Ecdsa(_) => write::sequence(&[&write::oid(self.oid())]),
        }
    }
}

impl<'a> PublicKey<'a> {
    /// Reads a SubjectPublicKeyInfo.
    pub fn parse(spki: &'a [u8]) -> Result<Self, PkiError> {
        let fault = PkiError::malformed("public key");
        let mut parts = whole(spki, tag::SEQUENCE).map_err(&fault)?.inside();
        let identifier = parts.expect(tag::SEQUENCE).map_err(&fault)?;
        let bits = parts.octets_in_bit_string().map_err(&fault)?;
        parts.finish().map_err(&fault)?;

        let (oid, parameters) = algorithm_parts(identifier.raw)?;
        let algorithm = if oid == oid::RSA_ENCRYPTION.as_bytes() {
            if parameters != Some(&[tag::NULL, 0]) {
                return Err(PkiError::UnsupportedKey);
            }
            KeyAlgorithm::Rsa {
                bits: modulus_bits(bits)?,
            }
        } else if oid == oid::EC_PUBLIC_KEY.as_bytes() {
            let curve = parameters.ok_or(PkiError::UnsupportedKey)?;
            let curve = Reader::new(curve)
                .oid()
                .map_err(|_| PkiError::UnsupportedKey)?;
            if curve == oid::SECP256R1.as_bytes() && is_point(bits, 65) {
                KeyAlgorithm::P256
            } else if curve == oid::SECP384R1.as_bytes() && is_point(bits, 97) {
                KeyAlgorithm::P384
            } else {
                return Err(PkiError::UnsupportedKey);
            }
        } else {
            return Err(PkiError::UnsupportedKey);
        };
        Ok(Self {
            algorithm,
            spki,
            bits,
        })
    }

    /// Its kind.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The SubjectPublicKeyInfo as received.
    pub fn spki(&self) -> &'a [u8] {
        self.spki
    }

    /// The contents of the BIT STRING: an RSAPublicKey, or an uncompressed point.
    pub fn bits(&self) -> &'a [u8] {
        self.bits
    }

    /// Checks a signature over `message`.
    ///
    /// # Errors
    /// [`PkiError::UnsupportedAlgorithm`] when the algorithm does not fit the key or is not accepted
    /// here; [`PkiError::BadSignature`] when the signature is not this key's over this message.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        legacy: LegacyDigest,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), PkiError> {
        match self.verification(algorithm, legacy)? {
            Verification::Library(by) => UnparsedPublicKey::new(by, self.bits)
                .verify(message, signature)
                .map_err(|_| PkiError::BadSignature),
            Verification::P384WithSha1 => {
                verify_p384_sha1(self.bits, Digest::Sha1.of(&[message]).as_ref(), signature)
            }
        }
    }

    /// As [`PublicKey::verify`], over a message that comes in parts.
    pub fn verify_parts(
        &self,
        algorithm: SignatureAlgorithm,
        legacy: LegacyDigest,
        parts: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), PkiError> {
        let digest = algorithm.digest().of(parts);
        match self.verification(algorithm, legacy)? {
            Verification::Library(by) => UnparsedPublicKey::new(by, self.bits)
                .verify_digest(&digest, signature)
                .map_err(|_| PkiError::BadSignature),
            Verification::P384WithSha1 => verify_p384_sha1(self.bits, digest.as_ref(), signature),
        }
    }

    fn verification(
        &self,
        algorithm: SignatureAlgorithm,
        legacy: LegacyDigest,
    ) -> Result<Verification, PkiError> {
        use {Digest as D, KeyAlgorithm as K, SignatureAlgorithm as S};
        if algorithm.digest() == D::Sha1 && legacy == LegacyDigest::Refused {
            return Err(PkiError::UnsupportedAlgorithm);
        }
        let by: &'static dyn VerificationAlgorithm = match (self.algorithm, algorithm) {
            (K::Rsa { .. }, S::Rsa(D::Sha1)) => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            (K::Rsa { .. }, S::Rsa(D::Sha256)) => &RSA_PKCS1_2048_8192_SHA256,
            (K::Rsa { .. }, S::Rsa(D::Sha384)) => &RSA_PKCS1_2048_8192_SHA384,
            (K::Rsa { .. }, S::Rsa(D::Sha512)) => &RSA_PKCS1_2048_8192_SHA512,
            (K::P256, S::Ecdsa(D::Sha1)) => &ECDSA_P256_SHA1_ASN1,
            (K::P256, S::Ecdsa(D::Sha256)) => &ECDSA_P256_SHA256_ASN1,
            (K::P256, S::Ecdsa(D::Sha384)) => &ECDSA_P256_SHA384_ASN1,
            (K::P256, S::Ecdsa(D::Sha512)) => &ECDSA_P256_SHA512_ASN1,
            (K::P384, S::Ecdsa(D::Sha1)) => return Ok(Verification::P384WithSha1),
            (K::P384, S::Ecdsa(D::Sha256)) => &ECDSA_P384_SHA256_ASN1,
            (K::P384, S::Ecdsa(D::Sha384)) => &ECDSA_P384_SHA384_ASN1,
            (K::P384, S::Ecdsa(D::Sha512)) => &ECDSA_P384_SHA512_ASN1,
            (K::Rsa { .. }, S::Ecdsa(_)) | (K::P256 | K::P384, S::Rsa(_)) => {
                return Err(PkiError::UnsupportedAlgorithm);
            }
        };
        Ok(Verification::Library(by))
    }
}

impl fmt::Debug for PublicKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.algorithm).finish()
    }
}

enum Verification {
    Library(&'static dyn VerificationAlgorithm),
    /// aws-lc-rs has no such pair. Apple's default digest for CMS is SHA-1 and its attested keys are
    /// P-384, so every message of a Mac with an attested identity may be signed so.
    P384WithSha1,
}

/// ECDSA reads a digest as a number (FIPS 186-5 section 6.4), and one that is shorter than the
/// curve's order is not cut: SHA-1 with zeros before it, as long as SHA-384, is the same number.
fn verify_p384_sha1(point: &[u8], digest: &[u8], signature: &[u8]) -> Result<(), PkiError> {
    let mut number = [0; digest::SHA384_OUTPUT_LEN];
    let (_, place) = number.split_at_mut(digest::SHA384_OUTPUT_LEN - digest::SHA1_OUTPUT_LEN);
    if digest.len() != place.len() {
        return Err(PkiError::BadSignature);
    }
    place.copy_from_slice(digest);
    digest::Digest::import_less_safe(&number, &digest::SHA384)
        .and_then(|number| {
            UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point).verify_digest(&number, signature)
        })
        .map_err(|_| PkiError::BadSignature)
}

/// The object identifier of an AlgorithmIdentifier and its parameters, as received.
pub(crate) fn algorithm_parts(algorithm: &[u8]) -> Result<(&[u8], Option<&[u8]>), PkiError> {
    let fault = PkiError::malformed("algorithm identifier");
    let mut parts = whole(algorithm, tag::SEQUENCE).map_err(&fault)?.inside();
    let oid = parts.oid().map_err(&fault)?;
    let parameters = if parts.is_empty() {
        None
    } else {
        Some(parts.any().map_err(&fault)?.raw)
    };
    parts.finish().map_err(&fault)?;
    Ok((oid, parameters))
}

/// The size of an RSAPublicKey's modulus (RFC 8017 appendix A.1.1), within the accepted range.
fn modulus_bits(rsa_public_key: &[u8]) -> Result<usize, PkiError> {
    let fault = PkiError::malformed("RSA public key");
    let mut numbers = whole(rsa_public_key, tag::SEQUENCE)
        .map_err(&fault)?
        .inside();
    let modulus = numbers.integer().map_err(&fault)?;
    let exponent = numbers.integer().map_err(&fault)?;
    numbers.finish().map_err(&fault)?;
    let magnitude = match modulus {
        [0, magnitude @ ..] => magnitude,
        [first, ..] if first & 0x80 != 0 => return Err(PkiError::UnsupportedKey),
        magnitude => magnitude,
    };
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let at_least_three = exponent.len() > 1 || exponent.first().is_some_and(|only| *only >= 3);
    let positive = exponent.first().is_some_and(|first| first & 0x80 == 0);
    let leading = magnitude.first().map_or(0, |first| first.leading_zeros());
    let bits = (magnitude.len() * 8).saturating_sub(usize::try_from(leading).unwrap_or(0));
    if odd(modulus) && odd(exponent) && positive && at_least_three && (2048..=8192).contains(&bits)
    {
        Ok(bits)
    } else {
        Err(PkiError::UnsupportedKey)
    }
}

/// An uncompressed point; whether it lies on the curve is checked when it is used.
fn is_point(bits: &[u8], length: usize) -> bool {
    bits.len() == length && bits.first() == Some(&0x04)
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::sign::Signer as OpensslSigner;

    use super::*;

    fn rsa(bits: u32) -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(bits).expect("key")).expect("key")
    }

    fn ec(curve: Nid) -> PKey<Private> {
        let group = EcGroup::from_curve_name(curve).expect("curve");
        PKey::from_ec_key(EcKey::generate(&group).expect("key")).expect("key")
    }

    fn sign(key: &PKey<Private>, digest: MessageDigest) -> Vec<u8> {
        let mut signer = OpensslSigner::new(digest, key).expect("signer");
        signer.sign_oneshot_to_vec(b"message").expect("signature")
    }

    #[test]
    fn every_accepted_pair_verifies_what_openssl_signed_and_nothing_else() {
        let digests = [
            (Digest::Sha1, MessageDigest::sha1()),
            (Digest::Sha256, MessageDigest::sha256()),
            (Digest::Sha384, MessageDigest::sha384()),
            (Digest::Sha512, MessageDigest::sha512()),
        ];
        type Algorithm = fn(Digest) -> SignatureAlgorithm;
        let keys: [(PKey<Private>, Algorithm); 3] = [
            (rsa(2048), SignatureAlgorithm::Rsa),
            (ec(Nid::X9_62_PRIME256V1), SignatureAlgorithm::Ecdsa),
            (ec(Nid::SECP384R1), SignatureAlgorithm::Ecdsa),
        ];
        for (private, algorithm) in &keys {
            let spki = private.public_key_to_der().expect("spki");
            let key = PublicKey::parse(&spki).expect("accepted");
            for (digest, theirs) in digests {
                let algorithm = algorithm(digest);
                let mut signature = sign(private, theirs);
                let legacy = LegacyDigest::Allowed;
                assert_eq!(
                    key.verify(algorithm, legacy, b"message", &signature),
                    Ok(())
                );
                assert_eq!(
                    key.verify_parts(algorithm, legacy, &[b"mess", b"age"], &signature),
                    Ok(())
                );
                let other = key.verify(algorithm, legacy, b"massage", &signature);
                assert_eq!(other, Err(PkiError::BadSignature));
                let sha1 = key.verify(algorithm, LegacyDigest::Refused, b"message", &signature);
                assert_eq!(sha1.is_err(), digest == Digest::Sha1);
                let last = signature.len() - 1;
                signature[last] ^= 1;
                let broken = key.verify(algorithm, legacy, b"message", &signature);
                assert_eq!(broken, Err(PkiError::BadSignature));
                assert_eq!(
                    SignatureAlgorithm::parse(&algorithm.to_der()),
                    Ok(algorithm)
                );
            }
        }
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        for key in [rsa(1024), ec(Nid::SECP521R1), ec(Nid::SECP256K1)] {
            let spki = key.public_key_to_der().expect("spki");
            assert_eq!(PublicKey::parse(&spki), Err(PkiError::UnsupportedKey));
        }
        let ed25519 = PKey::generate_ed25519()
            .expect("key")
            .public_key_to_der()
            .expect("spki");
        assert_eq!(PublicKey::parse(&ed25519), Err(PkiError::UnsupportedKey));
    }

    #[test]
    fn a_key_does_not_verify_by_another_kinds_algorithm() {
        let spki = rsa(2048).public_key_to_der().expect("spki");
        let key = PublicKey::parse(&spki).expect("accepted");
        let ecdsa = SignatureAlgorithm::Ecdsa(Digest::Sha256);
        let refused = key.verify(ecdsa, LegacyDigest::Allowed, b"message", &[0; 64]);
        assert_eq!(refused, Err(PkiError::UnsupportedAlgorithm));
    }
}
