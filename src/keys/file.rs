//! Keys in a folder: `<role>.key`, a sealed PKCS #8, and `<role>.pem`, its certificates in clear; of
//! the keys that followed the first, `<role>.2.key` and so on.
//!
//! A file appears whole or not at all, and is never replaced but by the same key, sealed anew: it is
//! written under another name, synced, then linked to its own name, which fails when that exists.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{KeyError, KeyKeeper, KeyKind, KeyName, KeyPair, KeyRole, MasterSeal};
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

    /// Seals under the present master key what is not; says how many keys those were.
    ///
    /// # Errors
    /// By the first key that cannot be read or written; those before it are sealed anew.
    pub fn seal_anew(&self) -> Result<usize, KeyError> {
        let mut sealed_anew = 0;
        for key in self.all()? {
            let sealed = self.read(key, "key")?;
            let plain = Secret::new(self.open_sealed(key, &sealed)?);
            if self.seal.is_present(&sealed) {
                continue;
            }
            let sealed = self.seal.seal(&context(key), plain.expose());
            let draft = self.draft(key, "key", &sealed)?;
            let path = self.path(key, "key");
            fs::rename(&draft, &path).map_err(disk(&path))?;
            self.sync()?;
            sealed_anew += 1;
        }
        Ok(sealed_anew)
    }

    fn all(&self) -> Result<Vec<KeyName>, KeyError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(disk(&self.folder))? {
            let name = entry.map_err(disk(&self.folder))?.file_name();
            all.extend(name.to_str().and_then(named));
        }
        all.sort_unstable();
        Ok(all)
    }

    fn pair(&self, key: KeyName) -> Result<KeyPair, KeyError> {
        let path = self.path(key, "key");
        let sealed = self.read(key, "key")?;
        let mode = fs::metadata(&path).map_err(disk(&path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::TooOpen {
                path,
                mode,
                wanted: 0o600,
            });
        }
        let pair = KeyPair::read(Secret::new(self.open_sealed(key, &sealed)?))?;
        let (role, kind) = (key.role, pair.kind());
        if role.takes(kind) {
            Ok(pair)
        } else {
            Err(KeyError::KindNotForRole { role, kind })
        }
    }

    fn open_sealed(&self, key: KeyName, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.seal.open(&context(key), sealed).map_err(|_| {
            if self.seal.is_named_by(sealed) {
                KeyError::Damaged(key)
            } else {
                KeyError::OtherMasterKey {
                    key,
                    expected: self.seal.name(),
                }
            }
        })
    }

    fn path(&self, key: KeyName, extension: &str) -> PathBuf {
        self.folder.join(format!("{key}.{extension}"))
    }

    fn read(&self, key: KeyName, extension: &'static str) -> Result<Vec<u8>, KeyError> {
        let path = self.path(key, extension);
        let file = File::open(&path).map_err(|cause| match cause.kind() {
            ErrorKind::NotFound => KeyError::Absent {
                key,
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

    fn write(&self, key: KeyName, extension: &'static str, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.path(key, extension);
        let draft = self.draft(key, extension, bytes)?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(disk(&draft))?;
        linked.map_err(|cause| match cause.kind() {
            ErrorKind::AlreadyExists => KeyError::Exists {
                key,
                what: what(extension),
            },
            _ => disk(&path)(cause),
        })?;
        self.sync()
    }

    /// What is to get the name of a file, complete and on the disk.
    fn draft(&self, key: KeyName, extension: &str, bytes: &[u8]) -> Result<PathBuf, KeyError> {
        let draft = self.folder.join(format!(".{key}.{extension}.draft"));
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
        Ok(draft)
    }

    fn sync(&self) -> Result<(), KeyError> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(disk(&self.folder))
    }
}

impl KeyKeeper for FileKeeper {
    fn keys(&self, role: KeyRole) -> Result<Vec<KeyName>, KeyError> {
        let all = self.all()?.into_iter();
        Ok(all.filter(|key| key.role == role).collect())
    }

    fn generate(&self, key: KeyName, kind: KeyKind) -> Result<(), KeyError> {
        let role = key.role;
        if !role.takes(kind) {
            return Err(KeyError::KindNotForRole { role, kind });
        }
        let pair = KeyPair::generate(kind)?;
        let sealed = self.seal.seal(&context(key), pair.pkcs8().expose());
        self.write(key, "key", &sealed)
    }

    fn signer(&self, key: KeyName) -> Result<Arc<dyn Signer>, KeyError> {
        Ok(Arc::new(self.pair(key)?))
    }

    fn decryptor(&self, key: KeyName) -> Result<Arc<dyn Decryptor>, KeyError> {
        // A key that signs for one protocol must not decrypt for another.
        if key.role != KeyRole::RegistrationAuthority {
            return Err(KeyError::NoDecryptor(key.role));
        }
        Ok(Arc::new(self.pair(key)?.decryptor()?))
    }

    fn certificates(&self, key: KeyName) -> Result<Vec<OwnedCertificate>, KeyError> {
        let pem = self.read(key, "pem")?;
        read_certificates(&pem).map_err(|cause| KeyError::CertificateUnreadable { key, cause })
    }

    fn keep_certificates(&self, key: KeyName, chain: &[OwnedCertificate]) -> Result<(), KeyError> {
        let spki = self.public_key(key)?;
        if chain
            .first()
            .is_none_or(|leaf| leaf.certificate().spki() != spki)
        {
            return Err(KeyError::CertificateMismatch(key));
        }
        let pem: String = chain
            .iter()
            .map(|certificate| to_pem(&certificate.certificate()))
            .collect();
        self.write(key, "pem", pem.as_bytes())
    }
}

/// The key that a file holds, by its name.
fn named(file: &str) -> Option<KeyName> {
    let name = file.strip_suffix(".key")?;
    let (role, generation) = match name.split_once('.') {
        None => (name, 1),
        // As it is written, so that no two files are one key.
        Some((role, number)) if !number.starts_with(['0', '+']) => (role, number.parse().ok()?),
        Some(_) => return None,
    };
    let role = KeyRole::from_name(role)?;
    let first = !name.contains('.');
    (first || generation > 1).then_some(KeyName { role, generation })
}

fn context(key: KeyName) -> String {
    format!("keys/{key}")
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
        for key in KeyRole::ALL.map(KeyName::first) {
            let role = key.role;
            assert!(matches!(first.signer(key), Err(KeyError::Absent { .. })));
            first.generate(key, role.usual_kind()).expect("made");
            let again = keeper(folder.path(), &seal);
            let (one, two) = (
                first.signer(key).expect("one"),
                again.signer(key).expect("two"),
            );
            assert_eq!(one.public_key_spki(), two.public_key_spki());
            assert_eq!(
                first.decryptor(key).is_ok(),
                role == KeyRole::RegistrationAuthority
            );
        }
    }

    #[test]
    fn nothing_is_overwritten_and_no_draft_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let key = KeyName::first(KeyRole::ProfileSigner);
        keeper.generate(key, KeyKind::P256).expect("made");
        let before = keeper.public_key(key).expect("there");
        fs::write(folder.path().join("keys/.profile-signer.key.draft"), "torn").expect("written");
        assert!(matches!(
            keeper.generate(key, KeyKind::P256),
            Err(KeyError::Exists { what: "key", .. })
        ));
        assert_eq!(keeper.public_key(key).expect("there"), before);
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
        let key = KeyName::first(KeyRole::ProfileSigner);
        keeper.generate(key, KeyKind::P256).expect("made");
        let path = folder.path().join("keys/profile-signer.key");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&folder.path().join("keys")), 0o700);
        assert!(PKey::private_key_from_der(&fs::read(&path).expect("read")).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(keeper.signer(key), Err(KeyError::TooOpen { .. })));
    }

    #[test]
    fn a_key_serves_its_own_role_under_its_own_master_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        keeper
            .generate(KeyName::first(KeyRole::ProfileSigner), KeyKind::P256)
            .expect("made");
        fs::copy(
            folder.path().join("keys/profile-signer.key"),
            folder.path().join("keys/device-ca.key"),
        )
        .expect("copied");
        assert!(matches!(
            keeper.signer(KeyName::first(KeyRole::DeviceCa)),
            Err(KeyError::Damaged(_))
        ));
        let other = super::tests::keeper(folder.path(), &seal());
        assert!(matches!(
            other.signer(KeyName::first(KeyRole::ProfileSigner)),
            Err(KeyError::OtherMasterKey { .. })
        ));
        for (role, kind) in [
            (KeyRole::RegistrationAuthority, KeyKind::P256),
            (KeyRole::RegistrationAuthority, KeyKind::P384),
        ] {
            let refused = keeper.generate(KeyName::first(role), kind);
            assert!(matches!(refused, Err(KeyError::KindNotForRole { .. })));
        }
    }

    #[test]
    fn certificates_are_kept_in_order_and_only_for_their_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let key = KeyName::first(KeyRole::ProfileSigner);
        keeper.generate(key, KeyKind::P256).expect("made");
        let issuer = Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key");
        let own = certificate(&keeper.public_key(key).expect("there"), &issuer);
        let foreign = certificate(&issuer.public_key_to_der().expect("der"), &issuer);
        let refused = keeper.keep_certificates(key, std::slice::from_ref(&foreign));
        assert!(matches!(refused, Err(KeyError::CertificateMismatch(_))));
        let chain = [own, foreign];
        keeper.keep_certificates(key, &chain).expect("kept");
        assert_eq!(keeper.certificates(key).expect("read"), chain);
        assert!(matches!(
            keeper.keep_certificates(key, &chain),
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
        let key = KeyName::first(KeyRole::RegistrationAuthority);
        keeper.generate(key, KeyKind::Rsa2048).expect("made");
        let foreign = Rsa::generate(2048).and_then(PKey::from_rsa).expect("a key");
        let own = certificate(&keeper.public_key(key).expect("there"), &foreign);
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
            let opened = open(keeper.decryptor(key).expect("there").as_ref());
            assert_eq!(opened, Ok(Secret::new(b"a request".to_vec())));
            let nonsense = open(&other.decryptor().expect("RSA"));
            assert_ne!(nonsense, Ok(Secret::new(b"a request".to_vec())));
        }
    }

    #[test]
    fn a_key_is_followed_by_another_and_both_are_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = keeper(folder.path(), &seal());
        let first = KeyName::first(KeyRole::DeviceCa);
        for key in [first, first.next()] {
            keeper.generate(key, KeyKind::P256).expect("made");
        }
        let signer = KeyName::first(KeyRole::ProfileSigner);
        keeper.generate(signer, KeyKind::P256).expect("made");
        assert!(folder.path().join("keys/device-ca.2.key").exists());
        assert_eq!(
            keeper.keys(KeyRole::DeviceCa).expect("listed"),
            [first, first.next()]
        );
        assert_ne!(
            keeper.public_key(first).expect("there"),
            keeper.public_key(first.next()).expect("there")
        );
        for (file, key) in [
            ("device-ca.key", Some((KeyRole::DeviceCa, 1))),
            ("profile-signer.12.key", Some((KeyRole::ProfileSigner, 12))),
            ("device-ca.1.key", None),
            ("device-ca.0.key", None),
            ("device-ca.02.key", None),
            ("device-ca.+2.key", None),
            ("device-ca.2.pem", None),
            (".device-ca.2.key.draft", None),
            ("device-ca.2.3.key", None),
            ("other.key", None),
        ] {
            let key = key.map(|(role, generation)| KeyName { role, generation });
            assert_eq!(named(file), key, "{file}");
        }
    }

    #[test]
    fn keys_are_sealed_anew_when_one_master_key_follows_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let seal = seal();
        let keeper = keeper(folder.path(), &seal);
        let key = KeyName::first(KeyRole::ProfileSigner);
        keeper.generate(key, KeyKind::P256).expect("made");
        let before = keeper.public_key(key).expect("there");
        assert_eq!(keeper.seal_anew().expect("nothing to do"), 0);
        let entropy: Arc<dyn crate::entropy::Entropy> = Arc::new(OsEntropy::default());
        let new = MasterKey::make(entropy.as_ref());
        let now = crate::time::Timestamp::from_millis(0);
        let mut handover = seal.begin_handover(&new, now).expect("begun");
        handover.phase = crate::keys::handover::Phase::Sealing;
        seal.follow(Some(&handover)).expect("followed");
        assert_eq!(keeper.seal_anew().expect("sealed"), 1);
        assert_eq!(keeper.seal_anew().expect("nothing left"), 0);
        let again = super::tests::keeper(folder.path(), &Arc::new(MasterSeal::new(&new, entropy)));
        assert_eq!(again.public_key(key).expect("opens"), before);
        let mode = fs::metadata(folder.path().join("keys/profile-signer.key"));
        assert_eq!(mode.expect("there").mode() & 0o7777, 0o600);
    }
}
