//! Inputs made with the simulator: what Apple's and macOS's encoders could send, and what they
//! never would.

mod attestation_objects;
mod chains;
mod provider;
mod replies;
mod signatures;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use attestd_sim::clock::DAY_MS;
use tempfile::TempDir;

/// 2026-10-01T09:30:07Z, when the fixtures were issued too.
const ISSUED_MS: i64 = 1_790_847_007_000;

/// The folder that holds them all, made once in a run.
pub(super) fn folder() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let shelf = Shelf(folder.path());
        chains::put(&shelf).expect("OpenSSL");
        attestation_objects::put(&shelf).expect("OpenSSL");
        provider::put(&shelf).expect("OpenSSL");
        replies::put(&shelf);
        signatures::put(&shelf).expect("OpenSSL");
        folder
    });
    folder.path().to_owned()
}

struct Shelf<'a>(&'a Path);

impl Shelf<'_> {
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).expect("written");
    }
}
