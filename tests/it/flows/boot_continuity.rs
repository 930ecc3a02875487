//! Where the policy switches boot continuity on: what was proved of a Mac while one process of its
//! provider lives stays fresh for that life, and nobody is woken for it (coordinator-and-standards C.3).

use std::time::Duration;

use attestd::verification::Priority;
use attestd_sim::{Life, Mac, Provider};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::Backend;

/// From one answer to the next challenge.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The longest silence that still counts as unbroken: interval, time to answer, `gap`.
const LONGEST: Duration = Duration::from_secs(7 * 60);
/// For so long SecurityInfo is fresh by itself.
const FRESH_FOR: Duration = Duration::from_secs(2 * 60 * 60);
const SECOND: Duration = Duration::from_secs(1);

async fn plane(backend: Backend) -> Plane {
    let changes = [
        ("release = true", "release = false"),
        ("enabled = false", "enabled = true"),
    ];
    Plane::changed(backend, &changes, "").await
}

/// A Mac whose provider's process answers as session `s`, and which reported since it does.
async fn covered(plane: &Plane) -> (Mac, Life, Provider) {
    let (mac, life) = plane.mac_of(Some(OWNER)).await;
    let (scene, api) = (&plane.scene, &plane.scene.api);
    let provider = plane.provider_on(&mac);
    api.bound("s", &provider, Some(OWNER)).await;
    plane
        .once("s", "hardware", |it| it["trust_level"] == "hardware")
        .await;
    api.challenge("s", &provider).await;
    // Its budget of pushes is as before, and it says nothing by itself.
    scene.pass(INTERVAL);
    api.challenge("s", &provider).await;
    reports(plane, &mac).await;
    (mac, life, provider)
}

/// The Mac is asked for SecurityInfo by somebody, and answers.
async fn reports(plane: &Plane, mac: &Mac) {
    let api = &plane.scene.api;
    api.verify(&mac.serial(), &["security_info"]).await;
    mac.connect().await.expect("a session");
    eventually("it has answered", async || {
        let posture = api.posture(&mac.serial()).await;
        posture["claims"]["sip"]["observed_at"] == json!(plane.scene.now())
    })
    .await;
}

/// How old SecurityInfo's word is, and until when it is fresh.
async fn sip(plane: &Plane, mac: &Mac) -> (Value, Value) {
    let sip = &plane.scene.api.posture(&mac.serial()).await["claims"]["sip"];
    (sip["age"].clone(), sip["fresh_until"].clone())
}

/// How often the Mac was asked for anything.
async fn asked(plane: &Plane, mac: &Mac) -> usize {
    plane.scene.kept(mac).await.verifications.len()
}

/// The process answers every five minutes, until SecurityInfo alone would not be fresh any more.
async fn lives_on(plane: &Plane, mac: &Mac, provider: &Provider) {
    let before = asked(plane, mac).await;
    let until = plane.scene.now().plus(FRESH_FOR);
    while plane.scene.now() <= until {
        plane.scene.pass(INTERVAL);
        plane.scene.api.challenge("s", provider).await;
        plane.scene.sweep().await;
        assert_eq!(sip(plane, mac).await.0, "fresh");
    }
    assert_eq!(
        asked(plane, mac).await,
        before,
        "nobody is woken for what stays true"
    );
    let lives_until = plane.scene.now().plus(LONGEST);
    assert_eq!(sip(plane, mac).await, (json!("fresh"), json!(lives_until)));
}

/// An exchange that the coordinator had with the provider at this moment.
fn exchange(plane: &Plane, provider: &Provider, number: u8) -> Value {
    let nonce = STANDARD.encode([number; 32]);
    let timestamp = provider.now();
    let frame = provider.answer(&nonce, &timestamp).expect("an answer");
    json!({
        "session": "s",
        "challenge": { "type": "attestation_challenge", "nonce": nonce, "timestamp": timestamp },
        "response": frame,
        "received_at": plane.scene.now(),
    })
}

async fn hand_over(plane: &Plane, exchange: &Value) {
    let api = &plane.scene.api;
    let (status, told) = api
        .ask(Method::POST, "/internal/v1/challenges", exchange)
        .await;
    assert_eq!(
        (status, &told["outcome"]),
        (200, &json!("good")),
        "{told:#}"
    );
}

journey! {
    async fn while_one_process_answers_its_mac_is_not_asked_and_a_silence_ends_that(backend: Backend) {
        let plane = plane(backend).await;
        let (mac, life, provider) = covered(&plane).await;
        drop(life);
        lives_on(&plane, &mac, &provider).await;
        let before = asked(&plane, &mac).await;
        // A reconnect of the same process is no news.
        plane.scene.api.bound("s", &provider, Some(OWNER)).await;
        plane.scene.pass(LONGEST - SECOND);
        plane.scene.sweep().await;
        assert_eq!((sip(&plane, &mac).await.0, asked(&plane, &mac).await), (json!("fresh"), before));

        // Nobody knows whether it lives: the reading is as old as it is, and the Mac is asked.
        plane.scene.pass(SECOND);
        assert_eq!(sip(&plane, &mac).await.0, "stale");
        plane.scene.sweep().await;
        eventually("it is asked", async || asked(&plane, &mac).await == before + 1).await;
        // That it answers again shows nothing of what happened meanwhile.
        plane.scene.pass(SECOND);
        plane.scene.api.challenge("s", &provider).await;
        assert_eq!(sip(&plane, &mac).await.0, "stale");
        mac.connect().await.expect("a session");
        assert_eq!(sip(&plane, &mac).await.0, "fresh");
        // Stale is not void, all the while.
        assert_eq!(plane.scene.api.binding("s").await["routable"], true);
    }
}

journey! {
    async fn another_process_makes_what_was_proved_stale_and_has_its_mac_asked(backend: Backend) {
        let plane = plane(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, mut provider) = covered(&plane).await;
        drop(life);
        for restarted in [false, true] {
            scene.pass(Duration::from_secs(3600));
            reports(&plane, &mac).await;
            api.challenge("s", &provider).await;
            scene.pass(INTERVAL);
            api.challenge("s", &provider).await;
            assert_eq!(sip(&plane, &mac).await.0, "fresh");
            let before = asked(&plane, &mac).await;
            // Started anew; the second time with its Mac, by an update.
            provider.restart().expect("restarts");
            if restarted {
                provider.truth.os_version = "Version 26.7 (Build 25H1)".to_owned();
            }
            scene.pass(SECOND);
            api.bound("s", &provider, Some(OWNER)).await;
            let told = api.challenge("s", &provider).await;
            assert_eq!((&told["trust_level"], &told["routable"]), (&json!("hardware"), &json!(true)));
            let began_at = json!(scene.now());
            assert_eq!(sip(&plane, &mac).await, (json!("stale"), began_at), "{restarted}");
            scene.sweep().await;
            eventually("it is asked", async || asked(&plane, &mac).await == before + 1).await;
            assert_eq!(scene.kept(&mac).await.verifications[0].priority, Priority::Expired);
            mac.connect().await.expect("a session");
            assert_eq!(sip(&plane, &mac).await.0, "fresh");
        }
    }
}

journey! {
    async fn an_exchange_that_is_handed_over_late_shows_life_at_the_time_it_was_had(backend: Backend) {
        let plane = plane(backend).await;
        let scene = &plane.scene;
        let (mac, life, provider) = covered(&plane).await;
        drop(life);
        lives_on(&plane, &mac, &provider).await;
        let before = asked(&plane, &mac).await;
        // Within the gap when it was had, handed over two minutes later and past the gap.
        scene.pass(LONGEST - SECOND);
        let (had_at, late) = (scene.now(), exchange(&plane, &provider, 1));
        scene.pass(120 * SECOND);
        hand_over(&plane, &late).await;
        assert_eq!(sip(&plane, &mac).await, (json!("fresh"), json!(had_at.plus(LONGEST))));
        // And it lives from then, not from the hand-over.
        scene.pass(LONGEST - 121 * SECOND);
        assert_eq!(sip(&plane, &mac).await.0, "fresh");
        scene.sweep().await;
        assert_eq!(asked(&plane, &mac).await, before);
        scene.pass(SECOND);
        assert_eq!(sip(&plane, &mac).await.0, "stale");
        scene.sweep().await;
        eventually("it is asked", async || asked(&plane, &mac).await == before + 1).await;
        // One that was had too late bridges nothing, however soon it is handed over.
        scene.pass(SECOND);
        hand_over(&plane, &exchange(&plane, &provider, 2)).await;
        assert_eq!(sip(&plane, &mac).await.0, "stale");
    }
}

journey! {
    async fn by_default_no_process_keeps_evidence_fresh(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let (mac, life, provider) = covered(&plane).await;
        drop(life);
        let (before, until) = (asked(&plane, &mac).await, scene.now().plus(FRESH_FOR));
        while scene.now() < until {
            scene.pass(INTERVAL);
            scene.api.challenge("s", &provider).await;
        }
        assert_eq!(sip(&plane, &mac).await.0, "stale");
        scene.sweep().await;
        eventually("it is asked", async || asked(&plane, &mac).await > before).await;
    }
}
