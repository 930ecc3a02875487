//! `attestd device show`: all that is known of a Mac, and who acts next.

use serde::Serialize;

use super::binding_v1::BindingV1;
use super::device_v1::DeviceV1;
use super::posture_v1::PostureV1;
use super::progress_v1::ProgressV1;
use super::verification_v1::VerificationV1;
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{Agenda, Kind, Part, Progress, Verification};

/// The answer. Times in it are absolute.
#[derive(Debug, Clone, Serialize)]
pub struct StoryV1<'a> {
    pub evaluated_at: Timestamp,
    pub device: DeviceV1<'a>,
    pub posture: &'a PostureV1,
    /// The reasons of the posture in words, cause first.
    pub why: Vec<WhyV1>,
    /// The steps of its enrolment; `None` for a Mac that came in without a ticket.
    pub steps: Option<&'a ProgressV1>,
    /// The latest attempt to get evidence.
    pub verification: Option<&'a VerificationV1>,
    pub sessions: Vec<BindingV1<'a>>,
    pub pushes: PushesV1,
    pub asks: Vec<AskV1>,
    pub who_acts: WhoActsV1,
}

/// A reason in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WhyV1 {
    pub reason: Reason,
    /// What it means, for the owner of the Mac, and what to do.
    pub text: &'static str,
    pub who: Actor,
}

/// How often it was woken, and may be.
#[derive(Debug, Clone, Serialize)]
pub struct PushesV1 {
    pub within_the_hour: usize,
    pub per_hour: u32,
    /// What keeps it from being woken now, and until when; `None`: nothing.
    pub held_until: Option<Timestamp>,
    pub held_for: Option<Reason>,
}

/// What is asked of it next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AskV1 {
    pub kind: Kind,
    /// How far it is; `None` while no attempt asks for it.
    pub state: Option<Progress>,
    /// From when on it is asked; `None`: now.
    pub from: Option<Timestamp>,
    pub reason: Option<Reason>,
}

/// Who acts next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// The owner of the Mac, who is its provider.
    Owner,
    Mac,
    Apple,
    /// Whoever runs this service.
    Operator,
    Service,
}

/// Who acts next, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhoActsV1 {
    pub who: Turn,
    /// The reason it follows from.
    pub reason: Option<Reason>,
    pub text: &'static str,
    /// From when on; `None`: now, or nobody knows.
    pub from: Option<Timestamp>,
}

impl Turn {
    /// The published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Mac => "mac",
            Self::Apple => "apple",
            Self::Operator => "operator",
            Self::Service => "service",
        }
    }
}

impl From<Reason> for WhyV1 {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            text: reason.owner_text(),
            who: reason.actor(),
        }
    }
}

impl PushesV1 {
    /// What an agenda says of it.
    pub fn new(agenda: Option<&Agenda>, rules: &Rules, now: Timestamp) -> Self {
        let hold = agenda.and_then(|agenda| agenda.held(rules, now));
        Self {
            within_the_hour: agenda.map_or(0, |agenda| agenda.pushes_sent(now)),
            per_hour: rules.pushes_per_hour,
            held_until: hold.map(|hold| hold.until),
            held_for: hold.and_then(|hold| hold.reason),
        }
    }
}

/// What is asked next: what the open attempt owes, and what the agenda plans besides.
pub fn asks(agenda: Option<&Agenda>, open: Option<&Verification>, rules: &Rules) -> Vec<AskV1> {
    let owed = open
        .into_iter()
        .flat_map(|open| &open.parts)
        .filter(|part| part.progress.is_owed());
    let mut asks: Vec<_> = owed
        .map(|part| AskV1 {
            kind: part.kind,
            state: Some(part.progress),
            from: part.not_before.or(part.woken_from),
            reason: part.reason,
        })
        .collect();
    let planned = agenda.map_or_else(Vec::new, |agenda| agenda.to_ask(rules));
    for (kind, from) in planned {
        if asks.iter().all(|ask| ask.kind != kind) {
            asks.push(AskV1 {
                kind,
                state: None,
                from: Some(from),
                reason: None,
            });
        }
    }
    asks.sort_by_key(|ask| ask.kind);
    asks
}

/// Who acts next. The first reason decides, in the registry's words; where that leaves it to the service,
/// it is told for whom the service waits.
pub fn who_acts(posture: &PostureV1, open: Option<&Verification>, asks: &[AskV1]) -> WhoActsV1 {
    follows(posture.reasons.first().copied(), open, asks)
}

fn follows(reason: Option<Reason>, open: Option<&Verification>, asks: &[AskV1]) -> WhoActsV1 {
    let of = |who, text, from| WhoActsV1 {
        who,
        reason,
        text,
        from,
    };
    if let Some(cause) = reason {
        match cause.actor() {
            Actor::Owner => return of(Turn::Owner, cause.owner_text(), None),
            Actor::Operator => return of(Turn::Operator, cause.owner_text(), None),
            Actor::Service => {}
        }
    }
    let mut parts = open.into_iter().flat_map(|open| &open.parts);
    let is_out = |part: &Part| {
        use Progress::{Delivered, NotNow, Pushed};
        matches!(part.progress, Pushed | Delivered | NotNow)
    };
    if parts.any(is_out) {
        let text = "It was woken and answers once it is awake and online.";
        return of(Turn::Mac, text, None);
    }
    let soonest = asks.iter().map(|ask| ask.from).min().flatten();
    let text = reason.map_or("", Reason::owner_text);
    match reason {
        Some(Reason::AppleRateLimit | Reason::AttestationCached | Reason::AttestationWithheld) => {
            let mda = asks.iter().find(|ask| ask.kind == Kind::Mda);
            of(Turn::Apple, text, mda.and_then(|ask| ask.from))
        }
        Some(_) => of(Turn::Service, text, soonest),
        None if asks.is_empty() => of(Turn::Service, "Nothing is to be done.", None),
        None => of(
            Turn::Service,
            "Nothing is missing; it is asked again in time.",
            soonest,
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;
    use std::time::Duration;

    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::ids::{CommandUuid, DeviceId, VerificationId};
    use crate::verification::{Priority, Request};

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_790_847_007)
    }

    fn open(asked: bool) -> Verification {
        let entropy = SeededEntropy::new(1);
        let request = Request {
            kinds: vec![Kind::SecurityInfo],
            priority: Priority::First,
            occasion: "a test".to_owned(),
            patience: Duration::from_secs(600),
        };
        let names = (
            VerificationId::new(now(), &entropy),
            DeviceId::new(now(), &entropy),
        );
        let mut verification = Verification::start(names.0, names.1, &request, now());
        if asked {
            verification.hand_over(Kind::SecurityInfo, CommandUuid::new(&entropy));
        }
        verification
    }

    #[test]
    fn the_first_reason_says_who_acts_and_else_it_is_told_who_is_waited_for() {
        let later = now().plus(Duration::from_secs(600));
        let mda = AskV1 {
            kind: Kind::Mda,
            state: None,
            from: Some(later),
            reason: None,
        };
        let (waiting, out) = (open(false), open(true));
        for (reason, open, asks, who, from) in [
            (
                Some(Reason::SipDisabled),
                Some(&out),
                &[][..],
                Turn::Owner,
                None,
            ),
            (Some(Reason::Revoked), None, &[], Turn::Operator, None),
            (Some(Reason::AwaitingPush), Some(&out), &[], Turn::Mac, None),
            (
                Some(Reason::AwaitingPush),
                Some(&waiting),
                &[],
                Turn::Service,
                None,
            ),
            (
                Some(Reason::AppleRateLimit),
                None,
                from_ref(&mda),
                Turn::Apple,
                Some(later),
            ),
            (None, None, from_ref(&mda), Turn::Service, Some(later)),
            (None, Some(&out), from_ref(&mda), Turn::Mac, None),
            (None, None, &[], Turn::Service, None),
        ] {
            let next = follows(reason, open, asks);
            assert_eq!((next.who, next.from), (who, from), "{reason:?}");
            assert!(!next.text.is_empty(), "{reason:?}");
        }
    }

    #[test]
    fn what_is_owed_and_what_is_planned_are_told_once_each() {
        let agenda = Agenda::new(DeviceId::new(now(), &SeededEntropy::new(1)), now());
        let rules = Rules::usual();
        let asked = asks(Some(&agenda), Some(&open(true)), &rules);
        assert_eq!(
            asked.len(),
            1,
            "nothing is planned for a Mac that is not enrolled"
        );
        assert_eq!(asked[0].state, Some(Progress::Delivered));
        let mut enrolled = agenda;
        enrolled.stands(true, now());
        let asked = asks(Some(&enrolled), Some(&open(true)), &rules);
        let kinds: Vec<_> = asked.iter().map(|ask| (ask.kind, ask.state)).collect();
        let expected = [
            (Kind::SecurityInfo, Some(Progress::Delivered)),
            (Kind::Mda, None),
        ];
        assert_eq!(kinds, expected);
    }
}
