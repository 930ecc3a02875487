//! What newer evidence does to what was believed.
//!
//! Only the last reading of each source is kept. A negative on SIP, Secure Boot or kernel
//! extensions voids every positive reading that was asked for before it arrived, so that trust
//! comes back only with evidence asked for afterwards. A late answer never replaces a newer one.

use super::appraisal::{Appraisal, Circumstances, appraise};
use super::policy::Policy;
use super::{Attested, Held, Posture, Reported};
use crate::ids::EvidenceId;
use crate::reason::Reason;
use crate::time::Timestamp;

impl Posture {
    /// Takes in a SecurityInfo reading. Returns false when it is older than what is held.
    pub fn report(&mut self, reading: Reported, now: Timestamp) -> bool {
        if self
            .reported
            .as_ref()
            .is_some_and(|held| held.asked_at > reading.asked_at)
        {
            return false;
        }
        if reading.facts.contradicts_full_security() {
            self.void_before = Some(now);
        }
        self.reported = Some(reading);
        true
    }

    /// Takes in an attestation whose chain, serial and place were verified. Returns false when it
    /// says nothing newer than what is held.
    pub fn attest(&mut self, reading: Attested, now: Timestamp) -> bool {
        let negative = reading.facts.contradicts_full_security();
        let newer = match &self.attested {
            None => true,
            Some(held) => reading.freshness.minted_at() >= held.freshness.minted_at(),
        };
        if !newer && !negative {
            return false;
        }
        if negative {
            self.void_before = Some(now);
        } else if let Some(minted_at) = reading.freshness.minted_at() {
            // A chain for this serial, asked for after the fault, shows that the fault is over.
            self.held
                .retain(|held| held.reason == Reason::Revoked || held.since >= minted_at);
        }
        self.attested = Some(reading);
        true
    }

    /// Takes in a definite negative that is no reading of a property.
    pub fn hold(&mut self, reason: Reason, evidence_id: Option<EvidenceId>, now: Timestamp) {
        self.held.retain(|held| held.reason != reason);
        self.held.push(Held {
            reason,
            evidence_id,
            since: now,
        });
    }

    /// Fixes a new revision with the verdict as of now; the caller changed something before.
    pub fn revise(&mut self, policy: &Policy, circumstances: Circumstances<'_>) -> Appraisal {
        let appraisal = appraise(self, policy, circumstances);
        self.revision += 1;
        self.revised_at = circumstances.now;
        self.verdict = appraisal.verdict;
        appraisal
    }

    /// The Mac left: nothing good is said of it any more.
    pub fn leave(&mut self, policy: &Policy, now: Timestamp) {
        self.revise(policy, Circumstances { enrolled: false, attempt: &[], now });
    }

    /// The Mac enrols anew: what it showed under the former enrollment is history. Negatives stay:
    /// a new enrollment must not wash them.
    pub fn begin_anew(&mut self, policy: &Policy, now: Timestamp) {
        if self
            .reported
            .as_ref()
            .is_some_and(|held| !held.facts.contradicts_full_security())
        {
            self.reported = None;
        }
        if self
            .attested
            .as_ref()
            .is_some_and(|held| !held.facts.contradicts_full_security())
        {
            self.attested = None;
        }
        self.revise(policy, Circumstances { enrolled: false, attempt: &[], now });
    }
}
