//! A Mac is woken, and APNs says what became of it (apple-protocol 9).

use std::time::Duration;

use attestd::ids::DeviceId;
use attestd_sim::apns::{Fault, PushSeen};
use attestd_sim::{Mac, MacSpec};
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A long attempt, so that nothing here times out, and a budget that nothing here exhausts.
const PATIENT: &str = "[verification]\npatience = \"10d\"\npushes_per_hour = 60\n";

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// What APNs has seen for the Mac's present token.
fn pushes(scene: &Scene, mac: &Mac) -> Vec<PushSeen> {
    let (token, _) = mac.push_address().expect("an address");
    scene.world.apns().seen_for(&token)
}

/// A silent Mac that answered everything so far; nothing is owed.
async fn quiet_mac(scene: &Scene) -> Mac {
    let mac = scene.mac(spec());
    mac.enroll(&scene.base_url).await.expect("enrols");
    pushed_times(scene, &mac, 1).await;
    mac.connect().await.expect("a session");
    mac
}

/// Waits until that many pushes were written down.
async fn pushed_times(scene: &Scene, mac: &Mac, count: usize) {
    let what = format!("{count} pushes");
    eventually(&what, async || pushes(scene, mac).len() >= count).await;
    settled(scene, mac).await;
    assert_eq!(pushes(scene, mac).len(), count);
}

/// Waits until the outcome of the last push stands in the verification, and none is under way.
async fn settled(scene: &Scene, mac: &Mac) {
    let device_id = scene.device_id(mac).await;
    eventually("the outcome is written", async || {
        let tx = scene.ctx().store.read().await.expect("a store");
        let agenda = tx.agenda(&device_id).await.expect("read");
        let agenda = serde_json::to_value(agenda.expect("an agenda")).expect("JSON");
        if agenda["pushes"]["under_way"] == json!(true) {
            return false;
        }
        let kept = scene.kept(mac).await;
        let last = &kept.verifications[0];
        let refused = last.parts.iter().any(|part| part.reason.is_some());
        last.is_finished() || last.last_pushed_at() == Some(scene.now()) || refused
    })
    .await;
}

/// Wakes a Mac as the worker does, and waits for the outcome: what it does not push now it would
/// not push by itself either.
async fn wake(scene: &Scene, mac: &Mac) {
    let device_id: DeviceId = scene.device_id(mac).await;
    attestd::flows::wake::wake(scene.ctx(), &device_id)
        .await
        .expect("wakes");
}

async fn first_reason(scene: &Scene, mac: &Mac) -> serde_json::Value {
    let kept = scene.kept(mac).await;
    json!(kept.verifications[0].reasons().first())
}

journey! {
    async fn a_push_says_exactly_what_apple_wants(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = scene.mac(spec());
        mac.enroll(&scene.base_url).await.expect("enrols");
        pushed_times(&scene, &mac, 1).await;
        let push = &pushes(&scene, &mac)[0];
        let (_, magic) = mac.push_address().expect("an address");
        assert_eq!(push.body, format!("{{\"mdm\":\"{magic}\"}}"));
        let header = |name: &str| push.headers.get(name).map(|v| v.to_str().expect("text").to_owned());
        assert_eq!(header("apns-topic").as_deref(), Some(scene.world.topic()));
        assert_eq!(header("apns-push-type").as_deref(), Some("mdm"));
        assert_eq!(header("apns-priority").as_deref(), Some("10"));
        let week = scene.now().plus(7 * DAY).seconds().to_string();
        assert_eq!(header("apns-expiration"), Some(week));
        assert_eq!(header("apns-id").expect("an id").len(), 36);
        assert_eq!(header("apns-collapse-id"), None);
        assert_eq!(push.status, 200);
    }
}

journey! {
    async fn a_dead_token_ends_pushes_until_the_next_token_update(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        for fault in [None, Some(Fault::Answer(400, "BadDeviceToken"))] {
            let mac = quiet_mac(&scene).await;
            scene.pass(2 * MINUTE);
            let (token, _) = mac.push_address().expect("an address");
            match fault {
                // 410 with the time of death, which is after the TokenUpdate.
                None => scene.world.apns().unregister(&token),
                Some(fault) => scene.world.apns().inject_for(&token, fault),
            }
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            pushed_times(&scene, &mac, 2).await;
            assert_eq!(first_reason(&scene, &mac).await, "push_token_invalid");
            let device = scene.api.device(&mac.serial()).await.expect("a device");
            assert_eq!((&device["enrolled"], &device["push"]["state"]),
                (&json!(true), &json!("token_invalid")));
            for _ in 0..4 {
                scene.pass(25 * MINUTE);
                scene.sweep().await;
                wake(&scene, &mac).await;
            }
            assert_eq!(pushes(&scene, &mac).len(), 2);

            // The Mac has not noticed, and still may ask by itself.
            assert_eq!(mac.connect().await.expect("a session").answered, 1);
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            mac.rotate_token().await.expect("a new token");
            pushed_times(&scene, &mac, 1).await;
            assert_eq!(pushes(&scene, &mac)[0].status, 200);
        }
    }
}

journey! {
    async fn the_death_of_an_older_token_is_not_the_present_ones(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        let (token, _) = mac.push_address().expect("an address");
        scene.world.apns().unregister(&token);
        scene.pass(MINUTE);
        // The same token lives again: this TokenUpdate is newer than its death.
        mac.repeat_token_update().await.expect("a TokenUpdate");
        scene.pass(MINUTE);
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        pushed_times(&scene, &mac, 2).await;
        assert_eq!(pushes(&scene, &mac)[1].status, 410);
        let device = scene.api.device(&mac.serial()).await.expect("a device");
        assert_eq!(device["push"]["state"], "ok");
        scene.world.apns().register(&token, scene.world.topic());
        scene.pass(MINUTE);
        scene.sweep().await;
        pushed_times(&scene, &mac, 3).await;
        assert_eq!(pushes(&scene, &mac)[2].status, 200);
    }
}

journey! {
    async fn a_refused_certificate_is_nobodys_macs_fault(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let (first, second) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
        scene.pass(2 * MINUTE);
        scene.world.apns().inject(Fault::Answer(403, "BadCertificate"));
        scene.api.verify(&first.serial(), &["security_info"]).await;
        pushed_times(&scene, &first, 2).await;
        // The certificate is on hold: the other Mac's push is not even sent.
        scene.api.verify(&second.serial(), &["security_info"]).await;
        settled(&scene, &second).await;
        assert_eq!(pushes(&scene, &second).len(), 1);
        for mac in [&first, &second] {
            assert_eq!(first_reason(&scene, mac).await, "service_degraded");
            let device = scene.api.device(&mac.serial()).await.expect("a device");
            assert_eq!((&device["enrolled"], &device["push"]["state"]), (&json!(true), &json!("ok")));
            assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        }
        let status = scene.api.json("/internal/v1/status").await;
        assert!(status["apns"][0]["on_hold_until"].is_string(), "{status}");
    }
}

journey! {
    async fn a_throttled_mac_is_left_alone_longer_each_time(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        let (token, _) = mac.push_address().expect("an address");
        for _ in 0..2 {
            scene.world.apns().inject_for(&token, Fault::Answer(429, "TooManyRequests"));
        }
        scene.pass(2 * MINUTE);
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        pushed_times(&scene, &mac, 2).await;
        assert_eq!(first_reason(&scene, &mac).await, "push_throttled");
        let mut seen = 2;
        for (pause, pushed) in [(119, false), (1, true), (239, false), (1, true)] {
            scene.pass(pause * SECOND);
            scene.sweep().await;
            // Whoever asks again does not shorten it.
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            if !pushed {
                // Where there is something to push, the worker does it, and two would race.
                wake(&scene, &mac).await;
            }
            seen += usize::from(pushed);
            pushed_times_unless(&scene, &mac, seen, !pushed).await;
        }
        assert_eq!(pushes(&scene, &mac).last().expect("a push").status, 200);
        assert_eq!(mac.connect().await.expect("a session").answered, 1);
    }
}

async fn pushed_times_unless(scene: &Scene, mac: &Mac, count: usize, none: bool) {
    if none {
        assert_eq!(pushes(scene, mac).len(), count);
    } else {
        pushed_times(scene, mac, count).await;
    }
}

journey! {
    async fn apns_in_trouble_costs_no_push(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        scene.pass(2 * MINUTE);
        scene.world.apns().inject(Fault::Answer(503, "ServiceUnavailable"));
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        eventually("a push got through", async || {
            // By itself after a pause, whoever counts the attempts.
            scene.pass(MINUTE);
            scene.sweep().await;
            pushes(&scene, &mac).iter().filter(|push| push.status == 200).count() == 2
        }).await;
        settled_at_last(&scene, &mac).await;
        assert_eq!(first_reason(&scene, &mac).await, json!(null));
    }
}

async fn settled_at_last(scene: &Scene, mac: &Mac) {
    eventually("the success is written", async || {
        scene.kept(mac).await.verifications[0]
            .last_pushed_at()
            .is_some()
    })
    .await;
}

journey! {
    async fn connections_that_end_lose_nothing(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        let accepted = || pushes(&scene, &mac).iter().filter(|push| push.status == 200).count();
        // Every connection ends after one push: GOAWAY, and once without a word.
        scene.world.apns().go_away_after(Some(1));
        for round in 0..3 {
            if round == 2 {
                scene.world.apns().go_away_after(None);
                scene.world.apns().inject(Fault::DropConnection);
            }
            let before = accepted();
            scene.pass(2 * MINUTE);
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            eventually("the push arrives", async || {
                scene.sweep().await;
                scene.pass(SECOND);
                accepted() > before
            }).await;
            settled_at_last(&scene, &mac).await;
            assert_eq!(mac.connect().await.expect("a session").answered, 1);
        }
    }
}

journey! {
    async fn a_push_to_the_former_token_is_made_up_for(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        scene.pass(2 * MINUTE);
        mac.sleep();
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        pushed_times(&scene, &mac, 2).await;
        // The Mac slept through it and has another address now.
        scene.pass(10 * SECOND);
        mac.rotate_token().await.expect("a new token");
        pushed_times(&scene, &mac, 1).await;
        // The same TokenUpdate again is no reason for another push.
        for _ in 0..3 {
            mac.repeat_token_update().await.expect("a TokenUpdate");
            wake(&scene, &mac).await;
        }
        assert_eq!(pushes(&scene, &mac).len(), 1);
    }
}

journey! {
    async fn a_sleeping_mac_gets_its_push_when_it_wakes(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let (mac, _life) = scene.living_mac(spec()).await;
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        mac.sleep();
        scene.pass(2 * MINUTE);
        let asked = scene.api.verify(&serial, &["security_info"]).await;
        pushed_times(&scene, &mac, 2).await;
        scene.pass(DAY);
        mac.wake();
        let path = format!("/internal/v1/verifications/{}", asked["verification_id"].as_str().expect("id"));
        eventually("it answers", async || scene.api.json(&path).await["state"] == "answered").await;
    }
}

journey! {
    async fn whoever_asks_within_a_minute_shares_one_push(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let mac = quiet_mac(&scene).await;
        scene.pass(2 * MINUTE);
        scene.world.apns().add_latency(Duration::from_millis(100));
        for _ in 0..5 {
            scene.api.verify(&mac.serial(), &["security_info", "mda"]).await;
        }
        pushed_times(&scene, &mac, 2).await;
        scene.pass(59 * SECOND);
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        wake(&scene, &mac).await;
        assert_eq!(pushes(&scene, &mac).len(), 2);
        scene.pass(SECOND);
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        pushed_times(&scene, &mac, 3).await;
    }
}
