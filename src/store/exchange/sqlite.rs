//! The exchange on SQLite: group commit on one thread with a connection of its own.
//!
//! What arrives while a batch is committed is carried out together in the next one: each decision
//! under a savepoint, one commit (and one fsync) for all, and only then are they answered. So the
//! price of durability is shared by everybody who waited for it.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{Mutex, oneshot};

use super::{About, Changes, Columns, Effect, Exchange, Loaded, judge, load as load_sql};
use crate::store::database::sqlite_for_the_writer;
use crate::store::edit::Edit;
use crate::store::roster::Roster;
use crate::store::watch::{Announcer, Watched};
use crate::store::{StoreError, row};
use crate::verification::agenda::Rules;

/// The most exchanges in one commit: a bound on how long the other writers wait.
const BATCH: usize = 256;

/// The thread that writes.
#[derive(Debug)]
pub(in crate::store) struct Writer {
    /// `None` once the thread is to end.
    jobs: Option<Sender<Box<dyn Job>>>,
    thread: StdMutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(in crate::store) fn start(
        database: &Path,
        baton: &Arc<Mutex<()>>,
        roster: &Arc<Roster>,
        announcer: &Arc<Announcer>,
    ) -> Result<Self, StoreError> {
        let desk = Desk {
            connection: sqlite_for_the_writer(database)?,
            baton: Arc::clone(baton),
            roster: Arc::clone(roster),
            announcer: Arc::clone(announcer),
        };
        let (jobs, inbox) = channel();
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || desk.work(&inbox))
            .map_err(StoreError::unavailable)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: StdMutex::new(Some(thread)),
        })
    }

    pub(in crate::store) async fn exchange<T: Send + 'static>(
        &self,
        about: About,
        rules: Arc<Rules>,
        decide: impl FnOnce(Exchange) -> (Changes, T) + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand(Box::new(Asked {
            about,
            rules,
            decide: Some(decide),
            answer: None,
            reply,
        }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Carries edits out, all or none, in the next commit.
    pub(in crate::store) async fn write(&self, edits: Vec<Edit>) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand(Box::new(Told { edits, reply }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// Has the thread do something in its next commit.
    pub(in crate::store) fn hand(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).map_err(|_| stopped())
    }

    /// Whether the thread runs.
    pub(in crate::store) fn check(&self) -> Result<(), StoreError> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        match &*thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(stopped()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the store's writer thread has stopped")]
struct Stopped;

#[derive(Debug, thiserror::Error)]
#[error("SQLite gave the transaction up")]
struct GivenUp;

pub(in crate::store) fn stopped() -> StoreError {
    StoreError::unavailable(Stopped)
}

/// Something that somebody waits for.
pub(in crate::store) trait Job: Send {
    /// Loads, decides and writes, inside a savepoint; what it did to which Macs.
    fn run(&mut self, connection: &Connection) -> Result<Vec<Effect>, StoreError>;

    /// Answers who waits: after the commit.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Asked<F, T> {
    about: About,
    rules: Arc<Rules>,
    decide: Option<F>,
    answer: Option<T>,
    reply: oneshot::Sender<Result<Option<T>, StoreError>>,
}

impl<T, F> Job for Asked<F, T>
where
    T: Send,
    F: FnOnce(Exchange) -> (Changes, T) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<Vec<Effect>, StoreError> {
        let (Some(exchange), Some(decide)) = (load(connection, &self.about)?, self.decide.take())
        else {
            return Ok(Vec::new());
        };
        let (subject, changes, answer) = judge(exchange, decide)?;
        let (edits, effect) = changes.edits(subject, &self.rules)?;
        for edit in &edits {
            edit.apply_to(connection)?;
        }
        self.answer = Some(answer);
        Ok(vec![effect])
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { answer, reply, .. } = *self;
        // Whoever asked may have gone; what was decided stands all the same.
        let _ = reply.send(outcome.map(|()| answer));
    }
}

/// Edits that need nothing from the store to be decided.
struct Told {
    edits: Vec<Edit>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Job for Told {
    fn run(&mut self, connection: &Connection) -> Result<Vec<Effect>, StoreError> {
        for edit in &self.edits {
            edit.apply_to(connection)?;
        }
        Ok(Vec::new())
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let _ = self.reply.send(outcome);
    }
}

fn load(connection: &Connection, about: &About) -> Result<Option<Exchange>, StoreError> {
    let mut statement = connection.prepare_cached(load_sql!(""))?;
    let found = statement
        .query_row(
            params![
                about.command_uuid.as_ref().map(|uuid| uuid.as_str()),
                about.nonce.as_ref().map(<[u8; 32]>::as_slice),
                about.device_id.as_str(),
            ],
            |found| Ok(Loaded::read(found)),
        )
        .optional()?;
    match found {
        None => Ok(None),
        Some(loaded) => row::read(loaded?).map(Some),
    }
}

/// What the thread works with.
struct Desk {
    connection: Connection,
    baton: Arc<Mutex<()>>,
    roster: Arc<Roster>,
    announcer: Arc<Announcer>,
}

impl Desk {
    fn work(&self, inbox: &Receiver<Box<dyn Job>>) {
        while let Ok(first) = inbox.recv() {
            let baton = self.baton.blocking_lock();
            // Taken after the baton: who came while it was awaited is in this batch.
            let jobs = std::iter::once(first).chain(inbox.try_iter()).take(BATCH);
            let done = self.carry_out(jobs.collect());
            drop(baton);
            for (job, outcome) in done {
                job.finish(outcome);
            }
        }
    }

    /// One transaction for all. What memory says is true again before it returns.
    fn carry_out(
        &self,
        mut jobs: Vec<Box<dyn Job>>,
    ) -> Vec<(Box<dyn Job>, Result<(), StoreError>)> {
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut effects = Vec::with_capacity(jobs.len());
        let committed = self.run_cached("BEGIN IMMEDIATE").and_then(|()| {
            for job in &mut jobs {
                outcomes.push(self.under_savepoint(job.as_mut()).map(|effect| {
                    effects.extend(effect);
                }));
            }
            self.run_cached("COMMIT")
        });
        match committed {
            Ok(()) => self.publish(&effects),
            Err(error) => {
                if !self.connection.is_autocommit()
                    && let Err(error) = self.run_cached("ROLLBACK")
                {
                    tracing::error!(%error, "a failed batch cannot be rolled back");
                }
                // Nothing was kept, so nobody may be told that something was.
                outcomes = jobs.iter().map(|_| Err(error.clone())).collect();
            }
        }
        jobs.into_iter().zip(outcomes).collect()
    }

    /// One decision. If it fails, the others of the batch do not notice.
    fn under_savepoint(&self, job: &mut dyn Job) -> Result<Vec<Effect>, StoreError> {
        // SQLite gives a whole transaction up on some faults (disk full). A savepoint without one
        // would be a transaction of its own.
        if self.connection.is_autocommit() {
            return Err(StoreError::unavailable(GivenUp));
        }
        self.run_cached("SAVEPOINT exchange")?;
        let outcome = job.run(&self.connection);
        if outcome.is_err() {
            self.run_cached("ROLLBACK TO exchange")?;
        }
        self.run_cached("RELEASE exchange")?;
        outcome
    }

    fn run_cached(&self, sql: &str) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn publish(&self, effects: &[Effect]) {
        for effect in effects {
            if let Some(owes_from) = effect.owes {
                self.roster.owe(&effect.device_id, owes_from);
            }
            if effect.changed {
                self.announcer.changed(Watched::Device(&effect.device_id));
            }
            if let Some(ticket_id) = &effect.stepped {
                self.announcer.changed(Watched::Steps(ticket_id));
            }
        }
        if effects.iter().any(|effect| effect.appended) {
            self.announcer.appended();
        }
    }
}

impl Columns for rusqlite::Row<'_> {
    fn text(&self, index: usize) -> Result<Option<String>, StoreError> {
        Ok(self.get(index)?)
    }

    fn int(&self, index: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.get(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.get(index)?)
    }
}
