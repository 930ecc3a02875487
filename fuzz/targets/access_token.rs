//! An access token of an OpenID provider, as anybody shows it: whoever is let in was in a token of the seeds, whose
//! keys have signed nothing else. What is no token may be a provider's key set, or its metadata.

#![no_main]

use std::sync::LazyLock;

use attestd::oidc::{AccessToken, Expected, KeySet, jwks_uri};
use attestd::time::Timestamp;

const KEYS: &[u8] = include_bytes!("../seeds/access_token/keys.json");
const ISSUER: &str = "https://id.example.org";
const TOKENS: [&str; 3] = [
    include_str!("../seeds/access_token/es256"),
    include_str!("../seeds/access_token/rs256"),
    include_str!("../seeds/access_token/eddsa"),
];

static KEY_SET: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEYS).expect("keys"));
static EXPECTED: LazyLock<Expected> = LazyLock::new(|| Expected {
    issuer: ISSUER.to_owned(),
    audience: "attestd".to_owned(),
    role_claim: "groups".to_owned(),
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(keys) = KeySet::parse(input) {
        assert!(keys.count() > 0);
    }
    if let Ok(url) = jwks_uri(input, ISSUER) {
        assert!(input.len() > url.len());
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(token) = AccessToken::parse(text) else {
        return;
    };
    // 2026-10-01T10:00:00Z, within the hour of the tokens in the seeds.
    let now = Timestamp::from_seconds(1_790_848_800);
    if let Ok(bearer) = token.verify(&KEY_SET, &EXPECTED, now) {
        assert_eq!(bearer.subject, "248289761001");
        let (signed, _) = text.rsplit_once('.').expect("three parts");
        assert!(TOKENS.iter().any(|token| token.starts_with(signed)));
    }
});
