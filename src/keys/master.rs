//! The master key: where it is, and what it must look like.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::entropy::{Entropy, draw};
use crate::ids::sha256;
use crate::secret::Secret;

/// The environment variable that names the file.
pub const MASTER_KEY_FILE: &str = "ATTESTD_MASTER_KEY_FILE";
/// Set by systemd to the folder of a unit's credentials (systemd.exec(5), `LoadCredential=`).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
const CREDENTIAL: &str = "master-key";
/// Hexadecimal with generous white space; anything longer is another file.
const MAX_FILE: u64 = 256;

/// 32 random bytes under which everything secret is sealed.
#[derive(Debug, Clone)]
pub struct MasterKey(Secret<[u8; 32]>);

/// Where the master key is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySource {
    /// A file of the service's own, readable by its user alone.
    File(PathBuf),
    /// A systemd credential. On kernels that keep credentials on a file system with access control
    /// lists, its mode shows group-read although only the unit's user is on the list; so group-read
    /// is no fault here.
    Credential(PathBuf),
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyFault {
    #[error(
        "no master key: set {MASTER_KEY_FILE}, or give the unit LoadCredential={CREDENTIAL}:/path, \
         or name the file in the configuration"
    )]
    NotConfigured,
    #[error("the master key file {path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("the master key {0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("the master key file {path} has mode {mode:04o}, so others can use it; set it to 0600")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the master key is not 32 bytes as 64 hexadecimal digits or as base64; \
         `openssl rand -hex 32` makes one"
    )]
    WrongForm,
    #[error(
        "the master key follows a pattern or is a text; it must be random, as `openssl rand -hex 32` makes it"
    )]
    Weak,
}

impl MasterKeySource {
    /// The first of: the configured path, the environment variable, the systemd credential (if the
    /// file is there). `environment` looks up one variable.
    ///
    /// # Errors
    /// [`MasterKeyFault::NotConfigured`].
    pub fn find(
        configured: Option<&Path>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, MasterKeyFault> {
        let named = configured
            .map(PathBuf::from)
            .or_else(|| environment(MASTER_KEY_FILE).map(PathBuf::from));
        if let Some(path) = named {
            return Ok(Self::File(path));
        }
        environment(CREDENTIALS_DIRECTORY)
            .map(|folder| PathBuf::from(folder).join(CREDENTIAL))
            .filter(|path| path.exists())
            .map(Self::Credential)
            .ok_or(MasterKeyFault::NotConfigured)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Credential(path) => path,
        }
    }

    fn forbidden_mode(&self) -> u32 {
        match self {
            Self::File(_) => 0o077,
            Self::Credential(_) => 0o037,
        }
    }
}

impl MasterKey {
    /// Reads the master key. The mode is asked of the opened file, not of the path, so that it
    /// belongs to what is read.
    ///
    /// # Errors
    /// By cause; each says what to do.
    pub fn read(source: &MasterKeySource) -> Result<Self, MasterKeyFault> {
        let path = source.path();
        let unreadable = |cause| MasterKeyFault::Unreadable {
            path: path.to_owned(),
            cause,
        };
        // Asked before opening: opening a FIFO would wait for its writer.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(MasterKeyFault::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & source.forbidden_mode() != 0 {
            return Err(MasterKeyFault::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(512));
        file.take(MAX_FILE + 1)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        Self::parse(&text)
    }

    /// Reads the text form: 64 hexadecimal digits or base64 of 32 bytes, white space around it.
    ///
    /// # Errors
    /// [`MasterKeyFault::WrongForm`] and [`MasterKeyFault::Weak`].
    pub fn parse(text: &[u8]) -> Result<Self, MasterKeyFault> {
        if text.len() as u64 > MAX_FILE {
            return Err(MasterKeyFault::WrongForm);
        }
        let text = text.trim_ascii();
        let bytes = Zeroizing::new(
            match text.len() {
                64 => hex::decode(text).ok(),
                44 => STANDARD.decode(text).ok(),
                _ => None,
            }
            .ok_or(MasterKeyFault::WrongForm)?,
        );
        let bytes: [u8; 32] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| MasterKeyFault::WrongForm)?;
        if is_weak(&bytes) {
            return Err(MasterKeyFault::Weak);
        }
        Ok(Self(Secret::new(bytes)))
    }

    /// A new one.
    pub fn make(entropy: &dyn Entropy) -> Self {
        Self(Secret::new(draw(entropy)))
    }

    /// A key of its own for one purpose (HKDF-SHA256, RFC 5869).
    pub(super) fn derive(&self, purpose: &'static str) -> Secret<[u8; 32]> {
        let mut derived = [0; 32];
        Salt::new(HKDF_SHA256, &[])
            .extract(self.bytes())
            .expand(&[purpose.as_bytes()], HKDF_SHA256)
            .and_then(|key| key.fill(&mut derived))
            .expect("HKDF-SHA256 gives 32 bytes");
        Secret::new(derived)
    }

    /// What was kept of one; `None` unless there are 32 bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Secret::new(bytes.try_into().ok()?)))
    }

    /// As [`MasterKey::parse`] reads it, for a file of its own.
    pub fn text(&self) -> Secret<String> {
        Secret::new(format!("{}\n", hex::encode(self.bytes())))
    }

    /// The name of this key in what it sealed: the first 8 bytes of its SHA-256.
    pub fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        id.copy_from_slice(&sha256(self.bytes())[..8]);
        id
    }

    /// Where two keys are told apart by people.
    pub fn name(&self) -> String {
        hex::encode(self.id())
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// What no random generator gives: few distinct values (one in 10^20), a constant step, or nothing
/// but printable characters (one in 10^13: somebody encoded a passphrase).
fn is_weak(bytes: &[u8; 32]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let step = bytes[1].wrapping_sub(bytes[0]);
    let steady = bytes
        .windows(2)
        .all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    let printable = bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    distinct < 10 || steady || printable
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::entropy::{SeededEntropy, draw};

    fn random() -> [u8; 32] {
        draw(&SeededEntropy::new(5))
    }

    #[test]
    fn hexadecimal_and_base64_name_the_same_key() {
        let hex = MasterKey::parse(format!(" {}\n", hex::encode_upper(random())).as_bytes());
        let base64 = MasterKey::parse(STANDARD.encode(random()).as_bytes());
        assert_eq!(hex.expect("hex").id(), base64.expect("base64").id());
    }

    #[test]
    fn each_purpose_has_a_key_of_its_own_and_always_the_same() {
        let master = || MasterKey::parse(hex::encode(random()).as_bytes()).expect("a key");
        let derived = master().derive("one");
        assert!(derived == master().derive("one"));
        assert!(derived != master().derive("other"));
        assert!(derived.expose() != master().bytes());
    }

    #[test]
    fn other_forms_are_refused() {
        let whole = hex::encode(random());
        let long = format!("{whole}{}", " ".repeat(300));
        for text in [
            "",
            "change-me",
            &whole[..62],
            &format!("{whole}00"),
            &format!("{}zz", &whole[..62]),
            &long,
        ] {
            assert!(
                matches!(
                    MasterKey::parse(text.as_bytes()),
                    Err(MasterKeyFault::WrongForm)
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn patterns_and_passphrases_are_refused() {
        let mut counting = [0; 32];
        for (at, byte) in (0_u8..).zip(&mut counting) {
            *byte = at;
        }
        let mut few = [0; 32];
        for (at, byte) in (0_u8..).zip(&mut few) {
            *byte = [1, 7, 200, 9][usize::from(at % 4)];
        }
        for weak in [
            [0; 32],
            [0xff; 32],
            counting,
            few,
            *b"correct horse battery staple, ok",
        ] {
            assert!(matches!(
                MasterKey::parse(hex::encode(weak).as_bytes()),
                Err(MasterKeyFault::Weak)
            ));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("master");
        fs::write(&path, hex::encode(random())).expect("written");
        let with_mode = |mode, source: &MasterKeySource| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            MasterKey::read(source)
        };
        let file = MasterKeySource::File(path.clone());
        let credential = MasterKeySource::Credential(path.clone());
        assert!(with_mode(0o600, &file).is_ok());
        assert!(with_mode(0o400, &file).is_ok());
        for mode in [0o640, 0o604, 0o660, 0o644] {
            assert!(
                matches!(with_mode(mode, &file), Err(MasterKeyFault::TooOpen { .. })),
                "{mode:o}"
            );
        }
        assert!(with_mode(0o440, &credential).is_ok());
        assert!(matches!(
            with_mode(0o444, &credential),
            Err(MasterKeyFault::TooOpen { .. })
        ));
    }

    #[test]
    fn what_is_not_a_file_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = MasterKeySource::File(folder.path().to_owned());
        assert!(matches!(
            MasterKey::read(&source),
            Err(MasterKeyFault::NotAFile(_))
        ));
        let absent = MasterKeySource::File(folder.path().join("absent"));
        assert!(matches!(
            MasterKey::read(&absent),
            Err(MasterKeyFault::Unreadable { .. })
        ));
    }

    #[test]
    fn the_configured_path_wins_then_the_variable_then_the_credential() {
        let folder = tempfile::tempdir().expect("a folder");
        let credential = folder.path().join("master-key");
        let both = |name: &str| match name {
            MASTER_KEY_FILE => Some(OsString::from("/from/variable")),
            _ => None,
        };
        let only_folder = |name: &str| {
            (name == CREDENTIALS_DIRECTORY).then(|| folder.path().as_os_str().to_owned())
        };
        let file = |path: &str| MasterKeySource::File(PathBuf::from(path));
        assert_eq!(
            MasterKeySource::find(Some(Path::new("/a")), both).expect("found"),
            file("/a")
        );
        assert_eq!(
            MasterKeySource::find(None, both).expect("found"),
            file("/from/variable")
        );
        assert!(matches!(
            MasterKeySource::find(None, only_folder),
            Err(MasterKeyFault::NotConfigured)
        ));
        fs::write(&credential, "x").expect("written");
        assert_eq!(
            MasterKeySource::find(None, only_folder).expect("found"),
            MasterKeySource::Credential(credential)
        );
    }

    #[test]
    fn debug_shows_nothing() {
        let key = MasterKey::parse(hex::encode(random()).as_bytes()).expect("random");
        assert_eq!(format!("{key:?}"), "MasterKey([secret])");
    }
}
