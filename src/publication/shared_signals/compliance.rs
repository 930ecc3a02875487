//! Whether a Mac is compliant, and when that is news.
//!
//! The profile knows two words. Compliant is a verdict on which the device plane holds (affirming or
//! warning), not compliant one that is held against the Mac. What is unknown is neither, and nothing is
//! told of it: a Mac keeps the word it had. Two cases are told, where the policy routes to no Mac without
//! a verdict: a good one came to its end with nothing new, or the Mac left; then whoever was told
//! "compliant" must not go on by it. A Mac of which nothing was ever known counts as not compliant: nobody was told otherwise.

use serde::{Deserialize, Serialize};

use crate::ids::DeviceId;
use crate::posture::Verdict;
use crate::reason::Reason;

/// The words of CAEP 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compliance {
    Compliant,
    NotCompliant,
}

/// `posture.changed`, as the outbox has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PostureChange {
    pub device_id: DeviceId,
    pub verdict: Verdict,
    pub previous: Verdict,
    pub reasons: Vec<Reason>,
    /// The verdict before it came to its end.
    #[serde(default)]
    pub ended: bool,
}

/// Who brought a change about (CAEP 1.0 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initiator {
    Admin,
    Policy,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub previous: Compliance,
    pub current: Compliance,
    pub initiator: Initiator,
    /// For administrators.
    pub reason_admin: String,
    /// For the owner of the Mac, where there is something to do.
    pub reason_user: Option<String>,
}

impl Compliance {
    /// The word for a verdict; none for what is not known.
    pub fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Affirming | Verdict::Warning => Some(Self::Compliant),
            Verdict::Contraindicated => Some(Self::NotCompliant),
            Verdict::Unknown => None,
        }
    }
}

impl PostureChange {
    /// The word for the Mac from now on; none where it keeps the one it had. `ends_use`: without a
    /// verdict nothing is routed to it.
    pub fn word(&self, ends_use: bool) -> Option<Compliance> {
        let is_over = ends_use && (self.ended || self.has_left());
        Compliance::of(self.verdict).or(is_over.then_some(Compliance::NotCompliant))
    }

    /// What is news to those who knew the Mac by `known`, the word it had last.
    pub fn news(&self, known: Option<Compliance>, ends_use: bool) -> Option<Change> {
        let current = self.word(ends_use)?;
        let previous = known
            .or(Compliance::of(self.previous))
            .unwrap_or(Compliance::NotCompliant);
        if previous == current {
            return None;
        }
        let cause = self.reasons.first().copied();
        let is_held = self.verdict == Verdict::Contraindicated;
        let reason_admin = match (current, cause) {
            (Compliance::Compliant, None) => "the policy is met".to_owned(),
            (Compliance::Compliant, Some(_)) => {
                format!("the policy is met, with a warning: {}", self.codes())
            }
            (Compliance::NotCompliant, Some(cause)) if self.has_left() => cause.code().to_owned(),
            (Compliance::NotCompliant, _) if !is_held => {
                "the verdict came to its end, and nothing new is known".to_owned()
            }
            (Compliance::NotCompliant, _) => self.codes(),
        };
        let is_bad = current == Compliance::NotCompliant && is_held;
        Some(Change {
            previous,
            current,
            initiator: match cause {
                Some(Reason::Revoked) if is_held => Initiator::Admin,
                _ => Initiator::Policy,
            },
            reason_admin,
            reason_user: cause
                .filter(|_| is_bad)
                .map(|cause| cause.owner_text().to_owned()),
        })
    }

    fn has_left(&self) -> bool {
        self.verdict == Verdict::Unknown && self.reasons.first() == Some(&Reason::NotEnrolled)
    }

    fn codes(&self) -> String {
        let codes: Vec<_> = self.reasons.iter().map(|reason| reason.code()).collect();
        match codes[..] {
            [] => "it is held against the Mac".to_owned(),
            _ => codes.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::time::Timestamp;

    fn change(previous: Verdict, verdict: Verdict, reasons: &[Reason]) -> PostureChange {
        PostureChange {
            device_id: DeviceId::new(Timestamp::from_seconds(1), &SeededEntropy::new(1)),
            verdict,
            previous,
            reasons: reasons.to_vec(),
            ended: false,
        }
    }

    #[test]
    fn a_mac_that_turned_bad_is_told_with_its_cause_for_both_readers() {
        let change = change(
            Verdict::Affirming,
            Verdict::Contraindicated,
            &[Reason::SipDisabled, Reason::EvidenceConflict],
        );
        let news = change
            .news(Some(Compliance::Compliant), true)
            .expect("news");
        assert_eq!(news.reason_admin, "sip_disabled, evidence_conflict");
        assert_eq!(
            news.reason_user.as_deref(),
            Some(Reason::SipDisabled.owner_text())
        );
        assert_eq!(news.initiator, Initiator::Policy);
        assert_eq!(change.news(Some(Compliance::NotCompliant), true), None);
    }

    #[test]
    fn an_operator_who_withdraws_trust_is_named_as_who_did_it() {
        let revoked = change(
            Verdict::Affirming,
            Verdict::Contraindicated,
            &[Reason::Revoked],
        );
        let news = revoked.news(None, true).expect("news");
        assert_eq!(news.initiator, Initiator::Admin);
    }

    #[test]
    fn what_is_unknown_is_not_told_and_does_not_hide_what_comes_after() {
        use Compliance::{Compliant, NotCompliant};
        let silent = change(
            Verdict::Affirming,
            Verdict::Unknown,
            &[Reason::AnswerTimeout],
        );
        assert_eq!(silent.news(Some(Compliant), true), None);
        assert_eq!(silent.word(true), None);
        // From unknown to bad: whoever was told "compliant" before hears of it.
        let bad = change(
            Verdict::Unknown,
            Verdict::Contraindicated,
            &[Reason::SipDisabled],
        );
        assert_eq!(
            bad.news(Some(Compliant), true).map(|it| it.previous),
            Some(Compliant)
        );
        assert_eq!(bad.news(None, true), None, "nobody was told otherwise");
        let good = change(Verdict::Unknown, Verdict::Affirming, &[]);
        assert_eq!(good.news(Some(Compliant), true), None);
        assert_eq!(
            good.news(None, true).map(|it| it.previous),
            Some(NotCompliant)
        );
    }

    #[test]
    fn a_verdict_that_ended_is_told_only_where_it_ends_the_use_of_the_mac() {
        let mut over = change(Verdict::Affirming, Verdict::Unknown, &[]);
        over.ended = true;
        assert_eq!(over.news(Some(Compliance::Compliant), false), None);
        let news = over.news(Some(Compliance::Compliant), true).expect("news");
        assert_eq!(news.current, Compliance::NotCompliant);
        assert_eq!(news.reason_user, None);
        over.verdict = Verdict::Warning;
        assert_eq!(over.news(Some(Compliance::Compliant), true), None);

        let left = change(Verdict::Affirming, Verdict::Unknown, &[Reason::NotEnrolled]);
        assert_eq!(left.news(Some(Compliance::Compliant), false), None);
        let news = left.news(Some(Compliance::Compliant), true).expect("news");
        assert_eq!(news.reason_admin, "not_enrolled");
    }

    proptest! {
        /// However verdicts follow one another, each change that is told begins where the last ended.
        #[test]
        fn what_is_told_of_a_mac_is_one_story(verdicts in prop::collection::vec((0..4_usize, any::<bool>()), 0..40), ends_use: bool) {
            let all = [Verdict::Affirming, Verdict::Warning, Verdict::Contraindicated, Verdict::Unknown];
            let (mut before, mut known) = (Verdict::Unknown, None);
            let mut last = Compliance::NotCompliant;
            for (next, ended) in verdicts {
                let mut change = change(before, all[next], &[]);
                change.ended = ended;
                if let Some(news) = change.news(known, ends_use) {
                    prop_assert_eq!(news.previous, last);
                    prop_assert_ne!(news.previous, news.current);
                    prop_assert!(!news.reason_admin.is_empty());
                    last = news.current;
                }
                known = change.word(ends_use).or(known);
                prop_assert_eq!(known.unwrap_or(Compliance::NotCompliant), last);
                before = all[next];
            }
        }
    }
}
