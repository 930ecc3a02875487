//! The server was down when a Mac came that a push had brought: nobody forgets that Mac for hours.

use std::sync::Arc;
use std::time::Duration;

use attestd::flows::resume::{self, Progress};
use attestd::flows::wake::{Turn, wake_waiting};
use attestd::flows::{Context, sweep, watch_clock};
use attestd::ids::DeviceId;
use attestd_sim::{Mac, MacSpec};

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn known_mac(scene: &Scene) -> (Mac, DeviceId) {
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    eventually("a push is written down", async || {
        let last = scene.kept(&mac).await.verifications[0].last_pushed_at();
        last == Some(scene.now())
    })
    .await;
    assert_eq!(mac.connect().await.expect("a session").answered, 2);
    let device_id = scene.device_id(&mac).await;
    (mac, device_id)
}

/// In how long something is due about the Mac.
async fn due_in(ctx: &Context, device_id: &DeviceId) -> Duration {
    let tx = ctx.store.read().await.expect("reads");
    let agenda = tx.agenda(device_id).await.expect("reads");
    let next = agenda.expect("an agenda").next(&ctx.settings.rules);
    let due_at = next.due_at.expect("something is due");
    due_at.since(ctx.clock.now())
}

/// Whether nothing is asked of the Mac, nor will be for more than an hour.
async fn is_left_alone(ctx: &Context, device_id: &DeviceId) -> bool {
    let tx = ctx.store.read().await.expect("reads");
    let attempts = tx.verifications_of(device_id, 100).await.expect("reads");
    drop(tx);
    attempts.iter().all(|one| one.is_finished())
        && due_in(ctx, device_id).await > HOUR + 10 * MINUTE
}

/// Macs say nothing for a day, and then until all of them are left alone. `meanwhile` is done after
/// each step.
async fn are_silent(
    scene: &Scene,
    ctx: &Arc<Context>,
    macs: &[&DeviceId],
    step: Duration,
    meanwhile: impl AsyncFn(),
) {
    let until = scene.now().plus(DAY);
    for _ in 0..7 * 24 * 60 {
        let mut all = scene.now() >= until;
        for device_id in macs {
            all = all && is_left_alone(ctx, device_id).await;
        }
        if all {
            return;
        }
        scene.pass(step);
        sweep::run_once(ctx).await.expect("sweeps");
        while let Turn::Wake(waiting) = ctx.wakeups.turn(scene.now()) {
            wake_waiting(ctx, &waiting).await.expect("wakes");
        }
        meanwhile().await;
    }
    unreachable!("somebody is always asked");
}

async fn look(ctx: &Context) {
    watch_clock::run_once(ctx).await.expect("looks");
}

async fn resumed(ctx: &Context, at_most: usize) -> Progress {
    resume::some(ctx, at_most).await.expect("goes on")
}

journey! {
    async fn a_mac_that_came_while_nobody_served_is_woken_again_within_the_hour(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (mac, device_id) = known_mac(&scene).await;
        scene.stop().await;
        let node = scene.second_node().await;
        look(&node).await;
        assert_eq!(resumed(&node, 100).await, Progress::Done);
        are_silent(&scene, &node, &[&device_id], 10 * MINUTE, async || ()).await;
        assert_eq!(resumed(&node, 100).await, Progress::Done);
        assert!(due_in(&node, &device_id).await > HOUR);

        // All that time nobody kept the time: nobody served.
        look(&node).await;
        assert_eq!(resumed(&node, 100).await, Progress::Done);
        let due = due_in(&node, &device_id).await;
        assert!(due <= HOUR, "{due:?}");
        drop(node);
        scene.start().await;
        let (token, _) = mac.push_address().expect("an address");
        let pushes = scene.world.apns().seen_for(&token).len();
        scene.pass(due);
        scene.sweep().await;
        eventually("it is woken", async || scene.world.apns().seen_for(&token).len() > pushes).await;
        assert!(mac.connect().await.expect("a session").answered > 0);
    }
}

journey! {
    async fn a_fleet_is_gone_through_some_macs_at_a_time_and_once(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (one, two, three) = (known_mac(&scene).await.1, known_mac(&scene).await.1, known_mac(&scene).await.1);
        scene.stop().await;
        let node = scene.second_node().await;
        look(&node).await;
        resumed(&node, 100).await;
        let macs = [&one, &two, &three];
        are_silent(&scene, &node, &macs, 10 * MINUTE, async || ()).await;
        look(&node).await;
        for progress in [Progress::More, Progress::Done, Progress::Done] {
            assert_eq!(resumed(&node, 2).await, progress);
        }
        for device_id in macs {
            assert!(due_in(&node, device_id).await <= HOUR);
        }
    }
}

journey! {
    async fn whoever_keeps_the_time_was_there(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (_, device_id) = known_mac(&scene).await;
        scene.stop().await;
        let node = scene.second_node().await;
        look(&node).await;
        resumed(&node, 100).await;
        let serves = async || {
            look(&node).await;
            assert_eq!(resumed(&node, 100).await, Progress::Done);
        };
        are_silent(&scene, &node, &[&device_id], MINUTE, serves).await;
        assert!(due_in(&node, &device_id).await > HOUR);
    }
}
