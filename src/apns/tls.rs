//! TLS towards APNs: whom we trust, who we are, and what the other side said against it.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::{AlertDescription, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ApnsError;
use crate::ids::{CertificateHash, Topic};
use crate::pki::read_certificates;
use crate::push::AcceptedPushCertificate;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The roots a server's certificate must lead to.
#[derive(Debug, Clone)]
pub(super) struct Roots(Arc<RootCertStore>);

/// One generation of a topic's certificate, ready for TLS.
#[derive(Debug)]
pub(super) struct Credentials {
    pub topic: Topic,
    pub generation: u64,
    pub certificate: CertificateHash,
    pub not_after: Timestamp,
    pub config: Arc<ClientConfig>,
}

impl Roots {
    /// The public roots, or in their place those in `pem`. Never both: whoever points the client at a
    /// double must not thereby trust the whole web for it, nor the double for Apple.
    pub(super) fn new(pem: Option<&[u8]>) -> Result<Self, ApnsError> {
        let mut store = RootCertStore::empty();
        match pem {
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for root in read_certificates(pem).map_err(|_| ApnsError::ExtraRoots)? {
                    store
                        .add(CertificateDer::from(root.as_der()).into_owned())
                        .map_err(|_| ApnsError::ExtraRoots)?;
                }
            }
        }
        Ok(Self(Arc::new(store)))
    }

    /// As TLS takes them.
    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl Credentials {
    /// # Errors
    /// [`ApnsError::Unusable`].
    pub(super) fn new(
        certificate: &AcceptedPushCertificate,
        key: &Secret<Vec<u8>>,
        generation: u64,
        roots: &Roots,
    ) -> Result<Self, ApnsError> {
        let accepted = certificate.certificate();
        let chain = accepted
            .chain()
            .iter()
            .map(|certificate| CertificateDer::from(certificate.as_der()).into_owned())
            .collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose().clone()));
        let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(ApnsError::Unusable)?
            .with_root_certificates(Arc::clone(&roots.0))
            .with_client_auth_cert(chain, key)
            .map_err(ApnsError::Unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            topic: accepted.topic().clone(),
            generation,
            certificate: accepted.hash(),
            not_after: accepted.not_after(),
            config: Arc::new(config),
        })
    }
}

/// What TLS said when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsVerdict {
    /// The server refused our certificate.
    OursRefused,
    /// We refused the server's.
    TheirsRefused,
}

impl TlsVerdict {
    /// What an I/O error of a TLS stream says, if it is one of these two.
    pub(super) fn of(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(_) => Some(Self::TheirsRefused),
            // RFC 8446 section 6.2. With TLS 1.3 they come after the handshake looks complete;
            // handshake_failure is TLS 1.2's way to say it.
            rustls::Error::AlertReceived(
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::CertificateRequired
                | AlertDescription::DecryptError
                | AlertDescription::HandshakeFailure,
            ) => Some(Self::OursRefused),
            _ => None,
        }
    }
}

/// A TLS stream that remembers why it failed: HTTP/2 above it keeps only the text of an error.
///
/// With TLS 1.3 a server refuses our certificate after we began to write, and may close before we
/// read; then writing fails first, while the alert that says why lies unread. So a write that finds
/// the connection closed reads what is left before it tells.
#[derive(Debug)]
pub(super) struct Remembering<S> {
    stream: S,
    verdict: Arc<OnceLock<TlsVerdict>>,
    /// The error of a write, while what is left is read.
    broken: Option<io::Error>,
}

/// More than a TLS record; an alert is the last thing a server sends, and small.
const LEFT_AT_MOST: usize = 64 * 1024;

impl<S> Remembering<S> {
    pub(super) fn new(stream: S, verdict: Arc<OnceLock<TlsVerdict>>) -> Self {
        Self {
            stream,
            verdict,
            broken: None,
        }
    }

    fn remember(&self, error: &io::Error) {
        if let Some(verdict) = TlsVerdict::of(error) {
            self.verdict.get_or_init(|| verdict);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Remembering<S> {
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.broken.is_none() {
            match write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Err(error)) => {
                    self.remember(&error);
                    if !is_closed(&error) {
                        return Poll::Ready(Err(error));
                    }
                    self.broken = Some(error);
                }
                polled => return polled,
            }
        }
        ready!(self.read_what_is_left(cx));
        let error = self.broken.take();
        Poll::Ready(Err(error.unwrap_or(ErrorKind::BrokenPipe.into())))
    }

    /// The socket is closed, so this ends: with the alert, the end of the stream, or a reset.
    fn read_what_is_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 1024];
        for _ in 0..LEFT_AT_MOST / scratch.len() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) => break,
                Err(error) => {
                    self.remember(&error);
                    break;
                }
            }
        }
        Poll::Ready(())
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Remembering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let Err(error) = &read {
            self.remember(error);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Remembering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
