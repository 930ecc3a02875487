//! A bearer key that a file holds: for a caller that was set up before this service had tokens.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::ids::sha256;
use crate::secret::Secret;

/// The shortest key: 32 characters of hexadecimal hold 128 bits.
const SHORTEST: usize = 32;
/// The longest; a longer file is another one.
const LONGEST: usize = 512;
/// What is written at random has more distinct characters: 32 hexadecimal digits have fewer than 8
/// once in 10^5 keys.
const DISTINCT: usize = 8;

/// A key that a caller presents as it is. Only its hash is kept, and that compared in constant time,
/// so that not even the key's length shows.
#[derive(Debug)]
pub struct BearerKey(Secret<[u8; 32]>);

/// Why a file holds no usable key.
#[derive(Debug, thiserror::Error)]
pub enum BearerKeyFault {
    #[error("the key file {path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("the key {0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("the key file {path} has mode {mode:04o}, so others can use it; set it to 0600")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "the key in {0} is not one word of {SHORTEST} to {LONGEST} printable characters; \
         `openssl rand -hex 32` makes one"
    )]
    WrongForm(PathBuf),
    #[error("the key in {0} repeats itself; it must be random, as `openssl rand -hex 32` makes it")]
    Weak(PathBuf),
}

impl BearerKey {
    /// Reads a key from its file, white space around it.
    ///
    /// # Errors
    /// See [`BearerKeyFault`]; each says what to do.
    pub fn read(path: &Path) -> Result<Self, BearerKeyFault> {
        let unreadable = |cause| BearerKeyFault::Unreadable {
            path: path.to_owned(),
            cause,
        };
        // Asked before opening: opening a FIFO would wait for its writer.
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(BearerKeyFault::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(BearerKeyFault::TooOpen { path, mode });
        }
        let most = LONGEST + 16;
        let mut text = Zeroizing::new(Vec::with_capacity(most));
        file.take(most as u64)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        let key = text.trim_ascii();
        let is_word = key.iter().all(u8::is_ascii_graphic);
        if !(SHORTEST..=LONGEST).contains(&key.len()) || !is_word {
            return Err(BearerKeyFault::WrongForm(path.to_owned()));
        }
        let mut seen = [false; 256];
        for byte in key {
            seen[usize::from(*byte)] = true;
        }
        if seen.iter().filter(|seen| **seen).count() < DISTINCT {
            return Err(BearerKeyFault::Weak(path.to_owned()));
        }
        Ok(Self(Secret::new(sha256(key))))
    }

    /// Whether this is the key.
    pub fn is(&self, presented: &str) -> bool {
        Secret::new(sha256(presented.as_bytes())) == self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<BearerKey, BearerKeyFault> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        BearerKey::read(&path)
    }

    const GOOD: &str = "5f1d8a90c3b27e64-5f1d8a90c3b27e64";

    #[test]
    fn a_key_is_itself_and_nothing_else() {
        let key = read(&format!(" {GOOD}\n"), 0o600).expect("a key");
        assert!(key.is(GOOD));
        for other in ["", &GOOD[1..], &format!("{GOOD} "), &GOOD.to_uppercase()] {
            assert!(!key.is(other), "{other}");
        }
        assert_eq!(format!("{key:?}"), "BearerKey([secret])");
    }

    #[test]
    fn a_weak_key_is_no_key() {
        let long = GOOD.repeat(17);
        for bad in [
            "",
            "change-me",
            &GOOD[2..],
            "two words 5f1d8a90c3b27e64 5f1d8a",
            &long,
        ] {
            let fault = read(bad, 0o600).expect_err(bad);
            assert!(
                matches!(fault, BearerKeyFault::WrongForm(_)),
                "{bad}: {fault}"
            );
        }
        for steady in ["a".repeat(40), "abcabc".repeat(8)] {
            let fault = read(&steady, 0o600).expect_err(&steady);
            assert!(matches!(fault, BearerKeyFault::Weak(_)), "{fault}");
        }
        for mode in [0o644, 0o640, 0o604] {
            let fault = read(GOOD, mode).expect_err("open to others");
            assert!(matches!(fault, BearerKeyFault::TooOpen { .. }), "{fault}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(
            BearerKey::read(folder.path()),
            Err(BearerKeyFault::NotAFile(_))
        ));
        assert!(matches!(
            BearerKey::read(&folder.path().join("none")),
            Err(BearerKeyFault::Unreadable { .. })
        ));
    }
}
