//! A link as it is exported: one line of JSON, in which the entry stands byte for byte as it was hashed.

use super::chain::Link;
use super::entry::Unreadable;
use crate::json;

impl Link {
    /// `{"seq":…,"hash":"…","entry":{…}}`, without an end of line.
    pub fn line(&self) -> String {
        let (seq, hash, entry) = (self.seq, hex::encode(self.hash), &self.text);
        format!(r#"{{"seq":{seq},"hash":"{hash}","entry":{entry}}}"#)
    }

    /// Reads what [`Link::line`] writes, in whatever order its members are.
    ///
    /// # Errors
    /// [`Unreadable`] for anything else; what its entry says is not looked at.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        let read = || {
            let (mut seq, mut hash, mut text) = (None, None, None);
            for (name, value) in json::members(line.as_bytes()).ok()? {
                match name.as_str() {
                    "seq" => seq = value.get().parse().ok(),
                    "hash" => hash = serde_json::from_str::<String>(value.get()).ok(),
                    "entry" => text = Some(value.get().to_owned()),
                    _ => return None,
                }
            }
            Some(Self {
                seq: seq?,
                text: text?,
                hash: hex::decode(hash?).ok()?.try_into().ok()?,
            })
        };
        read().ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Head, Verb, Who};
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_line_is_read_as_it_was_written_and_nothing_else_is() {
        let now = Timestamp::from_millis(1_789_905_600_000);
        let entry = Entry::new(&Who::Service, Verb::PolicyUse, "strict", now);
        let link = Head::BEGINNING.then(&entry);
        let line = link.line();
        assert_eq!(Link::read(&line), Ok(link));
        for other in [
            "",
            "{}",
            "[]",
            &line.replace("\"seq\":1,\"hash\"", "\"seq\":1,\"seq\":1,\"hash\""),
            &line.replace("\"seq\":1,\"hash\"", "\"seq\":1.0,\"hash\""),
            &line.replace("\"seq\":1,\"hash\"", "\"hash\""),
            &line.replace("\"entry\"", "\"more\":1,\"entry\""),
            &line[..line.len() - 1],
        ] {
            assert_eq!(Link::read(other), Err(Unreadable), "{other}");
        }
    }
}
