//! Attestation objects of an ACME challenge. Whatever is read has one spelling, and whatever is
//! accepted is the chain of the fixtures.

#![no_main]

use std::sync::LazyLock;

use attestd::acme::{AttestationObject, answers, attested_key, is_cbor};
use attestd::attestation::Anchors;
use attestd::pki::KnownIntermediates;
use attestd::time::Timestamp;

const ROOT: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");
static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| Anchors::custom(ROOT).expect("a root"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let cbor = is_cbor(input);
    let Ok(object) = AttestationObject::parse(input) else {
        return;
    };
    assert!(cbor, "an attestation object is CBOR");
    let certificates = &object.evidence().certificates;
    assert_eq!(written(certificates), input);
    let _ = object.evidence().unverified_statement(32);
    // 2026-10-01T10:00:00Z, half an hour after the leaf was issued.
    let now = Timestamp::from_seconds(1_790_848_800);
    if let Ok(verified) = object.verify(&ANCHORS, &KnownIntermediates::default(), now) {
        assert_eq!(certificates.len(), 2);
        let serial = verified.statement().serial.as_ref();
        let serial = serial.expect("a genuine leaf names its Mac");
        assert_eq!(serial.as_str(), "SIMQ4T2W7P");
        attested_key(&verified).expect("a genuine leaf has an enclave's key");
        assert!(answers(&verified, "a token of nobody").is_err());
    }
});

/// The one spelling.
fn written(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut object = b"\xa2\x63fmt\x65apple\x67attStmt\xa1\x63x5c".to_vec();
    object.push(0x80 | certificates.len() as u8);
    for certificate in certificates {
        match certificate.len() {
            length @ 0..24 => object.push(0x40 | length as u8),
            length @ 24..256 => object.extend([0x58, length as u8]),
            length => {
                object.push(0x59);
                object.extend((length as u16).to_be_bytes());
            }
        }
        object.extend(certificate);
    }
    object
}
