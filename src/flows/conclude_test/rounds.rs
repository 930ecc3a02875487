//! Questions and answers: which count, and what follows for the attempt.

use super::*;

#[test]
fn a_round_goes_from_idle_to_a_verdict() {
    let mut table = Table::new();
    let first = table.idle();
    assert!(holds(&first, "SecurityInfo") && table.ledger.is_empty());
    assert!(table.posture.is_none() && table.events().is_empty());

    let second = table.acknowledge(good());
    assert!(holds(&second, "DeviceAttestationNonce"));
    assert_eq!(
        (table.ledger.len(), second.verdict),
        (1, Some(Verdict::Unknown))
    );
    assert_eq!(table.ledger[0].inputs.command_uuid, table.asked());
    assert_eq!(table.ledger[0].inputs.minted_at, table.now);
    assert_eq!(table.ledger[0].inputs.clone().mint(), table.ledger[0]);
    let kept = &table.changes.evidence[0];
    assert_eq!(
        (kept.stored.as_slice(), kept.signature.as_ref(), kept.raw),
        (&b"kept"[..], None, false)
    );

    let nonce = table.nonce();
    let last = table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!((last.command, last.refused), (None, None));
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
    assert_eq!(table.verification.state(), Outcome::Answered);
    assert_eq!(
        table.events(),
        [event::VERIFICATION_FINISHED, event::POSTURE_CHANGED]
    );
    let finished = table.verification.finished.clone().expect("finished");
    let posture = table.posture.as_ref().expect("known");
    assert_eq!((finished.posture_revision, posture.revision), (Some(2), 2));
    assert!(table.changes.evidence[0].raw && table.changes.evidence[0].signature.is_some());
    assert!(table.idle().command.is_none());
}

#[test]
fn not_now_ends_the_session_and_is_owed_in_the_next() {
    let mut table = Table::new();
    table.idle();
    let asked = table.asked();
    let decision = table.answer(&asked, Status::NotNow(asked.clone()), Content::None);
    assert!(decision.command.is_none() && decision.refused.is_none());
    assert_eq!(
        table.progress(Kind::SecurityInfo),
        (Progress::NotNow, Some(Reason::NotNow))
    );
    assert!(table.posture.is_none());
    assert!(holds(&table.idle(), "SecurityInfo"));
    assert_ne!(table.asked(), asked);
    // The former command was concluded: its answer comes too late.
    let late = table.answer(&asked, Status::Acknowledged(asked.clone()), good());
    assert_eq!(late.refused, Some(Reason::AnswerUnsolicited));
}

#[test]
fn an_error_fails_its_kind_only_and_demotes_nothing() {
    let mut table = Table::new();
    table.good_round();
    table.ask_again();
    table.pass(60);
    table.idle();
    let revision = table.posture.as_ref().map(|posture| posture.revision);
    for (status, kind) in [
        (Status::Error as fn(_, _) -> _, Kind::SecurityInfo),
        (|uuid, _| Status::CommandFormatError(uuid), Kind::Mda),
    ] {
        let asked = table.asked();
        let decision = table.answer(&asked, status(asked.clone(), Vec::new()), Content::None);
        assert_eq!(decision.refused, Some(Reason::CommandError));
        assert_eq!(
            table.progress(kind),
            (Progress::Failed, Some(Reason::CommandError))
        );
    }
    assert_eq!(table.verification.state(), Outcome::Failed);
    assert_eq!(
        table.posture.as_ref().map(|posture| posture.revision),
        revision
    );
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
    assert_eq!(table.events(), [event::VERIFICATION_FINISHED]);
}

#[test]
fn what_nobody_asked_for_changes_nothing() {
    let mut table = Table::new();
    let foreign = CommandUuid::new(&SeededEntropy::new(99));
    let decision = table.answer(
        &foreign,
        Status::Acknowledged(foreign.clone()),
        report(false),
    );
    assert_eq!(decision.refused, Some(Reason::AnswerUnsolicited));
    assert!(table.posture.is_none() && table.changes.evidence.is_empty());
    assert!(holds(&decision, "SecurityInfo"), "the session goes on");
}

#[test]
fn a_duplicate_answer_counts_once_and_the_session_goes_on() {
    let mut table = Table::new();
    table.idle();
    let asked = table.asked();
    table.acknowledge(good());
    let again = table.answer(&asked, Status::Acknowledged(asked.clone()), good());
    assert_eq!(again.refused, Some(Reason::AnswerUnsolicited));
    assert!(table.changes.posture.is_none() && table.changes.evidence.is_empty());
    assert!(holds(&again, "DeviceAttestationNonce"));
}

#[test]
fn another_identity_answers_for_nobody() {
    let mut table = Table::new();
    table.idle();
    let asked = table.asked();
    let stranger = CertificateHash::of(b"a stranger");
    let decision = table.answer_by(
        stranger,
        &asked,
        Status::Acknowledged(asked.clone()),
        report(false),
    );
    assert_eq!(decision.refused, Some(Reason::IdentityMismatch));
    assert!(table.posture.is_none() && table.changes.evidence.is_empty());
    // The Mac itself can still answer.
    let own = table.answer(&asked, Status::Acknowledged(asked.clone()), good());
    assert_eq!(own.refused, None);
}

#[test]
fn a_late_answer_counts_although_its_verification_is_over() {
    let mut table = Table::new();
    table.idle();
    let asked = table.asked();
    table.verification.settle(None, table.verification.deadline);
    assert_eq!(table.verification.state(), Outcome::TimedOut);
    let before = table.verification.clone();
    table.pass(29 * 60);
    let decision = table.answer(&asked, Status::Acknowledged(asked.clone()), report(false));
    assert_eq!(decision.verdict, Some(Verdict::Contraindicated));
    assert_eq!(table.events(), [event::POSTURE_CHANGED]);
    assert!(table.changes.verification.is_none() && decision.command.is_none());
    assert_eq!(table.verification, before);
}

#[test]
fn an_answer_after_half_an_hour_comes_too_late() {
    let mut table = Table::new();
    table.idle();
    let asked = table.asked();
    table.pass(30 * 60 + 1);
    let decision = table.answer(&asked, Status::Acknowledged(asked.clone()), good());
    assert_eq!(decision.refused, Some(Reason::AnswerUnsolicited));
    assert!(table.posture.is_none());
}

#[test]
fn a_late_answer_of_a_former_attempt_leaves_the_present_one_as_it_is() {
    let mut table = Table::new();
    table.idle();
    let former = table.asked();
    table.pass(60);
    table.ask_again();
    table.idle();
    table.answer(&former, Status::Acknowledged(former.clone()), good());
    assert_eq!(
        table.progress(Kind::SecurityInfo),
        (Progress::Delivered, None)
    );
    assert!(
        table
            .posture
            .as_ref()
            .is_some_and(|posture| posture.reported.is_some())
    );
}

#[test]
fn an_older_answer_makes_no_new_revision() {
    let mut table = Table::new();
    table.idle();
    let former = table.asked();
    table.pass(60);
    table.idle();
    table.acknowledge(good());
    let revision = table.posture.as_ref().map(|posture| posture.revision);
    let decision = table.answer(&former, Status::Acknowledged(former.clone()), good());
    assert_eq!(decision.verdict, None);
    assert!(table.changes.posture.is_none() && table.events().is_empty());
    assert_eq!(
        table.posture.as_ref().map(|posture| posture.revision),
        revision
    );
}

#[test]
fn a_question_that_is_never_answered_is_given_up() {
    let mut table = Table::new();
    for _ in 0..MAX_ATTEMPTS {
        assert!(holds(&table.idle(), "SecurityInfo"));
    }
    for _ in 0..MAX_ATTEMPTS {
        assert!(holds(&table.idle(), "DeviceAttestationNonce"));
    }
    let decision = table.idle();
    assert!(decision.command.is_none());
    assert_eq!(table.verification.state(), Outcome::Failed);
    assert_eq!(table.events(), [event::VERIFICATION_FINISHED]);
    assert_eq!(
        table.ledger.len(),
        usize::try_from(MAX_ATTEMPTS).expect("small")
    );
    assert!(table.posture.is_none());
}

#[test]
fn the_wrong_content_is_malformed_and_learns_nothing() {
    for content in [Content::None, Content::Malformed, Content::NoAttestation] {
        let mut table = Table::new();
        table.idle();
        let decision = table.acknowledge(content);
        assert_eq!(decision.refused, Some(Reason::AnswerMalformed));
        assert!(table.posture.is_none() && table.changes.evidence.is_empty());
        let failed = (Progress::Failed, Some(Reason::AnswerMalformed));
        assert_eq!(table.progress(Kind::SecurityInfo), failed);
    }
}

#[test]
fn a_mac_that_is_not_enrolled_is_asked_nothing() {
    for state in [State::Pending, State::CheckedOut] {
        let mut table = Table::new();
        table.state = state;
        assert!(table.idle().command.is_none());
        assert!(table.commands.is_empty() && table.ledger.is_empty());
    }
}
