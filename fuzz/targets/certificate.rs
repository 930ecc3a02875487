//! Certificates, in DER or PEM, and what Apple writes into them.

#![no_main]

use attestd::attestation::Evidence;
use attestd::pki::{Certificate, read_certificates};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let _ = read_certificates(file);
    if let Ok(certificate) = Certificate::parse(file) {
        assert_eq!(certificate.as_der(), file, "nothing is ignored");
        let _ = certificate.subject().to_string();
        let certificates = vec![file.to_vec()];
        assert!(Evidence { certificates }.unverified_statement(32).is_some());
    }
});
