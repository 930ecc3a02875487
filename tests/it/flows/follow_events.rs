//! A coordinator lists what is believed, and follows what happens from there on
//! (coordinator-and-standards B.4, C.2).

use std::time::Duration;

use attestd::flows::follow_events::{self, RETAINED};
use attestd::ids::DeviceId;
use attestd::store::Event;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::following::{Following, Heard};
use crate::harness::inside::eventually;
use crate::harness::scene::{Backend as Kind, Scene, attestd};

/// Something that happened to nobody in particular.
fn noted(note: &str, scene: &Scene) -> Event {
    Event::new("release.changed", scene.now(), json!({ "note": note }))
}

/// Commits an event of this note.
async fn tell(scene: &Scene, note: &str) {
    let mut tx = scene.ctx().store.write().await.expect("begins");
    let event = noted(note, scene);
    tx.append_event_about(None, &event).await.expect("appended");
    tx.commit().await.expect("commits");
}

fn note(heard: &Heard) -> &str {
    heard.data["note"].as_str().expect("a note")
}

/// Every page: the cursor of the first, and the postures of all.
async fn list_all(scene: &Scene, limit: usize) -> (i64, Vec<Value>) {
    let mut page = scene
        .api
        .json(&format!("/internal/v1/postures?limit={limit}"))
        .await;
    let cursor = page["cursor"].as_i64().expect("a cursor");
    let mut all = Vec::new();
    loop {
        let postures = page["postures"].as_array().expect("a list");
        assert!(postures.len() <= limit);
        all.extend(postures.iter().cloned());
        let Some(next) = page["next"].as_str() else {
            return (cursor, all);
        };
        page = scene.api.json(next).await;
        assert_eq!(page["cursor"], Value::Null, "only the first page names one");
    }
}

journey! {
    async fn a_coordinator_lists_every_posture_and_follows_what_changes_from_there(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let mut lives = Vec::new();
        for _ in 0..3 {
            let (mac, life) = scene.living_mac(attestd_sim::MacSpec::random().expect("a Mac")).await;
            scene.api.verdict(&mac.serial(), "affirming").await;
            lives.push((mac, life));
        }
        let (cursor, postures) = list_all(&scene, 2).await;
        let mut ids = Vec::new();
        for (mac, _) in &lives {
            ids.push(scene.api.device_id(&mac.serial()).await);
        }
        ids.sort();
        let listed: Vec<_> = postures.iter().map(|one| one["device_id"].as_str().expect("an id")).collect();
        assert_eq!(listed, ids);
        for posture in &postures {
            let path = format!("/internal/v1/devices/{}/posture", posture["device_id"].as_str().expect("an id"));
            assert_eq!(&scene.api.json(&path).await["revision"], &posture["revision"]);
            assert_eq!(posture["verdict"], "affirming");
        }

        // A revocation reaches whoever follows, whatever it is told by: it is not in what was listed.
        let operator = scene.api.with_token(scene.token("operator"));
        let mut following = Following::after(&scene.api, cursor).await;
        let path = format!("/internal/v1/devices/{}/revoke", ids[0]);
        let done = operator.request(Method::POST, &path).body("").send().await.expect("an answer");
        assert_eq!(done.status(), 200);
        let changed = following.next_named("posture.changed").await;
        assert_eq!((&changed.data["device_id"], &changed.data["verdict"]),
            (&json!(ids[0]), &json!("contraindicated")));
        // Who was told of it reads it.
        let posture = scene.api.json(&format!("/internal/v1/devices/{}/posture", ids[0])).await;
        assert!(posture["revision"].as_u64() >= changed.data["revision"].as_u64());
        assert_eq!(posture["verdict"], "contraindicated");

        // Whoever comes back hears the same again, from where it was: by header, or at an address.
        let mut back = Following::after(&scene.api, cursor).await;
        assert_eq!(back.next_named("posture.changed").await, changed);
        let mut back = Following::open(&scene.api, &format!("?after={cursor}"), None).await;
        assert_eq!(back.next_named("posture.changed").await, changed);
        assert!(back.id > cursor);
        // The header is newer than the address.
        let at = back.id.to_string();
        let back = Following::open(&scene.api, &format!("?after={cursor}"), Some(&at)).await;
        assert_eq!(back.id.to_string(), at);
    }
}

journey! {
    async fn what_is_asked_for_is_heard_and_nothing_else(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (one, _life) = scene.living_mac(attestd_sim::MacSpec::random().expect("a Mac")).await;
        let (other, _other_life) = scene.living_mac(attestd_sim::MacSpec::random().expect("a Mac")).await;
        for mac in [&one, &other] {
            scene.api.verdict(&mac.serial(), "affirming").await;
        }
        let device_id = scene.api.device_id(&one.serial()).await;
        let query = format!("?after=0&events=device.enrolled,posture.changed&device_id={device_id}");
        let mut following = Following::open(&scene.api, &query, None).await;
        for name in ["device.enrolled", "posture.changed"] {
            let heard = following.next().await.expect(name);
            assert!(["device.enrolled", "posture.changed"].contains(&heard.name.as_str()), "{heard:?}");
            assert_eq!(heard.data["device_id"], json!(device_id));
        }
        let kept = scene.kept(&one).await.events;
        let wanted = kept.iter().filter(|it| ["device.enrolled", "posture.changed"].contains(&it.event.name.as_str()));
        assert!(wanted.count() >= 2);
    }
}

journey! {
    async fn a_cursor_that_leads_nowhere_is_told_to_list_again(backend: Backend) {
        let scene = Scene::new(backend).await;
        for number in 0..3 {
            tell(&scene, &number.to_string()).await;
        }
        let newest = scene.ctx().store.newest_event().await.expect("a number");
        let ahead = (newest + 1).to_string();
        for (cursor, reason) in [
            ("yesterday", "cursor_unknown"), ("", "cursor_unknown"), ("-1", "cursor_unknown"), ("+1", "cursor_unknown"),
            ("1 2", "cursor_unknown"), ("99999999999999999999", "cursor_unknown"),
            (ahead.as_str(), "cursor_ahead"), ("9223372036854775807", "cursor_ahead"),
        ] {
            let mut following = Following::open(&scene.api, "", Some(cursor)).await;
            let reset = following.next().await.expect("a reset");
            assert_eq!((reset.name.as_str(), &reset.data), ("reset", &json!({ "reason": reason, "cursor": newest })),
                "{cursor:?}");
            assert_eq!(reset.id, newest);
        }
        // After it the stream goes on, so that whoever lists now misses nothing.
        let mut following = Following::open(&scene.api, "?after=forged", None).await;
        assert_eq!(following.next().await.expect("a reset").name, "reset");
        tell(&scene, "after").await;
        let heard = following.next().await.expect("an event");
        assert_eq!((note(&heard), heard.id), ("after", newest + 1));

        // What nobody can want any more is removed, and who comes from before that begins anew.
        let mut still_there = Following::after(&scene.api, 1).await;
        for expected in ["1", "2", "after"] {
            assert_eq!(note(&still_there.next().await.expect("an event")), expected);
        }
        scene.pass(RETAINED);
        // Should a worker have looked at the clock just then, it believes it again by now.
        scene.pass(Duration::from_secs(60));
        tell(&scene, "kept").await;
        follow_events::tidy(scene.ctx()).await.expect("tidied");
        let kept = scene.ctx().store.events_after(0, 100).await.expect("events");
        let notes = kept.iter().filter_map(|one| one.event.body["note"].as_str());
        assert_eq!(notes.collect::<Vec<_>>(), ["kept"]);
        for cursor in [0, newest] {
            let mut following = Following::after(&scene.api, cursor).await;
            let reset = following.next().await.expect("a reset");
            assert_eq!(reset.data["reason"], "cursor_too_old", "{cursor}");
            assert!(reset.data["cursor"].as_i64() >= Some(newest + 2), "{reset:?}");
        }
        let mut following = Following::after(&scene.api, newest + 1).await;
        assert_eq!(note(&following.next_named("release.changed").await), "kept");
        // Who was listening all the while goes on.
        assert_eq!(note(&still_there.next_named("release.changed").await), "kept");
    }
}

journey! {
    async fn who_may_not_follow_or_asks_it_wrong_hears_nothing(backend: Backend) {
        let scene = Scene::new(backend).await;
        let nobody = scene.api.with_token("att_nobody".to_owned());
        assert_eq!(Following::ask(&nobody, "", None).await.status(), 401);
        let viewer = scene.api.with_token(scene.token("viewer"));
        assert_eq!(Following::ask(&viewer, "", None).await.status(), 403);
        assert_eq!(viewer.get("/internal/v1/postures").await.status(), 403);
        assert_eq!(nobody.get("/internal/v1/postures").await.status(), 401);
        for query in [
            "?evnts=posture.changed", "?events=posture.chnged", "?events=", "?events=reset", "?device_id=1",
            "?device_id=", "?after=1&after=2",
        ] {
            let answer = Following::ask(&scene.api, query, None).await;
            assert_eq!(answer.status(), 400, "{query}");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        for query in [
            "?limit=0", "?limit=501", "?limit=-1", "?limit=many", "?after=1", "?after=", "?cursor=1",
            "?after=dev_01j8zzzzzzzzzzzzzzzzzzzzzz",
        ] {
            let answer = scene.api.get(&format!("/internal/v1/postures{query}")).await;
            assert_eq!(answer.status(), 400, "{query}");
        }
        // Well formed, and nobody's: it only says where to go on.
        let page = scene.api.json("/internal/v1/postures?after=dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ&limit=500").await;
        assert_eq!(page, json!({ "cursor": null, "postures": [], "next": null }));
        let role = scene.api.with_token(scene.token("auditor"));
        Following::now(&role).await;
    }
}

journey! {
    async fn a_withdrawn_token_ends_its_stream_and_no_other(backend: Backend) {
        let scene = Scene::new(backend).await;
        let made = attestd(&["token", "create", "--insecure-http", "--config", scene.config().to_str().expect("a path"),
            "--role", "coordinator", "--label", "leaver", "--json"]);
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        let api = scene.api.with_token(made["token"].as_str().expect("a token").to_owned());
        let mut leaver = Following::now(&api).await;
        let mut stays = Following::now(&scene.api).await;
        tell(&scene, "to both").await;
        assert_eq!(note(&leaver.next().await.expect("an event")), "to both");
        let revoked = attestd(&["token", "revoke", "--insecure-http", "--config", scene.config().to_str().expect("a path"),
            made["token_id"].as_str().expect("an id")]);
        assert!(revoked.status.success(), "{revoked:?}");
        assert_eq!(leaver.next().await, None);
        assert_eq!(Following::ask(&api, "", None).await.status(), 401);
        tell(&scene, "to one").await;
        for expected in ["to both", "to one"] {
            assert_eq!(note(&stays.next().await.expect("an event")), expected);
        }
    }
}

journey! {
    async fn a_stopping_server_ends_its_streams_and_who_comes_back_misses_nothing(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let mut following = Following::now(&scene.api).await;
        tell(&scene, "before").await;
        let before = following.next().await.expect("an event");
        let stopped = tokio::time::timeout(Duration::from_secs(10), scene.stop()).await;
        assert!(stopped.is_ok(), "the server waits for its streams");
        assert_eq!(following.next().await, None);
        scene.start().await;
        tell(&scene, "while nobody listened").await;
        let mut following = Following::after(&scene.api, before.id).await;
        tell(&scene, "after").await;
        for expected in ["while nobody listened", "after"] {
            assert_eq!(note(&following.next().await.expect("an event")), expected);
        }
    }
}

journey! {
    async fn a_token_has_a_share_of_the_streams_and_gets_a_place_back(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mut open = Vec::new();
        for _ in 0..attestd::http::events::MOST.1 {
            open.push(Following::now(&scene.api).await);
        }
        let refused = Following::ask(&scene.api, "", None).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "5");
        let another = scene.api.with_token(scene.token("operator"));
        let mut another = Following::now(&another).await;
        drop(open.split_off(1));
        let again = || async { Following::ask(&scene.api, "", None).await.status() == 200 };
        eventually("a place is given back", again).await;
        tell(&scene, "to all").await;
        assert_eq!(note(&another.next().await.expect("an event")), "to all");
        assert_eq!(note(&open[0].next().await.expect("an event")), "to all");
    }
}

/// More than a connection, its buffers and the memory of events hold together.
const FLOOD: usize = 3_000;

journey! {
    async fn who_does_not_read_is_dropped_with_a_reset_and_nobody_else_notices(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mut slow = Following::now(&scene.api).await;
        let mut quick = Following::now(&scene.api).await;
        let long = "x".repeat(8_000);
        let heard = async {
            for number in 0..FLOOD {
                let heard = quick.next().await.expect("an event");
                assert_eq!(heard.data["number"], number, "{}", heard.name);
            }
        };
        let told = async {
            for first in (0..FLOOD).step_by(100) {
                let mut tx = scene.ctx().store.write().await.expect("begins");
                for number in first..first + 100 {
                    let body = json!({ "number": number, "note": long });
                    let event = Event::new("release.changed", scene.now(), body);
                    tx.append_event_about(None, &event).await.expect("appended");
                }
                tx.commit().await.expect("commits");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::join!(heard, told);
        let newest = scene.ctx().store.newest_event().await.expect("a number");
        let mut events = 0;
        let reset = loop {
            let heard = slow.next().await.expect("what was under way, and then a reset");
            if heard.name == "reset" {
                break heard;
            }
            events += 1;
        };
        assert!(events < FLOOD, "it was never slow");
        assert_eq!(reset.data, json!({ "reason": "too_slow", "cursor": newest }));
        assert_eq!(slow.next().await, None);
    }
}

journey! {
    async fn a_device_that_is_nobodys_is_followed_in_vain(backend: Backend) {
        let scene = Scene::new(backend).await;
        let nobody = DeviceId::parse("dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ").expect("an id");
        let mut following = Following::open(&scene.api, &format!("?device_id={nobody}"), None).await;
        let mut all = Following::now(&scene.api).await;
        tell(&scene, "about nobody").await;
        assert_eq!(note(&all.next().await.expect("an event")), "about nobody");
        let waited = tokio::time::timeout(Duration::from_millis(300), following.next()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_stream_waits_for_whoever_commits_late() {
    let scene = Scene::new(Kind::PostgreSql).await;
    let mut following = Following::now(&scene.api).await;
    let begun = following.id;
    let second = scene.second_node().await;
    let mut late = second.store.write().await.expect("begins");
    let first = noted("numbered first", &scene);
    late.append_event_about(None, &first)
        .await
        .expect("appended");
    tell(&scene, "numbered second").await;

    // Neither is told before both are decided; nor does a list name a cursor that skips the first.
    let too_soon = tokio::time::timeout(Duration::from_millis(500), following.next()).await;
    assert!(too_soon.is_err(), "{too_soon:?}");
    let listing = tokio::spawn({
        let api = scene.api.clone();
        async move { api.json("/internal/v1/postures").await }
    });
    let newcomer = tokio::spawn({
        let api = scene.api.clone();
        async move { Following::now(&api).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!listing.is_finished() && !newcomer.is_finished());
    late.commit().await.expect("commits");

    let [one, two] =
        [following.next().await, following.next().await].map(|heard| heard.expect("an event"));
    assert_eq!(
        (note(&one), note(&two)),
        ("numbered first", "numbered second")
    );
    assert!(begun < one.id && one.id < two.id);
    let cursor = listing.await.expect("ends")["cursor"].as_i64();
    assert_eq!(cursor, Some(two.id));
    assert_eq!(newcomer.await.expect("ends").id, two.id);

    // One that is rolled back leaves a gap, and nobody waits for it any longer.
    let mut never = second.store.write().await.expect("begins");
    never
        .append_event_about(None, &noted("never", &scene))
        .await
        .expect("appended");
    tell(&scene, "third").await;
    drop(never);
    let three = following.next().await.expect("an event");
    assert_eq!(note(&three), "third");
    assert!(three.id > two.id + 1);

    // What another node commits is heard here, though nothing announces it.
    let mut elsewhere = second.store.write().await.expect("begins");
    elsewhere
        .append_event_about(None, &noted("elsewhere", &scene))
        .await
        .expect("appended");
    elsewhere.commit().await.expect("commits");
    assert_eq!(
        note(&following.next().await.expect("an event")),
        "elsewhere"
    );
}
