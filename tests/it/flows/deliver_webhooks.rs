//! Those who cannot hold a stream open are told of events by messages.

use std::process::Output;
use std::time::Duration;

use attestd::entropy::SeededEntropy;
use attestd::flows::deliver_webhooks::{self, DEAD_KEPT};
use attestd::flows::follow_events::{self, RETAINED};
use attestd::ids::DeviceId;
use attestd::store::Event;
use attestd::time::Timestamp;
use attestd_sim::MacSpec;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::scene::{Backend as Kind, Scene, attestd};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer than any wait between two tries.
const LONG_ENOUGH: Duration = Duration::from_secs(16 * 60);

fn run(scene: &Scene, what: &str, arguments: &[&str]) -> Output {
    let config = scene.config().to_str().expect("a path");
    let common = ["webhook", what, "--insecure-http", "--config", config];
    attestd(&[&common[..], arguments].concat())
}

fn done(scene: &Scene, what: &str, arguments: &[&str]) -> String {
    let output = run(scene, what, arguments);
    assert!(output.status.success(), "{what} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Adds a webhook and gives back its secret.
fn add(scene: &Scene, name: &str, receiver: &Receiver, more: &[&str]) -> String {
    let url = receiver.url();
    let arguments = [&[name, &url, "--allow-private", "--json"], more].concat();
    let made: Value = serde_json::from_str(&done(scene, "add", &arguments)).expect("JSON");
    made["secret"].as_str().expect("a secret").to_owned()
}

fn listed(scene: &Scene, name: &str) -> Value {
    let list: Value = serde_json::from_str(&done(scene, "list", &["--json"])).expect("JSON");
    let mut hooks = list["webhooks"].as_array().expect("a list").iter();
    hooks
        .find(|hook| hook["name"] == name)
        .cloned()
        .expect(name)
}

async fn listed_once(
    scene: &Scene,
    name: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(what, || async { wanted(&listed(scene, name)) }).await;
    listed(scene, name)
}

/// Some Mac.
fn mac(number: i64) -> DeviceId {
    DeviceId::new(Timestamp::from_seconds(number), &SeededEntropy::new(1))
}

/// Commits an event of this note; about this Mac, or none.
async fn tell(scene: &Scene, about: Option<&DeviceId>, note: &str) {
    let mut tx = scene.ctx().store.write().await.expect("begins");
    let event = Event::new("release.changed", scene.now(), json!({ "note": note }));
    tx.append_event_about(about, &event)
        .await
        .expect("appended");
    tx.commit().await.expect("commits");
}

journey! {
    async fn an_operator_adds_a_webhook_and_every_event_arrives_signed(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let receiver = Receiver::start().await;
        tell(&scene, None, "before it was added").await;
        let secret = add(&scene, "billing", &receiver, &[]);
        let (mac, _life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;

        let kept = scene.kept(&mac).await.events;
        let received = receiver.count(kept.len()).await;
        for (message, event) in received.iter().zip(&kept) {
            assert!(message.is_signed_by(&secret), "{message:?}");
            assert_eq!(message.header("content-type"), "application/json");
            assert_eq!(message.header("webhook-id"), format!("evt_{}", event.seq));
            assert_eq!(message.header("webhook-timestamp"), (scene.now().millis() / 1000).to_string());
            assert_eq!(message.body, json!({
                "type": event.event.name, "timestamp": event.event.at, "seq": event.seq, "data": event.event.body,
            }));
            let mut changed = message.clone();
            changed.raw[10] ^= 1;
            assert!(!changed.is_signed_by(&secret));
        }
        assert_eq!(received.len(), kept.len(), "nothing of before it was added, nothing twice");
        let newest = scene.ctx().store.newest_event().await.expect("a number");
        let hook = listed_once(&scene, "billing", "level", |hook| hook["behind"] == 0).await;
        assert_eq!((&hook["cursor"], &hook["fault"], &hook["dead_letters"]), (&json!(newest), &json!(null), &json!(0)));
        assert!(!hook.to_string().contains("whsec_"), "{hook}");

        // Who is removed is told nothing any more.
        done(&scene, "remove", &["billing"]);
        tell(&scene, None, "after it was removed").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(receiver.notes(), Vec::<String>::new());
    }
}

journey! {
    async fn only_what_is_asked_for_is_sent_and_the_rest_is_not_waited_for(backend: Backend) {
        let scene = Scene::new(backend).await;
        let receiver = Receiver::start().await;
        let file = scene.home.path().join("secret");
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        std::fs::write(&file, format!("{secret}\n")).expect("written");
        let made = done(&scene, "add", &["few", &receiver.url(), "--allow-private", "--events",
            "device.revoked,release.changed", "--secret-file", file.to_str().expect("a path")]);
        assert!(!made.contains("whsec_"), "what is known already is not shown: {made}");
        let mut tx = scene.ctx().store.write().await.expect("begins");
        for name in ["challenge.due", "release.changed", "posture.changed"] {
            let event = Event::new(name, scene.now(), json!({ "note": name }));
            tx.append_event_about(None, &event).await.expect("appended");
        }
        tx.commit().await.expect("commits");
        let received = receiver.count(1).await;
        assert!(received[0].is_signed_by(secret));
        listed_once(&scene, "few", "level", |hook| hook["behind"] == 0).await;
        assert_eq!(receiver.notes(), ["release.changed"]);
    }
}

journey! {
    async fn a_receiver_that_is_out_for_a_while_misses_nothing(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let receiver = Receiver::start().await;
        add(&scene, "flaky", &receiver, &[]);
        receiver.reply(|_| Reply::Status(503));
        for note in ["one", "two"] {
            tell(&scene, Some(&mac(1)), note).await;
        }
        receiver.count(1).await;
        let hook = listed_once(&scene, "flaky", "a fault", |hook| hook["failures"] == 1).await;
        assert_eq!((&hook["fault"], &hook["behind"]), (&json!("answered 503"), &json!(2)));
        assert!(hook["next_attempt_at"].is_string());
        // It is left alone until then, however much happens.
        tell(&scene, Some(&mac(2)), "three").await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(receiver.received().len(), 1);
        scene.pass(Duration::from_secs(5));
        listed_once(&scene, "flaky", "another fault", |hook| hook["failures"] == 2).await;

        // The server is started anew meanwhile, and knows where it was.
        scene.stop().await;
        receiver.reply(|_| Reply::Status(200));
        scene.start().await;
        scene.pass(LONG_ENOUGH);
        let hook = listed_once(&scene, "flaky", "level", |hook| hook["behind"] == 0).await;
        assert_eq!((&hook["failures"], &hook["fault"], &hook["dead_letters"]), (&json!(0), &json!(null), &json!(0)));
        let mut last: Vec<_> = receiver.notes().split_off(receiver.notes().len() - 3);
        assert!(last.iter().position(|it| it == "one") < last.iter().position(|it| it == "two"));
        last.sort();
        assert_eq!(last, ["one", "three", "two"]);
        // Each attempt is dated and signed anew, and has the same name.
        let received = receiver.received();
        let of_one: Vec<_> = received.iter().filter(|it| it.body["data"]["note"] == "one").collect();
        assert!(of_one.len() >= 3);
        assert!(of_one.iter().all(|it| it.header("webhook-id") == of_one[0].header("webhook-id")));
        let sent = |it: &crate::harness::receiver::Received| it.header("webhook-timestamp").parse::<i64>().expect("seconds");
        assert!(sent(of_one[0]) < sent(of_one[of_one.len() - 1]));
    }
}

journey! {
    async fn what_is_refused_again_and_again_is_given_up_and_replayed_when_asked(backend: Backend) {
        let scene = Scene::new(backend).await;
        let receiver = Receiver::start().await;
        add(&scene, "picky", &receiver, &[]);
        receiver.reply(|message| match message["data"]["note"].as_str() {
            Some("bad") => Reply::Status(422),
            _ => Reply::Status(200),
        });
        for (about, note) in [(1, "first"), (1, "bad"), (1, "behind the bad"), (2, "another's")] {
            tell(&scene, Some(&mac(about)), note).await;
        }
        let tries = |note: &str| receiver.notes().iter().filter(|it| *it == note).count();
        eventually("others are not held up", || async { tries("another's") == 1 && tries("bad") == 1 }).await;
        let hook = listed_once(&scene, "picky", "a fault", |hook| hook["fault"] == "answered 422").await;
        assert_eq!(hook["failures"], 0, "the receiver is there");
        assert_eq!(tries("behind the bad"), 0, "nothing overtakes another event of its Mac");

        for expected in 2..=8 {
            // Once the last try is written down, with when the next may be.
            let now = scene.now().to_string();
            let waits = |hook: &Value| hook["next_attempt_at"].as_str() > Some(now.as_str());
            listed_once(&scene, "picky", "a time for the next try", waits).await;
            scene.pass(LONG_ENOUGH);
            eventually("another try", || async { tries("bad") >= expected }).await;
        }
        let level = |hook: &Value| hook["dead_letters"] == 1 && hook["behind"] == 0;
        listed_once(&scene, "picky", "given up", level).await;
        assert_eq!((tries("bad"), tries("behind the bad"), tries("another's")), (8, 1, 1));
        assert_eq!(scene.counted("attestd_webhook_messages_total", &["outcome=\"given_up\""]).await, 1);

        // Sent again, it is refused again, once.
        assert!(done(&scene, "replay", &["picky", "--dead"]).contains("1 messages"));
        eventually("it is sent again", || async { tries("bad") == 9 }).await;
        listed_once(&scene, "picky", "given up again", |hook| hook["dead_letters"] == 1).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(tries("bad"), 9);
        // Mended, it arrives.
        receiver.reply(|_| Reply::Status(200));
        done(&scene, "replay", &["picky", "--dead"]);
        listed_once(&scene, "picky", "nothing is left", |hook| hook["dead_letters"] == 0).await;
        assert_eq!((tries("bad"), tries("behind the bad")), (10, 1));

        // Everything from an event on, in order.
        let before = receiver.received().len();
        // Two Macs' messages are under way at once: which arrives first is anybody's guess.
        let numbers = receiver.received().into_iter().filter_map(|it| it.body["seq"].as_i64());
        let first = numbers.min().expect("a number");
        done(&scene, "replay", &["picky", "--from", &(first + 1).to_string()]);
        let received = receiver.count(before + 3).await;
        let again: Vec<_> = received[before..].iter().filter(|it| it.body["data"]["note"] != "another's").collect();
        let notes: Vec<_> = again.iter().map(|it| it.body["data"]["note"].as_str().expect("a note")).collect();
        assert_eq!(notes, ["bad", "behind the bad"]);
        listed_once(&scene, "picky", "level", |hook| hook["behind"] == 0).await;
    }
}

journey! {
    async fn a_receiver_that_is_out_for_a_day_is_not_waited_for_any_longer(backend: Backend) {
        let scene = Scene::new(backend).await;
        let receiver = Receiver::start().await;
        add(&scene, "gone", &receiver, &[]);
        receiver.reply(|_| Reply::Status(500));
        for note in ["one", "two", "three"] {
            tell(&scene, Some(&mac(1)), note).await;
        }
        listed_once(&scene, "gone", "a fault", |hook| hook["failures"] == 1).await;
        scene.pass(DAY);
        tell(&scene, Some(&mac(1)), "young").await;
        let hook = listed_once(&scene, "gone", "given up", |hook| hook["dead_letters"] == 3).await;
        assert_eq!((&hook["behind"], &hook["fault"]), (&json!(1), &json!("answered 500")));
        receiver.reply(|_| Reply::Status(200));
        done(&scene, "replay", &["gone", "--dead"]);
        listed_once(&scene, "gone", "nothing is left", |hook| hook["dead_letters"] == 0 && hook["behind"] == 0).await;
        let notes = receiver.notes();
        let arrived = &notes[notes.len() - 4..];
        let place = |note: &str| arrived.iter().position(|it| it == note).expect(note);
        assert!(place("one") < place("two") && place("two") < place("three"), "{arrived:?}");

        // What nobody asks for is forgotten after a month.
        receiver.reply(|_| Reply::Status(500));
        tell(&scene, None, "never told").await;
        listed_once(&scene, "gone", "a fault", |hook| hook["failures"] == 1).await;
        scene.pass(2 * DAY);
        listed_once(&scene, "gone", "given up", |hook| hook["dead_letters"] == 1).await;
        scene.pass(DEAD_KEPT + DAY);
        deliver_webhooks::tidy(scene.ctx()).await.expect("tidied");
        assert_eq!(listed(&scene, "gone")["dead_letters"], 0);
    }
}

journey! {
    async fn one_that_hangs_holds_up_nobody_and_is_given_a_deadline(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (hanging, quick) = (Receiver::start().await, Receiver::start().await);
        hanging.reply(|_| Reply::Hang);
        add(&scene, "hanging", &hanging, &[]);
        add(&scene, "quick", &quick, &[]);
        tell(&scene, None, "to both").await;
        hanging.count(1).await;
        for note in ["one", "two", "three"] {
            let began = std::time::Instant::now();
            tell(&scene, None, note).await;
            eventually(note, || async { quick.notes().iter().any(|it| it == note) }).await;
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
        let hook = listed_once(&scene, "hanging", "a deadline", |hook| hook["failures"] == 1).await;
        assert_eq!((&hook["fault"], &hook["behind"]), (&json!("timed_out"), &json!(4)));
        assert_eq!(hanging.received().len(), 1, "and nothing else was sent meanwhile");
    }
}

journey! {
    async fn nobody_is_led_elsewhere_or_inside(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (inside, leading) = (Receiver::start().await, Receiver::start().await);
        let to = inside.url();
        leading.reply(move |_| Reply::Redirect(to.clone()));
        add(&scene, "leading", &leading, &[]);
        // Nothing private is reached unless that is allowed, by whatever name.
        let port = inside.address.port();
        for (name, host) in [("number", "127.0.0.1"), ("named", "localhost"), ("six", "[::1]"), ("mapped", "[::ffff:127.0.0.1]"),
            ("metadata", "169.254.169.254"), ("anything", "0.0.0.0")] {
            done(&scene, "add", &[name, &format!("https://{host}:{port}/hook")]);
        }
        tell(&scene, None, "to all").await;
        listed_once(&scene, "leading", "a redirect", |hook| hook["fault"] == "answered 308").await;
        for name in ["number", "named", "six", "mapped", "metadata", "anything"] {
            listed_once(&scene, name, "refused", |hook| hook["fault"] == "address_not_public").await;
        }
        assert_eq!(inside.received().len(), 0);
        assert_eq!(leading.received().len(), 1);
    }
}

journey! {
    async fn what_makes_no_webhook_is_refused_and_nothing_is_kept(backend: Backend) {
        let scene = Scene::new(backend).await;
        let receiver = Receiver::start().await;
        add(&scene, "one", &receiver, &[]);
        let home = scene.home.path();
        let file = |name: &str, text: &str| {
            let path = home.join(name);
            std::fs::write(&path, text).expect("written");
            path.to_str().expect("a path").to_owned()
        };
        let (weak, empty) = (file("weak", "whsec_AAAA"), file("empty.pem", ""));
        let fine = "https://hooks.example.org/a";
        for (arguments, says) in [
            (&["one", fine][..], "already"),
            (&["two", "http://hooks.example.org/a"], "plain http"),
            (&["two", "https://user:word@hooks.example.org/a"], "https://host"),
            (&["two", "hooks.example.org"], "https://host"),
            (&["two", "file:///etc/passwd", "--allow-private"], "https://host"),
            (&["two", fine, "--events", "posture.chnged"], "posture.chnged"),
            (&["two", fine, "--events", "reset"], "reset"),
            (&["two", fine, "--secret-file", &weak], "no secret"),
            (&["two", fine, "--root", &empty], "no certificate"),
            (&["Two", fine], "name of a webhook"),
            (&["../two", fine], "name of a webhook"),
        ] {
            let output = run(&scene, "add", arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
            assert!(!said.contains(":word@"), "{said}");
        }
        let list: Value = serde_json::from_str(&done(&scene, "list", &["--json"])).expect("JSON");
        assert_eq!(list["webhooks"].as_array().map(Vec::len), Some(1));
        for (what, arguments, says) in [
            ("remove", &["two"][..], "no webhook"),
            ("replay", &["two", "--dead"], "no webhook"),
            ("replay", &["one"], "--dead"),
            ("replay", &["one", "--dead", "--from", "1"], "cannot be used with"),
            ("replay", &["one", "--from", "0"], "0"),
            ("replay", &["one", "--from", "99"], "newest event"),
        ] {
            let output = run(&scene, what, arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(says), "{what} {arguments:?}: {said}");
        }
        // What was removed cannot be sent again.
        tell(&scene, None, "old").await;
        receiver.count(1).await;
        listed_once(&scene, "one", "level", |hook| hook["behind"] == 0).await;
        scene.pass(RETAINED);
        // Should a worker have looked at the clock just then, it believes it again by now.
        scene.pass(DAY);
        follow_events::tidy(scene.ctx()).await.expect("tidied");
        let output = run(&scene, "replay", &["one", "--from", "1"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("are gone"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_one_node_at_a_time_delivers() {
    let scene = Scene::new(Kind::PostgreSql).await;
    let receiver = Receiver::start().await;
    let second = scene.second_node().await;
    receiver.reply(|_| Reply::Hang);
    add(&scene, "shared", &receiver, &[]);
    tell(&scene, None, "once").await;
    receiver.count(1).await;
    // The first is at it: the second leaves it alone, or is too late.
    assert_eq!(deliver_webhooks::due(&second).await.expect("looks"), []);
    let seen = scene
        .ctx()
        .store
        .read()
        .await
        .expect("a store")
        .webhooks()
        .await
        .expect("webhooks");
    let mut stale = seen[0].clone();
    stale.revision -= 1;
    assert!(
        !deliver_webhooks::round(&second, stale)
            .await
            .expect("a round")
    );
    assert_eq!(receiver.received().len(), 1);
    // Should the first have died, the second goes on after a while, and what the first keeps then is void.
    receiver.reply(|_| Reply::Status(200));
    scene.pass(Duration::from_secs(61));
    let due = deliver_webhooks::due(&second).await.expect("looks");
    assert_eq!(due.len(), 1);
    for webhook in due {
        assert!(
            deliver_webhooks::round(&second, webhook)
                .await
                .expect("a round")
        );
    }
    assert_eq!(receiver.notes(), ["once", "once"]);
    let hook = listed(&scene, "shared");
    assert_eq!((&hook["behind"], &hook["failures"]), (&json!(0), &json!(0)));
    tokio::time::sleep(Duration::from_secs(11)).await;
    let hook = listed(&scene, "shared");
    assert_eq!(
        (&hook["behind"], &hook["failures"], &hook["fault"]),
        (&json!(0), &json!(0), &json!(null))
    );
}
