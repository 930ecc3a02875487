//! Attestation chains: certificates, each after its length in two bytes. Whatever is accepted is the
//! chain of the fixtures.

#![no_main]

use std::sync::LazyLock;

use attestd::attestation::{Anchors, Evidence, verify};
use attestd::pki::KnownIntermediates;
use attestd::time::Timestamp;

const ROOT: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");
static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| Anchors::custom(ROOT).expect("a root"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut certificates = Vec::new();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (certificate, after) = after.split_at(length);
        certificates.push(certificate.to_vec());
        rest = after;
    }
    let evidence = Evidence { certificates };
    let _ = evidence.unverified_statement(32);
    // 2026-10-01T10:00:00Z, half an hour after the leaf was issued.
    let now = Timestamp::from_seconds(1_790_848_800);
    if let Ok(verified) = verify(&evidence, &ANCHORS, &KnownIntermediates::default(), now) {
        let serial = verified
            .statement()
            .serial
            .as_ref()
            .expect("a genuine leaf names its Mac");
        assert_eq!(serial.as_str(), "SIMQ4T2W7P");
    }
});
