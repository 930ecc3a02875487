//! What is due or overdue, whoever asks for nothing.

use std::time::Duration;

use attestd::enrollment::ticket::Bounds;
use attestd::flows::{sweep, wake};
use attestd::verification::{Priority, Progress, State};
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::{Loss, Mac, MacSpec};
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::scene::{Backend, Scene};
use crate::harness::talk::{answer, idle, present, report};

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
        // Silence is no reason not to ask a Mac that comes by itself.
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
    }
}

journey! {
    async fn a_mac_that_owes_is_woken_again_but_not_too_often(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npatience = \"2h\"\npushes_per_hour = 4\n").await;
        let (mac, done) = (pushed_mac(&scene).await, pushed_mac(&scene).await);
        done.connect().await.expect("a session");
        for round in 1..3 {
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

/// A Mac that answered everything.
async fn known_mac(scene: &Scene) -> Mac {
    let mac = pushed_mac(scene).await;
    assert_eq!(mac.connect().await.expect("a session").answered, 2);
    mac
}

journey! {
    async fn what_is_known_of_a_mac_is_renewed_by_itself_day_after_day(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = known_mac(&scene).await;
        for round in 1..=20 {
            let due_in = scene.due_in(&mac).await;
            assert!((48 * MINUTE..=72 * MINUTE).contains(&due_in), "{due_in:?}");
            scene.pass(due_in);
            scene.sweep().await;
            pushed(&scene, &mac, round + 1).await;
            assert_eq!(mac.connect().await.expect("a session").answered, 1);
            let posture = scene.api.posture(&mac.serial()).await;
            assert_eq!(posture["verdict"], "affirming");
            assert_eq!(posture["claims"]["sip"]["observed_at"], json!(scene.now()));
        }
        // The attestation has a clock of its own, and one push serves both.
        scene.pass(7 * 24 * 60 * MINUTE);
        let before = pushes(&scene, &mac);
        scene.sweep().await;
        eventually("it is pushed", async || pushes(&scene, &mac) > before).await;
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["freshness"]["class"], "fresh");
        assert_eq!(posture["freshness"]["minted_at"], json!(scene.now()));
    }
}

journey! {
    async fn a_mac_that_comes_by_itself_is_asked_without_a_push(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = known_mac(&scene).await;
        let next = scene.next(&mac).await;
        let ripe_at = next.owes_from.expect("ripe some time");
        scene.pass(ripe_at.since(scene.now()) - Duration::from_millis(1));
        assert_eq!(idle(&mac).await, None);
        scene.pass(Duration::from_millis(1));
        assert_eq!(mac.connect().await.expect("a session").answered, 1);
        scene.pass(next.due_at.expect("due").since(scene.now()));
        scene.sweep().await;
        assert_eq!(pushes(&scene, &mac), 1);
        assert_eq!(scene.kept(&mac).await.verifications.len(), 2);
    }
}

journey! {
    async fn a_mac_that_first_repeats_what_it_said_is_asked_as_if_it_had_come_idle(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = known_mac(&scene).await;
        scene.pass(scene.due_in(&mac).await);
        mac.lose(Loss::AfterSending);
        mac.connect().await.expect_err("the reply is lost");
        let heard_at = scene.now();
        let said = async || scene.api.posture(&mac.serial()).await["claims"]["sip"]["observed_at"].clone();
        assert_eq!(said().await, json!(heard_at));

        // It sleeps, is not heard of for hours, and wakes: its first words are what it said before.
        for _ in 0..12 {
            scene.pass(30 * MINUTE);
            scene.sweep().await;
        }
        assert_eq!(said().await, json!(heard_at));
        mac.connect().await.expect("a session");
        assert_eq!(scene.refused("answer_unsolicited").await, 1);
        assert_eq!(said().await, json!(scene.now()));
    }
}

journey! {
    async fn a_silent_mac_is_woken_again_within_its_budget(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npatience = \"3h\"\n").await;
        let mac = pushed_mac(&scene).await;
        // At 0, 20, 60, 80 and 120 minutes, however often it is looked at.
        for minute in 1..=120 {
            scene.pass(MINUTE);
            scene.sweep().await;
            let expected = 1 + [20, 60, 80, 120].iter().filter(|at| **at <= minute).count();
            if [20, 60, 80, 120].contains(&minute) {
                pushed(&scene, &mac, expected).await;
            }
            assert_eq!(pushes(&scene, &mac), expected, "minute {minute}");
        }
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
    }
}

journey! {
    async fn errors_are_asked_again_after_pauses_that_grow(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npushes_per_hour = 60\n").await;
        let mac = pushed_mac(&scene).await;
        for (from, to) in [(2, 4), (6, 12), (15, 30), (15, 30)] {
            let asked = idle(&mac).await.expect("a command");
            assert_eq!(asked.kind, "SecurityInfo");
            if let Some(attest) = answer(&mac, &asked, "Error").await {
                let (state, key) = (mac.spec().attested_state(), generate(KeyKind::P384).expect("a key"));
                let chain = scene.world.apple()
                    .attest(&state, &key, attest.nonce.as_deref(), scene.now().millis())
                    .expect("a chain");
                present(&mac, &attest, &[chain.leaf, chain.intermediate]).await;
            }
            let due_in = scene.due_in(&mac).await;
            assert!((from * MINUTE..=to * MINUTE).contains(&due_in), "{due_in:?}");
            // Coming earlier does not help.
            assert_eq!(idle(&mac).await, None);
            scene.pass(due_in);
        }
        let asked = idle(&mac).await.expect("a command");
        report(&mac, &asked).await;
        assert!(scene.kept(&mac).await.posture.expect("known").reported.is_some());
    }
}

journey! {
    async fn a_mac_that_said_not_now_is_left_alone_longer_and_asked_when_it_comes(backend: Backend) {
        let scene = Scene::configured(backend, "[verification]\npatience = \"3h\"\n").await;
        let mac = pushed_mac(&scene).await;
        let asked = idle(&mac).await.expect("a command");
        assert_eq!(answer(&mac, &asked, "NotNow").await, None);
        scene.pass(30 * MINUTE - Duration::from_millis(1));
        scene.sweep().await;
        assert_eq!(pushes(&scene, &mac), 1);
        scene.pass(Duration::from_millis(1));
        scene.sweep().await;
        pushed(&scene, &mac, 2).await;
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
    }
}

journey! {
    async fn what_fell_due_while_nobody_looked_leaves_at_the_configured_rate(backend: Backend) {
        let mut scene = Scene::with_push_rate(backend, "", 3).await;
        let mut macs = Vec::new();
        for _ in 0..8 {
            macs.push(known_mac(&scene).await);
            scene.pass(Duration::from_secs(1));
        }
        scene.stop().await;
        scene.pass(100 * MINUTE);
        scene.start().await;
        let sent = |scene: &Scene| -> usize { macs.iter().map(|mac| pushes(scene, mac)).sum() };
        eventually("the push certificate is in use, and the first leave", async || {
            scene.sweep().await;
            sent(&scene) >= 11
        }).await;
        // As long as the second lasts there are no more, though all are due and wait.
        scene.sweep().await;
        assert_eq!(wake::run_once(scene.ctx()).await.expect("wakes"), 0);
        assert_eq!(sent(&scene), 11);
        for expected in [14, 16] {
            scene.pass(Duration::from_secs(1));
            eventually("the next leave", async || sent(&scene) >= expected).await;
            assert_eq!(sent(&scene), expected);
        }
        assert!(macs.iter().all(|mac| pushes(&scene, mac) == 2));
    }
}

journey! {
    async fn a_stop_between_the_question_and_the_answer_asks_nobody_twice(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let mac = known_mac(&scene).await;
        scene.pass(scene.due_in(&mac).await);
        scene.sweep().await;
        pushed(&scene, &mac, 2).await;
        scene.stop().await;
        scene.start().await;
        scene.pass(MINUTE);
        scene.sweep().await;
        assert_eq!(pushes(&scene, &mac), 2);
        assert_eq!(mac.connect().await.expect("a session").answered, 1);
        let kept = scene.kept(&mac).await;
        assert_eq!(kept.verifications.len(), 2);
        assert_eq!(kept.verifications[0].state(), State::Answered);
        assert_eq!(kept.verifications[0].priority, Priority::Refresh);
    }
}

journey! {
    async fn a_mac_that_enrols_again_is_asked_everything_at_once(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = scene.honest_mac();
        // A ticket of the same account speaks for the Mac.
        let enroll = async || {
            let bounds = Bounds { account: Some("alice".to_owned()), ..Bounds::default() };
            mac.install_profile(&scene.deliver_within(bounds).await).await.expect("enrols");
        };
        enroll().await;
        pushed(&scene, &mac, 1).await;
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
        scene.pass(5 * MINUTE);
        mac.remove_profile().await.expect("a CheckOut");
        assert_eq!(scene.next(&mac).await.due_at, None);
        mac.change(|spec| spec.os_version = "26.7".into());
        enroll().await;
        // Another version of the system, another enrollment: Apple's cache is empty, nothing waits.
        eventually("it is pushed", async || {
            scene.kept(&mac).await.verifications[0].last_pushed_at() == Some(scene.now())
        }).await;
        assert_eq!(mac.connect().await.expect("a session").answered, 2);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["freshness"]["minted_at"], json!(scene.now()));
    }
}

journey! {
    async fn what_is_known_already_expires_and_is_asked_for_before_what_is_only_renewed(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = known_mac(&scene).await;
        mac.sleep();
        scene.pass(25 * 60 * MINUTE);
        scene.sweep().await;
        pushed(&scene, &mac, 2).await;
        let open = scene.kept(&mac).await.verifications.remove(0);
        assert_eq!(open.priority, Priority::Expired);
        assert!(open.parts.iter().all(|part| part.progress != Progress::Answered));
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "unknown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_on_one_postgresql_share_what_is_due() {
    let scene = Scene::new(Backend::PostgreSql).await;
    let mut macs = Vec::new();
    for _ in 0..12 {
        macs.push(known_mac(&scene).await);
    }
    let other = scene.second_node().await;
    scene.pass(73 * MINUTE);
    let work = async |ctx: &attestd::flows::Context| {
        for _ in 0..3 {
            sweep::run_once(ctx).await.expect("sweeps");
            wake::run_once(ctx).await.expect("wakes");
        }
    };
    tokio::join!(work(scene.ctx()), work(&other));
    let pushed = async || {
        let mut pushed = 0;
        for mac in &macs {
            let last = scene.kept(mac).await.verifications[0].last_pushed_at();
            pushed += usize::from(last == Some(scene.now()));
        }
        pushed == macs.len()
    };
    eventually("every Mac is pushed", pushed).await;
    for mac in &macs {
        assert_eq!(pushes(&scene, mac), 2);
        assert_eq!(scene.kept(mac).await.verifications.len(), 2);
        assert_eq!(mac.connect().await.expect("a session").answered, 1);
    }
}
