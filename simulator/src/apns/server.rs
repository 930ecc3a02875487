//! The listening side: TLS with client certificates, HTTP/2, and the state behind it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::device::{Delivered, Device, Inbox};
use super::faults::{Fault, Faults};
use super::rules::{self, Rejection};
use super::{ApnsError, PushAuthority, topic_of};
use crate::certs::{Issuer, fingerprint};
use crate::clock::Clock;
use crate::{keys, tls};

/// How the double behaves from the start.
#[derive(Debug, Clone, Default)]
pub struct ApnsOptions {
    /// The loopback port; 0 takes a free one.
    pub port: u16,
    /// How often one token may be pushed; `None` for no limit. Apple publishes no number.
    pub budget: Option<PushBudget>,
}

/// At most `count` pushes per token within any `window_ms`; more is 429 TooManyRequests.
#[derive(Debug, Clone, Copy)]
pub struct PushBudget {
    pub count: usize,
    pub window_ms: i64,
}

/// One request as the double saw it.
#[derive(Debug, Clone)]
pub struct PushSeen {
    pub token: String,
    /// The push certificate it came with, as [`fingerprint`] names it.
    pub certificate: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What was answered; 0 when the connection was cut instead.
    pub status: u16,
    pub at_ms: i64,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    budget: Option<PushBudget>,
    devices: Mutex<HashMap<String, Arc<Device>>>,
    accepted: Mutex<HashMap<String, Vec<i64>>>,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<PushSeen>>,
    revoked: Mutex<Vec<Vec<u8>>>,
    refused: tls::Refused,
    connections: AtomicUsize,
    watchers: broadcast::Sender<PushSeen>,
}

/// The running double. Clones are the same service; it stops when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Apns {
    shared: Arc<Shared>,
    address: SocketAddr,
    root_pem: Arc<Vec<u8>>,
    _stop: Arc<DropGuard>,
}

impl Apns {
    /// Starts on 127.0.0.1 with a server certificate under `root`, accepting push certificates of
    /// `authority`.
    pub async fn start(
        root: &Issuer,
        authority: &PushAuthority,
        clock: Clock,
        options: ApnsOptions,
    ) -> Result<Self, ApnsError> {
        // TLS peers check certificates by the real time, whatever the simulated one is.
        let refused = tls::Refused::default();
        let server = root.loopback_server(Clock::system().now_ms())?;
        let config =
            tls::server_requiring(&server, &authority.identity().certificate, refused.clone())
                .map_err(ApnsError::Tls)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))
            .await
            .map_err(ApnsError::Listen)?;
        let address = listener.local_addr().map_err(ApnsError::Listen)?;
        let shared = Arc::new(Shared {
            clock,
            budget: options.budget,
            devices: Mutex::default(),
            accepted: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            revoked: Mutex::default(),
            refused,
            connections: AtomicUsize::new(0),
            watchers: broadcast::channel(1024).0,
        });
        let stop = CancellationToken::new();
        tokio::spawn(listen(
            listener,
            TlsAcceptor::from(config),
            shared.clone(),
            stop.clone(),
        ));
        let root_pem = Arc::new(root.certificate_pem()?);
        Ok(Self {
            shared,
            address,
            root_pem,
            _stop: Arc::new(stop.drop_guard()),
        })
    }

    /// `https://localhost:<port>`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root clients must trust, PEM.
    pub fn root_pem(&self) -> &[u8] {
        &self.root_pem
    }

    /// Gives a Mac's token life under a topic. A token known already starts anew.
    pub fn register(&self, token: &[u8], topic: &str) -> Inbox {
        let device = Arc::new(Device::new(topic, self.shared.clock.clone()));
        let former = lock(&self.shared.devices).insert(hex::encode(token), device.clone());
        if let Some(former) = former {
            former.end();
        }
        Inbox { device }
    }

    /// Ends a token: from now on 410 Unregistered with this moment as timestamp.
    pub fn unregister(&self, token: &[u8]) {
        let device = lock(&self.shared.devices).get(&hex::encode(token)).cloned();
        if let Some(device) = device {
            device.end();
        }
    }

    /// The next request, of any token, gets this fault; several wait in line.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.faults).for_all.push_back(fault);
    }

    /// The next request for this token gets this fault.
    pub fn inject_for(&self, token: &[u8], fault: Fault) {
        lock(&self.shared.faults)
            .for_token
            .entry(hex::encode(token))
            .or_default()
            .push_back(fault);
    }

    /// From now on every request gets this fault; `None` ends the outage.
    pub fn break_down(&self, fault: Option<Fault>) {
        lock(&self.shared.faults).standing = fault;
    }

    /// Every connection ends with GOAWAY after so many requests; `None` stops that.
    pub fn go_away_after(&self, requests: Option<usize>) {
        lock(&self.shared.faults).go_away_after = requests;
    }

    /// Every answer waits this long.
    pub fn add_latency(&self, latency: Duration) {
        lock(&self.shared.faults).latency = latency;
    }

    /// From now on this push certificate is answered 403 BadCertificate.
    pub fn revoke(&self, certificate: &X509) -> Result<(), ApnsError> {
        lock(&self.shared.revoked).push(certificate.to_der()?);
        Ok(())
    }

    /// From now on no connection is opened with this push certificate: the handshake ends with the
    /// alert certificate_revoked.
    pub fn refuse_in_handshake(&self, certificate: &X509) -> Result<(), ApnsError> {
        lock(&self.shared.refused).push(certificate.to_der()?);
        Ok(())
    }

    /// All requests with a well-formed token so far, oldest first.
    pub fn seen(&self) -> Vec<PushSeen> {
        lock(&self.shared.seen).clone()
    }

    /// Those seen since the last time this was asked, which are then forgotten: for runs that send
    /// more pushes than memory holds.
    pub fn take_seen(&self) -> Vec<PushSeen> {
        std::mem::take(&mut *lock(&self.shared.seen))
    }

    /// The requests for one token, oldest first.
    pub fn seen_for(&self, token: &[u8]) -> Vec<PushSeen> {
        let token = hex::encode(token);
        lock(&self.shared.seen)
            .iter()
            .filter(|push| push.token == token)
            .cloned()
            .collect()
    }

    /// The requests from now on. A reader that is slow misses the oldest.
    pub fn watch(&self) -> broadcast::Receiver<PushSeen> {
        self.shared.watchers.subscribe()
    }

    /// How many TLS connections were ever set up.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, shared, stop) = (acceptor.clone(), shared.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => (),
                        () = serve(stream, acceptor, shared) => (),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// One connection: who the client is, and signals from its requests.
#[derive(Debug)]
struct Connection {
    certificate: X509,
    fingerprint: String,
    topic: String,
    requests: AtomicUsize,
    cut: Notify,
    go_away: Notify,
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::info!(%error, "TLS handshake refused");
            return;
        }
    };
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .cloned();
    let Some(certificate) = leaf.and_then(|leaf| X509::from_der(&leaf).ok()) else {
        return;
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let topic = topic_of(&certificate);
    let Ok(fingerprint) = fingerprint(&certificate) else {
        return;
    };
    let connection = Arc::new(Connection {
        certificate,
        fingerprint,
        topic,
        requests: AtomicUsize::new(0),
        cut: Notify::new(),
        go_away: Notify::new(),
    });
    let service = {
        let connection = connection.clone();
        service_fn(move |request| answer(request, connection.clone(), shared.clone()))
    };
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(1000);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = connection.cut.notified() => return,
            () = connection.go_away.notified() => serving.as_mut().graceful_shutdown(),
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let id = match parts.headers.get("apns-id").and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => keys::random_uuid().unwrap_or_default(),
    };
    let (go_away, latency) = {
        let faults = lock(&shared.faults);
        (faults.go_away_after, faults.latency)
    };
    let served = connection.requests.fetch_add(1, Ordering::SeqCst) + 1;
    if go_away.is_some_and(|limit| served >= limit) {
        connection.go_away.notify_one();
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let outcome = match rules::token(&parts.method, parts.uri.path()) {
        Err(rejection) => Err(rejection),
        Ok(token) => {
            // A body beyond the cap is as large as any other too large one.
            let body = match Limited::new(body, 64 * 1024).collect().await {
                Ok(whole) => whole.to_bytes(),
                Err(_over_limit) => Bytes::from(vec![b' '; 64 * 1024]),
            };
            let due = lock(&shared.faults).next_for(&token);
            let outcome = match due {
                Some(Fault::DropConnection) => {
                    record(&shared, &connection, &token, (&parts.headers, &body), 0);
                    connection.cut.notify_one();
                    std::future::pending().await
                }
                Some(Fault::Answer(status, reason)) => {
                    let timestamp = (status == 410).then(|| shared.clock.now_ms());
                    Err(Rejection {
                        status,
                        reason,
                        timestamp,
                    })
                }
                None => accept(&token, &parts.headers, &body, &id, &connection, &shared),
            };
            let status = outcome
                .as_ref()
                .map_or_else(|rejection| rejection.status, |()| 200);
            record(
                &shared,
                &connection,
                &token,
                (&parts.headers, &body),
                status,
            );
            outcome
        }
    };
    Ok(response(outcome, &id))
}

fn record(
    shared: &Shared,
    connection: &Connection,
    token: &str,
    (headers, body): (&HeaderMap, &Bytes),
    status: u16,
) {
    let seen = PushSeen {
        token: token.to_owned(),
        certificate: connection.fingerprint.clone(),
        headers: headers.clone(),
        body: body.clone(),
        status,
        at_ms: shared.clock.now_ms(),
    };
    lock(&shared.seen).push(seen.clone());
    // Nobody watching is no failure.
    let _ = shared.watchers.send(seen);
}

/// Apple's decision about one well-addressed request.
fn accept(
    token: &str,
    headers: &HeaderMap,
    body: &[u8],
    id: &str,
    connection: &Connection,
    shared: &Shared,
) -> Result<(), Rejection> {
    if !certificate_is_good(connection, shared) {
        return Err(Rejection::new(403, "BadCertificate"));
    }
    let push = rules::push(headers, body, &connection.topic)?;
    let device = lock(&shared.devices).get(token).cloned();
    let device = device.ok_or(Rejection::new(400, "BadDeviceToken"))?;
    if device.topic != connection.topic {
        return Err(Rejection::new(400, "DeviceTokenNotForTopic"));
    }
    if let Some(since) = device.dead_since() {
        return Err(Rejection {
            timestamp: Some(since),
            ..Rejection::new(410, "Unregistered")
        });
    }
    if let Some(budget) = shared.budget {
        let now = shared.clock.now_ms();
        let mut accepted = lock(&shared.accepted);
        let times = accepted.entry(token.to_owned()).or_default();
        times.retain(|at| *at > now - budget.window_ms);
        if times.len() >= budget.count {
            return Err(Rejection::new(429, "TooManyRequests"));
        }
        times.push(now);
    }
    device.push(
        Delivered {
            magic: push.magic,
            apns_id: id.to_owned(),
        },
        push.expiration,
    );
    Ok(())
}

/// Neither revoked nor outside its validity by the simulated clock.
fn certificate_is_good(connection: &Connection, shared: &Shared) -> bool {
    let Ok(der) = connection.certificate.to_der() else {
        return false;
    };
    if lock(&shared.revoked).contains(&der) {
        return false;
    }
    let Ok(now) = Asn1Time::from_unix(shared.clock.now_seconds()) else {
        return false;
    };
    connection.certificate.not_before() <= &*now && &*now <= connection.certificate.not_after()
}

fn response(outcome: Result<(), Rejection>, id: &str) -> Response<Full<Bytes>> {
    let (status, body) = match &outcome {
        Ok(()) => (200, String::new()),
        Err(rejection) => (rejection.status, rejection.body()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    if let Ok(id) = id.parse() {
        response.headers_mut().insert("apns-id", id);
    }
    response
}
