//! The server stops, in order or not, and starts again on what it had written.

use std::time::Duration;

use attestd_sim::{Mac, MacSpec};
use reqwest::Method;
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::process::Served;
use crate::harness::scene::{Backend, Scene};
use crate::harness::talk::{idle, report};

async fn enrolled_mac(scene: &Scene) -> Mac {
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac
}

journey! {
    async fn everything_is_there_after_a_restart(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (done, asked) = (enrolled_mac(&scene).await, enrolled_mac(&scene).await);
        done.connect().await.expect("a session");
        let command = idle(&asked).await.expect("a command");
        let before = (scene.api.posture(&done.serial()).await, scene.kept(&done).await);
        let device = scene.api.device(&done.serial()).await;
        let viewer = scene.token("viewer");

        scene.stop().await;
        scene.start().await;
        assert_eq!((scene.api.posture(&done.serial()).await, scene.kept(&done).await), before);
        assert_eq!(scene.api.device(&done.serial()).await, device);
        let status = reqwest::Client::new().get(format!("{}/internal/v1/status", scene.api.url));
        assert_eq!(status.bearer_auth(viewer).send().await.expect("an answer").status(), 200);
        // The answer to what was asked before is still an answer, and the next question follows.
        let next = report(&asked, &command).await.expect("the other kind");
        assert_eq!(next.kind, "DeviceInformation");
        assert_eq!(scene.api.posture(&asked.serial()).await["claims"]["sip"]["value"], true);
        assert_eq!(scene.refused("answer_unsolicited").await, 0);

        // Push certificate, token and PushMagic too.
        scene.pass(Duration::from_secs(120));
        scene.api.verify(&done.serial(), &["security_info"]).await;
        let (token, _) = done.push_address().expect("an address");
        eventually("it is pushed", async || {
            // The certificate is taken into use a moment after the start.
            scene.pass(Duration::from_secs(15));
            scene.sweep().await;
            scene.world.apns().seen_for(&token).iter().filter(|push| push.status == 200).count() == 2
        }).await;
    }
}

journey! {
    async fn a_stop_in_the_middle_of_sessions_loses_no_acknowledged_reply(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let mut macs = Vec::new();
        for _ in 0..3 {
            macs.push(enrolled_mac(&scene).await);
        }
        let sessions: Vec<_> = macs.iter().cloned()
            .map(|mac| tokio::spawn(async move { mac.connect().await.is_ok() })).collect();
        eventually("a session has begun", async || {
            macs.iter().any(|mac| !mac.exchanges().is_empty())
        }).await;
        scene.stop().await;
        for session in sessions {
            // Finished or cut between two messages; never answered and then forgotten.
            session.await.expect("no panic");
        }
        scene.start().await;
        for mac in &macs {
            let acknowledged = mac.exchanges().iter().filter(|one| one.acknowledged.is_some()).count();
            let kept = scene.kept(mac).await.evidence.len();
            assert!(kept >= acknowledged, "{kept} kept of {acknowledged}");
            mac.connect().await.expect("a session");
            assert_eq!(scene.kept(mac).await.evidence.len(), 2);
            assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let mut scene = Scene::new(Backend::Sqlite).await;
    let mac = enrolled_mac(&scene).await;
    mac.connect().await.expect("a session");
    let serial = mac.serial();
    scene.stop().await;
    let mut server = Served::start(scene.config());
    for round in 0..4 {
        scene.api.url = format!("http://{}", server.internal);
        scene.api.verify(&serial, &["security_info"]).await;
        mac.change(|spec| spec.firewall = round % 2 == 0);
        let asked = idle(&mac).await.expect("a command");
        // Acknowledged with an empty 200, and in the next instant the machine is gone.
        assert_eq!(report(&mac, &asked).await, None);
        server.kill();

        server = Served::start(scene.config());
        scene.api.url = format!("http://{}", server.internal);
        let posture = scene.api.posture(&serial).await;
        assert_eq!(posture["claims"]["firewall"]["value"], round % 2 == 0);
        assert_eq!(posture["revision"], 3 + round);
        // Sent again, because the Mac may not have read the answer: it is known already.
        assert_eq!(report(&mac, &asked).await, None);
        assert_eq!(scene.api.posture(&serial).await["revision"], 3 + round);
    }
    // A command handed over before the power went is answered after it came back.
    scene.api.verify(&serial, &["security_info"]).await;
    let asked = idle(&mac).await.expect("a command");
    server.kill();
    let mut server = Served::start(scene.config());
    assert_eq!(report(&mac, &asked).await, None);
    scene.api.url = format!("http://{}", server.internal);
    assert_eq!(scene.api.posture(&serial).await["revision"], 7);
    assert_eq!(server.terminate(), Some(0));
    assert!(server.log().contains("stopped"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_answered_before_the_server_stops() {
    let mut scene = Scene::new(Backend::Sqlite).await;
    let mac = enrolled_mac(&scene).await;
    mac.connect().await.expect("a session");
    let body = json!({ "device_id": scene.api.device_id(&mac.serial()).await });
    let request = scene
        .api
        .request(Method::POST, "/internal/v1/verifications");
    let request = request.json(&body).header("Prefer", "wait=1");
    let waiting = tokio::spawn(async move { request.send().await });
    eventually("the request is there", async || {
        scene.kept(&mac).await.verifications.len() == 2
    })
    .await;
    scene.stop().await;
    let answer = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 202);
}
