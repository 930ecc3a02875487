//! A provider asks for a profile with its Secure Enclave key (coordinator-and-standards C.4.2), or the
//! coordinator has one made for somebody it knows.

use std::time::Duration;

use attestd_sim::{Lie, MacSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::provider::Provider;
use crate::harness::public_side::Answer;
use crate::harness::scene::{Scene, attestd};

const ATTESTED: &str = "[enrollment]\nidentity = \"acme\"\n";
const MINUTE: Duration = Duration::from_secs(60);

async fn ask(scene: &Scene, body: &Value) -> Answer {
    ask_for(scene, "", body.to_string()).await
}

async fn ask_for(scene: &Scene, query: &str, body: String) -> Answer {
    let request = scene.anybody(Method::POST, &format!("/v2/enroll{query}"));
    scene
        .answer(
            request
                .header("content-type", "application/json")
                .body(body),
        )
        .await
}

/// Asserts a refusal with this reason, and that nothing was made.
fn refused(answer: &Answer, status: u16, reason: &str) {
    let text = answer.text();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, "application/problem+json"),
        "{text}"
    );
    assert_eq!(answer.json()["reason"], reason, "{text}");
}

async fn claimants(scene: &Scene, serial: &str) -> Vec<Value> {
    let path = format!("/internal/v1/devices?serial_number={serial}");
    scene.api.json(&path).await["devices"]
        .as_array()
        .expect("a list")
        .clone()
}

async fn posture_of(scene: &Scene, device: &Value) -> Value {
    let device_id = device["device_id"].as_str().expect("an id");
    scene
        .api
        .json(&format!("/internal/v1/devices/{device_id}/posture"))
        .await
}

journey! {
    async fn a_provider_asks_with_its_key_and_apple_names_it_on_the_first_day(backend: Backend) {
        let scene = Scene::configured(backend, ATTESTED).await;
        let provider = Provider::new();
        let answer = ask(&scene, &provider.asks(&scene.base_url, scene.now())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/x-apple-aspen-config");
        assert_eq!(answer.header("cache-control"), "no-store");
        let link = format!("<{}/v1/enrollments/", scene.base_url);
        assert!(answer.header("link").starts_with(&link) && answer.header("link").ends_with(">; rel=\"status\""));

        let mac = scene.honest_mac();
        mac.install_profile(&answer.body).await.expect("enrols");
        // Before the Mac was asked anything: the statement that came with its identity.
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["freshness"]["se_public_key"], provider.se_public_key());
        assert_eq!(posture["channel"], "hardware_attested");
        let binding = &posture["binding"];
        assert_eq!((&binding["se_public_key"], &binding["proof"], &binding["se_key_bound"], &binding["residence_proved"]),
            (&json!(provider.se_public_key()), &json!("ticket"), &json!("bound"), &json!(false)), "{posture:#}");
        let _life = mac.live();
        let posture = scene.api.verdict(&mac.serial(), "affirming").await;
        assert_eq!(posture["binding"]["se_key_bound"], "bound");
        // The first attestation need not wait for a key.
        eventually("an attestation that names it", || async {
            let posture = scene.api.posture(&mac.serial()).await;
            posture["claims"]["sip#mda"]["source"] == "mda"
                && posture["freshness"]["se_public_key"] == provider.se_public_key()
        }).await;
    }
}

journey! {
    async fn a_request_is_granted_once_for_this_server_and_in_time(backend: Backend) {
        let scene = Scene::new(backend).await;
        let provider = Provider::new();
        let (server, now) = (scene.base_url.clone(), scene.now());
        let good = provider.asks(&server, now);
        assert_eq!(ask(&scene, &good).await.status, 200);
        // Again, and in every other spelling.
        refused(&ask(&scene, &good).await, 409, "nonce_unusable");
        let text = |name: &str| good[name].as_str().expect("text").to_owned();
        let other = provider.asks_with(&provider.se_public_key_65(), &server, &text("nonce"), &text("timestamp"));
        refused(&ask(&scene, &other).await, 409, "nonce_unusable");
        let later = now.plus(MINUTE).to_string();
        let other = provider.asks_with(&provider.se_public_key(), &server, &text("nonce"), &later);
        refused(&ask(&scene, &other).await, 409, "nonce_unusable");
        // Somebody else may have drawn the same nonce.
        let neighbour = Provider::new();
        let same = neighbour.asks_with(&neighbour.se_public_key(), &server, &text("nonce"), &text("timestamp"));
        assert_eq!(ask(&scene, &same).await.status, 200);

        let with = |name: &str, value: Value| {
            let mut changed = provider.asks(&server, now);
            changed[name] = value;
            changed
        };
        let signature = provider.asks(&server, now)["signature"].clone();
        let before = scene.refusals("enroll_signed", "signature_invalid").await;
        for forged in [
            with("signature", signature),
            with("se_public_key", json!(neighbour.se_public_key())),
            with("se_public_key", json!(provider.se_public_key_65())),
            with("nonce", json!(STANDARD.encode([7; 32]))),
            with("timestamp", json!(now.plus(Duration::from_secs(1)).to_string())),
            provider.asks("https://elsewhere.example", now),
            with("signature", json!(STANDARD.encode(b"no DER"))),
        ] {
            refused(&ask(&scene, &forged).await, 400, "signature_invalid");
        }
        assert_eq!(scene.refusals("enroll_signed", "signature_invalid").await, before + 7);
        for (of_another_time, back) in [(121, true), (181, true), (121, false)] {
            let distance = Duration::from_secs(of_another_time);
            let made = match back {
                true => now.minus(distance),
                false => now.plus(distance),
            };
            refused(&ask(&scene, &provider.asks(&server, made)).await, 400, "timestamp_out_of_window");
        }
        for bad in [
            with("serial_number", json!("C02XL3FHJG5J")),
            with("account", json!("alice")),
            with("nonce", json!("short")),
            with("timestamp", json!("yesterday")),
            with("signature", json!(null)),
            json!([good]),
        ] {
            refused(&ask(&scene, &bad).await, 400, "request_malformed");
        }
        refused(&ask(&scene, &with("se_public_key", json!(STANDARD.encode([1; 64])))).await, 400, "key_rejected");
        let large = with("nonce", json!("A".repeat(5_000)));
        refused(&ask(&scene, &large).await, 413, "request_too_large");
        let twice = format!("{{\"nonce\":\"x\",{}", &provider.asks(&server, now).to_string()[1..]);
        refused(&ask_for(&scene, "", twice).await, 400, "request_malformed");
        let query = ask_for(&scene, "?identity=none", provider.asks(&server, now).to_string()).await;
        assert_eq!((query.status, &query.json()["type"]), (400, &json!("/problems/invalid-request")));

        // The memory of a request ends when its time does, and not before.
        scene.pass(2 * MINUTE);
        refused(&ask(&scene, &good).await, 409, "nonce_unusable");
        scene.pass(Duration::from_secs(1));
        refused(&ask(&scene, &good).await, 400, "timestamp_out_of_window");
        assert_eq!(ask(&scene, &provider.asks(&server, scene.now())).await.status, 200);
    }
}

journey! {
    async fn of_two_who_send_one_request_at_once_one_gets_a_profile(backend: Backend) {
        let scene = Scene::new(backend).await;
        let body = Provider::new().asks(&scene.base_url, scene.now());
        let answers = futures_util::future::join_all((0..10).map(|_| ask(&scene, &body))).await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (200, &[409; 9][..]));
    }
}

journey! {
    async fn a_signed_request_says_what_the_mac_can_do_and_is_limited_like_any(backend: Backend) {
        let mut scene = Scene::configured(backend, ATTESTED).await;
        let provider = Provider::new();
        for query in ["?identity=scep", "?hardware=intel", "?hardware=apple_silicon&os_version=13.6"] {
            let body = provider.asks(&scene.base_url, scene.now()).to_string();
            let answer = ask_for(&scene, query, body).await;
            assert_eq!(answer.status, 200, "{query}");
            let mac = scene.honest_mac();
            mac.install_profile(&answer.body).await.expect("enrols");
            let device = scene.api.device(&mac.serial()).await.expect("a device");
            assert_eq!(device["identity"]["kind"], "scep", "{query}");
        }
        scene.stop().await;
        let settings = std::fs::read_to_string(scene.config()).expect("settings");
        let settings = settings.replace("enroll_per_minute = 100000", "enroll_per_minute = 2");
        std::fs::write(scene.config(), settings).expect("written");
        scene.start().await;
        // One limit for both ways to ask.
        assert_eq!(scene.ask_for_profile("{}").await.status, 200);
        assert_eq!(ask(&scene, &json!({})).await.status, 400);
        let limited = ask(&scene, &provider.asks(&scene.base_url, scene.now())).await;
        assert_eq!((limited.status, &limited.json()["type"]), (429, &json!("/problems/too-many-requests")));
        assert!(!limited.header("retry-after").is_empty());
    }
}

journey! {
    async fn a_serial_number_that_was_enrolled_for_another_key_is_not_taken_by_claim(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let (alice, mallory) = (Provider::new(), Provider::new());
        let mac = scene.honest_mac();
        let profile = ask(&scene, &alice.asks(&scene.base_url, scene.now())).await;
        mac.install_profile(&profile.body).await.expect("enrols");
        let life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        let holder = claimants(&scene, &mac.serial()).await.remove(0);
        let before = posture_of(&scene, &holder).await;
        assert_eq!(before["binding"]["se_key_bound"], "bound", "{before:#}");

        // Mallory's key is as good as any, and a copied serial number proves nothing.
        let copied = mac.spec().lying(Lie::RelaysAnotherMac(Box::new(
            MacSpec::random().expect("a Mac").attested_state(),
        )));
        let impostor = scene.mac(copied);
        let profile = ask(&scene, &mallory.asks(&scene.base_url, scene.now())).await;
        impostor.install_profile(&profile.body).await.expect("is accepted");
        let found = claimants(&scene, &mac.serial()).await;
        assert_eq!((found.len(), &found[0]), (2, &holder));
        assert_eq!(found[1]["contends_with"], holder["device_id"]);
        let after = posture_of(&scene, &holder).await;
        assert_eq!((&after["revision"], &after["binding"]), (&before["revision"], &before["binding"]));
        let contender = posture_of(&scene, &found[1]).await;
        assert_ne!(contender["verdict"], "affirming");
        assert_ne!(contender["binding"]["se_key_bound"], "bound");

        // Alice's own key takes Alice's own place.
        let again = scene.mac(mac.spec());
        let profile = ask(&scene, &alice.asks(&scene.base_url, scene.now())).await;
        again.install_profile(&profile.body).await.expect("enrols");
        let stands = claimants(&scene, &mac.serial()).await.remove(0);
        assert_eq!((&stands["device_id"], &stands["contends_with"]), (&holder["device_id"], &Value::Null));
        assert_ne!(stands["identity"]["sha256"], holder["identity"]["sha256"]);
    }
}

journey! {
    async fn the_coordinator_has_a_profile_made_and_hands_on_a_link(backend: Backend) {
        let scene = Scene::configured(backend, ATTESTED).await;
        let provider = Provider::new();
        let issue = async |api: &crate::harness::internal_api::InternalApi, body: &Value, accept: &str| {
            let request = api.request(Method::POST, "/internal/v1/tickets").header("accept", accept);
            request.json(body).send().await.expect("an answer")
        };
        let wanted = json!({ "account": "alice", "se_public_key": provider.se_public_key() });
        let made = issue(&scene.api, &wanted, "*/*").await;
        assert_eq!((made.status().as_u16(), &made.headers()["cache-control"]),
            (201, &reqwest::header::HeaderValue::from_static("no-store")));
        let made: Value = made.json().await.expect("JSON");
        assert_eq!(made["expires_at"], scene.now().plus(60 * MINUTE).to_string());
        assert_eq!(made["fetch_until"], scene.now().plus(10 * MINUTE).to_string());
        let path = |url: &Value| {
            let url = url.as_str().expect("a URL");
            url.strip_prefix(&scene.base_url).expect("ours").to_owned()
        };
        let page = scene.answer(scene.anybody(Method::GET, &path(&made["enroll_url"]))).await;
        assert!(page.status == 200 && page.header("content-type").starts_with("text/html"));
        let progress = scene.answer(scene.anybody(Method::GET, &path(&made["progress_url"]))).await;
        assert_eq!(progress.status, 200);
        for known in ["alice", provider.se_public_key().as_str()] {
            assert!(!page.text().contains(known) && !progress.text().contains(known));
        }
        let profile = scene.answer(scene.anybody(Method::GET, &path(&made["profile_url"]))).await;
        let mac = scene.honest_mac();
        mac.install_profile(&profile.body).await.expect("enrols");
        let device_id = scene.device_id(&mac).await;
        let tx = scene.ctx().store.read().await.expect("a store");
        let enrollment = tx.enrollment(&device_id).await.expect("a look-up").expect("enrolled");
        let ticket_id = enrollment.ticket_id.expect("by a ticket");
        assert_eq!(made["ticket_id"], ticket_id.to_string());
        let ticket = tx.ticket(&ticket_id).await.expect("a look-up").expect("kept");
        assert_eq!(ticket.account.as_deref(), Some("alice"));
        drop(tx);
        assert_eq!(scene.api.posture(&mac.serial()).await["binding"]["se_key_bound"], "bound");
        // It was good once.
        let spent = scene.answer(scene.anybody(Method::GET, &path(&made["profile_url"]))).await;
        assert!(spent.status >= 400, "{}", spent.status);

        // A coordinator that serves profiles itself gets one at once.
        let serial = MacSpec::random().expect("a Mac").serial;
        let direct = issue(&scene.api, &json!({ "serial_number": serial }), "application/x-apple-aspen-config").await;
        assert_eq!((direct.status().as_u16(), &direct.headers()["content-type"]),
            (200, &reqwest::header::HeaderValue::from_static("application/x-apple-aspen-config")));
        assert!(direct.headers()["link"].to_str().expect("text").ends_with("rel=\"status\""));

        for role in ["auditor", "viewer"] {
            let api = scene.api.with_token(scene.token(role));
            assert_eq!(issue(&api, &wanted, "*/*").await.status(), 403, "{role}");
        }
        assert_eq!(issue(&scene.api.with_token("att_no".to_owned()), &wanted, "*/*").await.status(), 401);
        for (bad, reason) in [
            (json!({ "account": "" }), "request_malformed"),
            (json!({ "account": "a\u{0}b" }), "request_malformed"),
            (json!({ "account": "x".repeat(257) }), "request_malformed"),
            (json!({ "serial_number": "" }), "request_malformed"),
            (json!({ "se_public_key": STANDARD.encode([1; 64]) }), "key_rejected"),
            (json!({ "owner": "alice" }), "request_malformed"),
            (json!({ "os_version": "Sonoma" }), "request_malformed"),
            (json!(["alice"]), "request_malformed"),
        ] {
            let answer = issue(&scene.api, &bad, "*/*").await;
            assert_eq!(answer.status(), 400, "{bad}");
            let problem: Value = answer.json().await.expect("JSON");
            assert_eq!(problem["reason"], reason, "{bad}");
        }
    }
}

journey! {
    async fn the_command_makes_a_link_beside_the_running_server(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let config = scene.config().to_str().expect("a path");
        let run = |rest: &[&str]| {
            attestd(&[&["ticket", "--insecure-http", "--config", config, "--json"], rest].concat())
        };
        let made = run(&["--account", "alice"]);
        assert!(made.status.success(), "{made:?}");
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        let url = made["profile_url"].as_str().expect("a URL");
        // The command goes by the machine's clock, which the scene's began at.
        let path = url.strip_prefix(&scene.base_url).expect("ours");
        let profile = scene.answer(scene.anybody(Method::GET, path)).await;
        assert_eq!(profile.status, 200, "{}", profile.text());
        scene.honest_mac().install_profile(&profile.body).await.expect("enrols");
        for bad in [&["--account", ""][..], &["--serial-number", "short"], &["--se-public-key", "AAAA"]] {
            assert_eq!(run(bad).status.code(), Some(1), "{bad:?}");
        }
        assert_eq!(run(&["--identity", "none"]).status.code(), Some(2));
    }
}
