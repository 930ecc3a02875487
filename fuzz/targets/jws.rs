//! Signed requests to an ACME directory: a byte for the resource, then the body. Nobody here has a
//! key, so nothing but the request in the seeds is ever taken.

#![no_main]

use std::sync::LazyLock;

use attestd::acme::{Act, Directory, NonceKey, Request, Route, Terms};
use attestd::attestation::Anchors;
use attestd::entropy::SeededEntropy;
use attestd::pki::KnownIntermediates;
use attestd::time::Timestamp;

const ROOT: &[u8] = include_bytes!("../../tests/fixtures/mda/sim-mda-root.pem");
static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| Anchors::custom(ROOT).expect("a root"));
static KNOWN: LazyLock<KnownIntermediates> = LazyLock::new(KnownIntermediates::default);
static NONCE_KEY: LazyLock<NonceKey> = LazyLock::new(|| NonceKey::new(&[0; 32]));

const ROUTES: [Route; 11] = [
    Route::Directory,
    Route::NewNonce,
    Route::NewAccount,
    Route::NewOrder,
    Route::Account(1),
    Route::Orders(1),
    Route::Order(7),
    Route::Authorization(7),
    Route::Challenge(7),
    Route::Finalize(7),
    Route::Certificate(7),
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let route = ROUTES[usize::from(*first) % ROUTES.len()];
    // 2026-10-01T10:00:00Z, when the nonce of the request in the seeds was minted.
    let now = Timestamp::from_seconds(1_790_848_800);
    let terms = Terms {
        base: "https://mdm.example.test/acme/e/1f6b2d",
        identifier: "SIMQ4T2W7P",
        serial: None,
        se_public_key: None,
        open: Ok(()),
        expires_at: now,
        anchors: &ANCHORS,
        known: &KNOWN,
        nonce_key: &NONCE_KEY,
        now,
    };
    let request = Request {
        route,
        content_type: Some("application/jose+json"),
        body,
    };
    let mut directory = Directory::default();
    let outcome = directory.post(&request, &terms, &SeededEntropy::new(1));
    let Act::Answer(reply) = outcome.act else {
        panic!("no account has an order");
    };
    assert_eq!(outcome.changed, directory != Directory::default());
    assert_eq!(outcome.changed, reply.refused.is_none());
    assert!(!outcome.changed || route == Route::NewAccount);
});
