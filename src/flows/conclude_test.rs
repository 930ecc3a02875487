//! Whole rounds with one Mac, without store or network: what is asked, what is learnt, what is said.

use std::sync::Arc;
use std::time::Duration;

use attestd_sim::apple::{AttestationAuthority, AttestedState, BootPolicy};
use attestd_sim::keys::{self, KeyKind};

use super::conclude::{Answer, Content, Decision, Judge, decide};
use crate::attestation::freshness::Minted;
use crate::attestation::{Anchors, Evidence, Freshness, Refusal, VerifiedEvidence, verify};
use crate::enrollment::{IdentityKind, State};
use crate::entropy::SeededEntropy;
use crate::ids::{CertificateHash, CommandUuid, DeviceId, SerialNumber, Udid, VerificationId};
use crate::mdm::device_information::QueryResponses;
use crate::mdm::report::Status;
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::pki::KnownIntermediates;
use crate::posture::policy::{Policy, STRICT};
use crate::posture::{Posture, Verdict};
use crate::publication::event;
use crate::reason::Reason;
use crate::store::{Changes, Exchange};
use crate::time::Timestamp;
use crate::verification::{
    Command, Kind, MAX_ATTEMPTS, Priority, Progress, Request, State as Outcome, Verification,
};

/// One Mac and what a store would keep of it.
struct Table {
    now: Timestamp,
    entropy: Arc<SeededEntropy>,
    apple: AttestationAuthority,
    device_id: DeviceId,
    identity: CertificateHash,
    state: State,
    verification: Verification,
    posture: Option<Posture>,
    commands: Vec<Command>,
    ledger: Vec<Minted>,
    /// Of the last decision.
    changes: Changes,
}

impl Table {
    fn new() -> Self {
        let now = Timestamp::from_seconds(1_790_847_007);
        let entropy = Arc::new(SeededEntropy::new(9));
        let device_id = DeviceId::new(now, entropy.as_ref());
        let mut table = Self {
            now,
            apple: AttestationAuthority::new().expect("OpenSSL"),
            identity: CertificateHash::of(b"the Mac's identity"),
            state: State::Enrolled,
            verification: attempt(&device_id, &entropy, now),
            posture: None,
            commands: Vec::new(),
            ledger: Vec::new(),
            changes: Changes::default(),
            device_id,
            entropy,
        };
        table.pass(1);
        table
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    fn ask_again(&mut self) {
        self.verification = attempt(&self.device_id, &self.entropy, self.now);
    }

    /// One message: load, decide, keep.
    fn exchange(&mut self, command_uuid: Option<&CommandUuid>, answer: Option<Answer>) -> Decision {
        let command = self
            .commands
            .iter()
            .find(|one| Some(&one.command_uuid) == command_uuid);
        let code = answer.as_ref().and_then(Answer::freshness_code);
        let exchange = Exchange {
            device_id: self.device_id.clone(),
            udid: Udid::parse("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D").expect("a UDID"),
            serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
            ticket_id: None,
            se_public_key: None,
            state: self.state,
            identity: self.identity,
            identity_kind: IdentityKind::Scep,
            verification: Some(self.verification.clone()),
            command: command.cloned(),
            posture: self.posture.clone(),
            asked: self
                .ledger
                .iter()
                .find(|minted| Some(&minted.inputs.command_uuid) == command_uuid)
                .cloned(),
            ledger: self
                .ledger
                .iter()
                .find(|minted| Some(minted.nonce) == code)
                .cloned(),
        };
        let judge = Judge {
            policy: Arc::new(Policy::parse(STRICT).expect("shipped")),
            server_id: "mdm.example".into(),
            entropy: self.entropy.clone(),
            now: self.now,
        };
        let (changes, decision) = decide(exchange, answer, &judge);
        for command in &changes.commands {
            self.commands
                .retain(|kept| kept.command_uuid != command.command_uuid);
            self.commands.push(command.clone());
        }
        self.ledger.extend(changes.minted.iter().cloned());
        self.verification = changes
            .verification
            .clone()
            .unwrap_or(self.verification.clone());
        self.posture = changes.posture.clone().or(self.posture.take());
        self.changes = changes;
        decision
    }

    fn idle(&mut self) -> Decision {
        self.exchange(None, None)
    }

    fn answer(&mut self, command_uuid: &CommandUuid, status: Status, content: Content) -> Decision {
        let identity = self.identity;
        self.answer_by(identity, command_uuid, status, content)
    }

    fn answer_by(
        &mut self,
        identity: CertificateHash,
        command_uuid: &CommandUuid,
        status: Status,
        content: Content,
    ) -> Decision {
        let body = format!("{content:?}").into_bytes();
        let signature = b"CMS".to_vec();
        let answer = Answer {
            status,
            content,
            body,
            signature,
            identity,
        };
        self.exchange(Some(command_uuid), Some(answer))
    }

    fn acknowledge(&mut self, content: Content) -> Decision {
        let asked = self.asked();
        self.answer(&asked, Status::Acknowledged(asked.clone()), content)
    }

    /// The last command handed over.
    fn asked(&self) -> CommandUuid {
        self.commands
            .last()
            .expect("a command")
            .command_uuid
            .clone()
    }

    fn nonce(&self) -> [u8; 32] {
        self.ledger.last().expect("a nonce").nonce
    }

    fn chain(&self, nonce: Option<&[u8]>, serial: &str) -> Content {
        let verified = self.evidence(nonce, serial, &self.apple).map(Box::new);
        Content::Attestation {
            queried: QueryResponses::default(),
            verified,
        }
    }

    /// A chain by `issuer`, judged by this world's root.
    fn evidence(
        &self,
        nonce: Option<&[u8]>,
        serial: &str,
        issuer: &AttestationAuthority,
    ) -> Result<VerifiedEvidence, Refusal> {
        let state = AttestedState {
            serial: serial.into(),
            provisioning_udid: "00006040-001A2B3C4D5E801C".into(),
            software_update_device_id: "J773sAP".into(),
            os_version: "26.6.2".into(),
            sepos_version: "26.6".into(),
            llb_version: "26.6".into(),
            boot: BootPolicy::default(),
        };
        let key = keys::generate(KeyKind::P384).expect("OpenSSL");
        let issued = issuer
            .attest(&state, &key, nonce, self.now.millis())
            .expect("OpenSSL");
        let root = self.apple.root_pem().expect("OpenSSL");
        let anchors = Anchors::custom(&root).expect("an authority");
        let evidence = Evidence {
            certificates: vec![issued.leaf, issued.intermediate],
        };
        verify(
            &evidence,
            &anchors,
            &KnownIntermediates::default(),
            self.now,
        )
    }

    /// A round in which everything is as it should be.
    fn good_round(&mut self) -> [u8; 32] {
        self.idle();
        self.acknowledge(good());
        let nonce = self.nonce();
        self.acknowledge(self.chain(Some(&nonce), "SIMQ4T2W7P"));
        nonce
    }

    fn verdict(&self) -> Option<Verdict> {
        self.posture.as_ref().map(|posture| posture.verdict)
    }

    fn progress(&self, kind: Kind) -> (Progress, Option<Reason>) {
        let part = self.verification.part(kind).expect("asked for");
        (part.progress, part.reason)
    }

    fn events(&self) -> Vec<&str> {
        self.changes
            .events
            .iter()
            .map(|event| event.name.as_str())
            .collect()
    }
}

fn attempt(device_id: &DeviceId, entropy: &SeededEntropy, now: Timestamp) -> Verification {
    let request = Request {
        kinds: vec![Kind::SecurityInfo, Kind::Mda],
        priority: Priority::First,
        occasion: "enrolled".into(),
        patience: Duration::from_secs(3_600),
    };
    Verification::start(
        VerificationId::new(now, entropy),
        device_id.clone(),
        &request,
        now,
    )
}

fn report(sip: bool) -> Content {
    let facts = SecurityInfo {
        sip_enabled: Some(sip),
        secure_boot: Some(SecureBootLevel::Full),
        filevault_enabled: Some(true),
        ..SecurityInfo::default()
    };
    Content::SecurityInfo {
        facts,
        kept: b"kept".to_vec(),
    }
}

fn good() -> Content {
    report(true)
}

fn holds(decision: &Decision, text: &str) -> bool {
    let command = decision.command.clone().unwrap_or_default();
    String::from_utf8(command).expect("XML").contains(text)
}

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
    assert_eq!(table.ledger[0].inputs.nonce(), table.ledger[0].nonce);
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
fn the_chain_of_another_mac_is_held_against_this_one() {
    let mut table = Table::new();
    table.good_round();
    table.ask_again();
    table.pass(60);
    table.idle();
    table.acknowledge(good());
    let nonce = table.nonce();
    let decision = table.acknowledge(table.chain(Some(&nonce), "SIMOTHER01"));
    assert_eq!(decision.refused, Some(Reason::SerialMismatch));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    assert_eq!(
        table.changes.events[1].body["reasons"][0],
        "serial_mismatch"
    );
    assert!(table.changes.evidence[0].raw, "kept for who asks why");
}

#[test]
fn a_reply_that_names_another_mac_than_its_chain_is_held_against_this_one() {
    let mut table = Table::new();
    for (key, queried) in [
        (
            "serial",
            QueryResponses {
                serial_number: Some("SIMOTHER01".into()),
                ..Default::default()
            },
        ),
        (
            "udid",
            QueryResponses {
                provisioning_udid: Some("00006040-00FFEEDDCCBBAA1C".into()),
                ..Default::default()
            },
        ),
    ] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let nonce = table.nonce();
        let verified = table
            .evidence(Some(&nonce), "SIMQ4T2W7P", &table.apple)
            .map(Box::new);
        let decision = table.acknowledge(Content::Attestation { queried, verified });
        assert_eq!(decision.refused, Some(Reason::SerialMismatch), "{key}");
        table.pass(60);
    }
}

#[test]
fn a_chain_under_another_root_is_held_against_the_mac_and_an_old_date_is_not() {
    let mut table = Table::new();
    let other = AttestationAuthority::new().expect("OpenSSL");
    table.good_round();
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    let refused = table
        .evidence(Some(&table.nonce()), "SIMQ4T2W7P", &other)
        .expect_err("refused");
    let expired = Refusal::Chain(crate::pki::ChainRefusal::Expired(
        crate::pki::chain::Link::Leaf,
    ));
    for (refusal, verdict) in [
        (expired, Verdict::Affirming),
        (refused, Verdict::Contraindicated),
    ] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let queried = QueryResponses::default();
        let decision = table.acknowledge(Content::Attestation {
            queried,
            verified: Err(refusal),
        });
        assert_eq!(decision.refused, Some(Reason::ChainInvalid));
        assert_eq!(table.verdict(), Some(verdict));
    }
}

#[test]
fn no_attestation_is_unavailable_and_no_chain_in_its_place_is_held_against_the_mac() {
    let mut table = Table::new();
    table.idle();
    table.acknowledge(good());
    let decision = table.acknowledge(Content::NoAttestation);
    assert_eq!(decision.refused, Some(Reason::AttestationUnavailable));
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    table.acknowledge(Content::ChainMalformed);
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
}

#[test]
fn an_anonymous_chain_proves_nothing_and_is_held_against_nobody() {
    let mut table = Table::new();
    table.idle();
    table.acknowledge(good());
    let nonce = table.nonce();
    // Blank: no serial number is stated.
    let decision = table.acknowledge(table.chain(Some(&nonce), ""));
    assert_eq!(decision.refused, Some(Reason::FieldMissing));
    assert!(
        table
            .posture
            .as_ref()
            .is_some_and(|posture| posture.held.is_empty())
    );
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
}

#[test]
fn a_cached_chain_counts_with_the_age_of_its_nonce() {
    let mut table = Table::new();
    let begin = table.now;
    let nonce = table.good_round();
    table.pass(3 * 86_400);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    let decision = table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(decision.refused, Some(Reason::AttestationCached));
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
    let attested = table
        .posture
        .as_ref()
        .and_then(|posture| posture.attested.clone());
    let freshness = attested.expect("a chain").freshness;
    assert!(matches!(freshness, Freshness::CachedKnown { minted_at, .. } if minted_at == begin));

    table.pass(5 * 86_400);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(table.verdict(), Some(Verdict::Warning));
}

#[test]
fn a_nonce_of_nobody_dates_nothing() {
    let mut table = Table::new();
    for nonce in [Some(&[7; 32][..]), Some(&[7; 20]), None] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let decision = table.acknowledge(table.chain(nonce, "SIMQ4T2W7P"));
        assert_eq!(
            decision.refused,
            Some(Reason::NonceUnrecognized),
            "{nonce:?}"
        );
        assert_eq!(table.verdict(), Some(Verdict::Unknown));
    }
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

#[test]
fn after_sip_was_off_only_a_chain_asked_for_later_helps() {
    let mut table = Table::new();
    let nonce = table.good_round();
    table.pass(3_600);
    table.ask_again();
    table.idle();
    table.acknowledge(report(false));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    table.pass(3_600);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    assert_eq!(
        table.changes.events[1].body["reasons"][0],
        "apple_rate_limit"
    );

    table.pass(7 * 86_400);
    table.ask_again();
    table.good_round();
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
}
