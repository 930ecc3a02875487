//! An evidence bundle as it comes from anybody. Whatever of it is proved was in the bundle of the seeds:
//! its keys have signed nothing else.

#![no_main]

use std::sync::LazyLock;

use attestd::attestation::Anchors;
use attestd::publication::bundle::trust::{LogTrust, Trust, TrustedKey};
use attestd::publication::bundle::{Standing, examine};
use attestd::time::Timestamp;
use serde_json::Value;

const BUNDLE: &[u8] = include_bytes!("../../tests/vectors/verify/bundle.json");
const JWKS: &str = include_str!("../../tests/vectors/verify/jwks.json");
const ROOT: &[u8] = include_bytes!("../../tests/vectors/verify/mda_test_root.pem");
const LOG: &str =
    "log.darkbloom.example/posture/2026+d508762f+Adr9GtLINdpUcu9YScScaJZF6RVA35lVLBFcQLBUUpi/";
const WITNESS: &str = "witness1.example+c0364380+BK4KgnGdmAZcknATa5u7glThgng+0+QEabhNOgJ+u6oY";

static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let keys: Value = serde_json::from_str(JWKS).expect("JSON");
    Trust {
        anchors: Anchors::custom(ROOT).ok(),
        keys: serde_json::from_value::<Vec<TrustedKey>>(keys["keys"].clone()).expect("keys"),
        issuer: Some("https://mdm.darkbloom.example".to_owned()),
        log: Some(LogTrust {
            log: LOG.to_owned(),
            witnesses: vec![WITNESS.to_owned()],
            quorum: 1,
        }),
    }
});

/// What only its own keys can have signed, as it stands in the bundle of the seeds.
static SIGNED: LazyLock<Value> = LazyLock::new(|| serde_json::from_slice(BUNDLE).expect("JSON"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // 2026-09-20T12:00:30Z, half a minute after it was made.
    let found = examine(input, &TRUST, Timestamp::from_seconds(1_789_905_630));
    let proved = |claim: &str| {
        found.iter().any(|finding| {
            finding.claim == claim && matches!(finding.standing, Standing::Proved { .. })
        })
    };
    let Ok(bundle) = serde_json::from_slice::<Value>(input) else {
        assert!(found.len() == 1 && found[0].failure().is_some());
        return;
    };
    for (claim, pointer) in [
        ("ear", "/ear"),
        ("status", "/challenge/status_raw_b64"),
        ("challenge", "/challenge/nonce"),
        ("registration", "/registration/attestation_raw_b64"),
        ("log", "/log_entry_b64"),
    ] {
        if proved(claim) {
            assert_eq!(bundle.pointer(pointer), SIGNED.pointer(pointer), "{claim}");
        }
    }
});
