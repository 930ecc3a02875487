//! What the steps of an enrolment mean to the owner of the Mac, and what to do.

use crate::enrollment::trace::{Standing, Step};
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;

/// A step by name, and while it is waited for.
#[derive(Debug)]
pub struct StepWords {
    pub title: &'static str,
    /// What is to happen now, in the headline.
    pub now: &'static str,
    /// What happens, or is to be done, while it waits and no reason is known.
    pub waiting: &'static str,
    pub who: Who,
}

/// Who acts next, as the page says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    You,
    Mac,
    MacAndApple,
    Service,
    Operator,
}

/// What can be done on the spot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    OpenDeviceManagement,
    StartAgain,
}

impl Who {
    pub fn words(self) -> &'static str {
        match self {
            Self::You => "you",
            Self::Mac => "the Mac, by itself",
            Self::MacAndApple => "the Mac and Apple, by themselves",
            Self::Service => "this service, by itself",
            Self::Operator => "whoever runs this service",
        }
    }
}

impl From<Actor> for Who {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::Service => Self::Service,
            Actor::Owner => Self::You,
            Actor::Operator => Self::Operator,
        }
    }
}

/// The words for a step.
pub fn words(step: Step) -> StepWords {
    let (title, now, waiting, who) = match step {
        Step::Profile => (
            "Download of the profile",
            "download the profile",
            "Download the profile on the Mac that is to be enrolled.",
            Who::You,
        ),
        Step::Identity => (
            "Certificate for the Mac",
            "install the profile on the Mac",
            "On the Mac, open the profile you downloaded. Then install it in System Settings, \
             General, Device Management (macOS 13 and 14: Privacy & Security, Profiles). macOS shows \
             what it contains and asks for an administrator’s password.",
            Who::You,
        ),
        Step::Authenticated => (
            "First contact of the Mac",
            "the Mac introduces itself",
            "macOS does this while it installs the profile.",
            Who::Mac,
        ),
        Step::Enrolled => (
            "Enrollment",
            "macOS finishes the installation",
            "macOS finishes the installation. If it says that it failed, start again with a new \
             profile.",
            Who::Mac,
        ),
        Step::Pushed => (
            "Wake-up by a push",
            "the Mac is woken",
            "Apple’s push service wakes the Mac. This takes a few seconds.",
            Who::Service,
        ),
        Step::SecurityInfo => (
            "Security state, from macOS",
            "macOS reports its security state",
            "The Mac answers when it is awake and online. Leave it open and connected to power.",
            Who::Mac,
        ),
        Step::Attestation => (
            "Attestation, from Apple",
            "Apple attests the Mac",
            "The Mac asks Apple for a certificate about itself. This can take a minute.",
            Who::MacAndApple,
        ),
        Step::Verdict => (
            "Verdict",
            "the evidence is judged",
            "As soon as all answers are in, they are judged.",
            Who::Service,
        ),
    };
    StepWords {
        title,
        now,
        waiting,
        who,
    }
}

/// How a step stands, in a word.
pub fn standing(step: Step, standing: Standing, is_current: bool) -> &'static str {
    match (standing, step, is_current) {
        (Standing::Done, Step::Verdict, _) => "Good",
        (Standing::Done, _, _) => "Done",
        (Standing::Refused, Step::Verdict, _) => "Bad",
        (Standing::Refused, _, _) => "Refused",
        (Standing::Waiting, _, true) => "Now",
        (Standing::Waiting, _, false) => "Later",
    }
}

/// A time for those without script, who get no local one.
pub fn utc(at: &Timestamp) -> String {
    let written = at.to_string();
    match written.get(..19) {
        Some(to_the_second) => format!("{} UTC", to_the_second.replace('T', " ")),
        None => written,
    }
}

/// A text of ours in parts, and whether each is something to type, which stands in backticks.
pub fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let parts = text.split('`').enumerate();
    parts.map(|(index, part)| (index % 2 == 1, part))
}

/// What can be done on the spot about a step that waits or was refused.
pub fn action(step: Step, standing: Standing, reason: Option<Reason>) -> Option<Action> {
    match (standing, reason) {
        (Standing::Done, _) => None,
        (
            _,
            Some(
                Reason::TicketUnknown
                | Reason::TicketExpired
                | Reason::TicketUsed
                | Reason::NotEnrolled
                | Reason::IdentityExpired
                | Reason::IdentityUnknown
                | Reason::ChannelNotAttested
                | Reason::SerialMismatch,
            ),
        ) => Some(Action::StartAgain),
        (Standing::Waiting, None) if step == Step::Identity => Some(Action::OpenDeviceManagement),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_typed_is_told_apart() {
        let told: Vec<_> = parts("run `csrutil enable`, restart").collect();
        let expected = [
            (false, "run "),
            (true, "csrutil enable"),
            (false, ", restart"),
        ];
        assert_eq!(told, expected);
        for reason in Reason::ALL {
            let ticks = reason.owner_text().matches('`').count();
            assert!(ticks.is_multiple_of(2), "{reason}");
        }
    }

    #[test]
    fn a_time_is_read_by_people() {
        for millis in [1_790_847_007_000, 1_790_847_007_123] {
            assert_eq!(
                utc(&Timestamp::from_millis(millis)),
                "2026-10-01 09:30:07 UTC"
            );
        }
    }
}
