//! Reading what the caller names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Unreadable;
use crate::attestation::Anchors;
use crate::pki::{OwnedCertificate, PkiError, read_certificates};
use crate::time::{Clock, SystemClock, Timestamp};

/// Largest input; what is larger is nothing honest. Every reader of a format has a lower bound.
pub(super) const MAX_INPUT: usize = 4 * 1024 * 1024;

/// The bytes of a file, or of standard input for `-`. Of what is too large, one byte more than
/// [`MAX_INPUT`]: enough to say of which format it is, and to refuse it.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, Unreadable> {
    bytes_to(path, MAX_INPUT)
}

/// As [`bytes`], of inputs of another size.
pub(super) fn bytes_to(path: &Path, most: usize) -> Result<Vec<u8>, Unreadable> {
    let most = most as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| Unreadable(format!("{} cannot be read: {error}", path.display())))?;
    Ok(bytes)
}

/// The bytes of a file that holds JSON, or at least begins as an object or array does.
pub(super) fn json(path: &Path) -> Result<Vec<u8>, Unreadable> {
    begins_as_json(bytes(path)?, &path.display())
}

/// Bytes that are JSON, or at least begin as an object or array does.
pub(super) fn begins_as_json(
    bytes: Vec<u8>,
    what: &dyn std::fmt::Display,
) -> Result<Vec<u8>, Unreadable> {
    let begins = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let begins = begins.trim_ascii_start().first();
    let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    if matches!(begins, Some(b'{' | b'[')) || is_json() {
        Ok(bytes)
    } else {
        Err(Unreadable(format!("{what} is not JSON")))
    }
}

/// The certificates in a file. `Ok(Err)` is a certificate that breaks a rule.
pub(super) fn certificates(
    path: &Path,
) -> Result<Result<Vec<OwnedCertificate>, PkiError>, Unreadable> {
    match read_certificates(&bytes(path)?) {
        Ok(certificates) => Ok(Ok(certificates)),
        Err(PkiError::NotACertificate) => Err(Unreadable(format!(
            "{} holds no certificate, PEM or DER",
            path.display()
        ))),
        Err(fault) => Ok(Err(fault)),
    }
}

/// Apple's pinned root, or the one given instead.
pub(super) fn anchors(root: Option<&Path>) -> Result<Anchors, Unreadable> {
    match root {
        None => Anchors::apple().map_err(|fault| Unreadable(format!("the pinned root: {fault}"))),
        Some(path) => Anchors::custom(&bytes(path)?).map_err(|fault| {
            Unreadable(format!(
                "{} is no root certificate: {fault}",
                path.display()
            ))
        }),
    }
}

/// The time given, or now.
pub(super) fn at(at: Option<Timestamp>) -> Timestamp {
    at.unwrap_or_else(|| SystemClock.now())
}

/// For clap: an RFC 3339 time.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

/// For clap: a nonce, 1 to 32 bytes in hexadecimal.
pub(super) fn nonce(text: &str) -> Result<Nonce, String> {
    match hex::decode(text) {
        Ok(bytes) if (1..=32).contains(&bytes.len()) => Ok(Nonce(bytes)),
        _ => Err("a nonce is 1 to 32 bytes in hexadecimal digits".to_owned()),
    }
}

/// A demanded nonce.
#[derive(Debug, Clone)]
pub(super) struct Nonce(pub(super) Vec<u8>);
