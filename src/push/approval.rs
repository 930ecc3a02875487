//! Approval by two: what one person proposes comes into use only when another confirms it, in time.
//!
//! A certificate that is taken into use, or back, decides whether a fleet can be woken at all. Where two are asked
//! for, no single token, and no single account of the machine, can do that.

use std::time::Duration;

use crate::ids::{PushCertificateId, PushProposalId, Topic};
use crate::time::Timestamp;

/// Whether another person must confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// Whoever may do it does it.
    OnePerson,
    /// Another person confirms within this time.
    TwoPersons { within: Duration },
}

/// What is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A staged certificate is taken into use.
    Activate,
    /// The former one comes back.
    RollBack,
}

impl Change {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::RollBack => "rollback",
        }
    }

    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Activate, Self::RollBack]
            .into_iter()
            .find(|change| change.as_str() == word)
    }
}

/// What one person wants, and another is to confirm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub push_proposal_id: PushProposalId,
    pub topic: Topic,
    pub change: Change,
    /// In use afterwards.
    pub push_certificate_id: PushCertificateId,
    /// Why no Mac had to try it first.
    pub untried_because: Option<String>,
    /// What tells its author from another person.
    pub person: String,
    /// Its author, as people read it.
    pub proposed_by: String,
    pub proposed_at: Timestamp,
    /// Nobody can confirm it from then on.
    pub good_until: Timestamp,
}

/// Why somebody does not confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconfirmed {
    /// It is their own.
    SamePerson,
    /// Its time was over.
    TooLate(Timestamp),
}

impl Proposal {
    /// Whether this person may confirm it now.
    ///
    /// # Errors
    /// [`Unconfirmed`].
    pub fn may_be_confirmed(&self, person: &str, now: Timestamp) -> Result<(), Unconfirmed> {
        if now >= self.good_until {
            return Err(Unconfirmed::TooLate(self.good_until));
        }
        if person == self.person {
            return Err(Unconfirmed::SamePerson);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_person_confirms_in_time_and_nobody_else() {
        let at = Timestamp::from_millis;
        let proposal = Proposal {
            push_proposal_id: PushProposalId::parse("ppr_01J8ZZZZZZZZZZZZZZZZZZZZZZ")
                .expect("an id"),
            topic: Topic::parse("com.apple.mgmt.External.x").expect("a topic"),
            change: Change::Activate,
            push_certificate_id: PushCertificateId::parse("psh_01J8ZZZZZZZZZZZZZZZZZZZZZZ")
                .expect("an id"),
            untried_because: None,
            person: "user:ann".to_owned(),
            proposed_by: "command line (ann)".to_owned(),
            proposed_at: at(1_000),
            good_until: at(2_000),
        };
        for (person, now, expected) in [
            ("user:bob", 1_000, Ok(())),
            ("token:tok_1", 1_999, Ok(())),
            ("user:bob", 2_000, Err(Unconfirmed::TooLate(at(2_000)))),
            ("user:ann", 1_500, Err(Unconfirmed::SamePerson)),
            ("user:ann", 2_000, Err(Unconfirmed::TooLate(at(2_000)))),
        ] {
            assert_eq!(
                proposal.may_be_confirmed(person, at(now)),
                expected,
                "{person} {now}"
            );
        }
        for change in [Change::Activate, Change::RollBack] {
            assert_eq!(Change::from_word(change.as_str()), Some(change));
        }
    }
}
