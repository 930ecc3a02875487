//! A session's challenges over time.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::challenge::{
    AnswerRefusal, Asked, Challenge, Response, StatusSignature, VerifiedAnswer,
};
use super::liveness::{Liveness, Rules, Taken};
use super::test_provider::Provider;
use crate::reason::Reason;
use crate::time::Timestamp;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

struct Session {
    provider: Provider,
    rules: Rules,
    liveness: Liveness,
    now: Timestamp,
    minted: u8,
}

impl Session {
    fn new() -> Self {
        let now = Timestamp::parse("2026-09-20T12:00:00Z").expect("a time");
        Self {
            provider: Provider::new(),
            rules: Rules::default(),
            liveness: Liveness::begin(now),
            now,
            minted: 0,
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn ask(&mut self) -> Challenge {
        self.minted += 1;
        let challenge = Challenge::mint([self.minted; 32], self.now);
        let issued = self
            .liveness
            .issue(challenge.clone(), &self.rules, self.now);
        issued.expect("none is outstanding");
        challenge
    }

    fn verified(
        &self,
        challenge: &Challenge,
        sip_enabled: bool,
    ) -> Result<VerifiedAnswer, AnswerRefusal> {
        let answer = self
            .provider
            .answer(challenge, json!({"sip_enabled": sip_enabled}));
        Response::parse(answer.to_string().as_bytes())?.verify(&Asked {
            challenge,
            key: &self.provider.key(),
            encryption_key: None,
            status_signature: StatusSignature::Required,
            answer_within: self.rules.answer_within,
            received_at: self.now,
        })
    }

    fn answer(&mut self, challenge: &Challenge, sip_enabled: bool) -> Taken {
        let outcome = self.verified(challenge, sip_enabled);
        self.liveness
            .answered(challenge, outcome.as_ref(), &self.rules, self.now)
    }

    fn ask_and_answer(&mut self) {
        let challenge = self.ask();
        self.pass(SECOND);
        assert_eq!(self.answer(&challenge, true), Taken::Counted);
    }

    fn time_out(&mut self) {
        self.ask();
        self.pass(self.rules.answer_within + SECOND);
    }

    fn is_good(&self) -> bool {
        self.liveness.good_until(&self.rules, self.now).is_some()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.liveness.reasons(&self.rules, self.now)
    }

    fn due_at(&self) -> Option<Timestamp> {
        self.liveness.due_at(self.now)
    }
}

#[test]
fn a_session_is_asked_at_once_and_then_every_five_minutes() {
    let mut session = Session::new();
    assert_eq!(session.due_at(), Some(session.now));
    assert_eq!(session.reasons(), [Reason::ChallengeStale]);
    let challenge = session.ask();
    assert_eq!(session.due_at(), None);
    assert_eq!(session.liveness.outstanding(session.now), Some(&challenge));
    session.pass(SECOND);
    assert_eq!(session.answer(&challenge, true), Taken::Counted);
    assert!(session.is_good());
    assert_eq!(session.reasons(), []);
    assert_eq!(session.due_at(), Some(session.now.plus(5 * MINUTE)));
    assert_eq!(
        session.liveness.good_until(&session.rules, session.now),
        Some(session.now.plus(6 * MINUTE))
    );
}

#[test]
fn an_answer_dated_ahead_by_a_clock_that_was_wrong_counts_for_nothing() {
    let mut session = Session::new();
    session.ask_and_answer();
    session.now = session.now.minus(10 * SECOND);
    assert!(session.is_good(), "no further than clocks are apart");
    session.now = session.now.minus(2 * SECOND);
    assert!(!session.is_good());
    assert_eq!(session.reasons(), [Reason::ChallengeStale]);
    session.ask_and_answer();
    let until = session.liveness.good_until(&session.rules, session.now);
    assert_eq!(until, Some(session.now.plus(6 * MINUTE)));
}

#[test]
fn a_good_answer_counts_for_six_minutes_whoever_looks() {
    let mut session = Session::new();
    session.ask_and_answer();
    session.pass(6 * MINUTE - SECOND);
    assert!(session.is_good());
    session.pass(SECOND);
    assert!(!session.is_good());
    assert_eq!(session.reasons(), [Reason::ChallengeStale]);
    session.ask_and_answer();
    assert!(session.is_good());
}

#[test]
fn after_a_time_out_the_next_is_due_at_once() {
    let mut session = Session::new();
    session.ask_and_answer();
    session.pass(MINUTE);
    let challenge = session.ask();
    let answer_by = session.now.plus(session.rules.answer_within);
    session.pass(session.rules.answer_within);
    assert_eq!(
        (session.due_at(), session.liveness.time_outs(session.now)),
        (None, 0)
    );
    session.pass(SECOND);
    assert_eq!(session.due_at(), Some(answer_by));
    assert_eq!(session.liveness.time_outs(session.now), 1);
    assert!(session.is_good(), "one time-out is not the end");
    // What comes now came too late, and is not waited for.
    assert_eq!(session.answer(&challenge, true), Taken::Unsolicited);
    assert_eq!(session.liveness.time_outs(session.now), 1);
    session.ask_and_answer();
    assert_eq!(session.liveness.time_outs(session.now), 0);
}

#[test]
fn three_time_outs_in_a_row_end_it_until_a_good_answer() {
    let mut session = Session::new();
    session.ask_and_answer();
    session.time_out();
    session.time_out();
    assert!(session.is_good());
    session.ask();
    // The end of it is known before it comes.
    let end = session.now.plus(session.rules.answer_within);
    assert_eq!(
        session.liveness.good_until(&session.rules, session.now),
        Some(end.plus(Duration::from_millis(1)))
    );
    session.pass(session.rules.answer_within);
    assert!(session.is_good());
    session.pass(Duration::from_millis(1));
    assert!(!session.is_good());
    assert_eq!(session.reasons(), [Reason::ChallengeStale]);
    session.ask_and_answer();
    assert!(session.is_good());
}

#[test]
fn a_bad_signature_or_nonce_ends_it_at_once() {
    for (refusal, reason) in [
        (AnswerRefusal::OtherNonce, Reason::ChallengeMismatch),
        (AnswerRefusal::OtherKey, Reason::KeyMismatch),
        (
            AnswerRefusal::BadSignature(super::BadSignature),
            Reason::SignatureInvalid,
        ),
        (
            AnswerRefusal::BadStatusSignature(super::BadSignature),
            Reason::SignatureInvalid,
        ),
        (AnswerRefusal::StatusUnsigned, Reason::FieldMissing),
    ] {
        let mut session = Session::new();
        session.ask_and_answer();
        let challenge = session.ask();
        let taken =
            session
                .liveness
                .answered(&challenge, Err(&refusal), &session.rules, session.now);
        assert_eq!(taken, Taken::Counted);
        assert!(!session.is_good());
        assert_eq!(session.liveness.last_good_at(), None);
        assert_eq!(session.reasons(), [reason, Reason::ChallengeStale]);
        let soon = session.now.plus(session.rules.answer_within);
        assert_eq!(session.due_at(), Some(soon));
        session.ask_and_answer();
        assert!(session.is_good());
    }
}

#[test]
fn what_nobody_waits_for_changes_nothing() {
    let mut session = Session::new();
    session.ask_and_answer();
    let before = session.liveness.clone();
    let foreign = Challenge::mint([99; 32], session.now);
    let bad = AnswerRefusal::BadSignature(super::BadSignature);
    let taken = session
        .liveness
        .answered(&foreign, Err(&bad), &session.rules, session.now);
    assert_eq!(taken, Taken::Unsolicited);
    assert_eq!(session.liveness, before);
    // Nor can a second challenge replace one that is on its way.
    session.ask();
    let before = session.liveness.clone();
    assert!(
        session
            .liveness
            .issue(foreign, &session.rules, session.now)
            .is_err()
    );
    assert_eq!(session.liveness, before);
}

#[test]
fn sip_reported_off_ends_it_until_answer_and_device_evidence_are_newer() {
    let mut session = Session::new();
    session.ask_and_answer();
    let before = session.now;
    session.pass(MINUTE);
    let challenge = session.ask();
    assert_eq!(session.answer(&challenge, false), Taken::Counted);
    let reported_at = session.now;
    assert!(!session.is_good());
    assert_eq!(
        session.reasons(),
        [Reason::SipDisabled, Reason::ChallengeStale]
    );
    let reported = session.liveness.reported_bad().expect("recorded");
    assert_eq!(
        (reported.at, &reported.reasons[..]),
        (reported_at, &[Reason::SipDisabled][..])
    );

    // Newer evidence alone does not do, nor does a good answer alone, nor evidence of before.
    session.pass(MINUTE);
    assert!(!session.liveness.device_evidence(session.now));
    session.ask_and_answer();
    assert!(!session.is_good());
    assert_eq!(session.reasons(), [Reason::SipDisabled]);
    assert!(!session.liveness.device_evidence(before));
    assert!(!session.liveness.device_evidence(reported_at));
    assert!(!session.is_good());
    assert!(session.liveness.device_evidence(session.now));
    assert!(session.is_good());
    assert_eq!(session.liveness.reported_bad(), None);
}

#[test]
fn an_exchange_the_coordinator_hands_over_counts_once() {
    let mut session = Session::new();
    let hand_over = |session: &mut Session, challenge: &Challenge, sip: bool| {
        let outcome = session.verified(challenge, sip);
        let (rules, now) = (session.rules, session.now);
        session
            .liveness
            .handed_over(challenge, outcome.as_ref(), &rules, now)
    };
    let first = Challenge::mint([1; 32], session.now);
    session.pass(SECOND);
    assert_eq!(hand_over(&mut session, &first, true), Taken::Counted);
    assert!(session.is_good());
    let due = session.due_at();
    session.pass(SECOND);
    assert_eq!(hand_over(&mut session, &first, true), Taken::Unsolicited);
    assert_eq!(session.due_at(), due);
    // What was not answered, told three times, is one time-out.
    let second = Challenge::mint([2; 32], session.now);
    session.pass(MINUTE);
    for taken in [Taken::Counted, Taken::Unsolicited, Taken::Unsolicited] {
        assert_eq!(hand_over(&mut session, &second, true), taken);
    }
    assert_eq!(session.liveness.time_outs(session.now), 1);
    assert_eq!(session.due_at(), Some(session.now));
    // A clock that went wrong darkens nobody, and stands in nobody's way afterwards.
    let ahead = Challenge::mint([4; 32], session.now.plus(60 * MINUTE));
    let before = session.liveness.clone();
    let untimely = Err(&AnswerRefusal::Untimely);
    let taken = session
        .liveness
        .handed_over(&ahead, untimely, &session.rules, session.now);
    assert_eq!((taken, &session.liveness), (Taken::Unsolicited, &before));
    let third = Challenge::mint([3; 32], session.now);
    assert_eq!(hand_over(&mut session, &third, false), Taken::Counted);
    assert_eq!(
        session.reasons(),
        [Reason::SipDisabled, Reason::ChallengeStale]
    );
}

#[test]
fn it_reads_back_as_it_was_stored() {
    let mut session = Session::new();
    session.ask_and_answer();
    session.time_out();
    let challenge = session.ask();
    session.answer(&challenge, false);
    session.ask();
    let stored = serde_json::to_string(&session.liveness).expect("JSON");
    let back: Liveness = serde_json::from_str(&stored).expect("reads back");
    assert_eq!(back, session.liveness);
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Ask,
    Answer,
    AnswerBadly,
    SipOff,
    Evidence,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..400_u64).prop_map(Step::Pass),
        4 => Just(Step::Ask),
        3 => Just(Step::Answer),
        1 => Just(Step::AnswerBadly),
        1 => Just(Step::SipOff),
        1 => Just(Step::Evidence),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: good needs a good answer of the last six minutes, nothing bad since, and an
    /// end that really comes; and whoever is not good is told why.
    #[test]
    fn nobody_is_good_without_a_good_answer(steps in proptest::collection::vec(any_step(), 1..30)) {
        let mut session = Session::new();
        let mut last_good: Option<Timestamp> = None;
        let mut bad_at: Option<Timestamp> = None;
        for step in steps {
            match step {
                Step::Pass(seconds) => session.pass(Duration::from_secs(seconds)),
                Step::Ask => {
                    if session.liveness.outstanding(session.now).is_none() {
                        session.ask();
                    }
                }
                Step::Evidence => {
                    if session.liveness.device_evidence(session.now) {
                        prop_assert!(last_good > bad_at && Some(session.now) > bad_at);
                        bad_at = None;
                    }
                }
                Step::Answer | Step::SipOff | Step::AnswerBadly => {
                    let Some(challenge) = session.liveness.outstanding(session.now).cloned() else {
                        continue;
                    };
                    match step {
                        Step::Answer => {
                            session.answer(&challenge, true);
                            last_good = Some(session.now);
                        }
                        Step::SipOff => {
                            session.answer(&challenge, false);
                            (last_good, bad_at) = (None, Some(session.now));
                        }
                        _ => {
                            let bad = AnswerRefusal::OtherNonce;
                            session.liveness.answered(
                                &challenge, Err(&bad), &session.rules, session.now,
                            );
                            last_good = None;
                        }
                    }
                }
            }
            let until = session.liveness.good_until(&session.rules, session.now);
            if let Some(until) = until {
                prop_assert!(bad_at.is_none());
                let last = last_good.expect("a good answer");
                prop_assert!(session.now < until && until <= last.plus(6 * MINUTE));
                let just_before = until.minus(Duration::from_millis(1));
                prop_assert!(session.liveness.good_until(&session.rules, just_before).is_some());
                prop_assert!(session.liveness.good_until(&session.rules, until).is_none());
            }
            prop_assert_eq!(session.reasons().is_empty(), until.is_some());
        }
    }
}
