//! Trouble that stops the pushes of a whole fleet, as it is told: by one of several nodes, once when it
//! begins and once when it is over.

use crate::push::PushOutcome;
use crate::time::Timestamp;

/// Why nobody can be woken under a topic. None of it is any Mac's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The certificate's last day is over.
    Expired,
    /// APNs refuses the certificate: revoked, or not what it was thought to be.
    Refused,
    /// APNs says that the certificate is for another topic.
    OtherTopic,
}

impl Trouble {
    const ALL: [Self; 3] = [Self::Expired, Self::Refused, Self::OtherTopic];

    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "push_certificate_expired",
            Self::Refused => "push_certificate_refused",
            Self::OtherTopic => "push_topic_refused",
        }
    }

    /// What an outcome that stopped a topic says.
    pub fn of(outcome: &PushOutcome) -> Self {
        match outcome {
            PushOutcome::TopicFault(_) | PushOutcome::TokenForeign => Self::OtherTopic,
            _ => Self::Refused,
        }
    }
}

/// What is the matter with a topic: its certificate ends, or a push with it was stopped by this outcome.
pub fn of_topic(
    not_after: Timestamp,
    stopped: Option<&(Timestamp, PushOutcome)>,
    now: Timestamp,
) -> Option<(Timestamp, Trouble)> {
    if not_after < now {
        return Some((not_after, Trouble::Expired));
    }
    stopped.map(|(at, outcome)| (*at, Trouble::of(outcome)))
}

/// What was seen last of a topic, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    pub at: Timestamp,
    /// `None`: a push was taken, or another certificate came into use.
    pub trouble: Option<Trouble>,
}

/// The word for no trouble.
const FINE: &str = "fine";

impl Observed {
    /// Whether this is to be told, if `known` was told last. A node that saw something earlier than what
    /// is known has nothing to say.
    pub fn is_news(&self, known: Option<&Self>) -> bool {
        match known {
            None => self.trouble.is_some(),
            Some(known) => self.at > known.at && self.trouble != known.trouble,
        }
    }

    /// As it is kept.
    pub fn to_text(self) -> String {
        let word = self.trouble.map_or(FINE, Trouble::as_str);
        format!("{} {word}", self.at)
    }

    /// Reads what was kept.
    pub fn parse(text: &str) -> Option<Self> {
        let (at, word) = text.split_once(' ')?;
        let trouble = match word {
            FINE => None,
            word => Some(Trouble::ALL.into_iter().find(|one| one.as_str() == word)?),
        };
        Some(Self {
            at: Timestamp::parse(at).ok()?,
            trouble,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::ApnsReason;
    use crate::push::outcome::CertificateFault;

    fn observed(seconds: i64, trouble: Option<Trouble>) -> Observed {
        Observed {
            at: Timestamp::from_seconds(1_800_000_000 + seconds),
            trouble,
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        for trouble in Trouble::ALL.into_iter().map(Some).chain([None]) {
            let one = observed(7, trouble);
            assert_eq!(Observed::parse(&one.to_text()), Some(one));
        }
        for text in [
            "",
            "fine",
            "2026-10-01T09:30:07Z",
            "2026-10-01T09:30:07Z bad",
            "now fine",
        ] {
            assert_eq!(Observed::parse(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_told_when_it_begins_and_when_it_is_over_and_by_nobody_who_is_late() {
        let refused = Some(Trouble::Refused);
        assert!(!observed(0, None).is_news(None));
        let began = observed(0, refused);
        assert!(began.is_news(None));
        // Another node sees the same, and a third is still at what was before.
        assert!(!observed(5, refused).is_news(Some(&began)));
        assert!(!observed(-5, None).is_news(Some(&began)));
        assert!(observed(9, None).is_news(Some(&began)));
        let over = observed(9, None);
        assert!(!began.is_news(Some(&over)));
        assert!(observed(10, Some(Trouble::Expired)).is_news(Some(&over)));
    }

    #[test]
    fn outcomes_that_stop_a_topic_say_why() {
        for (outcome, trouble) in [
            (
                PushOutcome::CertificateFault(CertificateFault::Handshake),
                Trouble::Refused,
            ),
            (
                PushOutcome::TopicFault(ApnsReason::BadTopic),
                Trouble::OtherTopic,
            ),
            (PushOutcome::TokenForeign, Trouble::OtherTopic),
        ] {
            assert_eq!(Trouble::of(&outcome), trouble);
        }
    }
}
