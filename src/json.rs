//! JSON that reads the same to everyone: one object, no member twice, nothing around it.
//!
//! RFC 8259 section 4 leaves the meaning of a repeated name open, and RFC 7515 section 4 demands
//! that header parameter names are unique. What one reader signs must be what another believes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

/// An object whose members are distinct, at every depth.
///
/// Depth is bounded by the reader at 128, number by the caller's cap on the size.
///
/// # Errors
/// Not JSON, no object, trailing bytes, a repeated name.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice(bytes)? {
        Distinct(Value::Object(members)) => Ok(members),
        Distinct(_) => Err(serde_json::Error::custom("not an object")),
    }
}

/// The members of an object, each value as the bytes it came in, without the white space around it:
/// what a signature covers. Names are distinct; what is inside a value is for its own reader.
///
/// # Errors
/// Not JSON, no object, trailing bytes, a repeated name.
pub fn members(bytes: &[u8]) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
    let Raw(members) = serde_json::from_slice(bytes)?;
    Ok(members)
}

/// The one of `known` that `name` is not, but that a reader which ignores case (Go's, which also
/// takes U+017F for `s` and U+212A for `k`) would take it for.
pub fn respelled(name: &str, known: &[&'static str]) -> Option<&'static str> {
    if known.contains(&name) {
        return None;
    }
    let fold = |c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => char::to_ascii_lowercase(&c),
    };
    let is_like = |known: &&&str| known.chars().map(fold).eq(name.chars().map(fold));
    known.iter().find(is_like).copied()
}

struct Raw<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Raw<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawReader).map(Self)
    }
}

struct RawReader;

impl<'de> Visitor<'de> for RawReader {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object without repeated names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &RawValue)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            members.push((name, value));
        }
        let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(A::Error::custom("a name stands twice"));
        }
        Ok(members)
    }
}

struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Distinct(element)) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Distinct(value))) = map.next_entry::<String, Distinct>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

/// The schema of a text that has a form of its own.
pub fn text_schema(description: &str) -> RefOr<Schema> {
    words_schema(description, &[])
}

/// The schema of a text that is one of these words; of any text where there are none.
pub fn words_schema(description: &str, words: &[&str]) -> RefOr<Schema> {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description));
    match words {
        [] => text.into(),
        words => text.enum_values(Some(words.iter().copied())).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_of_distinct_names_is_read() {
        let text = br#" {"a": [1, -2, 1.5, null, true, {"b": "c"}], "d": {}} "#;
        let read = object(text).expect("strict");
        let plain: Value = serde_json::from_slice(text).expect("JSON");
        assert_eq!(Value::Object(read), plain);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for bad in [
            &br#"{"a": 1, "a": 1}"#[..],
            br#"{"a": 1, "\u0061": 2}"#,
            br#"{"a": {"b": 1, "b": 2}}"#,
            br#"{"a": [{"b": 1, "b": 2}]}"#,
            br#"{"a": 1} {}"#,
            br#"{"a": 1},"#,
            br#"{"a": 1,}"#,
            b"{'a': 1}",
            b"[]",
            b"\"a\"",
            b"null",
            b"",
            b"\xef\xbb\xbf{}",
            b"{\"a\": \"\xff\"}",
            br#"{"a": "\ud800"}"#,
            b"{\"a\": NaN}",
        ] {
            assert!(object(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for bad in [
            &br#"{"a": 1, "a": 1}"#[..],
            br#"{"\u0061": 1, "a": 1}"#,
            b"[]",
            b"{} {}",
            b"",
        ] {
            assert!(members(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let deep = [b"{\"a\":".repeat(5_000), b"1".to_vec(), b"}".repeat(5_000)].concat();
        assert!(object(&deep).is_err());
    }

    #[test]
    fn a_member_is_the_bytes_it_came_in() {
        let text = br#" {"a" : {"b" : "x\/y",  "b":1} , "c":[ 1 ] } "#;
        let read = members(text).expect("an object");
        let read: Vec<_> = read
            .iter()
            .map(|(name, raw)| (&**name, raw.get()))
            .collect();
        assert_eq!(read, [("a", r#"{"b" : "x\/y",  "b":1}"#), ("c", "[ 1 ]")]);
    }

    #[test]
    fn a_name_in_other_case_is_a_respelling() {
        let known = ["sipEnabled", "publicKey"];
        for (name, expected) in [
            ("sipEnabled", false),
            ("SipEnabled", true),
            ("SIPENABLED", true),
            ("\u{17f}ipEnabled", true),
            ("public\u{212a}ey", true),
            ("publickey", true),
            ("sip_enabled", false),
            ("other", false),
            ("", false),
        ] {
            assert_eq!(respelled(name, &known).is_some(), expected, "{name}");
        }
    }
}
