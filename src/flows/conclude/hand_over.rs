//! The next question: under which name it is handed over, and with which nonce.

use std::time::Duration;

use super::{Judge, Round, said_last};
use crate::attestation::freshness::{Beacon, Minted};
use crate::attestation::{NonceInputs, Scheme};
use crate::enrollment::State;
use crate::ids::{CommandUuid, sha256};
use crate::mdm;
use crate::mdm::foreign::Spelled;
use crate::posture::ISSUED_WITHIN;
use crate::publication::event;
use crate::store::{Exchange, Relay};
use crate::time::Timestamp;
use crate::verification::{Command, CommandState, Kind, Part, Promised};

/// A head of the log that is older makes no nonce: the statement would be as old.
const OLDEST_HEAD: Duration = Duration::from_secs(30 * 60);

/// How a question is handed over.
struct Wording {
    name: Spelled,
    /// Another's nonce instead of one that is minted now.
    chosen: Option<[u8; 32]>,
    /// It was handed over like this before.
    again: bool,
}

impl Round<'_> {
    pub(super) fn hand_over(&mut self, answered: Option<Kind>) {
        let now = self.judge.now;
        if self.exchange.state != State::Enrolled {
            return;
        }
        let learnt = self.changes.posture.as_ref();
        let void_before = learnt.and_then(|posture| posture.void_before);
        let void_before = void_before.max(self.void_before);
        let said_last = learnt.and_then(said_last).max(self.said_last);
        let Some(verification) = &mut self.verification else {
            return;
        };
        while let Some(kind) = verification.next(answered, now) {
            let part = verification.part(kind);
            let wording = Wording::of(part, &self.exchange, void_before, self.judge);
            let command_uuid = wording.name.command_uuid().clone();
            if !verification.hand_over(kind, command_uuid.clone()) {
                continue;
            }
            let command = Command {
                command_uuid: command_uuid.clone(),
                device_id: self.exchange.device_id.clone(),
                verification_id: verification.verification_id.clone(),
                kind,
                identity: self.exchange.identity,
                state: CommandState::Outstanding,
                handed_over_at: now,
                concluded_at: None,
            };
            let question = match kind {
                Kind::SecurityInfo => mdm::Command::SecurityInfo,
                Kind::Mda => {
                    // Minted in this moment, and recorded in the same step that hands it over.
                    let inputs = NonceInputs {
                        server_id: self.judge.server_id.clone(),
                        device_id: self.exchange.device_id.clone(),
                        command_uuid: command_uuid.clone(),
                        minted_at: now,
                        se_public_key: self.key.clone().unwrap_or_default(),
                        beacon: None,
                    };
                    let minted = match wording.chosen {
                        None => NonceInputs {
                            beacon: beacon(
                                &self.exchange,
                                &inputs,
                                [void_before, said_last],
                                self.judge,
                            ),
                            ..inputs
                        }
                        .mint(),
                        Some(nonce) => chosen(nonce, inputs),
                    };
                    let nonce = minted.nonce;
                    // The ledger has the first hand-over, which is the one that counts.
                    if !wording.again {
                        self.changes.minted.push(minted);
                    }
                    mdm::Command::DevicePropertiesAttestation { nonce }
                }
            };
            if self.judge.relays {
                self.changes.relays.push(Relay::Asked {
                    kind,
                    asked: command_uuid.clone(),
                    at: now,
                });
            }
            self.changes.commands.push(command);
            self.decision.command = Some(question.encode(&wording.name));
            return;
        }
        // Every kind was given up just now: nothing is owed any more.
        let revision = self
            .changes
            .posture
            .as_ref()
            .map(|posture| posture.revision);
        if verification.settle(revision, now) {
            let body = event::verification_finished(verification);
            self.event(event::VERIFICATION_FINISHED, body);
        }
    }
}

impl Wording {
    fn of(
        part: Option<&Part>,
        exchange: &Exchange,
        void_before: Option<Timestamp>,
        judge: &Judge,
    ) -> Self {
        let own = || Self {
            name: CommandUuid::new(judge.entropy.as_ref()).into(),
            chosen: None,
            again: false,
        };
        let Some((kind, promised)) =
            part.and_then(|part| Some((part.kind, part.promised.as_ref()?)))
        else {
            return own();
        };
        let Promised { name, nonce, used } = promised;
        let chosen =
            nonce.filter(|_| kind == Kind::Mda && may_be_chosen(exchange, void_before, judge.now));
        // A nonce of ours is made from the name of its command, and the ledger has one for each.
        if kind == Kind::Mda && *used && chosen.is_none() {
            return own();
        }
        Self {
            name: name.clone(),
            chosen,
            again: *used && chosen.is_some(),
        }
    }
}

/// Whether a nonce that others knew before may be asked with, and nothing is lost by it.
///
/// Whoever copied a published chain could show it as the answer to the nonce in it: only a Mac whose
/// serial number Apple proved on this channel, by a nonce of ours, has nothing to gain from that. And a
/// statement for such a nonce counts as old as its leaf says, which is a day more than it is: after a
/// negative it would not count, and would keep one that does away for a week.
fn may_be_chosen(exchange: &Exchange, void_before: Option<Timestamp>, now: Timestamp) -> bool {
    let counts_from = now.minus(ISSUED_WITHIN);
    exchange.proved && !exchange.contends && void_before.is_none_or(|void| void < counts_from)
}

/// The head of the log that a nonce is made from, if one may be.
///
/// The nonce is known to all since that head, and the statement counts as old as it: as of
/// [`may_be_chosen`], only a Mac that has proved its serial number has nothing to gain from knowing it before it
/// is asked, and after a negative it must be newer than that. It says something to others only of a key; and
/// something new only where the head is newer than this enrollment, and than what Apple said last.
fn beacon(
    exchange: &Exchange,
    inputs: &NonceInputs,
    of_before: [Option<Timestamp>; 2],
    judge: &Judge,
) -> Option<Beacon> {
    let head = judge.beacon.as_deref()?;
    let now = judge.now;
    let is_new = head.head_at <= now && now.since(head.head_at) < OLDEST_HEAD;
    let mut of_before = of_before.into_iter().flatten();
    let counts =
        exchange.agenda.since() < head.head_at && of_before.all(|time| time < head.head_at);
    let may_be = exchange.proved && !exchange.contends && !inputs.se_public_key.is_empty();
    (is_new && counts && may_be).then(|| head.clone())
}

/// A nonce of the historic kind. It names a key only if it was made from one that is known to be this
/// Mac's.
fn chosen(nonce: [u8; 32], mut inputs: NonceInputs) -> Minted {
    if sha256(inputs.se_public_key.as_bytes()) != nonce {
        inputs.se_public_key = String::new();
    }
    Minted {
        nonce,
        scheme: Scheme::LegacySeSha256,
        inputs,
    }
}
