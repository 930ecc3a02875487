//! Check-ins: Authenticate, TokenUpdate, CheckOut and the rest.

#![no_main]

use attestd::mdm::CheckIn;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = CheckIn::decode(body);
});
