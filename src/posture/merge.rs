//! What newer evidence does to what was believed.
//!
//! Only the last reading of each source is kept. A negative on SIP, Secure Boot or kernel
//! extensions voids every positive reading that was asked for before it arrived, so that trust
//! comes back only with evidence asked for afterwards. A late answer never replaces a newer one,
//! with one exception: a negative counts whenever it was asked for, because a Mac in two minds about
//! its own state is not to be trusted in either. A reading that leaves out a property which the held
//! one states replaces nothing: what is not said neither promotes nor demotes, the held one ages. What
//! a clock that was wrong has dated ahead is newer than nothing.

use super::appraisal::{Appraisal, Circumstances, Relation, appraise};
use super::key_binding::Proof;
use super::policy::Policy;
use super::{Attested, Held, Posture, Reported};
use crate::ids::EvidenceId;
use crate::mdm::security_info::SecurityInfo;
use crate::reason::Reason;
use crate::time::Timestamp;

/// What an enrollment begins with.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// What Apple stated when the Mac's identity was issued.
    pub statement: Option<Attested>,
    /// The provider's Secure Enclave key that its ticket names.
    pub se_public_key: Option<String>,
}

impl Posture {
    /// Takes in a SecurityInfo reading. Returns false when it says nothing newer than what is held.
    pub fn report(&mut self, reading: Reported, now: Timestamp) -> bool {
        if reading.facts.contradicts_full_security() {
            self.void(now);
        } else if let Some(held) = &self.reported {
            let cleared = !held.facts.contradicts_full_security()
                || self.void_before.is_none_or(|time| time <= reading.asked_at);
            let is_newer = held.asked_at > reading.asked_at && !held.asked_at.is_to_come(now);
            if is_newer || !cleared || !reading.facts.states(&held.facts) {
                return false;
            }
        }
        self.reported = Some(reading);
        true
    }

    /// Takes in an attestation whose chain, serial and place were verified. Returns false when it
    /// says nothing newer than what is held.
    pub fn attest(&mut self, mut reading: Attested, now: Timestamp) -> bool {
        if let Some(held) = self.attested.as_ref().filter(|held| reading.is_again(held)) {
            reading.issued_by = Some(held.issued_by().min(reading.issued_by()));
        }
        let minted_at = reading.freshness.minted_at();
        self.name_key(&reading, now);
        if reading.facts.contradicts_full_security() {
            self.void(now);
            self.attested = Some(reading);
            return true;
        }
        if let Some(held) = &self.attested {
            // A chain that nothing dates clears nothing.
            let cleared = !held.facts.contradicts_full_security()
                || minted_at.is_some_and(|at| self.void_before.is_none_or(|time| time <= at));
            let says_less = !reading.facts.states(&held.facts);
            let held_at = held.freshness.minted_at();
            let is_newer = held_at > minted_at && !held_at.is_some_and(|at| at.is_to_come(now));
            if is_newer || !cleared || says_less {
                return false;
            }
        }
        if let Some(minted_at) = minted_at {
            // A chain for this serial, asked for after the fault, shows that the fault is over.
            self.held
                .retain(|held| held.reason == Reason::Revoked || held.since >= minted_at);
        }
        self.attested = Some(reading);
        true
    }

    /// Positive evidence asked for before `now` counts no longer; a clock set back gives none of it
    /// back.
    fn void(&mut self, now: Timestamp) {
        self.void_before = self.void_before.max(Some(now));
    }

    /// The provider's software on this Mac says, in answer to a challenge, that a protection is off.
    /// It stands until Apple states otherwise for a nonce handed over afterwards.
    pub fn self_report_negative(&mut self, reason: Reason, now: Timestamp) {
        self.void(now);
        self.hold(reason, None, now);
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
        self.usable_until = appraisal.usable_until;
        self.told_of_end = false;
        appraisal
    }

    /// The Mac left: nothing good is said of it any more.
    pub fn leave(&mut self, policy: &Policy, now: Timestamp) -> Appraisal {
        self.relate(Relation::NONE, policy, now)
    }

    /// How the Mac stands to this service has changed; what it showed has not.
    pub fn relate(&mut self, relation: Relation, policy: &Policy, now: Timestamp) -> Appraisal {
        self.revise(
            policy,
            Circumstances {
                relation,
                attempt: &[],
                now,
            },
        )
    }

    /// The Mac enrols anew: what it showed under the former enrollment is history. Negatives stay:
    /// a new enrollment must not wash them. What Apple stated when the Mac's new identity was issued
    /// is the first reading of the new enrollment. Which provider key belongs to the Mac was proved for
    /// the former enrollment only.
    pub fn begin_anew(&mut self, by: Beginning, policy: &Policy, now: Timestamp) -> Appraisal {
        self.drop_positives();
        self.retire_keys();
        if let Some(reading) = by.statement {
            self.attest(reading, now);
        }
        if let Some(key) = by.se_public_key {
            self.prove_key(&key, Proof::Ticket, now);
        }
        self.leave(policy, now)
    }

    /// Somebody else stands where an enrollment stood that never proved its serial number: nothing
    /// of what that one showed is about this one. Revisions and epoch go on, because readers count
    /// them.
    pub fn begin_afresh(&mut self, by: Beginning, policy: &Policy, now: Timestamp) -> Appraisal {
        *self = Self {
            revision: self.revision,
            revocation_epoch: self.revocation_epoch,
            verdict: self.verdict,
            ..Self::unknown(self.device_id.clone(), now)
        };
        self.begin_anew(by, policy, now)
    }

    /// A contender was proved to be this Mac: what it showed is the newest that is known, and its
    /// negatives count here from now on, as those held here do.
    pub fn take_over(&mut self, contender: Self, now: Timestamp) {
        self.drop_positives();
        self.retire_keys();
        self.keys = contender.keys;
        self.named = contender.named;
        self.revocation_epoch = self.revocation_epoch.max(contender.revocation_epoch);
        self.void_before = self.void_before.max(contender.void_before);
        if let Some(reported) = contender.reported {
            self.report(reported, now);
        }
        for held in contender.held {
            self.held.retain(|known| known.reason != held.reason);
            self.held.push(held);
        }
        if let Some(attested) = contender.attested {
            self.attest(attested, now);
        }
    }

    fn drop_positives(&mut self) {
        self.named = None;
        // FileVault off is a negative too, though it voids nothing else.
        let is_negative = |facts: &SecurityInfo| {
            facts.contradicts_full_security() || facts.filevault_enabled == Some(false)
        };
        if self
            .reported
            .as_ref()
            .is_some_and(|held| !is_negative(&held.facts))
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
    }

    /// Trust in the Mac is withdrawn by an operator, until an operator gives it back. False when it
    /// was withdrawn before.
    pub fn revoke(&mut self, now: Timestamp) -> bool {
        if self.is_revoked() {
            return false;
        }
        self.hold(Reason::Revoked, None, now);
        self.revocation_epoch += 1;
        true
    }

    /// An operator gives trust back. False when it was not withdrawn.
    pub fn restore(&mut self) -> bool {
        if !self.is_revoked() {
            return false;
        }
        self.held.retain(|held| held.reason != Reason::Revoked);
        self.revocation_epoch += 1;
        true
    }

    fn is_revoked(&self) -> bool {
        self.held.iter().any(|held| held.reason == Reason::Revoked)
    }
}
