//! One message of one Mac as one durable step: load, decide, write.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::board::Key;
use super::edit::Edit;
use super::error::StoreError;
use super::events::Event;
use super::evidence::Evidence;
use super::relayed::{self, Relay};
use super::row::{self, Row};
use super::{
    agendas, commands, enrollments, events, evidence, nonces, postures, steps, verifications,
};
use crate::attestation::freshness::Minted;
use crate::enrollment::trace::Entry;
use crate::enrollment::{IdentityKind, State};
use crate::ids::{CertificateHash, CommandUuid, DeviceId, SerialNumber, TicketId, Udid};
use crate::posture::Posture;
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{Agenda, Command, Verification};

/// Everything a decision about one message needs.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub device_id: DeviceId,
    pub udid: Udid,
    pub serial: Option<SerialNumber>,
    pub ticket_id: Option<TicketId>,
    pub state: State,
    /// The one certificate that may speak for this Mac.
    pub identity: CertificateHash,
    pub identity_kind: IdentityKind,
    /// When that certificate ends.
    pub identity_ends: Timestamp,
    /// Another enrollment stands where this one would.
    pub contends: bool,
    /// Apple proved the serial number on this channel: since the last Authenticate.
    pub proved: bool,
    /// Once Apple proves its serial number it holds it, and nothing is left to be settled: it does
    /// already, or nobody else ever said to have it. Says nothing of a Mac that is proved.
    pub undisputed: bool,
    /// The open verification; without one, that of the command, finished as it is.
    pub verification: Option<Verification>,
    /// The command asked for, if it was handed to this Mac.
    pub command: Option<Command>,
    pub posture: Option<Posture>,
    /// What is next for this Mac.
    pub agenda: Agenda,
    /// The nonce minted for the command.
    pub asked: Option<Minted>,
    /// The first entry of the ledger that handed the nonce asked for to this Mac: since it enrolled,
    /// or ever, once Apple proved its serial number on this channel. Before that an older nonce
    /// proves nothing: whoever copied a published chain could show it.
    pub ledger: Option<Minted>,
}

/// What a decision changes; all of it or nothing is kept.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// New or changed.
    pub commands: Vec<Command>,
    /// New or changed.
    pub verification: Option<Verification>,
    /// The current posture from now on; each revision also stays in the history.
    pub posture: Option<Posture>,
    pub minted: Vec<Minted>,
    pub evidence: Vec<Evidence>,
    /// Steps of the enrolment the Mac came in by; a Mac that came without a ticket has none.
    pub steps: Vec<Entry>,
    /// In this order.
    pub events: Vec<Event>,
    /// Apple proved the serial number on the Mac's present channel, at this time.
    pub proved_at: Option<Timestamp>,
    /// What is next for the Mac, where something else was done than to change what is stored: that is
    /// followed in any case.
    pub agenda: Option<Agenda>,
    /// Whoever decided this does what is due until then; before, nobody else looks at the Mac.
    pub leased_until: Option<Timestamp>,
    /// The push address that was brought at the first time is dead since the second.
    pub push_dead: Option<(Timestamp, Timestamp)>,
    /// With that proof it holds the serial number: nobody disputes it.
    pub holds: bool,
    /// For those who wait for relayed commands.
    pub relays: Vec<Relay>,
}

/// What to load.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) device_id: DeviceId,
    pub(super) command_uuid: Option<CommandUuid>,
    pub(super) nonce: Option<[u8; 32]>,
}

/// Whose message it is, kept while the decision owns the rest.
pub(super) struct Subject {
    pub(super) device_id: DeviceId,
    pub(super) ticket_id: Option<TicketId>,
    /// As it was loaded.
    pub(super) agenda: Agenda,
    /// It is not stored as it was loaded, or not as it is now.
    pub(super) behind: bool,
}

/// What the process has to know once it is committed.
#[derive(Debug)]
pub(super) struct Effect {
    pub(super) device_id: DeviceId,
    pub(super) changed: bool,
    /// The enrolment whose steps changed.
    pub(super) stepped: Option<TicketId>,
    pub(super) appended: bool,
    /// The new debt towards the Mac, if the decision changed it.
    pub(super) owes: Option<Option<Timestamp>>,
}

/// `$1` CommandUUID, `$2` nonce, `$3` device: in the order in which they first appear, because so
/// SQLite's own library numbers them. Each database may add a column at the end.
macro_rules! load {
    ($more:literal) => {
        concat!(
            "SELECT e.device_id, e.udid, e.serial, e.ticket_id, e.state, e.identity, i.kind, \
             e.authenticated_at, COALESCE(v.body, w.body), \
             c.command_uuid, c.verification_id, c.kind, c.identity, c.state, c.handed_over_at, \
             c.concluded_at, p.body, a.scheme, a.nonce, a.inputs, l.scheme, l.nonce, l.inputs, \
             i.not_after, e.contends_with, e.proved_at, g.body, \
             CAST(CASE WHEN e.proved_at IS NOT NULL OR e.serial IS NULL \
                OR e.contends_with IS NOT NULL THEN 0 \
             WHEN e.held_since IS NOT NULL THEN 1 \
             WHEN EXISTS (SELECT 1 FROM enrollments o WHERE o.serial = e.serial \
                AND o.device_id <> e.device_id) THEN 0 ELSE 1 END AS BIGINT)",
            $more,
            " FROM enrollments e \
             JOIN identities i ON i.certificate = e.identity \
             LEFT JOIN verifications v ON v.device_id = e.device_id AND v.finished_at IS NULL \
             LEFT JOIN commands c ON c.command_uuid = $1 AND c.device_id = e.device_id \
             LEFT JOIN verifications w ON w.verification_id = c.verification_id \
                AND v.verification_id IS NULL \
             LEFT JOIN postures p ON p.device_id = e.device_id \
             LEFT JOIN agendas g ON g.device_id = e.device_id \
             LEFT JOIN nonces a ON a.command_uuid = $1 AND a.device_id = e.device_id \
             LEFT JOIN nonces l ON l.command_uuid = (SELECT n.command_uuid FROM nonces n \
                WHERE n.device_id = e.device_id AND n.nonce = $2 \
                AND (n.minted_at >= e.authenticated_at OR e.proved_at IS NOT NULL) ORDER BY n.minted_at LIMIT 1) \
             WHERE e.device_id = $3"
        )
    };
}
use load;

/// A row of either database, by column.
pub(super) trait Columns {
    fn text(&self, index: usize) -> Result<Option<String>, StoreError>;
    fn int(&self, index: usize) -> Result<Option<i64>, StoreError>;
    fn bytes(&self, index: usize) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The columns of [`load!`]. One that is never null in the schema is read as empty if it is null
/// all the same; no noun can be read from that.
struct Loaded {
    device_id: String,
    udid: String,
    serial: Option<String>,
    ticket_id: Option<String>,
    state: String,
    identity: Vec<u8>,
    identity_kind: String,
    verification: Option<String>,
    command: Option<commands::table::Model>,
    posture: Option<String>,
    asked: Option<nonces::LedgerRow>,
    ledger: Option<nonces::LedgerRow>,
    identity_ends: i64,
    contends: bool,
    proved: bool,
    authenticated_at: i64,
    agenda: Option<String>,
    undisputed: bool,
}

impl Loaded {
    fn read(row: &impl Columns) -> Result<Self, StoreError> {
        let device_id = row.text(0)?.unwrap_or_default();
        let command = match row.text(9)? {
            None => None,
            Some(command_uuid) => Some(commands::table::Model {
                command_uuid,
                device_id: device_id.clone(),
                verification_id: row.text(10)?.unwrap_or_default(),
                kind: row.text(11)?.unwrap_or_default(),
                identity: row.bytes(12)?.unwrap_or_default(),
                state: row.text(13)?.unwrap_or_default(),
                handed_over_at: row.int(14)?.unwrap_or_default(),
                concluded_at: row.int(15)?,
            }),
        };
        let minted = |first: usize| match row.text(first)? {
            None => Ok(None),
            Some(scheme) => Ok::<_, StoreError>(Some(nonces::LedgerRow {
                scheme,
                nonce: row.bytes(first + 1)?.unwrap_or_default(),
                inputs: row.text(first + 2)?.unwrap_or_default(),
            })),
        };
        Ok(Self {
            device_id,
            udid: row.text(1)?.unwrap_or_default(),
            serial: row.text(2)?,
            ticket_id: row.text(3)?,
            state: row.text(4)?.unwrap_or_default(),
            identity: row.bytes(5)?.unwrap_or_default(),
            identity_kind: row.text(6)?.unwrap_or_default(),
            authenticated_at: row.int(7)?.unwrap_or_default(),
            verification: row.text(8)?,
            command,
            posture: row.text(16)?,
            asked: minted(17)?,
            ledger: minted(20)?,
            identity_ends: row.int(23)?.unwrap_or_default(),
            contends: row.text(24)?.is_some(),
            proved: row.int(25)?.is_some(),
            agenda: row.text(26)?,
            undisputed: row.int(27)? == Some(1),
        })
    }
}

impl Row for Loaded {
    type Noun = Exchange;
    const TABLE: &'static str = "enrollments, or what belongs to it,";

    fn id(&self) -> String {
        self.device_id.clone()
    }

    fn noun(self) -> Option<Exchange> {
        let device_id = DeviceId::parse(&self.device_id).ok()?;
        let state = State::from_word(&self.state)?;
        let verification: Option<Verification> =
            row::parsed_if_any(self.verification.as_deref(), serde_json::from_str)?;
        let posture: Option<Posture> =
            row::parsed_if_any(self.posture.as_deref(), serde_json::from_str)?;
        let agenda = match self.agenda.as_deref() {
            Some(body) => row::parsed(body, serde_json::from_str)?,
            None => agendas::made_of(
                &device_id,
                state,
                Timestamp::from_millis(self.authenticated_at),
                posture.as_ref(),
                verification.as_ref(),
            ),
        };
        Some(Exchange {
            device_id,
            udid: Udid::parse(&self.udid).ok()?,
            serial: row::parsed_if_any(self.serial.as_deref(), SerialNumber::parse)?,
            ticket_id: row::parsed_if_any(self.ticket_id.as_deref(), TicketId::parse)?,
            state,
            identity: CertificateHash::from_bytes(row::digest(&self.identity)?),
            identity_kind: IdentityKind::from_word(&self.identity_kind)?,
            identity_ends: Timestamp::from_millis(self.identity_ends),
            contends: self.contends,
            proved: self.proved,
            undisputed: self.undisputed,
            verification,
            command: match self.command {
                None => None,
                Some(command) => Some(command.noun()?),
            },
            posture,
            agenda,
            asked: match self.asked {
                None => None,
                Some(minted) => Some(minted.noun()?),
            },
            ledger: match self.ledger {
                None => None,
                Some(minted) => Some(minted.noun()?),
            },
        })
    }
}

/// What memory must forget.
pub(in crate::store) fn changed(effects: &[Effect]) -> Vec<Key> {
    let changed = effects.iter().filter(|effect| effect.changed);
    changed
        .map(|effect| Key::Mac(effect.device_id.clone()))
        .collect()
}

/// Lets the decision judge; a panic in it is its own failure and nobody else's.
fn judge<T>(
    exchange: Exchange,
    decide: impl FnOnce(Exchange) -> (Changes, T),
) -> Result<(Subject, Changes, T), StoreError> {
    let subject = Subject {
        device_id: exchange.device_id.clone(),
        ticket_id: exchange.ticket_id.clone(),
        agenda: exchange.agenda.clone(),
        behind: false,
    };
    // The closure and what it was given are gone after a panic; nothing broken can be seen.
    let (changes, answer) = catch_unwind(AssertUnwindSafe(|| decide(exchange)))
        .map_err(|_| StoreError::DecisionPanicked)?;
    Ok((subject, changes, answer))
}

impl Changes {
    /// The statements that write the changes, parents before children, and what they amount to.
    pub(super) fn edits(
        mut self,
        subject: Subject,
        rules: &Rules,
    ) -> Result<(Vec<Edit>, Effect), StoreError> {
        let device_id = &subject.device_id;
        let about_another = self
            .commands
            .iter()
            .map(|command| &command.device_id)
            .chain(self.verification.iter().map(|it| &it.device_id))
            .chain(self.posture.iter().map(|it| &it.device_id))
            .chain(self.minted.iter().map(|it| &it.inputs.device_id))
            .chain(self.evidence.iter().map(|it| &it.device_id))
            .chain(self.agenda.iter().map(|it| &it.device_id))
            .any(|other| other != device_id);
        if about_another {
            return Err(StoreError::Conflict);
        }

        let agenda = self.followed(&subject);
        let mut edits = Vec::with_capacity(8);
        if let Some(verification) = &self.verification {
            edits.push(verifications::save(verification)?);
        }
        let last: BTreeMap<_, _> = self
            .commands
            .iter()
            .map(|it| (&it.command_uuid, it))
            .collect();
        for command in last.values() {
            edits.extend(commands::supersede_earlier(command));
            edits.push(commands::save(command));
        }
        for minted in &self.minted {
            edits.push(nonces::record(minted)?);
        }
        edits.extend(self.evidence.into_iter().map(evidence::keep));
        if let Some(posture) = &self.posture {
            edits.extend(postures::save(posture)?);
        }
        if let Some(ticket_id) = &subject.ticket_id {
            // One row, one change: the last word on a step is the one that counts.
            let last: BTreeMap<_, _> = self.steps.iter().map(|it| (it.step, it)).collect();
            edits.extend(last.values().map(|entry| steps::put(ticket_id, entry)));
        }
        if let Some(at) = self.proved_at {
            edits.push(if self.holds {
                enrollments::prove_and_hold(device_id, at)
            } else {
                enrollments::prove(device_id, at)
            });
        }
        for relay in self.relays {
            edits.push(relayed::follow(device_id, relay));
        }
        if let Some((updated_at, since)) = self.push_dead {
            edits.push(enrollments::mark_push_dead(device_id, updated_at, since));
        }
        let mut owes = None;
        if let Some(agenda) = &agenda {
            let next = agenda.next(rules);
            edits.push(agendas::save(agenda, next, self.leased_until)?);
            owes = Some(next.owes_from);
        }
        edits.extend(events::append(Some(device_id), &self.events)?);

        let effect = Effect {
            changed: !edits.is_empty(),
            stepped: subject.ticket_id.filter(|_| !self.steps.is_empty()),
            appended: !self.events.is_empty(),
            owes,
            device_id: subject.device_id,
        };
        Ok((edits, effect))
    }

    /// The agenda once it followed everything else; `None` when it is stored like that.
    fn followed(&mut self, subject: &Subject) -> Option<Agenda> {
        let mut agenda = self.agenda.take().unwrap_or_else(|| subject.agenda.clone());
        if let Some(posture) = &self.posture {
            agenda.believes(posture);
        }
        for command in &self.commands {
            agenda.talks(command);
        }
        if let Some(verification) = &self.verification {
            agenda.attempts(verification);
        }
        let changed = agenda != subject.agenda || self.leased_until.is_some();
        (changed || subject.behind).then_some(agenda)
    }
}
