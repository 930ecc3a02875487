//! Why a configuration is not used.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::time::Span;

/// Why a configuration is not used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{path} cannot be read: {cause}")]
    Unreadable {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("the configuration is not well formed: {0}")]
    Malformed(Box<toml::de::Error>),
    #[error("base_url must be https://host[:port] without path, query or user, but is {0:?}")]
    BaseUrl(String),
    #[error(
        "base_url {0:?} is not https; plain http is only for trying things out on this machine: give --insecure-http and a loopback address"
    )]
    InsecureBaseUrl(String),
    #[error("{0}: tls_certificate and tls_key belong together; one of them is missing")]
    HalfTls(&'static str),
    #[error(
        "the public listener has no tls_certificate; set one, or behind_proxy = true when a reverse proxy ends TLS in front of it"
    )]
    NoTls,
    #[error(
        "the internal listener {0} is reachable from outside but has no tls_certificate; set one, or listen on loopback"
    )]
    InternalInClear(SocketAddr),
    #[error("public and internal must be two listeners, but both are {0}")]
    SameListener(SocketAddr),
    #[error(
        "public.client_certificate_header is believed of nobody: name the proxies in public.trusted_proxies"
    )]
    HeaderOfNobody,
    #[error(
        "public.client_certificate_header must be the name of a header of its own, but is {0:?}"
    )]
    HeaderName(String),
    #[error(
        "public.client_certificates asks in the TLS of this server: set public.tls_certificate and tls_key too"
    )]
    CertificatesWithoutTls,
    #[error(
        "internal.clients are known by TLS in this server: set internal.tls_certificate and tls_key too"
    )]
    ClientsWithoutTls,
    #[error("internal.clients: {0}")]
    Clients(String),
    #[error("internal.oidc: {0}")]
    Oidc(String),
    #[error(
        "shared_signals.url must be https://host[:port] without path, as receivers reach the internal listener, but is {0:?}"
    )]
    SignalsUrl(String),
    #[error("shared_signals.tenant is told to nobody: set shared_signals.url too")]
    TenantOfNobody,
    #[error(
        "shared_signals.tenant must be 1 to 100 printable characters without spaces, but is {0:?}"
    )]
    Tenant(String),
    #[error("{0} must be longer than nothing")]
    Zero(&'static str),
    #[error("{name} must be at least {least}, but is {is}")]
    TooShort {
        name: &'static str,
        is: Span,
        least: Span,
    },
    #[error("{name} must be at most {most}, but is {is}: {why}")]
    TooMany {
        name: &'static str,
        is: u32,
        most: u32,
        why: &'static str,
    },
    #[error("micromdm.webhook is not used: {why}")]
    MicroMdmWebhook { why: String },
    #[error(
        "attestation.nonce_scheme = \"beacon-v2\" makes nonces from the transparency log: leave transparency.enabled true"
    )]
    NoncesWithoutLog,
    #[error("transparency.witnesses: {0}")]
    Witnesses(String),
    #[error("database: give url or url_file, not both")]
    TwoDatabases,
    #[error("policy: give name or file, not both")]
    TwoPolicies,
    #[error(
        "policy.name must be strict, adopted or darkbloom-2026, but is {0:?}; a policy of your own goes into policy.file"
    )]
    PolicyName(String),
    #[error("database.url holds a password; put the URL into a file and name it in url_file")]
    PasswordInFile,
    #[error(
        "identifiers and UUIDs under enrollment must be letters, digits, dots, hyphens and underscores, but one is {0:?}"
    )]
    Identifier(String),
}
