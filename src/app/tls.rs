//! TLS of the listeners, and when the certificates end that this node works with.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::read;
use crate::config::Config;
use crate::flows::Context;
use crate::http::client_tls::PossessionOnly;
use crate::pki::{OwnedCertificate, TrustAnchors, read_certificates};
use crate::time::Timestamp;

/// The names of those who issue identities, as a TLS client is told whose certificates are wanted:
/// a Mac shows none of another issuer.
pub(super) fn identity_issuers(ctx: &Context) -> anyhow::Result<Vec<Vec<u8>>> {
    let own = ctx.authorities.device_ca.certificate()?;
    let adopted = ctx.settings.adopted_cas.iter();
    let adopted = adopted.flat_map(TrustAnchors::certificates);
    let name = |owned: &OwnedCertificate| owned.certificate().subject().as_der().to_vec();
    Ok([own].into_iter().chain(adopted).map(name).collect())
}

/// TLS of one listener; with `issuers`, clients are asked for certificates of theirs.
pub(super) fn server(
    certificate: Option<&Path>,
    key: Option<&Path>,
    issuers: Option<Vec<Vec<u8>>>,
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
    let verifier: Arc<dyn ClientCertVerifier> = match issuers {
        Some(issuers) => PossessionOnly::new(issuers, &provider),
        None => WebPkiClientVerifier::no_client_auth(),
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
    let end = |owned: &OwnedCertificate| owned.certificate().not_after();
    let held = &ctx.authorities;
    let mut ends = vec![
        ("device_ca", end(held.device_ca.certificate()?)),
        (
            "registration_authority",
            end(held.registration.certificate()?),
        ),
        ("profile_signer", end(held.profile_signer.certificate()?)),
    ];
    for (name, path) in [
        ("public_tls", &config.public.tls_certificate),
        ("internal_tls", &config.internal.tls_certificate),
    ] {
        let Some(path) = path else { continue };
        let chain = read_certificates(&read(path)?)
            .with_context(|| format!("{} holds no certificate", path.display()))?;
        ends.extend(chain.first().map(|leaf| (name, end(leaf))));
    }
    Ok(ends)
}
