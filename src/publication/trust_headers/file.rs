//! Headers as they were saved: what `curl --dump-header` writes, or header lines alone.
//!
//! Interim replies, redirections and the words of proxies come before the reply and are passed over;
//! what comes after its empty line are trailers, in which a streamed reply has its signature.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Authorization, Proof, TrustHeaders, is_value, name};
use crate::posture::trust::Level;
use crate::provider::SePublicKey;
use crate::reason::Reason;

/// The longest file that is read.
pub const MAX_HEADERS: usize = 64 * 1024;

/// Why these are not the headers of one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadersRefusal {
    #[error("longer than {MAX_HEADERS} bytes")]
    TooLarge,
    #[error("line {0} is no header")]
    NotAHeader(usize),
    #[error("{0} stands twice")]
    Twice(&'static str),
    #[error("{0} has not the form it must have")]
    Form(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} and {1} say different things")]
    Contradiction(&'static str, &'static str),
}

impl HeadersRefusal {
    /// Its code.
    pub fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::RequestTooLarge,
            Self::Missing(_) => Reason::FieldMissing,
            Self::NotAHeader(_) | Self::Twice(_) | Self::Form(_) => Reason::AnswerMalformed,
            Self::Contradiction(name::KEY, _) => Reason::KeyMismatch,
            Self::Contradiction(..) => Reason::EvidenceConflict,
        }
    }
}

impl TrustHeaders {
    /// Reads a file of headers.
    ///
    /// # Refusals
    /// See [`HeadersRefusal`]: a line that is none, a header of ours that stands twice, be it with the
    /// same value, one without the form of its kind, two that contradict each other.
    pub fn read(file: &[u8]) -> Result<Self, HeadersRefusal> {
        if file.len() > MAX_HEADERS {
            return Err(HeadersRefusal::TooLarge);
        }
        let Ok(text) = std::str::from_utf8(file) else {
            return Err(HeadersRefusal::NotAHeader(1));
        };
        let mut known = Known::default();
        for (number, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            // Another reply, to which nothing of the former belongs.
            if line.starts_with("HTTP/") {
                known = Known::default();
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or(HeadersRefusal::NotAHeader(number + 1))?;
            let is_token = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b',';
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(HeadersRefusal::NotAHeader(number + 1));
            }
            known.add(name, value)?;
        }
        known.read()
    }

    /// Reads the headers, and trailers, of a reply.
    ///
    /// # Refusals
    /// As [`TrustHeaders::read`].
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, HeadersRefusal> {
        let mut known = Known::default();
        for (name, value) in pairs {
            known.add(name, value)?;
        }
        known.read()
    }
}

/// Those of the headers that mean something here.
#[derive(Default)]
struct Known<'a>(HashMap<&'static str, &'a str>);

impl<'a> Known<'a> {
    fn add(&mut self, name: &str, value: &'a str) -> Result<(), HeadersRefusal> {
        let ours = name::ALL
            .into_iter()
            .find(|ours| ours.eq_ignore_ascii_case(name));
        let Some(ours) = ours else { return Ok(()) };
        let value = value.trim_matches([' ', '\t']);
        if !is_value(value) {
            return Err(HeadersRefusal::Form(ours));
        }
        match self.0.insert(ours, value) {
            None => Ok(()),
            Some(_) => Err(HeadersRefusal::Twice(ours)),
        }
    }

    fn text(&self, name: &'static str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }

    fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, HeadersRefusal> {
        let value = self.0.get(name);
        let parsed = value.map(|value| parse(value).ok_or(HeadersRefusal::Form(name)));
        parsed.transpose()
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, HeadersRefusal> {
        self.parsed(name, |word| word.parse().ok())
    }

    fn read(&self) -> Result<TrustHeaders, HeadersRefusal> {
        let missing = HeadersRefusal::Missing;
        Ok(TrustHeaders {
            attested: self.flag(name::ATTESTED)?.ok_or(missing(name::ATTESTED))?,
            // Former coordinators wrote `none`.
            level: self.parsed(name::LEVEL, level)?.unwrap_or(Level::None),
            key: self.key()?,
            proof: match (self.0.get(name::SIGNATURE), self.0.get(name::HASH)) {
                (Some(signature), Some(hash)) => {
                    Some(Proof::read(signature, hash).map_err(HeadersRefusal::Form)?)
                }
                (None, None) => None,
                (None, Some(_)) => return Err(missing(name::SIGNATURE)),
                (Some(_), None) => return Err(missing(name::HASH)),
            },
            encrypted: self.flag(name::ENCRYPTED)?.unwrap_or(false),
            provider_id: self.text(name::ID),
            chip: self.text(name::CHIP),
            model: self.text(name::MODEL),
            secure_enclave: self.flag(name::SECURE_ENCLAVE)?,
            mda_verified: self.flag(name::MDA)?.unwrap_or(false),
            serial: self.serial()?,
            verification: self.text(name::VERIFICATION),
            authorization: self.parsed(name::METHOD, Authorization::from_word)?,
        })
    }

    fn key(&self) -> Result<Option<SePublicKey>, HeadersRefusal> {
        let spki = self.parsed(name::KEY, |text| {
            SePublicKey::from_spki(&STANDARD.decode(text).ok()?).ok()
        })?;
        let given = self.parsed(name::KEY_AS_GIVEN, |text| SePublicKey::parse(text).ok())?;
        match (spki, given) {
            (Some(spki), Some(given)) if spki.point() != given.point() => {
                Err(HeadersRefusal::Contradiction(name::KEY, name::KEY_AS_GIVEN))
            }
            (spki, given) => Ok(given.or(spki)),
        }
    }

    fn serial(&self) -> Result<Option<String>, HeadersRefusal> {
        let (one, other) = (self.text(name::SERIAL), self.text(name::DEVICE_SERIAL));
        match (one, other) {
            (Some(one), Some(other)) if one != other => Err(HeadersRefusal::Contradiction(
                name::SERIAL,
                name::DEVICE_SERIAL,
            )),
            (one, other) => Ok(one.or(other)),
        }
    }
}

fn level(word: &str) -> Option<Level> {
    let levels = [Level::None, Level::SelfSigned, Level::Hardware];
    levels.into_iter().find(|level| level.as_str() == word)
}
