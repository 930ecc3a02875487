//! Whoever asks on the internal listener, and what they show to be known by.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::client_tls::KnownClient;
use super::internal::bearer;
use crate::flows::authorize::Shown;
use crate::ids::SecretHash;
use crate::pki::ClientCertificate;

/// A request's headers, and the certificate of its connection.
#[derive(Debug, Clone)]
pub struct Asker {
    pub headers: HeaderMap,
    certificate: Option<Arc<ClientCertificate>>,
}

impl Asker {
    /// What is judged. Whoever shows a token is judged by it, whatever their connection shows.
    pub fn shown(&self) -> Shown<'_> {
        match (bearer(&self.headers), &self.certificate) {
            (Some(token), _) => Shown::Token(token),
            (None, Some(certificate)) => Shown::Certificate(certificate),
            (None, None) => Shown::Nothing,
        }
    }

    /// Tells one asker from another.
    pub fn key(&self) -> SecretHash {
        match self.shown() {
            Shown::Token(token) => SecretHash::of(token.as_bytes()),
            Shown::Certificate(certificate) => SecretHash::of(certificate.sha256.as_bytes()),
            Shown::Nothing => SecretHash::of(b""),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let certificate = parts.extensions.get::<KnownClient>();
        Ok(Self {
            headers: parts.headers.clone(),
            certificate: certificate.map(|known| Arc::clone(&known.0)),
        })
    }
}
