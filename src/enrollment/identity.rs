//! Which certificate may speak for which Mac.
//!
//! Issuance is recorded before the certificate leaves the house. A certificate is bound to an
//! enrollment at Authenticate, or when the identity it renews asked for it, and from then on to no
//! other: never retroactively, and never two Macs with one certificate.

use serde::{Deserialize, Serialize};

use crate::ids::{CertificateHash, DeviceId, SerialNumber, TicketId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A device identity certificate this service issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: CertificateHash,
    /// The certificate, DER.
    pub der: Vec<u8>,
    pub kind: IdentityKind,
    pub ticket_id: Option<TicketId>,
    /// The serial number the ticket was bound to, or that Apple attested with the key.
    pub serial: Option<SerialNumber>,
    /// The Mac it speaks for, once it is bound.
    pub device_id: Option<DeviceId>,
    pub issued_at: Timestamp,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// The SCEP transactionID it was issued under, so that a retry gets the same certificate.
    pub transaction_id: Option<String>,
    /// The identity it was issued to renew, which asked for it: until this one speaks, that one
    /// does.
    pub renews: Option<CertificateHash>,
}

/// How an identity came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// SCEP: proves nothing about the hardware.
    Scep,
    /// ACME device-attest-01: a Secure Enclave key Apple vouched for.
    AcmeAttested,
    /// Issued by the authority of a server this one replaced.
    Adopted,
}

impl IdentityKind {
    /// The stored and published word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scep => "scep",
            Self::AcmeAttested => "acme_attested",
            Self::Adopted => "adopted",
        }
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Scep, Self::AcmeAttested, Self::Adopted]
            .into_iter()
            .find(|k| k.as_str() == word)
    }
}

impl Identity {
    /// Whether it may speak at `now` at all.
    ///
    /// # Refusals
    /// `revoked`, `identity_expired`.
    pub fn usable(&self, now: Timestamp) -> Result<(), Reason> {
        if self.revoked_at.is_some() {
            Err(Reason::Revoked)
        } else if now < self.not_before || now > self.not_after {
            Err(Reason::IdentityExpired)
        } else {
            Ok(())
        }
    }
}
