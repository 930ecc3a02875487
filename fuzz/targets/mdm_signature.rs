//! `Mdm-Signature`, decoded: BER, the signer's certificate, and the signature over a body.

#![no_main]

use attestd::mdm::signature::MAX_MESSAGE;
use attestd::pki::cms::{SignedData, read};

const BODY: &[u8] = include_bytes!("../../tests/fixtures/mdm/connect-idle.plist");

libfuzzer_sys::fuzz_target!(|message: &[u8]| {
    let Ok(der) = read(message, MAX_MESSAGE) else {
        return;
    };
    if let Ok(signed) = SignedData::parse(&der) {
        let _ = signed.require_detached().and_then(|()| signed.verify(BODY));
    }
});
