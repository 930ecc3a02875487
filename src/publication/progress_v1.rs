//! `GET /v1/enrollments/{progress_id}`: how far an enrolment is, for its owner.

use serde::Serialize;

use crate::enrollment::Ticket;
use crate::enrollment::trace::{Entry, Standing, Step};
use crate::reason::{Actor, Reason};
use crate::time::Timestamp;

/// The answer. It names no serial number and no device: whoever has the link sees steps only.
#[derive(Debug, Clone, Serialize)]
pub struct ProgressV1 {
    pub created_at: Timestamp,
    /// Until when the profile can be installed.
    pub expires_at: Timestamp,
    /// `waiting`, `refused`, or `done` once a verdict is there.
    pub state: Standing,
    pub steps: Vec<StepV1>,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
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
        Self {
            created_at: ticket.created_at,
            expires_at: ticket.expires_at,
            state,
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
