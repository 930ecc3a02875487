//! Replies that are streamed as Server-Sent Events: their hash is known only at their end, so signature
//! and hash stand in a last event before `[DONE]`, over all bytes before that event.

use serde_json::Value;

use super::Proof;
use crate::json;

/// What ends a stream of completions.
const DONE: &[u8] = b"data: [DONE]\n\n";
const DATA: &[u8] = b"data: ";

/// A stream up to the event that has its signature.
pub(super) struct Sealed<'a> {
    pub covered: &'a [u8],
    pub proof: Proof,
}

/// Reads the end of a stream; nothing if it is not the end of one that was signed. The event may hold
/// nothing but the signature and what a chunk must have, because nobody signs it.
pub(super) fn sealed(body: &[u8]) -> Option<Sealed<'_>> {
    let events = body.strip_suffix(DONE)?.strip_suffix(b"\n\n")?;
    let begins = events
        .windows(2)
        .rposition(|pair| pair == b"\n\n")
        .map_or(0, |at| at + 2);
    let event = events[begins..].strip_prefix(DATA)?;
    let mut members = json::object(event).ok()?;
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (signature, hash) = (text("se_signature")?, text("response_hash")?);
    let is_empty = |choices: &Value| choices.as_array().is_some_and(Vec::is_empty);
    let further = members.remove("choices");
    if !members.is_empty() || !further.iter().all(is_empty) {
        return None;
    }
    Some(Sealed {
        covered: &body[..begins],
        proof: Proof::read(&signature, &hash).ok()?,
    })
}
