//! One Mac as a store would keep it, to try agendas on.

mod sequences;
mod tables;

use super::*;
use crate::attestation::Freshness;
use crate::entropy::SeededEntropy;
use crate::ids::{CertificateHash, CommandUuid, EvidenceId};
use crate::mdm::security_info::SecurityInfo;
use crate::posture::{APPLE_WINDOW, Reported};
use crate::verification::Request;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One Mac and everything that an agenda follows, as a store would keep it.
struct World {
    now: Timestamp,
    entropy: SeededEntropy,
    rules: Rules,
    agenda: Agenda,
    posture: Posture,
    open: Option<Verification>,
    /// Since the last time the Mac's address changed nothing is known of pushes that APNs took.
    pushes: Vec<Timestamp>,
    /// Hand-overs of the attestation's question.
    asked_apple: Vec<Timestamp>,
    /// When Apple last made a statement for us.
    minted_at: Option<Timestamp>,
    readdressed: Vec<Timestamp>,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_790_847_007).plus(Duration::from_secs(seconds))
}

fn enrolled(number: u64) -> World {
    let entropy = SeededEntropy::new(number);
    let device_id = DeviceId::new(at(0), &entropy);
    let mut agenda = Agenda::new(device_id.clone(), at(0));
    agenda.stands(true, at(0));
    World {
        now: at(0),
        entropy,
        rules: Rules::usual(),
        agenda,
        posture: Posture::unknown(device_id, at(0)),
        open: None,
        pushes: Vec::new(),
        asked_apple: Vec::new(),
        minted_at: None,
        readdressed: Vec::new(),
    }
}

impl World {
    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn next(&self) -> Next {
        self.agenda.next(&self.rules)
    }

    fn due_in(&self) -> Duration {
        self.next()
            .due_at
            .expect("something is due")
            .since(self.now)
    }

    fn start(&mut self, kinds: &[Kind], priority: Priority) {
        let request = Request {
            kinds: kinds.to_vec(),
            priority,
            occasion: String::new(),
            patience: self.rules.patience,
        };
        let open = match self.open.take() {
            Some(mut open) => {
                open.join(&request, self.now);
                open
            }
            None => Verification::start(
                VerificationId::new(self.now, &self.entropy),
                self.agenda.device_id.clone(),
                &request,
                self.now,
            ),
        };
        self.keep(open);
    }

    fn keep(&mut self, open: Verification) {
        self.agenda.attempts(&open);
        self.open = (!open.is_finished()).then_some(open);
    }

    /// What the sweep does: everything that is due, and the push if APNs takes it.
    fn sweep(&mut self, apns: Result<(), Reason>) {
        for round in 0.. {
            assert!(round < 10, "there is no end to what is due");
            match self.agenda.step(&self.rules, self.now) {
                Step::Nothing => break,
                Step::Expire => {
                    let mut open = self.open.take().expect("an attempt");
                    open.settle(None, self.now);
                    self.keep(open);
                }
                Step::Ask(kinds, priority) => {
                    assert!(!kinds.is_empty());
                    self.start(&kinds, priority);
                }
                Step::Wake(_) => {
                    assert!(self.wake(false, apns), "what is planned can be done");
                }
            }
        }
        let due_at = self.next().due_at;
        assert!(due_at.is_none_or(|at| at > self.now), "{:?}", self.agenda);
    }

    fn wake(&mut self, asked: bool, apns: Result<(), Reason>) -> bool {
        if !self.agenda.begin_push(asked, &self.rules, self.now) {
            return false;
        }
        let mut open = self.open.take().expect("something is owed");
        match apns {
            Ok(()) => {
                self.agenda.pushed();
                self.pushes.push(self.now);
                open.pushed(self.now);
            }
            Err(reason) => {
                self.agenda.not_pushed(reason, false, self.now);
                open.not_pushed(reason, None, self.now);
            }
        }
        self.keep(open);
        true
    }

    /// The Mac connects, and is asked what is owed and what is ripe: which kind comes first.
    fn connect(&mut self) -> Option<Kind> {
        let owes_from = self.next().owes_from;
        let ripe = self.agenda.ripe(&self.rules, self.now);
        if !ripe.is_empty() {
            let priority = self.agenda.priority(&ripe, &self.rules, self.now);
            self.start(&ripe, priority);
        }
        let kind = self
            .open
            .as_ref()
            .and_then(|open| open.next(None, self.now));
        assert_eq!(
            kind.is_some(),
            owes_from.is_some_and(|from| from <= self.now),
            "what memory says of a Mac that connects is what happens"
        );
        let kind = kind?;
        let mut open = self.open.take().expect("an attempt");
        let name = CommandUuid::new(&self.entropy);
        let handed_over = open.hand_over(kind, name.clone());
        if handed_over {
            if kind == Kind::Mda {
                self.asked_apple.push(self.now);
            }
            self.agenda
                .talks(&self.command(&open, kind, name, CommandState::Outstanding));
        } else {
            open.settle(None, self.now);
        }
        self.keep(open);
        handed_over.then_some(kind)
    }

    fn command(
        &self,
        open: &Verification,
        kind: Kind,
        command_uuid: CommandUuid,
        state: CommandState,
    ) -> Command {
        Command {
            command_uuid,
            device_id: self.agenda.device_id.clone(),
            verification_id: open.verification_id.clone(),
            kind,
            identity: CertificateHash::of(b"the Mac"),
            state,
            handed_over_at: self.now,
            concluded_at: None,
        }
    }

    /// The Mac connects and answers everything; each kind as `how` says.
    fn session(&mut self, how: impl Fn(Kind) -> Said) -> usize {
        let mut answers = 0;
        while let Some(kind) = self.connect() {
            answers += 1;
            let said = how(kind);
            let mut open = self.open.take().expect("an attempt");
            let name = CommandUuid::new(&self.entropy);
            self.agenda
                .talks(&self.command(&open, kind, name, CommandState::Answered));
            match said {
                Said::Good | Said::Negative => {
                    open.answered(kind, None);
                    self.learn(kind, said);
                    self.agenda.believes(&self.posture);
                }
                Said::Error => open.failed(kind, Reason::CommandError),
                Said::Nothing => open.failed(kind, Reason::AttestationUnavailable),
                Said::NotNow => open.not_now(kind),
            }
            open.settle(None, self.now);
            self.keep(open);
            if said == Said::NotNow || answers > 5 {
                break;
            }
        }
        answers
    }

    fn learn(&mut self, kind: Kind, said: Said) {
        match kind {
            Kind::SecurityInfo => {
                let facts = SecurityInfo {
                    sip_enabled: Some(said == Said::Good),
                    ..SecurityInfo::default()
                };
                let reading = Reported {
                    facts,
                    evidence_id: EvidenceId::of(b"said"),
                    asked_at: self.now,
                    observed_at: self.now,
                    channel: crate::posture::Channel::Software,
                };
                self.posture.report(reading, self.now);
            }
            Kind::Mda => {
                // Apple makes a new one only when the last is seven days old.
                let fresh = self
                    .minted_at
                    .is_none_or(|at| self.now.since(at) >= APPLE_WINDOW);
                if fresh {
                    self.minted_at = Some(self.now);
                }
                let minted_at = self.minted_at.expect("made");
                let se_public_key = String::new();
                let freshness = if fresh {
                    Freshness::Fresh {
                        minted_at,
                        se_public_key,
                    }
                } else {
                    Freshness::CachedKnown {
                        minted_at,
                        se_public_key,
                    }
                };
                let reading = Attested {
                    occasion: Occasion::Mda,
                    facts: crate::attestation::Statement::default(),
                    freshness,
                    evidence_id: EvidenceId::of(b"stated"),
                    observed_at: self.now,
                    issued_by: None,
                    not_after: self.now.plus(90 * DAY),
                };
                self.posture.attest(reading, self.now);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Good,
    Negative,
    Error,
    /// The attestation is left out.
    Nothing,
    NotNow,
}

/// A Mac that answered everything.
fn known(number: u64) -> World {
    let mut world = enrolled(number);
    world.sweep(Ok(()));
    assert_eq!(world.session(|_| Said::Good), 2);
    world
}
