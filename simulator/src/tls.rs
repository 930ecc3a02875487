//! TLS set-up shared by the doubles: a server that demands client certificates, and the means to
//! trust a root.

use std::sync::{Arc, Mutex, PoisonError};

use openssl::x509::X509;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::certs::Identity;

/// Client certificates, DER, that end the handshake as revoked.
pub(crate) type Refused = Arc<Mutex<Vec<Vec<u8>>>>;

/// The crypto provider of all TLS here.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// An HTTP/2 server configuration that takes only clients whose certificate chains to `client_root`.
///
/// A client certificate outside its validity passes the handshake: Apple answers it on HTTP level,
/// with 403 BadCertificate (apple-protocol 9.2).
pub(crate) fn server_requiring(
    identity: &Identity,
    client_root: &X509,
    refused: Refused,
) -> Result<Arc<ServerConfig>, String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(der(client_root)?)
        .map_err(|error| error.to_string())?;
    let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(AnyTime { strict, refused }))
        .with_single_cert(vec![der(&identity.certificate)?], private_key(identity)?)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is resumed shows no certificate, and one may have been withdrawn since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A certificate in rustls' form.
pub fn der(certificate: &X509) -> Result<CertificateDer<'static>, String> {
    Ok(CertificateDer::from(
        certificate.to_der().map_err(|error| error.to_string())?,
    ))
}

/// A private key in rustls' form.
pub fn private_key(identity: &Identity) -> Result<PrivateKeyDer<'static>, String> {
    let der = identity
        .key
        .private_key_to_pkcs8()
        .map_err(|error| error.to_string())?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))
}

/// Checks the chain as of a time within the certificate's own validity.
#[derive(Debug)]
struct AnyTime {
    strict: Arc<dyn ClientCertVerifier>,
    refused: Refused,
}

impl ClientCertVerifier for AnyTime {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.iter().any(|der| der == end_entity.as_ref()) {
            return Err(CertificateError::Revoked.into());
        }
        drop(refused);
        let at = within_validity(end_entity, now).unwrap_or(now);
        self.strict
            .verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.strict.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// `now` moved into the certificate's validity; `None` when the certificate cannot be read.
fn within_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let certificate = X509::from_der(certificate).ok()?;
    let epoch = openssl::asn1::Asn1Time::from_unix(0).ok()?;
    let seconds = |time: &openssl::asn1::Asn1TimeRef| {
        let since = epoch.diff(time).ok()?;
        u64::try_from(i64::from(since.days) * 86_400 + i64::from(since.secs)).ok()
    };
    let (first, last) = (
        seconds(certificate.not_before())?,
        seconds(certificate.not_after())?,
    );
    let at = now.as_secs().min(last).max(first);
    Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        at,
    )))
}
