//! What provider software sends: attestation blobs, and statuses written by others.

use attestd_sim::keys::{self, KeyKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};

use super::Shelf;

const REGISTER: &str = include_str!("../../../fixtures/provider/register.attestation.json");
const FRAME: &str = include_str!("../../../fixtures/provider/register.frame.json");
const VECTORS: &str = include_str!("../../../fixtures/provider/status_canonical_vectors.json");
const K: &str = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";
const OTHER_K: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

pub(super) fn put(shelf: &Shelf<'_>) -> Result<(), ErrorStack> {
    put_statuses(shelf);
    put_broken_registrations(shelf);
    let provider = Provider(keys::generate(KeyKind::P256)?);
    let good = provider.blob()?;
    let register = |blob: &str| -> Result<String, ErrorStack> {
        let signature = provider.sign(blob)?;
        Ok(format!(
            "{{\"attestation\":{blob},\"signature\":\"{signature}\"}}"
        ))
    };
    let frame = |key: &str, version: &str, blob: &str| -> Result<String, ErrorStack> {
        let pair = register(blob)?;
        Ok(format!(
            "{{\"type\":\"register\",\"version\":\"{version}\",\"public_key\":\"{key}\",\"attestation\":{pair}}}"
        ))
    };
    let changed = |name: &str, value: Value| {
        let mut blob = good.clone();
        blob[name] = value;
        blob.to_string()
    };
    let text = good.to_string();
    shelf.put("blob-good.json", register(&text)?);
    let spaced = format!("{good:#}");
    shelf.put(
        "blob-spaced.json",
        format!(
            " {{ \"signature\" : \"{}\" ,\n\"attestation\" :\t{spaced} }}\n",
            provider.sign(&spaced)?
        ),
    );
    shelf.put(
        "blob-sip-off.json",
        register(&changed("sipEnabled", json!(false)))?,
    );
    let no_enclave = changed("secureEnclaveAvailable", json!(false));
    shelf.put("blob-no-enclave.json", register(&no_enclave)?);
    let newer = changed("somethingNewer", json!({"sipEnabled": false}));
    shelf.put("blob-newer.json", register(&newer)?);
    shelf.put(
        "blob-65-bytes.json",
        register(&changed("publicKey", json!(provider.key(0)?)))?,
    );
    let foreign = Provider(keys::generate(KeyKind::P256)?);
    shelf.put(
        "blob-foreign-key.json",
        register(&changed("publicKey", json!(foreign.key(1)?)))?,
    );
    let p384 = Provider(keys::generate(KeyKind::P384)?);
    shelf.put(
        "blob-p384-key.json",
        register(&changed("publicKey", json!(p384.key(1)?)))?,
    );
    shelf.put(
        "blob-no-sip.json",
        register(&changed("sipEnabled", Value::Null))?,
    );
    shelf.put(
        "blob-text-for-flag.json",
        register(&changed("sipEnabled", json!("true")))?,
    );
    shelf.put(
        "blob-bad-time.json",
        register(&changed("timestamp", json!("2026-09-20")))?,
    );
    let twice = text.replacen('{', "{\"sipEnabled\":true,", 1);
    shelf.put("blob-duplicate.json", register(&twice)?);
    let respelled = text.replacen('{', "{\"SIPEnabled\":true,", 1);
    shelf.put("blob-respelled.json", register(&respelled)?);
    shelf.put("blob-array.json", register("[]")?);
    shelf.put(
        "blob-large.json",
        register(&changed("osVersion", json!("a".repeat(20_000))))?,
    );

    let signature = provider.der(&text)?;
    for (name, der) in [
        ("trailing", [&signature[..], &[0]].concat()),
        ("cut", signature[..signature.len() - 1].to_vec()),
        ("empty", Vec::new()),
    ] {
        let signature = STANDARD.encode(der);
        shelf.put(
            &format!("blob-signature-{name}.json"),
            format!("{{\"attestation\":{text},\"signature\":\"{signature}\"}}"),
        );
    }
    shelf.put("blob-frame.json", frame(K, "0.8.16", &text)?);
    shelf.put("blob-frame-old.json", frame(K, "0.8.14", &text)?);
    shelf.put(
        "blob-frame-other-key.json",
        frame(OTHER_K, "0.8.16", &text)?,
    );
    shelf.put("blob-frame-no-key.json", frame("K", "0.8.16", &text)?);
    let nameless = changed("encryptionPublicKey", Value::Null);
    shelf.put("blob-frame-nameless.json", frame(K, "0.8.16", &nameless)?);
    Ok(())
}

struct Provider(PKey<Private>);

impl Provider {
    /// The point from this byte on: all of it with 04 in front, or without.
    fn key(&self, from: usize) -> Result<String, ErrorStack> {
        let spki = self.0.public_key_to_der()?;
        let length = if self.0.bits() == 256 { 65 } else { 97 };
        Ok(STANDARD.encode(&spki[spki.len() - length + from..]))
    }

    fn der(&self, message: &str) -> Result<Vec<u8>, ErrorStack> {
        Signer::new(MessageDigest::sha256(), &self.0)?.sign_oneshot_to_vec(message.as_bytes())
    }

    fn sign(&self, message: &str) -> Result<String, ErrorStack> {
        Ok(STANDARD.encode(self.der(message)?))
    }

    fn blob(&self) -> Result<Value, ErrorStack> {
        Ok(json!({
            "authenticatedRootEnabled": true,
            "chipName": "Apple M4 Max",
            "encryptionPublicKey": K,
            "hardwareModel": "Mac16,5",
            "osVersion": "Version 26.6.2 (Build 25G80)",
            "publicKey": self.key(1)?,
            "rdmaDisabled": true,
            "secureBootEnabled": true,
            "secureEnclaveAvailable": true,
            "serialNumber": "SIMQ4T2W7P",
            "sipEnabled": true,
            "timestamp": "2026-10-01T09:30:07Z",
        }))
    }
}

/// What was signed, changed afterwards; and what surrounds it.
fn put_broken_registrations(shelf: &Shelf<'_>) {
    shelf.put(
        "blob-changed.json",
        REGISTER.replace("FXSYNTH0001", "FXSYNTH0002"),
    );
    shelf.put("blob-respelled-slash.json", REGISTER.replace("\\/", "/"));
    shelf.put("blob-no-signature.json", "{\"attestation\":{}}");
    shelf.put(
        "blob-signature-number.json",
        REGISTER.replace("\"signature\":\"", "\"signature\":7,\"other\":\""),
    );
    shelf.put(
        "blob-outer-duplicate.json",
        REGISTER.replacen('{', "{\"signature\":\"\",", 1),
    );
    shelf.put(
        "blob-outer-respelled.json",
        REGISTER.replacen('{', "{\"Attestation\":{},", 1),
    );
    shelf.put(
        "blob-frame-duplicate.json",
        FRAME.replacen('{', "{\"public_key\":\"\",", 1),
    );
    shelf.put(
        "blob-frame-null.json",
        "{\"type\":\"register\",\"attestation\":null}",
    );
    shelf.put("blob-cut.json", &REGISTER[..100]);
    shelf.put("not.json", "attestation");
    shelf.put("array.json", "[1]");
}

fn put_statuses(shelf: &Shelf<'_>) {
    let file: Value = serde_json::from_str(VECTORS).expect("JSON");
    for vector in file["vectors"].as_array().expect("vectors") {
        let name = vector["name"].as_str().expect("a name");
        shelf.put(&format!("status-{name}.json"), vector.to_string());
    }
    let good = &file["vectors"][0];
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut vector = good.clone();
        change(&mut vector);
        vector.to_string()
    };
    let canonical = good["canonical"].as_str().expect("text");
    shelf.put(
        "status-other-input.json",
        changed(&|v| v["input"]["sip_enabled"] = json!(false)),
    );
    shelf.put(
        "status-spaced.json",
        changed(&|v| v["canonical"] = json!(canonical.replace(',', ", "))),
    );
    shelf.put(
        "status-other-hash.json",
        changed(&|v| v["sha256"] = json!("00".repeat(32))),
    );
    shelf.put(
        "status-unknown-member.json",
        changed(&|v| v["input"]["newer"] = json!(1)),
    );
    shelf.put(
        "status-no-canonical.json",
        changed(&|v| v["canonical"] = Value::Null),
    );
    shelf.put(
        "status-no-nonce.json",
        changed(&|v| v["input"]["nonce"] = Value::Null),
    );
    shelf.put(
        "status-wrong-type.json",
        changed(&|v| v["input"]["sip_enabled"] = json!(1)),
    );
    shelf.put(
        "status-no-input.json",
        "{\"canonical\":\"\",\"sha256\":\"\"}",
    );
    let twice = good
        .to_string()
        .replace("\"qwen\":", "\"trinity\":\"a\",\"qwen\":");
    shelf.put("status-duplicate.json", twice);
}
