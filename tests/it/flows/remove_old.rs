//! Years go by, and the disk does not fill with answers that nobody needs any more.

use std::time::Duration;

use attestd::flows::Context;
use attestd::flows::remove_old::{self, Progress};
use attestd::time::Timestamp;
use attestd_sim::{Mac, MacSpec};
use reqwest::StatusCode;

use crate::harness::scene::{Backend, Scene};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEPT: &str = "[retention]\nanswers = \"30d\"\n";

async fn known_mac(scene: &Scene, spec: MacSpec) -> Mac {
    let mac = scene.mac(spec);
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    mac
}

/// As the worker does it, until nothing is left to do.
async fn remove(ctx: &Context) {
    let mut runs = 0;
    while remove_old::run_once(ctx).await.expect("removes") == Progress::More {
        runs += 1;
        assert!(runs < 100, "it comes to no end");
    }
}

/// When the Mac's answers that are still there came, the oldest first.
async fn answers(scene: &Scene, mac: &Mac) -> Vec<Timestamp> {
    let kept = scene.kept(mac).await;
    let mut times: Vec<_> = kept.evidence.iter().map(|one| one.received_at).collect();
    times.sort();
    times
}

journey! {
    async fn old_answers_go_and_what_is_believed_stays(backend: Backend) {
        let scene = Scene::configured(backend, KEPT).await;
        let mac = known_mac(&scene, MacSpec::random().expect("a Mac")).await;
        let began = scene.now();
        let first = scene.kept(&mac).await;
        let attempt = first.verifications.last().expect("the first attempt").clone();
        let commands: Vec<_> = first.evidence.iter().map(|one| one.command_uuid.clone()).collect();
        for _ in 0..3 {
            scene.pass(20 * DAY);
            scene.sweep().await;
            assert!(mac.connect().await.expect("a session").answered > 0);
        }
        let (before, posture) = (scene.now().minus(30 * DAY), scene.api.posture(&mac.serial()).await);
        assert_eq!(posture["verdict"], "affirming");
        assert!(answers(&scene, &mac).await.iter().filter(|at| **at < before).count() >= 3);

        remove(scene.ctx()).await;
        let times = answers(&scene, &mac).await;
        assert!(times.len() >= 3 && times.iter().all(|at| *at >= before), "{times:?}");
        let kept = scene.kept(&mac).await;
        assert!(kept.verifications.iter().all(|one| one.created_at >= before));
        assert_eq!(scene.api.posture(&mac.serial()).await, posture);
        let path = format!("/internal/v1/verifications/{}", attempt.verification_id);
        assert_eq!(scene.api.get(&path).await.status(), StatusCode::NOT_FOUND);

        let device_id = scene.device_id(&mac).await;
        let tx = scene.ctx().store.read().await.expect("a store");
        for command_uuid in &commands {
            assert_eq!(tx.command(command_uuid).await.expect("answers"), None);
        }
        // The ledger knows what the Mac was handed on its first day.
        let mut minted = Vec::new();
        for command_uuid in &commands {
            minted.extend(tx.minted_for(command_uuid).await.expect("answers"));
        }
        assert!(minted.iter().any(|nonce| nonce.inputs.minted_at <= began));
        // What was in force thirty days ago is still told, and nothing before it.
        let told = tx.posture_history(&device_id, None, 100).await.expect("a history");
        let older = told.iter().filter(|posture| posture.revised_at < before).count();
        assert_eq!(older, 1, "{} revisions", told.len());
        drop(tx);

        // It goes on as ever, and not before tomorrow is anything looked for again.
        scene.pass(DAY / 2);
        assert_eq!(remove_old::run_once(scene.ctx()).await.expect("rests"), Progress::Rests);
        scene.sweep().await;
        assert!(mac.connect().await.expect("a session").answered > 0);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
    }
}

journey! {
    async fn evidence_that_still_speaks_against_a_mac_stays_however_old(backend: Backend) {
        let scene = Scene::configured(backend, KEPT).await;
        let spec = MacSpec::random().expect("a Mac").with_sip_off();
        let mac = known_mac(&scene, spec).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "contraindicated");
        let first = scene.kept(&mac).await;
        // It is never heard of again; attempts to reach it come and go.
        for _ in 0..4 {
            scene.pass(100 * DAY);
            for _ in 0..3 {
                scene.sweep().await;
                scene.pass(Duration::from_secs(60 * 60));
            }
            remove(scene.ctx()).await;
        }
        let kept = scene.kept(&mac).await;
        assert_eq!(kept.posture, first.posture);
        let said = kept.posture.expect("a posture").reported.expect("what it said");
        assert!(kept.evidence.iter().any(|one| one.evidence_id == said.evidence_id));
        assert!(!kept.verifications.is_empty(), "the newest attempt stays");
        let now = scene.api.posture(&mac.serial()).await;
        assert_eq!(now["verdict"], "contraindicated");
    }
}

journey! {
    async fn a_fleet_is_gone_through_some_macs_at_a_time(backend: Backend) {
        let mut scene = Scene::configured(backend, KEPT).await.with_ready_keys(6);
        let mut macs = Vec::new();
        for _ in 0..6 {
            macs.push(known_mac(&scene, MacSpec::random().expect("a Mac")).await);
        }
        scene.pass(40 * DAY);
        for mac in &macs {
            mac.connect().await.expect("a session");
        }
        let before = scene.now().minus(30 * DAY);
        // Its worker would go on meanwhile.
        scene.stop().await;
        let node = scene.second_node().await;
        assert_eq!(remove_old::run_once(&node).await.expect("removes"), Progress::More);
        // Another node goes on where this one was.
        if backend == Backend::PostgreSql {
            let other = scene.second_node().await;
            remove_old::run_once(&other).await.expect("removes");
        }
        remove(&node).await;
        drop(node);
        scene.start().await;
        for mac in &macs {
            let times = answers(&scene, mac).await;
            assert!(!times.is_empty() && times.iter().all(|at| *at >= before), "{times:?}");
        }
    }
}
