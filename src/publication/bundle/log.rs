//! That the result, and the provider's program, were published to all: a transparency log of C2SP tiles, with RFC 6962 hashing.

use serde_json::{Map, Value};

use super::trust::LogTrust;
use super::{By, Common, Fault, Standing, base64, part, text};
use crate::attestation::freshness::Beacon;
use crate::ids::sha256;
use crate::json;
use crate::provider::Blob;
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::transparency::note::{Kind, Note, VerifierKey};
use crate::transparency::{Checkpoint, Malformed, Proof, tree, witness};

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

/// The program that the provider runs is a release that was registered for all to see. Whether it was withdrawn
/// since, only the log itself says.
pub(super) fn release(
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Option<Result<Standing, Fault>> {
    let value = bundle.get("release")?;
    Some(released(value, bundle, common).map(|()| Standing::Proved { by: By::Log }))
}

fn released(value: &Value, bundle: &Map<String, Value>, common: &Common<'_>) -> Result<(), Fault> {
    let part = part(value)?;
    let entry = in_log(part, common)?;
    let is_release = entry.get("v") == Some(&Value::from(1))
        && entry.get("type") == Some(&Value::from("release"))
        && entry.get("revoked") == Some(&Value::from(false));
    if !is_release {
        return Err(fault("the entry registers no release"));
    }
    for name in ["version", "platform", "binary_hash"] {
        if text(&entry, name)? != text(part, name)? {
            return Err(fault("the entry is of another release"));
        }
    }
    let program = text(part, "binary_hash")?;
    if let Some(registration) = bundle.get("registration") {
        let raw = base64(self::part(registration)?, "attestation_raw_b64")?;
        let blob = Blob::parse(&raw).map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
        let said = blob.unverified_report().binary_hash.as_deref();
        runs(said.is_none_or(|said| said == program))?;
    }
    let answer = bundle.get("challenge").and_then(Value::as_object);
    if let Some(answer) = answer.filter(|answer| answer.contains_key("status_raw_b64")) {
        let status = base64(answer, "status_raw_b64")?;
        let status = json::object(&status).map_err(|error| Fault::form(error.to_string()))?;
        let said = status.get("binary_hash");
        runs(said.is_none_or(|said| said.as_str() == Some(program)))?;
    }
    Ok(())
}

fn runs(it: bool) -> Result<(), Fault> {
    if it {
        return Ok(());
    }
    let detail = "the provider says that it runs another program";
    Err(Fault::new(Reason::ReleaseUnknown, detail))
}

fn proved(bundle: &Map<String, Value>, common: &Common<'_>) -> Result<(), Fault> {
    named(&in_log(bundle, common)?, bundle, common)
}

/// The log had this head, of this time: the entry that the part brings was the last of it, and is in the log that
/// is trusted.
pub(super) fn had_head(
    part: &Map<String, Value>,
    beacon: &Beacon,
    common: &Common<'_>,
) -> Result<(), Fault> {
    let logged = look_up(part, common)?;
    if logged.origin != beacon.origin {
        return Err(fault("the nonce was made from another log"));
    }
    if (logged.size_then, logged.root_then) != (beacon.size, beacon.root) {
        return Err(fault("the log did not have the head of the nonce"));
    }
    let iat = logged.entry.get("iat").and_then(Value::as_i64);
    if iat.map(Timestamp::from_seconds) != Some(beacon.head_at) {
        return Err(fault("the head is of another time"));
    }
    Ok(())
}

/// The entry that a part brings, which is in the log that is trusted.
fn in_log(part: &Map<String, Value>, common: &Common<'_>) -> Result<Map<String, Value>, Fault> {
    look_up(part, common).map(|logged| logged.entry)
}

/// An entry of the log that is trusted.
struct Logged {
    entry: Map<String, Value>,
    origin: String,
    /// When the entry was its last.
    size_then: u64,
    root_then: tree::Hash,
}

fn look_up(part: &Map<String, Value>, common: &Common<'_>) -> Result<Logged, Fault> {
    let trust = common.trust.log.as_ref();
    let trust = trust.ok_or_else(|| fault("no log is trusted"))?;
    let entry = base64(part, "log_entry_b64")?;
    let proof = Proof::read(text(part, "tlog_proof")?).map_err(form)?;
    let note = Note::read(proof.checkpoint).map_err(form)?;
    let checkpoint = Checkpoint::read(&note).map_err(form)?;
    let leaf = tree::leaf(&entry);
    let roots = tree::roots_of_inclusion(leaf, proof.index, checkpoint.size, &proof.hashes);
    let Some(roots) = roots.filter(|roots| roots.whole == checkpoint.root) else {
        return Err(fault(
            "the proof does not lead to the root of the checkpoint",
        ));
    };
    signed(&note, &checkpoint.origin, trust)?;
    let entry = json::object(&entry).map_err(|error| Fault::form(error.to_string()))?;
    Ok(Logged {
        entry,
        origin: checkpoint.origin,
        size_then: proof.index + 1,
        root_then: roots.then,
    })
}

/// The entry is of this result and this subject.
fn named(
    entry: &Map<String, Value>,
    bundle: &Map<String, Value>,
    common: &Common<'_>,
) -> Result<(), Fault> {
    let ear = hex::encode(sha256(text(bundle, "ear")?.as_bytes()));
    let is_ours = entry.get("v") == Some(&Value::from(1))
        && text(entry, "type")? == "posture"
        && text(entry, "subject")? == common.subject
        && text(entry, "ear_sha256")? == ear;
    if is_ours {
        Ok(())
    } else {
        Err(fault("the entry is of another result"))
    }
}

/// By the log, and by as many witnesses as are wanted.
fn signed(note: &Note<'_>, origin: &str, trust: &LogTrust) -> Result<(), Fault> {
    const WRONG: &str = "a signature of a trusted key does not verify";
    let log = VerifierKey::read(&trust.log, Kind::Log);
    let log = log.map_err(|unusable| fault(&format!("log_vkey: {unusable}")))?;
    let is_signed = note.is_signed_by(&log).ok_or_else(|| fault(WRONG))?;
    if log.name != origin || !is_signed {
        return Err(fault("the checkpoint is not signed by the trusted log"));
    }
    let witnesses = trust.witnesses.iter();
    let witnesses = witnesses.map(|key| VerifierKey::read(key, Kind::Witness));
    let witnesses: Vec<_> = witnesses
        .collect::<Result<_, _>>()
        .map_err(|unusable| fault(&format!("witness_vkeys: {unusable}")))?;
    let seen = witness::count(note, &witnesses).ok_or_else(|| fault(WRONG))?;
    if seen < trust.quorum {
        return Err(fault("too few witnesses saw the checkpoint"));
    }
    Ok(())
}

fn form(error: Malformed) -> Fault {
    Fault::form(error.to_string())
}

fn fault(detail: &str) -> Fault {
    Fault::new(Reason::SignatureInvalid, detail)
}
