//! Versions of the provider software: Semantic Versioning 2.0.0.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest text that is read; real ones have six to twenty characters.
const LONGEST: usize = 64;

/// A version, ordered by precedence (section 11 of the specification). Two versions that differ only
/// in build metadata are equal in precedence, and here in every respect.
#[derive(Clone)]
pub struct Version {
    text: String,
    core: [u64; 3],
    /// Pre-release identifiers; none for a release.
    pre: Vec<Identifier>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    // Section 11.4.3: numeric identifiers stand below the others.
    Number(u64),
    Word(String),
}

/// The text is not a semantic version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a semantic version such as 0.8.16")]
pub struct NotAVersion;

impl Version {
    /// Reads `MAJOR.MINOR.PATCH[-pre-release][+build]`.
    pub fn parse(text: &str) -> Result<Self, NotAVersion> {
        if text.len() > LONGEST {
            return Err(NotAVersion);
        }
        let (rest, build) = split(text, '+');
        let (core, pre) = split(rest, '-');
        let numbers: Vec<_> = core.split('.').map(number).collect();
        let [Some(major), Some(minor), Some(patch)] = numbers[..] else {
            return Err(NotAVersion);
        };
        let pre = match pre {
            None => Vec::new(),
            Some(pre) => pre
                .split('.')
                .map(identifier)
                .collect::<Option<_>>()
                .ok_or(NotAVersion)?,
        };
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return Err(NotAVersion);
        }
        Ok(Self {
            text: text.to_owned(),
            core: [major, minor, patch],
            pre,
        })
    }

    /// Whether it is meant for testers only (section 9).
    pub fn is_pre_release(&self) -> bool {
        !self.pre.is_empty()
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is `major.minor.patch` or later; pre-releases of that version are earlier.
    pub fn is_at_least(&self, major: u64, minor: u64, patch: u64) -> bool {
        match self.core.cmp(&[major, minor, patch]) {
            Ordering::Less => false,
            Ordering::Equal => self.pre.is_empty(),
            Ordering::Greater => true,
        }
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Section 2: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let is_shortest = text == "0" || !text.starts_with('0');
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number && is_shortest)
        .then(|| text.parse().ok())
        .flatten()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn identifier(text: &str) -> Option<Identifier> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        number(text).map(Identifier::Number)
    } else {
        is_word(text).then(|| Identifier::Word(text.to_owned()))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.core.cmp(&other.core).then_with(|| {
            match (self.is_pre_release(), other.is_pre_release()) {
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                _ => self.pre.cmp(&other.pre),
            }
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl utoipa::ToSchema for Version {}

impl utoipa::PartialSchema for Version {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::json::text_schema("A semantic version.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect(text)
    }

    #[test]
    fn versions_are_ordered_as_the_specification_orders_them() {
        // Section 11, its own example, and what a comparison of texts would get wrong.
        let ascending = [
            "0.8.9",
            "0.8.15-rc.1",
            "0.8.15",
            "0.8.100",
            "0.10.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ];
        for pair in ascending.windows(2) {
            assert!(version(pair[0]) < version(pair[1]), "{pair:?}");
        }
        assert_eq!(version("1.0.0+a"), version("1.0.0+b"));
        assert_eq!(version("1.0.0+a").as_str(), "1.0.0+a");
        assert!(version("1.0.0-x-y.7").is_pre_release());
    }

    #[test]
    fn what_came_with_a_release_is_not_in_its_pre_releases() {
        for (text, expected) in [
            ("0.8.14", false),
            ("0.8.15-rc.1", false),
            ("0.8.15", true),
            ("0.8.15+5", true),
            ("0.8.16-dev", true),
            ("0.9.0", true),
            ("1.0.0-alpha", true),
        ] {
            assert_eq!(version(text).is_at_least(0, 8, 15), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            "1.0.00",
            "01.0.0",
            "1.0.-1",
            "1.0.0-",
            "1.0.0-01",
            "1.0.0-a..b",
            "1.0.0+",
            "1.0.0-ä",
            " 1.0.0",
            "1.0.0\n",
            "1.0.99999999999999999999",
        ] {
            assert_eq!(Version::parse(bad).err(), Some(NotAVersion), "{bad:?}");
        }
        assert!(Version::parse(&format!("1.0.0-{}", "a".repeat(100))).is_err());
    }
}
