//! PKCS #12 (RFC 7292): how Keychain Access and other servers hand over a certificate with its key.

use std::sync::OnceLock;

use openssl::pkcs12::{ParsedPkcs12_2, Pkcs12};
use openssl::provider::Provider;

use crate::secret::Secret;

/// What is in a file.
#[derive(Debug)]
pub struct Contents {
    /// The certificates, PEM; that of the key first.
    pub certificates: Vec<u8>,
    /// PKCS #8, DER.
    pub private_key: Secret<Vec<u8>>,
}

/// Why a file gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs12Fault {
    #[error("this is no PKCS #12 file")]
    NotPkcs12,
    #[error(
        "the password does not open the PKCS #12 file, or it is encrypted in a way that is not known here"
    )]
    NotOpened,
    #[error("the PKCS #12 file lacks a certificate or its private key; export both together")]
    Incomplete,
}

/// Whether these bytes begin as a PKCS #12 file does: a sequence whose version is 3.
pub fn looks_like_pkcs12(bytes: &[u8]) -> bool {
    // No certificate and no PEM begins so: the first inside a certificate is a sequence.
    let inside = match bytes {
        [0x30, length, ..] if *length < 0x80 => bytes.get(2..),
        [0x30, length, ..] => bytes.get(2 + usize::from(length & 0x7f)..),
        _ => None,
    };
    inside.is_some_and(|inside| inside.starts_with(&[0x02, 0x01, 0x03]))
}

/// Opens a file with its password.
///
/// # Errors
/// [`Pkcs12Fault`].
pub fn open(bytes: &[u8], password: &Secret<String>) -> Result<Contents, Pkcs12Fault> {
    let file = Pkcs12::from_der(bytes).map_err(|_| Pkcs12Fault::NotPkcs12)?;
    let contents = parse(&file, password)?;
    let (Some(certificate), Some(key)) = (contents.cert, contents.pkey) else {
        return Err(Pkcs12Fault::Incomplete);
    };
    let mut certificates = certificate.to_pem().map_err(|_| Pkcs12Fault::Incomplete)?;
    for above in contents.ca.iter().flatten() {
        certificates.extend(above.to_pem().map_err(|_| Pkcs12Fault::Incomplete)?);
    }
    let private_key = key
        .private_key_to_pkcs8()
        .map_err(|_| Pkcs12Fault::Incomplete)?;
    Ok(Contents {
        certificates,
        private_key: Secret::new(private_key),
    })
}

/// Keychain Access encrypts the certificate with RC2 of 40 bits, which OpenSSL 3 has in another part.
fn parse(file: &Pkcs12, password: &Secret<String>) -> Result<ParsedPkcs12_2, Pkcs12Fault> {
    if let Ok(contents) = file.parse2(password.expose()) {
        return Ok(contents);
    }
    if !with_legacy_ciphers() {
        return Err(Pkcs12Fault::NotOpened);
    }
    file.parse2(password.expose())
        .map_err(|_| Pkcs12Fault::NotOpened)
}

/// Has OpenSSL load its older half, for good: unloaded, it leaves names behind that find nothing.
fn with_legacy_ciphers() -> bool {
    static LEGACY: OnceLock<Option<Provider>> = OnceLock::new();
    let loaded = LEGACY.get_or_init(|| Provider::try_load(None, "legacy", true).ok());
    loaded.is_some()
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::X509;

    use super::*;
    use crate::pki::test_key::{TestKey, self_signed};

    const PUSH: &[u8] = include_bytes!("../../tests/fixtures/apns/sim-push-certificate.pem");

    fn password(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    /// A file as a program of this age writes it, and the key in it.
    fn file(cipher: Nid, digest: MessageDigest) -> (Vec<u8>, Vec<u8>) {
        assert!(with_legacy_ciphers());
        let key = TestKey::rsa();
        let certificate = self_signed(&key, "push");
        let certificate = X509::from_der(certificate.as_der()).expect("DER");
        let key = key.key;
        let mut above = openssl::stack::Stack::new().expect("a stack");
        above.push(X509::from_pem(PUSH).expect("PEM")).expect("set");
        let made = Pkcs12::builder()
            .name("push")
            .pkey(&key)
            .cert(&certificate)
            .ca(above)
            .cert_algorithm(cipher)
            .key_algorithm(Nid::PBE_WITHSHA1AND3_KEY_TRIPLEDES_CBC)
            .mac_md(digest)
            .build2("hunter2 canary")
            .expect("a file");
        (
            made.to_der().expect("DER"),
            key.private_key_to_pkcs8().expect("DER"),
        )
    }

    #[test]
    fn files_old_and_new_give_certificates_and_key() {
        for (cipher, digest) in [
            // Keychain Access.
            (Nid::PBE_WITHSHA1AND40BITRC2_CBC, MessageDigest::sha1()),
            (Nid::AES_256_CBC, MessageDigest::sha256()),
        ] {
            let (bytes, key) = file(cipher, digest);
            assert!(looks_like_pkcs12(&bytes));
            let contents = open(&bytes, &password("hunter2 canary"))
                .unwrap_or_else(|fault| panic!("{cipher:?}: {fault}"));
            assert_eq!(contents.private_key.expose(), &key);
            let certificates = X509::stack_from_pem(&contents.certificates).expect("PEM");
            assert_eq!(certificates.len(), 2);
            assert!(!format!("{contents:?}").contains("canary"));
        }
    }

    #[test]
    fn what_cannot_be_opened_is_told_by_cause() {
        let (bytes, _) = file(Nid::AES_256_CBC, MessageDigest::sha256());
        for (bytes, word, fault) in [
            (&bytes[..], "another", Pkcs12Fault::NotOpened),
            (&bytes[..], "", Pkcs12Fault::NotOpened),
            (&bytes[..40], "hunter2 canary", Pkcs12Fault::NotPkcs12),
            (PUSH, "hunter2 canary", Pkcs12Fault::NotPkcs12),
        ] {
            assert_eq!(open(bytes, &password(word)).err(), Some(fault));
        }
        for other in [PUSH, b"", b"\x30", b"\x30\x84", b"\x30\x03\x02\x01\x00"] {
            assert!(!looks_like_pkcs12(other));
        }
    }
}
