//! The evidence bundle: everything that was said of a Mac and its provider, with what proves it, for
//! whoever trusts neither this service nor the one who carries it. `docs/verify.md` is its contract.

pub mod apple;
mod judgement;
pub mod log;
pub mod provider;
pub mod result;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod v1;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use self::trust::Trust;
use super::subject::commitment;
use crate::attestation::Anchor;
use crate::json;
use crate::provider::SePublicKey;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The largest bundle that is read.
pub const MAX_BUNDLE: usize = 1024 * 1024;

/// The members a bundle may have.
const MEMBERS: [&str; 17] = [
    "bundle_version",
    "profile",
    "generated_at",
    "subject",
    "subject_opening",
    "se_public_key",
    "disclosure",
    "registration",
    "challenge",
    "security_info",
    "mda",
    "ear",
    "policy",
    "release",
    "residence_proved",
    "log_entry_b64",
    "tlog_proof",
];

/// How far one claim holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub claim: &'static str,
    #[serde(flatten)]
    pub standing: Standing,
}

/// Whether a claim is proved, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub enum Standing {
    /// By a signature or by arithmetic: nobody's word is taken.
    Proved {
        by: By,
    },
    /// Somebody says so.
    Asserted {
        by: By,
    },
    Failed {
        reason: Reason,
        detail: String,
    },
}

/// Who stands for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    Apple,
    /// A root that is not Apple's.
    Custom,
    SeKey,
    Service,
    /// Whoever sent a reply on.
    Coordinator,
    Log,
    Arithmetic,
}

/// Why a claim does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub detail: String,
}

/// What a bundle says that is needed by more than one of its parts.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) key: SePublicKey,
    pub(crate) subject: String,
    pub(crate) generated_at: Timestamp,
    pub(crate) trust: &'a Trust,
    /// The moment of judgement.
    pub(crate) at: Timestamp,
}

/// Examines a bundle as of `at`: one finding for each claim it makes, in the order of the contract.
pub fn examine(bytes: &[u8], trust: &Trust, at: Timestamp) -> Vec<Finding> {
    match read(bytes, trust, at) {
        Ok((bundle, common)) => findings(&bundle, &common),
        Err(fault) => vec![Finding {
            claim: "form",
            standing: fault.into(),
        }],
    }
}

/// The key that a bundle says it is about; `None` where it says none.
pub fn key_of(bytes: &[u8]) -> Option<SePublicKey> {
    let bundle = json::object(bytes.get(..MAX_BUNDLE.min(bytes.len()))?).ok()?;
    SePublicKey::parse(bundle.get("se_public_key")?.as_str()?).ok()
}

fn read<'a>(
    bytes: &[u8],
    trust: &'a Trust,
    at: Timestamp,
) -> Result<(Map<String, Value>, Common<'a>), Fault> {
    if bytes.len() > MAX_BUNDLE {
        return Err(Fault::new(
            Reason::RequestTooLarge,
            "larger than any bundle",
        ));
    }
    let bundle = json::object(bytes).map_err(|fault| Fault::form(fault.to_string()))?;
    if let Some(unknown) = bundle.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(Fault::form(format!("what is {unknown}?")));
    }
    if bundle.get("bundle_version") != Some(&Value::from(1)) {
        return Err(Fault::form("bundle_version is not 1"));
    }
    let key = SePublicKey::parse(text(&bundle, "se_public_key")?)
        .map_err(|refusal| Fault::new(refusal.reason(), refusal))?;
    let generated_at = time(&bundle, "generated_at")?;
    let common = Common {
        key,
        subject: text(&bundle, "subject")?.to_owned(),
        generated_at,
        trust,
        at,
    };
    Ok((bundle, common))
}

type Judge = fn(&Map<String, Value>, &Common<'_>) -> Option<Result<Standing, Fault>>;

/// The claims in the order of the contract; `None` is what is not claimed.
const CLAIMS: [(&str, Judge); 14] = [
    ("subject", subject),
    ("registration", provider::registration),
    ("challenge", provider::challenge),
    ("status", provider::status),
    ("apple", apple::chain),
    ("key_named", apple::key_named),
    ("apple_posture", apple::posture),
    ("security_info", provider::security_info),
    ("ear", result::ear),
    ("sealed", result::sealed),
    ("policy", result::policy),
    ("judgement", judgement::judgement),
    ("log", log::log),
    ("release", log::release),
];

fn findings(bundle: &Map<String, Value>, common: &Common<'_>) -> Vec<Finding> {
    let found = CLAIMS.iter().filter_map(|(claim, judge)| {
        let standing = judge(bundle, common)?;
        Some(Finding {
            claim,
            standing: standing.unwrap_or_else(Standing::from),
        })
    });
    found.collect()
}

fn subject(bundle: &Map<String, Value>, common: &Common<'_>) -> Option<Result<Standing, Fault>> {
    let Some(opening) = bundle.get("subject_opening") else {
        return Some(Ok(Standing::Asserted { by: By::Service }));
    };
    Some(part(opening).and_then(|opening| {
        let salt = base64(opening, "salt_b64")?;
        if commitment(&salt, common.key.text()) == common.subject {
            Ok(Standing::Proved { by: By::Arithmetic })
        } else {
            Err(Fault::new(
                Reason::KeyMismatch,
                "the salt opens another subject",
            ))
        }
    }))
}

impl Finding {
    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<Reason> {
        match &self.standing {
            Standing::Failed { reason, .. } => Some(*reason),
            Standing::Proved { .. } | Standing::Asserted { .. } => None,
        }
    }
}

impl Fault {
    pub(crate) fn new(reason: Reason, detail: impl ToString) -> Self {
        Self {
            reason,
            detail: detail.to_string(),
        }
    }

    pub(crate) fn form(detail: impl ToString) -> Self {
        Self::new(Reason::RequestMalformed, detail)
    }
}

impl From<Fault> for Standing {
    fn from(fault: Fault) -> Self {
        Self::Failed {
            reason: fault.reason,
            detail: fault.detail,
        }
    }
}

impl From<Anchor> for By {
    fn from(anchor: Anchor) -> Self {
        match anchor {
            Anchor::Apple => Self::Apple,
            Anchor::Custom => Self::Custom,
        }
    }
}

/// A part of a bundle: an object.
pub(crate) fn part(value: &Value) -> Result<&Map<String, Value>, Fault> {
    value
        .as_object()
        .ok_or_else(|| Fault::form("a part that is no object"))
}

/// A text that must be there.
pub(crate) fn text<'a>(part: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    part.get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| Fault::form(format!("{name} is not there, or no text")))
}

/// Standard base64 with padding.
pub(crate) fn base64(part: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Fault> {
    STANDARD
        .decode(text(part, name)?)
        .map_err(|_| Fault::form(format!("{name} is no base64")))
}

/// An RFC 3339 time in UTC, in the one spelling: a capital T and Z, to the millisecond at most.
pub(crate) fn time(part: &Map<String, Value>, name: &str) -> Result<Timestamp, Fault> {
    let text = text(part, name)?;
    let is_plain = text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'.' || byte == b'Z',
        at if at + 1 == text.len() => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    let time = Timestamp::parse(text)
        .ok()
        .filter(|_| is_plain && text.len() <= 24);
    time.ok_or_else(|| Fault::form(format!("{name} is no time in UTC")))
}
