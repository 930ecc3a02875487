//! Another policy is switched on, and those who wait for changes are told.

use std::time::Duration;

use attestd::flows::judge_anew::{Progress, some};
use attestd_sim::{Mac, MacSpec};
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::scene::{Backend, Scene};

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// The same server under another policy.
async fn switch(scene: &mut Scene, from: &str, to: &str) {
    scene.stop().await;
    let body = std::fs::read_to_string(scene.config()).expect("a configuration");
    let (from, to) = (format!("name = \"{from}\""), format!("name = \"{to}\""));
    assert!(body.contains(&from));
    std::fs::write(scene.config(), body.replace(&from, &to)).expect("a configuration");
    scene.start().await;
}

/// Goes on until everybody was judged, one Mac at a time.
async fn judged(scene: &Scene) {
    eventually("everybody was judged", async || {
        some(scene.ctx(), 1).await.expect("judges") == Progress::Done
    })
    .await;
}

async fn changes(scene: &Scene, mac: &Mac) -> Vec<Value> {
    let events = scene.kept(mac).await.events.into_iter();
    let changed = events.filter(|event| event.event.name == "posture.changed");
    changed.map(|event| event.event.body).collect()
}

/// Three Macs that `darkbloom-2026` affirms: one of which `strict` thinks the same, one that it holds
/// something against, and one of which it wants to know more.
async fn three(scene: &Scene) -> [Mac; 3] {
    let mut macs = Vec::new();
    for spec in [
        spec(),
        MacSpec {
            filevault: false,
            ..spec()
        },
        MacSpec {
            reaches_apple: false,
            ..spec()
        },
    ] {
        let mac = scene.mac(spec);
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        assert_eq!(
            scene.api.posture(&mac.serial()).await["verdict"],
            "affirming"
        );
        macs.push(mac);
    }
    macs.try_into().expect("three")
}

journey! {
    async fn whoever_waits_for_changes_is_told_what_another_policy_changed_and_once(backend: Backend) {
        let tables = "[policy]\nname = \"darkbloom-2026\"\n";
        let mut scene = Scene::configured(backend, tables).await.with_ready_keys(3);
        let macs = three(&scene).await;
        judged(&scene).await;
        let mut before = Vec::new();
        for mac in &macs {
            before.push(changes(&scene, mac).await.len());
        }
        switch(&mut scene, "darkbloom-2026", "strict").await;
        // No reader has to wait for anything.
        for (mac, verdict) in macs.iter().zip(["affirming", "contraindicated", "unknown"]) {
            assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], verdict);
        }
        judged(&scene).await;
        for (round, expected) in [
            ("strict", [None, Some(("contraindicated", "filevault_off")), Some(("unknown", "awaiting_push"))]),
            ("again", [None; 3]),
        ] {
            for ((mac, before), expected) in macs.iter().zip(&mut before).zip(expected) {
                let told = changes(&scene, mac).await;
                assert_eq!(told.len(), *before + usize::from(expected.is_some()), "{round}: {told:#?}");
                *before = told.len();
                if let (Some((verdict, reason)), Some(last)) = (expected, told.last()) {
                    assert_eq!((&last["verdict"], &last["previous"]), (&json!(verdict), &json!("affirming")));
                    assert_eq!(last["reasons"][0], reason);
                    let posture = scene.api.posture(&mac.serial()).await;
                    assert_eq!(posture["revision"], last["revision"]);
                }
            }
            // The same policy once more is no news.
            scene.stop().await;
            scene.start().await;
            judged(&scene).await;
        }
        // Back again: what is good by the old policy is told, too.
        switch(&mut scene, "strict", "darkbloom-2026").await;
        judged(&scene).await;
        for ((mac, before), more) in macs.iter().zip(before).zip([0, 1, 1]) {
            let told = changes(&scene, mac).await;
            assert_eq!(told.len(), before + more);
            assert_eq!(told.last().expect("one")["verdict"], "affirming");
        }
    }
}

journey! {
    /// A verdict that stays what it is ends at another time: subscribers hear of that when it comes.
    async fn what_only_ends_at_another_time_is_no_revision_and_is_told_then(backend: Backend) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut texts = Vec::new();
        for (name, usable) in [("long", "24h"), ("short", "6h")] {
            let text = attestd::posture::policy::DARKBLOOM_2026
                .replace("name = \"darkbloom-2026\"", &format!("name = \"{name}\""))
                .replace("usable_for = \"24h\"", &format!("usable_for = \"{usable}\""));
            texts.push(text);
        }
        let file = folder.path().join("policy.toml");
        std::fs::write(&file, &texts[0]).expect("written");
        let tables = format!("[policy]\nfile = \"{}\"\n", file.display());
        let mut scene = Scene::configured(backend, &tables).await;
        let mac = scene.mac(spec());
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        let posture = scene.api.posture(&mac.serial()).await;
        let before = changes(&scene, &mac).await.len();
        scene.stop().await;
        std::fs::write(&file, &texts[1]).expect("written");
        scene.start().await;
        judged(&scene).await;
        assert_eq!(changes(&scene, &mac).await.len(), before);
        assert_eq!(scene.api.posture(&mac.serial()).await["revision"], posture["revision"]);
        scene.pass(Duration::from_secs(6 * 60 * 60));
        attestd::flows::tell_of_end::run_once(scene.ctx()).await.expect("tells");
        let told = changes(&scene, &mac).await;
        assert_eq!((told.len(), &told[before]["verdict"]), (before + 1, &json!("unknown")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_postgresql_tell_of_each_mac_once() {
    let tables = "[policy]\nname = \"darkbloom-2026\"\n";
    let mut scene = Scene::configured(Backend::PostgreSql, tables)
        .await
        .with_ready_keys(3);
    let macs = three(&scene).await;
    judged(&scene).await;
    let mut before = Vec::new();
    for mac in &macs {
        before.push(changes(&scene, mac).await.len());
    }
    switch(&mut scene, "darkbloom-2026", "strict").await;
    let other = scene.second_node().await;
    let all = async |ctx: &attestd::flows::Context| {
        eventually("everybody was judged", async || {
            // Another node may be at it, or change the same Mac.
            matches!(some(ctx, 1).await, Ok(Progress::Done))
        })
        .await;
    };
    tokio::join!(all(scene.ctx()), all(&other));
    for ((mac, before), more) in macs.iter().zip(before).zip([0, 1, 1]) {
        assert_eq!(changes(&scene, mac).await.len(), before + more);
    }
}
