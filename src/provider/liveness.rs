//! Whether a provider session is still answered for: the life of its challenges.
//!
//! Due at once, then five minutes after each answer, and at once after a time-out; thirty seconds to
//! answer. What follows from time alone follows without anybody's doing: every question takes `now`,
//! and a challenge whose time is up counts as timed out from that moment on, whoever asks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::challenge::{AnswerRefusal, Challenge, VerifiedAnswer};
use crate::reason::Reason;
use crate::time::Timestamp;

/// How often, how long, how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// From an answer to the next challenge.
    pub every: Duration,
    /// How long an answer may take.
    pub answer_within: Duration,
    /// How long a good answer counts.
    pub max_age: Duration,
    /// So many time-outs in a row end what the last good answer gave.
    pub time_outs: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
            answer_within: Duration::from_secs(30),
            max_age: Duration::from_secs(6 * 60),
            time_outs: 3,
        }
    }
}

/// The challenges of one session so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// When the last good answer was there; nothing once it no longer counts.
    last_good_at: Option<Timestamp>,
    /// When the newest challenge that was counted had been issued.
    counted_up_to: Option<Timestamp>,
    /// Time-outs since the last answer, the outstanding challenge not among them.
    time_outs: u32,
    outstanding: Option<Outstanding>,
    due_at: Timestamp,
    /// Why the last answer was not taken, until one is.
    refused: Option<Reason>,
    reported_bad: Option<ReportedBad>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Outstanding {
    challenge: Challenge,
    answer_by: Timestamp,
}

/// The provider itself said that its Mac is in a bad state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedBad {
    pub at: Timestamp,
    pub reasons: Vec<Reason>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It counts, for or against the session.
    Counted,
    /// Nobody waits for it: it changed nothing.
    Unsolicited,
}

/// A challenge is waiting for its answer; there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a challenge is outstanding")]
pub struct StillOutstanding;

impl Liveness {
    /// A session that begins: its first challenge is due at once.
    pub fn begin(now: Timestamp) -> Self {
        Self {
            last_good_at: None,
            counted_up_to: None,
            time_outs: 0,
            outstanding: None,
            due_at: now,
            refused: None,
            reported_bad: None,
        }
    }

    /// A challenge is on its way.
    ///
    /// # Errors
    /// While another one may still be answered.
    pub fn issue(
        &mut self,
        challenge: Challenge,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), StillOutstanding> {
        self.settle(now);
        if self.outstanding.is_some() {
            return Err(StillOutstanding);
        }
        let answer_by = challenge.issued_at().plus(rules.answer_within);
        self.outstanding = Some(Outstanding {
            challenge,
            answer_by,
        });
        Ok(())
    }

    /// The challenge that waits for its answer.
    pub fn outstanding(&self, now: Timestamp) -> Option<&Challenge> {
        Some(&self.waiting(now).ok()??.challenge)
    }

    /// Its challenge was answered, well or badly.
    pub fn answered(
        &mut self,
        challenge: &Challenge,
        outcome: Result<&VerifiedAnswer, &AnswerRefusal>,
        rules: &Rules,
        now: Timestamp,
    ) -> Taken {
        self.settle(now);
        if self.outstanding(now) != Some(challenge) {
            return Taken::Unsolicited;
        }
        self.outstanding = None;
        self.count(challenge, outcome, rules, now);
        Taken::Counted
    }

    /// The coordinator hands over an exchange of its own; [`AnswerRefusal::Late`] when nothing came.
    /// One that is no newer than what was counted already is a repetition: an old answer can neither
    /// refresh nor darken a session. One whose times cannot be says something of the coordinator's
    /// clock, and nothing of the provider.
    pub fn handed_over(
        &mut self,
        challenge: &Challenge,
        outcome: Result<&VerifiedAnswer, &AnswerRefusal>,
        rules: &Rules,
        now: Timestamp,
    ) -> Taken {
        self.settle(now);
        let is_newer = self
            .counted_up_to
            .is_none_or(|before| challenge.issued_at() > before);
        if !is_newer || outcome == Err(&AnswerRefusal::Untimely) {
            return Taken::Unsolicited;
        }
        self.count(challenge, outcome, rules, now);
        Taken::Counted
    }

    fn count(
        &mut self,
        challenge: &Challenge,
        outcome: Result<&VerifiedAnswer, &AnswerRefusal>,
        rules: &Rules,
        now: Timestamp,
    ) {
        self.counted_up_to = self.counted_up_to.max(Some(challenge.issued_at()));
        if outcome == Err(&AnswerRefusal::Late) {
            self.time_outs = self.time_outs.saturating_add(1);
            self.due_at = now;
            return;
        }
        self.time_outs = 0;
        match outcome {
            Err(refusal) => {
                self.last_good_at = None;
                self.refused = Some(refusal.reason());
                // Soon, so that an accident is over soon; not at once, or a provider that always
                // answers badly is asked as fast as it answers.
                self.due_at = now.plus(rules.answer_within);
            }
            Ok(answer) => {
                let negatives = answer.negatives();
                self.refused = None;
                self.due_at = answer.received_at().plus(rules.every);
                if negatives.is_empty() {
                    let before = self.last_good_at.filter(|at| !at.is_to_come(now));
                    self.last_good_at = before.max(Some(answer.received_at()));
                } else {
                    self.last_good_at = None;
                    self.reported_bad = Some(ReportedBad {
                        at: now,
                        reasons: negatives,
                    });
                }
            }
        }
    }

    /// Writes down that the outstanding challenge was not answered in time: who asks sees it in any
    /// case. False when nothing was to be written.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let has_expired = self.waiting(now).is_err();
        self.settle(now);
        has_expired
    }

    /// Until when the challenge that was issued last may be answered; nothing once it was.
    pub fn answer_by(&self) -> Option<Timestamp> {
        self.outstanding.as_ref().map(|waiting| waiting.answer_by)
    }

    /// Counts the outstanding challenge as timed out once its time is up.
    fn settle(&mut self, now: Timestamp) {
        if let Some(expired) = self.outstanding.take_if(|waiting| now > waiting.answer_by) {
            self.time_outs = self.time_outs.saturating_add(1);
            self.due_at = expired.answer_by;
        }
    }

    /// The outstanding challenge, or the moment at which its time was up.
    fn waiting(&self, now: Timestamp) -> Result<Option<&Outstanding>, Timestamp> {
        match &self.outstanding {
            Some(expired) if now > expired.answer_by => Err(expired.answer_by),
            waiting => Ok(waiting.as_ref()),
        }
    }

    /// When the next challenge is due; nothing while one is outstanding.
    pub fn due_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.waiting(now) {
            Ok(Some(_)) => None,
            Ok(None) => Some(self.due_at),
            Err(expired_at) => Some(expired_at),
        }
    }

    /// Time-outs in a row, at `now`.
    pub fn time_outs(&self, now: Timestamp) -> u32 {
        let expired = u32::from(self.waiting(now).is_err());
        self.time_outs.saturating_add(expired)
    }

    /// When the last good answer was there, as long as nothing has voided it.
    pub fn last_good_at(&self) -> Option<Timestamp> {
        self.last_good_at
    }

    /// What the provider said against its Mac, and newer evidence has not answered.
    pub fn reported_bad(&self) -> Option<&ReportedBad> {
        self.reported_bad.as_ref()
    }

    /// Device evidence that is good, of this time, is there. It answers what the provider said
    /// against its Mac before, if the provider has not gone on saying it: both must be newer.
    /// True when that is so.
    pub fn device_evidence(&mut self, minted_at: Timestamp) -> bool {
        let is_answered = self.reported_bad.as_ref().is_some_and(|bad| {
            minted_at > bad.at && self.last_good_at.is_some_and(|good| good > bad.at)
        });
        if is_answered {
            self.reported_bad = None;
        }
        is_answered
    }

    /// Until when the session is answered for, if nothing new happens; nothing when it is not. An
    /// outstanding challenge that would be one time-out too many is part of it.
    pub fn good_until(&self, rules: &Rules, now: Timestamp) -> Option<Timestamp> {
        let time_outs = self.time_outs(now);
        if self.reported_bad.is_some() || time_outs >= rules.time_outs {
            return None;
        }
        let last_good_at = self.last_good_at.filter(|at| !at.is_to_come(now));
        let mut until = last_good_at?.plus(rules.max_age);
        if let Ok(Some(waiting)) = self.waiting(now)
            && time_outs.saturating_add(1) >= rules.time_outs
        {
            // An answer in the last millisecond is in time.
            until = until.min(waiting.answer_by.plus(Duration::from_millis(1)));
        }
        (now < until).then_some(until)
    }

    /// Why the session is not answered for, cause first; empty when it is.
    pub fn reasons(&self, rules: &Rules, now: Timestamp) -> Vec<Reason> {
        if self.good_until(rules, now).is_some() {
            return Vec::new();
        }
        let reported = self.reported_bad.iter().flat_map(|bad| bad.reasons.clone());
        let mut reasons: Vec<_> = reported.chain(self.refused).collect();
        let has_good = self
            .last_good_at
            .is_some_and(|at| now < at.plus(rules.max_age) && !at.is_to_come(now));
        let gave_up = self.time_outs(now) >= rules.time_outs;
        if !has_good || gave_up {
            reasons.push(Reason::ChallengeStale);
        }
        reasons
    }
}
