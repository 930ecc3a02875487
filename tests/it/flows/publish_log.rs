//! Whatever is published can be found again in a log that only grows (B.7 of the coordinator's interface).

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestd::flows::append_to_log::{Log, append, head};
use attestd::flows::tell_log;
use attestd::transparency::note::{Kind, Note, VerifierKey};
use attestd::transparency::{Checkpoint, Proof, tree};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::inside::eventually;
use crate::harness::plane::Plane;
use crate::harness::scene::{Backend, Scene};

async fn text(scene: &Scene, path: &str) -> String {
    let answer = scene.answer(scene.anybody(Method::GET, path)).await;
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body.to_vec()).expect("text")
}

async fn key(scene: &Scene) -> String {
    text(scene, "/log/verifier-key").await.trim_end().to_owned()
}

fn log(scene: &Scene) -> &Log {
    scene.ctx().log.as_ref().expect("a log")
}

/// The entries as they are published, up to the newest head.
async fn entries(scene: &Scene) -> Vec<Value> {
    let note = text(scene, "/log/checkpoint").await;
    let head = Checkpoint::read(&Note::read(&note).expect("a note")).expect("a head");
    assert!(head.size < 256, "one tile");
    let path = format!("/log/tile/entries/000.p/{}", head.size);
    let tile = scene.answer(scene.anybody(Method::GET, &path)).await.body;
    let entries = attestd::transparency::tile::entries(&tile).expect("whole");
    entries
        .iter()
        .map(|entry| serde_json::from_slice(entry).expect("JSON"))
        .collect()
}

async fn of_kind(scene: &Scene, kind: &str) -> Vec<Value> {
    let mut entries = entries(scene).await;
    entries.retain(|entry| entry["type"] == kind);
    entries
}

/// What somebody finds who watches the log with the program of docs/verify.
async fn watched(scene: &Scene, key: &str, state: &Path) -> (Option<i32>, Value) {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify/log.py");
    let mut watcher = Command::new("/usr/bin/python3");
    watcher.args(["-B", program]).arg(scene.url("/log"));
    watcher.arg("--vkey").arg(key).arg("--state").arg(state);
    let said = watcher.output().await.expect("python3-cryptography");
    let found = serde_json::from_slice(&said.stdout);
    (
        said.status.code(),
        found.unwrap_or_else(|_| json!(String::from_utf8_lossy(&said.stderr))),
    )
}

fn state(scene: &Scene) -> PathBuf {
    scene.home.path().join("seen.checkpoint")
}

/// An operator does something.
async fn operate(scene: &Scene, path: &str, body: &Value) {
    let operator = scene.api.with_token(scene.token("operator"));
    let answer = operator.request(Method::POST, path).json(body).send().await;
    let status = answer.expect("an answer").status();
    assert!(status.is_success(), "{path}: {status}");
}

async fn told(scene: &Scene) {
    tell_log::run_once(scene.ctx()).await.expect("told");
}

journey! {
    async fn whoever_watches_the_log_sees_it_grow_and_nothing_else(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        told(scene).await;
        let key = key(scene).await;
        assert!(key.starts_with(scene.base_url.split_once("://").expect("a URL").1), "{key}");
        let (status, first) = watched(scene, &key, &state(scene)).await;
        assert_eq!((status, &first["verdict"], &first["grew_from"]), (Some(0), &json!("verified"), &Value::Null), "{first}");
        assert_eq!((&first["entries"]["policy"], &first["entries"]["jwks"]), (&json!(1), &json!(1)));

        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        told(scene).await;
        let (status, then) = watched(scene, &key, &state(scene)).await;
        assert_eq!((status, &then["grew_from"]), (Some(0), &first["size"]), "{then}");
        assert!(then["entries"]["posture"].as_u64() > Some(0), "{then}");

        // Another log under the same name, and one that forgot something.
        let forged = attestd::transparency::note::NoteSigner::new(key.split('+').next().expect("a name"), &[9; 32]);
        let (status, refused) = watched(scene, &forged.expect("a signer").verifier_key(), &state(scene)).await;
        assert_eq!((status, &refused["verdict"]), (Some(1), &json!("refused")), "{refused}");
        let seen = std::fs::read_to_string(state(scene)).expect("seen");
        let known = head(scene.ctx(), log(scene)).await.expect("read").expect("a head");
        assert_eq!(seen, known.note);
        std::fs::write(state(scene), seen.replace("\n\n", "\nmore\n\n")).expect("written");
        assert_eq!(watched(scene, &key, &state(scene)).await.0, Some(1));

        // The same by consistency proofs, from the tiles.
        let since = scene.home.path().join("since");
        let checked = async |vkey: &str| {
            let mut ours = Command::new(env!("CARGO_BIN_EXE_attestd"));
            ours.args(["verify", "log", &scene.url("/log"), "--vkey", vkey]);
            let said = ours.arg("--since").arg(&since).arg("--keep").arg(&since).output().await.expect("runs");
            let found: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            (said.status.code(), found)
        };
        assert_eq!(checked(&key).await.1["size"], then["size"]);
        for number in 0..300_u32 {
            append(scene.ctx(), log(scene), format!("{{\"type\":\"{number}\"}}").into_bytes()).await.expect("added");
            if number % 60 == 7 {
                let (status, grown) = checked(&key).await;
                assert_eq!((status, &grown["verdict"]), (Some(0), &json!("verified")), "{grown}");
                assert!(grown["grew_from"].as_u64() < grown["size"].as_u64(), "{grown}");
            }
        }
        let kept = std::fs::read_to_string(&since).expect("kept");
        let other = attestd::transparency::note::NoteSigner::new(key.split('+').next().expect("a name"), &[9; 32]);
        let other = other.expect("a signer");
        assert_eq!(checked(&other.verifier_key()).await.0, Some(1));
        assert_eq!(std::fs::read_to_string(&since).expect("kept"), kept, "what was refused is not kept");
    }
}

journey! {
    async fn what_is_in_use_is_said_once_and_again_when_it_changes(backend: Backend) {
        let scene = Scene::new(backend).await;
        told(&scene).await;
        told(&scene).await;
        let policy = of_kind(&scene, "policy").await;
        assert_eq!(policy.len(), 1);
        assert_eq!(policy[0]["sha256"], json!(scene.ctx().policy.sha256));
        let jwks = of_kind(&scene, "jwks").await;
        let history = text(&scene, "/.well-known/jwks-history.json").await;
        assert_eq!(jwks[0]["sha256"], json!(hex::encode(openssl::sha::sha256(history.as_bytes()))));
        assert_eq!(of_kind(&scene, "release").await, Vec::<Value>::new());

        let hash = "ab".repeat(32);
        let release = json!({ "binary_hash": hash, "version": "1.2.3" });
        operate(&scene, "/internal/v1/releases", &release).await;
        told(&scene).await;
        let registered = of_kind(&scene, "release").await;
        assert_eq!(registered.len(), 1);
        assert_eq!((&registered[0]["binary_hash"], &registered[0]["revoked"], &registered[0]["version"]),
            (&json!(hash), &json!(false), &json!("1.2.3")));
        operate(&scene, "/internal/v1/releases/revoke", &json!({ "binary_hash": hash, "reason": "a fault" })).await;
        told(&scene).await;
        told(&scene).await;
        let releases = of_kind(&scene, "release").await;
        assert_eq!((releases.len(), &releases[1]["revoked"]), (2, &json!(true)));
    }
}

journey! {
    async fn a_result_that_changes_is_said_though_nobody_asked_and_so_is_trust_withdrawn(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        told(scene).await;
        let (mac, life, _provider) = plane.routed().await;
        drop(life);
        eventually("it is said", async || {
            told(scene).await;
            !of_kind(scene, "posture").await.is_empty()
        }).await;
        let subject = of_kind(scene, "posture").await[0]["subject"].clone();

        let path = format!("/internal/v1/devices/{}/revoke", scene.api.device_id(&mac.serial()).await);
        operate(scene, &path, &json!({ "reason": "stolen" })).await;
        told(scene).await;
        told(scene).await;
        let withdrawn = of_kind(scene, "revocation").await;
        assert_eq!((withdrawn.len(), &withdrawn[0]["subject"], &withdrawn[0]["epoch"]), (1, &subject, &json!(1)));
        // Nothing names the Mac.
        let all = json!(entries(scene).await).to_string();
        assert!(!all.contains(&mac.serial()) && !all.contains(&scene.api.device_id(&mac.serial()).await), "{all}");
    }
}

journey! {
    async fn many_at_once_are_added_together_each_with_its_proof(backend: Backend) {
        let scene = Scene::new(backend).await;
        let log = log(&scene);
        let add = |number: u32| append(scene.ctx(), log, number.to_be_bytes().to_vec());
        // One that goes away takes nobody with it.
        drop(add(1_000_000));
        let added = futures_util::future::join_all((0..300).map(add)).await;
        let key = key(&scene).await;
        let key = VerifierKey::read(&key, Kind::Log).expect("a key");
        let mut heads = Vec::new();
        for (number, logged) in (0_u32..).zip(added) {
            let logged = logged.expect("added");
            assert_eq!(logged.entry, number.to_be_bytes());
            let proof = Proof::read(&logged.proof).expect("a proof");
            let note = Note::read(proof.checkpoint).expect("a note");
            assert_eq!(note.is_signed_by(&key), Some(true));
            let head = Checkpoint::read(&note).expect("a head");
            let leaf = tree::leaf(&logged.entry);
            let root = tree::root_of_inclusion(leaf, proof.index, head.size, &proof.hashes);
            assert_eq!(root, Some(head.root));
            heads.push(head.size);
        }
        heads.dedup();
        assert!(heads.len() < 100, "{heads:?}");

        // What is whole is kept for ever, what is not is not there.
        let get = async |path: &str| scene.answer(scene.anybody(Method::GET, path)).await;
        for path in ["/log/tile/0/000", "/log/tile/entries/000"] {
            let answer = get(path).await;
            assert_eq!(answer.status, 200);
            assert!(answer.header("cache-control").contains("immutable"));
        }
        assert_eq!(get("/log/tile/1/000.p/1").await.body.len(), 32);
        for path in ["/log/tile/0/001", "/log/tile/1/000", "/log/tile/1/000.p/2", "/log/tile/0/x001/001", "/log/tile/data/000",
            "/log/tile/0/000.p/0", "/log/tile/entries/000.p/256"] {
            assert_eq!(get(path).await.status, 404, "{path}");
        }
    }
}

journey! {
    async fn nothing_is_dated_by_a_clock_that_is_not_believed(backend: Backend) {
        let scene = Scene::new(backend).await;
        told(&scene).await;
        let now = scene.now();
        scene.set_clock(now.minus(Duration::from_secs(60 * 60)));
        let release = json!({ "binary_hash": "ab".repeat(32), "version": "1.2.3" });
        operate(&scene, "/internal/v1/releases", &release).await;
        told(&scene).await;
        assert_eq!(of_kind(&scene, "release").await, Vec::<Value>::new());
        scene.set_clock(now);
        eventually("it is said", async || {
            told(&scene).await;
            of_kind(&scene, "release").await.len() == 1
        }).await;
    }
}

#[tokio::test]
async fn two_nodes_on_one_postgresql_add_to_one_log() {
    let scene = Scene::new(Backend::PostgreSql).await;
    let other = scene.second_node().await;
    let add = async |ctx: &attestd::flows::Context, by: u8| {
        let log = ctx.log.as_ref().expect("a log");
        for number in 0..20 {
            append(ctx, log, vec![by, number]).await.expect("added");
        }
    };
    tokio::join!(add(scene.ctx(), 1), add(&other, 2));
    let both = async || {
        tokio::try_join!(tell_log::run_once(scene.ctx()), tell_log::run_once(&other)).map(drop)
    };
    both().await.expect("told");
    both().await.expect("told");
    let tx = scene.ctx().store.read().await.expect("reads");
    let entries = tx.log_entries(0..1000).await.expect("entries");
    let by_hand = entries.iter().filter(|entry| entry.len() == 2).count();
    assert_eq!(by_hand, 40);
    let newest = tx.log_head().await.expect("reads").expect("a head");
    let newest = Note::read(&newest).and_then(|note| Checkpoint::read(&note));
    let size = usize::try_from(newest.expect("a head").size);
    assert_eq!(size, Ok(entries.len()));
    let policies = entries
        .iter()
        .filter(|entry| String::from_utf8_lossy(entry).contains("\"policy\""));
    assert_eq!(policies.count(), 1, "what two see is said once");
}

journey! {
    async fn a_service_without_a_log_shows_none(backend: Backend) {
        let plane = Plane::changed(backend, &[("release = true", "release = false")], "[transparency]\nenabled = false\n").await;
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        let scene = &plane.scene;
        for path in ["/log/checkpoint", "/log/verifier-key", "/log/tile/0/000.p/1"] {
            assert_eq!(scene.answer(scene.anybody(Method::GET, path)).await.status, 404);
        }
    }
}
