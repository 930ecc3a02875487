//! The coordinator reads what is believed (coordinator-and-standards C.2, C.3).

use std::time::Duration;

use attestd::app::database_url;
use attestd::config::Config;
use attestd_sim::{Mac, MacSpec};
use reqwest::{Client, Method, Response};
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::scene::{Scene, attestd};

const HOUR: Duration = Duration::from_secs(60 * 60);
const UNKNOWN: &str = "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ";

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

async fn attested_mac(scene: &Scene) -> Mac {
    let mac = scene.mac(spec());
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    mac
}

/// A problem as RFC 9457 wants it.
async fn problem(answer: Response, status: u16, kind: &str) -> Value {
    assert_eq!(answer.status().as_u16(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.expect("JSON");
    assert_eq!(problem["type"], format!("/problems/{kind}"));
    assert_eq!(problem["status"], status);
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty())
    );
    problem
}

journey! {
    async fn a_mac_is_found_by_serial_number_and_udid(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene).await;
        let by_serial = scene.api.device(&mac.serial()).await.expect("a device");
        let path = format!("/internal/v1/devices?udid={}", mac.udid());
        assert_eq!(scene.api.json(&path).await["devices"], json!([by_serial]));
        let path = format!("/internal/v1/devices/{}", by_serial["device_id"].as_str().expect("an id"));
        assert_eq!(scene.api.json(&path).await, by_serial);
        assert_eq!(by_serial["enrolled"], true);
        assert_eq!(by_serial["identity"]["kind"], "scep");
        assert_eq!(by_serial["push"], json!({ "state": "ok" }));
        for secret in ["token", "magic"] {
            assert!(!by_serial["push"].as_object().expect("an object").contains_key(secret));
        }
        // Known not to exist.
        let none = scene.api.json("/internal/v1/devices?serial_number=C02NOBODY000").await;
        assert_eq!(none, json!({ "devices": [] }));
        for query in ["", "?serial=X", "?serial_number=../etc", "?udid=1",
            "?serial_number=C02NOBODY000&udid=00000000-0000-0000-0000-000000000000"] {
            let answer = scene.api.get(&format!("/internal/v1/devices{query}")).await;
            problem(answer, 400, "invalid-request").await;
        }
        for path in [format!("/internal/v1/devices/{UNKNOWN}"),
            format!("/internal/v1/devices/{UNKNOWN}/posture"),
            "/internal/v1/devices/x/posture".to_owned()] {
            problem(scene.api.get(&path).await, 404, "device-not-found").await;
        }
        problem(scene.api.get("/internal/v1/nothing").await, 404, "not-found").await;
        let answer = scene.api.request(Method::DELETE, "/internal/v1/status").send().await;
        problem(answer.expect("an answer"), 405, "method-not-allowed").await;
    }
}

journey! {
    async fn a_store_that_cannot_be_read_is_never_an_empty_list(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene).await;
        let posture = format!("/internal/v1/devices/{}/posture", scene.api.device_id(&mac.serial()).await);
        let config = Config::load(scene.config(), true).expect("a configuration");
        let url = database_url(&config).expect("a URL");
        let connection = sea_orm::Database::connect(url).await.expect("connects");
        connection.execute_unprepared("ALTER TABLE enrollments RENAME TO gone").await.expect("renames");
        let by_serial = format!("/internal/v1/devices?serial_number={}", mac.serial());
        for path in [by_serial.as_str(), posture.as_str()] {
            let answer = scene.api.get(path).await;
            assert_eq!(answer.headers()["retry-after"], "5");
            problem(answer, 503, "store-unavailable").await;
        }
        connection.execute_unprepared("ALTER TABLE gone RENAME TO enrollments").await.expect("renames");
        assert!(scene.api.device(&mac.serial()).await.is_some());
    }
}

journey! {
    async fn each_role_may_do_what_its_name_says(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene).await;
        let device_id = scene.api.device_id(&mac.serial()).await;
        let ask = async |token: Option<&str>, act: &str| {
            let client = Client::new();
            let request = match act {
                "verify" => client.post(format!("{}/internal/v1/verifications", scene.api.url))
                    .json(&json!({ "device_id": device_id })),
                "posture" => client.get(
                    format!("{}/internal/v1/devices/{device_id}/posture", scene.api.url)),
                path => client.get(format!("{}{path}", scene.api.url)),
            };
            let request = match token {
                Some(token) => request.header("Authorization", token),
                None => request,
            };
            request.send().await.expect("an answer")
        };
        let by_serial = format!("/internal/v1/devices?serial_number={}", mac.serial());
        let device = format!("/internal/v1/devices/{device_id}");
        let reads = [by_serial.as_str(), device.as_str(), "posture"];
        let status = ["/internal/v1/status", "/metrics"];
        for (role, may_read, may_verify) in [("coordinator", true, true), ("operator", true, true),
            ("auditor", true, false), ("viewer", false, false)] {
            let token = format!("Bearer {}", scene.token(role));
            let allowed = reads.map(|act| (act, may_read)).into_iter()
                .chain(status.map(|act| (act, true))).chain([("verify", may_verify)]);
            for (act, allowed) in allowed {
                let answer = ask(Some(&token), act).await;
                if allowed {
                    assert!(answer.status().is_success(), "{role} {act}");
                } else {
                    problem(answer, 403, "forbidden").await;
                }
            }
        }
        let expiring = attestd(&["token", "create", "--insecure-http", "--config",
            scene.config().to_str().expect("UTF-8"), "--role", "operator", "--label", "soon gone",
            "--valid-for", "1h", "--json"]);
        let expiring: Value = serde_json::from_slice(&expiring.stdout).expect("JSON");
        let revoked = attestd(&["token", "create", "--insecure-http", "--config",
            scene.config().to_str().expect("UTF-8"), "--role", "operator", "--label", "gone", "--json"]);
        let revoked: Value = serde_json::from_slice(&revoked.stdout).expect("JSON");
        let bearer = |made: &Value| format!("Bearer {}", made["token"].as_str().expect("a token"));
        for made in [&expiring, &revoked] {
            assert!(ask(Some(&bearer(made)), "posture").await.status().is_success());
        }
        let ended = attestd(&["token", "revoke", "--insecure-http", "--config",
            scene.config().to_str().expect("UTF-8"), revoked["token_id"].as_str().expect("an id")]);
        assert!(ended.status.success(), "{ended:?}");
        // Withdrawn beside the server, it is good for at most three seconds more.
        eventually("the withdrawn token is refused", async || {
            ask(Some(&bearer(&revoked)), "posture").await.status() == 401
        }).await;
        scene.pass(HOUR + Duration::from_secs(60));
        let good = scene.token("operator");
        let (expired, revoked) = (bearer(&expiring), bearer(&revoked));
        let basic = format!("Basic {good}");
        let cut = format!("Bearer {}", &good[..good.len() - 1]);
        for token in [None, Some("Bearer"), Some("Bearer "), Some("Bearer att_wrong"), Some(expired.as_str()),
            Some(revoked.as_str()), Some(basic.as_str()), Some(cut.as_str()), Some(good.as_str())] {
            for act in reads.iter().chain(&status).chain(&["verify"]) {
                let answer = ask(token, act).await;
                // Whoever shows a token is told that it is not good (RFC 6750 section 3.1), and others are told nothing more.
                let shows = token.is_some_and(|token| token.starts_with("Bearer ") && token != "Bearer ");
                let challenge = if shows { "Bearer error=\"invalid_token\"" } else { "Bearer" };
                assert_eq!(answer.headers()["www-authenticate"], challenge, "{token:?}");
                let problem = problem(answer, 401, "unauthorized").await;
                assert!(!problem.to_string().contains(&mac.serial()));
            }
        }
    }
}

journey! {
    async fn when_a_token_was_used_last_is_told_and_costs_no_request_a_write(backend: Backend) {
        let scene = Scene::new(backend).await;
        let list = || {
            let listed = attestd(&["token", "list", "--json", "--insecure-http", "--config",
                scene.config().to_str().expect("UTF-8")]);
            let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
            listed["tokens"].as_array().expect("a list").clone()
        };
        let before: Vec<_> = list().iter().map(|token| token["token_id"].clone()).collect();
        let used = scene.api.with_token(scene.token("viewer"));
        let fresh = |token: &Value| !before.contains(&token["token_id"]);
        let one = || list().into_iter().find(fresh).expect("the token");
        assert_eq!(one()["last_used_at"], Value::Null);
        for _ in 0..20 {
            assert!(used.get("/internal/v1/status").await.status().is_success());
        }
        let store = &scene.ctx().store;
        store.flush_token_use().await.expect("written");
        assert_eq!(one()["last_used_at"], scene.now().to_string());
        // A token that is over is used by nobody, and what was written does not go back.
        let known = one()["last_used_at"].clone();
        let ended = attestd(&["token", "revoke", "--insecure-http", "--config",
            scene.config().to_str().expect("UTF-8"), one()["token_id"].as_str().expect("an id")]);
        assert!(ended.status.success());
        eventually("it is refused", async || used.get("/internal/v1/status").await.status() == 401).await;
        scene.pass(HOUR);
        assert_eq!(used.get("/internal/v1/status").await.status().as_u16(), 401);
        store.flush_token_use().await.expect("written");
        assert_eq!(one()["last_used_at"], known);
    }
}

journey! {
    async fn a_revision_is_told_once_and_an_ended_verdict_is_told_again(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene).await;
        let path = format!("/internal/v1/devices/{}/posture", scene.api.device_id(&mac.serial()).await);
        let get = async |tag: &str| {
            let request = scene.api.request(Method::GET, &path).header("If-None-Match", tag);
            request.send().await.expect("an answer")
        };
        let answer = scene.api.get(&path).await;
        assert_eq!(answer.headers()["etag"], "\"r2\"");
        assert_eq!(answer.headers()["cache-control"], "private, no-cache");
        for tag in ["\"r2\"", "W/\"r2\"", "\"r1\", \"r2\"", "*"] {
            let answer = get(tag).await;
            assert_eq!((answer.status().as_u16(), &answer.headers()["etag"]),
                (304, &reqwest::header::HeaderValue::from_static("\"r2\"")), "{tag}");
        }
        assert_eq!(get("\"r1\"").await.status(), 200);
        let before: Value = get("\"r1\"").await.json().await.expect("JSON");
        assert_eq!(before["usable_until"], scene.now().plus(24 * HOUR).to_string());

        // No worker runs; the clock alone ends what was affirmed.
        scene.pass(24 * HOUR);
        let answer = get("\"r2\"").await;
        assert_eq!(answer.status(), 200);
        let after: Value = answer.json().await.expect("JSON");
        assert_eq!((&after["verdict"], &after["revision"], &after["usable_until"]),
            (&json!("unknown"), &json!(2), &json!(null)));
        assert_ne!(after["reasons"][0], "provider_not_bound");
    }
}

journey! {
    async fn fresh_means_fresh(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = scene.mac(spec());
        mac.enroll(&scene.base_url).await.expect("enrols");
        let device_id = scene.api.device_id(&mac.serial()).await;
        let path = format!("/internal/v1/devices/{device_id}/posture?at_least=fresh");
        let stale = problem(scene.api.get(&path).await, 409, "posture-stale").await;
        assert_eq!(stale["device_id"], device_id.as_str());
        mac.connect().await.expect("a session");
        assert_eq!(scene.api.json(&path).await["verdict"], "affirming");
        scene.pass(2 * HOUR);
        problem(scene.api.get(&path).await, 409, "posture-stale").await;
        // Usable all the same, for who does not insist.
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        for bad in ["at_least=best", "fresh=1"] {
            let path = format!("/internal/v1/devices/{device_id}/posture?{bad}");
            problem(scene.api.get(&path).await, 400, "invalid-request").await;
        }
    }
}

journey! {
    async fn who_is_not_enrolled_is_not_affirmed(backend: Backend) {
        let scene = Scene::new(backend).await;
        let pending = scene.mac(MacSpec { aborts_after_authenticate: true, ..spec() });
        pending.enroll(&scene.base_url).await.expect_err("macOS rolls it back");
        let posture = scene.api.posture(&pending.serial()).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0], &posture["enrolled"]),
            (&json!("unknown"), &json!("not_enrolled"), &json!(false)));
        assert_eq!(posture["next_action"]["who"], "owner");

        let mac = attested_mac(&scene).await;
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        mac.remove_profile().await.expect("a CheckOut");
        let left = scene.api.posture(&mac.serial()).await;
        assert_eq!((&left["verdict"], &left["reasons"][0], &left["revision"]),
            (&json!("unknown"), &json!("not_enrolled"), &json!(3)));
        let device = scene.api.device(&mac.serial()).await.expect("a device");
        assert_eq!((&device["enrollment_state"], &device["push"]["state"]),
            (&json!("checked_out"), &json!("none")));
    }
}

journey! {
    async fn the_two_listeners_share_no_route_but_health(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new();
        let status = async |base: &str, method: Method, path: &str| {
            let request = client.request(method, format!("{base}{path}")).bearer_auth(&scene.api.token);
            request.send().await.expect("an answer").status().as_u16()
        };
        for path in ["/internal/v1/devices?serial_number=C02NOBODY000", "/internal/v1/status", "/metrics",
            "/readyz", "/internal/v1/verifications"] {
            assert_eq!(status(&scene.base_url, Method::GET, path).await, 404, "{path}");
        }
        for (method, path) in [(Method::PUT, "/mdm/checkin"), (Method::PUT, "/mdm/connect"),
            (Method::POST, "/v1/enroll"), (Method::GET, "/scep?operation=GetCACaps")] {
            assert_eq!(status(&scene.api.url, method, path).await, 404, "{path}");
        }
        for base in [&scene.base_url, &scene.api.url] {
            assert_eq!(status(base, Method::GET, "/healthz").await, 200);
        }
        assert_eq!(status(&scene.api.url, Method::GET, "/readyz").await, 200);
        let service = scene.api.json("/internal/v1/status").await;
        assert_eq!(service["push_certificate"]["topic"], scene.world.topic());
        assert_eq!(service["anchor"], "custom");
        let metrics = scene.api.get("/metrics").await.text().await.expect("text");
        assert!(metrics.contains("attestd_http_requests_total{") && metrics.ends_with("# EOF\n"));
    }
}
