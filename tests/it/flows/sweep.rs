//! What is due or overdue, whoever asks for nothing.

use std::time::Duration;

use attestd::verification::State;
use attestd_sim::{Mac, MacSpec};
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);

async fn pushed_mac(scene: &Scene) -> Mac {
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    pushed(scene, &mac, 1).await;
    mac
}

/// Waits until that many pushes are out and the last is written down.
async fn pushed(scene: &Scene, mac: &Mac, count: usize) {
    eventually("a push is written down", async || {
        let last = scene.kept(mac).await.verifications[0].last_pushed_at();
        pushes(scene, mac) >= count && last == Some(scene.now())
    })
    .await;
    assert_eq!(pushes(scene, mac), count);
}

fn pushes(scene: &Scene, mac: &Mac) -> usize {
    let (token, _) = mac.push_address().expect("an address");
    scene.world.apns().seen_for(&token).len()
}

journey! {
    async fn silence_ends_in_a_time_out_that_is_told(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = pushed_mac(&scene).await;
        scene.pass(10 * MINUTE - Duration::from_millis(1));
        scene.sweep().await;
        assert!(!scene.kept(&mac).await.verifications[0].is_finished());
        scene.pass(Duration::from_millis(1));
        scene.sweep().await;
        scene.sweep().await;

        let kept = scene.kept(&mac).await;
        assert_eq!(kept.verifications[0].state(), State::TimedOut);
        let finished: Vec<_> = kept.events.iter()
            .filter(|event| event.event.name == "verification.finished").collect();
        assert_eq!(finished.len(), 1);
        assert_eq!(finished[0].event.body["state"], "timed_out");
        assert_eq!(finished[0].event.body["reasons"], json!(["answer_timeout"]));
        assert_eq!(kept.posture, None);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]),
            (&json!("unknown"), &json!("answer_timeout")));
        // Nothing is owed any more.
        assert_eq!(mac.connect().await.expect("a session").answered, 0);
    }
}

journey! {
    async fn a_mac_that_owes_is_woken_again_but_not_too_often(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npatience = \"2h\"\npushes_per_hour = 4\n").await;
        let (mac, done) = (pushed_mac(&scene).await, pushed_mac(&scene).await);
        done.connect().await.expect("a session");
        for round in 1..4 {
            scene.pass(20 * MINUTE - Duration::from_millis(1));
            scene.sweep().await;
            assert_eq!(pushes(&scene, &mac), round);
            scene.pass(Duration::from_millis(1));
            scene.sweep().await;
            scene.sweep().await;
            pushed(&scene, &mac, round + 1).await;
        }
        assert_eq!(pushes(&scene, &done), 1);
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
    }
}
