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

use super::client_tls::TlsCertificate;
use super::idle::{Idle, Patience};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time in which request headers must be complete.
const HEADERS: Duration = Duration::from_secs(15);
/// Long polls keep a client silent for up to 90 s (`verifications::MAX_WAIT` and the deadline).
const PATIENCE: Patience = Patience {
    opening: Duration::from_secs(15),
    between: Duration::from_secs(120),
};
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
    patience: Patience,
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
            patience: PATIENCE,
        })
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
            .header_read_timeout(HEADERS)
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
                patience: self.patience,
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
    patience: Patience,
}

impl Connection {
    async fn serve(self, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
        // Replies are small and awaited: no reason to hold them back.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.speak(stream, None, watcher).await,
            Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let shown = TlsCertificate::of(stream.get_ref().1);
                    self.speak(stream, shown, watcher).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            },
        }
    }

    async fn speak<S>(
        &self,
        stream: S,
        shown: Option<TlsCertificate>,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(Idle::new(stream, self.patience));
        let peer = self.peer;
        let routes = self.routes.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut routes = routes.clone();
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(shown) = shown {
                request.extensions_mut().insert(shown);
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_peer_whose_protocol_cannot_be_told_is_cut_off() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = Listener::bind(address, None, Router::new())
            .await
            .expect("bound");
        // Everything else that could end a connection takes longer than this test.
        listener.patience.opening = Duration::from_millis(100);
        let address = listener.address().expect("an address");
        let stop = CancellationToken::new();
        let server = tokio::spawn(listener.serve(stop.clone()));
        for opening in ["", "PRI * HTTP/2.0\r\n"] {
            let mut peer = TcpStream::connect(address).await.expect("connects");
            peer.write_all(opening.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            let ended = timeout(HEADERS / 2, peer.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "{opening:?}");
        }
        stop.cancel();
        server.await.expect("ends");
    }
}
