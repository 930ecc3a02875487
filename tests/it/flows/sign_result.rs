//! What is believed is signed, and checked by a JOSE library of other hands (EAR, RFC 7515, RFC 7517).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use attestd::audit::Who;
use attestd::flows::rotate_result_key::{Refusal, rotate, withdraw};
use attestd::publication::jwk::Algorithm;
use attestd_sim::MacSpec;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::{Backend as Kind, Scene, attestd};

const NONCE: &str = "cmVseWluZy1wYXJ0eQ";
const EAT: &str = "application/eat+jwt";

/// The signed answer for a Mac.
async fn ask(scene: &Scene, device_id: &str, query: &str) -> Response {
    let path = format!("/internal/v1/devices/{device_id}/posture{query}");
    let request = scene.api.request(Method::GET, &path).header("accept", EAT);
    request.send().await.expect("an answer")
}

async fn result(scene: &Scene, device_id: &str) -> String {
    let answer = ask(scene, device_id, &format!("?nonce={NONCE}")).await;
    assert_eq!(answer.status(), 200);
    let kind = answer.headers()["content-type"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        kind.starts_with("application/eat+jwt; eat_profile="),
        "{kind}"
    );
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.text().await.expect("a token")
}

async fn published(scene: &Scene, path: &str) -> Value {
    let answer = scene.answer(scene.anybody(Method::GET, path)).await;
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    answer.json()
}

async fn key_set(scene: &Scene) -> Value {
    published(scene, "/.well-known/jwks.json").await
}

fn kids(keys: &Value) -> Vec<String> {
    let keys = keys["keys"].as_array().expect("a list");
    let mut kids: Vec<_> = keys
        .iter()
        .map(|key| key["kid"].as_str().expect("text").to_owned())
        .collect();
    kids.sort_unstable();
    kids
}

fn header_of(token: &str) -> Value {
    let header = token.split('.').next().expect("a header");
    let bytes = URL_SAFE_NO_PAD.decode(header).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What the JOSE library says of a result: its claims, or why it refuses.
async fn read_by_others(
    scene: &Scene,
    token: &str,
    keys: &Value,
    nonce: Option<&str>,
) -> Result<Value, String> {
    let asked = json!({
        "token": token, "jwks": keys, "issuer": scene.base_url, "nonce": nonce,
        "now": scene.now().seconds(),
    });
    asked_of_others("read_result.py", &asked).await
}

/// What a program of other hands answers.
pub async fn asked_of_others(script: &str, asked: &Value) -> Result<Value, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/foreign");
    let script = Path::new(folder).join(script);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python/bin/python3");
    let mut judge = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`./dev test` installs what tests/requirements.txt names");
    let mut stdin = judge.stdin.take().expect("a pipe");
    stdin
        .write_all(asked.to_string().as_bytes())
        .await
        .expect("written");
    drop(stdin);
    let said = judge.wait_with_output().await.expect("ends");
    if said.status.success() {
        Ok(serde_json::from_slice(&said.stdout).expect("JSON"))
    } else {
        Err(String::from_utf8_lossy(&said.stderr).into_owned())
    }
}

journey! {
    async fn a_relying_party_checks_a_result_with_a_library_of_other_hands(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        let device_id = api.device_id(&mac.serial()).await;

        let token = result(scene, &device_id).await;
        let keys = key_set(scene).await;
        let claims = read_by_others(scene, &token, &keys, Some(NONCE)).await.expect("verifies");
        assert_eq!((&claims["ear_status"], &claims["eat_nonce"]), (&json!("affirming"), &json!(NONCE)));
        let device = &claims["submods"]["device"];
        assert_eq!(device["ear_trustworthiness_vector"], json!({
            "instance-identity": 2, "configuration": 2, "file-system": 2, "hardware": 2, "storage-opaque": 2,
        }));
        let posture = api.posture(&mac.serial()).await;
        let said = &device["attestd"];
        assert_eq!((&said["trust_level"], &said["anchor"]), (&json!("hardware"), &json!("custom")));
        for name in ["revision", "revocation_epoch", "usable_until", "policy_id"] {
            assert_eq!(said[name], posture[name], "{name}");
        }
        // Who reads it learns neither which Mac nor which key it is about.
        let text = claims.to_string();
        assert!(!text.contains(&mac.serial()) && !text.contains(&device_id), "{text}");

        // What "affirming" meant can be fetched, and is what its name says.
        let policy = device["ear_appraisal_policy_ids"][0].as_str().expect("a URL");
        let path = policy.strip_prefix(scene.base_url.as_str()).expect("ours");
        let answer = scene.answer(scene.anybody(Method::GET, path)).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/toml"));
        let hash = hex::encode(openssl::sha::sha256(answer.text().as_bytes()));
        assert!(path.ends_with(&hash));

        // Another's nonce, a changed byte, another key: refused.
        let other = read_by_others(scene, &token, &keys, Some("b3RoZXItbm9uY2U")).await;
        assert!(other.expect_err("refused").contains("nonce"));
        let (signed, _) = token.rsplit_once('.').expect("a signature");
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
        assert!(read_by_others(scene, &forged, &keys, None).await.expect_err("refused").contains("BadSignature"));

        // Trust is withdrawn: the next result says so.
        let revoke = format!("/internal/v1/devices/{device_id}/revoke");
        let operator = api.with_token(scene.token("operator"));
        assert_eq!(operator.ask(Method::POST, &revoke, &json!({ "reason": "lost" })).await.0, 200);
        let token = result(scene, &device_id).await;
        let claims = read_by_others(scene, &token, &keys, Some(NONCE)).await.expect("verifies");
        assert_eq!(claims["ear_status"], "contraindicated");
        assert_eq!(claims["submods"]["device"]["ear_trustworthiness_vector"]["instance-identity"], 96);
        assert_eq!(claims["submods"]["device"]["attestd"]["reasons"][0], "revoked");
        drop(life);
    }
}

journey! {
    async fn a_key_is_published_before_it_signs_and_kept_after(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        let device_id = scene.api.device_id(&mac.serial()).await;
        let first = kids(&key_set(&scene).await);
        assert_eq!(first.len(), 1);
        let old = result(&scene, &device_id).await;
        assert_eq!(header_of(&old)["kid"], first[0].as_str());

        let (store, now) = (&scene.ctx().store, scene.now());
        let next = rotate(store, Algorithm::Es256, &Who::Service, now).await.expect("works").expect("a key");
        let refused = rotate(store, Algorithm::Es256, &Who::Service, now).await.expect("works");
        assert_eq!(refused, Err(Refusal::UnderWay(next.signs_from)));
        eventually("it is published", || async { kids(&key_set(&scene).await).len() == 2 }).await;
        assert_eq!(header_of(&result(&scene, &device_id).await)["kid"], first[0].as_str());

        scene.pass(Duration::from_secs(60 * 60));
        let new = result(&scene, &device_id).await;
        assert_eq!(header_of(&new)["kid"], next.jwk.kid.as_str());
        let keys = key_set(&scene).await;
        assert_eq!(kids(&keys).len(), 2, "what the old one signed may still be good");
        read_by_others(&scene, &new, &keys, Some(NONCE)).await.expect("verifies");

        // Nothing that the first one signed is good any more: it stays in the history only.
        scene.pass(Duration::from_secs(60 * 60));
        assert_eq!(kids(&key_set(&scene).await), std::slice::from_ref(&next.jwk.kid));
        let history = published(&scene, "/.well-known/jwks-history.json").await;
        let former = &history["keys"][0];
        assert_eq!((&former["kid"], &former["exp"]), (&json!(first[0]), &json!(next.signs_from.seconds())));
        assert_eq!(history["keys"][1].get("exp"), None);

        // In other hands: withdrawn at once, and another signs.
        let made = withdraw(store, &next.jwk.kid, &Who::Service, scene.now()).await.expect("works").expect("withdrawn");
        let made = made.expect("another");
        let again = withdraw(store, &next.jwk.kid, &Who::Service, scene.now()).await.expect("works");
        assert_eq!(again, Err(Refusal::Unknown));
        eventually("it is gone", || async { kids(&key_set(&scene).await) == std::slice::from_ref(&made.jwk.kid) }).await;
        assert_eq!(header_of(&result(&scene, &device_id).await)["kid"], made.jwk.kid.as_str());
        let history = published(&scene, "/.well-known/jwks-history.json").await;
        assert_eq!(history["keys"][1]["revoked_at"], scene.now().seconds());
        drop(life);
    }
}

journey! {
    async fn nothing_is_signed_for_who_may_not_ask_or_asks_wrongly(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let device_id = scene.api.device_id(&mac.serial()).await;
        // It has not answered yet.
        let problem = ask(&scene, &device_id, "").await;
        assert_eq!(problem.status(), 409);
        let problem: Value = problem.json().await.expect("JSON");
        assert_eq!(problem["type"], "/problems/not-appraised");

        assert_eq!(ask(&scene, "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ", "").await.status(), 404);
        let long = "A".repeat(100);
        for nonce in ["c2hvcnQ", "not*base64url", "cmVseWluZy1wYXJ0eQ==", &long] {
            assert_eq!(ask(&scene, &device_id, &format!("?nonce={nonce}")).await.status(), 400, "{nonce}");
        }
        let plain = scene.api.get(&format!("/internal/v1/devices/{device_id}/posture?nonce={NONCE}")).await;
        assert_eq!(plain.status(), 400, "only what is signed carries a nonce");
        let viewer = scene.api.with_token(scene.token("viewer"));
        let path = format!("/internal/v1/devices/{device_id}/posture");
        let refused = viewer.request(Method::GET, &path).header("accept", EAT).send().await.expect("an answer");
        assert_eq!(refused.status(), 403);
        for path in ["/v1/policies/00", "/v1/policies/x", &format!("/v1/policies/{}", "0".repeat(64))] {
            assert_eq!(scene.answer(scene.anybody(Method::GET, path)).await.status, 404, "{path}");
        }

        // A clock that is not believed signs nothing.
        scene.set_clock(scene.now().minus(Duration::from_secs(60 * 60)));
        assert_eq!(ask(&scene, &device_id, "").await.status(), 503);
    }
}

journey! {
    async fn an_operator_rotates_keys_while_the_server_runs(backend: Backend) {
        let scene = Scene::new(backend).await;
        let config = scene.config().to_str().expect("a path").to_owned();
        let run = |words: &[&str]| {
            let rest = ["--config", &config, "--insecure-http", "--json"];
            attestd(&[words, rest.as_slice()].concat())
        };
        let read = |words: &[&str]| -> Value {
            let said = run(words);
            assert!(said.status.success(), "{said:?}");
            serde_json::from_slice(&said.stdout).expect("JSON")
        };
        let listed = read(&["keys", "list"]);
        assert_eq!((listed["keys"].as_array().map(Vec::len), &listed["keys"][0]["signs"]), (Some(1), &json!(true)));
        let next = read(&["keys", "rotate"]);
        assert_eq!((&next["signs"], &next["alg"]), (&json!(false), &json!("ES256")));
        let again = run(&["keys", "rotate"]);
        let fault = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(!again.status.success() && fault.contains("signs from"), "{fault}");
        eventually("the server publishes it", || async {
            kids(&key_set(&scene).await).iter().any(|kid| next["kid"] == kid.as_str())
        }).await;
        let first = listed["keys"][0]["kid"].as_str().expect("text");
        let done = read(&["keys", "withdraw", first]);
        assert_eq!((&done["withdrawn"], &done["made"]["signs"]), (&json!(first), &json!(true)));
        // The one made meanwhile signs until the one that was planned does.
        let listed = read(&["keys", "list"]);
        assert_eq!(listed["keys"][2]["signs_until"], listed["keys"][1]["signs_from"]);
        for nobody in ["nobody", "-hidden", "--unknown"] {
            let refused = run(&["keys", "withdraw", nobody]);
            let fault = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && fault.contains("there is no such key"), "{fault}");
        }
        if backend == Kind::Sqlite {
            let shown = attestd(&["keys", "list", "--config", &config, "--insecure-http"]);
            let table = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(table.contains("withdrawn") && table.contains("signs until"), "{table}");
        }
    }
}
