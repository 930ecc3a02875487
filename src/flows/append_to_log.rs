//! Something is said to all: it is added to the transparency log, and proved to be in it.
//!
//! Whatever waits is added together, under one new head. Any node adds; the head is held meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::draw_beacon::Beacons;
use super::service_secret::service_secret;
use super::witness_log::{self, Witnesses};
use super::{Context, Failure};
use crate::entropy::Entropy;
use crate::secret::Sealer;
use crate::store::{Store, Write};
use crate::transparency::note::{Note, NoteSigner};
use crate::transparency::tile::{Content, framed};
use crate::transparency::{Checkpoint, Hashes, Proof, Run, Tile, tree};

/// Where the log is served, below the base URL: its name is its address.
pub const PATH: &str = "/log";
/// How old the head in memory may get, on account of other nodes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often an entry is handed to somebody who adds, and goes away.
const TRIES: usize = 3;

/// The log of this service, on one node.
#[derive(Debug)]
pub struct Log {
    signer: NoteSigner,
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
    head: Mutex<Option<(Instant, Arc<Head>)>>,
    /// How large it is, for whoever waits for it to grow.
    size: watch::Sender<u64>,
    pub witnesses: Witnesses,
    /// What nonces are made from, where they are made from heads.
    pub beacon: Beacons,
}

#[derive(Debug)]
struct Waiting {
    entry: Vec<u8>,
    told: oneshot::Sender<Logged>,
}

/// A signed head.
#[derive(Debug)]
pub struct Head {
    pub note: String,
    pub checkpoint: Checkpoint,
}

/// An entry, and the proof that it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub entry: Vec<u8>,
    /// Its place in the log.
    pub index: u64,
    /// A `tlog-proof`.
    pub proof: String,
}

impl Log {
    /// The log of the service at this base URL. Its key is drawn once for a database.
    ///
    /// # Errors
    /// When the key cannot be read, or opened.
    pub async fn open(
        store: &Store,
        sealer: &dyn Sealer,
        entropy: &dyn Entropy,
        base_url: &str,
        witnesses: Witnesses,
        beacon: Beacons,
    ) -> Result<Self, Failure> {
        let seed = service_secret(store, sealer, entropy, "log_key").await?;
        let place = base_url
            .split_once("://")
            .map_or(base_url, |(_, rest)| rest);
        let signer = NoteSigner::new(&format!("{place}{PATH}"), seed.expose());
        let log = Self {
            signer: signer.ok_or(Failure::Inconsistent("the log has no name"))?,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            head: Mutex::default(),
            size: watch::Sender::new(0),
            witnesses,
            beacon,
        };
        witness_log::begin(store, &log).await?;
        Ok(log)
    }

    /// How large the log is, as far as this node knows.
    pub fn growth(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    /// What others check its heads by.
    pub fn verifier_key(&self) -> String {
        self.signer.verifier_key()
    }

    pub(super) fn read(&self, note: String) -> Result<Head, Failure> {
        const UNREADABLE: Failure = Failure::Inconsistent("the head of the log cannot be read");
        let read = Note::read(&note).and_then(|note| Checkpoint::read(&note));
        let checkpoint = read.map_err(|_| UNREADABLE)?;
        if checkpoint.origin != self.signer.name() {
            return Err(Failure::Inconsistent(
                "the log in the database is of another base URL",
            ));
        }
        Ok(Head { note, checkpoint })
    }

    fn sign(&self, size: u64, root: tree::Hash) -> String {
        let origin = self.signer.name().to_owned();
        Checkpoint { origin, size, root }.sign(&self.signer)
    }

    pub(super) fn keep(&self, head: Head) -> Arc<Head> {
        let mut kept = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        // Two who added may come here in another order; the log never shrinks.
        let newest = match kept.take() {
            Some((_, known)) if known.checkpoint.size > head.checkpoint.size => known,
            _ => Arc::new(head),
        };
        *kept = Some((Instant::now(), Arc::clone(&newest)));
        let size = newest.checkpoint.size;
        self.size.send_if_modified(|known| {
            let grew = size > *known;
            *known = size.max(*known);
            grew
        });
        newest
    }
}

/// Adds an entry, together with whatever else waits, and proves it.
///
/// # Errors
/// When it cannot be stored; nobody knows then whether it was.
pub async fn append(ctx: &Context, log: &Log, entry: Vec<u8>) -> Result<Logged, Failure> {
    for _ in 0..TRIES {
        let (told, mut answer) = oneshot::channel();
        let waiting = || log.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entry.clone();
        waiting().push(Waiting { entry, told });
        let _turn = log.turn.lock().await;
        if let Ok(logged) = answer.try_recv() {
            return Ok(logged);
        }
        let batch = std::mem::take(&mut *waiting());
        let (entries, told): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| (waiting.entry, waiting.told))
            .unzip();
        if entries.is_empty() {
            // Whoever had taken it went away.
            continue;
        }
        let mut tx = ctx.store.write().await?;
        let (logged, head) = append_in(&mut tx, log, entries).await?;
        tx.commit().await?;
        log.keep(head);
        for (logged, told) in logged.into_iter().zip(told) {
            // Whoever does not wait any more has nothing to be told.
            let _ = told.send(logged);
        }
        if let Ok(logged) = answer.try_recv() {
            return Ok(logged);
        }
    }
    Err(Failure::NotLogged)
}

/// Adds entries in a transaction. The head counts once that is committed; nobody else adds until then, not
/// even where nothing is added here.
pub(super) async fn append_in(
    tx: &mut Write,
    log: &Log,
    entries: Vec<Vec<u8>>,
) -> Result<(Vec<Logged>, Head), Failure> {
    const INCOMPLETE: Failure = Failure::Inconsistent("the log lacks hashes");
    let empty = Hashes::default().root(0).ok_or(INCOMPLETE)?;
    let before = tx.hold_log_head(&log.sign(0, empty)).await?;
    let before = log.read(before)?;
    if entries.is_empty() {
        return Ok((Vec::new(), before));
    }
    let before = before.checkpoint;
    let mut hashes = tx.log_hashes(&tree::wanted_for_root(before.size)).await?;
    if hashes.root(before.size) != Some(before.root) {
        return Err(Failure::Inconsistent(
            "the log in the database is not the one that was signed",
        ));
    }
    let leaves: Vec<_> = entries.iter().map(|entry| tree::leaf(entry)).collect();
    let new = hashes.grow(before.size, &leaves).ok_or(INCOMPLETE)?;
    let count = u64::try_from(leaves.len()).map_err(|_| INCOMPLETE)?;
    let size = before.size + count;
    let head = Head {
        note: log.sign(size, hashes.root(size).ok_or(INCOMPLETE)?),
        checkpoint: Checkpoint {
            origin: before.origin,
            size,
            root: hashes.root(size).ok_or(INCOMPLETE)?,
        },
    };
    tx.append_to_log(before.size, &entries, &new, &head.note)
        .await?;
    let logged = (before.size..)
        .zip(entries)
        .map(|(index, entry)| {
            let path = tree::inclusion(index, size)?;
            let proof = Proof {
                index,
                hashes: hashes.proof(&path)?,
                checkpoint: &head.note,
            };
            let proof = proof.to_string();
            Some(Logged {
                entry,
                index,
                proof,
            })
        })
        .collect::<Option<_>>()
        .ok_or(INCOMPLETE)?;
    Ok((logged, head))
}

/// The newest head, as of a moment ago; `None` while the log is empty.
///
/// # Errors
/// When it cannot be read.
pub async fn head(ctx: &Context, log: &Log) -> Result<Option<Arc<Head>>, Failure> {
    let kept = || log.head.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((read_at, head)) = kept().as_ref()
        && read_at.elapsed() < LOOK_AGAIN
    {
        return Ok(Some(Arc::clone(head)));
    }
    let found = ctx.store.read().await?.log_head().await?;
    found.map(|note| Ok(log.keep(log.read(note)?))).transpose()
}

/// What stands in a tile; `None` when the log has none such (yet).
///
/// # Errors
/// When it cannot be read.
pub async fn tile(ctx: &Context, log: &Log, tile: &Tile) -> Result<Option<Vec<u8>>, Failure> {
    let Some(head) = head(ctx, log).await? else {
        return Ok(None);
    };
    let positions = tile
        .positions()
        .filter(|_| tile.is_of(head.checkpoint.size));
    let Some(positions) = positions else {
        return Ok(None);
    };
    let tx = ctx.store.read().await?;
    let (bytes, count) = match tile.content {
        Content::Hashes { level } => {
            let hashes = tx.log_hashes(&[Run { level, positions }]).await?;
            (hashes.concat(), hashes.len())
        }
        Content::Entries => {
            let entries = tx.log_entries(positions).await?;
            let framed: Option<Vec<_>> = entries.iter().map(|entry| framed(entry)).collect();
            let framed = framed.ok_or(Failure::Inconsistent("an entry is too long"))?;
            (framed.concat(), entries.len())
        }
    };
    if u64::try_from(count).ok() != Some(tile.width) {
        return Err(Failure::Inconsistent("the log lacks a part"));
    }
    Ok(Some(bytes))
}
