//! Whom a receiver names: subject identifiers (RFC 9493, SSF 1.0 section 3).

use serde_json::{Map, Value};

use super::Transmitter;
use super::member::{LONGEST, Malformed};
use crate::ids::DeviceId;

/// Simple formats with the members that each must have.
const SIMPLE: [(&str, &[&str]); 9] = [
    ("account", &["uri"]),
    ("email", &["email"]),
    ("iss_sub", &["iss", "sub"]),
    ("opaque", &["id"]),
    ("phone_number", &["phone_number"]),
    ("did", &["url"]),
    ("uri", &["uri"]),
    ("jwt_id", &["iss", "jti"]),
    ("saml_assertion_id", &["issuer", "assertion_id"]),
];

/// Members of a complex subject.
const COMPLEX: [&str; 7] = [
    "user",
    "device",
    "session",
    "application",
    "tenant",
    "org_unit",
    "group",
];

/// Identifiers in one `aliases`.
const MOST_ALIASES: usize = 16;

/// The formats a receiver may name a Mac by.
const OF_MACS: &str = "a Mac is named by complex, iss_sub or opaque";

/// A well-formed subject identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Map<String, Value>);

impl Subject {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`]: another format, or other members than its format has.
    pub fn read(value: &Value) -> Result<Self, Malformed> {
        let members = value.as_object().ok_or_else(|| wrong("is an object"))?;
        check(members, true)?;
        Ok(Self(members.clone()))
    }

    /// The Mac it names, by the name it is kept under: its pseudonym, or its id in the internal API. `None`
    /// for what can name no Mac here.
    pub fn mac(&self, transmitter: &Transmitter) -> Option<String> {
        let (device, rest) = match self.format() {
            "complex" => (self.0.get("device")?.as_object()?, Some(&self.0)),
            _ => (&self.0, None),
        };
        if let Some(complex) = rest {
            let all = transmitter.subject("");
            let ours = |(name, value): (&String, &Value)| {
                ["format", "device"].contains(&name.as_str()) || all.get(name) == Some(value)
            };
            if !complex.iter().all(ours) {
                return None;
            }
        }
        let text = |name: &str| device.get(name).and_then(Value::as_str);
        match text("format")? {
            "iss_sub" if text("iss") == Some(&transmitter.issuer) => text("sub").map(str::to_owned),
            "opaque" => DeviceId::parse(text("id")?).ok().map(|id| id.to_string()),
            _ => None,
        }
    }

    fn format(&self) -> &str {
        self.0
            .get("format")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

fn wrong(what: &str) -> Malformed {
    Malformed(format!("a subject {what}; {OF_MACS}"))
}

fn check(members: &Map<String, Value>, is_outermost: bool) -> Result<(), Malformed> {
    let format = members.get("format").and_then(Value::as_str);
    let format = format.ok_or_else(|| wrong("has a format"))?;
    if let Some((_, names)) = SIMPLE.iter().find(|(name, _)| *name == format) {
        let is_text = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| (1..=LONGEST).contains(&text.len()))
        };
        let whole = names
            .iter()
            .all(|name| members.get(*name).is_some_and(is_text));
        return match whole && members.len() == 1 + names.len() {
            true => Ok(()),
            false => Err(wrong(&format!(
                "of the format {format} has {}",
                names.join(", ")
            ))),
        };
    }
    let inner = |value: &Value| {
        let members = value.as_object().ok_or_else(|| wrong("is an object"))?;
        check(members, false)
    };
    match format {
        "complex" if is_outermost => {
            let mut parts = members
                .iter()
                .filter(|(name, _)| *name != "format")
                .peekable();
            if parts.peek().is_none() {
                return Err(wrong("of the format complex has members"));
            }
            parts.try_for_each(|(name, value)| match COMPLEX.contains(&name.as_str()) {
                true => inner(value),
                false => Err(wrong(&format!("has no member {name:?}"))),
            })
        }
        "aliases" if is_outermost => {
            let all = members.get("identifiers").and_then(Value::as_array);
            let all =
                all.filter(|all| (1..=MOST_ALIASES).contains(&all.len()) && members.len() == 2);
            let all = all.ok_or_else(|| wrong("of the format aliases has identifiers"))?;
            all.iter().try_for_each(inner)
        }
        _ => Err(wrong("is of a format that is known")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn transmitter() -> Transmitter {
        Transmitter {
            issuer: "https://mdm.example.org".to_owned(),
            url: "https://inside.example.org".to_owned(),
            tenant: Some("fleet".to_owned()),
        }
    }

    fn mac(value: Value) -> Option<String> {
        Subject::read(&value)
            .expect("well formed")
            .mac(&transmitter())
    }

    #[test]
    fn a_mac_is_named_as_its_tokens_name_it_or_by_its_id() {
        let transmitter = transmitter();
        assert_eq!(mac(transmitter.subject("p")), Some("p".to_owned()));
        let iss = &transmitter.issuer;
        let bare = json!({ "format": "iss_sub", "iss": iss, "sub": "p" });
        assert_eq!(mac(bare.clone()), Some("p".to_owned()));
        let without_tenant = json!({ "format": "complex", "device": bare });
        assert_eq!(mac(without_tenant), Some("p".to_owned()));
        let id = "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ";
        assert_eq!(
            mac(json!({ "format": "opaque", "id": id })),
            Some(id.to_owned())
        );
    }

    #[test]
    fn what_names_somebody_else_names_no_mac() {
        let bare = json!({ "format": "iss_sub", "iss": "https://mdm.example.org", "sub": "p" });
        for other in [
            json!({ "format": "iss_sub", "iss": "https://other.example.org", "sub": "p" }),
            json!({ "format": "email", "email": "someone@example.org" }),
            json!({ "format": "opaque", "id": "something" }),
            json!({ "format": "complex", "user": { "format": "email", "email": "a@example.org" } }),
            json!({ "format": "complex", "device": bare, "user": { "format": "opaque", "id": "u" } }),
            json!({ "format": "complex", "device": bare, "tenant": { "format": "opaque", "id": "another" } }),
            json!({ "format": "aliases", "identifiers": [bare] }),
        ] {
            assert_eq!(mac(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for bad in [
            json!(null),
            json!("p"),
            json!({}),
            json!({ "id": "p" }),
            json!({ "format": "opaque" }),
            json!({ "format": "opaque", "id": "" }),
            json!({ "format": "opaque", "id": 7 }),
            json!({ "format": "opaque", "id": "a", "sub": "b" }),
            json!({ "format": "opaque", "id": "x".repeat(LONGEST + 1) }),
            json!({ "format": "serial_number", "serial_number": "a" }),
            json!({ "format": "complex" }),
            json!({ "format": "complex", "device": "p" }),
            json!({ "format": "complex", "mac": { "format": "opaque", "id": "a" } }),
            json!({ "format": "complex", "device": { "format": "complex", "device": {} } }),
            json!({ "format": "aliases", "identifiers": [] }),
            json!({ "format": "aliases", "identifiers": [{ "format": "aliases", "identifiers": [] }] }),
        ] {
            assert!(Subject::read(&bad).is_err(), "{bad}");
        }
    }
}
