//! One HTTP/2 connection to APNs.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use super::settings::{ApnsSettings, Endpoint};
use super::tls::{Credentials, Remembering, TlsVerdict};
use crate::push::outcome::{CertificateFault, MAX_BODY, Passing};
use crate::push::{PushOutcome, Wake};

type ApnsStream = TokioIo<Remembering<TlsStream<TcpStream>>>;

/// A connection. It lives while somebody holds it; after that it ends once its streams have.
#[derive(Debug)]
pub(super) struct Session {
    sender: SendRequest<Full<Bytes>>,
    places: Semaphore,
    places_at_most: usize,
    /// By the server's SETTINGS, as last seen.
    streams_allowed: Arc<AtomicUsize>,
    answers: AtomicU64,
    /// When the first push after the last answer was sent: milliseconds after `opened`, 0 for none.
    asked_at: AtomicU64,
    opened: Instant,
    generation: u64,
    verdict: Arc<OnceLock<TlsVerdict>>,
}

/// Why a push was not answered on a session.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection ended, or refused the stream unprocessed: send it on another.
    Elsewhere,
    /// Nothing sent on another connection would go better.
    For(PushOutcome),
}

impl Session {
    /// Opens a connection.
    ///
    /// # Errors
    /// The outcome of a push that needed it.
    pub(super) async fn open(
        settings: &ApnsSettings,
        credentials: &Credentials,
    ) -> Result<Self, PushOutcome> {
        tokio::time::timeout(settings.connect_deadline, Self::dial(settings, credentials))
            .await
            .unwrap_or(Err(UNREACHABLE))
    }

    async fn dial(settings: &ApnsSettings, credentials: &Credentials) -> Result<Self, PushOutcome> {
        let (host, port) = settings.endpoint.address();
        let tcp = TcpStream::connect((host.as_str(), port))
            .await
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|_| UNREACHABLE)?;
        let tls = TlsConnector::from(Arc::clone(&credentials.config))
            .connect(settings.endpoint.host().clone(), tcp)
            .await
            .map_err(|error| TlsVerdict::of(&error).map_or(UNREACHABLE, outcome_of))?;
        // A server that does not speak HTTP/2 is not APNs.
        if tls.get_ref().1.alpn_protocol() != Some(b"h2".as_slice()) {
            return Err(PushOutcome::RetryLater(Passing::UntrustedServer));
        }
        let verdict = Arc::new(OnceLock::new());
        let stream = Remembering::new(tls, Arc::clone(&verdict));
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Until the server's SETTINGS arrive; APNs has been seen to allow one stream only.
            .initial_max_send_streams(1)
            .keep_alive_interval(settings.ping_interval)
            .keep_alive_timeout(settings.ping_deadline)
            .keep_alive_while_idle(true)
            .max_header_list_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| {
                verdict
                    .get()
                    .map_or(UNREACHABLE, |verdict| outcome_of(*verdict))
            })?;
        let streams_allowed = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        // Ends by itself when the sender is dropped and the last stream is done, or the peer goes.
        tokio::spawn(drive(connection, Arc::clone(&streams_allowed)));
        Ok(Self {
            sender,
            places: Semaphore::new(settings.streams),
            places_at_most: settings.streams,
            streams_allowed,
            answers: AtomicU64::new(0),
            asked_at: AtomicU64::new(0),
            opened: Instant::now(),
            generation: credentials.generation,
            verdict,
        })
    }

    /// Waits for a place among the streams of this connection; `None` once it takes no more.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.acquire().await.ok()
    }

    /// Sends a push and reads the answer.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<PushOutcome, Lost> {
        self.note_asked();
        let response = self
            .sender
            .clone()
            .send_request(request)
            .await
            .map_err(|error| self.lost(&error))?;
        let status = response.status().as_u16();
        let body = if status == 200 {
            Bytes::new()
        } else {
            match Limited::new(response.into_body(), MAX_BODY).collect().await {
                Ok(body) => body.to_bytes(),
                // The status alone says what to do, if less exactly.
                Err(_) => Bytes::new(),
            }
        };
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.asked_at.store(0, Ordering::Relaxed);
        Ok(PushOutcome::read(status, &body))
    }

    /// Takes no new pushes; those under way go on, those waiting for a place go elsewhere.
    pub(super) fn retire(&self) {
        self.places.close();
    }

    /// Whether a new push may be sent here.
    pub(super) fn is_open(&self) -> bool {
        !self.places.is_closed() && !self.sender.is_closed()
    }

    /// Pushes under way.
    pub(super) fn load(&self) -> usize {
        self.places_at_most - self.places.available_permits().min(self.places_at_most)
    }

    /// Whether another push would have to wait: for a place of ours, or for a stream that the server
    /// does not allow yet. What a new session allows is known from its first answer on.
    pub(super) fn is_full(&self) -> bool {
        let load = self.load();
        load >= self.places_at_most
            || (self.answers() > 0 && load >= self.streams_allowed.load(Ordering::Relaxed))
    }

    /// Answers received.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// How long it has been open.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened)
    }

    /// Whether it was asked as long as `span` ago and has answered nothing since: the other side may be
    /// gone without a word, which a PING would tell only much later.
    pub(super) fn is_silent_for(&self, span: Duration, now: Instant) -> bool {
        let asked = self.asked_at.load(Ordering::Relaxed);
        asked > 0 && self.age(now).saturating_sub(Duration::from_millis(asked)) >= span
    }

    /// The generation of the certificate it was opened with.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    fn note_asked(&self) {
        if self.asked_at.load(Ordering::Relaxed) == 0 {
            let age = u64::try_from(self.age(Instant::now()).as_millis()).unwrap_or(u64::MAX);
            self.asked_at.store(age.max(1), Ordering::Relaxed);
        }
    }

    fn lost(&self, error: &hyper::Error) -> Lost {
        if let Some(verdict) = self.verdict.get() {
            return Lost::For(outcome_of(*verdict));
        }
        if is_of_the_connection(error) {
            Lost::Elsewhere
        } else {
            Lost::For(PushOutcome::RetryLater(Passing::Disconnected))
        }
    }
}

/// Runs a connection to its end, keeping note of how many streams the server allows.
async fn drive(
    mut connection: Connection<ApnsStream, Full<Bytes>, TokioExecutor>,
    streams_allowed: Arc<AtomicUsize>,
) {
    let ended = poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if polled.is_pending() {
            streams_allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
        }
        polled
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "APNs connection ended");
    }
}

const UNREACHABLE: PushOutcome = PushOutcome::RetryLater(Passing::Unreachable);

fn outcome_of(verdict: TlsVerdict) -> PushOutcome {
    match verdict {
        TlsVerdict::OursRefused => PushOutcome::CertificateFault(CertificateFault::Handshake),
        TlsVerdict::TheirsRefused => PushOutcome::RetryLater(Passing::UntrustedServer),
    }
}

/// Whether the connection is to blame, not the request. A cut TLS connection arrives as an I/O error
/// far down the chain, not as one of HTTP/2.
fn is_of_the_connection(error: &hyper::Error) -> bool {
    if error.is_canceled() || error.is_closed() || error.is_timeout() {
        return true;
    }
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = source {
        if cause.is::<io::Error>() {
            return true;
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>()
            && (h2.is_io() || h2.is_go_away() || h2.reason() == Some(h2::Reason::REFUSED_STREAM))
        {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The request of a push; the same bytes in every attempt. `None` only if the parts make no request,
/// which what a [`Wake`] holds always does.
pub(super) fn request(endpoint: &Endpoint, wake: &Wake, id: Uuid) -> Option<Request<Full<Bytes>>> {
    let uri = Uri::builder()
        .scheme("https")
        .authority(endpoint.authority().clone())
        .path_and_query(wake.path().expose().as_str())
        .build()
        .ok()?;
    Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("apns-topic", wake.topic().as_str())
        .header("apns-push-type", HeaderValue::from_static(Wake::PUSH_TYPE))
        .header("apns-priority", HeaderValue::from_static(Wake::PRIORITY))
        .header(
            "apns-expiration",
            HeaderValue::from(wake.expiration().header()),
        )
        .header("apns-id", id.hyphenated().to_string())
        .body(Full::new(Bytes::copy_from_slice(wake.payload().expose())))
        .ok()
}
