//! A long file sealed under the master key, written and read from the beginning to the end.
//!
//! ```text
//! "attestd backup 1\n" | key id, 8 bytes | salt, 32 bytes | chunks
//! ```
//! The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, 2015), as age has it: each chunk is 64 KiB
//! sealed with AES-256-GCM under a key of this file alone, with its number and whether it is the last in its
//! nonce. So a chunk that was changed, moved, left out or added is seen, and so is an end that is missing.
//! The key of the file follows from the master key and the whole head (HKDF-SHA256), so that the head is
//! authenticated too.

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::MasterKey;
use crate::entropy::{Entropy, draw};
use crate::secret::Secret;

const MAGIC: &[u8; 17] = b"attestd backup 1\n";
/// What every version of this form begins with.
const FAMILY: &[u8] = b"attestd backup ";
const KEY_ID: usize = 8;
const SALT: usize = 32;
const HEADER: usize = MAGIC.len() + KEY_ID + SALT;
/// What is sealed at once, in bytes.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// Why a sealed file does not open.
#[derive(Debug, thiserror::Error)]
pub enum VaultFault {
    #[error("it is no backup of attestd")]
    Foreign,
    #[error(
        "it is a backup in a form that this version of attestd does not know; take a newer one"
    )]
    OtherForm,
    #[error(
        "it was sealed under another master key: under the one named {sealed_under}, and here is {here}"
    )]
    OtherMasterKey { sealed_under: String, here: String },
    #[error("it was changed after it was made: the part from byte {0} on does not open")]
    Changed(u64),
    #[error(
        "its end is missing, or was changed: from byte {0} on nothing opens as the last part of a backup"
    )]
    CutOff(u64),
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
}

/// Writes a sealed file. What was not finished does not open.
#[derive(Debug)]
pub struct SealedWriter<W: Write> {
    to: W,
    cipher: Cipher,
    chunk: Vec<u8>,
}

/// Reads a sealed file.
#[derive(Debug)]
pub struct SealedReader<R: Read> {
    from: R,
    cipher: Cipher,
    /// What was read ahead, to know which chunk is the last.
    ahead: Vec<u8>,
    plain: Vec<u8>,
    read: usize,
    offset: u64,
    ended: bool,
    fault: Option<VaultFault>,
}

struct Cipher {
    key: LessSafeKey,
    number: u64,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

impl Cipher {
    fn new(master: &MasterKey, header: &[u8; HEADER]) -> Self {
        let mut bytes = [0; 32];
        let info = [header.as_slice()];
        Salt::new(HKDF_SHA256, &header[MAGIC.len() + KEY_ID..])
            .extract(master.derive("backup").expose())
            .expand(&info, HKDF_SHA256)
            .and_then(|key| key.fill(&mut bytes))
            .expect("HKDF-SHA256 gives 32 bytes");
        let key = Secret::new(bytes);
        let unbound = UnboundKey::new(&AES_256_GCM, key.expose())
            .expect("the key has the 32 bytes AES-256 takes");
        Self {
            key: LessSafeKey::new(unbound),
            number: 0,
        }
    }

    /// Every chunk has a nonce of its own: the number rises, and only one is the last.
    fn nonce(&self, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, last: bool) {
        self.key
            .seal_in_place_append_tag(self.nonce(last), Aad::empty(), chunk)
            .expect("AES-GCM seals a chunk");
        self.number += 1;
    }

    fn open(&mut self, sealed: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut chunk = sealed.to_vec();
        let opened = self
            .key
            .open_in_place(self.nonce(last), Aad::empty(), &mut chunk);
        let length = opened.ok()?.len();
        chunk.truncate(length);
        self.number += 1;
        Some(chunk)
    }
}

impl<W: Write> SealedWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What writing says.
    pub fn begin(mut to: W, master: &MasterKey, entropy: &dyn Entropy) -> io::Result<Self> {
        let mut header = [0; HEADER];
        let (magic, rest) = header.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        let (id, salt) = rest.split_at_mut(KEY_ID);
        id.copy_from_slice(&master.id());
        salt.copy_from_slice(&draw::<SALT>(entropy));
        to.write_all(&header)?;
        Ok(Self {
            to,
            cipher: Cipher::new(master, &header),
            chunk: Vec::with_capacity(CHUNK + TAG),
        })
    }

    /// Ends the file, and gives back what it was written to.
    ///
    /// # Errors
    /// What writing says.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(true)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn put(&mut self, last: bool) -> io::Result<()> {
        self.cipher.seal(&mut self.chunk, last);
        self.to.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is kept until there is more: it may be the last.
        if self.chunk.len() == CHUNK {
            self.put(false)?;
        }
        let room = CHUNK - self.chunk.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.chunk.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Chunks are whole: what does not fill one waits for the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Read> SealedReader<R> {
    /// Begins to read a file.
    ///
    /// # Errors
    /// A file that is not in this form, or of another master key.
    pub fn begin(mut from: R, master: &MasterKey) -> Result<Self, VaultFault> {
        let head = read_up_to(&mut from, HEADER)?;
        let length = u64::try_from(head.len()).unwrap_or(u64::MAX);
        if !head.starts_with(FAMILY) {
            return Err(VaultFault::Foreign);
        }
        if !head.starts_with(MAGIC) {
            return Err(VaultFault::OtherForm);
        }
        let header: [u8; HEADER] = head.try_into().map_err(|_| VaultFault::CutOff(length))?;
        let named = &header[MAGIC.len()..MAGIC.len() + KEY_ID];
        if named != master.id() {
            return Err(VaultFault::OtherMasterKey {
                sealed_under: hex::encode(named),
                here: hex::encode(master.id()),
            });
        }
        let ahead = read_up_to(&mut from, CHUNK + TAG)?;
        Ok(Self {
            from,
            cipher: Cipher::new(master, &header),
            ahead,
            plain: Vec::new(),
            read: 0,
            offset: length,
            ended: false,
            fault: None,
        })
    }

    /// Why reading ended, where it ended by a fault.
    pub fn fault(&mut self) -> Option<VaultFault> {
        self.fault.take()
    }

    fn open_next(&mut self) -> Result<(), VaultFault> {
        let next = read_up_to(&mut self.from, CHUNK + TAG)?;
        let sealed = std::mem::replace(&mut self.ahead, next);
        let last = self.ahead.is_empty();
        let Some(plain) = self.cipher.open(&sealed, last) else {
            // What stands at the end of the file and does not open as its last part was cut in two, was
            // followed by more, or was changed.
            return Err(if last {
                VaultFault::CutOff(self.offset)
            } else {
                VaultFault::Changed(self.offset)
            });
        };
        self.offset += u64::try_from(sealed.len()).unwrap_or(u64::MAX);
        self.ended = last;
        self.plain = plain;
        self.read = 0;
        Ok(())
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plain.len() && !self.ended {
            if let Err(fault) = self.open_next() {
                // Nothing more is read after a fault.
                self.ended = true;
                self.plain.clear();
                self.read = 0;
                let text = fault.to_string();
                self.fault = Some(fault);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let rest = &self.plain[self.read..];
        let length = rest.len().min(to.len());
        to[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

/// So many bytes, or fewer at the end.
fn read_up_to(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    from.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn master(seed: u64) -> MasterKey {
        let text = hex::encode(draw::<32>(&SeededEntropy::new(seed)));
        MasterKey::parse(text.as_bytes()).expect("random enough")
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let entropy = SeededEntropy::new(9);
        let mut writer = SealedWriter::begin(Vec::new(), &master(1), &entropy).expect("begins");
        writer.write_all(plain).expect("written");
        writer.finish().expect("finished")
    }

    fn opened(file: &[u8], seed: u64) -> Result<Vec<u8>, VaultFault> {
        let mut reader = SealedReader::begin(file, &master(seed))?;
        let mut plain = Vec::new();
        match reader.read_to_end(&mut plain) {
            Ok(_) => Ok(plain),
            Err(error) => Err(reader.fault().unwrap_or(VaultFault::Unreadable(error))),
        }
    }

    fn plain(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn what_was_sealed_opens_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
            let plain = plain(length);
            let found = opened(&sealed(&plain), 1).expect("opens");
            assert!(found == plain, "{length}");
        }
    }

    #[test]
    fn every_byte_counts() {
        let file = sealed(&plain(2 * CHUNK + 100));
        let first = MAGIC.len() + KEY_ID;
        let places = (0..HEADER).chain((HEADER..file.len()).step_by(977));
        for at in places {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let fault = opened(&changed, 1).expect_err("changed");
            let expected = match at {
                _ if at < FAMILY.len() => matches!(fault, VaultFault::Foreign),
                _ if at < MAGIC.len() => matches!(fault, VaultFault::OtherForm),
                _ if at < first => matches!(fault, VaultFault::OtherMasterKey { .. }),
                _ if at < HEADER + 2 * (CHUNK + TAG) => matches!(fault, VaultFault::Changed(_)),
                _ => matches!(fault, VaultFault::CutOff(_)),
            };
            assert!(expected, "byte {at}: {fault}");
        }
    }

    #[test]
    fn an_end_that_is_missing_is_seen_wherever_it_was_cut() {
        let file = sealed(&plain(2 * CHUNK + 100));
        let chunk = CHUNK + TAG;
        let cuts = [
            HEADER,
            HEADER + 5,
            HEADER + chunk,
            HEADER + chunk + 40,
            HEADER + 2 * chunk,
            file.len() - 1,
        ];
        for length in cuts {
            let fault = opened(&file[..length], 1).expect_err("cut");
            assert!(matches!(fault, VaultFault::CutOff(_)), "{length}: {fault}");
        }
        assert!(matches!(opened(&file[..10], 1), Err(VaultFault::Foreign)));
        assert!(matches!(opened(&file[..30], 1), Err(VaultFault::CutOff(_))));
    }

    #[test]
    fn chunks_are_not_moved_repeated_or_added() {
        let file = sealed(&plain(2 * CHUNK + 100));
        let chunk = CHUNK + TAG;
        let (header, body) = file.split_at(HEADER);
        let (one, rest) = body.split_at(chunk);
        let (two, last) = rest.split_at(chunk);
        for parts in [
            vec![header, two, one, last],
            vec![header, one, one, two, last],
            vec![header, two, last],
            vec![header, one, two, last, last],
        ] {
            assert!(opened(&parts.concat(), 1).is_err());
        }
    }

    #[test]
    fn another_master_key_is_told_by_its_name() {
        match opened(&sealed(b"rows"), 2) {
            Err(VaultFault::OtherMasterKey { sealed_under, here }) => {
                assert_eq!(sealed_under, hex::encode(master(1).id()));
                assert_eq!(here, hex::encode(master(2).id()));
            }
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn nothing_of_the_plain_text_is_in_the_file() {
        let plain = b"a serial number C02XL3FHJG5J".repeat(4000);
        let file = sealed(&plain);
        let found = file.windows(12).any(|bytes| bytes == b"C02XL3FHJG5J");
        assert!(!found);
    }
}
