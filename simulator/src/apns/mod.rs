//! The double of Apple's push service for MDM: HTTP/2 with mutual TLS, Apple's checks and answers,
//! one stored notification per token, and delivery to Macs in the same process; and the double of the portal
//! that issues push certificates (apple-protocol 9).

mod device;
mod faults;
mod portal;
mod push_ca;
mod rules;
mod server;

pub use device::{Delivered, Inbox};
pub use faults::Fault;
pub use portal::{Portal, PortalRefusal};
pub(crate) use push_ca::topic_of;
pub use push_ca::{PushAuthority, PushCertificate};
pub use server::{Apns, ApnsOptions, PushBudget, PushSeen};

/// Why the double could not start or make a certificate.
#[derive(Debug, thiserror::Error)]
pub enum ApnsError {
    #[error("the port cannot be listened on")]
    Listen(#[source] std::io::Error),
    #[error("the TLS side cannot be set up: {0}")]
    Tls(String),
    #[error("keys and certificates cannot be made")]
    Crypto(#[from] openssl::error::ErrorStack),
}

#[cfg(test)]
mod tests;
