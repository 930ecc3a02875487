//! Messages that leave to addresses somebody else chose: a webhook's, a receiver's.
//!
//! Whoever may choose an address must not thereby reach what only this machine reaches. So a name is
//! looked up here, every address it leads to is judged, and the connection is made to one of exactly
//! these: what the name leads to a moment later does not count. Nothing is followed that an answer
//! points to, no proxy of the environment is asked, an answer is read up to a small size, and all of it
//! has one deadline.

mod target;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

pub use self::target::{Target, UnusableTarget};
use crate::network::is_public;
use crate::pki::read_certificates;

/// From the look-up of the name to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long one address may take, where a name leads to several.
const ADDRESS: Duration = Duration::from_secs(4);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// Most of an answer that is read.
const ANSWER: usize = 4 * 1024;
/// Most of the head of an answer that is read.
const HEAD: usize = 16 * 1024;

/// The way out. One per process.
#[derive(Debug)]
pub struct Outbound {
    names: Arc<dyn Names>,
    public_roots: Arc<ClientConfig>,
    deadline: Duration,
}

/// What names lead to.
trait Names: fmt::Debug + Send + Sync {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The resolver of the operating system.
#[derive(Debug)]
struct System;

impl Names for System {
    fn look_up<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Why a message was not answered. What it was about is not to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the name leads to no address")]
    Unresolved,
    #[error("the name leads to an address that is not of the public Internet")]
    NotPublic,
    #[error("no connection could be made")]
    Unreachable,
    #[error("its certificate does not lead to a root that is trusted, or is another's")]
    Untrusted,
    #[error("it did not answer in time")]
    TimedOut,
    #[error("the connection ended, or what it answered is no HTTP")]
    Disconnected,
    #[error("it answers more than is read")]
    TooLarge,
}

impl Fault {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::NotPublic => "address_not_public",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::TimedOut => "timed_out",
            Self::Disconnected => "disconnected",
            Self::TooLarge => "too_large",
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first of it; empty when it did not come in time, or was too long.
    pub body: Bytes,
}

/// What may be reached, and whom we trust to be there.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Also addresses that are not of the public Internet.
    pub allow_private: bool,
    /// Roots instead of the public ones, PEM. Never both: whoever names a private root does not
    /// mean the whole web.
    pub root: Option<Vec<u8>>,
}

/// Roots that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UnusableRoot {
    #[error("the file holds no certificate that can be a root")]
    Malformed,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// A way to one target. It keeps its connection for the next message.
#[derive(Debug)]
pub struct Line {
    names: Arc<dyn Names>,
    target: Target,
    allow_private: bool,
    tls: Arc<ClientConfig>,
    deadline: Duration,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Outbound {
    /// The way out, by the system's resolver.
    ///
    /// # Errors
    /// TLS that cannot be set up.
    pub fn new() -> Result<Self, UnusableRoot> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Ok(Self {
            names: Arc::new(System),
            public_roots: client(roots)?,
            deadline: DEADLINE,
        })
    }

    /// A way to a target; nothing is asked yet.
    ///
    /// # Errors
    /// [`UnusableRoot`].
    pub fn line(&self, target: Target, reach: &Reach) -> Result<Line, UnusableRoot> {
        let tls = match &reach.root {
            None => Arc::clone(&self.public_roots),
            Some(pem) => client(roots(pem)?)?,
        };
        Ok(Line {
            names: Arc::clone(&self.names),
            target,
            allow_private: reach.allow_private,
            tls,
            deadline: self.deadline,
            open: None,
        })
    }
}

/// Whether these can be roots.
///
/// # Errors
/// [`UnusableRoot`].
pub fn check_root(pem: &[u8]) -> Result<(), UnusableRoot> {
    roots(pem).map(drop)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, UnusableRoot> {
    let mut store = RootCertStore::empty();
    for root in read_certificates(pem).map_err(|_| UnusableRoot::Malformed)? {
        store
            .add(CertificateDer::from(root.as_der()).into_owned())
            .map_err(|_| UnusableRoot::Malformed)?;
    }
    if store.is_empty() {
        return Err(UnusableRoot::Malformed);
    }
    Ok(store)
}

fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>, UnusableRoot> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Line {
    /// Posts a message and reads the answer, whatever its status. After a fault nobody knows whether it
    /// arrived.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn post(&mut self, headers: &HeaderMap, body: &Bytes) -> Result<Answer, Fault> {
        let until = Instant::now() + self.deadline;
        if let Some(sender) = self.open.take().filter(|sender| !sender.is_closed()) {
            // A connection that was kept may have been closed just now: then there is another try.
            match self.send(sender, headers, body, until).await {
                Err(Fault::Disconnected) => {}
                answered => return answered,
            }
        }
        let sender = timeout_at(until, self.dial())
            .await
            .map_err(|_| Fault::TimedOut)??;
        self.send(sender, headers, body, until).await
    }

    /// Gets what is there, up to `most` bytes, within `deadline`, on a connection of its own.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn get(&self, most: usize, deadline: Duration) -> Result<Answer, Fault> {
        let got = async {
            let mut sender = self.dial().await?;
            let request = self.request(Method::GET, HeaderMap::new(), Bytes::new());
            let response = sender.send_request(request).await;
            let response = response.map_err(|_| Fault::Disconnected)?;
            let status = response.status().as_u16();
            let (head, body) = response.into_parts();
            let body = Limited::new(body, most).collect().await;
            let body = body.map_err(|fault| match fault.is::<LengthLimitError>() {
                true => Fault::TooLarge,
                false => Fault::Disconnected,
            })?;
            Ok(Answer {
                status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        let timed = tokio::time::timeout(deadline, got).await;
        timed.map_err(|_| Fault::TimedOut)?
    }

    fn request(&self, method: Method, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.target.path().clone().into();
        *request.headers_mut() = headers;
        let host = self.target.authority().as_str();
        if let Ok(host) = host.parse() {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Fault> {
        let addresses = self.addresses().await?;
        let tcp = connect(&addresses).await?;
        // Messages are small and awaited.
        let _ = tcp.set_nodelay(true);
        if !self.target.is_tls() {
            return speak(tcp).await;
        }
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(self.target.host().clone(), tcp)
            .await
            .map_err(|error| {
                let inner = error.get_ref();
                match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(_) => Fault::Untrusted,
                    None => Fault::Disconnected,
                }
            })?;
        speak(tls).await
    }

    /// What the name leads to now, if all of that may be reached.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        let (host, port) = self.target.address();
        let mut addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self
                .names
                .look_up(&host, port)
                .await
                .map_err(|_| Fault::Unresolved)?,
        };
        if addresses.is_empty() {
            return Err(Fault::Unresolved);
        }
        // One is enough to refuse: a name of two minds would get there by being asked often.
        if !self.allow_private && !addresses.iter().all(|address| is_public(address.ip())) {
            return Err(Fault::NotPublic);
        }
        addresses.truncate(ADDRESSES);
        Ok(addresses)
    }

    async fn send(
        &mut self,
        mut sender: SendRequest<Full<Bytes>>,
        headers: &HeaderMap,
        body: &Bytes,
        until: Instant,
    ) -> Result<Answer, Fault> {
        let request = self.request(Method::POST, headers.clone(), body.clone());
        let response = timeout_at(until, sender.send_request(request))
            .await
            .map_err(|_| Fault::TimedOut)?
            .map_err(|_| Fault::Disconnected)?;
        let status = response.status().as_u16();
        let (head, body) = response.into_parts();
        let read = Limited::new(body, ANSWER).collect();
        let body = match timeout_at(until, read).await {
            Ok(Ok(body)) => {
                self.open = Some(sender);
                body.to_bytes()
            }
            // The status was the answer; the connection is given up with the rest.
            _ => Bytes::new(),
        };
        Ok(Answer {
            status,
            headers: head.headers,
            body,
        })
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Fault> {
    for address in addresses {
        if let Ok(Ok(tcp)) = tokio::time::timeout(ADDRESS, TcpStream::connect(address)).await {
            return Ok(tcp);
        }
    }
    Err(Fault::Unreachable)
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Fault::Disconnected)?;
    // Ends when the sender is dropped, or the peer goes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an outbound connection ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests;
