//! Keys in a folder: `<role>.key`, a sealed PKCS #8, and `<role>.pem`, its certificates in clear.
//!
//! A file appears whole or not at all, and is never replaced: it is written under another name,
//! synced, then linked to its own name, which fails when that exists.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{KeyError, KeyKeeper, KeyKind, KeyPair, KeyRole, MasterSeal};
use crate::pki::pem::{read_certificates, to_pem};
use crate::pki::{Decryptor, OwnedCertificate, Signer};
use crate::secret::{Sealer, Secret};

/// An RSA-8192 key in PKCS #8 has 4.7 KiB; a chain of four certificates is below 16 KiB.
const MAX_FILE: u64 = 64 * 1024;

/// Keys kept in one folder, sealed.
#[derive(Debug)]
pub struct FileKeeper {
    folder: PathBuf,
    seal: Arc<MasterSeal>,
}

impl FileKeeper {
    /// Opens the folder, which must be there: an empty one in its place would take the real one in.
    ///
    /// # Errors
    /// [`KeyError::TooOpen`] when others can write to it, [`KeyError::Disk`].
    pub fn open(folder: PathBuf, seal: Arc<MasterSeal>) -> Result<Self, KeyError> {
        let mode = fs::metadata(&folder).map_err(disk(&folder))?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(KeyError::TooOpen {
                path: folder,
                mode,
                wanted: 0o700,
            });
        }
        Ok(Self { folder, seal })
    }

    fn pair(&self, role: KeyRole) -> Result<KeyPair, KeyError> {
        let path = self.path(role, "key");
        let sealed = self.read(role, "key")?;
        let mode = fs::metadata(&path).map_err(disk(&path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::TooOpen {
                path,
                mode,
                wanted: 0o600,
            });
        }
        let pkcs8 = self.seal.open(&context(role), &sealed).map_err(|_| {
            if self.seal.is_named_by(&sealed) {
                KeyError::Damaged(role)
            } else {
                KeyError::OtherMasterKey {
                    role,
                    expected: self.seal.name(),
                }
            }
        })?;
        let pair = KeyPair::read(Secret::new(pkcs8))?;
        let kind = pair.kind();
        if role.takes(kind) {
            Ok(pair)
        } else {
            Err(KeyError::KindNotForRole { role, kind })
        }
    }

    fn path(&self, role: KeyRole, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", role.name()))
    }

    fn read(&self, role: KeyRole, extension: &'static str) -> Result<Vec<u8>, KeyError> {
        let path = self.path(role, extension);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            ErrorKind::NotFound => KeyError::Absent {
                role,
                what: what(extension),
            },
            _ => disk(&path)(cause),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(disk(&path))?;
        Ok(bytes)
    }

    fn write(&self, role: KeyRole, extension: &'static str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.path(role, extension);
        let draft = self
            .folder
            .join(format!(".{}.{extension}.draft", role.name()));
        // A draft is what a crash left behind; under its own name it would be complete.
        match fs::remove_file(&draft) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(disk(&draft)(cause)),
            _ => {}
        }
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(disk(&draft))?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(disk(&draft))?;
        linked.map_err(|cause| match cause.kind() {
            ErrorKind::AlreadyExists => KeyError::Exists {
                role,
                what: what(extension),
            },
            _ => disk(&path)(cause),
        })?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(disk(&self.folder))
    }
}

impl KeyKeeper for FileKeeper {
    fn generate(&self, role: KeyRole, kind: KeyKind) -> Result<(), KeyError> {
        if !role.takes(kind) {
            return Err(KeyError::KindNotForRole { role, kind });
        }
        let pair = KeyPair::generate(kind)?;
        let sealed = self.seal.seal(&context(role), pair.pkcs8().expose());
        self.write(role, "key", &sealed)
    }

    fn signer(&self, role: KeyRole) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(Arc::new(self.pair(role)?))
    }

    fn decryptor(&self, role: KeyRole) -> Result<Arc<dyn Decryptor>, KeyError> {
        // A key that signs for one protocol must not decrypt for another.
        if role != KeyRole::RegistrationAuthority {
            return Err(KeyError::NoDecryptor(role));
        }
        Ok(Arc::new(self.pair(role)?.decryptor()?))
    }

    fn certificates(&self, role: KeyRole) -> Result<Vec<OwnedCertificate>, KeyError> {
        let pem = self.read(role, "pem")?;
        read_certificates(&pem).map_err(|cause| KeyError::CertificateUnreadable { role, cause })
    }

    fn keep_certificates(&self, role: KeyRole, chain: &[OwnedCertificate]) -> Result<(), KeyError> {
        let key = self.public_key(role)?;
        if chain
            .first()
            .is_none_or(|leaf| leaf.certificate().spki() != key)
        {
            return Err(KeyError::CertificateMismatch(role));
        }
        let pem: String = chain
            .iter()
            .map(|certificate| to_pem(&certificate.certificate()))
            .collect();
        self.write(role, "pem", pem.as_bytes())
    }
}

fn context(role: KeyRole) -> String {
    format!("keys/{}", role.name())
}

fn what(extension: &str) -> &'static str {
    match extension {
        "pem" => "certificate",
        _ => "key",
    }
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> KeyError + use<> {
    let path = path.to_owned();
    move |cause| KeyError::Disk { path, cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::Rsa;
    use openssl::x509::{X509Builder, X509NameBuilder};

    use super::*;
    use crate::entropy::{OsEntropy, draw};
    use crate::keys::MasterKey;
    use crate::pki::cms::cipher::ContentCipher;
    use crate::pki::cms::{EnvelopedData, Sealing, enveloped_data};

    fn seal() -> Arc<MasterSeal> {
        let entropy = Arc::new(OsEntropy::default());
        let text = hex::encode(draw::<32>(entropy.as_ref()));
        let master = MasterKey::parse(text.as_bytes()).expect("random");
        Arc::new(MasterSeal::new(&master, entropy))
    }

    fn keeper(folder: &Path, seal: &Arc<MasterSeal>) -> FileKeeper {
        let folder = folder.join("keys");
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => unreachable!("{cause}"),
            _ => FileKeeper::open(folder, Arc::clone(seal)).expect("opened"),
        }
    }

    fn certificate(spki: &[u8], issuer: &PKey<Private>) -> OwnedCertificate {
        let mut name = X509NameBuilder::new().expect("a name");
        name.append_entry_by_text("CN", "Test").expect("set");
        let name = name.build();
        let mut builder = X509Builder::new().expect("a builder");
        let key = PKey::public_key_from_der(spki).expect("a key");
        builder.set_version(2).expect("set");
        builder.set_subject_name(&name).expect("set");
        builder.set_issuer_name(&name).expect("set");
        builder.set_pubkey(&key).expect("set");
        for day in [0, 30] {
            let time = Asn1Time::days_from_now(day).expect("a time");
            let set = if day == 0 {
                builder.set_not_before(&time)
            } else {
                builder.set_not_after(&time)
            };
            set.expect("set");
        }
        builder
            .sign(issuer, MessageDigest::sha256())
            .expect("signed");
        OwnedCertificate::parse(builder.build().to_der().expect("der")).expect("well formed")
    }

    #[test]
    fn a_made_key_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let seal = seal();
        let first = keeper(folder.path(), &seal);
        for role in KeyRole::ALL {
            assert!(matches!(first.signer(role), Err(KeyError::Absent { .. })));
            first.generate(role, role.usual_kind()).expect("made");
            let again = keeper(folder.path(), &seal);
            let (one, two) = (
                first.signer(role).expect("one"),
                again.signer(role).expect("two"),
            );
            assert_eq!(one.public_key_spki(), two.public_key_spki());
            assert_eq!(
                first.decryptor(role).is_ok(),
                role == KeyRole::RegistrationAuthority
            );
        }
    }

    #[test]
    fn nothing_is_overwritten_and_no_draft_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let role = KeyRole::ProfileSigner;
        keeper.generate(role, KeyKind::P256).expect("made");
        let before = keeper.public_key(role).expect("there");
        fs::write(folder.path().join("keys/.profile-signer.key.draft"), "torn").expect("written");
        assert!(matches!(
            keeper.generate(role, KeyKind::P256),
            Err(KeyError::Exists { what: "key", .. })
        ));
        assert_eq!(keeper.public_key(role).expect("there"), before);
        let names: Vec<_> = fs::read_dir(folder.path().join("keys"))
            .expect("listed")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["profile-signer.key"]);
    }

    #[test]
    fn files_are_sealed_and_closed_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let role = KeyRole::ProfileSigner;
        keeper.generate(role, KeyKind::P256).expect("made");
        let path = folder.path().join("keys/profile-signer.key");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&folder.path().join("keys")), 0o700);
        assert!(PKey::private_key_from_der(&fs::read(&path).expect("read")).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(keeper.signer(role), Err(KeyError::TooOpen { .. })));
    }

    #[test]
    fn a_key_serves_its_own_role_under_its_own_master_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        keeper
            .generate(KeyRole::ProfileSigner, KeyKind::P256)
            .expect("made");
        fs::copy(
            folder.path().join("keys/profile-signer.key"),
            folder.path().join("keys/device-ca.key"),
        )
        .expect("copied");
        assert!(matches!(
            keeper.signer(KeyRole::DeviceCa),
            Err(KeyError::Damaged(KeyRole::DeviceCa))
        ));
        let other = super::tests::keeper(folder.path(), &seal());
        assert!(matches!(
            other.signer(KeyRole::ProfileSigner),
            Err(KeyError::OtherMasterKey { .. })
        ));
        for (role, kind) in [
            (KeyRole::RegistrationAuthority, KeyKind::P256),
            (KeyRole::RegistrationAuthority, KeyKind::P384),
        ] {
            let refused = keeper.generate(role, kind);
            assert!(matches!(refused, Err(KeyError::KindNotForRole { .. })));
        }
    }

    #[test]
    fn certificates_are_kept_in_order_and_only_for_their_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let role = KeyRole::ProfileSigner;
        keeper.generate(role, KeyKind::P256).expect("made");
        let issuer = Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key");
        let own = certificate(&keeper.public_key(role).expect("there"), &issuer);
        let foreign = certificate(&issuer.public_key_to_der().expect("der"), &issuer);
        let refused = keeper.keep_certificates(role, std::slice::from_ref(&foreign));
        assert!(matches!(refused, Err(KeyError::CertificateMismatch(_))));
        let chain = [own, foreign];
        keeper.keep_certificates(role, &chain).expect("kept");
        assert_eq!(keeper.certificates(role).expect("read"), chain);
        assert!(matches!(
            keeper.keep_certificates(role, &chain),
            Err(KeyError::Exists {
                what: "certificate",
                ..
            })
        ));
    }

    #[test]
    fn an_envelope_for_the_registration_authority_opens_with_its_kept_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let role = KeyRole::RegistrationAuthority;
        keeper.generate(role, KeyKind::Rsa2048).expect("made");
        let foreign = Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key");
        let own = certificate(&keeper.public_key(role).expect("there"), &foreign);
        let other = KeyPair::generate(KeyKind::Rsa2048).expect("made");
        for cipher in [
            ContentCipher::Aes128,
            ContentCipher::Aes256,
            ContentCipher::TripleDes,
        ] {
            let sealing = Sealing {
                cipher,
                key: Secret::new(draw(&OsEntropy::default())),
                vector: [7; 16],
            };
            let envelope =
                enveloped_data::seal(b"a request", &own.certificate(), &sealing).expect("sealed");
            let envelope = EnvelopedData::parse(&envelope).expect("an envelope");
            let open = |key: &dyn Decryptor| envelope.open(&own.certificate(), key);
            let opened = open(keeper.decryptor(role).expect("there").as_ref());
            assert_eq!(opened, Ok(Secret::new(b"a request".to_vec())));
            let nonsense = open(&other.decryptor().expect("RSA"));
            assert_ne!(nonsense, Ok(Secret::new(b"a request".to_vec())));
        }
    }
}
