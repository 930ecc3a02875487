//! An answer is judged, the Mac's posture is revised, and the next question is chosen: one decision
//! about one Mac, made on what the store loaded for it and written as one durable step.
//!
//! The decision itself does no I/O. It runs on the store's writer, so it holds no cryptography that
//! costs: chains were verified before.

mod hand_over;
mod step;
mod traced;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::step::{step_of, verdict_step};
pub use self::traced::Traced;
use super::sweep::with_what_is_ripe;
use crate::attestation::freshness::{self, Beacon};
use crate::attestation::{Freshness, Refusal, Scheme, VerifiedEvidence};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{IdentityKind, State};
use crate::entropy::Entropy;
use crate::ids::{CertificateHash, CommandUuid, EvidenceId};
use crate::mdm::device_information::QueryResponses;
use crate::mdm::report::Status;
use crate::mdm::security_info::SecurityInfo;
use crate::pki::ChainRefusal;
use crate::posture::appraisal::{Circumstances, Relation};
use crate::posture::policy::Policy;
use crate::posture::{Attested, Channel, Occasion, Posture, Reported, Verdict, issued_by};
use crate::publication::event;
use crate::reason::{Reason, Weight};
use crate::store::{Changes, Event, Evidence, Exchange, Relay};
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{Command, CommandState, Kind, Verification};

/// What judging needs besides the evidence.
#[derive(Debug, Clone)]
pub struct Judge {
    pub policy: Arc<Policy>,
    pub server_id: String,
    pub entropy: Arc<dyn Entropy>,
    /// By what the Mac's agenda is kept.
    pub rules: Arc<Rules>,
    /// Commands are relayed for a coordinator, who is told of the answers.
    pub relays: bool,
    /// Rounds are followed by somebody who collects traces.
    pub traces: bool,
    /// The head of the log that nonces are made from, where they are; it may be too old for that by now.
    pub beacon: Option<Arc<Beacon>>,
    pub now: Timestamp,
}

/// A report other than Idle, read and verified as far as it can be without knowing the question.
#[derive(Debug)]
pub struct Answer {
    pub status: Status,
    pub content: Content,
    /// The body as received.
    pub body: Vec<u8>,
    /// The CMS message that signs it, where one does.
    pub signature: Option<Vec<u8>>,
    /// Who says it.
    pub identity: CertificateHash,
    /// The body, sealed for whoever waits for a relayed command.
    pub sealed: Option<Vec<u8>>,
}

/// A body that is kept as it came, and what signs it.
struct Whole {
    signature: Option<Vec<u8>>,
}

/// What an answer carries.
#[derive(Debug)]
pub enum Content {
    /// Nothing that was ever asked for.
    None,
    /// The right dictionary, with members of the wrong form.
    Malformed,
    SecurityInfo {
        facts: SecurityInfo,
        /// What may be stored of the body.
        kept: Vec<u8>,
    },
    /// DeviceInformation without an attestation.
    NoAttestation,
    /// DeviceInformation with something that is no chain in its place.
    ChainMalformed,
    Attestation {
        queried: QueryResponses,
        verified: Result<Box<VerifiedEvidence>, Refusal>,
    },
}

/// What follows for the Mac and for the log.
#[derive(Debug, Default)]
pub struct Decision {
    /// The next command; none ends the session.
    pub command: Option<Vec<u8>>,
    /// The answer, or a part of it, was not used.
    pub refused: Option<Reason>,
    /// The verdict, when evidence changed it or confirmed it.
    pub verdict: Option<Verdict>,
    /// That verdict is good, and the one before was not.
    pub affirms_anew: bool,
    /// What was answered, and how long after it was handed over.
    pub answered: Option<(Kind, Duration)>,
    /// What this was of which round; only where that is followed.
    pub traced: Option<Box<Traced>>,
    /// Apple proved the serial number on this channel, and who holds it is to be settled.
    pub unsettled: bool,
}

impl Answer {
    /// The freshness code in the attestation, where it has the length of our nonces: what the
    /// ledger is searched for.
    pub fn freshness_code(&self) -> Option<[u8; 32]> {
        match &self.content {
            Content::Attestation {
                verified: Ok(evidence),
                ..
            } => evidence.freshness_code(32)?.try_into().ok(),
            _ => None,
        }
    }
}

fn said_last(posture: &Posture) -> Option<Timestamp> {
    posture.attested.as_ref()?.freshness.minted_at()
}

/// Judges an answer, if there is one, and chooses the next command.
pub fn decide(exchange: Exchange, answer: Option<Answer>, judge: &Judge) -> (Changes, Decision) {
    let mut round = Round {
        verification: exchange.verification.clone(),
        key: exchange
            .posture
            .as_ref()
            .and_then(Posture::key_to_name)
            .map(|key| key.se_public_key.clone()),
        void_before: exchange
            .posture
            .as_ref()
            .and_then(|posture| posture.void_before),
        said_last: exchange.posture.as_ref().and_then(said_last),
        posture: None,
        learnt: false,
        changes: Changes::default(),
        decision: Decision::default(),
        exchange,
        judge,
    };
    let before = round.verification.clone();
    let session = answer.map_or(Session::Begins, |answer| round.take(answer));
    if session == Session::Begins {
        let open = round.verification.take();
        round.verification = with_what_is_ripe(open, &round.exchange.agenda, judge);
    }
    round.settle();
    match session {
        Session::Begins => round.hand_over(None),
        Session::GoesOn(answered) => round.hand_over(Some(answered)),
        Session::Ended => {}
    }
    if round.verification != before {
        round.changes.verification = round.verification;
    }
    if judge.traces {
        round.decision.traced = Traced::of(&round.changes).map(Box::new);
    }
    (round.changes, round.decision)
}

/// Whether the Mac can be given another command now.
#[derive(Debug, PartialEq, Eq)]
enum Session {
    /// Yes: it has just come. It says Idle, or first brings a result nobody waits for any more, which
    /// macOS does when the reply to it was lost.
    Begins,
    /// Yes; it has just answered this kind.
    GoesOn(Kind),
    /// No: after NotNow, macOS asks again by itself only if that was its last word.
    Ended,
}

struct Round<'a> {
    exchange: Exchange,
    verification: Option<Verification>,
    /// The provider key that an attestation asked for now names: none but a proved one.
    key: Option<String>,
    /// Since when a negative voids what was believed; as loaded.
    void_before: Option<Timestamp>,
    /// How old the statement of Apple's is that is believed; as loaded.
    said_last: Option<Timestamp>,
    /// The posture once an answer was weighed.
    posture: Option<Posture>,
    /// The answer changed what is believed: there is a new revision.
    learnt: bool,
    changes: Changes,
    decision: Decision,
    judge: &'a Judge,
}

impl Round<'_> {
    fn take(&mut self, answer: Answer) -> Session {
        let now = self.judge.now;
        let Some(command) = self.exchange.command.take() else {
            self.decision.refused = Some(Reason::AnswerUnsolicited);
            return Session::Begins;
        };
        let kind = command.kind;
        if let Err(reason) = command.accepts(answer.identity, now) {
            self.decision.refused = Some(reason);
            return Session::Begins;
        }
        self.decision.answered = Some((kind, now.since(command.handed_over_at)));
        let mut answer = answer;
        let told = (
            command.command_uuid.clone(),
            answer.status.name(),
            answer.sealed.take(),
        );
        match &answer.status {
            Status::Idle | Status::Foreign => return Session::Begins,
            Status::NotNow(_) => {
                self.conclude_command(command, CommandState::NotNow);
                self.with_verification(kind, |verification| verification.not_now(kind));
                self.step(Entry::waiting(step_of(kind), Some(Reason::NotNow), now));
                return Session::Ended;
            }
            Status::Error(_, causes) => {
                tracing::info!(
                    device.id = self.exchange.device_id.as_str(),
                    kind = kind.as_str(),
                    ?causes,
                    "the Mac answered Error"
                );
                self.fail(command, Reason::CommandError);
            }
            Status::CommandFormatError(_) => {
                tracing::error!(kind = kind.as_str(), "a command of ours was malformed");
                self.fail(command, Reason::CommandError);
            }
            Status::Acknowledged(_) => self.judge_content(command, answer),
        }
        self.relay_answer(told);
        Session::GoesOn(kind)
    }

    /// Whoever waits for a relayed command is told of its answer: the Mac's own words, unless they were
    /// found to be false or no answer at all.
    fn relay_answer(&mut self, (asked, status, sealed): (CommandUuid, &str, Option<Vec<u8>>)) {
        let Some(sealed) = sealed.filter(|_| self.judge.relays) else {
            return;
        };
        let at = self.judge.now;
        let withheld = self.decision.refused.filter(|reason| {
            !matches!(
                reason,
                // It is for the reader to say which nonce it wants to see.
                Reason::AttestationCached
                    | Reason::NonceUnrecognized
                    | Reason::AttestationUnavailable
                    | Reason::CommandError
            )
        });
        self.changes.relays.push(match withheld {
            None => Relay::Answered {
                asked,
                status: status.to_owned(),
                sealed,
                at,
            },
            Some(reason) => Relay::Withheld { asked, reason, at },
        });
    }

    fn judge_content(&mut self, command: Command, answer: Answer) {
        let Answer {
            content,
            body,
            signature,
            ..
        } = answer;
        match (command.kind, content) {
            (Kind::SecurityInfo, Content::SecurityInfo { facts, kept }) => {
                let evidence_id = self.keep(&command, EvidenceId::of(&body), kept, None);
                let asked_at = command.handed_over_at;
                self.answered(command, None);
                self.report(facts, evidence_id, asked_at);
            }
            (
                Kind::Mda,
                Content::Attestation {
                    queried,
                    verified: Ok(verified),
                },
            ) => {
                let evidence_id = self.keep_raw(&command, body, signature);
                self.attest(command, &queried, &verified, evidence_id);
            }
            (
                Kind::Mda,
                Content::Attestation {
                    verified: Err(refusal),
                    ..
                },
            ) => {
                let evidence_id = self.keep_raw(&command, body, signature);
                let reason = refusal.reason();
                self.answered(command, Some(reason));
                // A date that does not fit may be a clock; a chain that does not hold is no error
                // that happens by itself.
                if !is_about_time(&refusal) {
                    self.hold(reason, evidence_id);
                }
                self.step(Entry::refused(Step::Attestation, reason, self.judge.now));
            }
            (Kind::Mda, Content::ChainMalformed) => {
                let evidence_id = self.keep_raw(&command, body, signature);
                self.answered(command, Some(Reason::ChainInvalid));
                self.hold(Reason::ChainInvalid, evidence_id);
                self.step(Entry::refused(
                    Step::Attestation,
                    Reason::ChainInvalid,
                    self.judge.now,
                ));
            }
            (Kind::Mda, Content::NoAttestation) => {
                self.fail(command, Reason::AttestationUnavailable);
            }
            _ => self.fail(command, Reason::AnswerMalformed),
        }
    }

    /// The Mac answered, but nothing can be learnt from it.
    fn fail(&mut self, command: Command, reason: Reason) {
        let kind = command.kind;
        self.conclude_command(command, CommandState::Failed);
        self.with_verification(kind, |verification| verification.failed(kind, reason));
        self.decision.refused = Some(reason);
        self.step(Entry::refused(step_of(kind), reason, self.judge.now));
    }

    fn answered(&mut self, command: Command, reason: Option<Reason>) {
        let kind = command.kind;
        self.conclude_command(command, CommandState::Answered);
        self.with_verification(kind, |verification| verification.answered(kind, reason));
        if reason.is_some() {
            self.decision.refused = reason;
        }
    }

    fn report(&mut self, facts: SecurityInfo, evidence_id: EvidenceId, asked_at: Timestamp) {
        let now = self.judge.now;
        let channel = channel(self.exchange.identity_kind);
        let reading = Reported {
            facts,
            evidence_id,
            asked_at,
            observed_at: now,
            channel,
        };
        if self.posture().report(reading, now) {
            self.learnt = true;
            self.step(Entry::done(Step::SecurityInfo, now));
        }
    }

    fn attest(
        &mut self,
        command: Command,
        queried: &QueryResponses,
        verified: &VerifiedEvidence,
        evidence_id: EvidenceId,
    ) {
        let now = self.judge.now;
        let statement = verified.statement();
        if let Err(reason) = self.is_about_this_mac(queried, verified) {
            self.answered(command, Some(reason));
            if reason.weight() == Weight::Contraindicates {
                self.hold(reason, evidence_id);
            }
            self.step(Entry::refused(Step::Attestation, reason, now));
            return;
        }
        let code = verified.freshness_code(32);
        let freshness = freshness::classify(
            code,
            self.exchange.asked.as_ref(),
            self.exchange.ledger.as_ref(),
            verified.not_before(),
        );
        let reason = match &freshness {
            freshness::Freshness::Fresh { .. } => None,
            freshness::Freshness::CachedKnown { .. } => Some(Reason::AttestationCached),
            freshness::Freshness::Unrecognized | freshness::Freshness::Absent => {
                Some(Reason::NonceUnrecognized)
            }
        };
        let made_by = |minted_at| issued_by(minted_at, verified.not_before(), now);
        let reading = Attested {
            occasion: Occasion::Mda,
            facts: statement.clone(),
            issued_by: freshness.minted_at().map(made_by),
            freshness,
            evidence_id,
            observed_at: now,
            not_after: verified.not_after(),
        };
        self.answered(command, reason);
        if reading.freshness.minted_at().is_some() && !self.exchange.proved {
            self.changes.proved_at = Some(now);
            self.changes.holds = self.exchange.undisputed;
            self.decision.unsettled = !self.exchange.undisputed;
        }
        // One for a nonce of somebody else's counts as older than it is, and may therefore not count at
        // all beside what Apple said when the identity was made. It was the week's statement all the same.
        let asked = self.exchange.asked.as_ref();
        if asked.is_some_and(|asked| asked.scheme == Scheme::LegacySeSha256)
            && let Freshness::Fresh { .. } = &reading.freshness
            && let Some(renewable_from) = reading.renewable_from()
        {
            let mut agenda = self.exchange.agenda.clone();
            agenda.attested_until(renewable_from);
            self.changes.agenda = Some(agenda);
        }
        let newer = self.posture().attest(reading, now);
        self.learnt |= newer;
        self.step(Entry {
            reason,
            ..Entry::done(Step::Attestation, now)
        });
    }

    /// Every Apple device on earth has a valid chain: it counts only if it is about this one.
    fn is_about_this_mac(
        &self,
        queried: &QueryResponses,
        verified: &VerifiedEvidence,
    ) -> Result<(), Reason> {
        let statement = verified.statement();
        let (Some(enrolled), Some(stated)) = (&self.exchange.serial, &statement.serial) else {
            return Err(Reason::FieldMissing);
        };
        let reported_matches = queried
            .serial_number
            .as_deref()
            .is_none_or(|serial| serial == stated.as_str());
        let udid_matches = match (&queried.provisioning_udid, &statement.provisioning_udid) {
            (Some(reported), Some(stated)) => reported.eq_ignore_ascii_case(stated.as_str()),
            _ => true,
        };
        if enrolled == stated && reported_matches && udid_matches {
            Ok(())
        } else {
            Err(Reason::SerialMismatch)
        }
    }

    fn hold(&mut self, reason: Reason, evidence_id: EvidenceId) {
        let now = self.judge.now;
        self.posture().hold(reason, Some(evidence_id), now);
        self.learnt = true;
    }

    /// Fixes the posture revision, says so, and ends the verification if nothing is owed.
    fn settle(&mut self) {
        let now = self.judge.now;
        let learnt = self.posture.take().filter(|_| self.learnt);
        let revision = learnt.as_ref().map(|posture| posture.revision + 1);
        if let Some(verification) = &mut self.verification
            && verification.settle(revision, now)
        {
            let body = event::verification_finished(verification);
            self.event(event::VERIFICATION_FINISHED, body);
        }
        let Some(mut posture) = learnt else { return };
        let previous = posture.verdict;
        let attempt = self
            .verification
            .as_ref()
            .map(Verification::reasons)
            .unwrap_or_default();
        let appraisal = posture.revise(
            &self.judge.policy,
            Circumstances {
                relation: Relation {
                    enrolled: self.exchange.state == State::Enrolled,
                    contends: self.exchange.contends,
                    identity_ends: Some(self.exchange.identity_ends),
                },
                attempt: &attempt,
                now,
            },
        );
        self.decision.verdict = Some(posture.verdict);
        self.decision.affirms_anew = posture.verdict.is_good() && !previous.is_good();
        self.step(verdict_step(&appraisal, now));
        let body = event::posture_changed(&posture, previous, &appraisal.reasons);
        self.event(event::POSTURE_CHANGED, body);
        self.changes.posture = Some(posture);
    }

    fn keep_raw(
        &mut self,
        command: &Command,
        body: Vec<u8>,
        signature: Option<Vec<u8>>,
    ) -> EvidenceId {
        let evidence_id = EvidenceId::of(&body);
        self.keep(command, evidence_id, body, Some(Whole { signature }))
    }

    fn keep(
        &mut self,
        command: &Command,
        evidence_id: EvidenceId,
        stored: Vec<u8>,
        whole: Option<Whole>,
    ) -> EvidenceId {
        let raw = whole.is_some();
        self.changes.evidence.push(Evidence {
            evidence_id,
            device_id: self.exchange.device_id.clone(),
            command_uuid: command.command_uuid.clone(),
            kind: command.kind,
            received_at: self.judge.now,
            stored,
            signature: whole.and_then(|whole| whole.signature),
            raw,
        });
        evidence_id
    }

    fn posture(&mut self) -> &mut Posture {
        let device_id = &self.exchange.device_id;
        let now = self.judge.now;
        let loaded = &mut self.exchange.posture;
        self.posture.get_or_insert_with(|| {
            loaded
                .take()
                .unwrap_or_else(|| Posture::unknown(device_id.clone(), now))
        })
    }

    /// Changes the verification the answered command belongs to, if that is still open. An answer
    /// to a former attempt says nothing of the present one.
    fn with_verification(&mut self, kind: Kind, change: impl FnOnce(&mut Verification)) {
        let concluded = self
            .changes
            .commands
            .last()
            .map(|command| &command.verification_id);
        if let Some(verification) = &mut self.verification
            && !verification.is_finished()
            && Some(&verification.verification_id) == concluded
            && verification.part(kind).is_some()
        {
            change(verification);
        }
    }

    fn conclude_command(&mut self, mut command: Command, state: CommandState) {
        command.state = state;
        command.concluded_at = Some(self.judge.now);
        self.changes.commands.push(command);
    }

    fn step(&mut self, entry: Entry) {
        self.changes.steps.push(entry);
    }

    fn event(&mut self, name: &str, body: serde_json::Value) {
        self.changes
            .events
            .push(Event::new(name, self.judge.now, body));
    }
}

fn is_about_time(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Chain(ChainRefusal::Expired(_) | ChainRefusal::NotYetValid(_))
    )
}

pub(super) fn channel(kind: IdentityKind) -> Channel {
    match kind {
        IdentityKind::AcmeAttested => Channel::HardwareAttested,
        IdentityKind::Scep | IdentityKind::Adopted => Channel::Software,
    }
}
