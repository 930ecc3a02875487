//! The allowed moves of a verification.

use std::time::Duration;

use super::{
    Finished, Kind, MAX_ATTEMPTS, MAX_HAND_OVERS, Part, Priority, Progress, Promised, State,
    Verification,
};
use crate::ids::{CommandUuid, DeviceId, VerificationId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// What a new verification asks, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub kinds: Vec<Kind>,
    pub priority: Priority,
    pub occasion: String,
    /// From now.
    pub patience: Duration,
}

impl Progress {
    /// The Mac still owes an answer, now or later.
    pub fn is_owed(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Deferred | Self::Pushed | Self::Delivered | Self::NotNow
        )
    }
}

impl Part {
    fn new(kind: Kind, deadline: Timestamp) -> Self {
        Self {
            kind,
            progress: Progress::Queued,
            command_uuid: None,
            attempt: 0,
            hand_overs: 0,
            pushed_at: None,
            reason: None,
            not_before: None,
            woken_from: None,
            deadline: Some(deadline),
            ended_at: None,
            promised: None,
        }
    }

    /// It is asked for only after this attempt, which does not wait for it.
    pub fn is_put_off(&self) -> bool {
        let past = |deadline| self.not_before >= Some(deadline);
        self.progress == Progress::Deferred && self.deadline.is_some_and(past)
    }

    fn is_awaited(&self) -> bool {
        self.progress.is_owed() && !self.is_put_off()
    }

    /// May be handed over at `now`.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.progress.is_owed() && self.not_before.is_none_or(|time| time <= now)
    }
}

impl Verification {
    /// A new attempt.
    pub fn start(
        verification_id: VerificationId,
        device_id: DeviceId,
        request: &Request,
        now: Timestamp,
    ) -> Self {
        let mut verification = Self {
            verification_id,
            device_id,
            priority: request.priority,
            occasion: request.occasion.clone(),
            parts: Vec::new(),
            created_at: now,
            deadline: now.plus(request.patience),
            finished: None,
        };
        verification.join(request, now);
        verification
    }

    /// Somebody else asks while this one is open: what is owed already is not asked twice.
    pub fn join(&mut self, request: &Request, now: Timestamp) {
        let deadline = now.plus(request.patience);
        for kind in &request.kinds {
            match self.parts.iter_mut().find(|part| part.kind == *kind) {
                Some(part) if part.is_awaited() => {
                    part.deadline = part.deadline.max(Some(deadline));
                }
                Some(part) => *part = Part::new(*kind, deadline),
                None => self.parts.push(Part::new(*kind, deadline)),
            }
        }
        self.parts.sort_by_key(|part| part.kind);
        self.priority = self.priority.min(request.priority);
        self.deadline = self.deadline.max(deadline);
    }

    /// Holds a kind back until `not_before`; only then does the Mac's patience begin.
    pub fn defer(&mut self, kind: Kind, reason: Reason, not_before: Timestamp) {
        let patience = self.deadline.since(self.created_at);
        let deadline = not_before.plus(patience);
        if let Some(part) = self.part_mut(kind)
            && part.progress.is_owed()
        {
            part.progress = Progress::Deferred;
            part.reason = Some(reason);
            part.not_before = Some(not_before);
            part.deadline = Some(deadline);
            self.deadline = self.deadline.max(deadline);
        }
    }

    /// Nothing new can be had before `not_before`: what was asked for just now and not handed over is
    /// put off, and not waited for when that lies behind the deadline.
    pub fn put_off(&mut self, kind: Kind, reason: Reason, not_before: Timestamp) {
        if let Some(part) = self.part_mut(kind)
            && part.progress == Progress::Queued
        {
            part.progress = Progress::Deferred;
            part.reason = Some(reason);
            part.not_before = Some(not_before);
        }
    }

    /// What a kind was held back for has come.
    pub fn recall(&mut self, kind: Kind) {
        if let Some(part) = self.part_mut(kind)
            && part.progress == Progress::Deferred
        {
            part.progress = Progress::Queued;
            part.reason = None;
            part.not_before = None;
        }
    }

    /// The next hand-over of a kind bears this name. The latest promise is the one that is kept: whoever
    /// asked before it and is no longer waiting is told all the same.
    pub fn promise(&mut self, kind: Kind, promised: Promised) {
        if let Some(part) = self.part_mut(kind)
            && part.progress.is_owed()
        {
            part.promised = Some(promised);
        }
    }

    /// APNs accepted a push that asks for what is due.
    pub fn pushed(&mut self, now: Timestamp) {
        for part in &mut self.parts {
            if part.is_due(now) {
                if matches!(part.progress, Progress::Queued | Progress::Deferred) {
                    part.progress = Progress::Pushed;
                }
                part.pushed_at = Some(now);
                part.reason = None;
                part.woken_from = None;
            }
        }
    }

    /// The Mac was not woken; says why beside what is due, and from when on it can be.
    pub fn not_pushed(&mut self, reason: Reason, woken_from: Option<Timestamp>, now: Timestamp) {
        for part in &mut self.parts {
            if part.is_due(now) {
                part.reason = Some(reason);
                part.woken_from = woken_from;
            }
        }
    }

    /// When APNs last accepted a push for it.
    pub fn last_pushed_at(&self) -> Option<Timestamp> {
        self.parts.iter().filter_map(|part| part.pushed_at).max()
    }

    /// Kinds that are owed although their time is over.
    pub fn overdue(&self, now: Timestamp) -> Vec<Kind> {
        self.parts
            .iter()
            .filter(|part| part.is_awaited() && now >= part.deadline.unwrap_or(self.deadline))
            .map(|part| part.kind)
            .collect()
    }

    /// Whether nothing is owed any more.
    pub fn is_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// Whether an Idle at `now` would be answered with a command.
    pub fn owes(&self, now: Timestamp) -> bool {
        self.finished.is_none() && self.parts.iter().any(|part| part.is_due(now))
    }

    /// The kind to hand over next, SecurityInfo before MDA.
    ///
    /// `just_answered` is what this session's last reply was about; it is not asked again in the
    /// same breath, so that a Mac that fails a command is not sent it in a loop.
    pub fn next(&self, just_answered: Option<Kind>, now: Timestamp) -> Option<Kind> {
        if self.is_finished() {
            return None;
        }
        self.parts
            .iter()
            .find(|part| part.is_due(now) && Some(part.kind) != just_answered)
            .map(|part| part.kind)
    }

    /// A command of `kind` was handed over under this name. Returns false, and gives the kind up,
    /// when it was handed over [`MAX_ATTEMPTS`] times already.
    pub fn hand_over(&mut self, kind: Kind, command_uuid: CommandUuid) -> bool {
        let Some(part) = self.part_mut(kind) else {
            return false;
        };
        part.hand_overs += 1;
        if part.attempt >= MAX_ATTEMPTS || part.hand_overs > MAX_HAND_OVERS {
            part.progress = Progress::Failed;
            part.reason = Some(Reason::CommandError);
            return false;
        }
        part.attempt += 1;
        part.progress = Progress::Delivered;
        // Under another name than the promised one there is nothing left to keep.
        part.promised = part
            .promised
            .take()
            .filter(|it| *it.name.command_uuid() == command_uuid);
        if let Some(promised) = &mut part.promised {
            promised.used = true;
        }
        part.command_uuid = Some(command_uuid);
        true
    }

    /// The Mac said NotNow. The next session may hand it over again.
    pub fn not_now(&mut self, kind: Kind) {
        if let Some(part) = self.part_mut(kind)
            && part.progress == Progress::Delivered
        {
            part.progress = Progress::NotNow;
            part.reason = Some(Reason::NotNow);
            // A NotNow is an answer from an honest Mac that sleeps, not a failed attempt.
            part.attempt = part.attempt.saturating_sub(1);
        }
    }

    /// The Mac answered; `reason` says what was wrong or unusual about the answer.
    pub fn answered(&mut self, kind: Kind, reason: Option<Reason>) {
        if let Some(part) = self.part_mut(kind) {
            part.progress = Progress::Answered;
            part.reason = reason;
        }
    }

    /// The Mac answered Error or CommandFormatError.
    pub fn failed(&mut self, kind: Kind, reason: Reason) {
        if let Some(part) = self.part_mut(kind) {
            part.progress = Progress::Failed;
            part.reason = Some(reason);
        }
    }

    /// The enrollment ended or began anew: what is open is given up.
    pub fn cancel(&mut self, state: State, now: Timestamp) {
        if self.is_finished() {
            return;
        }
        for part in &mut self.parts {
            if part.progress.is_owed() {
                part.progress = Progress::Cancelled;
            }
            part.ended_at.get_or_insert(now);
        }
        self.finished = Some(Finished {
            state,
            at: now,
            reasons: Vec::new(),
            posture_revision: None,
        });
    }

    /// Ends parts whose deadline has passed, and the verification when nothing is awaited any more.
    /// Returns whether it ended just now.
    pub fn settle(&mut self, posture_revision: Option<u64>, now: Timestamp) -> bool {
        if self.is_finished() {
            return false;
        }
        for part in &mut self.parts {
            if part.is_awaited() && now >= part.deadline.unwrap_or(self.deadline) {
                part.progress = Progress::TimedOut;
                part.reason = part.reason.or(Some(Reason::AnswerTimeout));
            }
            if !part.is_awaited() {
                part.ended_at.get_or_insert(now);
            }
        }
        if self.parts.iter().any(Part::is_awaited) {
            return false;
        }
        let is = |progress| self.parts.iter().any(|part| part.progress == progress);
        let state = if is(Progress::TimedOut) {
            State::TimedOut
        } else if is(Progress::Answered) && !is(Progress::Failed) {
            State::Answered
        } else {
            State::Failed
        };
        let reasons = self.reasons();
        self.finished = Some(Finished {
            state,
            at: now,
            reasons,
            posture_revision,
        });
        true
    }

    /// The state as published: how it ended, or the least advanced thing still owed.
    pub fn state(&self) -> State {
        if let Some(finished) = &self.finished {
            return finished.state;
        }
        let owed = |progress: Progress| self.parts.iter().any(|part| part.progress == progress);
        if owed(Progress::Delivered) {
            State::Delivered
        } else if owed(Progress::NotNow) {
            State::NotNow
        } else if owed(Progress::Pushed) {
            State::Pushed
        } else {
            State::Queued
        }
    }

    /// Why it has not brought everything yet, first cause first, each once.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for reason in self.parts.iter().filter_map(|part| part.reason) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    /// The part for a kind.
    pub fn part(&self, kind: Kind) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind)
    }

    fn part_mut(&mut self, kind: Kind) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn request(kinds: &[Kind]) -> Request {
        Request {
            kinds: kinds.to_vec(),
            priority: Priority::First,
            occasion: "enrolled".to_owned(),
            patience: Duration::from_secs(90),
        }
    }

    fn open(now: Timestamp) -> Verification {
        let entropy = SeededEntropy::new(3);
        Verification::start(
            VerificationId::new(now, &entropy),
            DeviceId::new(now, &entropy),
            &request(&[Kind::Mda, Kind::SecurityInfo]),
            now,
        )
    }

    fn name(seed: u64) -> CommandUuid {
        CommandUuid::new(&SeededEntropy::new(seed))
    }

    const NOW: i64 = 1_000_000_000;

    #[test]
    fn asks_security_info_first_and_each_kind_once() {
        let now = Timestamp::from_millis(NOW);
        let mut verification = open(now);
        assert_eq!(verification.next(None, now), Some(Kind::SecurityInfo));
        assert!(verification.hand_over(Kind::SecurityInfo, name(1)));
        verification.answered(Kind::SecurityInfo, None);
        assert_eq!(
            verification.next(Some(Kind::SecurityInfo), now),
            Some(Kind::Mda)
        );
        assert!(verification.hand_over(Kind::Mda, name(2)));
        verification.answered(Kind::Mda, None);
        assert_eq!(verification.next(Some(Kind::Mda), now), None);
        assert!(verification.settle(Some(1), now));
        assert_eq!(verification.state(), State::Answered);
        assert!(!verification.owes(now));
    }

    #[test]
    fn not_now_is_owed_again_in_the_next_session_and_costs_no_attempt() {
        let now = Timestamp::from_millis(NOW);
        let mut verification = open(now);
        for round in 0..20 {
            assert!(
                verification.hand_over(Kind::SecurityInfo, name(round)),
                "round {round}"
            );
            verification.not_now(Kind::SecurityInfo);
        }
        assert_eq!(verification.next(None, now), Some(Kind::SecurityInfo));
        assert_eq!(verification.state(), State::NotNow);
    }

    #[test]
    fn a_command_that_never_comes_back_is_given_up() {
        let now = Timestamp::from_millis(NOW);
        let mut verification = open(now);
        for round in 0..u64::from(MAX_ATTEMPTS) {
            assert!(verification.hand_over(Kind::SecurityInfo, name(round)));
        }
        assert!(!verification.hand_over(Kind::SecurityInfo, name(99)));
        assert_eq!(verification.next(None, now), Some(Kind::Mda));
    }

    #[test]
    fn joining_asks_nothing_twice_and_never_shortens_the_deadline() {
        let now = Timestamp::from_millis(NOW);
        let mut verification = open(now);
        verification.hand_over(Kind::SecurityInfo, name(1));
        let deadline = verification.deadline;
        let mut short = request(&[Kind::SecurityInfo]);
        short.patience = Duration::from_secs(1);
        verification.join(&short, now);
        assert_eq!(verification.parts.len(), 2);
        assert_eq!(verification.state(), State::Delivered);
        assert_eq!(verification.deadline, deadline);
    }

    #[test]
    fn silence_ends_in_a_time_out_that_keeps_its_first_cause() {
        let now = Timestamp::from_millis(NOW);
        let mut verification = open(now);
        verification.not_pushed(Reason::PushTokenInvalid, None, now);
        assert!(!verification.settle(None, now));
        let late = now.plus(Duration::from_secs(91));
        assert!(verification.settle(None, late));
        assert_eq!(verification.state(), State::TimedOut);
        let finished = verification.finished.expect("settled");
        assert_eq!(finished.reasons, [Reason::PushTokenInvalid]);
    }

    #[test]
    fn a_deferred_kind_waits_for_its_time() {
        let now = Timestamp::from_millis(NOW);
        let later = now.plus(Duration::from_secs(60));
        let mut verification = open(now);
        verification.answered(Kind::SecurityInfo, None);
        verification.defer(Kind::Mda, Reason::AwaitingBinding, later);
        assert_eq!(verification.next(None, now), None);
        assert_eq!(verification.next(None, later), Some(Kind::Mda));
    }
}
