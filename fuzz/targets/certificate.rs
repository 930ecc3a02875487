//! Certificates, in DER or PEM, and what Apple writes into them.

#![no_main]

use attestd::attestation::Statement;
use attestd::pki::{Certificate, read_certificates};

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    let _ = read_certificates(file);
    if let Ok(certificate) = Certificate::parse(file) {
        assert_eq!(certificate.as_der(), file, "nothing is ignored");
        let _ = Statement::read(&certificate);
        let _ = certificate.subject().to_string();
    }
});
