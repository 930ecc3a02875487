//! A SCEP client as strict as macOS's own (apple-protocol 8.1, 12.10; RFC 8894).

mod capabilities;
mod client;
mod message;

pub use capabilities::{Authority, Capabilities, Cipher};
pub use client::{ScepClient, ScepSettings};
pub use message::{
    CertRep, PkiMessage, csr, get_cert_initial, pkcs_req, pkcs_req_around, pki_message,
    read_cert_rep, read_cert_rep_for, renewal_req,
};

/// Why no identity came of it. Every one of these ends a profile's installation.
#[derive(Debug, thiserror::Error)]
pub enum ScepError {
    #[error("the SCEP server cannot be reached")]
    Unreachable(#[from] reqwest::Error),
    #[error("the SCEP URL is not one")]
    BadUrl,
    /// macOS wants 200 for everything, failures included.
    #[error("{operation} was answered with HTTP status {status}, not 200")]
    NotOk {
        operation: &'static str,
        status: u16,
    },
    /// Compared exactly: parameters are not tolerated.
    #[error("GetCACert was answered with content type {0:?}")]
    CaContentType(String),
    #[error("GetCACert was answered with what is no certificate")]
    CaUnreadable,
    #[error("no certificate of the authority may receive encrypted keys")]
    NoRecipient,
    /// Envelopes use RSA key transport.
    #[error("the recipient's key is not RSA")]
    RecipientNotRsa,
    #[error("the authority's certificate differs from the profile's CAFingerprint")]
    FingerprintDiffers,
    #[error("the reply is not a CertRep: {0}")]
    NotACertRep(&'static str),
    /// The reply must be signed by the certificate GetCACert gave.
    #[error("the reply is not signed by the authority")]
    ForeignSigner,
    #[error("the request was refused, failInfo {fail_info}")]
    Refused { fail_info: String },
    #[error("the request is still pending after all retries")]
    StillPending,
    #[error("GetCACaps does not offer Renewal")]
    NoRenewal,
    /// The reply is encrypted for the identity's key.
    #[error("the identity to be renewed has no RSA key")]
    RenewedNotRsa,
    #[error("the issued certificate is for another key")]
    OtherKey,
    #[error("cryptography failed")]
    Crypto(#[from] openssl::error::ErrorStack),
}
