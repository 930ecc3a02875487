//! What a provider registers with: the pair of blob and signature as it stands in a frame. Only the
//! blob of the seeds is ever believed, and of that only the bytes that were signed.

#![no_main]

use std::sync::LazyLock;

use attestd::json::members;
use attestd::provider::blob::Terms;
use attestd::provider::{Blob, EncryptionKey, SePublicKey};
use attestd::time::Timestamp;

const SIGNED: &[u8] = include_bytes!("../../tests/fixtures/provider/blob.raw.json");
const KEY: &str =
    "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";
const K: &str = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";
static SE_KEY: LazyLock<SePublicKey> = LazyLock::new(|| SePublicKey::parse(KEY).expect("a key"));
static ENCRYPTION_KEY: LazyLock<EncryptionKey> =
    LazyLock::new(|| EncryptionKey::parse(K).expect("a key"));

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The blob by itself, and the pair.
    let _ = Blob::parse(input);
    let Ok(pair) = members(input) else {
        return;
    };
    let member = |name: &str| {
        pair.iter()
            .find(|(known, _)| known == name)
            .map(|(_, raw)| raw.get())
    };
    let (Some(raw), Some(signature)) = (member("attestation"), member("signature")) else {
        return;
    };
    let Ok(signature) = serde_json::from_str::<String>(signature) else {
        return;
    };
    let Ok(blob) = Blob::parse(raw.as_bytes()) else {
        return;
    };
    if let Ok(signed) = blob.verify(&SE_KEY, &signature) {
        assert_eq!(signed.raw(), SIGNED.trim_ascii_end());
        assert!(signed.negatives().is_empty());
        let terms = Terms {
            encryption_key: &ENCRYPTION_KEY,
            provider_version: None,
            // 2026-09-20T12:00:00Z, half a minute after it was signed.
            now: Timestamp::from_seconds(1_789_905_600),
        };
        signed.accept(&terms).expect("the blob of the seeds");
    }
});
