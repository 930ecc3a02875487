//! The coordinator wants a fresh answer (coordinator-and-standards B.4, C.2).

use std::time::Duration;

use attestd::verification::Kind;
use attestd_sim::{Mac, MacSpec};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

fn post(scene: &Scene, body: &Value) -> RequestBuilder {
    scene
        .api
        .request(Method::POST, "/internal/v1/verifications")
        .json(body)
}

async fn send(request: RequestBuilder) -> (u16, Value) {
    read(request.send().await.expect("an answer")).await
}

async fn read(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// A Mac that owes nothing and says nothing by itself.
async fn quiet_mac(scene: &Scene) -> (Mac, String) {
    let mac = scene.mac(spec());
    mac.enroll(&scene.base_url).await.expect("enrols");
    // A Mac that comes before its first push would spare it.
    let (token, _) = mac.push_address().expect("an address");
    eventually("it is pushed", async || {
        scene.world.apns().seen_for(&token).len() == 1
    })
    .await;
    mac.connect().await.expect("a session");
    scene.pass(2 * MINUTE);
    let device_id = scene.api.device_id(&mac.serial()).await;
    (mac, device_id)
}

journey! {
    async fn a_verification_is_started_joined_and_followed_to_its_end(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let body = json!({ "device_id": device_id, "kinds": ["security_info"], "reason": "connect" });
        let answer = post(&scene, &body).send().await.expect("an answer");
        assert_eq!(answer.status(), 202);
        let location = answer.headers()["location"].to_str().expect("text").to_owned();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let (_, first) = read(answer).await;
        let id = first["verification_id"].as_str().expect("an id").to_owned();
        assert_eq!(location, format!("/internal/v1/verifications/{id}"));
        assert_eq!(first["outcome"], json!(null));
        assert_eq!(first["reason"], "connect");

        // Another asks for more: one attempt, and what is owed already is not asked twice.
        let (status, joined) = send(post(&scene, &json!({ "device_id": device_id }))).await;
        assert_eq!((status, &joined["verification_id"]), (202, &first["verification_id"]));
        assert_eq!(joined["kinds"].as_object().expect("kinds").len(), 2);
        let session = mac.connect().await.expect("a session");
        assert_eq!(session.answered, 1);

        let ended = scene.api.json(&location).await;
        assert_eq!((&ended["state"], &ended["outcome"]), (&json!("answered"), &json!("affirming")));
        assert_eq!(ended["posture_revision"], json!(3));
        // Apple would only repeat what it said two minutes ago; ten more are for clocks that differ.
        let mda = &ended["kinds"]["mda"];
        assert_eq!((&mda["state"], &mda["reason"]), (&json!("deferred"), &json!("apple_rate_limit")));
        assert_eq!(mda["not_before"], json!(scene.now().plus(7 * 24 * 60 * MINUTE + 8 * MINUTE)));
        let (status, next) = send(post(&scene, &body)).await;
        assert_eq!(status, 202);
        assert_ne!(next["verification_id"], first["verification_id"]);
    }
}

journey! {
    async fn an_idempotency_key_names_one_request(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let deadline = scene.now().plus(5 * MINUTE);
        let body = json!({ "device_id": device_id, "deadline": deadline });
        let keyed = |body: &Value| post(&scene, body).header("Idempotency-Key", "k-1");
        let (status, first) = send(keyed(&body)).await;
        assert_eq!(status, 202);
        let (status, again) = send(keyed(&body)).await;
        assert_eq!((status, &again["verification_id"]), (202, &first["verification_id"]));
        mac.connect().await.expect("a session");
        // The same answer, even once it ended and its deadline passed.
        scene.pass(6 * MINUTE);
        let (status, again) = send(keyed(&body)).await;
        assert_eq!((status, &again["verification_id"]), (200, &first["verification_id"]));
        let other = json!({ "device_id": device_id, "kinds": ["mda"] });
        let (status, problem) = send(keyed(&other)).await;
        assert_eq!((status, &problem["type"]), (422, &json!("/problems/idempotency-mismatch")));
        let long = "k".repeat(201);
        let (status, problem) = send(post(&scene, &body).header("Idempotency-Key", long)).await;
        assert_eq!((status, &problem["type"]), (400, &json!("/problems/invalid-request")));
    }
}

journey! {
    async fn what_cannot_be_asked_is_told_apart(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let past = scene.now();
        let unknown = "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ";
        for (body, status, kind) in [
            (json!({ "device_id": device_id, "kind": ["mda"] }), 400, "invalid-request"),
            (json!({ "device_id": device_id, "kinds": [] }), 400, "invalid-request"),
            (json!({ "device_id": device_id, "kinds": ["erase_device"] }), 400, "invalid-request"),
            (json!({ "device_id": device_id, "deadline": past }), 400, "invalid-request"),
            (json!({ "device_id": "dev_1" }), 400, "invalid-request"),
            (json!([device_id]), 400, "invalid-request"),
            (json!({ "device_id": device_id, "reason": "x".repeat(70_000) }), 413, "request-too-large"),
            (json!({ "device_id": unknown }), 404, "device-not-found"),
        ] {
            let (got, problem) = send(post(&scene, &body)).await;
            assert_eq!((got, &problem["type"]), (status, &json!(format!("/problems/{kind}"))), "{problem}");
            assert_eq!(problem["status"], status);
        }
        let answer = scene.api.get("/internal/v1/verifications/ver_1").await;
        let (status, problem) = read(answer).await;
        assert_eq!((status, &problem["type"]), (404, &json!("/problems/verification-not-found")));

        mac.remove_profile().await.expect("a CheckOut");
        let (status, problem) = send(post(&scene, &json!({ "device_id": device_id }))).await;
        assert_eq!((status, &problem["type"]), (409, &json!("/problems/not-enrolled")));
        assert_eq!(problem["device_id"], device_id.as_str());
    }
}

journey! {
    async fn a_long_poll_answers_as_soon_as_it_ends(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let body = json!({ "device_id": device_id, "kinds": ["security_info"] });
        // Not in time.
        let request = post(&scene, &body).header("Prefer", "respond-async, wait=0");
        let answer = request.send().await.expect("an answer");
        assert_eq!((answer.status().as_u16(), &answer.headers()["preference-applied"]),
            (202, &reqwest::header::HeaderValue::from_static("wait=0")));
        let (_, started) = read(answer).await;
        let verification_id = started["verification_id"].as_str().expect("an id").to_owned();
        // In time: long before what was waited for at most.
        let both = json!({ "device_id": device_id, "kinds": ["security_info", "mda"] });
        let request = post(&scene, &both).header("Prefer", "wait=500");
        let waiting = tokio::spawn(async move { request.send().await.expect("an answer") });
        let path = format!("/internal/v1/verifications/{verification_id}");
        let follower = scene.api.request(Method::GET, &path).header("Prefer", "wait=20");
        let follower = tokio::spawn(async move { follower.send().await.expect("an answer") });
        // Or the Mac might be faster than the second request, which would then begin an attempt.
        eventually("the second request has joined", async || {
            let verifications = scene.kept(&mac).await.verifications;
            verifications.iter().any(|verification| {
                verification.verification_id.to_string() == verification_id
                    && verification.part(Kind::Mda).is_some()
            })
        })
        .await;
        mac.connect().await.expect("a session");
        for (waiting, applied) in [(waiting, "wait=60"), (follower, "wait=20")] {
            let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await
                .expect("at once").expect("no panic");
            assert_eq!(answer.headers()["preference-applied"], applied);
            let (status, ended) = read(answer).await;
            assert_eq!((status, &ended["state"]), (200, &json!("answered")));
        }
    }
}

journey! {
    async fn fifty_at_once_share_one_attempt_and_one_push(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let before = scene.kept(&mac).await.verifications.len();
        let asking: Vec<_> = (0..50)
            .map(|number| {
                // Every request is made twice.
                let kinds = ["security_info", "mda"];
                let kinds = if number % 4 < 2 { &kinds[..] } else { &kinds[..1] };
                let request = post(&scene, &json!({ "device_id": device_id, "kinds": kinds }))
                    .header("Idempotency-Key", format!("key-{}", number / 2));
                tokio::spawn(send(request))
            })
            .collect();
        let mut ids = std::collections::BTreeSet::new();
        for asked in asking {
            let (status, answer) = asked.await.expect("no panic");
            assert_eq!(status, 202, "{answer}");
            ids.insert(answer["verification_id"].to_string());
        }
        assert_eq!(ids.len(), 1);
        assert_eq!(scene.kept(&mac).await.verifications.len(), before + 1);
        let (token, _) = mac.push_address().expect("an address");
        eventually("it is pushed", async || {
            scene.kept(&mac).await.verifications[0].last_pushed_at().is_some()
        }).await;
        // The one of its enrolment, and the one all fifty share.
        assert_eq!(scene.world.apns().seen_for(&token).len(), 2);
    }
}

journey! {
    async fn whoever_asks_too_often_reads_when_the_mac_can_be_woken_again(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (mac, device_id) = quiet_mac(&scene).await;
        let enrolled_at = scene.now().minus(2 * MINUTE);
        let (token, _) = mac.push_address().expect("an address");
        let pushes = |scene: &Scene| scene.world.apns().seen_for(&token).len();
        let ask = json!({ "device_id": device_id, "kinds": ["security_info"] });
        // The second push within the hour is the last; one attempt after the other does not help.
        for round in 0..3 {
            let (status, answer) = send(post(&scene, &ask)).await;
            assert_eq!(status, 202);
            eventually("its turn is over", async || scene.ctx().wakeups.waiting() == 0).await;
            if round == 0 {
                eventually("it is pushed", async || {
                    scene.kept(&mac).await.verifications[0].last_pushed_at().is_some()
                }).await;
            } else {
                let kind = &answer["kinds"]["security_info"];
                assert_eq!((&kind["state"], &kind["reason"]), (&json!("queued"), &json!("push_throttled")));
                assert_eq!(kind["not_before"], json!(enrolled_at.plus(60 * MINUTE)));
                assert_eq!(answer["reasons"], json!(["push_throttled"]));
            }
            assert_eq!(pushes(&scene), 2);
            // It need not be woken to answer.
            assert_eq!(mac.connect().await.expect("a session").answered, 1);
            scene.pass(2 * MINUTE);
        }
        // Nor does a restart.
        scene.stop().await;
        scene.start().await;
        let (_, answer) = send(post(&scene, &ask)).await;
        assert_eq!(answer["kinds"]["security_info"]["reason"], "push_throttled");
        scene.sweep().await;
        assert_eq!(pushes(&scene), 2);
    }
}

journey! {
    async fn a_full_queue_says_come_again_later(backend: Backend) {
        let tables = "[verification]\nqueue = 1\n";
        let scene = Scene::with_push_rate(backend, tables, 1).await;
        let mut macs = Vec::new();
        for _ in 0..3 {
            macs.push(quiet_mac(&scene).await);
        }
        let ask = |number: usize| {
            post(&scene, &json!({ "device_id": macs[number].1, "kinds": ["security_info"] }))
        };
        // One is woken in this second, one waits for the next.
        assert_eq!(send(ask(0)).await.0, 202);
        eventually("the first has its turn", async || scene.ctx().wakeups.waiting() == 0).await;
        assert_eq!(send(ask(1)).await.0, 202);
        let status = scene.api.json("/internal/v1/status").await;
        assert_eq!(status["queue"], json!({ "depth": 1, "oldest_s": 0 }));
        assert_eq!(scene.counted("attestd_macs_waiting", &[]).await, 1);
        let answer = ask(2).send().await.expect("an answer");
        assert!(answer.headers().contains_key("retry-after"));
        let (status, problem) = read(answer).await;
        assert_eq!((status, &problem["type"]), (429, &json!("/problems/queue-full")));
        scene.pass(MINUTE);
        eventually("the second has its turn", async || scene.ctx().wakeups.waiting() == 0).await;
        assert_eq!(send(ask(2)).await.0, 202);
    }
}
