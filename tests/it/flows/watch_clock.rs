//! The clock is set back, leaps ahead, or is wrong when the server starts: nothing is said of trust
//! until it can be believed (coordinator-and-standards C.3).

use std::time::Duration;

use attestd::flows::watch_clock::run_once;
use attestd::flows::{challenge, tell_of_end};
use attestd_sim::Provider;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::coordinator::answer;
use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Every question about trust, and how it is answered.
async fn asked(plane: &Plane, device_id: &str, provider: &Provider) -> Vec<(u16, Value)> {
    let api = &plane.scene.api;
    let registration = provider.binding_request(Some(OWNER)).expect("a request");
    let (posture, binding) = (
        format!("/internal/v1/devices/{device_id}/posture"),
        "/internal/v1/bindings/s".to_owned(),
    );
    let mut answers = Vec::new();
    for (method, path, body) in [
        (Method::GET, posture, Value::Null),
        (Method::GET, binding.clone(), Value::Null),
        (Method::PUT, binding, registration),
        (
            Method::POST,
            "/internal/v1/challenges".to_owned(),
            json!({ "session": "s" }),
        ),
    ] {
        answers.push(api.ask(method, &path, &body).await);
    }
    answers
}

/// None of them is answered, and it is said why.
async fn says_nothing(plane: &Plane, device_id: &str, provider: &Provider, cause: &str) {
    for (status, problem) in asked(plane, device_id, provider).await {
        assert_eq!(status, 503, "{problem:#}");
        assert_eq!(problem["type"], "/problems/service-degraded");
        assert_eq!(
            (&problem["reason"], &problem["cause"]),
            (&json!("service_degraded"), &json!(cause))
        );
    }
    let api = &plane.scene.api;
    assert_eq!(api.get("/readyz").await.status(), 503);
    assert_eq!(api.get("/healthz").await.status(), 200);
    let status = api.json("/internal/v1/status").await;
    assert_eq!(status["clock"]["state"], cause);
}

async fn answers_again(plane: &Plane, device_id: &str, provider: &Provider) {
    for (status, told) in asked(plane, device_id, provider).await {
        assert_ne!(status, 503, "{told:#}");
    }
    let api = &plane.scene.api;
    assert_eq!(api.get("/readyz").await.status(), 200);
    let status = api.json("/internal/v1/status").await;
    assert_eq!(status["clock"], json!({ "state": "ok" }));
}

/// What was told of the service so far.
async fn told(plane: &Plane, name: &str) -> Vec<Value> {
    let store = &plane.scene.ctx().store;
    let events = store.events_after(0, 1000).await.expect("events");
    let named = events.into_iter().filter(|it| it.event.name == name);
    let bodies = named.map(|it| it.event.body);
    // What else stands still while days pass is told elsewhere.
    let of_clocks = |cause: &Value| {
        cause
            .as_str()
            .is_none_or(|cause| cause.starts_with("clock"))
    };
    bodies.filter(|body| of_clocks(&body["cause"])).collect()
}

journey! {
    async fn a_clock_that_is_set_back_gives_no_answer_until_it_has_caught_up(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, provider) = plane.routed().await;
        drop(life);
        let device_id = api.device_id(&mac.serial()).await;
        // A day later nothing that was known counts any more; an hour of it is taken back.
        scene.pass(30 * HOUR);
        let issued = api.bound("s", &provider, Some(OWNER)).await;
        assert_eq!(issued["trust_level"], "self_signed");
        let issued = api.challenged("s").await;
        let right = scene.now();
        scene.set_clock(right.minus(29 * HOUR));
        says_nothing(&plane, &device_id, &provider, "clock_behind").await;
        let (status, problem) = api.respond(&issued, &answer(&provider, &issued)).await;
        assert_eq!((status, &problem["cause"]), (503, &json!("clock_behind")));
        run_once(scene.ctx()).await.expect("runs");
        let degraded = told(&plane, "service.degraded").await;
        assert_eq!(degraded.len(), 1);
        assert_eq!((&degraded[0]["degraded"], &degraded[0]["cause"]), (&json!(true), &json!("clock_behind")));
        // Macs are heard all the while, and what is known of them is no question of trust.
        mac.connect().await.expect("a session");
        assert_eq!(api.device(&mac.serial()).await.expect("a device")["enrolled"], true);

        scene.pass(28 * HOUR);
        says_nothing(&plane, &device_id, &provider, "clock_behind").await;
        scene.pass(HOUR - 10 * SECOND);
        answers_again(&plane, &device_id, &provider).await;
        run_once(scene.ctx()).await.expect("runs");
        let degraded = told(&plane, "service.degraded").await;
        assert_eq!(degraded[1]["degraded"], false);
        assert_eq!(scene.counted("attestd_clock_believed", &[]).await, 1);
    }
}

journey! {
    async fn a_leap_ahead_is_believed_after_half_a_minute_and_undone_costs_nothing(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, mut provider) = plane.routed().await;
        drop(life);
        let device_id = api.device_id(&mac.serial()).await;
        // An error of some seconds: of a year, and back.
        let right = scene.now();
        let events = scene.kept(&mac).await.events;
        scene.set_clock(right.plus(365 * 24 * HOUR));
        says_nothing(&plane, &device_id, &provider, "clock_leapt").await;
        // Nobody has been silent for a day by it, no verdict has ended, and nothing is due.
        challenge::expire_due(scene.ctx()).await.expect("runs");
        tell_of_end::run_once(scene.ctx()).await.expect("runs");
        scene.sweep().await;
        assert_eq!(scene.kept(&mac).await.events, events);
        scene.set_clock(right);
        assert_eq!(api.binding("s").await["routable"], true);
        answers_again(&plane, &device_id, &provider).await;

        // A machine that was suspended for the night.
        scene.set_clock(scene.now().plus(8 * HOUR));
        provider.skew_clock(8 * 60 * 60 * 1000);
        scene.pass(SECOND);
        says_nothing(&plane, &device_id, &provider, "clock_leapt").await;
        scene.pass(29 * SECOND);
        says_nothing(&plane, &device_id, &provider, "clock_leapt").await;
        scene.pass(SECOND);
        answers_again(&plane, &device_id, &provider).await;
        let binding = api.binding("s").await;
        assert_eq!((&binding["routable"], &binding["reasons"]), (&json!(false), &json!(["challenge_stale"])));
    }
}

journey! {
    async fn a_restart_makes_no_clock_right_and_what_was_dated_ahead_counts_for_nothing(backend: Backend) {
        let mut plane = Plane::new(backend).await;
        // Its own certificates are older than the wrong time.
        plane.scene.pass(48 * HOUR);
        let (mac, life, mut provider) = plane.routed().await;
        drop(life);
        run_once(plane.scene.ctx()).await.expect("runs");
        let device_id = plane.scene.api.device_id(&mac.serial()).await;
        // The clock had been a day ahead; it is set right while the server is down.
        plane.scene.stop().await;
        let before = plane.scene.now();
        plane.scene.set_clock(before.minus(24 * HOUR));
        provider.skew_clock(-24 * 60 * 60 * 1000);
        plane.scene.start().await;
        says_nothing(&plane, &device_id, &provider, "clock_behind").await;
        let path = "/internal/v1/clock/accept";
        let note = json!({ "reason": "the time server was wrong" });
        let api = &plane.scene.api;
        assert_eq!(api.ask(Method::POST, path, &note).await.0, 403);
        assert_eq!(api.ask(Method::POST, path, &json!({ "why": 1 })).await.0, 403);
        let operator = api.with_token(plane.scene.token("operator"));
        assert_eq!(operator.ask(Method::POST, path, &json!({ "why": 1 })).await.0, 400);
        let (status, accepted) = operator.ask(Method::POST, path, &note).await;
        assert_eq!((status, &accepted["accepted_at"]), (200, &json!(plane.scene.now())));
        assert_eq!(told(&plane, "service.clock_accepted").await[0]["note"], "the time server was wrong");

        // What the wrong clock dated is not worth a day more for it: it is worth nothing.
        let posture = plane.scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("unknown"), &json!("service_degraded")));
        for claim in ["sip", "sip#mda"] {
            assert_eq!((&posture["claims"][claim]["age"], &posture["claims"][claim]["reason"]), (&json!("undated"), &json!("service_degraded")));
        }
        let binding = plane.scene.api.binding("s").await;
        assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));
        answers_again(&plane, &device_id, &provider).await;
        // Nor does another restart ask again.
        plane.scene.stop().await;
        plane.scene.start().await;
        plane.scene.pass(31 * SECOND);
        let api = &plane.scene.api;
        assert_eq!(api.challenge("s", &provider).await["routable"], false);

        // What comes now takes its place.
        mac.remove_profile().await.expect("a CheckOut");
        plane.enroll(&mac, Some(OWNER), None).await;
        eventually("it is trusted", || async {
            mac.connect().await.expect("a session");
            api.binding("s").await["trust_level"] == "hardware"
        }).await;
        provider.restart().expect("restarts");
        api.bound("s", &provider, Some(OWNER)).await;
        assert_eq!(api.challenge("s", &provider).await["routable"], true);
    }
}
