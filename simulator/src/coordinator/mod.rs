//! A reference coordinator: what a service does that sends requests to providers, and tells in each reply
//! which provider made it and how far that was trusted.
//!
//! It registers provider sessions at the server's internal API, carries challenges to them when they are
//! due, follows the stream of events, and sends requests only to who may be routed to. The server's
//! answers count until they say, and not a moment longer; what may have changed and cannot be looked up
//! does not count at all. Its providers are doubles in this process: it speaks to them by calls.

mod api;
mod events;
mod reply;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openssl::error::ErrorStack;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::api::Api;
use crate::clock::Clock;
use crate::provider::Provider;

/// Between two looks at whose challenge is due.
const LOOK: Duration = Duration::from_millis(500);

/// Between a challenge that could not be issued and the next try.
const AGAIN: Duration = Duration::from_secs(3);

/// Where a coordinator works.
#[derive(Debug)]
pub struct CoordinatorOptions {
    /// The server's internal API.
    pub api: Api,
    /// The server's public URL: what is public is passed on from there.
    pub public_url: String,
    /// The root of that server's TLS, PEM, if it is not a public one.
    pub public_root: Option<Vec<u8>>,
    pub clock: Clock,
    /// The loopback port; 0 takes a free one.
    pub port: u16,
}

/// A running coordinator. It stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
    address: SocketAddr,
    _stop: Arc<DropGuard>,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    #[error("the server did not answer, or refused: {0}")]
    Server(#[from] reqwest::Error),
    #[error("the server's answer has no {0}")]
    Missing(&'static str),
    #[error("there is no session {0}")]
    Unknown(String),
    #[error("the provider could not sign: {0}")]
    Provider(#[from] ErrorStack),
    #[error("a port cannot be listened on: {0}")]
    Listen(#[from] std::io::Error),
}

#[derive(Debug)]
struct Shared {
    api: Api,
    public: serve::Public,
    clock: Clock,
    lines: Mutex<BTreeMap<String, Line>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// The last event that was acted upon.
    heard: AtomicI64,
}

/// A provider, and what the server last said of its session.
#[derive(Debug, Clone)]
struct Line {
    provider: Provider,
    /// Whoever asks about the session or challenges it: the answers come in the order of the questions.
    asking: Arc<tokio::sync::Mutex<()>>,
    binding: Value,
    /// What a reply's headers say if the request is sent now; `None` when that is to be looked up.
    headers: Option<Value>,
    /// In milliseconds since 1970.
    next_challenge: Option<i64>,
    /// After a challenge that could not be issued, whatever time it is in the world.
    not_before: Option<Instant>,
}

/// A provider that a request may be sent to.
#[derive(Debug)]
struct Dispatched {
    provider: Provider,
    /// As they were when it was chosen.
    headers: Value,
}

impl Coordinator {
    /// Listens to the server's events and serves on 127.0.0.1.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn start(options: CoordinatorOptions) -> Result<Self, CoordinatorError> {
        let public = serve::Public::new(&options.public_url, options.public_root.as_deref())?;
        let stream = options.api.events(None).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            api: options.api,
            public,
            clock: options.clock,
            lines: Mutex::default(),
            turn: AtomicUsize::new(0),
            heard: AtomicI64::new(0),
        });
        let stop = CancellationToken::new();
        let until = |stop: CancellationToken, work| {
            tokio::spawn(async move { stop.run_until_cancelled_owned(work).await })
        };
        until(
            stop.clone(),
            Box::pin(events::follow(Arc::clone(&shared), stream)) as Work,
        );
        until(
            stop.clone(),
            Box::pin(serve::listen(Arc::clone(&shared), listener, stop.clone())),
        );
        until(
            stop.clone(),
            Box::pin(challenge_in_time(Arc::clone(&shared))),
        );
        Ok(Self {
            shared,
            address,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A provider's process begins a session: it is registered and challenged.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn connect(
        &self,
        session: &str,
        provider: Provider,
        account: Option<&str>,
    ) -> Result<Value, CoordinatorError> {
        let request = provider.binding_request(account)?;
        let path = format!("/internal/v1/bindings/{session}");
        let binding = self.shared.api.put(&path, &request).await?;
        let line = Line {
            provider,
            asking: Arc::default(),
            binding,
            headers: None,
            next_challenge: None,
            not_before: None,
        };
        self.shared.lines().insert(session.to_owned(), line);
        self.challenge(session).await
    }

    /// The provider's process has ended.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn disconnect(&self, session: &str) -> Result<(), CoordinatorError> {
        self.shared.lines().remove(session);
        let path = format!("/internal/v1/bindings/{session}");
        self.shared.api.delete(&path).await
    }

    /// Something changes on a provider.
    ///
    /// # Errors
    /// [`CoordinatorError::Unknown`].
    pub fn change(
        &self,
        session: &str,
        change: impl FnOnce(&mut Provider),
    ) -> Result<(), CoordinatorError> {
        match self.shared.lines().get_mut(session) {
            Some(line) => {
                change(&mut line.provider);
                Ok(())
            }
            None => Err(CoordinatorError::Unknown(session.to_owned())),
        }
    }

    /// Challenges a provider now. Returns what its session amounts to afterwards.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn challenge(&self, session: &str) -> Result<Value, CoordinatorError> {
        self.shared.challenged(session).await
    }

    /// The number of the last event that was acted upon.
    pub fn heard(&self) -> i64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// What the server last said of a session.
    pub fn binding(&self, session: &str) -> Option<Value> {
        let lines = self.shared.lines();
        lines.get(session).map(|line| line.binding.clone())
    }
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every provider is challenged when the server says it is due, which is every five minutes by its policy.
async fn challenge_in_time(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let now = shared.clock.now_ms();
        let (due, unsure): (Vec<_>, Vec<_>) = {
            let lines = shared.lines();
            let due = lines.iter().filter(|(_, line)| line.is_due(now));
            let unsure = lines.iter().filter(|(_, line)| line.headers.is_none());
            let names = |(name, _): (&String, &Line)| name.clone();
            (due.map(names).collect(), unsure.map(names).collect())
        };
        for session in due {
            shared.challenge(&session).await;
        }
        for session in unsure {
            shared.look_at(&session, true).await;
        }
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, session: &str) -> Result<Line, CoordinatorError> {
        let line = self.lines().get(session).cloned();
        line.ok_or_else(|| CoordinatorError::Unknown(session.to_owned()))
    }

    fn update(&self, session: &str, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.lines().get_mut(session) {
            change(line);
        }
    }

    fn sessions_of(&self, device_id: &str) -> Vec<String> {
        let lines = self.lines();
        let about = lines.iter();
        let about = about.filter(|(_, line)| line.binding["device_id"] == device_id);
        about.map(|(session, _)| session.clone()).collect()
    }

    /// Everything anew.
    async fn list(&self) {
        let sessions: Vec<_> = self.lines().keys().cloned().collect();
        for session in sessions {
            self.look_at(&session, true).await;
        }
    }

    /// Looks up what a session amounts to. While it is in doubt nothing is sent to it.
    async fn look_at(&self, session: &str, in_doubt: bool) {
        let Ok(line) = self.line(session) else {
            return;
        };
        let doubt = || {
            if in_doubt {
                self.update(session, |line| line.headers = None);
            }
        };
        doubt();
        let _turn = line.asking.lock().await;
        // An answer to an earlier question may have come meanwhile.
        doubt();
        if let Err(error) = self.look(session).await {
            tracing::info!(%session, %error, "not known whether it may be routed to");
        }
    }

    async fn challenge(&self, session: &str) {
        if let Err(error) = self.challenged(session).await {
            tracing::info!(%session, %error, "not challenged");
        }
    }

    async fn challenged(&self, session: &str) -> Result<Value, CoordinatorError> {
        let line = self.line(session)?;
        let _turn = line.asking.lock().await;
        // As it is now, not as it was when the turn came up.
        let provider = self.line(session)?.provider;
        let told = self.api.challenge(session, &provider).await;
        self.update(session, |line| match &told {
            Ok(told) => {
                line.next_challenge = millis(&told["next_due"]);
                line.not_before = None;
                if told["routable"] != true {
                    line.headers = None;
                }
            }
            Err(_) => line.not_before = Some(Instant::now() + AGAIN),
        });
        let looked = self.look(session).await;
        told?;
        looked
    }

    async fn look(&self, session: &str) -> Result<Value, CoordinatorError> {
        let path = format!("/internal/v1/bindings/{session}");
        let binding = self.api.get(&path).await?;
        // Whoever is joined to no Mac is nobody to route to.
        let headers = match binding["device_id"].as_str() {
            None => Value::Null,
            Some(device_id) => {
                let path =
                    format!("/internal/v1/devices/{device_id}/trust-headers?session={session}");
                self.api.get(&path).await?
            }
        };
        self.update(session, |line| {
            line.binding = binding.clone();
            line.headers = Some(headers);
        });
        Ok(binding)
    }

    /// Somebody a request may be sent to now, in turn.
    fn dispatch(&self) -> Option<Dispatched> {
        let now = self.clock.now_ms();
        let lines = self.lines();
        let routable: Vec<_> = lines
            .values()
            .filter_map(|line| Some((line, line.headers_at(now)?)))
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (line, headers) = routable.get(turn.checked_rem(routable.len())?)?;
        Some(Dispatched {
            provider: line.provider.clone(),
            headers: (*headers).clone(),
        })
    }
}

impl Line {
    fn is_due(&self, now: i64) -> bool {
        let is_over = |until: Instant| until <= Instant::now();
        self.next_challenge.is_some_and(|due| due <= now) && self.not_before.is_none_or(is_over)
    }

    /// The headers of a reply to a request that is sent at this time; `None` if none may be sent.
    fn headers_at(&self, now: i64) -> Option<&Value> {
        let told = self.headers.as_ref()?;
        let headers = &told["headers"];
        let is_routable = headers["x-provider-attested"] == "true"
            && millis(&told["routable_until"]).is_some_and(|until| now < until);
        is_routable.then_some(headers)
    }
}

/// A time of the server's, in milliseconds since 1970.
fn millis(time: &Value) -> Option<i64> {
    let time = OffsetDateTime::parse(time.as_str()?, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}
