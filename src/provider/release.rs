//! Releases of the provider software: which programs may run in a session that is routable.
//!
//! A release says nothing of a Mac: a program that is unknown or withdrawn ends `routable` and
//! touches nothing else. What was registered stays in the list, with all that happened to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::members::{Malformed, Members};
use super::version::Version;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest registration read.
pub const MAX_REGISTRATION: usize = 64 * 1024;

/// The longest reason of a withdrawal, and the longest URL, in bytes.
const LONGEST_TEXT: usize = 2048;

/// SHA-256 of a program: 64 hexadecimal digits, in lower case only, so that a hash has one text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
pub struct BinaryHash([u8; 32]);

/// What a program runs on, such as `macos-arm64`: lower-case letters, digits, hyphens, at most 32.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[a-z0-9-]{1,32}$")]
pub struct Platform(String);

/// One registered program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub binary_hash: BinaryHash,
    pub platform: Platform,
    pub version: Version,
    #[serde(flatten)]
    pub details: Details,
    pub registered_at: Timestamp,
    /// Once withdrawn, for ever: a corrected program has another hash.
    pub revoked: Option<Revocation>,
}

/// What is recorded with a release and decides nothing here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub backend: Option<String>,
    pub bundle_hash: Option<BinaryHash>,
    pub metallib_hash: Option<BinaryHash>,
    pub python_hash: Option<BinaryHash>,
    pub runtime_hash: Option<BinaryHash>,
    /// By the template's name.
    pub template_hashes: BTreeMap<String, BinaryHash>,
    pub url: Option<String>,
    pub changelog: Option<String>,
}

/// The withdrawal of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub at: Timestamp,
    /// For people: why.
    pub reason: String,
}

/// What a registration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub binary_hash: BinaryHash,
    pub platform: Platform,
    pub version: Version,
    pub details: Details,
}

/// What the registry says of a program that stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ReleaseStanding)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Active,
    Revoked,
}

/// Why a registration or a withdrawal is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseRefusal {
    #[error("the registration is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The hash stands in the registry with another version or other details.
    #[error("this program is registered otherwise")]
    Contradiction,
    /// A withdrawn program is not registered again.
    #[error("this program was withdrawn")]
    Revoked,
    #[error("there is no such release")]
    Unknown,
    /// A withdrawal without a reason, or with one that is too long.
    #[error("a withdrawal has a reason of at most {LONGEST_TEXT} bytes")]
    NoReason,
}

impl ReleaseRefusal {
    /// Its code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(Malformed::TooLarge(_)) => Reason::RequestTooLarge,
            Self::Malformed(_) | Self::Contradiction | Self::NoReason => Reason::RequestMalformed,
            Self::Revoked => Reason::ReleaseRevoked,
            Self::Unknown => Reason::ReleaseUnknown,
        }
    }
}

impl BinaryHash {
    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        let is_lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        (is_lower && hex::decode_to_slice(text, &mut hash).is_ok()).then_some(Self(hash))
    }

    /// A hash from its bytes.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Platform {
    /// Reads the name of a platform.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        is_name.then(|| Self(text.to_owned()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self("macos-arm64".to_owned())
    }
}

const KNOWN: &[&str] = &[
    "backend",
    "binary_hash",
    "bundle_hash",
    "changelog",
    "metallib_hash",
    "platform",
    "python_hash",
    "runtime_hash",
    "template_hashes",
    "url",
    "version",
];

/// The backend whose programs come with a Metal library.
const WITH_METALLIB: &str = "mlx-swift";

impl Registration {
    /// Reads a registration. `binary_hash` and `version` must be there; `platform` is `macos-arm64`
    /// where it is not said; `template_hashes` is a text of `name=sha256` with commas between.
    ///
    /// # Refusals
    /// Unknown members, hashes that are not 64 lower-case hexadecimal digits, a version that is not a
    /// semantic version, a URL that is not `https`, no `metallib_hash` with the backend `mlx-swift`.
    pub fn parse(body: &[u8]) -> Result<Self, ReleaseRefusal> {
        let mut members = Members::read(body, MAX_REGISTRATION, KNOWN)?;
        members.refuse_others(KNOWN)?;
        let version =
            Version::parse(&members.text("version")?).map_err(|_| Malformed::Form("version"))?;
        let platform = match members.optional_text("platform")? {
            None => Platform::default(),
            Some(text) => Platform::parse(&text).ok_or(Malformed::Form("platform"))?,
        };
        let backend = optional(&mut members, "backend", LONGEST_TEXT)?;
        let url = optional(&mut members, "url", LONGEST_TEXT)?;
        if url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
            return Err(Malformed::Form("url").into());
        }
        let metallib_hash = hash(&mut members, "metallib_hash")?;
        if backend.as_deref() == Some(WITH_METALLIB) && metallib_hash.is_none() {
            return Err(Malformed::Missing("metallib_hash").into());
        }
        Ok(Self {
            binary_hash: hash(&mut members, "binary_hash")?
                .ok_or(Malformed::Missing("binary_hash"))?,
            platform,
            version,
            details: Details {
                backend,
                bundle_hash: hash(&mut members, "bundle_hash")?,
                metallib_hash,
                python_hash: hash(&mut members, "python_hash")?,
                runtime_hash: hash(&mut members, "runtime_hash")?,
                template_hashes: templates(&mut members)?,
                url,
                changelog: optional(&mut members, "changelog", MAX_REGISTRATION)?,
            },
        })
    }

    /// The release that is new to the registry, in which `known` stands for this hash and platform;
    /// nothing when the same was said before.
    ///
    /// # Refusals
    /// [`ReleaseRefusal::Contradiction`], [`ReleaseRefusal::Revoked`].
    pub fn register(
        self,
        known: Option<&Release>,
        now: Timestamp,
    ) -> Result<Option<Release>, ReleaseRefusal> {
        let Some(known) = known else {
            return Ok(Some(Release {
                binary_hash: self.binary_hash,
                platform: self.platform,
                version: self.version,
                details: self.details,
                registered_at: now,
                revoked: None,
            }));
        };
        if known.revoked.is_some() {
            return Err(ReleaseRefusal::Revoked);
        }
        // The texts of versions: build metadata is no part of their precedence.
        let is_same =
            known.version.as_str() == self.version.as_str() && known.details == self.details;
        if is_same {
            Ok(None)
        } else {
            Err(ReleaseRefusal::Contradiction)
        }
    }
}

fn optional(
    members: &mut Members,
    name: &'static str,
    longest: usize,
) -> Result<Option<String>, Malformed> {
    match members.optional_text(name)? {
        Some(text) if text.len() > longest || text.contains('\0') => Err(Malformed::Form(name)),
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}

fn hash(members: &mut Members, name: &'static str) -> Result<Option<BinaryHash>, Malformed> {
    let text = optional(members, name, LONGEST_TEXT)?;
    text.map(|text| BinaryHash::parse(&text).ok_or(Malformed::Form(name)))
        .transpose()
}

fn templates(members: &mut Members) -> Result<BTreeMap<String, BinaryHash>, Malformed> {
    let fault = Malformed::Form("template_hashes");
    let mut templates = BTreeMap::new();
    let text = optional(members, "template_hashes", MAX_REGISTRATION)?.unwrap_or_default();
    for entry in text.split(',').filter(|_| !text.is_empty()) {
        let (name, hash) = entry.split_once('=').ok_or_else(|| fault.clone())?;
        let hash = BinaryHash::parse(hash).ok_or_else(|| fault.clone())?;
        if name.is_empty() || templates.insert(name.to_owned(), hash).is_some() {
            return Err(fault);
        }
    }
    Ok(templates)
}

impl Release {
    /// What it says of a session that runs it.
    pub fn standing(&self) -> Standing {
        match self.revoked {
            None => Standing::Active,
            Some(_) => Standing::Revoked,
        }
    }

    /// Withdraws it. A second withdrawal changes nothing: the first time and reason stand.
    ///
    /// # Refusals
    /// [`ReleaseRefusal::NoReason`].
    pub fn revoke(&mut self, reason: &str, now: Timestamp) -> Result<(), ReleaseRefusal> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > LONGEST_TEXT || reason.contains('\0') {
            return Err(ReleaseRefusal::NoReason);
        }
        self.revoked.get_or_insert_with(|| Revocation {
            at: now,
            reason: reason.to_owned(),
        });
        Ok(())
    }
}

/// The newest release for a platform that is not withdrawn and not for testers only; of one version
/// registered twice, the later.
pub fn latest<'a>(registry: &'a [Release], platform: &Platform) -> Option<&'a Release> {
    registry
        .iter()
        .filter(|release| release.platform == *platform && release.revoked.is_none())
        .filter(|release| !release.version.is_pre_release())
        .max_by(|a, b| (&a.version, a.registered_at).cmp(&(&b.version, b.registered_at)))
}

/// 64 hexadecimal digits.
impl fmt::Display for BinaryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BinaryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BinaryHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BinaryHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not 64 lower-case hexadecimal digits"))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not the name of a platform"))
    }
}
impl utoipa::ToSchema for Registration {
    fn name() -> std::borrow::Cow<'static, str> {
        "ReleaseRegistration".into()
    }
}

/// Read by hand, because no member may stand there twice.
impl utoipa::PartialSchema for Registration {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder};
        let mut schema = ObjectBuilder::new()
            .description(Some("A program of the provider."))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .required("binary_hash")
            .required("version");
        for name in KNOWN {
            let member = match *name {
                "platform" => Platform::schema(),
                "version" => Version::schema(),
                name if name.ends_with("_hash") => BinaryHash::schema(),
                _ => String::schema(),
            };
            schema = schema.property(*name, member);
        }
        schema.into()
    }
}
