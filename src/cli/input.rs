//! What commands read besides the database.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, stdin};
use std::path::Path;

use anyhow::{Context as _, bail};

/// The lines of a file, or of standard input for `-`.
pub(super) fn lines(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(stdin())));
    }
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// A whole file, or standard input for `-`, of at most `most` bytes.
pub(super) fn whole(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    lines(path)?
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    if bytes.len() > most {
        bail!("{} is larger than {most} bytes", path.display());
    }
    Ok(bytes)
}

/// The text of a file such as a secret or roots.
pub(super) fn text_of(path: &Path) -> anyhow::Result<String> {
    const MAX_FILE: usize = 64 * 1024;
    String::from_utf8(whole(path, MAX_FILE)?)
        .with_context(|| format!("{} holds no text", path.display()))
}
