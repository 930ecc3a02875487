//! An auditor finds who changed what, checks that this is all, and takes it along to check elsewhere.

use std::collections::BTreeSet;
use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::scene::{Scene, attestd};

const AUDIT: &str = "/internal/v1/audit";

fn says(scene: &Scene, words: &[&str]) -> Output {
    let config = scene.config().to_str().expect("UTF-8");
    attestd(&[words, &["--insecure-http", "--config", config]].concat())
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).expect("JSON")
}

/// What an export says was done, in its order.
fn words(export: &str) -> Vec<String> {
    let word = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["entry"]["what"].as_str().expect("a word").to_owned()
    };
    export.lines().map(word).collect()
}

journey! {
    async fn whatever_administrators_change_is_told_and_no_secret_is(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        mac.install_profile(&delivered.profile).await.expect("enrols");
        let device_id = scene.device_id(&mac).await;
        let mut secrets = Vec::new();

        // By commands, beside the running server.
        let token = json(&says(&scene, &["token", "create", "--json", "--role", "operator", "--label", "night shift"]));
        let secret = token["token"].as_str().expect("a token").to_owned();
        let token_id = token["token_id"].as_str().expect("an id").to_owned();
        secrets.push(secret.clone());
        let hook = ["webhook", "add", "siem", "https://siem.example.org/in/canary-path", "--events", "device.revoked", "--json"];
        secrets.push(json(&says(&scene, &hook))["secret"].as_str().expect("a secret").to_owned());
        secrets.push("canary-path".to_owned());
        text(&says(&scene, &["webhook", "replay", "siem", "--dead"]));
        text(&says(&scene, &["webhook", "remove", "siem"]));
        let receiver = json(&says(&scene, &["receiver", "add", "crm", "--audience", "https://crm.example.org", "--json"]));
        secrets.push(receiver["client_secret"].as_str().expect("a secret").to_owned());
        text(&says(&scene, &["receiver", "remove", "crm"]));
        let key = json(&says(&scene, &["keys", "rotate", "--json"]))["kid"].as_str().expect("a key").to_owned();
        text(&says(&scene, &["keys", "withdraw", &key]));
        let ticket = json(&says(&scene, &["ticket", "--account", "alice", "--json"]));
        let claim = ticket["enroll_url"].as_str().and_then(|url| url.rsplit('/').next());
        secrets.push(claim.expect("a claim").to_owned());
        text(&says(&scene, &["push-cert", "request"]));

        // By the internal API, with that token.
        let operator = scene.api.with_token(secret);
        let send = async |path: String, body: Value| {
            let answer = operator.request(Method::POST, &path).json(&body).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{path} {}", answer.status());
        };
        let device = format!("/internal/v1/devices/{device_id}");
        send(format!("{device}/revoke"), json!({ "reason": "stolen" })).await;
        send(format!("{device}/restore"), json!({ "reason": "found" })).await;
        let hash = "ab".repeat(32);
        let release = json!({ "version": "1.0.0", "platform": "macos-arm64", "binary_hash": hash });
        send("/internal/v1/releases".to_owned(), release.clone()).await;
        // The same again changes nothing, and nothing is told.
        send("/internal/v1/releases".to_owned(), release).await;
        send("/internal/v1/releases/revoke".to_owned(), json!({ "binary_hash": hash, "reason": "It leaks." })).await;
        send("/internal/v1/tickets".to_owned(), json!({ "account": "bob" })).await;
        send("/internal/v1/clock/accept".to_owned(), json!({ "reason": "looked at it" })).await;
        text(&says(&scene, &["token", "revoke", &token_id]));

        let export = text(&says(&scene, &["audit", "export"]));
        let told = words(&export);
        let expected = [
            "token.create", "webhook.add", "webhook.replay", "webhook.remove", "receiver.add", "receiver.remove",
            "result_key.rotate", "result_key.withdraw", "ticket.create", "push_certificate.request", "device.revoke",
            "device.restore", "release.register", "release.revoke", "ticket.create", "clock.accept", "token.revoke",
        ];
        assert_eq!(told[told.len() - expected.len()..], expected);
        // What was before the journey began: the server was set up, by commands and by itself.
        let before: BTreeSet<_> = told[..told.len() - expected.len()].iter().map(String::as_str).collect();
        for word in ["server.begin", "policy.use", "result_key.make", "push_certificate.install", "token.create"] {
            assert!(before.contains(word), "{word} {before:?}");
        }
        for secret in &secrets {
            assert!(secret.len() > 8 && !export.contains(secret.as_str()), "{secret}");
        }

        // Who, from what to what, and why.
        let of_mac = json(&says(&scene, &["audit", "list", "--json", "--subject", device_id.as_str()]));
        let entries = of_mac["entries"].as_array().expect("entries");
        let revoked = &entries[0]["entry"];
        assert_eq!(revoked["who"], json!({ "kind": "token", "id": token_id, "label": "night shift" }));
        assert_eq!((&revoked["why"], &revoked["before"]["revocation_epoch"], &revoked["after"]["revocation_epoch"]),
            (&json!("stolen"), &json!(0), &json!(1)));
        assert_eq!((entries.len(), &entries[1]["entry"]["what"]), (2, &json!("device.restore")));
        assert!(text(&says(&scene, &["audit", "list"])).contains("command line ("));
    }
}

journey! {
    async fn an_auditor_reads_page_by_page_and_nobody_else_does(backend: Backend) {
        let scene = Scene::new(backend).await;
        for (role, status) in [("viewer", 403), ("coordinator", 403), ("auditor", 200), ("operator", 200)] {
            let api = scene.api.with_token(scene.token(role));
            let answer = api.request(Method::GET, AUDIT).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{role}");
            if status == 403 {
                let problem: Value = answer.json().await.expect("a problem");
                assert_eq!(problem["detail"], "it takes the role operator or auditor");
            }
        }
        let auditor = scene.api.with_token(scene.token("auditor"));
        let whole = auditor.json(&format!("{AUDIT}?limit=1000")).await;
        let all = whole["entries"].as_array().expect("entries");
        assert!(all.len() > 4 && whole["next"].is_null(), "{whole}");
        let mut after = 0;
        let mut paged = Vec::new();
        loop {
            let page = auditor.json(&format!("{AUDIT}?after={after}&limit=2")).await;
            assert_eq!(page["head"], whole["head"]);
            paged.extend(page["entries"].as_array().expect("entries").clone());
            match page["next"].as_i64() {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(&paged, all);
        for bad in ["limit=0", "limit=1001", "after=x", "more=1"] {
            let answer = auditor.request(Method::GET, &format!("{AUDIT}?{bad}")).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 400, "{bad}");
        }
        let verified = json(&says(&scene, &["audit", "verify", "--json"]));
        assert_eq!((&verified["whole"], &verified["head"]), (&json!(true), &whole["head"]));
    }
}

journey! {
    async fn an_export_is_checked_without_a_server(backend: Backend) {
        let scene = Scene::new(backend).await;
        let export = text(&says(&scene, &["audit", "export"]));
        let head = json(&says(&scene, &["audit", "verify", "--json"]))["head"].as_str().expect("a head").to_owned();
        let file = scene.home.path().join("audit.jsonl");
        let path = file.to_str().expect("UTF-8");
        let check = |content: &str, more: &[&str]| {
            std::fs::write(&file, content).expect("written");
            let output = attestd(&[&["audit", "verify", "--json", "--file", path], more].concat());
            let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            (output.status.code(), said["reason"].as_str().unwrap_or_default().to_owned())
        };
        let good = (Some(0), String::new());
        assert_eq!(check(&export, &["--head", &head]), good);
        let lines: Vec<_> = export.lines().collect();
        let first: Value = serde_json::from_str(lines[0]).expect("JSON");
        let known = format!("1:{}", first["hash"].as_str().expect("a hash"));
        assert_eq!(check(&lines[1..].join("\n"), &["--after", &known, "--head", &head]), good);

        let refused = |reason: &str| (Some(1), reason.to_owned());
        assert_eq!(check(&export.replace("server.begin", "policy.use"), &[]), refused("entry_changed"));
        assert_eq!(check(&lines[1..].join("\n"), &[]), refused("wrong_beginning"));
        assert_eq!(check(&[&lines[..1], &lines[2..]].concat().join("\n"), &[]), refused("gap"));
        let cut = lines[..lines.len() - 1].join("\n");
        assert_eq!(check(&cut, &[]), good);
        assert_eq!(check(&cut, &["--head", &head]), refused("truncated"));
        let other = format!("{}:{}", head.split(':').next().unwrap_or_default(), "0".repeat(64));
        assert_eq!(check(&export, &["--head", &other]), refused("other_history"));
        assert_eq!(check("no export\n", &[]).0, Some(2));
        std::fs::remove_file(&file).expect("removed");
        let none = attestd(&["audit", "verify", "--file", path]);
        assert_eq!(none.status.code(), Some(2));
    }
}
