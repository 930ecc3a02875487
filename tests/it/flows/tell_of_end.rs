//! A verdict ends by itself, and those who wait for changes are told.

use std::time::Duration;

use attestd::flows::tell_of_end;
use attestd_sim::{Mac, MacSpec};
use serde_json::{Value, json};

use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn trusted_mac(scene: &Scene) -> Mac {
    let mut spec = MacSpec::random().expect("a Mac");
    spec.asks_for = Some(attestd_sim::IdentityKind::Acme);
    let mac = scene.mac(spec);
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    assert_eq!(
        scene.api.posture(&mac.serial()).await["verdict"],
        "affirming"
    );
    mac
}

async fn told(scene: &Scene, mac: &Mac, name: &str) -> Vec<Value> {
    let events = scene.kept(mac).await.events.into_iter();
    events
        .filter(|event| event.event.name == name)
        .map(|event| event.event.body)
        .collect()
}

async fn tell(scene: &Scene) {
    // Twice: what was told is not told again.
    for _ in 0..2 {
        tell_of_end::run_once(scene.ctx()).await.expect("tells");
    }
}

journey! {
    async fn subscribers_are_told_before_a_verdict_ends_and_when_it_has(backend: Backend) {
        // A Mac that is never woken: nothing renews the verdict.
        let scene = Scene::new(backend).await;
        let mac = trusted_mac(&scene).await;
        let posture = scene.api.posture(&mac.serial()).await;
        let until = posture["usable_until"].clone();
        scene.pass(24 * HOUR - 10 * MINUTE - Duration::from_secs(1));
        tell(&scene).await;
        assert_eq!(told(&scene, &mac, "posture.expiring").await, [json!(null); 0]);

        scene.pass(Duration::from_secs(1));
        tell(&scene).await;
        let expiring = told(&scene, &mac, "posture.expiring").await;
        assert_eq!(expiring.len(), 1);
        assert_eq!(expiring[0]["usable_until"], until);
        assert_eq!(expiring[0]["verdict"], "affirming");
        assert_eq!(expiring[0]["revision"], posture["revision"]);

        let before = told(&scene, &mac, "posture.changed").await.len();
        scene.pass(10 * MINUTE);
        // No reader has to wait for that: nothing was told yet.
        let read = scene.api.posture(&mac.serial()).await;
        assert_eq!((&read["verdict"], &read["trust_level"]), (&json!("unknown"), &json!("none")));
        assert_eq!(read["claims"]["sip"]["age"], "expired");
        tell(&scene).await;
        let changed = told(&scene, &mac, "posture.changed").await;
        assert_eq!(changed.len(), before + 1);
        let last = changed.last().expect("one");
        assert_eq!((&last["verdict"], &last["previous"]), (&json!("unknown"), &json!("affirming")));
        assert_eq!(told(&scene, &mac, "posture.expiring").await.len(), 1);
    }
}

journey! {
    async fn whoever_is_asked_again_in_time_gets_no_notice(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = trusted_mac(&scene).await;
        for _ in 0..3 {
            scene.pass(20 * HOUR);
            scene.sweep().await;
            mac.connect().await.expect("a session");
            tell(&scene).await;
        }
        assert_eq!(told(&scene, &mac, "posture.expiring").await, [json!(null); 0]);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
    }
}
