//! `attestd verify log`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::source::{Reach, Source};
use super::{Answer, Unreadable, input};
use crate::reason::Reason;
use crate::transparency::note::{Kind, Note, VerifierKey};
use crate::transparency::tile::Content;
use crate::transparency::tree::{consistency, is_consistent, wanted};
use crate::transparency::{Checkpoint, Hashes, Tile, witness};

/// The longest head that is read: a checkpoint, and some witnesses.
const MAX_HEAD: usize = 64 * 1024;
/// The bytes of a full tile of hashes.
const MAX_TILE: usize = 256 * 32;

#[derive(Debug, Args)]
#[command(after_help = "\
Whoever keeps the head of each look, and compares it with what others keep, finds a log that shows
different people different things. docs/verify/log.py reads every entry besides.

Example: attestd verify log https://mdm.example.org/log --vkey \"$(cat log.vkey)\" --since seen --keep seen")]
pub(super) struct Arguments {
    /// The log: below it are its checkpoint and its tiles.
    #[arg(value_parser = Source::parse_url)]
    url: Source,
    /// Its verifier key, from a source that you trust.
    #[arg(long, value_name = "KEY")]
    vkey: String,
    /// The verifier key of a witness that you trust; may be given several times.
    #[arg(long, value_name = "KEY")]
    witness: Vec<String>,
    /// How many of these witnesses must have signed the head. All of them, where it is not said.
    #[arg(long, value_name = "NUMBER")]
    quorum: Option<usize>,
    /// A head that was seen before: the log must have grown out of it. One that is not there yet is passed
    /// over.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Where the head goes, if all is well.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
    /// One line of JSON instead of an indented object.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Unreadable> {
    let unusable = |what: &'static str| move |fault| Unreadable(format!("{what}: {fault}"));
    let key = VerifierKey::read(&arguments.vkey, Kind::Log).map_err(unusable("--vkey"))?;
    let witnesses = arguments.witness.iter();
    let witnesses = witnesses.map(|key| VerifierKey::read(key, Kind::Witness));
    let witnesses: Vec<_> = witnesses
        .collect::<Result<_, _>>()
        .map_err(unusable("--witness"))?;
    let quorum = arguments.quorum.unwrap_or(witnesses.len());
    let bytes = arguments.at("/checkpoint", MAX_HEAD)?;
    let note = text(bytes, &"the checkpoint")?;
    let mut answer = Answer::new(None);
    let head = match head(&note, &key) {
        Ok(head) => head,
        Err(detail) => {
            answer.refuse(&[Reason::SignatureInvalid], detail);
            return Ok(answer);
        }
    };
    answer.member("size", json!(head.size));
    answer.member("root", json!(hex::encode(head.root)));
    let seen = Note::read(&note)
        .ok()
        .and_then(|note| witness::count(&note, &witnesses));
    answer.member("witnesses", json!(seen));
    if seen.is_none_or(|seen| seen < quorum) {
        let detail = "too few witnesses saw the head, or what one signed does not verify";
        answer.refuse(&[Reason::SignatureInvalid], detail.to_owned());
    }
    let former = arguments.since.as_deref().filter(|since| since.exists());
    if let Some(since) = former {
        let former = text(input::bytes_to(since, MAX_HEAD)?, &since.display())?;
        match self::head(&former, &key) {
            Ok(former) => {
                answer.member("grew_from", json!(former.size));
                if !arguments.grew(&former, &head)? {
                    let detail = format!("the log is not the one that had {} entries", former.size);
                    answer.refuse(&[Reason::SignatureInvalid], detail);
                }
            }
            Err(detail) => answer.refuse(&[Reason::SignatureInvalid], format!("--since: {detail}")),
        }
    }
    if let Some(keep) = arguments.keep.as_deref().filter(|_| answer.is_verified()) {
        let kept = std::fs::write(keep, &note);
        kept.map_err(|fault| Unreadable(format!("{}: {fault}", keep.display())))?;
    }
    Ok(answer)
}

impl Arguments {
    fn at(&self, path: &str, most: usize) -> Result<Vec<u8>, Unreadable> {
        self.url.below(path).bytes(&self.reach, most)
    }

    /// By the hashes of the log that prove it, read from its tiles.
    fn grew(&self, former: &Checkpoint, head: &Checkpoint) -> Result<bool, Unreadable> {
        let subtrees = consistency(former.size, head.size).unwrap_or_default();
        let mut known = Hashes::default();
        for run in wanted(&subtrees) {
            let content = Content::Hashes { level: run.level };
            let tiles = Tile::all(content, run.positions.start, head.size);
            for tile in tiles.take_while(|tile| tile.starts_before(run.positions.end)) {
                let bytes = self.at(&format!("/tile/{}", tile.path()), MAX_TILE)?;
                let hashes = tile.hashes(&bytes);
                known.extend(hashes.ok_or_else(|| {
                    Unreadable(format!(
                        "/tile/{} is not as long as it must be",
                        tile.path()
                    ))
                })?);
            }
        }
        let proof = known.proof(&subtrees);
        let proof = proof.ok_or_else(|| Unreadable("the tiles lack hashes".to_owned()))?;
        Ok(is_consistent(
            (former.size, &former.root),
            (head.size, &head.root),
            &proof,
        ))
    }
}

fn text(bytes: Vec<u8>, of: &dyn std::fmt::Display) -> Result<String, Unreadable> {
    String::from_utf8(bytes).map_err(|_| Unreadable(format!("{of} is no text")))
}

/// A head that the log signed.
fn head(note: &str, key: &VerifierKey<'_>) -> Result<Checkpoint, String> {
    let note = Note::read(note).map_err(|fault| fault.to_string())?;
    let head = Checkpoint::read(&note).map_err(|fault| fault.to_string())?;
    match note.is_signed_by(key) {
        Some(true) if head.origin == key.name => Ok(head),
        _ => Err("the head is not signed by this log".to_owned()),
    }
}
