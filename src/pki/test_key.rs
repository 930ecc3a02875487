//! Private keys for unit tests, held by OpenSSL: another implementation than the one tested.

use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};

use super::key::{Decryptor, Digest, KeyFailure, SignatureAlgorithm, Signer};
use crate::secret::Secret;

#[derive(Debug)]
pub(crate) struct TestKey {
    pub(crate) key: PKey<Private>,
    spki: Vec<u8>,
    algorithm: SignatureAlgorithm,
}

impl TestKey {
    pub(crate) fn rsa() -> Self {
        Self::rsa_with(Digest::Sha256)
    }

    pub(crate) fn rsa_with(digest: Digest) -> Self {
        let key = PKey::from_rsa(Rsa::generate(2048).expect("key")).expect("key");
        Self::new(key, SignatureAlgorithm::Rsa(digest))
    }

    pub(crate) fn p256() -> Self {
        Self::ec(Nid::X9_62_PRIME256V1, Digest::Sha256)
    }

    pub(crate) fn p384() -> Self {
        Self::ec(Nid::SECP384R1, Digest::Sha384)
    }

    pub(crate) fn new(key: PKey<Private>, algorithm: SignatureAlgorithm) -> Self {
        let spki = key.public_key_to_der().expect("spki");
        Self {
            key,
            spki,
            algorithm,
        }
    }

    fn ec(curve: Nid, digest: Digest) -> Self {
        let group = EcGroup::from_curve_name(curve).expect("curve");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("key")).expect("key");
        Self::new(key, SignatureAlgorithm::Ecdsa(digest))
    }
}

pub(crate) fn openssl_digest(digest: Digest) -> MessageDigest {
    match digest {
        Digest::Sha1 => MessageDigest::sha1(),
        Digest::Sha256 => MessageDigest::sha256(),
        Digest::Sha384 => MessageDigest::sha384(),
        Digest::Sha512 => MessageDigest::sha512(),
    }
}

impl Signer for TestKey {
    fn public_key_spki(&self) -> &[u8] {
        &self.spki
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let digest = openssl_digest(self.algorithm.digest());
        openssl::sign::Signer::new(digest, &self.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(message))
            .map_err(|_| KeyFailure)
    }
}

impl Decryptor for TestKey {
    fn decrypt_content_key(
        &self,
        ciphertext: &[u8],
        length: usize,
    ) -> Result<Secret<Vec<u8>>, KeyFailure> {
        let rsa = self.key.rsa().map_err(|_| KeyFailure)?;
        let mut plaintext = vec![0; usize::try_from(rsa.size()).unwrap_or(0)];
        if rsa
            .private_decrypt(ciphertext, &mut plaintext, Padding::PKCS1)
            .ok()
            != Some(length)
        {
            plaintext = ciphertext.to_vec();
        }
        plaintext.truncate(length);
        Ok(Secret::new(plaintext))
    }
}
