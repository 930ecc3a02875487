//! One listener: accept, TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! The accept loop is our own so that every connection has deadlines from its first byte: a TLS
//! handshake that dawdles, a peer that says nothing or too little to tell its protocol, request
//! headers that trickle and connections that idle are all cut off. An HTTP/2 peer that answers PING
//! is not silent; it is asked to connect anew once in a while. No address has more than its share.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::client_tls::{KnownClient, TlsCertificate};
use super::idle::{Idle, Patience};
use super::limit::network;
use super::proxies::Proxies;
use super::streams::{Place, Streams};

/// How long a peer may take for what.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The TLS handshake.
    handshake: Duration,
    /// Request headers, however they trickle.
    headers: Duration,
    silence: Patience,
    /// A connection; what is under way on it then may end.
    age: Duration,
}

const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    headers: Duration::from_secs(15),
    // Long polls keep a client silent for up to 90 s (`verifications::MAX_WAIT` and the deadline).
    silence: Patience {
        opening: Duration::from_secs(15),
        between: SILENCE,
    },
    age: Duration::from_secs(60 * 60),
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
/// Octets of a request's line and headers together. The largest that is honest is a client certificate
/// that a proxy passes on, percent-encoded.
const HEAD: u32 = 64 * 1024;

/// A bound socket and what answers on it.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    routes: Router,
    limits: Limits,
    share: Option<Share>,
    knows_clients: bool,
}

/// How many of the connections one address may have.
#[derive(Debug)]
struct Share {
    open: Arc<Streams<IpAddr>>,
    /// Everybody's connections come from them.
    proxies: Arc<Proxies>,
}

impl Share {
    /// `Err`: this address has as many as it may. Networks of IPv6 count as in [`network`].
    fn enter(&self, peer: IpAddr) -> Result<Place<IpAddr>, ()> {
        let client = (!self.proxies.may_be_at(peer)).then(|| network(peer));
        self.open.enter(client).map_err(drop)
    }
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
            share: None,
            knows_clients: false,
        })
    }

    /// Lets one address have so many connections at a time, unless a proxy is there.
    #[must_use]
    pub fn with_share(mut self, of_one: usize, proxies: Arc<Proxies>) -> Self {
        let open = Arc::new(Streams::new(CONNECTIONS, of_one));
        self.share = Some(Share { open, proxies });
        self
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
        let connections = TaskTracker::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut server = Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers)
            .max_buf_size(HEAD as usize)
            .keep_alive(true);
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_header_list_size(HEAD)
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
            let share = match self.share.as_ref().map(|share| share.enter(peer.ip())) {
                None => None,
                Some(Ok(share)) => Some(share),
                Some(Err(())) => {
                    tracing::debug!(%peer, "an address has as many connections as it may");
                    continue;
                }
            };
            let connection = Connection {
                server: Arc::clone(&server),
                tls: self.tls.clone().map(TlsAcceptor::from),
                routes: self.routes.clone(),
                peer,
                limits: self.limits,
                stop: stop.clone(),
                knows_clients: self.knows_clients,
            };
            connections.spawn(async move {
                connection.serve(stream).await;
                drop((place, share));
            });
        }
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
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
    let (stream, mut peer) = socket.accept().await?;
    // A socket for both families calls 192.0.2.1 ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2): one network
    // of IPv6 for all of IPv4.
    peer.set_ip(peer.ip().to_canonical());
    Ok((stream, peer, place))
}

struct Connection {
    server: Arc<Builder<TokioExecutor>>,
    tls: Option<TlsAcceptor>,
    routes: Router,
    peer: SocketAddr,
    limits: Limits,
    stop: CancellationToken,
    knows_clients: bool,
}

/// What the client of a connection showed.
#[derive(Debug, Clone, Default)]
struct Client {
    certificate: Option<TlsCertificate>,
    known: Option<KnownClient>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // Replies are small and awaited: no reason to hold them back.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.speak(stream, Client::default()).await,
            Some(tls) => {
                let shaken = tokio::select! {
                    () = self.stop.cancelled() => return,
                    shaken = timeout(self.limits.handshake, tls.accept(stream)) => shaken,
                };
                match shaken {
                    Ok(Ok(stream)) => {
                        let tls = stream.get_ref().1;
                        let known = self.knows_clients.then(|| KnownClient::of(tls)).flatten();
                        let client = Client {
                            certificate: TlsCertificate::of(tls),
                            known,
                        };
                        self.speak(stream, client).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                    Err(_) => tracing::debug!("TLS handshake took too long"),
                }
            }
        }
    }

    async fn speak<S>(&self, stream: S, client: Client)
    where
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
        let mut connection = pin!(self.server.serve_connection(io, service));
        let over = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(self.limits.age) => {}
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
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
        age: NEVER,
    };

    fn routes() -> Router {
        let length = async |Received(body): Received<64>| match body {
            Ok(body) => body.len().to_string(),
            Err(reason) => reason.code().to_owned(),
        };
        let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string();
        Router::new().route("/", put(length).get(peer))
    }

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
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let routes = in_time(routes(), within);
            let mut listener = Listener::bind(address, tls, routes).await.expect("bound");
            listener.limits = limits;
            Self::by(listener)
        }

        fn by(listener: Listener) -> Self {
            let address = listener.address().expect("an address");
            let stop = CancellationToken::new();
            let server = tokio::spawn(listener.serve(stop.clone()));
            Self {
                address,
                stop,
                server,
            }
        }

        /// Asks from this address which address it has; `None`: it was turned away.
        async fn asks(&self, from: &str) -> Option<String> {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            let from = SocketAddr::new(from.parse().expect("an address"), 0);
            socket.bind(from).expect("bound");
            let to = SocketAddr::from(([127, 0, 0, 1], self.address.port()));
            let mut stream = socket.connect(to).await.expect("connects");
            // Who is turned away may notice while it writes, or while it reads.
            stream.write_all(GET.as_bytes()).await.ok()?;
            let mut answer = String::new();
            let read = timeout(DEADLINE, stream.read_to_string(&mut answer));
            read.await.expect("in time").ok()?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            Some(body.to_owned())
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

    const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let served = Served::with(PATIENT, None, NEVER).await;
        let padded =
            |octets| GET.replacen("Host", &format!("X: {}\r\nHost", "x".repeat(octets)), 1);
        let answer = served.until_cut_off(&padded(40_000), None).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let answer = served.until_cut_off(&padded(80_000), None).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        served.end().await;
    }

    #[tokio::test]
    async fn a_connection_of_age_ends_when_nothing_is_under_way_on_it() {
        let limits = Limits {
            age: SOON,
            ..PATIENT
        };
        let served = Served::with(limits, None, NEVER).await;
        let lasting = GET.replacen("Connection: close\r\n", "", 1);
        let answer = served.until_cut_off(&lasting, None).await;
        assert!(answer.ends_with("127.0.0.1"), "{answer}");
        served.end().await;
    }

    #[tokio::test]
    async fn an_address_has_a_share_of_the_connections_and_proxies_have_all() {
        for (behind_proxy, answered) in [(false, false), (true, true)] {
            let proxies = Arc::new(Proxies {
                behind_proxy,
                ..Proxies::default()
            });
            let address = SocketAddr::from(([127, 0, 0, 1], 0));
            let listener = Listener::bind(address, None, routes()).await;
            let served = Served::by(listener.expect("bound").with_share(2, proxies));
            let mut held = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(served.address).await.expect("connects");
                stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
                held.push(stream);
            }
            // The third of the address is turned away before a word is read of it; another address's is not.
            let third = served.asks("127.0.0.1").await;
            assert_eq!(third.is_some(), answered, "{third:?}");
            assert_eq!(served.asks("127.0.0.2").await.as_deref(), Some("127.0.0.2"));
            // Whoever leaves makes room.
            drop(held);
            while served.asks("127.0.0.1").await.is_none() {
                tokio::task::yield_now().await;
            }
            served.end().await;
        }
    }

    #[tokio::test]
    async fn on_a_socket_of_both_families_a_client_of_ipv4_has_its_own_address() {
        let address = SocketAddr::from(([0_u16; 8], 0));
        let listener = Listener::bind(address, None, routes())
            .await
            .expect("bound");
        let served = Served::by(listener);
        assert_eq!(served.asks("127.0.0.2").await.as_deref(), Some("127.0.0.2"));
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
