//! One topic: its certificate, its connections, and what went well and badly on them.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::backoff::Backoff;
use super::circuit::Circuit;
use super::session::{Lost, Session, request};
use super::tls::Credentials;
use super::{Context, Installed, TopicState};
use crate::ids::sha256;
use crate::push::outcome::{ApnsReason, Passing};
use crate::push::{Blame, PushOutcome, Wake};
use crate::time::Timestamp;

/// A topic in use.
#[derive(Debug)]
pub(super) struct Line {
    context: Arc<Context>,
    credentials: ArcSwap<Credentials>,
    inner: Mutex<Inner>,
    /// Held while a connection is opened: there is one attempt at a time.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// Milliseconds since 1970; 0 for never. Apart from `inner`, because every push writes it.
    last_success: AtomicI64,
    /// Whether the circuit has anything to remember; spares the lock when all is well.
    troubled: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    sessions: Vec<Arc<Session>>,
    backoff: Backoff,
    /// Why the last connection could not be opened.
    refused: Option<PushOutcome>,
    circuit: Circuit,
    last_fault: Option<(Timestamp, PushOutcome)>,
    /// What began the hold, or went on with it.
    stopped: Option<(Timestamp, PushOutcome)>,
    closed: bool,
}

impl Line {
    pub(super) fn new(context: Arc<Context>, credentials: Credentials) -> Self {
        Self {
            context,
            credentials: ArcSwap::from_pointee(credentials),
            inner: Mutex::default(),
            opening: Arc::default(),
            last_success: AtomicI64::new(0),
            troubled: AtomicBool::new(false),
        }
    }

    /// Puts a newer generation of the certificate to use.
    pub(super) fn replace(&self, credentials: Credentials) -> Installed {
        let mut inner = self.lock();
        if credentials.generation <= self.credentials.load().generation {
            return Installed::Kept;
        }
        tracing::info!(topic = %credentials.topic, generation = credentials.generation, "push certificate replaced");
        self.credentials.store(Arc::new(credentials));
        retire_all(&mut inner);
        // What was held against the old certificate does not count against the new one.
        inner.circuit = Circuit::default();
        inner.stopped = None;
        inner.backoff = Backoff::default();
        self.troubled.store(false, Ordering::Release);
        Installed::Replaced
    }

    /// Takes no more pushes; those under way end.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        retire_all(&mut inner);
    }

    /// Sends one push, on as many connections as it takes.
    pub(super) async fn send(self: &Arc<Self>, wake: &Wake, id: Uuid) -> PushOutcome {
        let settings = &self.context.settings;
        if self.troubled.load(Ordering::Acquire)
            && !self.lock().circuit.admits(Instant::now(), settings)
        {
            return PushOutcome::RetryLater(Passing::OnHold);
        }
        let generation = self.credentials.load().generation;
        let deadline = Instant::now() + settings.deadline;
        let sent = AtomicBool::new(false);
        let outcome = tokio::time::timeout_at(deadline, self.attempts(wake, id, deadline, &sent))
            .await
            .unwrap_or_else(|_| {
                PushOutcome::RetryLater(if sent.load(Ordering::Relaxed) {
                    Passing::Deadline
                } else {
                    Passing::Unreachable
                })
            });
        if outcome == PushOutcome::RetryLater(Passing::Deadline) {
            self.retire_silent();
        }
        self.settle(&outcome, wake, generation);
        outcome
    }

    /// How the topic stands.
    pub(super) fn state(&self) -> TopicState {
        let credentials = self.credentials.load();
        let (now, wall) = (Instant::now(), self.context.clock.now());
        let inner = self.lock();
        let open = || inner.sessions.iter().filter(|session| session.is_open());
        let success = self.last_success.load(Ordering::Relaxed);
        TopicState {
            topic: credentials.topic.clone(),
            generation: credentials.generation,
            certificate: credentials.certificate,
            not_after: credentials.not_after,
            connections: open().count(),
            in_flight: open().map(|session| session.load()).sum(),
            last_success: (success > 0).then(|| Timestamp::from_millis(success)),
            last_fault: inner.last_fault.clone(),
            stopped: inner.stopped.clone(),
            on_hold_until: inner
                .circuit
                .held_until(now)
                .map(|until| wall.plus(until - now)),
        }
    }

    async fn attempts(
        self: &Arc<Self>,
        wake: &Wake,
        id: Uuid,
        deadline: Instant,
        sent: &AtomicBool,
    ) -> PushOutcome {
        let settings = &self.context.settings;
        let mut attempts = 0;
        while attempts < settings.attempts {
            let session = match self.session(deadline).await {
                Ok(session) => session,
                Err(outcome) => return outcome,
            };
            // A session that was retired while this waited for a place: no attempt was made.
            let Some(_place) = session.place().await else {
                continue;
            };
            let Some(request) = request(&settings.endpoint, wake, id) else {
                return PushOutcome::OurFault {
                    status: 0,
                    reason: ApnsReason::Unnamed,
                };
            };
            attempts += 1;
            sent.store(true, Ordering::Relaxed);
            match session.send(request).await {
                Ok(PushOutcome::RetryLater(Passing::ConnectionEnding)) => self.retire(&session),
                Ok(outcome) => return outcome,
                Err(Lost::Elsewhere) => self.retire(&session),
                // One stream failed; that says nothing about its connection.
                Err(Lost::For(outcome)) => return outcome,
            }
        }
        PushOutcome::RetryLater(Passing::Disconnected)
    }

    /// A session that takes a push, opened if there is none.
    async fn session(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Session>, PushOutcome> {
        if let Some(session) = self.choose() {
            return Ok(session);
        }
        let opening = Arc::clone(&self.opening).lock_owned().await;
        if let Some(session) = self.choose() {
            return Ok(session);
        }
        let (wait, refused) = {
            let inner = self.lock();
            if inner.closed {
                return Err(PushOutcome::RetryLater(Passing::Unreachable));
            }
            (inner.backoff.next(), inner.refused.clone())
        };
        if let Some(until) = wait {
            if until >= deadline {
                return Err(refused.unwrap_or(PushOutcome::RetryLater(Passing::Unreachable)));
            }
            tokio::time::sleep_until(until).await;
        }
        self.spawn_opening(opening)
            .await
            .unwrap_or(Err(PushOutcome::RetryLater(Passing::Unreachable)))
    }

    /// Opens a session in a task of its own: a push that runs out of time must not break off what the
    /// next ones need, only to begin anew.
    fn spawn_opening(
        self: &Arc<Self>,
        opening: OwnedMutexGuard<()>,
    ) -> JoinHandle<Result<Arc<Session>, PushOutcome>> {
        let line = Arc::clone(self);
        tokio::spawn(async move {
            let _opening = opening;
            line.open().await
        })
    }

    async fn open(&self) -> Result<Arc<Session>, PushOutcome> {
        let credentials = self.credentials.load_full();
        let opened = Session::open(&self.context.settings, &credentials).await;
        let mut inner = self.lock();
        match opened {
            Ok(session) => {
                tracing::debug!(topic = %credentials.topic, generation = credentials.generation, "APNs connection opened");
                let session = Arc::new(session);
                inner.refused = None;
                // Replaced or withdrawn in the meantime: nobody may use it.
                if inner.closed || session.generation() != self.credentials.load().generation {
                    session.retire();
                } else {
                    inner.sessions.push(Arc::clone(&session));
                }
                Ok(session)
            }
            Err(outcome) => {
                tracing::warn!(topic = %credentials.topic, outcome = outcome.name(), detail = ?outcome, "APNs connection could not be opened");
                let entropy = self.context.entropy.as_ref();
                inner
                    .backoff
                    .failed(Instant::now(), &self.context.settings, entropy);
                inner.refused = Some(outcome.clone());
                Err(outcome)
            }
        }
    }

    /// The open session with the least load, if there is one. When all are full and another is allowed,
    /// that is opened meanwhile, for the pushes to come.
    fn choose(self: &Arc<Self>) -> Option<Arc<Session>> {
        let mut inner = self.lock();
        self.forget_ended(&mut inner);
        let least = inner.sessions.iter().min_by_key(|session| session.load())?;
        let may_open = inner.sessions.len() < self.context.settings.connections
            && inner
                .backoff
                .next()
                .is_none_or(|next| next <= Instant::now());
        if may_open
            && inner.sessions.iter().all(|session| session.is_full())
            && let Ok(opening) = Arc::clone(&self.opening).try_lock_owned()
        {
            drop(self.spawn_opening(opening));
        }
        Some(Arc::clone(least))
    }

    fn retire(&self, session: &Session) {
        session.retire();
        self.forget_ended(&mut self.lock());
    }

    fn retire_silent(&self) {
        // Half: part of a push's time may have gone into waiting for the connection.
        let (span, now) = (self.context.settings.deadline / 2, Instant::now());
        let mut inner = self.lock();
        for session in &inner.sessions {
            if session.is_silent_for(span, now) {
                session.retire();
            }
        }
        self.forget_ended(&mut inner);
    }

    fn forget_ended(&self, inner: &mut Inner) {
        if inner.sessions.iter().all(|session| session.is_open()) {
            return;
        }
        let now = Instant::now();
        let (open, ended) = std::mem::take(&mut inner.sessions)
            .into_iter()
            .partition::<Vec<_>, _>(|session| session.is_open());
        inner.sessions = open;
        for session in ended {
            session.retire();
            inner.backoff.ended(
                now,
                (session.answers(), session.age(now)),
                &self.context.settings,
                self.context.entropy.as_ref(),
            );
        }
    }

    fn settle(&self, outcome: &PushOutcome, wake: &Wake, generation: u64) {
        if *outcome == PushOutcome::Accepted {
            self.last_success
                .store(self.context.clock.now().millis(), Ordering::Relaxed);
            if !self.troubled.load(Ordering::Acquire) {
                return;
            }
        }
        let mut inner = self.lock();
        // The answer to a certificate that is no longer in use says nothing about the one that is.
        if generation != self.credentials.load().generation {
            return;
        }
        let now = Instant::now();
        let token = sha256(wake.path().expose().as_bytes());
        let began = inner
            .circuit
            .settle(outcome, token, now, &self.context.settings);
        self.troubled
            .store(inner.circuit.is_troubled(), Ordering::Release);
        if began {
            let topic = &self.credentials.load().topic;
            tracing::error!(%topic, outcome = outcome.name(), detail = ?outcome, "pushes held: the push certificate is at fault");
            // A connection stays bound to the certificate it was opened with.
            retire_all(&mut inner);
            inner.stopped = Some((self.context.clock.now(), outcome.clone()));
        } else if !inner.circuit.is_troubled() {
            inner.stopped = None;
        }
        if !matches!(outcome.blame(), Blame::Nobody | Blame::Token) {
            inner.last_fault = Some((self.context.clock.now(), outcome.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retire_all(inner: &mut Inner) {
    for session in inner.sessions.drain(..) {
        session.retire();
    }
}
