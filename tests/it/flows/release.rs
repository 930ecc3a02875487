//! Releases of the provider software are registered, withdrawn and read by everybody
//! (coordinator-and-standards A.12; its issues 150 and 745 want the history that was missing).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use attestd::provider::{BinaryHash, Platform};
use attestd::reason::Reason;
use attestd_sim::MacSpec;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::internal_api::InternalApi;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::{Scene, attestd};

const KEY: &str = "8c1f0b6e4d2a97530ace8642fdb97531-build";
const PATH: &str = "/internal/v1/releases";

fn hash(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn registration(version: &str, byte: u8) -> Value {
    json!({
        "version": version, "platform": "macos-arm64", "backend": "mlx-swift", "binary_hash": hash(byte),
        "bundle_hash": hash(byte ^ 0xff), "metallib_hash": hash(0x33), "template_hashes": format!("chat={}", hash(7)),
        "url": format!("https://releases.example.org/v{version}/bundle.tar.gz"), "changelog": "Faster.",
    })
}

fn keep_key(folder: &Path, key: &str, mode: u32) -> String {
    let path = folder.join("release.key");
    fs::write(&path, format!("{key}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    path.display().to_string()
}

async fn post(api: &InternalApi, path: &str, body: &Value) -> (u16, Value) {
    let answer = api
        .request(Method::POST, path)
        .json(body)
        .send()
        .await
        .expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn public(scene: &Scene, path: &str) -> Value {
    let answer = scene.answer(scene.anybody(Method::GET, path)).await;
    assert_eq!(answer.status, 200, "{path}");
    answer.json()
}

/// Waits until the public list says this of the program.
async fn listed(scene: &Scene, hash: &str, standing: &str) -> Value {
    eventually(standing, || async {
        entry(&public(scene, "/v1/releases").await, hash)["standing"] == standing
    })
    .await;
    entry(&public(scene, "/v1/releases").await, hash)
}

fn entry(list: &Value, hash: &str) -> Value {
    let entries = list["releases"].as_array().expect("a list");
    let found = entries.iter().find(|entry| entry["binary_hash"] == hash);
    found.cloned().unwrap_or_default()
}

async fn standing(scene: &Scene, hash: &str) -> Result<(), Reason> {
    let hash = BinaryHash::parse(hash).expect("a hash");
    let tx = scene.ctx().store.read().await.expect("a store");
    let standing = tx
        .glimpse()
        .release_standing(&hash, &Platform::default())
        .await;
    standing.expect("answers")
}

journey! {
    async fn a_build_machine_registers_what_everybody_then_sees(backend: Backend) {
        let home = tempfile::tempdir().expect("a folder");
        let key = keep_key(home.path(), KEY, 0o600);
        let scene = Scene::configured(backend, &format!("[releases]\nkey_file = \"{key}\"\n")).await;
        assert_eq!(public(&scene, "/v1/releases").await, json!({ "releases": [] }));
        let none = scene.answer(scene.anybody(Method::GET, "/v1/releases/latest")).await;
        assert_eq!((none.status, none.header("content-type")), (404, "application/problem+json"));

        let build = scene.api.with_token(KEY.to_owned());
        let body = registration("0.8.16", 0xaa);
        let (status, answer) = post(&build, PATH, &body).await;
        assert_eq!((status, &answer["status"], &answer["changed"]),
            (200, &json!("release_registered"), &json!(true)), "{answer}");
        for (name, value) in body.as_object().expect("an object") {
            assert_eq!(&answer["release"][name], value, "{name}");
        }
        assert_eq!((&answer["release"]["active"], &answer["release"]["created_at"]),
            (&json!(true), &json!(scene.now().to_string())));
        assert_eq!(standing(&scene, &hash(0xaa)).await, Ok(()));
        assert_eq!(standing(&scene, &hash(0xab)).await, Err(Reason::ReleaseUnknown));

        let told = listed(&scene, &hash(0xaa), "active").await;
        assert_eq!((&told["version"], &told["registered_at"], &told["revoked_at"]),
            (&json!("0.8.16"), &json!(scene.now().to_string()), &json!(null)));
        // The history names who did what; the world is told what, not who.
        assert!(!told.to_string().contains("key_file"));
        for path in ["/v1/releases/latest", "/v1/releases/latest?platform=macos-arm64&from=0.8.0"] {
            assert_eq!(public(&scene, path).await, answer["release"], "{path}");
        }
        for (path, status) in [("?platform=linux-x86", 404), ("?platform=../etc", 400)] {
            let path = format!("/v1/releases/latest{path}");
            assert_eq!(scene.answer(scene.anybody(Method::GET, &path)).await.status, status, "{path}");
        }

        // Said again, by whom ever, it is the same.
        scene.pass(std::time::Duration::from_secs(60));
        let operator = scene.api.with_token(scene.token("operator"));
        for api in [&build, &operator] {
            let (status, again) = post(api, PATH, &body).await;
            assert_eq!((status, &again["changed"], &again["release"]), (200, &json!(false), &answer["release"]));
        }
        let registry = operator.json(PATH).await;
        assert_eq!(registry["history"].as_array().map(Vec::len), Some(1));
        assert_eq!((&registry["history"][0]["action"], &registry["history"][0]["who"]),
            (&json!("registered"), &json!("release key")));
        assert_eq!(registry["releases"], json!([answer["release"]]));
        let events = scene.ctx().store.events_after(0, 100).await.expect("events");
        let told: Vec<_> = events.iter().map(|one| (one.device_id.as_ref(), one.event.name.as_str())).collect();
        assert_eq!(told, [(None, "release.changed")]);
        assert_eq!(events[0].event.body, json!({
            "binary_hash": hash(0xaa), "platform": "macos-arm64", "version": "0.8.16", "standing": "active",
        }));
    }
}

journey! {
    async fn who_may_not_or_says_it_wrong_registers_nothing(backend: Backend) {
        let home = tempfile::tempdir().expect("a folder");
        let key = keep_key(home.path(), KEY, 0o600);
        let scene = Scene::configured(backend, &format!("[releases]\nkey_file = \"{key}\"\n")).await;
        let body = registration("0.8.16", 0xaa);
        for role in ["coordinator", "auditor", "viewer"] {
            let api = scene.api.with_token(scene.token(role));
            assert_eq!(post(&api, PATH, &body).await.0, 403, "{role}");
            // What is registered is no secret to anybody with a token.
            assert_eq!(api.get(PATH).await.status(), 200, "{role}");
        }
        for wrong in ["", &KEY[1..], &KEY.to_uppercase()] {
            let api = scene.api.with_token(wrong.to_owned());
            assert_eq!(post(&api, PATH, &body).await.0, 401, "{wrong}");
        }
        // The key of a machine that builds registers, and does nothing else.
        let build = scene.api.with_token(KEY.to_owned());
        let withdrawal = json!({ "version": "0.8.16", "reason": "a mistake" });
        assert_eq!(post(&build, "/internal/v1/releases/revoke", &withdrawal).await.0, 401);
        for path in [PATH, "/internal/v1/status", "/internal/v1/devices?serial_number=C02XL3FHJG5J"] {
            assert_eq!(build.get(path).await.status(), 401, "{path}");
        }

        let with = |name: &str, value: Value| {
            let mut changed = body.clone();
            changed[name] = value;
            changed
        };
        for bad in [
            with("flavour", json!("mint")),
            with("binary_hash", json!(hash(0xaa).to_uppercase())),
            with("binary_hash", json!(null)),
            with("version", json!("8")),
            with("url", json!("http://releases.example.org/")),
            with("metallib_hash", json!("")),
            with("template_hashes", json!("chat")),
            json!([body]),
        ] {
            let (status, problem) = post(&build, PATH, &bad).await;
            assert_eq!((status, &problem["type"], &problem["reason"]),
                (400, &json!("/problems/invalid-request"), &json!("request_malformed")), "{bad}");
        }
        let (status, problem) = post(&build, PATH, &with("changelog", json!("x".repeat(70_000)))).await;
        assert_eq!((status, &problem["type"]), (413, &json!("/problems/request-too-large")));
        assert_eq!(scene.refusals("release", "request_malformed").await, 8);
        assert_eq!(scene.refusals("release", "request_too_large").await, 1);
        assert_eq!(public(&scene, "/v1/releases").await, json!({ "releases": [] }));
        // Not on the public listener, whoever asks.
        let request = scene.anybody(Method::POST, "/v1/releases").bearer_auth(KEY).json(&body);
        assert_eq!(scene.answer(request).await.status, 405);
    }
}

journey! {
    async fn a_withdrawal_is_for_good_and_stays_in_sight(backend: Backend) {
        let scene = Scene::new(backend).await;
        let operator = scene.api.with_token(scene.token("operator"));
        let revoke = "/internal/v1/releases/revoke";
        for (version, byte) in [("0.8.15", 0xa5), ("0.8.16", 0xa6), ("0.9.0-beta.1", 0xb1)] {
            assert_eq!(post(&operator, PATH, &registration(version, byte)).await.0, 200, "{version}");
        }
        listed(&scene, &hash(0xb1), "active").await;
        assert_eq!(public(&scene, "/v1/releases/latest").await["version"], "0.8.16");

        for (bad, status, reason) in [
            (json!({ "version": "0.8.16", "reason": " " }), 400, "request_malformed"),
            (json!({ "version": "0.8.17", "reason": "never was" }), 404, "release_unknown"),
            (json!({ "binary_hash": hash(0xa6), "platform": "linux", "reason": "r" }), 404, "release_unknown"),
        ] {
            let (found, problem) = post(&operator, revoke, &bad).await;
            assert_eq!((found, &problem["reason"]), (status, &json!(reason)), "{bad}");
        }
        for bad in [
            json!({ "version": "0.8.16" }),
            json!({ "reason": "all of them" }),
            json!({ "version": "0.8.16", "binary_hash": hash(0xa6), "reason": "both" }),
            json!({ "version": "0.8.16", "reason": "r", "why": "r" }),
            json!(["0.8.16"]),
        ] {
            assert_eq!(post(&operator, revoke, &bad).await.0, 400, "{bad}");
        }
        let withdrawal = json!({ "binary_hash": hash(0xa6), "reason": "leaks prompts" });
        assert_eq!(post(&scene.api, revoke, &withdrawal).await.0, 403, "a coordinator");
        assert_eq!(standing(&scene, &hash(0xa6)).await, Ok(()));

        scene.pass(std::time::Duration::from_secs(60));
        let at = scene.now().to_string();
        let (status, answer) = post(&operator, revoke, &withdrawal).await;
        assert_eq!((status, &answer["status"], &answer["changed"]), (200, &json!("release_revoked"), &json!(true)));
        assert_eq!(answer["releases"][0]["active"], false);
        assert_eq!(standing(&scene, &hash(0xa6)).await, Err(Reason::ReleaseRevoked));
        let told = listed(&scene, &hash(0xa6), "revoked").await;
        assert_eq!((&told["revoked_at"], &told["revocation_reason"]), (&json!(at), &json!("leaks prompts")));
        assert_eq!(public(&scene, "/v1/releases/latest").await["version"], "0.8.15");

        // Once more, and by another name: the first time and reason stand.
        scene.pass(std::time::Duration::from_secs(60));
        let (_, again) = post(&operator, revoke, &json!({ "version": "0.8.16", "reason": "other" })).await;
        assert_eq!((&again["changed"], &again["releases"]), (&json!(false), &answer["releases"]));
        let (status, problem) = post(&operator, PATH, &registration("0.8.16", 0xa6)).await;
        assert_eq!((status, &problem["type"], &problem["reason"]),
            (409, &json!("/problems/release-revoked"), &json!("release_revoked")));
        let (status, problem) = post(&operator, PATH, &registration("0.8.99", 0xa5)).await;
        assert_eq!((status, &problem["type"]), (409, &json!("/problems/release-differs")));
        let history = operator.json(PATH).await["history"].clone();
        let done: Vec<_> = history.as_array().expect("a list").iter()
            .map(|entry| (entry["action"].as_str().expect("a word"), entry["version"].as_str().expect("a version")))
            .collect();
        assert_eq!(done, [("registered", "0.8.15"), ("registered", "0.8.16"), ("registered", "0.9.0-beta.1"),
            ("revoked", "0.8.16")]);
        assert_eq!(history[3]["why"], "leaks prompts");
        assert!(history[3]["who"].as_str().is_some_and(|who| who.starts_with("tok_") && who.ends_with("(test)")));
    }
}

journey! {
    async fn a_release_that_changes_touches_no_mac(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        let before = scene.kept(&mac).await;
        let operator = scene.api.with_token(scene.token("operator"));
        assert_eq!(post(&operator, PATH, &registration("1.0.0", 1)).await.0, 200);
        let withdrawal = json!({ "version": "1.0.0", "reason": "a story" });
        assert_eq!(post(&operator, "/internal/v1/releases/revoke", &withdrawal).await.0, 200);
        scene.sweep().await;
        assert_eq!(scene.kept(&mac).await, before);
    }
}

journey! {
    async fn of_many_who_register_at_once_one_does(backend: Backend) {
        let scene = Scene::new(backend).await;
        let operator = scene.api.with_token(scene.token("operator"));
        let body = registration("1.0.0", 1);
        let all = (0..12).map(|_| post(&operator, PATH, &body));
        let answers = futures_util::future::join_all(all).await;
        let changed = answers.iter().filter(|(_, answer)| answer["changed"] == true).count();
        assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
        assert_eq!(changed, 1);
        assert_eq!(operator.json(PATH).await["history"].as_array().map(Vec::len), Some(1));
    }
}

journey! {
    async fn what_is_public_is_told_once_and_kept_in_memory(backend: Backend) {
        let scene = Scene::new(backend).await;
        let operator = scene.api.with_token(scene.token("operator"));
        assert_eq!(post(&operator, PATH, &registration("1.0.0", 1)).await.0, 200);
        listed(&scene, &hash(1), "active").await;
        let of = format!("/v1/releases/{}", hash(1));
        for path in ["/v1/releases", "/v1/releases/latest", &of] {
            let answer = scene.answer(scene.anybody(Method::GET, path)).await;
            assert_eq!(answer.header("cache-control"), "public, max-age=60");
            let digest = openssl::base64::encode_block(&openssl::sha::sha256(&answer.body));
            assert_eq!(answer.header("content-digest"), format!("sha-256=:{digest}:"));
            let tag = answer.header("etag").to_owned();
            for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
                let request = scene.anybody(Method::GET, path).header("if-none-match", &known);
                let unchanged = scene.answer(request).await;
                assert_eq!((unchanged.status, unchanged.header("etag"), unchanged.body.len()),
                    (304, tag.as_str(), 0), "{known}");
            }
            let request = scene.anybody(Method::GET, path).header("if-none-match", "\"x\"");
            assert_eq!(scene.answer(request).await.status, 200);
        }
        let tag = scene.answer(scene.anybody(Method::GET, "/v1/releases")).await.header("etag").to_owned();
        assert_eq!(post(&operator, PATH, &registration("1.0.1", 2)).await.0, 200);
        listed(&scene, &hash(2), "active").await;
        let request = scene.anybody(Method::GET, "/v1/releases").header("if-none-match", tag);
        assert_eq!(scene.answer(request).await.status, 200);
    }
}

journey! {
    async fn whoever_has_the_hash_of_a_program_finds_what_became_of_it(backend: Backend) {
        let scene = Scene::new(backend).await;
        let operator = scene.api.with_token(scene.token("operator"));
        for (version, number) in [("1.0.0", 1), ("1.0.1", 0xab)] {
            assert_eq!(post(&operator, PATH, &registration(version, number)).await.0, 200);
        }
        let whole = listed(&scene, &hash(0xab), "active").await;
        let path = format!("/v1/releases/{}", hash(0xab));
        assert_eq!(public(&scene, &path).await, json!({ "releases": [whole] }));
        // The same program for another platform.
        let mut other = registration("1.0.1", 0xab);
        other["platform"] = json!("macos-x64");
        assert_eq!(post(&operator, PATH, &other).await.0, 200);
        eventually("both", async || public(&scene, &path).await["releases"].as_array().is_some_and(|both| both.len() == 2)).await;

        let withdrawal = json!({ "version": "1.0.1", "reason": "It leaks." });
        let revoke = "/internal/v1/releases/revoke";
        assert_eq!(post(&operator, revoke, &withdrawal).await.0, 200);
        listed(&scene, &hash(0xab), "revoked").await;
        let told = public(&scene, &path).await;
        let told = entry(&told, &hash(0xab));
        assert_eq!((&told["standing"], &told["revocation_reason"]), (&json!("revoked"), &json!("It leaks.")));
        for nothing in [hash(3), hash(0xab).to_uppercase(), "none".to_owned(), "..".to_owned()] {
            let answer = scene.answer(scene.anybody(Method::GET, &format!("/v1/releases/{nothing}"))).await;
            assert_eq!(answer.status, 404, "{nothing}");
        }
    }
}

journey! {
    async fn the_command_works_beside_the_running_server(backend: Backend) {
        let scene = Scene::new(backend).await;
        let config = scene.config().to_str().expect("a path").to_owned();
        let run = |arguments: &[&str]| {
            let (verb, rest) = arguments.split_first().expect("a verb");
            let all = [&["release", verb, "--insecure-http", "--config", config.as_str()], rest].concat();
            let output = attestd(&all);
            let shown = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            (output.status.code(), shown, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, made, _) = run(&["add", "--json", "--version", "1.0.0", "--binary-hash", &hash(1)]);
        assert_eq!((code, &made["changed"]), (Some(0), &json!(true)));
        let file = scene.home.path().join("release.json");
        fs::write(&file, registration("1.0.1", 2).to_string()).expect("written");
        let (code, made, _) = run(&["add", "--json", "--file", file.to_str().expect("a path")]);
        assert_eq!((code, &made["release"]["changelog"]), (Some(0), &json!("Faster.")));
        listed(&scene, &hash(2), "active").await;

        let (code, done, _) = run(&["revoke", "1.0.1", "--reason", "a story", "--json"]);
        assert_eq!((code, &done["status"], &done["changed"]), (Some(0), &json!("release_revoked"), &json!(true)));
        listed(&scene, &hash(2), "revoked").await;
        let (code, again, _) = run(&["revoke", &hash(2), "--reason", "another", "--json"]);
        assert_eq!((code, &again["changed"]), (Some(0), &json!(false)));
        let (_, list, _) = run(&["list", "--json"]);
        let operator = scene.api.with_token(scene.token("operator"));
        assert_eq!(list, operator.json(PATH).await);
        let who = list["history"][2]["who"].as_str().expect("text");
        assert!(who.starts_with("command line ("), "{who}");

        for (bad, words) in [
            (&["revoke", "3.0.0", "--reason", "r"][..], "no such release"),
            (&["revoke", "newest", "--reason", "r"], "neither"),
            (&["add", "--version", "1.0.1", "--binary-hash", &hash(2)], "withdrawn"),
            (&["add", "--version", "7.0.0", "--binary-hash", &hash(1)], "registered otherwise"),
            (&["add", "--version", "1", "--binary-hash", &hash(5)], "version"),
        ] {
            let (code, _, fault) = run(bad);
            assert!(code == Some(1) && fault.contains(words), "{bad:?}: {fault}");
        }
        let (code, ..) = run(&["revoke", "1.0.0"]);
        assert_eq!(code, Some(2), "a withdrawal has a reason");
    }
}

journey! {
    async fn a_session_is_routed_to_while_its_program_is_released(backend: Backend) {
        let plane = Plane::changed(backend, &[], "").await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life) = plane.mac_of(Some(OWNER)).await;
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, Some(OWNER)).await;
        plane.once("s", "hardware", |it| it["trust_level"] == "hardware").await;
        assert_eq!(api.challenge("s", &provider).await["routable"], false);
        drop(life);
        let unknown = api.binding("s").await;
        assert_eq!((&unknown["routable"], &unknown["reasons"]), (&json!(false), &json!(["release_unknown"])));
        let before = scene.kept(&mac).await;

        // Registered by a command beside the server, which takes note by itself.
        let config = scene.config().to_str().expect("a path");
        let beside = ["--insecure-http", "--config", config];
        let program = hash(0xa1);
        let add = ["release", "add", "--version", "0.8.16", "--binary-hash", &program];
        assert!(attestd(&[&add[..], &beside].concat()).status.success());
        let routable = plane.once("s", "released", |it| it["routable"] == true).await;
        assert_eq!((&routable["trust_level"], &routable["reasons"]), (&json!("hardware"), &json!([])));

        // A policy is checked with the sessions there are.
        let at = scene.now().to_string();
        let check = ["policy", "check", "darkbloom-2026", "--json", "--at", &at, "--against", &mac.serial()];
        let checked = attestd(&[&check[..], &beside].concat());
        let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
        assert_eq!((&checked["device"]["session_assumed"], &checked["device"]["in_force"]["routable"]),
            (&json!(false), &json!(true)), "{checked:#}");
        let demands = checked["explanation"]["demands"].as_array().expect("demands");
        let release = demands.iter().find(|it| it["demand"] == "routing.release").expect("a demand");
        assert_eq!(release["in_force"], json!({ "demanded": true, "met": true, "reasons": [] }));

        // Withdrawn by an operator: over with the answer.
        let operator = api.with_token(scene.token("operator"));
        let withdrawal = json!({ "version": "0.8.16", "reason": "leaks prompts" });
        assert_eq!(post(&operator, "/internal/v1/releases/revoke", &withdrawal).await.0, 200);
        let withdrawn = api.binding("s").await;
        assert_eq!((&withdrawn["routable"], &withdrawn["reasons"], &withdrawn["routable_until"]),
            (&json!(false), &json!(["release_revoked"]), &json!(null)));
        // The Mac, and how far it is trusted, are what they were.
        assert_eq!(withdrawn["trust_level"], "hardware");
        assert_eq!(scene.kept(&mac).await, before);
    }
}

#[test]
fn a_weak_release_key_keeps_the_service_from_starting() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let folder = folder.to_str().expect("a path");
    let made = attestd(&["init", folder, "--base-url", "https://mdm.example.org"]);
    assert!(made.status.success());
    let config = format!("{folder}/attestd.toml");
    let settings = fs::read_to_string(&config).expect("settings");
    for (key, mode, words) in [
        ("change-me", 0o600, "openssl rand"),
        (&"z".repeat(40), 0o600, "repeats itself"),
        (KEY, 0o644, "0600"),
    ] {
        let key = keep_key(home.path(), key, mode);
        fs::write(
            &config,
            format!("{settings}[releases]\nkey_file = \"{key}\"\n"),
        )
        .expect("written");
        for (verb, code) in [("serve", 1), ("check-config", 64)] {
            let refused = attestd(&[verb, "--config", &config]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(code), "{said}");
            assert!(
                said.contains(words) && said.contains("releases.key_file"),
                "{said}"
            );
        }
    }
}
