//! Answers of a provider to a challenge. Whatever is believed was signed by the key of the seeds,
//! and says what it said there.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use attestd::provider::challenge::{Asked, StatusSignature};
use attestd::provider::{Challenge, Response, SePublicKey, Status};
use attestd::time::Timestamp;

const KEY: &str =
    "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";
static SE_KEY: LazyLock<SePublicKey> = LazyLock::new(|| SePublicKey::parse(KEY).expect("a key"));
static CHALLENGE: LazyLock<Challenge> = LazyLock::new(|| {
    let nonce = "eloMInPTGWUBl7LHx6ulkXma2AvPBzcJakCAtUhCY94=";
    Challenge::retell(nonce, "2026-09-20T11:59:58Z").expect("a challenge")
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // A status by itself has one spelling.
    if let Ok(status) = Status::read(input, 1 << 20) {
        let canonical = status.canonical();
        let again = Status::read(canonical.as_bytes(), 1 << 20).expect("a status");
        assert_eq!(again, status);
        assert_eq!(again.canonical(), canonical);
    }
    let Ok(response) = Response::parse(input) else {
        return;
    };
    for policy in [StatusSignature::Required, StatusSignature::Optional] {
        let asked = Asked {
            challenge: &CHALLENGE,
            key: &SE_KEY,
            encryption_key: None,
            status_signature: policy,
            answer_within: Duration::from_secs(30),
            received_at: Timestamp::from_seconds(1_789_905_599),
        };
        if let Ok(answer) = response.clone().verify(&asked) {
            assert_eq!(answer.status().nonce, CHALLENGE.nonce());
            assert!(answer.is_status_signed() || policy == StatusSignature::Optional);
            if answer.is_status_signed() {
                assert_eq!(answer.status().sip_enabled, Some(true));
                assert!(answer.negatives().is_empty());
            }
        }
    }
});
