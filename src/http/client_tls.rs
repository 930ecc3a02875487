//! Client certificates in the server's own TLS: asked for, never demanded.
//!
//! The handshake proves that the peer has the key of the certificate it shows. Whose it is, whether
//! it was issued here and is still good, is for `flows::identify` to say, from the record of what
//! was issued: a chain says nothing of a withdrawal, and an expired identity is to be refused with
//! its own reason, not with a broken connection.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConnection, SignatureScheme};

use crate::ids::CertificateHash;
use crate::pki::{ClientCertificate, MAX_CERTIFICATE};

/// The certificate that the client of a connection showed and has the key of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsCertificate(pub CertificateHash);

impl TlsCertificate {
    /// What the client of this connection showed, if anything.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let shown = connection.peer_certificates()?.first()?;
        Some(Self(CertificateHash::of(shown)))
    }
}

/// The certificate of a client whose chain the handshake has checked (`app::tls`). Only where it has: elsewhere
/// anybody shows whatever they like.
#[derive(Debug, Clone)]
pub struct KnownClient(pub Arc<ClientCertificate>);

impl KnownClient {
    /// What the client of this connection showed, if anything, and if it can be read.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let shown = connection.peer_certificates()?.first()?;
        match ClientCertificate::read(shown) {
            Ok(certificate) => Some(Self(Arc::new(certificate))),
            Err(error) => {
                tracing::warn!(%error, "a client's certificate cannot be read, and counts for nothing");
                None
            }
        }
    }
}

/// Takes any certificate whose key signs the handshake.
#[derive(Debug)]
pub struct PossessionOnly {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionOnly {
    /// `issuers` are told to clients: names in DER. Without them a browser would offer its user
    /// every certificate there is, and a Mac none.
    pub fn new(issuers: impl IntoIterator<Item = Vec<u8>>, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self {
            hints: issuers.into_iter().map(DistinguishedName::from).collect(),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if end_entity.len() > MAX_CERTIFICATE {
            return Err(Error::InvalidCertificate(
                rustls::CertificateError::BadEncoding,
            ));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
