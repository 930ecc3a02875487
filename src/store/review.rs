//! Macs are looked at because something is due, or because something was done for them that is no
//! message of theirs: load what that needs, decide, write, as in an exchange, and many at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement, Value};
use tokio::sync::oneshot;

use super::agendas;
use super::changes;
use super::exchange::postgres::{commit, write_all};
use super::exchange::sqlite::Job;
use super::exchange::{Changes, Columns, Effect, Subject, changed};
use super::row::{self, Row};
use super::{Inner, Store, StoreError};
use crate::enrollment::State;
use crate::ids::{DeviceId, TicketId};
use crate::posture::Posture;
use crate::time::Timestamp;
use crate::verification::agenda::Rules;
use crate::verification::{Agenda, Verification};

/// What is known of a Mac that is looked at.
#[derive(Debug, Clone)]
pub struct Review {
    pub device_id: DeviceId,
    pub ticket_id: Option<TicketId>,
    pub state: State,
    /// When the Mac brought its push address.
    pub addressed_at: Option<Timestamp>,
    /// The open verification.
    pub verification: Option<Verification>,
    pub agenda: Agenda,
}

impl Store {
    /// Looks at these Macs and makes what was decided durable before this returns, in one step.
    /// `decide` may be called on the writer's thread: it must not wait. On PostgreSQL those that
    /// somebody else is writing about are left to whoever does: their agendas follow that.
    ///
    /// # Errors
    /// As [`Store::exchange`]; then nothing of all this is kept.
    pub async fn review_all<T: Send + 'static>(
        &self,
        devices: Vec<DeviceId>,
        decide: impl FnMut(Review) -> (Changes, T) + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        self.look(devices, false, decide).await
    }

    /// Looks at one Mac. `None` when there is no such Mac.
    ///
    /// # Errors
    /// As [`Store::exchange`].
    pub async fn review<T: Send + 'static>(
        &self,
        device_id: &DeviceId,
        decide: impl FnOnce(Review) -> (Changes, T) + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let mut decide = Some(decide);
        let once = move |review| {
            let decided = decide.take().map(|decide| decide(review));
            decided.map_or((Changes::default(), None), |(changes, answer)| {
                (changes, Some(answer))
            })
        };
        let answers = self.look(vec![device_id.clone()], true, once).await?;
        Ok(answers.into_iter().flatten().next())
    }

    async fn look<T: Send + 'static>(
        &self,
        devices: Vec<DeviceId>,
        waits: bool,
        decide: impl FnMut(Review) -> (Changes, T) + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        match &self.0.writer {
            Some(writer) => {
                let (reply, answer) = oneshot::channel();
                writer.hand(Box::new(Look {
                    devices,
                    decide,
                    rules: self.0.rules(),
                    answers: Vec::new(),
                    reply,
                }))?;
                answer
                    .await
                    .map_err(|_| super::exchange::sqlite::stopped())?
            }
            None if self.0.connections.backend.is_sqlite() => Err(StoreError::NotTheOwner),
            None => on_postgresql(&self.0, &devices, waits, decide).await,
        }
    }
}

/// The columns, in the order of [`Loaded::read`]. A posture is needed only where there is no agenda
/// yet.
const LOAD: &str = "SELECT e.device_id, e.ticket_id, e.state, e.authenticated_at, \
     e.push_updated_at, g.body, v.body, p.body FROM enrollments e \
     LEFT JOIN agendas g ON g.device_id = e.device_id \
     LEFT JOIN verifications v ON v.device_id = e.device_id AND v.finished_at IS NULL \
     LEFT JOIN postures p ON p.device_id = e.device_id AND g.body IS NULL ";

struct Loaded {
    device_id: String,
    ticket_id: Option<String>,
    state: String,
    authenticated_at: i64,
    push_updated_at: Option<i64>,
    agenda: Option<String>,
    verification: Option<String>,
    posture: Option<String>,
}

impl Loaded {
    fn read(row: &impl Columns) -> Result<Self, StoreError> {
        Ok(Self {
            device_id: row.text(0)?.unwrap_or_default(),
            ticket_id: row.text(1)?,
            state: row.text(2)?.unwrap_or_default(),
            authenticated_at: row.int(3)?.unwrap_or_default(),
            push_updated_at: row.int(4)?,
            agenda: row.text(5)?,
            verification: row.text(6)?,
            posture: row.text(7)?,
        })
    }
}

impl Row for Loaded {
    type Noun = Review;
    const TABLE: &'static str = "enrollments, or what belongs to it,";

    fn id(&self) -> String {
        self.device_id.clone()
    }

    fn noun(self) -> Option<Review> {
        let device_id = DeviceId::parse(&self.device_id).ok()?;
        let state = State::from_word(&self.state)?;
        let verification: Option<Verification> =
            row::parsed_if_any(self.verification.as_deref(), serde_json::from_str)?;
        let agenda = match self.agenda.as_deref() {
            Some(body) => row::parsed(body, serde_json::from_str)?,
            None => {
                let posture: Option<Posture> =
                    row::parsed_if_any(self.posture.as_deref(), serde_json::from_str)?;
                let since = Timestamp::from_millis(self.authenticated_at);
                let open = verification.as_ref();
                agendas::made_of(&device_id, state, since, posture.as_ref(), open)
            }
        };
        Some(Review {
            device_id,
            ticket_id: row::parsed_if_any(self.ticket_id.as_deref(), TicketId::parse)?,
            state,
            addressed_at: row::time(self.push_updated_at),
            verification,
            agenda,
        })
    }
}

/// Decides about one Mac; a panic in that is its own failure.
fn judge<T>(
    review: Review,
    decide: &mut impl FnMut(Review) -> (Changes, T),
) -> Result<(Subject, Changes, T), StoreError> {
    let subject = Subject {
        device_id: review.device_id.clone(),
        ticket_id: review.ticket_id.clone(),
        agenda: review.agenda.clone(),
        behind: true,
    };
    let (changes, answer) = catch_unwind(AssertUnwindSafe(|| decide(review)))
        .map_err(|_| StoreError::DecisionPanicked)?;
    Ok((subject, changes, answer))
}

/// A look on the writer's thread.
struct Look<F, T> {
    devices: Vec<DeviceId>,
    decide: F,
    rules: Arc<Rules>,
    answers: Vec<T>,
    reply: oneshot::Sender<Result<Vec<T>, StoreError>>,
}

impl<F, T> Look<F, T> {
    fn load(&self, connection: &Connection) -> Result<Vec<Review>, StoreError> {
        let sql = format!("{LOAD} WHERE e.device_id = $1");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut reviews = Vec::with_capacity(self.devices.len());
        for device_id in &self.devices {
            let found = statement
                .query_row([device_id.as_str()], |row| Ok(Loaded::read(row)))
                .optional()?;
            if let Some(loaded) = found {
                reviews.push(row::read(loaded?)?);
            }
        }
        Ok(reviews)
    }
}

impl<F, T> Job for Look<F, T>
where
    T: Send,
    F: FnMut(Review) -> (Changes, T) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<Vec<Effect>, StoreError> {
        let reviews = self.load(connection)?;
        let mut effects = Vec::with_capacity(reviews.len());
        for review in reviews {
            let (subject, changes, answer) = judge(review, &mut self.decide)?;
            let (edits, effect) = changes.edits(subject, &self.rules)?;
            for edit in &edits {
                edit.apply_to(connection)?;
            }
            self.answers.push(answer);
            effects.push(effect);
        }
        Ok(effects)
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { answers, reply, .. } = *self;
        let _ = reply.send(outcome.map(|()| answers));
    }
}

/// So many edits make one statement: a plan of thousands of parts costs more than it saves.
const EDITS: usize = 48;

async fn on_postgresql<T>(
    inner: &Inner,
    devices: &[DeviceId],
    waits: bool,
    mut decide: impl FnMut(Review) -> (Changes, T),
) -> Result<Vec<T>, StoreError> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let connections = &inner.connections;
    let tx = connections.backend.begin_write(&connections.write).await?;
    let devices = lock(&tx, devices, waits).await?;
    let rules = inner.rules();
    let (mut edits, mut effects, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for review in load(&tx, &devices).await? {
        let (subject, changes, answer) = judge(review, &mut decide)?;
        let (mut more, effect) = changes.edits(subject, &rules)?;
        edits.append(&mut more);
        effects.push(effect);
        answers.push(answer);
    }
    // Both the outbox and the log of changes are read in the order of this lock.
    if !edits.is_empty() {
        tx.execute_unprepared(&format!(
            "SELECT pg_advisory_xact_lock_shared({})",
            super::transaction::OUTBOX_LOCK
        ))
        .await?;
        edits.extend(changes::note(&changed(&effects)));
    }
    while !edits.is_empty() {
        let rest = edits.split_off(edits.len().min(EDITS));
        write_all(&tx, std::mem::replace(&mut edits, rest)).await?;
    }
    commit(inner, tx, &effects).await?;
    Ok(answers)
}

/// Locks Macs, in the order in which everybody does.
async fn lock(
    tx: &DatabaseTransaction,
    devices: &[DeviceId],
    waits: bool,
) -> Result<Vec<String>, StoreError> {
    let places = places(devices.len());
    let past = if waits { "" } else { "SKIP LOCKED" };
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "SELECT device_id FROM enrollments WHERE device_id IN ({places}) \
             ORDER BY device_id FOR UPDATE {past}"
        ),
        devices
            .iter()
            .map(|device_id| Value::from(device_id.as_str())),
    );
    let mut locked = Vec::new();
    for found in tx.query_all_raw(statement).await? {
        locked.push(found.try_get_by_index(0)?);
    }
    Ok(locked)
}

async fn load(tx: &DatabaseTransaction, devices: &[String]) -> Result<Vec<Review>, StoreError> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "{LOAD} WHERE e.device_id IN ({}) ORDER BY g.priority, e.device_id",
            places(devices.len())
        ),
        devices
            .iter()
            .map(|device_id| Value::from(device_id.as_str())),
    );
    let mut reviews = Vec::with_capacity(devices.len());
    for found in tx.query_all_raw(statement).await? {
        reviews.push(row::read(Loaded::read(&found)?)?);
    }
    Ok(reviews)
}

fn places(count: usize) -> String {
    let places: Vec<_> = (1..=count).map(|number| format!("${number}")).collect();
    places.join(", ")
}
