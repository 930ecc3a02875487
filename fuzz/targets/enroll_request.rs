//! The body of `POST /v1/enroll`.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = attestd::http::enroll::bounds(body, attestd::enrollment::Protocol::Acme);
});
