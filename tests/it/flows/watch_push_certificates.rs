//! Whoever looks after the push certificate is told before it ends, and when APNs refuses it.

use std::time::Duration;

use attestd::audit::Who;
use attestd::flows::rotate_push_certificate::activate;
use attestd::flows::watch_push_certificates::run_once;
use attestd::ids::PushCertificateId;
use attestd::time::Timestamp;
use attestd_sim::Mac;
use attestd_sim::apns::Fault;
use attestd_sim::certs::fingerprint;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::push_officer::{LATER, PushOfficer, pushes_to, quiet_mac};
use crate::harness::scene::Scene;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: i64 = 60 * 60 * 1000;
const YEAR_OF_HOURS: i64 = 365 * 24;

/// Nothing here times out, and no push is put off for the budget.
const PATIENT: &str = "[verification]\npatience = \"100d\"\npushes_per_hour = 60\n";

/// What subscribers were told under this name, at whatever moments are looked at.
async fn told_at(scene: &Scene, name: &str, at: impl Fn(Timestamp) -> bool) -> Vec<Value> {
    let events = scene.ctx().store.events_after(0, 1000).await;
    let events = events.expect("events").into_iter();
    events
        .filter(|event| event.event.name == name && at(event.event.at))
        .map(|event| event.event.body)
        .collect()
}

async fn told(scene: &Scene, name: &str) -> Vec<Value> {
    told_at(scene, name, |_| true).await
}

/// As [`told`], at this moment: older events are forgotten when a server stops.
async fn told_now(scene: &Scene, name: &str) -> Vec<Value> {
    told_at(scene, name, |at| at == scene.now()).await
}

/// What was told of a topic that cannot be pushed to, or can again.
async fn trouble(scene: &Scene) -> Vec<(Value, Value)> {
    let degraded = told(scene, "service.degraded").await;
    let of_pushes = degraded
        .into_iter()
        .filter(|body| body["topic"].is_string());
    of_pushes
        .map(|body| (body["degraded"].clone(), body["cause"].clone()))
        .collect()
}

async fn look(scene: &Scene) {
    run_once(scene.ctx()).await.expect("looks");
}

/// Somebody asks the Mac something, and APNs answers the push so.
async fn is_answered(scene: &Scene, mac: &Mac, status: u16) {
    scene.pass(LATER);
    let before = pushes_to(scene, mac).len();
    scene.api.verify(&mac.serial(), &["security_info"]).await;
    eventually("a push", async || pushes_to(scene, mac).len() > before).await;
    assert_eq!(pushes_to(scene, mac).last().expect("a push").status, status);
}

async fn is_not_blamed(scene: &Scene, mac: &Mac) {
    let device = scene.api.device(&mac.serial()).await.expect("a device");
    assert_eq!(
        (&device["enrolled"], &device["push"]["state"]),
        (&json!(true), &json!("ok"))
    );
}

journey! {
    async fn the_end_of_a_certificate_is_told_six_times_and_each_once(backend: Backend) {
        let mut scene = Scene::without_push_certificate(backend).await;
        let ending = PushOfficer(&scene).issued_for("com.apple.mgmt.External.ending", YEAR_OF_HOURS - 61 * 24);
        // By the clock of the machine, which is that of the command line.
        let renewed = PushOfficer(&scene).issued_for("com.apple.mgmt.External.ending", 12);
        let account = ["--apple-account", "officer@example.org"];
        let id = PushOfficer(&scene).has_installed(&ending, &account).await;
        look(&scene).await;
        assert!(told(&scene, "service.push_certificate_expiring").await.is_empty());

        let mut events = Vec::new();
        for (passed, said) in [(1, Some(60)), (29, None), (1, Some(30)), (16, Some(14)), (7, Some(7)), (4, Some(3)), (2, Some(1))] {
            scene.pass(DAY * passed);
            // As often as it likes, and by a server that was started again.
            look(&scene).await;
            scene.stop().await;
            scene.start().await;
            look(&scene).await;
            events = told_now(&scene, "service.push_certificate_expiring").await;
            let days: Vec<_> = events.iter().map(|body| body["days"].clone()).collect();
            assert_eq!(days, said.map(|days| json!(days)).into_iter().collect::<Vec<_>>());
            if said == Some(14) {
                let of_it = ["topic=\"com.apple.mgmt.External.ending\""];
                // Whole ones: the certificate ends with a second, and it is later by some of them.
                assert_eq!(scene.counted("attestd_push_certificate_days_left", &of_it).await, 13);
            }
        }
        let expected = json!({
            "push_certificate_id": id, "topic": "com.apple.mgmt.External.ending", "days": 1, "macs": 0,
            "apple_account": "officer@example.org", "not_after": events[0]["not_after"],
        });
        assert_eq!(events[0], expected);

        // A renewal has its own days.
        let officer = PushOfficer(&scene);
        let next = officer.has_installed(&renewed, &[]).await;
        assert_eq!(officer.sees(&next).await["apple_account"], "officer@example.org");
        officer.says(&["activate", &next, "--without-canary", "nobody is enrolled", "--json"]).await.json();
        look(&scene).await;
        assert_eq!(told_now(&scene, "service.push_certificate_expiring").await.len(), 1);
        assert!(trouble(&scene).await.is_empty());
    }
}

journey! {
    async fn two_nodes_tell_of_an_end_once(backend: Backend) {
        if backend == crate::harness::scene::Backend::Sqlite {
            return;
        }
        let scene = Scene::without_push_certificate(backend).await;
        let officer = PushOfficer(&scene);
        let ending = officer.issued_for("com.apple.mgmt.External.ending", YEAR_OF_HOURS - 20 * 24);
        officer.has_installed(&ending, &[]).await;
        let second = scene.second_node().await;
        let (one, other) = tokio::join!(run_once(scene.ctx()), run_once(&second));
        one.and(other).expect("look");
        let events = told(&scene, "service.push_certificate_expiring").await;
        assert_eq!((events.len(), &events[0]["days"]), (1, &json!(30)));
    }
}

journey! {
    async fn a_revoked_certificate_is_told_of_once_blames_nobody_and_its_successor_ends_it(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let (first, second) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
        look(&scene).await;
        let revoked = &scene.world.push_certificate().identity.certificate;
        scene.world.apns().revoke(revoked).expect("revoked");
        is_answered(&scene, &first, 403).await;
        let refused = (json!(true), json!("push_certificate_refused"));
        eventually("it is told", async || {
            look(&scene).await;
            !trouble(&scene).await.is_empty()
        }).await;
        // No other Mac is tried, nobody is blamed, and it is told once.
        let before = pushes_to(&scene, &second).len();
        scene.api.verify(&second.serial(), &["security_info"]).await;
        for mac in [&first, &second] {
            is_not_blamed(&scene, mac).await;
        }
        look(&scene).await;
        assert_eq!(trouble(&scene).await, std::slice::from_ref(&refused));
        assert_eq!(pushes_to(&scene, &second).len(), before);
        let status = scene.api.json("/internal/v1/status").await;
        assert_eq!(status["apns"][0]["trouble"], "push_certificate_refused");
        let topic = scene.world.topic();
        let of_it = format!("topic=\"{topic}\"");
        assert_eq!(scene.counted("attestd_push_topic_stopped", &[&of_it]).await, 1);

        let officer = PushOfficer(&scene);
        let renewed = officer.renewed();
        let id = officer.has_installed(&renewed, &[]).await;
        officer.says(&["activate", &id, "--without-canary", "the old one was revoked", "--json"]).await.json();
        let name = fingerprint(&renewed.identity.certificate).expect("a name");
        eventually("the server uses it", async || {
            let states = scene.ctx().apns.state();
            states.iter().any(|state| hex::encode(state.certificate.as_bytes()) == name)
        }).await;
        first.connect().await.expect("a session");
        is_answered(&scene, &first, 200).await;
        eventually("it is over", async || {
            look(&scene).await;
            trouble(&scene).await.len() == 2
        }).await;
        assert_eq!(trouble(&scene).await, [refused.clone(), (json!(false), refused.1)]);
        let status = scene.api.json("/internal/v1/status").await;
        assert_eq!(status["apns"][0]["trouble"], json!(null));
        assert_eq!(scene.counted("attestd_push_topic_stopped", &[&of_it]).await, 0);
    }
}

journey! {
    async fn a_certificate_that_is_refused_in_the_handshake_or_for_its_topic_is_told_of_by_cause(backend: Backend) {
        for (cause, play) in [("push_certificate_refused", true), ("push_topic_refused", false)] {
            let scene = Scene::configured(backend, PATIENT).await;
            let mac = quiet_mac(&scene).await;
            let apns = scene.world.apns();
            if play {
                let refused = &scene.world.push_certificate().identity.certificate;
                apns.refuse_in_handshake(refused).expect("refused");
                // The connection that is open stays open.
                apns.inject(Fault::DropConnection);
            } else {
                apns.inject(Fault::Answer(400, "TopicDisallowed"));
            }
            scene.pass(LATER);
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            eventually("it is told", async || {
                look(&scene).await;
                trouble(&scene).await == [(json!(true), json!(cause))]
            }).await;
            is_not_blamed(&scene, &mac).await;
        }
    }
}

journey! {
    async fn an_expired_certificate_stops_all_pushes_until_a_renewed_one_is_taken(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let mac = quiet_mac(&scene).await;
        let renewed = officer.renewed();
        // The renewal was made in time, and forgotten.
        let id = officer.has_installed(&renewed, &[]).await;
        let end = scene.now().millis() + (YEAR_OF_HOURS - 24 + 1) * HOUR;
        scene.pass(Duration::from_millis(u64::try_from(end - scene.now().millis()).expect("ahead")));
        let expired = (json!(true), json!("push_certificate_expired"));
        look(&scene).await;
        look(&scene).await;
        assert_eq!(trouble(&scene).await, std::slice::from_ref(&expired));
        is_not_blamed(&scene, &mac).await;
        // The command line's clock is that of the machine.
        let id = PushCertificateId::parse(&id).expect("an id");
        activate(&scene.ctx().store, &id, Some("it is late"), &Who::Service, scene.now()).await.expect("comes into use");
        look(&scene).await;
        assert_eq!(trouble(&scene).await, [expired.clone(), (json!(false), expired.1)]);
    }
}
