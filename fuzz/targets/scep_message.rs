//! SCEP requests, and the envelopes in them: no mutation gets through the signature around these.

#![no_main]

use attestd::pki::cms::EnvelopedData;
use attestd::scep::{PkiMessage, read};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = EnvelopedData::parse(body);
    if let Ok(der) = read(body) {
        let _ = EnvelopedData::parse(&der);
        let _ = PkiMessage::parse(&der);
    }
});
