//! GetCACert (RFC 8894 section 4.2).

use crate::pki::Certificate;
use crate::pki::cms::certificates_only;

/// The answer to GetCACert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificates {
    /// The content type, exactly: Apple's client compares it whole (apple-protocol 8.1).
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl CaCertificates {
    /// An authority that receives and answers requests itself: its key is RSA.
    pub fn authority(authority: &Certificate<'_>) -> Self {
        Self {
            content_type: "application/x-x509-ca-cert",
            body: authority.as_der().to_vec(),
        }
    }

    /// A registration authority that receives and answers, and the authority that issues. The first
    /// must be RSA, since requests are encrypted to it; the second need not be.
    pub fn with_registration(registration: &Certificate<'_>, authority: &Certificate<'_>) -> Self {
        Self {
            content_type: "application/x-x509-ca-ra-cert",
            body: certificates_only(&[*registration, *authority]),
        }
    }
}
