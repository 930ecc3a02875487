//! Everything the service keeps is written into one file, sealed, while it runs; and such a file is read.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use crate::backup::{Elsewhere, FORMAT, HEAD, Head, Manifest, Piece, Unreadable};
use crate::keys::vault::{SealedReader, SealedWriter, VaultFault};
use crate::store::{Snapshot, Store, StoreError};
use crate::time::Timestamp;
use crate::transparency::Checkpoint;
use crate::transparency::note::Note;

/// What a backup holds beside the database, and says of itself.
#[derive(Debug)]
pub struct Beside {
    pub made_at: Timestamp,
    pub server_id: String,
    /// The files of the folder of keys: name and content.
    pub keys: Vec<(String, Vec<u8>)>,
    pub elsewhere: Vec<Elsewhere>,
}

/// How far it is: rows that are done, of all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Why a backup could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupFault {
    #[error(transparent)]
    Vault(#[from] VaultFault),
    #[error(transparent)]
    Form(#[from] Unreadable),
    #[error("it is not whole: {0}")]
    NotWhole(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the head of the transparency log in the database cannot be read")]
    Log,
    #[error("it cannot be written")]
    Unwritable(#[from] io::Error),
}

/// Writes a backup: the state of one moment, whoever writes meanwhile. It is whole once this returns.
///
/// # Errors
/// When the database cannot be read, or the file not be written.
pub async fn back_up<W: Write>(
    store: &Store,
    beside: Beside,
    to: SealedWriter<W>,
    progress: Progress<'_>,
) -> Result<(Manifest, W), BackupFault> {
    let snapshot = store.snapshot().await?;
    let manifest = Manifest {
        format: FORMAT,
        made_at: beside.made_at,
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        server_id: beside.server_id,
        database: store.backend().to_owned(),
        schema: store.schema().await?,
        tables: snapshot.tables().to_vec(),
        keys: beside.keys.iter().map(|(name, _)| name.clone()).collect(),
        elsewhere: beside.elsewhere,
        log_size: log_size(&snapshot).await?,
    };
    let mut to = GzEncoder::new(to, Compression::fast());
    let first = Piece::Manifest(Box::new(manifest.clone()));
    to.write_all(&first.encode()?)?;
    for (name, content) in beside.keys {
        to.write_all(&Piece::Key { name, content }.encode()?)?;
    }
    let (mut done, all) = (0, manifest.rows());
    for table in 0..manifest.tables.len() {
        let written = snapshot.rows(table, |rows| {
            done += u64::try_from(rows.len()).unwrap_or(0);
            to.write_all(&Piece::Rows { table, rows }.encode()?)?;
            progress(done, all);
            Ok::<_, BackupFault>(())
        });
        written.await?;
    }
    to.write_all(&Piece::End.encode()?)?;
    Ok((manifest, to.finish()?.finish()?))
}

/// How many entries the log of this state has; none before there was one.
async fn log_size(snapshot: &Snapshot) -> Result<Option<u64>, BackupFault> {
    let Some(head) = snapshot.log_head().await? else {
        return Ok(None);
    };
    let note = Note::read(&head).map_err(|_| BackupFault::Log)?;
    let head = Checkpoint::read(&note).map_err(|_| BackupFault::Log)?;
    Ok(Some(head.size).filter(|size| *size > 0))
}

/// A backup that is read, piece by piece.
#[derive(Debug)]
pub struct Pieces<R: Read> {
    from: GzDecoder<BufReader<SealedReader<R>>>,
    manifest: Manifest,
    /// Rows that were read of each table.
    seen: Vec<u64>,
    keys: usize,
}

impl<R: Read> Pieces<R> {
    /// Reads what a backup says of itself.
    ///
    /// # Errors
    /// A file that does not open, or begins with something else.
    pub fn begin(from: SealedReader<R>) -> Result<Self, BackupFault> {
        let mut from = GzDecoder::new(BufReader::new(from));
        let manifest = match read(&mut from)? {
            Piece::Manifest(manifest) if manifest.format == FORMAT => *manifest,
            _ => return Err(Unreadable.into()),
        };
        Ok(Self {
            from,
            seen: vec![0; manifest.tables.len()],
            keys: 0,
            manifest,
        })
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next piece: a key, or rows. None at the end, when everything was there that the backup says it
    /// holds and its seal was found whole.
    ///
    /// # Errors
    /// A file that was changed, or ends too early.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, BackupFault> {
        let piece = read(&mut self.from)?;
        match &piece {
            Piece::Manifest(_) => return Err(Unreadable.into()),
            Piece::Key { name, .. } => {
                if self.manifest.keys.get(self.keys) != Some(name) {
                    return Err(BackupFault::NotWhole(format!("the key file {name}")));
                }
                self.keys += 1;
            }
            Piece::Rows { table, rows } => {
                let seen = self.seen.get_mut(*table).ok_or(Unreadable)?;
                *seen += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            }
            Piece::End => {
                self.check_whole()?;
                return Ok(None);
            }
        }
        Ok(Some(piece))
    }

    fn check_whole(&mut self) -> Result<(), BackupFault> {
        // The last part of the seal is opened only when it is read to its end.
        let after = self.from.read(&mut [0]);
        let after = after.and_then(|more| {
            let rest = self.from.get_mut().fill_buf()?.len();
            Ok(more + rest)
        });
        match after {
            Ok(0) => {}
            Ok(_) => return Err(BackupFault::NotWhole("more follows its end".to_owned())),
            Err(error) => return Err(fault(&mut self.from, error)),
        }
        if self.keys != self.manifest.keys.len() {
            return Err(BackupFault::NotWhole("key files are missing".to_owned()));
        }
        let lacking = self
            .manifest
            .tables
            .iter()
            .zip(&self.seen)
            .find(|(table, seen)| table.rows != **seen);
        match lacking {
            None => Ok(()),
            Some((table, seen)) => Err(BackupFault::NotWhole(format!(
                "{seen} of {} rows of {}",
                table.rows, table.name
            ))),
        }
    }
}

fn read<R: Read>(from: &mut GzDecoder<BufReader<SealedReader<R>>>) -> Result<Piece, BackupFault> {
    let mut head = [0; HEAD];
    if let Err(error) = from.read_exact(&mut head) {
        return Err(fault(from, error));
    }
    let head = Head::read(head)?;
    let mut bytes = Vec::new();
    let length = u64::try_from(head.length).unwrap_or(u64::MAX);
    match from.take(length).read_to_end(&mut bytes) {
        Ok(found) if found == head.length => Ok(Piece::read(head, &bytes)?),
        Ok(_) => Err(BackupFault::NotWhole("a piece is cut off".to_owned())),
        Err(error) => Err(fault(from, error)),
    }
}

/// What is behind an error of reading: the seal says it best.
fn fault<R: Read>(
    from: &mut GzDecoder<BufReader<SealedReader<R>>>,
    error: io::Error,
) -> BackupFault {
    match from.get_mut().get_mut().fault() {
        Some(fault) => fault.into(),
        None => VaultFault::Unreadable(error).into(),
    }
}
