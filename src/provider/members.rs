//! Reading the members of a JSON object that the provider or the coordinator sends.
//!
//! What one reader signs must be what another believes, so a repeated name, or a known name in other
//! letters (the coordinator's decoder ignores case), refuses the whole.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::json;
use crate::reason::Reason;

/// Why an object is not of the form it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Larger than anything honest.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// Not JSON, no object, or a name that stands twice in one.
    #[error("not one JSON object in which every name stands once")]
    NotAnObject,
    /// A known name in other letters.
    #[error("a member is called like {0} in other letters")]
    Respelled(&'static str),
    /// A member that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member of another type or form than it must have.
    #[error("{0} has not the form it must have")]
    Form(&'static str),
    /// A member nobody knows, where all must be known.
    #[error("an unknown member")]
    Unknown,
}

impl Malformed {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::TooLarge(_) => Reason::RequestTooLarge,
            Self::Missing(_) => Reason::FieldMissing,
            Self::NotAnObject | Self::Respelled(_) | Self::Form(_) | Self::Unknown => {
                Reason::AnswerMalformed
            }
        }
    }
}

/// The members of one object, by name. A `null` is a member that is not there: writers that do not
/// leave absent members out write it.
#[derive(Debug)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Reads an object of at most `most` bytes, with `known` the names that mean something.
    pub(super) fn read(
        bytes: &[u8],
        most: usize,
        known: &[&'static str],
    ) -> Result<Self, Malformed> {
        if bytes.len() > most {
            return Err(Malformed::TooLarge(most));
        }
        let members = json::object(bytes).map_err(|_| Malformed::NotAnObject)?;
        let mut respelled = members
            .keys()
            .filter_map(|name| json::respelled(name, known));
        match respelled.next() {
            Some(known) => Err(Malformed::Respelled(known)),
            None => Ok(Self(members)),
        }
    }

    /// All members must be among `known`.
    pub(super) fn refuse_others(&self, known: &[&'static str]) -> Result<(), Malformed> {
        match self.0.keys().all(|name| known.contains(&name.as_str())) {
            true => Ok(()),
            false => Err(Malformed::Unknown),
        }
    }

    /// A text; an empty one is one.
    pub(super) fn optional_text(
        &mut self,
        name: &'static str,
    ) -> Result<Option<String>, Malformed> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::Form(name)),
        }
    }

    /// A text that is there, and not empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, Malformed> {
        let text = self.optional_text(name)?.filter(|text| !text.is_empty());
        text.ok_or(Malformed::Missing(name))
    }

    /// `true` or `false`, and nothing that could be taken for one.
    pub(super) fn optional_flag(&mut self, name: &'static str) -> Result<Option<bool>, Malformed> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Malformed::Form(name)),
        }
    }

    /// `true` or `false`, which must be there.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Malformed> {
        self.optional_flag(name)?.ok_or(Malformed::Missing(name))
    }

    /// An array of texts; empty when it is not there.
    pub(super) fn list(&mut self, name: &'static str) -> Result<Vec<String>, Malformed> {
        let values = match self.0.remove(name) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(values)) => values,
            Some(_) => return Err(Malformed::Form(name)),
        };
        let texts = values.into_iter().map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err(Malformed::Form(name)),
        });
        texts.collect()
    }

    /// An object of texts, by name in the order of their bytes; empty when it is not there.
    pub(super) fn texts(
        &mut self,
        name: &'static str,
    ) -> Result<BTreeMap<String, String>, Malformed> {
        let values = match self.0.remove(name) {
            None | Some(Value::Null) => return Ok(BTreeMap::new()),
            Some(Value::Object(values)) => values,
            Some(_) => return Err(Malformed::Form(name)),
        };
        let texts = values.into_iter().map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            _ => Err(Malformed::Form(name)),
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["text", "flag", "list", "texts"];

    fn read(text: &str) -> Result<Members, Malformed> {
        Members::read(text.as_bytes(), 1000, KNOWN)
    }

    #[test]
    fn members_have_the_types_they_must_have() {
        let mut members = read(
            r#"{"text": "a", "flag": false, "list": ["b"], "texts": {"c": "d"}, "other": [{}]}"#,
        )
        .expect("an object");
        assert_eq!(members.refuse_others(KNOWN), Err(Malformed::Unknown));
        assert_eq!(members.text("text").as_deref(), Ok("a"));
        assert_eq!(members.flag("flag"), Ok(false));
        assert_eq!(members.list("list"), Ok(vec!["b".to_owned()]));
        let texts = members.texts("texts").expect("texts");
        assert_eq!(texts, BTreeMap::from([("c".to_owned(), "d".to_owned())]));
    }

    #[test]
    fn nothing_else_passes_for_a_flag_a_text_or_a_list() {
        for value in ["0", "1", "\"true\"", "{}", "[true]"] {
            let mut members = read(&format!("{{\"flag\": {value}}}")).expect("an object");
            assert_eq!(
                members.flag("flag"),
                Err(Malformed::Form("flag")),
                "{value}"
            );
        }
        for value in ["0", "true", "{}", "[\"a\"]"] {
            let mut members = read(&format!("{{\"text\": {value}}}")).expect("an object");
            assert_eq!(
                members.text("text"),
                Err(Malformed::Form("text")),
                "{value}"
            );
        }
        for (name, value) in [
            ("list", "{}"),
            ("list", "[1]"),
            ("texts", "[]"),
            ("texts", "{\"a\": 1}"),
        ] {
            let mut members = read(&format!("{{\"{name}\": {value}}}")).expect("an object");
            let faults = (members.list("list").err(), members.texts("texts").err());
            assert!(matches!(
                faults,
                (Some(Malformed::Form("list")), None) | (None, Some(Malformed::Form("texts")))
            ));
        }
    }

    #[test]
    fn what_is_not_there_is_missing_and_null_is_not_there() {
        for text in [
            "{}",
            r#"{"text": null, "flag": null, "list": null, "texts": null}"#,
        ] {
            let mut members = read(text).expect("an object");
            assert_eq!(members.optional_text("text"), Ok(None));
            assert_eq!(members.optional_flag("flag"), Ok(None));
            assert_eq!(members.list("list"), Ok(Vec::new()));
            assert_eq!(members.texts("texts"), Ok(BTreeMap::new()));
            assert_eq!(members.text("text"), Err(Malformed::Missing("text")));
            assert_eq!(members.flag("flag"), Err(Malformed::Missing("flag")));
        }
        let mut members = read(r#"{"text": ""}"#).expect("an object");
        assert_eq!(members.text("text"), Err(Malformed::Missing("text")));
        assert_eq!(Malformed::Missing("text").reason(), Reason::FieldMissing);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for (text, fault) in [
            (r#"{"flag": true, "flag": true}"#, Malformed::NotAnObject),
            (
                r#"{"flag": true, "Flag": true}"#,
                Malformed::Respelled("flag"),
            ),
            (r#"{"FLAG": true}"#, Malformed::Respelled("flag")),
            (r#"{"texts": {"a": "b", "a": "c"}}"#, Malformed::NotAnObject),
            ("[]", Malformed::NotAnObject),
            ("", Malformed::NotAnObject),
        ] {
            let refused = read(text).err();
            assert_eq!(refused.as_ref(), Some(&fault), "{text}");
            assert_eq!(fault.reason(), Reason::AnswerMalformed);
        }
        let large = format!("{{\"text\": \"{}\"}}", "a".repeat(1000));
        assert_eq!(read(&large).err(), Some(Malformed::TooLarge(1000)));
        assert_eq!(Malformed::TooLarge(1000).reason(), Reason::RequestTooLarge);
    }
}
