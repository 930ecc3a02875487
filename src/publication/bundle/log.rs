//! That the result was published to all: a transparency log of C2SP tiles, with RFC 6962 hashing.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::trust::LogTrust;
use super::{By, Common, Fault, Standing, base64, text};
use crate::ids::sha256;
use crate::json;
use crate::reason::Reason;

const FORM: &str = "c2sp.org/tlog-proof@v1";
/// The largest proof that is read: 64 hashes, a checkpoint, some witnesses.
const MAX_PROOF: usize = 64 * 1024;
/// Signature types of verifier keys (C2SP signed-note, tlog-cosignature).
const ED25519_NOTE: u8 = 1;
const ED25519_COSIGNATURE: u8 = 4;

/// The result is an entry of the log, and witnesses saw the log.
pub(super) fn log(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    if !bundle.contains_key("log_entry_b64") && !bundle.contains_key("tlog_proof") {
        return None;
    }
    Some(proved(bundle, common).map(|()| Standing::Proved { by: By::Log }))
}

fn proved(bundle: &Map<String, Value>, common: &Common<'_>) -> Result<(), Fault> {
    let trust = common.trust.log.as_ref();
    let trust = trust.ok_or_else(|| fault("no log is trusted"))?;
    let entry = base64(bundle, "log_entry_b64")?;
    named(&entry, bundle, common)?;
    let proof = Proof::read(text(bundle, "tlog_proof")?)?;
    let checkpoint = Checkpoint::read(proof.checkpoint)?;
    let leaf = sha256(&[&[0], entry.as_slice()].concat());
    let root = root(leaf, proof.index, checkpoint.size, &proof.hashes);
    if root != Some(checkpoint.root) {
        return Err(fault(
            "the proof does not lead to the root of the checkpoint",
        ));
    }
    checkpoint.signed(trust)
}

/// The entry is of this result and this subject.
fn named(entry: &[u8], bundle: &Map<String, Value>, common: &Common<'_>) -> Result<(), Fault> {
    let entry = json::object(entry).map_err(|error| Fault::form(error.to_string()))?;
    let ear = hex::encode(sha256(text(bundle, "ear")?.as_bytes()));
    let is_ours = entry.get("v") == Some(&Value::from(1))
        && text(&entry, "type")? == "posture"
        && text(&entry, "subject")? == common.subject
        && text(&entry, "ear_sha256")? == ear;
    if is_ours {
        Ok(())
    } else {
        Err(fault("the entry is of another result"))
    }
}

struct Proof<'a> {
    index: u64,
    hashes: Vec<[u8; 32]>,
    checkpoint: &'a str,
}

impl<'a> Proof<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        let form = || Fault::form("the proof is no c2sp.org/tlog-proof@v1");
        if text.len() > MAX_PROOF {
            return Err(form());
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or_else(form)?;
        let mut lines = head.lines();
        if lines.next() != Some(FORM) {
            return Err(form());
        }
        let mut lines = lines.skip_while(|line| line.starts_with("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index.and_then(number).ok_or_else(form)?;
        let hashes = lines.map(hash).collect::<Option<_>>().ok_or_else(form)?;
        Ok(Self {
            index,
            hashes,
            checkpoint,
        })
    }
}

struct Checkpoint<'a> {
    /// What is signed, with its last newline.
    text: &'a str,
    origin: &'a str,
    size: u64,
    root: [u8; 32],
    /// Name, and what stands after it.
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Checkpoint<'a> {
    fn read(note: &'a str) -> Result<Self, Fault> {
        let form = || Fault::form("the checkpoint is none");
        if !note.ends_with('\n') {
            return Err(form());
        }
        let end = note.find("\n\n").ok_or_else(form)? + 1;
        let (text, rest) = note.split_at(end);
        let mut lines = text.lines();
        let origin = lines
            .next()
            .filter(|line| !line.is_empty())
            .ok_or_else(form)?;
        let size = lines.next().and_then(number).ok_or_else(form)?;
        let root = lines.next().and_then(hash).ok_or_else(form)?;
        let signatures = rest.trim_start_matches('\n').lines().map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            Some((name, STANDARD.decode(signature).ok()?))
        });
        Ok(Self {
            text,
            origin,
            size,
            root,
            signatures: signatures.collect::<Option<_>>().ok_or_else(form)?,
        })
    }

    /// By the log, and by as many witnesses as are wanted.
    fn signed(&self, trust: &LogTrust) -> Result<(), Fault> {
        let log = VerifierKey::read(&trust.log).ok_or_else(|| fault("log_vkey is no key"))?;
        if log.name != self.origin || !self.is_signed_by(&log)? {
            return Err(fault("the checkpoint is not signed by the trusted log"));
        }
        let witnesses = trust.witnesses.iter().map(|key| VerifierKey::read(key));
        let witnesses: Option<Vec<_>> = witnesses.collect();
        let witnesses = witnesses.ok_or_else(|| fault("a witness is no key"))?;
        let mut seen: Vec<&str> = Vec::new();
        for key in &witnesses {
            if self.is_signed_by(key)? {
                seen.push(key.name);
            }
        }
        seen.sort_unstable();
        seen.dedup();
        if seen.len() < trust.quorum {
            return Err(fault("too few witnesses saw the checkpoint"));
        }
        Ok(())
    }

    /// Whether it is signed by this key. One that is signed wrongly in its name is refused whole (C2SP
    /// signed-note).
    fn is_signed_by(&self, key: &VerifierKey<'_>) -> Result<bool, Fault> {
        let by = self.signatures.iter().filter(|(name, _)| *name == key.name);
        let mut found = false;
        for signature in by.filter_map(|(_, signature)| signature.strip_prefix(&key.id)) {
            if !key.verifies(self.text, signature) {
                return Err(fault("a signature of a trusted key does not verify"));
            }
            found = true;
        }
        Ok(found)
    }
}

/// A key of a signed note: `name+keyID+base64(type‖key)`.
struct VerifierKey<'a> {
    name: &'a str,
    id: [u8; 4],
    kind: u8,
    key: Vec<u8>,
}

impl<'a> VerifierKey<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (rest, key) = split_at_plus(text)?;
        let (name, id) = rest.rsplit_once('+')?;
        let key = STANDARD.decode(key).ok()?;
        let (kind, public) = key.split_first()?;
        let made = sha256(&[name.as_bytes(), b"\n", key.as_slice()].concat());
        let id: [u8; 4] = hex::decode(id).ok()?.try_into().ok()?;
        (made.starts_with(&id) && public.len() == 32).then(|| Self {
            name,
            id,
            kind: *kind,
            key: public.to_vec(),
        })
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.key);
        match self.kind {
            ED25519_NOTE => key.verify(text.as_bytes(), signature).is_ok(),
            ED25519_COSIGNATURE => {
                signature
                    .split_first_chunk::<8>()
                    .is_some_and(|(time, rest)| {
                        let time = u64::from_be_bytes(*time);
                        let message = format!("cosignature/v1\ntime {time}\n{text}");
                        key.verify(message.as_bytes(), rest).is_ok()
                    })
            }
            _ => false,
        }
    }
}

/// The key may have a `+` of base64; the two before it are the separators.
fn split_at_plus(text: &str) -> Option<(&str, &str)> {
    let first = text.find('+')?;
    let second = first + 1 + text[first + 1..].find('+')?;
    Some((&text[..second], &text[second + 1..]))
}

/// RFC 9162 section 2.1.3.2: the root that an inclusion proof leads to.
fn root(leaf: [u8; 32], index: u64, size: u64, proof: &[[u8; 32]]) -> Option<[u8; 32]> {
    if index >= size {
        return None;
    }
    let node = |left: &[u8; 32], right: &[u8; 32]| sha256(&[&[1], &left[..], &right[..]].concat());
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// A decimal number in its only form.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn hash(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn fault(detail: &str) -> Fault {
    Fault::new(Reason::SignatureInvalid, detail)
}
