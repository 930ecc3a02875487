//! A snapshot of the fleet, so that a policy can be checked on another machine: JSON lines, first
//! what it is of, then one Mac a line.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The form this is.
const FORM: &str = "attestd-fleet/1";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderV1 {
    snapshot: String,
    /// As of when: the Macs in it are judged at this time.
    pub at: Timestamp,
    /// The server it is of.
    pub server: String,
    /// The text of the policy in force.
    pub policy: String,
}

impl HeaderV1 {
    /// The header of a snapshot that is made now.
    pub fn new(server: String, policy: String, now: Timestamp) -> Self {
        Self {
            snapshot: FORM.to_owned(),
            at: now,
            server,
            policy,
        }
    }

    /// Reads a first line; `None` when it is not one of this form.
    pub fn parse(line: &str) -> Option<Self> {
        let header: Self = serde_json::from_str(line).ok()?;
        (header.snapshot == FORM).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_is_read_back_and_nothing_else_is_one() {
        let at = Timestamp::from_seconds(1_790_847_007);
        let header = HeaderV1::new("https://mdm.example.org".into(), "name = \"x\"".into(), at);
        let line = serde_json::to_string(&header).expect("JSON");
        assert_eq!(HeaderV1::parse(&line), Some(header));
        for other in ["", "{}", "{\"device_id\":\"x\"}", &line.replace("/1", "/2")] {
            assert_eq!(HeaderV1::parse(other), None, "{other}");
        }
    }
}
