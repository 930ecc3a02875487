//! The private key of a push certificate, as operators hold it in files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::PushCertificateRefusal;
use crate::pki::{oid, write};
use crate::secret::Secret;

/// An 8,192-bit key in PEM has 6.4 KiB; certificates may stand beside it.
const MAX_FILE: usize = 256 * 1024;

/// Reads the one unencrypted private key in a PEM text (certificates may stand beside it) and gives
/// it as PKCS #8, DER. Takes PKCS #8 (RFC 5958) and PKCS #1 (RFC 8017, `openssl genrsa -traditional`).
/// What is inside is not looked at.
///
/// # Errors
/// [`PushCertificateRefusal::NoKey`], [`PushCertificateRefusal::EncryptedKey`],
/// [`PushCertificateRefusal::SeveralKeys`], [`PushCertificateRefusal::UnreadableKey`].
pub fn read_private_key(pem: &[u8]) -> Result<Secret<Vec<u8>>, PushCertificateRefusal> {
    let text = std::str::from_utf8(pem)
        .ok()
        .filter(|text| text.len() <= MAX_FILE)
        .ok_or(PushCertificateRefusal::NoKey)?;
    let mut found = None;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after
            .split_once("-----")
            .ok_or(PushCertificateRefusal::UnreadableKey)?;
        let (body, after) = after
            .split_once(&format!("-----END {label}-----"))
            .ok_or(PushCertificateRefusal::UnreadableKey)?;
        rest = after;
        if !label.ends_with("PRIVATE KEY") {
            continue;
        }
        let key = read_block(label, body)?;
        if found.replace(key).is_some() {
            return Err(PushCertificateRefusal::SeveralKeys);
        }
    }
    found.ok_or(PushCertificateRefusal::NoKey)
}

fn read_block(label: &str, body: &str) -> Result<Secret<Vec<u8>>, PushCertificateRefusal> {
    // RFC 1421 headers: how OpenSSL marks an encrypted key of the old form.
    if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
        return Err(PushCertificateRefusal::EncryptedKey);
    }
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let der = Zeroizing::new(
        STANDARD
            .decode(body.as_bytes())
            .map_err(|_| PushCertificateRefusal::UnreadableKey)?,
    );
    match label {
        "PRIVATE KEY" => Ok(Secret::new(der.to_vec())),
        "RSA PRIVATE KEY" => Ok(Secret::new(pkcs8_of(&der))),
        _ => Err(PushCertificateRefusal::UnreadableKey),
    }
}

/// RFC 5958 section 2: version 0, rsaEncryption with NULL (RFC 8017 A.1), the key.
fn pkcs8_of(rsa_private_key: &[u8]) -> Vec<u8> {
    write::sequence(&[
        &write::unsigned(&[0]),
        &write::sequence(&[&write::oid(oid::RSA_ENCRYPTION), &write::null()]),
        &write::octet_string(rsa_private_key),
    ])
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;

    use super::*;

    #[test]
    fn both_forms_of_one_key_give_the_same_bytes() {
        let rsa = Rsa::generate(2048).expect("a key");
        let key = PKey::from_rsa(rsa.clone()).expect("a key");
        let expected = key.private_key_to_pkcs8().expect("der");
        let new = key.private_key_to_pem_pkcs8().expect("pem");
        let old = rsa.private_key_to_pem().expect("pem");
        let beside = [
            include_bytes!("../../tests/fixtures/apns/sim-push-certificate.pem").as_slice(),
            &new,
        ]
        .concat();
        for pem in [new, old, beside] {
            assert_eq!(read_private_key(&pem), Ok(Secret::new(expected.clone())));
        }
    }

    #[test]
    fn other_files_are_refused_by_cause() {
        let rsa = Rsa::generate(2048).expect("a key");
        let key = PKey::from_rsa(rsa.clone()).expect("a key");
        let plain = key.private_key_to_pem_pkcs8().expect("pem");
        let encrypted = key
            .private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret")
            .expect("pem");
        let encrypted_old = rsa
            .private_key_to_pem_passphrase(Cipher::aes_256_cbc(), b"secret")
            .expect("pem");
        let truncated = plain.split_at(plain.len() / 2).0.to_vec();
        let elliptic =
            b"-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n".to_vec();
        for (pem, refusal) in [
            (Vec::new(), PushCertificateRefusal::NoKey),
            (vec![0xff; 9], PushCertificateRefusal::NoKey),
            (encrypted, PushCertificateRefusal::EncryptedKey),
            (encrypted_old, PushCertificateRefusal::EncryptedKey),
            (
                [plain.clone(), plain].concat(),
                PushCertificateRefusal::SeveralKeys,
            ),
            (truncated, PushCertificateRefusal::UnreadableKey),
            (elliptic, PushCertificateRefusal::UnreadableKey),
        ] {
            assert_eq!(read_private_key(&pem), Err(refusal));
        }
    }
}
