//! Members of what receivers send: typed, or refused with their name.

use serde_json::{Map, Value};

use crate::json;

/// Longest text that is taken from a receiver, where nothing shorter is said.
pub(super) const LONGEST: usize = 1024;

/// What is wrong with a request, for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// A strict object: no name twice, and none that only differs from a known one in its letters' case,
/// which some readers take for it. What is unknown is left alone, as later versions may add to it.
pub(super) fn object(body: &[u8], known: &[&'static str]) -> Result<Map<String, Value>, Malformed> {
    let members = json::object(body).map_err(|fault| Malformed(fault.to_string()))?;
    for name in members.keys() {
        if let Some(meant) = json::respelled(name, known) {
            return Err(Malformed(format!("{name:?} is written {meant:?}")));
        }
    }
    Ok(members)
}

/// A text of 1 to `longest` bytes; none where it is absent.
pub(super) fn text(
    members: &Map<String, Value>,
    name: &str,
    longest: usize,
) -> Result<Option<String>, Malformed> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(Malformed(format!(
            "{name} is a text of 1 to {longest} bytes"
        ))),
    }
}

/// A list of at most `most` texts; none where it is absent.
pub(super) fn texts(
    members: &Map<String, Value>,
    name: &str,
    most: usize,
) -> Result<Option<Vec<String>>, Malformed> {
    let wrong = || Malformed(format!("{name} is a list of at most {most} texts"));
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    let list = value.as_array().filter(|list| list.len() <= most);
    let texts = list.ok_or_else(wrong)?.iter().map(|item| {
        let text = item.as_str().filter(|text| text.len() <= LONGEST);
        text.map(str::to_owned).ok_or_else(wrong)
    });
    texts.collect::<Result<_, _>>().map(Some)
}
