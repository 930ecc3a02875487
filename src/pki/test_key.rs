//! Private keys for unit tests, held by OpenSSL: another implementation than the one tested.

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::x509::{X509, X509Builder, X509Name};

use super::OwnedCertificate;
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

/// A certificate that signs itself, made by OpenSSL.
pub(crate) fn self_signed(key: &TestKey, common_name: &str) -> OwnedCertificate {
    self_signed_with(key, common_name, |_| {})
}

pub(crate) fn self_signed_with(
    key: &TestKey,
    common_name: &str,
    change: impl FnOnce(&mut X509Builder),
) -> OwnedCertificate {
    issued_with(key, common_name, key, common_name, change)
}

/// A certificate for `key` by another, made by OpenSSL; valid from 2023 to 2033.
pub(crate) fn issued_with(
    key: &TestKey,
    common_name: &str,
    issuer_key: &TestKey,
    issuer: &str,
    change: impl FnOnce(&mut X509Builder),
) -> OwnedCertificate {
    let mut builder = X509::builder().expect("builder");
    builder.set_version(2).expect("version");
    let serial = BigNum::from_u32(0x1234).and_then(|number| number.to_asn1_integer());
    builder
        .set_serial_number(&serial.expect("serial"))
        .expect("serial");
    let name = |text| {
        let mut name = X509Name::builder().expect("name");
        name.append_entry_by_text("CN", text).expect("name");
        name.build()
    };
    builder
        .set_subject_name(&name(common_name))
        .expect("subject");
    builder.set_issuer_name(&name(issuer)).expect("issuer");
    let time = |seconds| Asn1Time::from_unix(seconds).expect("time");
    builder.set_not_before(&time(1_700_000_000)).expect("time");
    builder.set_not_after(&time(2_000_000_000)).expect("time");
    builder.set_pubkey(&key.key).expect("key");
    change(&mut builder);
    let digest = openssl_digest(issuer_key.algorithm().digest());
    builder.sign(&issuer_key.key, digest).expect("signed");
    OwnedCertificate::parse(builder.build().to_der().expect("DER")).expect("strict")
}
