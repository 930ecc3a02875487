//! Whether APNs can be reached from here, asked without a certificate of ours: nothing is pushed.

use std::io;
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tls::{Roots, TlsVerdict};
use super::{ApnsError, ApnsSettings};

/// Why it cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    #[error(transparent)]
    Settings(#[from] ApnsError),
    #[error("no connection to {host}, port {port}")]
    Connection {
        host: String,
        port: u16,
        #[source]
        cause: io::Error,
    },
    #[error("{host}, port {port}, did not answer in time")]
    Silent { host: String, port: u16 },
    #[error("who answers is not APNs: its certificate is not trusted")]
    Untrusted(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("who answers does not speak HTTP/2")]
    NoHttp2,
}

impl Unreached {
    /// What is to be done.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Settings(_) => "see that apns.root holds the root of this endpoint",
            Self::Connection { .. } | Self::Silent { .. } => {
                "let this machine look the name up and connect to it: api.push.apple.com, port 443, for Apple's \
                 own (17.0.0.0/8)"
            }
            Self::Untrusted(_) | Self::Tls(_) | Self::NoHttp2 => {
                "take whatever opens TLS out of the way to APNs; apns.url and apns.root are for simulated worlds"
            }
        }
    }
}

/// Opens a connection, as far as TLS and the choice of HTTP/2, and closes it.
///
/// # Errors
/// What stands in the way.
pub async fn reach(settings: &ApnsSettings) -> Result<(), Unreached> {
    let (host, port) = settings.endpoint.address();
    let silent = Unreached::Silent {
        host: host.clone(),
        port,
    };
    timeout(settings.connect_deadline, dial(settings, host, port))
        .await
        .unwrap_or(Err(silent))
}

async fn dial(settings: &ApnsSettings, host: String, port: u16) -> Result<(), Unreached> {
    let roots = Roots::new(settings.extra_roots.as_deref())?;
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(ApnsError::Unusable)?
        .with_root_certificates(roots.store())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|cause| Unreached::Connection { host, port, cause })?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = settings.endpoint.host().clone();
    match connector.connect(name, tcp).await {
        Ok(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()) => Ok(()),
        Ok(_) => Err(Unreached::NoHttp2),
        Err(error) => match TlsVerdict::of(&error) {
            // It wants a certificate, and whoever says so was reached: with TLS 1.2 it says so now.
            Some(TlsVerdict::OursRefused) => Ok(()),
            Some(TlsVerdict::TheirsRefused) => Err(Unreached::Untrusted(error)),
            None => Err(Unreached::Tls(error)),
        },
    }
}
