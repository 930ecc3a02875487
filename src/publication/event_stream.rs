//! Events as Server-Sent Events (HTML, 9.2): blocks of text, and why a reader begins anew.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::event;
use crate::ids::DeviceId;

/// How long a client waits before it comes back, in milliseconds.
pub const RETRY_MS: u32 = 3000;

/// A comment, so that nobody takes a quiet stream for a dead one.
pub const HEARTBEAT: &str = ": still here\n\n";

/// One event. `data` is written as one line, whatever is in it.
pub fn block(seq: i64, name: &str, data: &Value) -> String {
    format!("id: {seq}\nevent: {name}\ndata: {data}\n\n")
}

/// How a stream begins: when to come back, and from where, should the connection be lost before the
/// first event.
pub fn opening(cursor: i64) -> String {
    format!("retry: {RETRY_MS}\n{}", mark(cursor))
}

/// Everything up to here was told, or is not what this reader asked for. A block without data is no
/// event to anybody, and moves the id that a client comes back with.
pub fn mark(cursor: i64) -> String {
    format!("id: {cursor}\n\n")
}

/// Why a reader has to list everything again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// The cursor is no number.
    Unknown,
    /// The cursor lies ahead of everything that happened: another server's, or of before a restore.
    Ahead,
    /// Events after the cursor are gone, or so many that listing is less.
    TooOld,
    /// The reader took events more slowly than they came.
    TooSlow,
}

impl Lapse {
    /// The word in `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "cursor_unknown",
            Self::Ahead => "cursor_ahead",
            Self::TooOld => "cursor_too_old",
            Self::TooSlow => "too_slow",
        }
    }
}

/// Tells a reader to list again, and then to go on from `cursor`.
pub fn reset(lapse: Lapse, cursor: i64) -> String {
    let data = json!({ "reason": lapse.as_str(), "cursor": cursor });
    block(cursor, event::RESET, &data)
}

/// What a reader wants to hear of; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    names: Option<BTreeSet<String>>,
    device_id: Option<DeviceId>,
}

impl Wanted {
    /// `names` separated by commas; all where absent.
    ///
    /// # Errors
    /// The first name that no event has.
    pub fn new(names: Option<&str>, device_id: Option<DeviceId>) -> Result<Self, String> {
        let names = names.map(|names| {
            let known = |name: &str| match event::ALL.contains(&name) {
                true => Ok(name.to_owned()),
                false => Err(name.to_owned()),
            };
            names.split(',').map(str::trim).map(known).collect()
        });
        Ok(Self {
            names: names.transpose()?,
            device_id,
        })
    }

    /// Whether an event of this name, about this Mac, is wanted.
    pub fn includes(&self, name: &str, device_id: Option<&DeviceId>) -> bool {
        let named = self.names.as_ref().is_none_or(|names| names.contains(name));
        let about = self.device_id.as_ref();
        named && about.is_none_or(|about| device_id == Some(about))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::time::Timestamp;

    #[test]
    fn an_event_is_one_block_whatever_its_data_says() {
        let data = json!({ "note": "two\nlines, and\r\n\nid: 99" });
        let text = block(7, event::DEVICE_REVOKED, &data);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text:?}");
        assert_eq!(lines[..2], ["id: 7", "event: device.revoked"]);
        let told = lines[2].strip_prefix("data: ").expect("data");
        assert_eq!(serde_json::from_str::<Value>(told).expect("JSON"), data);
        assert_eq!((lines[3], text.matches("\n\n").count()), ("", 1));
    }

    #[test]
    fn a_stream_begins_with_when_and_from_where_to_come_back() {
        assert_eq!(opening(41), "retry: 3000\nid: 41\n\n");
        assert_eq!(
            reset(Lapse::TooSlow, 41),
            "id: 41\nevent: reset\ndata: {\"reason\":\"too_slow\",\"cursor\":41}\n\n"
        );
    }

    #[test]
    fn what_is_not_wanted_is_left_out_and_no_name_is_misspelt() {
        let entropy = SeededEntropy::new(1);
        let [one, other] = [1, 2].map(|at| DeviceId::new(Timestamp::from_seconds(at), &entropy));
        let wanted = Wanted::new(Some("posture.changed, device.revoked"), Some(one.clone()));
        let wanted = wanted.expect("names of events");
        assert!(wanted.includes(event::DEVICE_REVOKED, Some(&one)));
        assert!(!wanted.includes(event::DEVICE_REVOKED, Some(&other)));
        assert!(!wanted.includes(event::DEVICE_REVOKED, None));
        assert!(!wanted.includes(event::CHALLENGE_DUE, Some(&one)));
        assert!(Wanted::default().includes(event::CHALLENGE_DUE, None));
        for names in ["posture.chnged", "", "posture.changed,", "reset"] {
            assert!(Wanted::new(Some(names), None).is_err(), "{names:?}");
        }
    }
}
