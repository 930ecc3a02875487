//! Whether what a proxy passes on can be believed.

use super::{Public, Unusable};

impl Public {
    pub(super) fn check_certificates(&self) -> Result<(), Unusable> {
        if self.client_certificates && self.tls_certificate.is_none() {
            return Err(Unusable::CertificatesWithoutTls);
        }
        let Some(name) = &self.client_certificate_header else {
            return Ok(());
        };
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        // Headers that say something else already, and that anybody may send.
        const TAKEN: [&str; 7] = [
            "mdm-signature",
            "content-type",
            "content-length",
            "content-encoding",
            "host",
            "user-agent",
            "x-forwarded-for",
        ];
        let taken = TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken));
        if name.is_empty() || !name.bytes().all(is_token) || taken {
            return Err(Unusable::HeaderName(name.clone()));
        }
        if self.trusted_proxies.is_empty() {
            return Err(Unusable::HeaderOfNobody);
        }
        Ok(())
    }
}
