//! One change, and the one form it is written in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::public::{Public, Words};
use super::verb::Verb;
use super::who::Who;
use crate::json;
use crate::time::Timestamp;

/// Version of the form.
const VERSION: u8 = 1;

/// What was so before, or is so after: names and values, none of them an object.
pub type Facts = BTreeMap<String, Value>;

/// One change that somebody made.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub at: Timestamp,
    pub who: Who,
    pub what: Verb,
    /// What was changed: an id, or a name.
    pub subject: String,
    pub before: Facts,
    pub after: Facts,
    /// In the words of who did it; empty where nothing was said.
    pub why: String,
}

/// A text is no entry, or not in the form entries are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Entry {
    /// `who` did this to `subject`.
    pub fn new(who: &Who, what: Verb, subject: impl Public, now: Timestamp) -> Self {
        Self {
            at: now,
            who: who.clone(),
            what,
            subject: match subject.shown() {
                Value::String(text) => text,
                other => other.to_string(),
            },
            before: Facts::new(),
            after: Facts::new(),
            why: String::new(),
        }
    }

    /// This was so before.
    #[must_use]
    pub fn before(mut self, name: &str, value: impl Public) -> Self {
        self.before.insert(name.to_owned(), value.shown());
        self
    }

    /// This is so since.
    #[must_use]
    pub fn after(mut self, name: &str, value: impl Public) -> Self {
        self.after.insert(name.to_owned(), value.shown());
        self
    }

    /// It was done for this reason.
    #[must_use]
    pub fn why(mut self, why: Words<'_>) -> Self {
        why.0.clone_into(&mut self.why);
        self
    }

    /// The text that is kept and hashed: JSON without spaces, names sorted at each level.
    pub fn encode(&self, seq: i64) -> String {
        let members: BTreeMap<&str, Value> = BTreeMap::from([
            ("v", json!(VERSION)),
            ("seq", json!(seq)),
            ("at", json!(self.at)),
            ("who", json!(self.who.members())),
            ("what", json!(self.what.as_str())),
            ("subject", json!(self.subject)),
            ("before", json!(self.before)),
            ("after", json!(self.after)),
            ("why", json!(self.why)),
        ]);
        json!(members).to_string()
    }

    /// Reads a kept text, with the number it has. What [`Entry::encode`] would have written otherwise is
    /// refused: one entry, one text.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(text: &str) -> Result<(i64, Self), Unreadable> {
        let read = || {
            let mut members = json::object(text.as_bytes()).ok()?;
            let mut take = |name: &str| members.shift_remove(name);
            let word = |value: Option<Value>| match value? {
                Value::String(text) => Some(text),
                _ => None,
            };
            let seq = take("seq")?.as_i64()?;
            let facts = |value: Option<Value>| serde_json::from_value::<Facts>(value?).ok();
            let who = serde_json::from_value(take("who")?).ok()?;
            let entry = Self {
                at: Timestamp::parse(&word(take("at"))?).ok()?,
                who: Who::of(who)?,
                what: Verb::from_word(&word(take("what"))?)?,
                subject: word(take("subject"))?,
                before: facts(take("before"))?,
                after: facts(take("after"))?,
                why: word(take("why"))?,
            };
            (entry.encode(seq) == text).then_some((seq, entry))
        };
        read().ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ApiTokenId, DeviceId};

    fn revocation() -> Entry {
        let who = Who::Token {
            id: ApiTokenId::parse("tok_01J8ZZZZZZZZZZZZZZZZZZZZZZ").expect("an id"),
            label: "operator \"one\"".to_owned(),
        };
        let mac = DeviceId::parse("dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ").expect("an id");
        let now = Timestamp::from_millis(1_789_905_600_123);
        Entry::new(&who, Verb::DeviceRevoke, &mac, now)
            .before("revoked", false)
            .after("revoked", true)
            .after("identities_withdrawn", 2_u64)
            .why(Words("stolen, she says: \u{fc}ber Nacht"))
    }

    #[test]
    fn an_entry_has_one_form() {
        let text = revocation().encode(7);
        assert_eq!(
            text,
            r#"{"after":{"identities_withdrawn":2,"revoked":true},"at":"2026-09-20T12:00:00.123Z","before":{"revoked":false},"seq":7,"subject":"dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ","v":1,"what":"device.revoke","who":{"id":"tok_01J8ZZZZZZZZZZZZZZZZZZZZZZ","kind":"token","label":"operator \"one\""},"why":"stolen, she says: über Nacht"}"#
        );
        assert_eq!(Entry::read(&text), Ok((7, revocation())));
    }

    #[test]
    fn another_form_of_an_entry_is_none() {
        let text = revocation().encode(7);
        let others = [
            text.replace("\"seq\":7", "\"seq\":07"),
            text.replace("\"seq\":7", "\"seq\": 7"),
            text.replace("\"v\":1,", "\"v\":2,"),
            text.replace("\"v\":1,", ""),
            text.replace("device.revoke", "device.enlighten"),
            text.replace("\"kind\":\"token\"", "\"kind\":\"ghost\""),
            text.replace("\"kind\":", "\"user\":\"x\",\"kind\":"),
            text.replace("\"why\"", "\"more\":1,\"why\""),
            format!("{text}\n"),
            "[]".to_owned(),
            String::new(),
        ];
        for other in others {
            assert_eq!(Entry::read(&other), Err(Unreadable), "{other}");
        }
    }

    #[test]
    fn words_are_kept_for_ever() {
        for verb in Verb::ALL {
            assert_eq!(Verb::from_word(verb.as_str()), Some(*verb));
        }
        let mut words: Vec<_> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Verb::ALL.len());
    }

    #[test]
    fn each_kind_of_person_is_read_as_it_was_written() {
        let id = ApiTokenId::parse("tok_01J8ZZZZZZZZZZZZZZZZZZZZZZ").expect("an id");
        let label = "x".to_owned();
        for who in [
            Who::Token { id, label },
            Who::Certificate {
                name: "coordinator 1".to_owned(),
                id: "spiffe://example.org/coordinator".to_owned(),
            },
            Who::Oidc {
                issuer: "https://id.example.org".to_owned(),
                subject: "248289761001".to_owned(),
                name: Some("ann".to_owned()),
            },
            Who::Oidc {
                issuer: "https://id.example.org".to_owned(),
                subject: "248289761001".to_owned(),
                name: None,
            },
            Who::CommandLine {
                user: "alice".to_owned(),
            },
            Who::ReleaseKey,
            Who::Service,
        ] {
            let entry = Entry {
                who,
                ..revocation()
            };
            assert_eq!(Entry::read(&entry.encode(1)), Ok((1, entry)));
        }
    }
}
