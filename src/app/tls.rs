//! TLS of the listeners, and when the certificates end that this node works with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::read;
use crate::config::Config;
use crate::flows::Context;
use crate::flows::authorities::Held;
use crate::http::client_tls::PossessionOnly;
use crate::pki::{OwnedCertificate, TrustAnchors, read_certificates};
use crate::time::Timestamp;

/// The names of those who issue identities, as a TLS client is told whose certificates are wanted:
/// a Mac shows none of another issuer.
pub(super) fn identity_issuers(ctx: &Context) -> Vec<Vec<u8>> {
    let own = ctx.authorities.device_cas().map(Held::certificate);
    let adopted = ctx.settings.adopted_cas.iter();
    let adopted = adopted.flat_map(TrustAnchors::certificates);
    let adopted = adopted.map(OwnedCertificate::certificate);
    own.chain(adopted)
        .map(|one| one.subject().as_der().to_vec())
        .collect()
}

/// Whether clients are asked for certificates.
pub(super) enum Clients {
    Unasked,
    /// By issuers of these names; whose they are is for others to say.
    Possession(Vec<Vec<u8>>),
    /// Whoever shows one must have a chain to one of these, valid now, and for clients.
    Chained(RootCertStore),
}

/// Clients of the internal listener that have certificates of these authorities.
pub(super) fn clients(roots: &[PathBuf]) -> anyhow::Result<Clients> {
    if roots.is_empty() {
        return Ok(Clients::Unasked);
    }
    let mut store = RootCertStore::empty();
    for path in roots {
        let what = || format!("internal.client_roots: {} cannot be used", path.display());
        let found = read_certificates(&read(path)?).with_context(what)?;
        for root in found {
            let der = CertificateDer::from(root.as_der().to_vec());
            store.add(der).with_context(what)?;
        }
    }
    Ok(Clients::Chained(store))
}

/// TLS of one listener.
pub(super) fn server(
    certificate: Option<&Path>,
    key: Option<&Path>,
    clients: Clients,
) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("{} cannot be read", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} cannot be read", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        Clients::Unasked => WebPkiClientVerifier::no_client_auth(),
        Clients::Possession(issuers) => PossessionOnly::new(issuers, &provider),
        // Who shows none has a token.
        Clients::Chained(roots) => {
            let provider = Arc::clone(&provider);
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .context("internal.client_roots cannot be used")?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .context("TLS certificate and key do not fit together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// The certificates of this node, each with its end.
pub(super) fn ends(
    ctx: &Context,
    config: &Config,
) -> anyhow::Result<Vec<(&'static str, Timestamp)>> {
    let newest = ctx.authorities.newest().into_iter();
    let mut ends: Vec<_> = newest
        .map(|(name, held)| (name, held.certificate().not_after()))
        .collect();
    for (name, path) in [
        ("public_tls", &config.public.tls_certificate),
        ("internal_tls", &config.internal.tls_certificate),
    ] {
        let Some(path) = path else { continue };
        let chain = read_certificates(&read(path)?)
            .with_context(|| format!("{} holds no certificate", path.display()))?;
        let leaf = chain.first().map(OwnedCertificate::certificate);
        ends.extend(leaf.map(|leaf| (name, leaf.not_after())));
    }
    Ok(ends)
}

/// What a Mac would say of the certificate of the public listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub not_after: Timestamp,
    /// For so many days it was made.
    pub days: u64,
    /// Macs are told in their profile to trust its root.
    pub private_root: bool,
}

/// Why it would not connect.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0:#}")]
    Unusable(anyhow::Error),
    #[error("{0}")]
    ByTls(rustls::Error),
}

/// Judges the certificate of the public listener as a Mac does (apple-protocol 11): it fits its key, and by its
/// chain, its dates, its names, its key and its signatures a client would connect to the base URL. `None`
/// where TLS ends elsewhere.
///
/// # Errors
/// What is wrong with it.
pub fn as_a_mac_sees_it(config: &Config, now: Timestamp) -> Result<Option<Shown>, Refused> {
    let public = &config.public;
    let (certificate, key) = (public.tls_certificate.as_deref(), public.tls_key.as_deref());
    if server(certificate, key, Clients::Unasked)
        .map_err(Refused::Unusable)?
        .is_none()
    {
        return Ok(None);
    }
    let Some(path) = certificate else {
        return Ok(None);
    };
    judge(config, path, now)
}

fn judge(config: &Config, path: &Path, now: Timestamp) -> Result<Option<Shown>, Refused> {
    let unusable = Refused::Unusable;
    let file = |path: &Path| -> anyhow::Result<Vec<OwnedCertificate>> {
        read_certificates(&read(path)?)
            .with_context(|| format!("{} holds no certificate", path.display()))
    };
    let chain = file(path).map_err(unusable)?;
    let mut roots = RootCertStore::empty();
    match &config.public.tls_root {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(root) => {
            for one in file(root).map_err(unusable)? {
                let der = CertificateDer::from(one.as_der()).into_owned();
                roots.add(der).map_err(Refused::ByTls)?;
            }
        }
    }
    let ders: Vec<_> = chain
        .iter()
        .map(|one| CertificateDer::from(one.as_der()))
        .collect();
    let (Some(leaf), Some((der, above))) = (chain.first(), ders.split_first()) else {
        return Err(unusable(anyhow::anyhow!("{} is empty", path.display())));
    };
    let uri: http::Uri = config
        .base_url
        .parse()
        .context("base_url")
        .map_err(unusable)?;
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host)
        .context("base_url")
        .map_err(unusable)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .context("the roots")
        .map_err(unusable)?;
    let at = Duration::from_millis(u64::try_from(now.millis()).unwrap_or_default());
    verifier
        .verify_server_cert(der, above, &name, &[], UnixTime::since_unix_epoch(at))
        .map_err(Refused::ByTls)?;
    let leaf = leaf.certificate();
    let lasts = leaf.not_after().since(leaf.not_before());
    Ok(Some(Shown {
        not_after: leaf.not_after(),
        days: lasts.as_secs() / (24 * 60 * 60),
        private_root: config.public.tls_root.is_some(),
    }))
}
