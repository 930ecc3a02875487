//! Nothing moves, and somebody says so: verdicts, events, background work. What is measured on the way.

use std::time::Duration;

use attestd::flows::watch_standstill::run_once;
use attestd::store::Event;
use attestd_sim::{Mac, MacSpec};
use serde_json::{Value, json};

use crate::harness::following::Following;
use crate::harness::inside::eventually;
use crate::harness::plane::Plane;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::scene::{Backend, Scene, attestd};

const HOUR: Duration = Duration::from_secs(60 * 60);

async fn look(scene: &Scene) {
    run_once(scene.ctx()).await.expect("looks");
}

/// What was told of a cause: whether it stands still, and what is said of it.
async fn told(scene: &Scene, cause: &str) -> Vec<(bool, Value)> {
    let events = scene.ctx().store.events_after(0, 1000).await;
    let events = events.expect("events").into_iter();
    events
        .filter(|it| it.event.name == "service.degraded" && it.event.body["cause"] == cause)
        .map(|it| {
            let body = it.event.body;
            (body["degraded"] == true, body["detail"].clone())
        })
        .collect()
}

async fn stands_still(scene: &Scene, cause: &str) -> bool {
    let label = format!("cause=\"{cause}\"");
    scene.counted("attestd_standing_still", &[&label]).await == 1
}

/// A Mac that answered what it was asked, and then sleeps.
async fn judged(scene: &Scene) -> Mac {
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    mac
}

journey! {
    async fn verdicts_that_stand_still_are_told_once_and_so_is_their_end(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let cause = "verdicts_stand_still";
        // Nobody is enrolled: nothing has to move.
        look(&scene).await;
        scene.pass(100 * HOUR);
        look(&scene).await;
        assert!(told(&scene, cause).await.is_empty());

        let mac = judged(&scene).await;
        look(&scene).await;
        scene.pass(24 * HOUR - Duration::from_secs(1));
        look(&scene).await;
        assert!(!stands_still(&scene, cause).await, "one Mac may be switched off");
        scene.pass(Duration::from_secs(2));
        look(&scene).await;
        look(&scene).await;
        assert!(stands_still(&scene, cause).await);
        let so_far = told(&scene, cause).await;
        assert_eq!(so_far.len(), 1);
        let said = so_far[0].1.as_str().expect("text");
        assert!(so_far[0].0 && said.starts_with("no answer of a Mac was judged since 20"), "{said}");

        // A server that was away begins to count anew: it is told that it is over, and not at once again.
        scene.stop().await;
        scene.start().await;
        look(&scene).await;
        assert_eq!(told(&scene, cause).await.len(), 2);
        scene.pass(24 * HOUR + Duration::from_secs(1));
        look(&scene).await;
        assert_eq!(told(&scene, cause).await.len(), 3);

        mac.connect().await.expect("a session");
        look(&scene).await;
        let so_far = told(&scene, cause).await;
        assert_eq!(so_far.last(), Some(&(false, Value::Null)));
        assert!(!stands_still(&scene, cause).await);
    }
}

journey! {
    async fn ten_macs_are_missed_sooner_than_one(backend: Backend) {
        // 48 minutes, 24 more, and 10 to answer.
        let scene = Scene::new(backend).await;
        let mut macs = Vec::new();
        for _ in 0..10 {
            macs.push(judged(&scene).await);
        }
        look(&scene).await;
        scene.pass(Duration::from_secs(82 * 60));
        look(&scene).await;
        assert!(!stands_still(&scene, "verdicts_stand_still").await);
        scene.pass(Duration::from_secs(60));
        look(&scene).await;
        assert!(stands_still(&scene, "verdicts_stand_still").await);
        macs[3].connect().await.expect("a session");
        look(&scene).await;
        assert!(!stands_still(&scene, "verdicts_stand_still").await);
    }
}

journey! {
    async fn two_nodes_tell_once_that_verdicts_stand_still(backend: Backend) {
        if backend == Backend::Sqlite {
            return;
        }
        let scene = Scene::new(backend).await;
        judged(&scene).await;
        look(&scene).await;
        let second = scene.second_node().await;
        scene.pass(25 * HOUR);
        let (one, other) = tokio::join!(run_once(scene.ctx()), run_once(&second));
        one.and(other).expect("look");
        assert_eq!(told(&scene, "verdicts_stand_still").await.len(), 1);
    }
}

journey! {
    async fn work_that_does_not_come_to_its_end_is_named(backend: Backend) {
        let scene = Scene::new(backend).await;
        let cause = "worker_silent";
        // The service's own work is at it, by name.
        eventually("all work", async || {
            look(&scene).await;
            let silence = scene.api.get("/metrics").await.text().await.expect("text");
            let is_seen = |worker| silence.contains(&format!("attestd_worker_silence_seconds{{worker=\"{worker}\"}}"));
            ["sweep", "wake", "refuse", "follow_events", "deliver_webhooks", "watch_clock"].into_iter().all(is_seen)
        }).await;
        assert!(!stands_still(&scene, cause).await);

        // One that may take no time at all, and hangs.
        let hanging = scene.ctx().watched.heart("hanging", Duration::ZERO);
        look(&scene).await;
        look(&scene).await;
        assert_eq!(told(&scene, cause).await, [(true, json!("hanging"))]);
        assert!(stands_still(&scene, cause).await);
        hanging.rests();
        look(&scene).await;
        assert_eq!(told(&scene, cause).await, [(true, json!("hanging")), (false, Value::Null)]);
        assert!(!stands_still(&scene, cause).await);
    }
}

journey! {
    async fn how_long_trust_takes_is_measured_step_by_step_and_once(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let steps = "attestd_enrolment_step_seconds_count";
        let (mac, life, provider) = plane.routed().await;
        drop((life, provider));
        let of_verdict = ["step=\"verdict\""];
        assert_eq!(scene.counted(steps, &of_verdict).await, 1);
        for step in ["profile", "identity", "authenticated", "enrolled", "security_info"] {
            let label = format!("step=\"{step}\"");
            assert_eq!(scene.counted(steps, &[&label]).await, 1, "{step}");
        }
        let answered = scene.counted("attestd_command_age_seconds_count", &["kind=\"security_info\""]).await;
        assert!(answered >= 1);

        // Its verdict ends and begins again: that is no new trust.
        scene.pass(30 * HOUR);
        attestd::flows::tell_of_end::run_once(scene.ctx()).await.expect("runs");
        eventually("it is good again", async || {
            mac.connect().await.expect("a session");
            scene.api.posture(&mac.serial()).await["verdict"] == "affirming"
        }).await;
        assert_eq!(scene.counted(steps, &of_verdict).await, 1);

        // Somebody asks about it; its verdict grows old.
        scene.api.binding("s").await;
        scene.pass(Duration::from_secs(600));
        scene.api.binding("s").await;
        look(scene).await;
        let oldest = scene.counted("attestd_verdict_age_seconds", &["quantile=\"1\""]).await;
        assert_eq!((scene.counted("attestd_macs_asked_about", &[]).await, oldest), (1, 600));
        let ends = scene.counted("attestd_certificate_not_after_seconds", &["certificate=\"device_ca\""]).await;
        assert!(ends > u64::try_from(scene.now().seconds()).expect("after 1970"));
    }
}

journey! {
    async fn those_who_are_told_late_are_seen_to_lag(backend: Backend) {
        let scene = Scene::new(backend).await;
        look(&scene).await;
        let lag = "attestd_outbox_lag_seconds";
        assert_eq!(scene.counted(lag, &[]).await, 0);
        // A receiver that takes nothing.
        let receiver = Receiver::start().await;
        receiver.reply(|_| Reply::Status(500));
        let config = scene.config().to_str().expect("a path").to_owned();
        let url = receiver.url();
        let add = ["webhook", "add", "late", &url, "--allow-private", "--insecure-http", "--config", &config];
        let added = attestd(&add);
        assert!(added.status.success(), "{added:?}");
        judged(&scene).await;
        receiver.count(1).await;
        scene.pass(Duration::from_secs(300));
        look(&scene).await;
        let webhooks = scene.counted(lag, &["reader=\"webhooks\""]).await;
        assert!(webhooks >= 300, "{webhooks}");
        // That is the receiver's doing, and no standstill of this service.
        assert!(told(&scene, "events_stand_still").await.is_empty());
    }
}

/// Only PostgreSQL has commits that come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_events_that_nobody_can_read_stand_still() {
    let scene = Scene::new(Backend::PostgreSql).await;
    let cause = "events_stand_still";
    let _following = Following::now(&scene.api).await;
    let second = scene.second_node().await;
    let event = |note: &str| Event::new("release.changed", scene.now(), json!({ "note": note }));
    let mut stuck = second.store.write().await.expect("begins");
    let appended = stuck.append_event_about(None, &event("stuck")).await;
    appended.expect("appended");
    let mut tx = scene.ctx().store.write().await.expect("begins");
    let appended = tx.append_event_about(None, &event("behind it")).await;
    appended.expect("appended");
    tx.commit().await.expect("commits");
    look(&scene).await;
    assert!(!stands_still(&scene, cause).await);

    scene.pass(Duration::from_secs(121));
    look(&scene).await;
    assert!(stands_still(&scene, cause).await);
    drop(stuck);
    eventually("they are read", async || {
        look(&scene).await;
        !stands_still(&scene, cause).await
    })
    .await;
}
