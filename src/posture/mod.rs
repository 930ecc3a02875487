//! What is believed of a Mac, from whom, and until when.
//!
//! Evidence is never merged into one boolean. [`Posture`] keeps the last reading from each source;
//! [`claim`] gives every property its value, assurance and times; [`merge`] decides what newer
//! evidence does to what was believed; [`appraisal`] judges the whole by a [`policy`];
//! [`continuity`] keeps evidence fresh while a process lives, where the policy says so;
//! [`key_binding`] joins a provider's key to the Mac, and [`trust`] says how far both are trusted.

pub mod appraisal;
#[cfg(test)]
mod appraisal_test;
pub mod claim;
pub mod continuity;
pub mod key_binding;
pub mod merge;
pub mod policy;
pub mod trust;
#[cfg(test)]
mod trust_test;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::key_binding::{NamedKey, ProvedKey};
use crate::attestation::{Freshness, Statement};
use crate::ids::{DeviceId, EvidenceId};
use crate::mdm::security_info::SecurityInfo;
use crate::reason::Reason;
use crate::time::Timestamp;

/// Everything believed of one Mac's device plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    pub device_id: DeviceId,
    /// Rises by one whenever evidence, verdict or revocation changes; not when time passes.
    pub revision: u64,
    /// Rises with every revocation and its end; never falls.
    pub revocation_epoch: u64,
    pub revised_at: Timestamp,
    /// The verdict as of `revised_at`. A reader appraises again at its own time.
    pub verdict: Verdict,
    /// Until when that verdict may be relied on; `None` unless it is affirming or a warning.
    #[serde(default)]
    pub usable_until: Option<Timestamp>,
    /// Subscribers were told that it is about to end.
    #[serde(default)]
    pub told_of_end: bool,
    /// The last SecurityInfo that was asked for and well formed.
    pub reported: Option<Reported>,
    /// The last attestation whose chain, serial and nonce were good enough to read.
    pub attested: Option<Attested>,
    /// A negative on SIP, Secure Boot or kernel extensions was received at this time: positive
    /// evidence asked for earlier counts no longer.
    pub void_before: Option<Timestamp>,
    /// Definite negatives that are no reading of a property (another Mac's chain, a bad chain).
    pub held: Vec<Held>,
    /// The newest statement of Apple's that names a provider key.
    #[serde(default)]
    pub named: Option<NamedKey>,
    /// Provider keys proved to belong to this Mac under its present enrollment, the latest last.
    #[serde(default)]
    pub keys: Vec<ProvedKey>,
    /// Those proved under its former enrollments.
    #[serde(default)]
    pub former_keys: Vec<String>,
}

impl Posture {
    /// The evidence that what is believed rests on.
    pub fn evidence(&self) -> impl Iterator<Item = EvidenceId> + '_ {
        let reported = self.reported.as_ref().map(|reported| reported.evidence_id);
        let attested = self.attested.as_ref().map(|attested| attested.evidence_id);
        let named = self.named.as_ref().map(|named| named.evidence_id);
        let held = self.held.iter().filter_map(|held| held.evidence_id);
        [reported, attested, named]
            .into_iter()
            .flatten()
            .chain(held)
    }
}

/// Three results and a warning tier. Unknown is not bad and not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Affirming,
    Warning,
    Contraindicated,
    Unknown,
}

/// Whose key signs what the Mac reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = IdentityChannel)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A Secure Enclave key that Apple attested (ACME device-attest-01).
    HardwareAttested,
    /// A key in software (SCEP, adopted).
    Software,
}

/// A SecurityInfo reply as believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub facts: SecurityInfo,
    pub evidence_id: EvidenceId,
    /// When the command was handed over.
    pub asked_at: Timestamp,
    pub observed_at: Timestamp,
    pub channel: Channel,
}

/// On which occasion Apple made a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// The Mac was asked: DeviceInformation with DevicePropertiesAttestation.
    #[default]
    Mda,
    /// The Mac got its identity: ACME device-attest-01.
    Acme,
}

/// An Apple attestation as believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// Postures that were stored before there was a choice had none.
    #[serde(default)]
    pub occasion: Occasion,
    pub facts: Statement,
    pub freshness: Freshness,
    pub evidence_id: EvidenceId,
    pub observed_at: Timestamp,
    /// Apple had made it by then; without it, by when it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_by: Option<Timestamp>,
    /// The leaf's notAfter.
    pub not_after: Timestamp,
}

/// A definite negative that stands until newer evidence of its kind clears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub reason: Reason,
    pub evidence_id: Option<EvidenceId>,
    pub since: Timestamp,
}

/// Apple makes a new attestation at most this often (Apple `information.device.yaml`,
/// DeviceAttestationNonce).
pub const APPLE_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The window is measured by the Mac's clock, from when Apple issued: it is taken for over so much later.
const MARGIN: Duration = Duration::from_secs(10 * 60);
/// A Mac that got a question answers it at once, or after it slept; Apple's leaf begins a day before it
/// is issued (apple-protocol 6.1).
pub const ISSUED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// When Apple had made a statement for a nonce, at the latest: it was seen by then, however long the Mac
/// kept it, and it was not made long after it was asked for.
pub fn issued_by(minted_at: Timestamp, not_before: Timestamp, observed_at: Timestamp) -> Timestamp {
    observed_at.min(minted_at.max(not_before).plus(ISSUED_WITHIN))
}

impl Attested {
    /// Apple had made it by then.
    pub fn issued_by(&self) -> Timestamp {
        self.issued_by.unwrap_or(self.observed_at)
    }

    /// From when Apple certainly makes another one: rather late than early, because whoever asks early
    /// gets this one again. `None` when nothing says when this one was made.
    pub fn renewable_from(&self) -> Option<Timestamp> {
        let minted_at = self.freshness.minted_at()?;
        let made_at = minted_at.max(self.issued_by());
        Some(made_at.plus(APPLE_WINDOW).plus(MARGIN))
    }

    /// Apple would have made a new statement when this one was brought.
    pub fn is_withheld(&self) -> bool {
        matches!(self.freshness, Freshness::CachedKnown { .. })
            && self
                .renewable_from()
                .is_some_and(|from| self.observed_at > from)
    }

    /// Whether it answers the same question as one that was seen before.
    fn is_again(&self, former: &Self) -> bool {
        self.occasion == former.occasion
            && self.freshness.minted_at().is_some()
            && self.freshness.minted_at() == former.freshness.minted_at()
    }
}

impl Occasion {
    /// The published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mda => "mda",
            Self::Acme => "acme",
        }
    }
}

impl Verdict {
    /// Nothing speaks against the Mac, and what is demanded is there.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Affirming | Self::Warning)
    }

    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
            Self::Unknown => "unknown",
        }
    }
}

/// Subscribers are told this long before a verdict ends (coordinator-and-standards C.3).
const NOTICE: Duration = Duration::from_secs(10 * 60);

/// What subscribers are to be told of a verdict that nothing renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It ends soon, at this time.
    Ending(Timestamp),
    /// It has ended.
    Ended,
}

impl Posture {
    /// When there is something to tell of the verdict's end: before it, then at it.
    pub fn notice_at(&self) -> Option<Timestamp> {
        let until = self.usable_until?;
        Some(if self.told_of_end {
            until
        } else {
            until.minus(NOTICE)
        })
    }

    /// What there is to tell now. One that ended unannounced is not announced any more.
    pub fn notice(&self, now: Timestamp) -> Option<Notice> {
        let until = self.usable_until?;
        if now >= until {
            Some(Notice::Ended)
        } else {
            self.notice_at()
                .filter(|at| *at <= now)
                .map(|_| Notice::Ending(until))
        }
    }

    /// Nothing is known yet.
    pub fn unknown(device_id: DeviceId, now: Timestamp) -> Self {
        Self {
            device_id,
            revision: 0,
            revocation_epoch: 0,
            revised_at: now,
            verdict: Verdict::Unknown,
            usable_until: None,
            told_of_end: false,
            reported: None,
            attested: None,
            void_before: None,
            held: Vec::new(),
            named: None,
            keys: Vec::new(),
            former_keys: Vec::new(),
        }
    }
}
