//! A receiver of shared signals sets its stream up, and hears when a Mac begins or ceases to be compliant.

use std::time::Duration;

use attestd::flows::follow_events::{self, RETAINED};
use attestd::flows::{tell_of_end, transmit_signals};
use attestd::ids::DeviceId;
use attestd::publication::shared_signals::access::LIFETIME;
use attestd_sim::MacSpec;
use reqwest::Method;
use serde_json::{Value, json};

use super::sign_result::asked_of_others;
use crate::harness::inside::eventually;
use crate::harness::receiver::{Received, Receiver, Reply};
use crate::harness::scene::{Backend as Kind, Scene, attestd};
use crate::harness::signals::{
    COMPLIANCE, PUSH, SIGNALS, SignalsClient, UPDATED, VERIFICATION, claims, judge, listed, part,
    quiet_mac, receiver, sharing, signed_by, told, verdict,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const INTERVAL: Duration = Duration::from_secs(10);
/// Longer than any wait between two tries.
const LONG_ENOUGH: Duration = Duration::from_secs(16 * 60);

fn change(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

async fn keys(scene: &Scene) -> Value {
    let keys = scene.anybody(Method::GET, "/.well-known/jwks.json");
    scene.answer(keys).await.json()
}

/// Turns a Mac that was good into a bad one.
async fn turn_bad(scene: &Scene, mac: &DeviceId) {
    judge(scene, mac, "affirming", "contraindicated", "sip_disabled").await;
}

fn about(message: &Received) -> String {
    let subject = &message.body["sub_id"]["device"]["sub"];
    subject.as_str().expect("a pseudonym").to_owned()
}

/// Once a stream of this receiver is so.
async fn listed_once(
    scene: &Scene,
    name: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(what, || async { wanted(&listed(scene, name)) }).await;
    listed(scene, name)
}

journey! {
    async fn a_receiver_hears_of_a_mac_and_checks_it_with_a_library_of_other_hands(backend: Backend) {
        let scene = sharing(backend).await.with_ready_keys(1);
        let client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        scene.api.verdict(&mac.serial(), "affirming").await;
        let device_id = scene.api.device_id(&mac.serial()).await;
        let got = client.poll(&stream, &json!({})).await;
        let first = claims(&got).remove(0);
        assert_eq!(told(&first), change("not-compliant", "compliant"));
        let (jti, token) = got["sets"].as_object().expect("sets").iter().next().expect("one");
        let by_others = asked_of_others("read_signal.py", &json!({
            "token": token, "jwks": keys(&scene).await, "issuer": scene.base_url,
            "audience": client.audience, "now": scene.now().seconds(),
        })).await.expect("verifies");
        assert_eq!(by_others, first);
        // For another audience, or with a changed byte, it is none.
        let to_another = json!({
            "token": token, "jwks": keys(&scene).await, "issuer": scene.base_url,
            "audience": "https://another.example.org", "now": scene.now().seconds(),
        });
        assert!(asked_of_others("read_signal.py", &to_another).await.expect_err("refused").contains("audience"));
        // It is told under a pseudonym.
        let text = first.to_string();
        assert!(!text.contains(&mac.serial()) && !text.contains(&device_id), "{text}");
        client.poll(&stream, &json!({ "ack": [jti], "maxEvents": 0 })).await;

        // An operator withdraws trust: it is told at once, and who did it.
        let waiting = tokio::spawn({
            let (client, stream) = (client.clone(), stream.clone());
            async move { client.take(&stream).await }
        });
        let operator = scene.api.with_token(scene.token("operator"));
        let (path, began) = (|verb: &str| format!("/internal/v1/devices/{device_id}/{verb}"), std::time::Instant::now());
        assert_eq!(operator.ask(Method::POST, &path("revoke"), &json!({ "reason": "lost" })).await.0, 200);
        let second = waiting.await.expect("ends").remove(0);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(told(&second), change("compliant", "not-compliant"));
        let event = &second["events"][COMPLIANCE];
        assert_eq!((&event["initiating_entity"], &event["reason_admin"]["en"]), (&json!("admin"), &json!("revoked")));
        assert_eq!(second["sub_id"], first["sub_id"]);
        // The event it goes back to is the one that the event stream has.
        let kept = scene.kept(&mac).await.events;
        let seq = kept.iter().rfind(|it| it.event.name == "posture.changed").expect("an event").seq;
        assert_eq!(second["txn"], format!("evt_{seq}"));
        drop(life);
    }
}

journey! {
    async fn nothing_is_told_of_what_is_unknown_and_the_end_of_a_verdict_is(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        // It enrols and has not answered yet.
        let silent = quiet_mac(&scene).await;
        judge(&scene, &silent, "unknown", "unknown", "awaiting_push").await;
        // Good, then unknown, then good: nobody has to hear anything but the first.
        let faint = quiet_mac(&scene).await;
        for (from, to) in [("unknown", "affirming"), ("affirming", "unknown"), ("unknown", "warning"), ("warning", "affirming")] {
            judge(&scene, &faint, from, to, "").await;
        }
        // Bad from the beginning: nobody was told otherwise.
        let bad = quiet_mac(&scene).await;
        judge(&scene, &bad, "unknown", "contraindicated", "sip_disabled").await;
        // Good, then unknown, then bad: whoever was told "compliant" hears of it.
        let lost = quiet_mac(&scene).await;
        for (from, to) in [("unknown", "affirming"), ("affirming", "unknown"), ("unknown", "contraindicated")] {
            judge(&scene, &lost, from, to, "").await;
        }
        let mut all = Vec::new();
        while all.len() < 3 {
            all.extend(client.take(&stream).await);
        }
        let all: Vec<_> = all.iter().map(told).collect();
        let (good, bad) = (change("not-compliant", "compliant"), change("compliant", "not-compliant"));
        assert_eq!(all, [good.clone(), good.clone(), bad.clone()]);
        transmit_signals::run_once(scene.ctx()).await.expect("runs");
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);

        // A verdict that nothing renews ends; the policy routes to no Mac without one.
        let mut spec = MacSpec::random().expect("a Mac");
        spec.asks_for = Some(attestd_sim::IdentityKind::Acme);
        let mac = scene.mac(spec);
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        assert_eq!(told(&client.take(&stream).await[0]), good);
        scene.pass(DAY);
        tell_of_end::run_once(scene.ctx()).await.expect("tells");
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "unknown");
        let mut client = client;
        client.renew().await;
        let over = client.take(&stream).await.remove(0);
        assert_eq!(told(&over), bad);
        let reason = over["events"][COMPLIANCE]["reason_admin"]["en"].as_str().expect("a reason");
        assert!(reason.contains("came to its end"), "{reason}");
    }
}

journey! {
    async fn a_receiver_that_is_out_for_a_while_misses_nothing_and_has_it_in_order(backend: Backend) {
        let mut scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "flaky", &["--allow-private"]).await;
        let receiver = Receiver::start().await;
        client.stream(Some(&receiver.url())).await;
        let (one, two) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
        receiver.reply(|_| Reply::Status(503));
        turn_bad(&scene, &one).await;
        judge(&scene, &one, "contraindicated", "affirming", "").await;
        turn_bad(&scene, &two).await;
        receiver.count(1).await;
        let it = listed_once(&scene, "flaky", "a fault", |it| it["stream"]["failures"] == 1).await;
        assert_eq!((&it["stream"]["fault"], &it["waiting"]), (&json!("answered 503"), &json!(3)));

        // The server is started anew meanwhile, and a day goes by.
        scene.stop().await;
        receiver.reply(|_| Reply::Status(202));
        scene.start().await;
        scene.pass(2 * DAY);
        let it = listed_once(&scene, "flaky", "level", |it| it["waiting"] == 0).await;
        assert_eq!((&it["stream"]["failures"], &it["stream"]["fault"]), (&json!(0), &json!(null)));
        let received = receiver.received();
        let last = &received[received.len() - 3..];
        let of = |name: &str| -> Vec<_> { last.iter().filter(|it| about(it) == name).map(|it| told(&it.body)).collect() };
        let first = about(&received[0]);
        let (down, up) = (change("compliant", "not-compliant"), change("not-compliant", "compliant"));
        let histories: Vec<_> = last.iter().map(about).collect();
        let another = histories.iter().find(|it| **it != first).expect("another Mac").clone();
        let mut histories = [of(&first), of(&another)];
        histories.sort_by_key(Vec::len);
        assert_eq!(histories, [vec![down.clone()], vec![down, up]]);
        // Each attempt has the same name.
        let again = received.iter().find(|it| it.body["jti"] == received[0].body["jti"] && it.raw != b"");
        assert!(again.is_some() && last.iter().any(|it| it.body["jti"] == received[0].body["jti"]));
    }
}

journey! {
    async fn a_token_that_is_refused_again_and_again_is_given_up_and_holds_up_nobody(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "picky", &["--allow-private"]).await;
        let receiver = Receiver::start().await;
        client.stream(Some(&receiver.url())).await;
        let (one, two) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
        receiver.reply(|_| Reply::Error("invalid_audience"));
        turn_bad(&scene, &one).await;
        let bad = receiver.count(1).await.remove(0).body["jti"].clone();
        let refused = bad.clone();
        receiver.reply(move |claims| match claims["jti"] == refused {
            true => Reply::Error("invalid_audience"),
            false => Reply::Status(202),
        });
        turn_bad(&scene, &two).await;
        let tries = || receiver.received().iter().filter(|it| it.body["jti"] == bad).count();
        let others = || receiver.received().iter().filter(|it| it.body["jti"] != bad).count();
        eventually("others are not held up", || async { others() == 1 }).await;
        listed_once(&scene, "picky", "why", |it| it["stream"]["fault"] == "invalid_audience").await;
        for expected in 2..=8 {
            let now = scene.now().to_string();
            let waits = |it: &Value| it["stream"]["next_attempt_at"].as_str() > Some(now.as_str());
            listed_once(&scene, "picky", "a time for the next try", waits).await;
            scene.pass(LONG_ENOUGH);
            eventually("another try", || async { tries() >= expected }).await;
        }
        listed_once(&scene, "picky", "given up", |it| it["waiting"] == 0).await;
        assert_eq!((tries(), others()), (8, 1));
        assert_eq!(scene.counted("attestd_shared_signals_total", &["outcome=\"given_up\""]).await, 1);
    }
}

journey! {
    async fn no_push_is_led_inside_or_elsewhere_and_one_that_hangs_has_a_deadline(backend: Backend) {
        let scene = sharing(backend).await;
        let (inside, leading) = (Receiver::start().await, Receiver::start().await);
        let port = inside.address.port();
        // A receiver that may not: not by number, not by plain http, and not by a name that leads there.
        let stranger = SignalsClient::new(&scene, "stranger", &[]).await;
        let wanted = |url: &str| json!({ "delivery": { "method": PUSH, "endpoint_url": url }, "events_requested": [COMPLIANCE] });
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "0.0.0.0", "10.0.0.1"] {
            let refused = stranger.send(Method::POST, "/ssf/stream", &wanted(&format!("https://{host}:{port}/"))).await;
            assert_eq!(refused.status, 400, "{host}");
        }
        for url in [format!("http://localhost:{port}/"), "https://user:word@example.org/".to_owned(), "file:///etc/passwd".to_owned(), "x".to_owned()] {
            assert_eq!(stranger.send(Method::POST, "/ssf/stream", &wanted(&url)).await.status, 400, "{url}");
        }
        assert_eq!(stranger.ask(Method::GET, "/ssf/stream").await.body, json!([]));
        let made = stranger.send(Method::POST, "/ssf/stream", &wanted(&format!("https://localhost:{port}/"))).await;
        assert_eq!(made.status, 201, "what a name leads to is judged when it is asked");
        stranger.verify(&made.body, None).await;
        listed_once(&scene, "stranger", "refused", |it| it["stream"]["fault"] == "address_not_public").await;
        // Nor by a change afterwards.
        let mut moved = wanted(&format!("https://127.0.0.1:{port}/"));
        moved["stream_id"] = made.body["stream_id"].clone();
        for method in [Method::PATCH, Method::PUT] {
            assert_eq!(stranger.send(method, "/ssf/stream", &moved).await.status, 400);
        }
        assert_eq!(stranger.ask(Method::GET, "/ssf/stream").await.body, json!([made.body]));

        // One that may is not followed elsewhere.
        let to = inside.url();
        leading.reply(move |_| Reply::Redirect(to.clone()));
        let led = SignalsClient::new(&scene, "led", &["--allow-private"]).await;
        let stream = led.stream(Some(&leading.url())).await;
        led.verify(&stream, None).await;
        listed_once(&scene, "led", "a redirect", |it| it["stream"]["fault"] == "answered 308").await;
        assert_eq!(inside.received().len(), 0);

        // One that hangs holds up nobody else.
        let hanging = Receiver::start().await;
        hanging.reply(|_| Reply::Hang);
        let slow = SignalsClient::new(&scene, "slow", &["--allow-private"]).await;
        let stream = slow.stream(Some(&hanging.url())).await;
        slow.verify(&stream, None).await;
        hanging.count(1).await;
        let quick = SignalsClient::new(&scene, "quick", &["--allow-private"]).await;
        let stream = quick.stream(Some(&inside.url())).await;
        quick.verify(&stream, Some("quick")).await;
        assert_eq!(inside.count(1).await[0].body["events"][VERIFICATION]["state"], "quick");
        listed_once(&scene, "slow", "a deadline", |it| it["stream"]["fault"] == "timed_out").await;
    }
}

journey! {
    async fn calls_that_are_replayed_do_nothing_twice_and_ended_tokens_nothing_at_all(backend: Backend) {
        let scene = sharing(backend).await;
        let mut client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        let again = client.send(Method::POST, "/ssf/stream", &json!({ "events_requested": [COMPLIANCE] })).await;
        assert_eq!(again.status, 409);
        assert_eq!(client.verify(&stream, Some("once")).await, 204);
        assert_eq!(client.verify(&stream, Some("once")).await, 429);
        let got = client.poll(&stream, &json!({ "returnImmediately": true })).await;
        assert_eq!(claims(&got).len(), 1);
        let names: Vec<_> = got["sets"].as_object().expect("sets").keys().collect();
        for _ in 0..2 {
            let ack = json!({ "ack": names, "returnImmediately": true });
            assert_eq!(client.poll(&stream, &ack).await, json!({ "sets": {} }));
        }
        scene.pass(INTERVAL);
        assert_eq!(client.verify(&stream, None).await, 204);
        // A stale acknowledgment takes nothing that came since.
        let stale = client.poll(&stream, &json!({ "ack": names, "returnImmediately": true })).await;
        assert_eq!(claims(&stale).len(), 1);

        // A token ends after half an hour, whatever it was used for.
        let old = client.token.clone();
        scene.pass(LIFETIME);
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.status, 401);
        client.renew().await;
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.status, 200);
        // Neither kind of token is good for the other kind of thing.
        let mine = std::mem::replace(&mut client.token, scene.api.token.clone());
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.status, 401);
        let coordinator = scene.api.with_token(mine.clone());
        assert_eq!(coordinator.get("/internal/v1/events").await.status(), 401);
        client.token = old;
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.status, 401);
        client.token = mine;

        let one = format!("/ssf/stream?stream_id={}", stream["stream_id"].as_str().expect("an id"));
        assert_eq!(client.ask(Method::DELETE, &one).await.status, 204);
        assert_eq!(client.ask(Method::DELETE, &one).await.status, 404);
        // Whoever is removed is nobody from then on, whatever it holds.
        let output = receiver(&scene, "remove", &["coordinator"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(client.ask(Method::GET, "/ssf/stream").await.status, 401);
        assert_eq!(client.grant(&[("grant_type", "client_credentials")]).await.status, 401);
    }
}

journey! {
    async fn nobody_gets_anothers_stream_or_anothers_audience(backend: Backend) {
        let scene = sharing(backend).await;
        let one = SignalsClient::new(&scene, "one", &[]).await;
        let other = SignalsClient::new(&scene, "other", &[]).await;
        for theirs in [
            json!({ "aud": other.audience }), json!({ "aud": [one.audience, other.audience] }), json!({ "iss": "https://evil.example.org" }),
            json!({ "events_delivered": [COMPLIANCE] }), json!({ "events_supported": [] }), json!({ "min_verification_interval": 0 }),
            json!({ "inactivity_timeout": 1 }), json!({ "stream_id": "str_01J8ZZZZZZZZZZZZZZZZZZZZZZ" }), json!({ "Aud": one.audience }),
            json!({ "delivery": { "method": "urn:ietf:rfc:8936", "endpoint_url": "https://evil.example.org/" } }),
            json!({ "delivery": { "method": PUSH, "endpoint_url": "https://a.example.org/", "authorization_header": "two\r\nlines" } }),
        ] {
            assert_eq!(one.send(Method::POST, "/ssf/stream", &theirs).await.status, 400, "{theirs}");
        }
        let stream = one.stream(None).await;
        assert_eq!(stream["aud"], one.audience);
        let theirs = json!({ "stream_id": stream["stream_id"], "aud": other.audience });
        for method in [Method::PATCH, Method::PUT] {
            assert_eq!(one.send(method, "/ssf/stream", &theirs).await.status, 400);
        }
        other.stream(None).await;
        one.verify(&stream, Some("mine")).await;
        let url = stream["delivery"]["endpoint_url"].as_str().expect("a URL").strip_prefix(SIGNALS).expect("ours");
        assert_eq!(other.send(Method::POST, url, &json!({ "returnImmediately": true })).await.status, 404);
        assert_eq!(other.verify(&stream, None).await, 404);
        assert_eq!(other.set_status(&stream, "disabled").await.status, 404);
        assert_eq!(claims(&one.poll(&stream, &json!({ "returnImmediately": true })).await).len(), 1);
        // Two receivers of one audience could use each other's tokens.
        let output = receiver(&scene, "add", &["third", "--audience", &one.audience]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("another receiver has this audience"), "{output:?}");
    }
}

journey! {
    async fn a_mac_that_is_removed_is_told_of_no_more_until_it_is_added_again(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        let (one, two) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
        turn_bad(&scene, &one).await;
        let subject = client.take(&stream).await[0]["sub_id"].clone();
        let with = |subject: &Value| json!({ "stream_id": stream["stream_id"], "subject": subject });
        let (add, remove) = ("/ssf/subjects:add", "/ssf/subjects:remove");
        // By the name its tokens have; the other by its id.
        assert_eq!(client.send(Method::POST, remove, &with(&subject)).await.status, 204);
        let by_id = json!({ "format": "opaque", "id": two });
        assert_eq!(client.send(Method::POST, remove, &with(&by_id)).await.status, 204);
        judge(&scene, &one, "contraindicated", "affirming", "").await;
        turn_bad(&scene, &two).await;
        transmit_signals::run_once(scene.ctx()).await.expect("runs");
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
        assert_eq!(client.send(Method::POST, add, &with(&subject)).await.status, 200);
        turn_bad(&scene, &one).await;
        judge(&scene, &two, "contraindicated", "affirming", "").await;
        let heard = client.take(&stream).await;
        assert_eq!(heard.iter().map(|it| it["sub_id"].clone()).collect::<Vec<_>>(), [subject]);
        assert_eq!(told(&heard[0]), change("compliant", "not-compliant"));
    }
}

journey! {
    async fn a_paused_stream_keeps_what_happens_and_a_disabled_one_does_not(backend: Backend) {
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        let mac = quiet_mac(&scene).await;
        assert_eq!(client.set_status(&stream, "paused").await.status, 200);
        turn_bad(&scene, &mac).await;
        transmit_signals::run_once(scene.ctx()).await.expect("runs");
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
        client.set_status(&stream, "enabled").await;
        assert_eq!(client.take(&stream).await.len(), 1);
        client.set_status(&stream, "disabled").await;
        assert_eq!(client.verify(&stream, None).await, 409);
        judge(&scene, &mac, "contraindicated", "affirming", "").await;
        client.set_status(&stream, "enabled").await;
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
        // Who wants no event is told of none.
        let none = json!({ "stream_id": stream["stream_id"], "events_requested": [] });
        assert_eq!(client.send(Method::PATCH, "/ssf/stream", &none).await.body["events_delivered"], json!([]));
        turn_bad(&scene, &mac).await;
        transmit_signals::run_once(scene.ctx()).await.expect("runs");
        assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
    }
}

journey! {
    async fn a_stream_that_nobody_reads_comes_to_an_end_and_keeps_no_event(backend: Backend) {
        let scene = sharing(backend).await;
        let mut client = SignalsClient::new(&scene, "gone", &[]).await;
        let stream = client.stream(None).await;
        let mac = quiet_mac(&scene).await;
        turn_bad(&scene, &mac).await;
        listed_once(&scene, "gone", "it waits", |it| it["waiting"] == 1).await;
        let newest = scene.ctx().store.newest_event().await.expect("a number");
        scene.pass(RETAINED - DAY);
        // Should a worker have looked at the clock just then, it believes it again by now.
        transmit_signals::tidy(scene.ctx()).await.expect("tidied");
        assert_eq!(listed(&scene, "gone")["stream"]["status"], "enabled");
        scene.pass(2 * DAY);
        eventually("it is ended", || async {
            transmit_signals::tidy(scene.ctx()).await.expect("tidied");
            listed(&scene, "gone")["stream"]["status"] == "disabled"
        }).await;
        let it = listed(&scene, "gone");
        assert_eq!((&it["stream"]["reason"], &it["waiting"]), (&json!("nothing was taken for 14 days"), &json!(1)));
        // The outbox never waited for it.
        follow_events::tidy(scene.ctx()).await.expect("tidied");
        let removed = scene.ctx().store.events_removed_up_to().await.expect("a number");
        assert!(removed >= newest, "{removed} {newest}");
        // One token says what became of it, and then it can be enabled again.
        client.renew().await;
        let last = client.take(&stream).await.remove(0);
        assert_eq!(last["events"][UPDATED], json!({ "status": "disabled", "reason": "nothing was taken for 14 days" }));
        assert_eq!(last["sub_id"], json!({ "format": "opaque", "id": stream["stream_id"] }));
        client.set_status(&stream, "enabled").await;
        judge(&scene, &mac, "contraindicated", "affirming", "").await;
        assert_eq!(told(&client.take(&stream).await[0]), change("not-compliant", "compliant"));
    }
}

journey! {
    async fn the_key_of_signals_is_rotated_ahead_of_use_beside_that_of_results(backend: Backend) {
        let scene = sharing(backend).await;
        let mut client = SignalsClient::new(&scene, "coordinator", &[]).await;
        let stream = client.stream(None).await;
        let kid = async |client: &SignalsClient| {
            assert_eq!(client.verify(&stream, None).await, 204);
            let got = client.poll(&stream, &json!({ "returnImmediately": true })).await;
            let (jti, token) = got["sets"].as_object().expect("sets").iter().next_back().expect("one");
            let token = token.as_str().expect("a token").to_owned();
            client.poll(&stream, &json!({ "ack": [jti], "maxEvents": 0 })).await;
            assert!(signed_by(&token, &keys(&scene).await).is_some());
            part(&token, 0)["kid"].clone()
        };
        let first = kid(&client).await;
        let algorithms: Vec<_> = keys(&scene).await["keys"].as_array().expect("keys").iter().map(|key| key["alg"].clone()).collect();
        assert_eq!(algorithms, ["ES256", "RS256"]);
        let config = scene.config().to_str().expect("a path");
        let run = |words: &[&str]| {
            let output = attestd(&[words, &["--config", config, "--insecure-http", "--json"]].concat());
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
        };
        let next = run(&["keys", "rotate", "--alg", "RS256"]);
        assert_eq!((&next["alg"], &next["signs"]), (&json!("RS256"), &json!(false)));
        assert_eq!(run(&["keys", "list"])["keys"].as_array().map(Vec::len), Some(3));
        eventually("it is published", || async { keys(&scene).await["keys"].as_array().map(Vec::len) == Some(3) }).await;
        scene.pass(INTERVAL);
        assert_eq!(kid(&client).await, first);
        // The command has a clock of its own, a little ahead.
        scene.pass(Duration::from_secs(65 * 60));
        client.renew().await;
        assert_eq!(kid(&client).await, next["kid"]);
    }
}

journey! {
    async fn what_makes_no_receiver_is_refused_and_where_nothing_is_shared_nothing_is_there(backend: Backend) {
        let scene = Scene::new(backend).await;
        let output = receiver(&scene, "add", &["one", "--audience", "https://one.example.org", "--json"]);
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&made["scope"], &made["token_endpoint"]), (&json!("ssf.read ssf.manage"), &json!(null)));
        let empty = scene.home.path().join("empty.pem");
        std::fs::write(&empty, "").expect("written");
        let empty = empty.to_str().expect("a path");
        for (arguments, says) in [
            (&["one", "--audience", "https://two.example.org"][..], "already"),
            (&["two", "--audience", "https://one.example.org"], "has this audience"),
            (&["two", "--audience", ""], "an audience is"),
            (&["two", "--audience", "two words"], "an audience is"),
            (&["Two", "--audience", "https://two.example.org"], "name of a receiver"),
            (&["two", "--audience", "https://two.example.org", "--root", empty], "no certificate"),
        ] {
            let output = receiver(&scene, "add", arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(says), "{arguments:?}: {said}");
        }
        let output = receiver(&scene, "remove", &["two"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("no receiver"), "{output:?}");
        let shown = listed(&scene, "one");
        assert_eq!((&shown["stream"], &shown["waiting"]), (&json!(null), &json!(0)));
        let secret = made["client_secret"].as_str().expect("a secret");
        assert!(!shown.to_string().contains(secret));
        for path in ["/.well-known/ssf-configuration", "/.well-known/oauth-authorization-server"] {
            assert_eq!(scene.answer(scene.anybody(Method::GET, path)).await.status, 404, "{path}");
        }
        for path in ["/ssf/token", "/ssf/stream", "/ssf/poll/x"] {
            assert_eq!(scene.api.request(Method::POST, path).send().await.expect("an answer").status(), 404, "{path}");
        }
        let kinds = keys(&scene).await;
        assert_eq!(kinds["keys"].as_array().map(Vec::len), Some(1), "no key is made that signs nothing");
        // What is longer than anything honest is not read.
        let scene = sharing(backend).await;
        let client = SignalsClient::new(&scene, "two", &[]).await;
        let long = json!({ "description": "x".repeat(70 * 1024) });
        for path in ["/ssf/stream", "/ssf/verify", "/ssf/poll/x"] {
            assert_eq!(client.send(Method::POST, path, &long).await.status, 413, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_change_that_commits_late_is_waited_for_and_told_once() {
    let scene = sharing(Kind::PostgreSql).await;
    let client = SignalsClient::new(&scene, "coordinator", &[]).await;
    let stream = client.stream(None).await;
    let (one, two) = (quiet_mac(&scene).await, quiet_mac(&scene).await);
    let second = scene.second_node().await;
    let mut late = second.store.write().await.expect("begins");
    let event = verdict(&scene, &one, "affirming", "contraindicated", "sip_disabled");
    late.append_event_about(Some(&one), &event)
        .await
        .expect("appended");
    turn_bad(&scene, &two).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(client.waiting(&stream).await, [Value::Null; 0]);
    late.commit().await.expect("commits");
    // Both nodes read at once: each change becomes one token.
    let (here, there) = tokio::join!(
        transmit_signals::run_once(scene.ctx()),
        transmit_signals::run_once(&second)
    );
    here.expect("runs");
    there.expect("runs");
    let heard = client.waiting(&stream).await;
    assert_eq!(heard.len(), 2, "{heard:?}");
    let number = |claims: &Value| -> u64 {
        let number = claims["txn"]
            .as_str()
            .and_then(|txn| txn.strip_prefix("evt_"));
        number
            .and_then(|number| number.parse().ok())
            .expect("a number")
    };
    assert!(number(&heard[0]) < number(&heard[1]));
    // And a token of one node's is had at the other: the key is the same.
    let first = second.store.read().await.expect("begins");
    assert_eq!(first.signal_streams().await.expect("streams").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_one_node_at_a_time_pushes() {
    let scene = sharing(Kind::PostgreSql).await;
    let client = SignalsClient::new(&scene, "shared", &["--allow-private"]).await;
    let receiver = Receiver::start().await;
    receiver.reply(|_| Reply::Hang);
    let second = scene.second_node().await;
    let stream = client.stream(Some(&receiver.url())).await;
    assert_eq!(client.verify(&stream, Some("once")).await, 204);
    receiver.count(1).await;
    let due = attestd::flows::push_signals::due(&second).await;
    assert_eq!(due.expect("looks"), []);
    // Whoever was overtaken sends nothing.
    let held = scene.ctx().store.read().await.expect("begins");
    let mut stale = held.signal_streams().await.expect("streams").remove(0);
    drop(held);
    stale.revision -= 1;
    let sent = attestd::flows::push_signals::round(&second, stale).await;
    assert!(!sent.expect("a round"));
    assert_eq!(receiver.received().len(), 1);
}
