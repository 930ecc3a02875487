//! Anybody checks what is said of a provider and its Mac, with nobody's help (C.5, docs/verify.md).

use std::path::Path;
use std::time::Duration;

use attestd::flows::publish_evidence::publish_evidence;
use attestd::ids::SessionId;
use attestd::publication::feed::Disclosure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::attestd;

async fn bundle(plane: &Plane, disclosure: Disclosure) -> Option<Value> {
    let session = SessionId::parse("s").expect("well formed");
    let written = publish_evidence(plane.scene.ctx(), &session, disclosure).await;
    let written = written.expect("works")?;
    Some(serde_json::from_slice(&written).expect("JSON"))
}

/// The bundle that the feed names, as anybody gets it.
pub(super) async fn published(plane: &Plane) -> Value {
    let scene = &plane.scene;
    scene.pass(Duration::from_secs(5));
    let get = async |path: &str| scene.answer(scene.anybody(Method::GET, path)).await;
    let feed = get("/v1/providers/attestation").await.json();
    let url = feed["providers"][0]["evidence_url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    let path = url.strip_prefix(scene.base_url.as_str()).expect("ours");
    let mut answer = get(path).await;
    // A witness may sign between two looks: then there is another proof.
    let mut same = None;
    for _ in 0..5 {
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json")
        );
        let digest = STANDARD.encode(openssl::sha::sha256(&answer.body));
        assert_eq!(
            answer.header("content-digest"),
            format!("sha-256=:{digest}:")
        );
        let known = scene
            .anybody(Method::GET, path)
            .header("if-none-match", answer.header("etag"));
        let again = scene.answer(known).await;
        if again.status == 304 {
            same = Some(answer.json());
            break;
        }
        answer = again;
    }
    same.expect("the same, when it is asked for again")
}

/// What an outsider with `attestd verify` and their own trust finds: exit status, and what was said.
pub(super) async fn checked(plane: &Plane, bundle: &Value, more: &[&str]) -> (Option<i32>, Value) {
    checked_by(plane, bundle, more, (&[], 0)).await
}

/// As [`checked`], by somebody who trusts these witnesses, of whom so many must have signed.
pub(super) async fn checked_by(
    plane: &Plane,
    bundle: &Value,
    more: &[&str],
    (witnesses, quorum): (&[String], usize),
) -> (Option<i32>, Value) {
    let scene = &plane.scene;
    let keys = scene
        .answer(scene.anybody(Method::GET, "/.well-known/jwks-history.json"))
        .await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let root = scene.world.apple().root_pem().expect("a root");
    std::fs::write(path("root.pem"), &root).expect("written");
    let der = openssl::x509::X509::from_pem(root.as_ref()).and_then(|root| root.to_der());
    let pin = hex::encode(openssl::sha::sha256(&der.expect("der")));
    let log = scene
        .answer(scene.anybody(Method::GET, "/log/verifier-key"))
        .await;
    let log = String::from_utf8(log.body.to_vec()).expect("text");
    let trust = json!({
        "mda_root_sha256": pin, "mda_root_pem_file": "root.pem", "jwks": keys.json(), "issuer": scene.base_url,
        "log_vkey": log.trim_end(), "witness_vkeys": witnesses, "witness_quorum": quorum,
    });
    std::fs::write(path("trust.json"), trust.to_string()).expect("written");
    std::fs::write(path("bundle.json"), bundle.to_string()).expect("written");
    let (file, trusted) = (path("bundle.json"), path("trust.json"));
    let at = scene.now().to_string();
    let words = [
        "verify",
        "bundle",
        file.to_str().expect("text"),
        "--trust",
        trusted.to_str().expect("text"),
        "--at",
        &at,
        "--json",
    ];
    let said = attestd(&[&words, more].concat());
    let found: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    if more.is_empty() {
        let (status, theirs) = checked_in_python(&file, &trusted, &at).await;
        let ours = (said.status.code(), standings(&found));
        assert_eq!((status, standings(&theirs)), ours, "{theirs:#}");
    }
    (said.status.code(), found)
}

/// The same by the second verifier, which was written apart from the first.
async fn checked_in_python(bundle: &Path, trust: &Path, at: &str) -> (Option<i32>, Value) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify/verify.py");
    // Debian's own interpreter, which has Debian's packages.
    let mut verifier = Command::new("/usr/bin/python3");
    verifier.arg(program).arg("bundle").arg(bundle);
    verifier.arg("--trust").arg(trust).args(["--at", at]);
    let said = verifier.output().await.expect("python3-cryptography");
    (
        said.status.code(),
        serde_json::from_slice(&said.stdout).unwrap_or_default(),
    )
}

pub(super) fn standings(said: &Value) -> Vec<String> {
    let findings = said["findings"].as_array().expect("a list").iter();
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("-").to_owned();
    findings
        .map(|it| [word(it, "claim"), word(it, "standing"), word(it, "by")].join(" "))
        .collect()
}

journey! {
    async fn an_outsider_checks_everything_that_is_said_of_a_provider(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life, _provider) = plane.routed().await;
        let whole = published(&plane).await;
        let (status, said) = checked(&plane, &whole, &["--require", "apple_posture", "--require", "sealed"]).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert_eq!(standings(&said), [
            "subject proved arithmetic", "registration proved se_key", "challenge proved se_key",
            "status proved se_key", "apple proved custom", "key_named proved custom",
            "apple_posture proved custom", "security_info asserted service", "ear proved service",
            "sealed proved service", "policy proved arithmetic",
            "judgement asserted service", "log proved log",
        ]);
        assert_eq!(whole["residence_proved"], false);
        // The policy is had by its hash, and never changes.
        let url = whole["policy"]["url"].as_str().expect("a URL");
        let path = url.strip_prefix(plane.scene.base_url.as_str()).expect("ours");
        let policy = plane.scene.answer(plane.scene.anybody(Method::GET, path)).await;
        assert_eq!(whole["policy"]["text"], json!(String::from_utf8(policy.body.clone()).expect("text")));
        let digest = STANDARD.encode(openssl::sha::sha256(&policy.body));
        assert_eq!(policy.header("content-digest"), format!("sha-256=:{digest}:"));
        assert!(policy.header("cache-control").contains("immutable"));

        // Without what a serial number can be had from.
        let redacted = bundle(&plane, Disclosure::Redacted).await.expect("a bundle");
        assert!(!redacted.to_string().contains(&mac.serial()));
        let (status, said) = checked(&plane, &redacted, &[]).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert_eq!(standings(&said), [
            "subject proved arithmetic", "challenge proved se_key", "status proved se_key",
            "apple asserted service", "security_info asserted service", "ear proved service",
            "sealed proved service", "policy proved arithmetic",
            "judgement asserted service", "log proved log",
        ]);
        let (status, said) = checked(&plane, &redacted, &["--require", "apple_posture"]).await;
        assert_eq!((status, &said["verdict"]), (Some(1), &json!("refused")));

        // Anything that is changed.
        for (pointer, value) in [
            ("/security_info/fields/FDE_Enabled", json!(false)),
            ("/mda/observed_at", json!("2026-01-01T00:00:00Z")),
            ("/disclosure", json!("redacted")),
            ("/policy/text", json!("name = \"other\"")),
            ("/mda/nonce/inputs/se_public_key", json!("")),
        ] {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).expect(pointer) = value;
            let (status, said) = checked(&plane, &changed, &[]).await;
            assert_eq!((status, &said["verdict"]), (Some(1), &json!("refused")), "{pointer}");
        }
        drop(life);
    }
}

journey! {
    async fn the_program_that_a_provider_runs_is_proved_to_be_published(backend: Backend) {
        let plane = Plane::changed(backend, &[], "").await;
        let scene = &plane.scene;
        let operator = scene.api.with_token(scene.token("operator"));
        let registry = "/internal/v1/releases";
        let release = json!({ "binary_hash": "a1".repeat(32), "version": "0.8.16" });
        let registered = operator.request(Method::POST, registry).json(&release).send().await;
        assert!(registered.expect("an answer").status().is_success());
        attestd::flows::tell_log::run_once(scene.ctx()).await.expect("told");
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        let whole = published(&plane).await;
        assert_eq!(whole["release"]["version"], json!("0.8.16"), "{whole:#}");
        let (status, said) = checked(&plane, &whole, &[]).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert!(standings(&said).contains(&"release proved log".to_owned()), "{said:#}");
        assert_eq!(checked(&plane, &whole, &["--require", "release"]).await.0, Some(0));
        for (pointer, value) in [
            ("/release/version", json!("0.8.17")),
            ("/release/binary_hash", json!("a2".repeat(32))),
            ("/release/url", json!("https://example.org")),
            ("/release/log_entry_b64", whole["log_entry_b64"].clone()),
            ("/release/tlog_proof", whole["tlog_proof"].clone()),
        ] {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).expect(pointer) = value;
            assert_eq!(checked(&plane, &changed, &[]).await.0, Some(1), "{pointer}");
        }

        // Once it is withdrawn it is not shown as one that is published.
        let withdrawal = json!({ "binary_hash": "a1".repeat(32), "reason": "a fault" });
        let withdrawn = operator.request(Method::POST, &format!("{registry}/revoke")).json(&withdrawal).send().await;
        assert!(withdrawn.expect("an answer").status().is_success());
        attestd::flows::tell_log::run_once(scene.ctx()).await.expect("told");
        let later = bundle(&plane, Disclosure::Full).await.expect("a bundle");
        assert_eq!(later.get("release"), None);
        assert_eq!(checked(&plane, &later, &["--require", "release"]).await.0, Some(1));
    }
}

journey! {
    async fn a_bundle_says_what_has_ended_and_nothing_of_who_has_gone(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        // The last challenge is not of the present any more, and says nothing.
        plane.scene.pass(Duration::from_secs(20 * 60));
        let later = bundle(&plane, Disclosure::Full).await.expect("a bundle");
        assert_eq!(later.get("challenge"), None);
        let (status, said) = checked(&plane, &later, &[]).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert!(standings(&said).iter().all(|it| !it.starts_with("challenge")));

        assert_eq!(plane.scene.api.unbind("s", "").await, 204);
        assert!(bundle(&plane, Disclosure::Full).await.is_none());
        for path in ["/v1/evidence/x", "/v1/evidence/00000000-0000-8000-8000-000000000000"] {
            let answer = plane.scene.answer(plane.scene.anybody(Method::GET, path)).await;
            assert_eq!(answer.status, 404, "{path}");
        }
    }
}

journey! {
    async fn a_stranger_with_a_good_blob_gets_nothing_signed_about_a_mac(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let stranger = plane.provider_on(&mac);
        plane.scene.api.bound("s", &stranger, Some("acct-stranger")).await;
        let told = bundle(&plane, Disclosure::Full).await.expect("a bundle");
        for part in ["ear", "mda", "security_info"] {
            assert_eq!(told.get(part), None, "{part}");
        }
        let (status, said) = checked(&plane, &told, &[]).await;
        assert_eq!(status, Some(0), "{said:#}");
        assert_eq!(standings(&said), ["subject proved arithmetic", "registration proved se_key"]);

        // Another process with the owner's key and a copy of its blob: the key itself has not spoken.
        let owner = plane.provider_on(&mac);
        let other = plane.provider_on(&mac);
        let mut copied = owner.binding_request(Some(OWNER)).expect("a request");
        copied["encryption_public_key"] = json!(other.encryption_key());
        assert_eq!(plane.scene.api.unbind("s", "").await, 204);
        assert_eq!(plane.scene.api.bind("s", &copied).await.0, 200);
        assert!(bundle(&plane, Disclosure::Full).await.is_none());
        drop(life);
    }
}
