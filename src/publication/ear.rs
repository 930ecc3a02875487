//! An Attestation Result: what this service, as Verifier, says of a Mac, for whoever trusts its key.
//!
//! EAR (draft-ietf-rats-ear-04) over EAT (RFC 9711), with the trustworthiness vector of AR4SI
//! (draft-ietf-rats-ar4si). What each claim is set to is the table in docs/api.md.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::posture_v1::PostureV1;
use crate::attestation::Anchor;
use crate::posture::Verdict;
use crate::posture::claim::{Age, Claim, Value};
use crate::posture::key_binding::KeyBinding;
use crate::posture::trust::Level;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The version of EAR that is spoken.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";

/// The `typ` of the token (RFC 9711 section 7).
pub const TYP: &str = "eat+jwt";

/// The media type of the token (RFC 9782).
pub const MEDIA_TYPE: &str = "application/eat+jwt; eat_profile=\"tag:ietf.org,2026:rats/ear#04\"";

/// How long a result is good at most; never longer than what it rests on.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The label of the one thing that is appraised.
const DEVICE: &str = "device";

/// The claims of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ear {
    pub eat_profile: String,
    pub iss: String,
    /// Whom it is about: see [`super::subject`].
    pub sub: String,
    pub jti: String,
    pub iat: i64,
    pub exp: i64,
    pub ear_verifier_id: VerifierId,
    pub ear_status: Status,
    /// What the Relying Party sent along with its question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eat_nonce: Option<String>,
    pub submods: BTreeMap<String, Appraisal>,
    /// Of a result within a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestd: Option<Seal>,
}

/// What a result seals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// See [`seal_of`](super::bundle::result::seal_of).
    pub evidence_sha256: String,
}

/// Whose program judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierId {
    pub developer: String,
    pub build: String,
}

/// How one thing was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraisal {
    pub ear_status: Status,
    pub ear_trustworthiness_vector: Vector,
    pub ear_appraisal_policy_ids: Vec<String>,
    /// The freshness code in Apple's statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eat_nonce: Option<String>,
    pub attestd: Particulars,
}

/// What EAR has no word for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Particulars {
    /// `custom` is a simulated world: nothing in it is a statement of Apple's.
    pub anchor: Anchor,
    pub revision: u64,
    pub revocation_epoch: u64,
    pub trust_level: Level,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable_until: Option<Timestamp>,
    pub policy_id: String,
    /// What this policy does not demand and the strict one does.
    pub policy_waives: Vec<String>,
    pub reasons: Vec<Reason>,
    pub se_key_bound: KeyBinding,
}

/// The tier of a judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing is said.
    None,
    Affirming,
    Warning,
    Contraindicated,
}

/// AR4SI: what is not known, or is not this service's to say, is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Vector {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_identity: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_system: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<i8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_opaque: Option<i8>,
}

/// AR4SI section 2.3.
mod value {
    /// Known and approved; recognized; genuine; only approved files; secrets under hardware keys.
    pub const APPROVED: i8 = 2;
    /// A configuration without known vulnerabilities.
    pub const NO_VULNERABILITIES: i8 = 3;
    /// Elements of the configuration that matter cannot be seen.
    pub const UNAVAILABLE: i8 = 36;
    /// Unacceptable; recognized and not trustworthy.
    pub const CONTRAINDICATED: i8 = 96;
    /// What it rests on failed cryptographically.
    pub const NOT_VALID: i8 = 99;
}

/// What a result is made of.
#[derive(Debug)]
pub struct Sources<'a> {
    pub posture: &'a PostureV1,
    /// The canonical URL of this service.
    pub issuer: &'a str,
    pub subject: &'a str,
    /// Names this one result.
    pub jti: String,
    /// The version of this program.
    pub version: &'a str,
    /// Where the policy can be fetched by its hash.
    pub policy: String,
    /// The Relying Party's nonce.
    pub nonce: Option<&'a [u8]>,
    /// The nonce in Apple's statement.
    pub freshness: Option<[u8; 32]>,
    /// Of the bundle it stands in.
    pub seal: Option<String>,
}

impl Ear {
    /// Whether anything was ever appraised: there is no result without a submodule, and a hollow one
    /// says nothing.
    pub fn is_due(posture: &PostureV1) -> bool {
        !posture.claims.is_empty() || posture.verdict != Verdict::Unknown
    }

    /// The result as of the posture's evaluation; `None` when none is due.
    pub fn new(sources: Sources<'_>) -> Option<Self> {
        let Sources {
            posture,
            issuer,
            subject,
            jti,
            version,
            policy,
            nonce,
            freshness,
            seal,
        } = sources;
        if !Self::is_due(posture) {
            return None;
        }
        let now = posture.evaluated_at;
        let latest = now.plus(LIFETIME);
        let until = posture.usable_until.map_or(latest, |end| end.min(latest));
        let status = Status::from(posture.verdict);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let appraisal = Appraisal {
            ear_status: status,
            ear_trustworthiness_vector: Vector::of(posture),
            ear_appraisal_policy_ids: vec![policy],
            eat_nonce: freshness.map(|nonce| text(&nonce)),
            attestd: Particulars::of(posture),
        };
        let simulated = match posture.anchor {
            Anchor::Apple => "",
            Anchor::Custom => " (not Apple's root)",
        };
        Some(Self {
            eat_profile: PROFILE.to_owned(),
            iss: issuer.to_owned(),
            sub: subject.to_owned(),
            jti,
            iat: now.seconds(),
            exp: until.seconds(),
            ear_verifier_id: VerifierId {
                developer: issuer.to_owned(),
                build: format!("attestd {version}{simulated}"),
            },
            ear_status: status,
            eat_nonce: nonce.map(text),
            submods: BTreeMap::from([(DEVICE.to_owned(), appraisal)]),
            attestd: seal.map(|evidence_sha256| Seal { evidence_sha256 }),
        })
    }
}

impl Particulars {
    fn of(posture: &PostureV1) -> Self {
        let waives = posture.policy_waives.iter();
        Self {
            anchor: posture.anchor,
            revision: posture.revision,
            revocation_epoch: posture.revocation_epoch,
            trust_level: posture.trust_level,
            usable_until: posture.usable_until,
            policy_id: posture.policy_id.clone(),
            policy_waives: waives.map(|&name| name.to_owned()).collect(),
            reasons: posture.reasons.clone(),
            se_key_bound: posture
                .binding
                .as_ref()
                .map_or(KeyBinding::None, |binding| binding.se_key_bound),
        }
    }
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Affirming => Self::Affirming,
            Verdict::Warning => Self::Warning,
            Verdict::Contraindicated => Self::Contraindicated,
            Verdict::Unknown => Self::None,
        }
    }
}

impl Status {
    /// The tier of a value of the vector (AR4SI section 2.3.2).
    pub fn of_value(value: i8) -> Self {
        match value {
            -1..=1 => Self::None,
            -32..=31 => Self::Affirming,
            -96..=95 => Self::Warning,
            _ => Self::Contraindicated,
        }
    }
}

impl Vector {
    /// The worst tier in it. A status is never better than that.
    pub fn worst(&self) -> Status {
        let worst = self.values().map(Status::of_value).max();
        worst.unwrap_or(Status::None)
    }

    fn values(&self) -> impl Iterator<Item = i8> {
        [
            self.instance_identity,
            self.configuration,
            self.file_system,
            self.hardware,
            self.storage_opaque,
        ]
        .into_iter()
        .flatten()
    }

    fn of(posture: &PostureV1) -> Self {
        let has = |reason| posture.reasons.contains(&reason);
        let mut vector = Self {
            instance_identity: instance_identity(posture),
            configuration: configuration(posture),
            file_system: is(posture, "authenticated_root", true).then_some(value::APPROVED),
            hardware: hardware(posture),
            storage_opaque: is(posture, "filevault", true).then_some(value::APPROVED),
        };
        if posture.verdict == Verdict::Contraindicated {
            if has(Reason::AuthenticatedRootOff) {
                vector.file_system = Some(value::CONTRAINDICATED);
            }
            if vector.worst() != Status::Contraindicated {
                vector.configuration = Some(value::CONTRAINDICATED);
            }
        }
        vector
    }
}

/// Recognized only where Apple's statement names the provider's key.
fn instance_identity(posture: &PostureV1) -> Option<i8> {
    let has = |reason| posture.reasons.contains(&reason);
    if posture.verdict == Verdict::Contraindicated {
        if has(Reason::ChainInvalid) {
            return Some(value::NOT_VALID);
        }
        if has(Reason::Revoked) || has(Reason::SerialMismatch) {
            return Some(value::CONTRAINDICATED);
        }
    }
    let bound = posture.binding.as_ref()?.se_key_bound == KeyBinding::Bound;
    bound.then_some(value::APPROVED)
}

fn configuration(posture: &PostureV1) -> Option<i8> {
    const BAD: [Reason; 5] = [
        Reason::SipDisabled,
        Reason::SecureBootReduced,
        Reason::SecureBootOff,
        Reason::ThirdPartyKexts,
        Reason::EvidenceConflict,
    ];
    if posture.verdict == Verdict::Contraindicated {
        let is_bad = posture.reasons.iter().any(|reason| BAD.contains(reason));
        return is_bad.then_some(value::CONTRAINDICATED);
    }
    if matches!(posture.verdict, Verdict::Warning | Verdict::Unknown) {
        return Some(value::UNAVAILABLE);
    }
    let full = |name| word(posture, name) == Some("full");
    let by_apple = is(posture, "sip#mda", true)
        && full("secure_boot#mda")
        && is(posture, "third_party_kexts", false);
    if by_apple {
        return Some(value::APPROVED);
    }
    let reported = is(posture, "sip", true) && full("secure_boot");
    reported.then_some(value::NO_VULNERABILITIES)
}

/// Genuine while a statement of Apple's for this Mac counts.
fn hardware(posture: &PostureV1) -> Option<i8> {
    let mut attested = posture.claims.values();
    let counts = attested.any(|claim| claim.source != "security_info" && is_usable(claim));
    counts.then_some(value::APPROVED)
}

fn is_usable(claim: &Claim) -> bool {
    matches!(claim.age, Age::Fresh | Age::Stale)
}

fn usable<'a>(posture: &'a PostureV1, name: &str) -> Option<&'a Value> {
    let claim = posture.claims.get(name)?;
    claim.value.as_ref().filter(|_| is_usable(claim))
}

fn is(posture: &PostureV1, name: &str, wanted: bool) -> bool {
    usable(posture, name) == Some(&Value::Flag(wanted))
}

fn word<'a>(posture: &'a PostureV1, name: &str) -> Option<&'a str> {
    match usable(posture, name) {
        Some(Value::Word(word)) => Some(word),
        _ => None,
    }
}
