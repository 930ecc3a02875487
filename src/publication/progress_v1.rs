//! `GET /v1/enrollments/{progress_id}`: how far an enrolment is, for its owner.

use serde::Serialize;

use crate::enrollment::Ticket;
use crate::enrollment::trace::{Entry, Standing, Step};
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;

/// The answer. It names no serial number and no device: whoever has the link sees steps only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ProgressV1 {
    pub created_at: Timestamp,
    /// Until when the profile can be installed.
    pub expires_at: Timestamp,
    /// `waiting`, `refused`, or `done` once a verdict is there.
    pub state: Standing,
    /// Nothing more happens by itself: there is a verdict, good or bad, or the profile was not
    /// installed in time.
    pub ended: bool,
    pub steps: Vec<StepV1>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StepV1 {
    pub step: Step,
    pub standing: Standing,
    pub at: Option<Timestamp>,
    pub reason: Option<Reason>,
    /// What it means and what to do.
    pub remedy: Option<&'static str>,
    pub who: Option<Actor>,
}

impl ProgressV1 {
    /// Every step in order, those that have not happened as waiting.
    pub fn new(ticket: &Ticket, entries: &[Entry], now: Timestamp) -> Self {
        let mut steps: Vec<StepV1> = Step::ALL
            .into_iter()
            .map(
                |step| match entries.iter().find(|entry| entry.step == step) {
                    Some(entry) => StepV1::new(entry),
                    None => StepV1 {
                        step,
                        standing: Standing::Waiting,
                        at: None,
                        reason: None,
                        remedy: None,
                        who: None,
                    },
                },
            )
            .collect();
        let unused = ticket.used_at.is_none() && now >= ticket.expires_at;
        if unused && let Some(identity) = steps.iter_mut().find(|s| s.step == Step::Identity) {
            *identity = StepV1::new(&Entry::refused(
                Step::Identity,
                Reason::TicketExpired,
                ticket.expires_at,
            ));
        }
        // What Apple's push service said of a push may be noted after the Mac has answered it; and a
        // Mac may come by itself. Either way it was reached.
        let reached = steps
            .iter()
            .find(|step| step.step > Step::Pushed && step.standing == Standing::Done)
            .and_then(|step| step.at);
        if let Some(at) = reached
            && let Some(pushed) = steps.iter_mut().find(|step| step.step == Step::Pushed)
            && pushed.standing == Standing::Waiting
        {
            *pushed = StepV1::new(&Entry::done(Step::Pushed, at));
        }
        let state = if steps.iter().any(|step| step.standing == Standing::Refused) {
            Standing::Refused
        } else if steps
            .last()
            .is_some_and(|step| step.standing == Standing::Done)
        {
            Standing::Done
        } else {
            Standing::Waiting
        };
        let judged = steps
            .last()
            .is_some_and(|step| step.standing != Standing::Waiting);
        Self {
            created_at: ticket.created_at,
            expires_at: ticket.expires_at,
            state,
            ended: unused || judged,
            steps,
        }
    }
}

impl StepV1 {
    fn new(entry: &Entry) -> Self {
        Self {
            step: entry.step,
            standing: entry.standing,
            at: Some(entry.at),
            reason: entry.reason,
            remedy: entry.reason.map(Reason::owner_text),
            who: entry.reason.map(Reason::actor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrollment::ticket::Bounds;
    use crate::entropy::SeededEntropy;

    const NOW: i64 = 1_790_847_007;

    fn ticket(used: bool) -> Ticket {
        let now = Timestamp::from_seconds(NOW);
        let (mut ticket, _) = Ticket::issue(Bounds::default(), now, &SeededEntropy::new(1));
        ticket.used_at = used.then_some(now);
        ticket
    }

    #[test]
    fn every_step_is_listed_and_what_has_not_happened_waits() {
        let now = Timestamp::from_seconds(NOW);
        let progress = ProgressV1::new(&ticket(false), &[Entry::done(Step::Profile, now)], now);
        assert_eq!(progress.steps.len(), Step::ALL.len());
        assert_eq!(progress.steps[0].standing, Standing::Done);
        assert!(
            progress.steps[1..]
                .iter()
                .all(|step| step.standing == Standing::Waiting)
        );
        assert_eq!(progress.state, Standing::Waiting);
    }

    #[test]
    fn a_profile_that_was_never_installed_says_so_once_it_cannot_be() {
        let late = ticket(false).expires_at;
        let unused = ProgressV1::new(&ticket(false), &[], late);
        assert!(unused.state == Standing::Refused && unused.ended);
        assert_eq!(unused.steps[1].reason, Some(Reason::TicketExpired));
        assert!(unused.steps[1].remedy.is_some());
        assert_eq!(
            ProgressV1::new(&ticket(true), &[], late).state,
            Standing::Waiting
        );
    }

    #[test]
    fn a_mac_that_answered_was_reached() {
        let now = Timestamp::from_seconds(NOW);
        let pushed = |entry: Entry| {
            let progress = ProgressV1::new(&ticket(true), &[entry], now);
            progress.steps[4].standing
        };
        assert_eq!(pushed(Entry::done(Step::SecurityInfo, now)), Standing::Done);
        let silent = Entry::refused(Step::SecurityInfo, Reason::AnswerTimeout, now);
        assert_eq!(pushed(silent), Standing::Waiting);
        assert_eq!(pushed(Entry::done(Step::Enrolled, now)), Standing::Waiting);
    }

    #[test]
    fn a_verdict_ends_it_and_a_refusal_names_reason_remedy_and_actor() {
        let now = Timestamp::from_seconds(NOW);
        let done = ProgressV1::new(&ticket(true), &[Entry::done(Step::Verdict, now)], now);
        assert!(done.state == Standing::Done && done.ended);
        let entry = Entry::refused(Step::Attestation, Reason::AttestationUnavailable, now);
        let refused = ProgressV1::new(&ticket(true), &[entry], now);
        let step = &refused.steps[6];
        assert!(refused.state == Standing::Refused && !refused.ended);
        assert_eq!(step.who, Some(Actor::Owner));
        assert_eq!(
            step.remedy,
            Some(Reason::AttestationUnavailable.owner_text())
        );
    }
}
