//! Why something is not done with a push certificate, for programs: each reason has one code that stays.

use super::Failure;
use super::approve_push_certificate::NotConfirmed;
use super::discard_push_certificate::NotDiscarded;
use super::name_mac::Unnamed;
use super::request_push_certificate::NotRequested;
use super::rotate_push_certificate::{NotInstalled, NotRolledBack, NotTaken};
use super::try_push_certificate::NotTried;
use crate::push::PushCertificateRefusal as Unfit;

/// It is not done.
#[derive(Debug)]
pub enum NotDone {
    /// There is no such certificate, or request.
    NotFound(String),
    /// It may not be; nothing was changed.
    Refused { code: &'static str, detail: String },
    /// The service could not do it.
    Failed(Failure),
}

fn refused(code: &'static str, why: &impl ToString) -> NotDone {
    NotDone::Refused {
        code,
        detail: why.to_string(),
    }
}

fn unfit(why: &Unfit) -> &'static str {
    match why {
        Unfit::NoCertificate => "no_certificate",
        Unfit::Unreadable(_) => "unreadable",
        Unfit::NoTopic => "no_topic",
        Unfit::SeveralCertificates => "several_certificates",
        Unfit::WeakKey => "weak_key",
        Unfit::KeyMismatch => "key_mismatch",
        Unfit::Expired(_) => "expired",
        Unfit::NotByApple(_) => "not_by_apple",
        Unfit::NotYetValid(_) => "not_yet_valid",
        Unfit::NoKey | Unfit::EncryptedKey | Unfit::SeveralKeys | Unfit::UnreadableKey => {
            "unusable_key"
        }
    }
}

impl From<NotRequested> for NotDone {
    fn from(why: NotRequested) -> Self {
        Self::Failed(match why {
            NotRequested::Store(fault) => fault.into(),
            NotRequested::Request(fault) => fault.into(),
            NotRequested::Key(_) | NotRequested::Interrupted => Failure::KeyNotMade,
        })
    }
}

impl From<NotInstalled> for NotDone {
    fn from(why: NotInstalled) -> Self {
        let code = match why {
            NotInstalled::Store(fault) => return Self::Failed(fault.into()),
            NotInstalled::Refused(ref unfitness) => unfit(unfitness),
            NotInstalled::NotRequestedHere => "not_requested_here",
            NotInstalled::Key => "unusable_key",
            NotInstalled::OtherTopic { .. } => "other_topic",
            NotInstalled::NotNew(_) => "not_new",
            NotInstalled::NoLonger(_) => "no_longer_valid_than_present",
            NotInstalled::Known(..) => "known",
        };
        refused(code, &why)
    }
}

impl From<NotTaken> for NotDone {
    fn from(why: NotTaken) -> Self {
        let code = match why {
            NotTaken::Store(fault) => return Self::Failed(fault.into()),
            NotTaken::Unknown(_) => return Self::NotFound(why.to_string()),
            NotTaken::Active => "active",
            NotTaken::Retired => "retired",
            NotTaken::NoLonger(_) => "no_longer_valid_than_present",
            NotTaken::NotTried => "not_tried",
            NotTaken::NotCome(_) => "not_come",
            NotTaken::Refused(ref unfitness) => unfit(unfitness),
            NotTaken::Key => "unusable_key",
        };
        refused(code, &why)
    }
}

impl From<NotTried> for NotDone {
    fn from(why: NotTried) -> Self {
        let code = match why {
            NotTried::NotTaken(why) => return why.into(),
            NotTried::Store(fault) | NotTried::Unnamed(Unnamed::Store(fault)) => {
                return Self::Failed(fault.into());
            }
            NotTried::HowMany => "how_many",
            NotTried::Unnamed(_) => "no_such_mac",
            NotTried::NotEnrolled(_) => "not_enrolled",
            NotTried::OtherTopic { .. } => "other_topic",
        };
        refused(code, &why)
    }
}

impl From<NotRolledBack> for NotDone {
    fn from(why: NotRolledBack) -> Self {
        let code = match why {
            NotRolledBack::Store(fault) => return Self::Failed(fault.into()),
            NotRolledBack::Nothing | NotRolledBack::NothingActive(_) => "nothing_active",
            NotRolledBack::WhichTopic(_) => "which_topic",
            NotRolledBack::NoFormer => "no_former",
            NotRolledBack::Expired(_) => "expired",
        };
        refused(code, &why)
    }
}

impl From<NotConfirmed> for NotDone {
    fn from(why: NotConfirmed) -> Self {
        let code = match why {
            NotConfirmed::Store(fault) => return Self::Failed(fault.into()),
            NotConfirmed::NotTaken(why) => return why.into(),
            NotConfirmed::NotRolledBack(why) => return why.into(),
            NotConfirmed::Unknown(_) => return Self::NotFound(why.to_string()),
            NotConfirmed::SamePerson => "same_person",
            NotConfirmed::TooLate(_) => "too_late",
            NotConfirmed::Changed => "changed",
        };
        refused(code, &why)
    }
}

impl From<NotDiscarded> for NotDone {
    fn from(why: NotDiscarded) -> Self {
        let code = match why {
            NotDiscarded::Store(fault) => return Self::Failed(fault.into()),
            NotDiscarded::Unknown(_) | NotDiscarded::UnknownRequest(_) => {
                return Self::NotFound(why.to_string());
            }
            NotDiscarded::Active => "active",
            NotDiscarded::Retired => "retired",
        };
        refused(code, &why)
    }
}
