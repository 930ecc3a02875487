//! Is the holder of a session's key still there, and what does it say of its Mac now?

use std::time::Duration;

use attestd::flows::challenge::expire_due;
use attestd::store::NumberedEvent;
use attestd_sim::{Provider, ProviderLie};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::coordinator::answer;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::scene::Scene;

/// What was told under this name so far.
async fn events(scene: &Scene, name: &str) -> Vec<NumberedEvent> {
    let all = scene
        .ctx()
        .store
        .events_after(0, 1000)
        .await
        .expect("events");
    all.into_iter().filter(|it| it.event.name == name).collect()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

journey! {
    async fn three_unanswered_challenges_end_routing_until_a_good_one(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (_mac, life, provider) = plane.routed().await;
        drop(life);
        for missed in 1..=3_u32 {
            scene.pass(seconds(60));
            let issued = api.challenged("s").await;
            let body = json!({ "session": "s" });
            let (status, problem) = api.ask(Method::POST, "/internal/v1/challenges", &body).await;
            assert_eq!((status, &problem["type"]), (409, &json!("/problems/challenge-outstanding")));
            assert_eq!(problem["answer_by"], issued["answer_by"]);
            assert_eq!(api.binding("s").await["next_challenge_at"], Value::Null);
            scene.pass(seconds(31));
            // Whoever asks sees it, whether or not anybody wrote it down.
            let binding = api.binding("s").await;
            assert_eq!(binding["routable"], missed < 3, "{binding:#}");
            assert_eq!(binding["next_challenge_at"], issued["answer_by"]);
            expire_due(scene.ctx()).await.expect("runs");
            expire_due(scene.ctx()).await.expect("runs");
            let due = events(scene, "challenge.due").await;
            assert_eq!(due.len(), missed as usize);
            let last = &due[missed as usize - 1].event.body;
            assert_eq!((&last["session"], &last["time_outs"]), (&json!("s"), &json!(missed)));
            assert_eq!(last["due_at"], issued["answer_by"]);

            // What comes too late is no answer, and no harm.
            let (status, late) = api.respond(&issued, &answer(&provider, &issued)).await;
            assert_eq!((status, &late["outcome"], &late["reasons"]), (200, &json!("refused"), &json!(["answer_timeout"])));
        }
        let reasons = &api.binding("s").await["reasons"];
        assert_eq!(reasons, &json!(["challenge_stale"]));
        assert_eq!(api.challenge("s", &provider).await["routable"], true);
        let changes = events(scene, "binding.changed").await;
        let changes: Vec<_> = changes.iter().filter_map(|it| it.event.body["change"].as_str()).collect();
        assert_eq!(changes[changes.len() - 2..], ["unanswered", "answered"]);
    }
}

journey! {
    async fn an_answer_by_another_key_ends_routing_at_once(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, mut provider) = plane.routed().await;
        drop(life);
        for (lie, reason) in [
            (ProviderLie::OtherKey, "signature_invalid"),
            (ProviderLie::TrailingByte, "signature_invalid"),
            (ProviderLie::ChangedAfterwards, "signature_invalid"),
            (ProviderLie::FoundationOrder, "canonical_mismatch"),
            (ProviderLie::StatusUnsigned, "field_missing"),
        ] {
            provider.lie = Some(lie);
            let issued = api.challenged("s").await;
            let frame = answer(&provider, &issued);
            let (_, told) = api.respond(&issued, &frame).await;
            let code = told["reasons"][0].as_str().expect("a reason");
            assert_eq!((&told["outcome"], &told["routable"]), (&json!("refused"), &json!(false)), "{lie:?}");
            assert!(code == reason || (reason == "canonical_mismatch" && code == "signature_invalid"), "{lie:?}: {code}");
            // Said again, it is told again, and counts once.
            assert_eq!(api.respond(&issued, &frame).await.1, told);
            let binding = api.binding("s").await;
            assert_eq!(binding["reasons"][0].as_str(), Some(code), "{lie:?}");
            // The Mac itself is no worse for it.
            assert_eq!(api.posture(&mac.serial()).await["verdict"], "affirming");
            provider.lie = None;
            assert_eq!(api.challenge("s", &provider).await["routable"], true, "{lie:?}");
        }
        provider.lie = Some(ProviderLie::HighS);
        assert_eq!(api.challenge("s", &provider).await["outcome"], "good");
        provider.lie = None;

        // Relayed: the answer of another process, and the answer to another challenge.
        let mut other = provider.clone();
        other.restart().expect("restarts");
        let issued = api.challenged("s").await;
        let (_, told) = api.respond(&issued, &answer(&other, &issued)).await;
        assert_eq!((&told["outcome"], &told["reasons"]), (&json!("refused"), &json!(["key_mismatch"])));
        let former = issued;
        let issued = api.challenged("s").await;
        let (_, told) = api.respond(&issued, &answer(&provider, &former)).await;
        assert_eq!((&told["outcome"], &told["reasons"]), (&json!("refused"), &json!(["challenge_mismatch"])));
        let (_, told) = api.respond(&former, &answer(&provider, &former)).await;
        assert_eq!(told["reasons"], json!(["key_mismatch"]), "it was answered");
        assert_eq!(api.binding("s").await["routable"], false);
        assert_eq!(events(scene, "challenge.due").await.len(), 0);
    }
}

journey! {
    async fn sip_off_in_an_answer_takes_the_mac_out_within_one_challenge(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, mut provider) = plane.routed().await;
        let serial = mac.serial();
        scene.pass(seconds(300));
        provider.truth.sip_enabled = false;
        let told = api.challenge("s", &provider).await;
        assert_eq!((&told["outcome"], &told["reasons"]), (&json!("refused"), &json!(["sip_disabled"])));
        assert_eq!((&told["routable"], &told["trust_level"]), (&json!(false), &json!("self_signed")));
        let posture = api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("sip_disabled")));

        // Saying otherwise does not help, nor does another session, another process, a new profile
        // that brings nothing of Apple's.
        scene.pass(seconds(60));
        provider.truth.sip_enabled = true;
        assert_eq!(api.challenge("s", &provider).await["routable"], false);
        provider.restart().expect("restarts");
        api.bound("s-2", &provider, Some(OWNER)).await;
        assert_eq!(api.challenge("s-2", &provider).await["routable"], false);
        assert_eq!(api.binding("s-2").await["reasons"][0], "sip_disabled");

        // Apple's word for a nonce of afterwards does.
        plane.enroll(&mac, Some(OWNER), None).await;
        plane.once("s-2", "trusted again", |it| it["trust_level"] == "hardware").await;
        assert_eq!(api.challenge("s-2", &provider).await["routable"], true);
        assert_eq!(api.challenge("s", &provider).await["reasons"], json!(["key_mismatch"]));
        drop(life);
    }
}

journey! {
    async fn an_exchange_of_the_coordinators_own_counts_once(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (_mac, life, mut provider) = plane.routed().await;
        drop(life);
        let exchange = |provider: &Provider, number: u8| {
            use base64::Engine as _;
            let nonce = base64::engine::general_purpose::STANDARD.encode([number; 32]);
            let timestamp = provider.now();
            let frame = provider.answer(&nonce, &timestamp).expect("an answer");
            json!({
                "session": "s",
                "challenge": { "type": "attestation_challenge", "nonce": nonce, "timestamp": timestamp },
                "response": frame,
                "received_at": scene.now().to_string(),
            })
        };
        let hand_over = |body: Value| async move {
            api.ask(Method::POST, "/internal/v1/challenges", &body).await
        };
        scene.pass(seconds(240));
        let first = exchange(&provider, 1);
        let (status, told) = hand_over(first.clone()).await;
        assert_eq!((status, &told["outcome"]), (200, &json!("good")), "{told:#}");
        assert_eq!(told["last_good_at"], scene.now().to_string());
        let until = told["routable_until"].clone();
        scene.pass(seconds(60));
        let (_, again) = hand_over(first.clone()).await;
        assert_eq!((&again["outcome"], &again["routable_until"]), (&json!("unchanged"), &until));

        // The coordinator's own clock says when it came, within reason.
        let mut late = exchange(&provider, 2);
        late["received_at"] = json!(scene.now().plus(seconds(90)).to_string());
        let (_, told) = hand_over(late).await;
        assert_eq!(told["reasons"], json!(["answer_timeout"]));
        // No answer at all is one of three.
        scene.pass(seconds(1));
        let mut silent = exchange(&provider, 3);
        silent["response"] = Value::Null;
        let (_, told) = hand_over(silent).await;
        assert_eq!((&told["reasons"], &told["routable"]), (&json!(["answer_timeout"]), &json!(true)));
        scene.pass(seconds(1));
        provider.lie = Some(ProviderLie::OtherKey);
        let (_, told) = hand_over(exchange(&provider, 4)).await;
        assert_eq!((&told["outcome"], &told["routable"]), (&json!("refused"), &json!(false)));
        // An old good one does not undo it.
        let (_, told) = hand_over(first).await;
        assert_eq!((&told["outcome"], &told["routable"]), (&json!("unchanged"), &json!(false)));

        let mut unknown = exchange(&provider, 5);
        unknown["session"] = json!("nobody");
        assert_eq!(hand_over(unknown).await.0, 404);
        let mut half = exchange(&provider, 5);
        half.as_object_mut().expect("members").remove("received_at");
        assert_eq!(hand_over(half).await.0, 400);
    }
}

journey! {
    async fn who_may_challenge_and_what_is_no_request(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, None).await;
        let path = "/internal/v1/challenges";
        for (role, may) in [("auditor", 403), ("viewer", 403), ("operator", 201)] {
            let api = api.with_token(scene.token(role));
            assert_eq!(api.ask(Method::POST, path, &json!({ "session": "s" })).await.0, may, "{role}");
        }
        assert_eq!(api.ask(Method::POST, path, &json!({ "session": "nobody" })).await.0, 404);
        assert_eq!(api.ask(Method::POST, path, &json!({ "session": "s", "more": 1 })).await.0, 400);
        assert_eq!(api.ask(Method::POST, path, &json!([])).await.0, 400);
        scene.pass(seconds(31));
        let issued = api.challenged("s").await;
        assert_eq!(api.respond(&issued, &json!([])).await.0, 400);
        let unknown = json!({ "challenge_id": "chl_01J8ZZZZZZZZZZZZZZZZZZZZZZ" });
        assert_eq!(api.respond(&unknown, &json!({})).await.0, 404);
        // A provider that answers nonsense has answered.
        let (status, told) = api.respond(&issued, &json!({ "nonce": issued["nonce"] })).await;
        assert_eq!((status, &told["outcome"], &told["reasons"]), (200, &json!("refused"), &json!(["field_missing"])));
        // The challenge of a session that ended is nobody's.
        scene.pass(seconds(31));
        let issued = api.challenged("s").await;
        assert_eq!(api.unbind("s", "").await, 204);
        assert_eq!(api.respond(&issued, &answer(&provider, &issued)).await.0, 404);
        assert_eq!(api.ask(Method::POST, path, &json!({ "session": "s" })).await.0, 404);
    }
}

journey! {
    async fn a_session_nobody_speaks_of_any_more_ends(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        let provider = plane.provider_on(&mac);
        api.bound("s", &provider, None).await;
        scene.pass(seconds(86_300));
        expire_due(scene.ctx()).await.expect("runs");
        assert_eq!(api.get("/internal/v1/bindings/s").await.status(), 200);
        // The same process registers again: somebody speaks of it.
        api.bound("s", &provider, None).await;
        scene.pass(seconds(200));
        expire_due(scene.ctx()).await.expect("runs");
        assert_eq!(api.get("/internal/v1/bindings/s").await.status(), 200);
        scene.pass(seconds(86_300));
        expire_due(scene.ctx()).await.expect("runs");
        assert_eq!(api.get("/internal/v1/bindings/s").await.status(), 404);
    }
}
