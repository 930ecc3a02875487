//! What the steps of an enrolment mean to the owner of the Mac, and what to do.

use crate::enrollment::trace::{Standing, Step};
use crate::reason::{Actor, Reason};

/// A step by name, and while it is waited for.
#[derive(Debug)]
pub struct StepWords {
    pub title: &'static str,
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
    let (title, waiting, who) = match step {
        Step::Profile => (
            "Profile downloaded",
            "Download the profile on the Mac that is to be enrolled.",
            Who::You,
        ),
        Step::Identity => (
            "Certificate issued to the Mac",
            "On the Mac, open the profile you downloaded. Then install it in System Settings, \
             General, Device Management (macOS 13 and 14: Privacy & Security, Profiles). macOS shows \
             what it contains and asks for an administrator’s password.",
            Who::You,
        ),
        Step::Authenticated => (
            "Mac introduced itself",
            "macOS does this while it installs the profile.",
            Who::Mac,
        ),
        Step::Enrolled => (
            "Mac enrolled",
            "macOS finishes the installation. If it says that it failed, start again with a new \
             profile.",
            Who::Mac,
        ),
        Step::Pushed => (
            "Mac woken by Apple’s push service",
            "This takes a few seconds.",
            Who::Service,
        ),
        Step::SecurityInfo => (
            "Security state reported",
            "The Mac answers when it is awake and online. Leave it open and connected to power.",
            Who::Mac,
        ),
        Step::Attestation => (
            "Attested by Apple",
            "The Mac asks Apple for a certificate about itself. This can take a minute.",
            Who::MacAndApple,
        ),
        Step::Verdict => (
            "Verdict",
            "As soon as all answers are in, they are judged.",
            Who::Service,
        ),
    };
    StepWords {
        title,
        waiting,
        who,
    }
}

/// How a step stands, in a word.
pub fn standing(standing: Standing, is_current: bool) -> &'static str {
    match (standing, is_current) {
        (Standing::Done, _) => "Done",
        (Standing::Refused, _) => "Refused",
        (Standing::Waiting, true) => "Now",
        (Standing::Waiting, false) => "Later",
    }
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
