//! PKCS #10 requests, with the SHA-1 that old SCEP clients sign with.

#![no_main]

use attestd::pki::{CertificateRequest, LegacyDigest};

libfuzzer_sys::fuzz_target!(|der: &[u8]| {
    if let Ok(request) = CertificateRequest::parse(der, LegacyDigest::Allowed) {
        assert_eq!(request.as_der(), der, "nothing is ignored");
        let _ = request.challenge();
    }
});
