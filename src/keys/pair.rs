//! A private key in memory: makes itself, signs, and writes itself down only for sealing.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};

use super::decrypt::ContentKeyOpener;
use super::{KeyError, KeyKind};
use crate::pki::key::KeyFailure;
use crate::pki::{Decryptor, Digest, SignatureAlgorithm, Signer};
use crate::secret::Secret;

/// A private key of ours. Signs P-256 with SHA-256, P-384 with SHA-384, RSA with PKCS #1 v1.5 and
/// SHA-256.
pub struct KeyPair {
    inner: Inner,
    pkcs8: Secret<Vec<u8>>,
    spki: Vec<u8>,
}

enum Inner {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl KeyPair {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`KeyError::NotMade`] when the library cannot.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = match kind {
            KeyKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                .map(|document| document.as_ref().to_vec()),
            KeyKind::P384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random)
                .map(|document| document.as_ref().to_vec()),
            KeyKind::Rsa2048 => rsa::KeyPair::generate(KeySize::Rsa2048).and_then(|key| {
                let der: Pkcs8V1Der<'_> = key.as_der()?;
                Ok(der.as_ref().to_vec())
            }),
        };
        Self::read(Secret::new(pkcs8.map_err(|_| KeyError::NotMade)?))
    }

    /// Reads a PKCS #8 private key, DER, not encrypted.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] for everything but RSA of 2,048 to 8,192 bits, P-256 and P-384.
    pub fn read(pkcs8: Secret<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = pkcs8.expose();
        let inner = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
            .map(Inner::P256)
            .or_else(|_| {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, bytes).map(Inner::P384)
            })
            .or_else(|_| RsaKeyPair::from_pkcs8(bytes).map(Inner::Rsa))
            .map_err(|_| KeyError::NotAKey)?;
        let spki = match &inner {
            Inner::P256(key) | Inner::P384(key) => key.public_key().as_der(),
            Inner::Rsa(key) => key.public_key().as_der(),
        };
        let spki = spki.map_err(|_| KeyError::NotAKey)?.as_ref().to_vec();
        Ok(Self { inner, pkcs8, spki })
    }

    /// The PKCS #8 form, DER: to be sealed, or to be handed to TLS.
    pub fn pkcs8(&self) -> &Secret<Vec<u8>> {
        &self.pkcs8
    }

    /// This key as one that opens content keys.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`] unless it is RSA.
    pub fn decryptor(&self) -> Result<impl Decryptor + use<>, KeyError> {
        match &self.inner {
            Inner::Rsa(_) => ContentKeyOpener::new(self.pkcs8.expose()),
            Inner::P256(_) | Inner::P384(_) => Err(KeyError::NotAKey),
        }
    }

    /// Its kind; RSA of any size counts as the one size that is made here.
    pub(super) fn kind(&self) -> KeyKind {
        match &self.inner {
            Inner::P256(_) => KeyKind::P256,
            Inner::P384(_) => KeyKind::P384,
            Inner::Rsa(_) => KeyKind::Rsa2048,
        }
    }
}

impl Signer for KeyPair {
    fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &self.inner {
            Inner::P256(_) => SignatureAlgorithm::Ecdsa(Digest::Sha256),
            Inner::P384(_) => SignatureAlgorithm::Ecdsa(Digest::Sha384),
            Inner::Rsa(_) => SignatureAlgorithm::Rsa(Digest::Sha256),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let random = SystemRandom::new();
        match &self.inner {
            Inner::P256(key) | Inner::P384(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            Inner::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map(|()| signature)
            }
        }
        .map_err(|_| KeyFailure)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::sign::Verifier;

    use super::*;

    #[test]
    fn openssl_verifies_what_each_kind_signs() {
        for (kind, digest) in [
            (KeyKind::P256, MessageDigest::sha256()),
            (KeyKind::P384, MessageDigest::sha384()),
            (KeyKind::Rsa2048, MessageDigest::sha256()),
        ] {
            let pair = KeyPair::generate(kind).expect("made");
            let public = PKey::public_key_from_der(pair.public_key_spki()).expect("a public key");
            let mut verifier = Verifier::new(digest, &public).expect("a verifier");
            let signature = pair.sign(b"message").expect("signed");
            assert!(
                verifier
                    .verify_oneshot(&signature, b"message")
                    .expect("verified"),
                "{kind:?}"
            );
            assert_eq!(pair.kind(), kind);
        }
    }

    #[test]
    fn a_key_written_down_reads_back() {
        for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
            let pair = KeyPair::generate(kind).expect("made");
            let again = KeyPair::read(pair.pkcs8().clone()).expect("read");
            assert_eq!(again.public_key_spki(), pair.public_key_spki());
            assert_eq!(again.decryptor().is_ok(), kind == KeyKind::Rsa2048);
        }
    }

    #[test]
    fn other_keys_are_refused() {
        let small = openssl::rsa::Rsa::generate(1024)
            .and_then(PKey::from_rsa)
            .and_then(|key| key.private_key_to_pkcs8())
            .expect("der");
        for bytes in [small, Vec::new(), b"-----BEGIN PRIVATE KEY-----".to_vec()] {
            assert!(matches!(
                KeyPair::read(Secret::new(bytes)),
                Err(KeyError::NotAKey)
            ));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let pair = KeyPair::generate(KeyKind::P256).expect("made");
        assert_eq!(format!("{pair:?}"), "KeyPair(Ecdsa(Sha256))");
    }
}
