//! One listener: accept, TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! The accept loop is our own so that every connection has deadlines from its first byte: a TLS
//! handshake that dawdles, a peer that says nothing or too little to tell its protocol, request
//! headers that trickle and connections that idle are all cut off. An HTTP/2 peer that answers PING
//! is not silent and may stay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::client_tls::{KnownClient, TlsCertificate};
use super::idle::{Idle, Patience};

/// How long a peer may take for what.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The TLS handshake.
    handshake: Duration,
    /// Request headers, however they trickle.
    headers: Duration,
    silence: Patience,
}

const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    headers: Duration::from_secs(15),
    // Long polls keep a client silent for up to 90 s (`verifications::MAX_WAIT` and the deadline).
    silence: Patience {
        opening: Duration::from_secs(15),
        between: SILENCE,
    },
};
/// How long a client may say nothing.
pub const SILENCE: Duration = Duration::from_secs(120);
/// Idle HTTP/2 connections are asked for a sign of life this often.
const PING: Duration = Duration::from_secs(30);
/// Requests in flight may take this long to end once the service stops.
const DRAIN: Duration = Duration::from_secs(20);
/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 20_000;
/// Streams one HTTP/2 connection may have open.
const STREAMS: u32 = 128;

/// A bound socket and what answers on it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    routes: Router,
    limits: Limits,
    knows_clients: bool,
}

impl Listener {
    /// Binds an address. With `tls`, only TLS is spoken on it.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        routes: Router,
    ) -> std::io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self {
            socket,
            tls,
            routes,
            limits: LIMITS,
            knows_clients: false,
        })
    }

    /// Lets a client be silent for so long: one of HTTP/1 says nothing while it listens to a stream.
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.limits.silence.between = silence;
        self
    }

    /// What clients show in TLS says who they are: its handshake checks their chains.
    #[must_use]
    pub fn with_known_clients(mut self) -> Self {
        self.knows_clients = true;
        self
    }

    /// The address bound, with the port the system chose for port 0.
    ///
    /// # Errors
    /// The socket is no longer usable.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop`, then lets the requests in flight end.
    pub async fn serve(self, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut server = Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .keep_alive(true);
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_concurrent_streams(STREAMS);
        let server = Arc::new(server);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.socket, &places) => accepted,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: a moment helps, ending would not.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = Connection {
                server: Arc::clone(&server),
                tls: self.tls.clone().map(TlsAcceptor::from),
                routes: self.routes.clone(),
                peer,
                limits: self.limits,
                knows_clients: self.knows_clients,
            };
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                connection.serve(stream, watcher).await;
                drop(place);
            });
        }
        if timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("some requests did not end in time and were cut off");
        }
    }
}

async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, place))
}

struct Connection {
    server: Arc<Builder<TokioExecutor>>,
    tls: Option<TlsAcceptor>,
    routes: Router,
    peer: SocketAddr,
    limits: Limits,
    knows_clients: bool,
}

/// What the client of a connection showed.
#[derive(Debug, Clone, Default)]
struct Client {
    certificate: Option<TlsCertificate>,
    known: Option<KnownClient>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
        // Replies are small and awaited: no reason to hold them back.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.speak(stream, Client::default(), watcher).await,
            Some(tls) => match timeout(self.limits.handshake, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let tls = stream.get_ref().1;
                    let known = self.knows_clients.then(|| KnownClient::of(tls)).flatten();
                    let client = Client {
                        certificate: TlsCertificate::of(tls),
                        known,
                    };
                    self.speak(stream, client, watcher).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            },
        }
    }

    async fn speak<S>(
        &self,
        stream: S,
        client: Client,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Idle::new(stream, self.limits.silence));
        let peer = self.peer;
        let routes = self.routes.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut routes = routes.clone();
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(shown) = client.certificate {
                request.extensions_mut().insert(shown);
            }
            if let Some(known) = &client.known {
                request.extensions_mut().insert(known.clone());
            }
            async move { routes.call(request).await }
        });
        let connection = self.server.serve_connection(io, service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::put;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::super::body::Received;
    use super::super::{DEADLINE, in_time};
    use super::*;

    /// The one limit of a test; every other one takes longer than the test may.
    const SOON: Duration = Duration::from_millis(100);
    const NEVER: Duration = Duration::from_secs(600);

    const PATIENT: Limits = Limits {
        handshake: NEVER,
        headers: NEVER,
        silence: Patience {
            opening: NEVER,
            between: NEVER,
        },
    };

    /// A listener with these limits, and what ends it.
    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        server: JoinHandle<()>,
    }

    impl Served {
        async fn with(
            limits: Limits,
            tls: Option<Arc<rustls::ServerConfig>>,
            within: Duration,
        ) -> Self {
            let length = async |Received(body): Received<64>| match body {
                Ok(body) => body.len().to_string(),
                Err(reason) => reason.code().to_owned(),
            };
            let routes = in_time(Router::new().route("/", put(length)), within);
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let mut listener = Listener::bind(address, tls, routes).await.expect("bound");
            listener.limits = limits;
            let address = listener.address().expect("an address");
            let stop = CancellationToken::new();
            let server = tokio::spawn(listener.serve(stop.clone()));
            Self {
                address,
                stop,
                server,
            }
        }

        /// Sends `opening`, then an octet at a time, and reads until the server ends it.
        async fn until_cut_off(&self, opening: &str, trickle: Option<Duration>) -> String {
            let stream = TcpStream::connect(self.address).await.expect("connects");
            let (mut from, mut to) = stream.into_split();
            to.write_all(opening.as_bytes()).await.expect("sent");
            let trickling = tokio::spawn(async move {
                // Keeps its half open, as a peer does that means to go on.
                while let Some(pause) = trickle {
                    tokio::time::sleep(pause).await;
                    if to.write_all(b"x").await.is_err() {
                        break;
                    }
                }
                to
            });
            let mut answer = Vec::new();
            let ended = timeout(DEADLINE, from.read_to_end(&mut answer)).await;
            trickling.abort();
            assert!(ended.is_ok(), "{opening:?} was never cut off");
            String::from_utf8_lossy(&answer).into_owned()
        }

        async fn end(self) {
            self.stop.cancel();
            self.server.await.expect("ends");
        }
    }

    #[tokio::test]
    async fn a_peer_whose_protocol_cannot_be_told_is_cut_off() {
        let mut limits = PATIENT;
        limits.silence.opening = SOON;
        let served = Served::with(limits, None, NEVER).await;
        for opening in ["", "PRI * HTTP/2.0\r\n"] {
            assert_eq!(served.until_cut_off(opening, None).await, "");
        }
        served.end().await;
    }

    #[tokio::test]
    async fn headers_that_stall_or_trickle_are_cut_off() {
        let limits = Limits {
            headers: SOON,
            ..PATIENT
        };
        let served = Served::with(limits, None, NEVER).await;
        let opening = "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nX-Never-Ends: ";
        for trickle in [None, Some(SOON / 10)] {
            let answer = served.until_cut_off(opening, trickle).await;
            assert!(!answer.contains("200"), "{trickle:?} {answer}");
        }
        served.end().await;
    }

    #[tokio::test]
    async fn a_body_that_stalls_or_trickles_is_answered_and_cut_off() {
        let served = Served::with(PATIENT, None, SOON).await;
        let opening = "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\nsome";
        // A whole body is answered within the same time.
        let whole = format!(
            "{}{}",
            opening.replacen("Host", "Connection: close\r\nHost", 1),
            "x".repeat(56)
        );
        let answer = served.until_cut_off(&whole, None).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n60"),
            "{answer}"
        );
        for trickle in [None, Some(SOON / 4)] {
            let answer = served.until_cut_off(opening, trickle).await;
            assert!(
                answer.starts_with("HTTP/1.1 503 ") && answer.contains("/problems/too-late"),
                "{trickle:?} {answer}"
            );
        }
        served.end().await;
    }

    #[tokio::test]
    async fn a_peer_that_asks_first_whether_to_send_its_body_is_told() {
        let served = Served::with(PATIENT, None, NEVER).await;
        let mut stream = TcpStream::connect(served.address).await.expect("connects");
        let head = "PUT / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                    Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        let told = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut answer = vec![0; told.len()];
        let read = timeout(DEADLINE, stream.read_exact(&mut answer)).await;
        read.expect("in time").expect("told");
        assert_eq!(answer, told);
        stream.write_all(b"body").await.expect("sent");
        let mut answer = String::new();
        let read = timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
        read.expect("in time").expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("4"),
            "{answer}"
        );
        served.end().await;
    }

    #[tokio::test]
    async fn a_tls_handshake_that_dawdles_is_cut_off() {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // No handshake gets far enough to need a certificate.
        let nothing = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(nothing);
        let limits = Limits {
            handshake: SOON,
            ..PATIENT
        };
        let served = Served::with(limits, Some(Arc::new(tls)), NEVER).await;
        // The first octets of a ClientHello.
        for opening in ["", "\u{16}\u{3}\u{1}"] {
            assert_eq!(served.until_cut_off(opening, None).await, "");
        }
        served.end().await;
    }
}
