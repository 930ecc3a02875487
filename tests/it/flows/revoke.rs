//! An operator withdraws trust in a Mac, and gives it back.

use attestd_sim::mac::messages::{idle, token_update};
use attestd_sim::{Mac, MacSpec, Signing};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::internal_api::InternalApi;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::{Backend as Kind, Scene, attestd};

/// The internal API with an operator's token.
fn operator(scene: &Scene) -> InternalApi {
    scene.api.with_token(scene.token("operator"))
}

async fn ask(api: &InternalApi, device_id: &str, verb: &str, body: &str) -> (u16, Value) {
    let path = format!("/internal/v1/devices/{device_id}/{verb}");
    let request = api.request(Method::POST, &path).body(body.to_owned());
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn heard(mac: &Mac) -> (u16, String) {
    told(mac.connect_with(&idle(&mac.spec()), Signing::Own).await)
}

journey! {
    async fn a_revoked_mac_is_not_heard_and_not_trusted_until_an_operator_restores_it(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let mac = scene.honest_mac();
        let delivered = scene.deliver_for(&mac.serial()).await;
        mac.install_profile(&delivered.profile).await.expect("enrols");
        let life = mac.live();
        let serial = mac.serial();
        let before = scene.api.verdict(&serial, "affirming").await;
        drop(life);
        let device_id = scene.api.device_id(&serial).await;
        let operator = operator(&scene);

        // Only an operator may, and only as it is meant.
        for role in ["coordinator", "auditor", "viewer"] {
            let api = scene.api.with_token(scene.token(role));
            assert_eq!(ask(&api, &device_id, "revoke", "").await.0, 403, "{role}");
        }
        assert_eq!(ask(&operator, &device_id, "revoke", "{\"why\":1}").await.0, 400);
        let nobody = "dev_01J8ZZZZZZZZZZZZZZZZZZZZZZ";
        assert_eq!(ask(&operator, nobody, "revoke", "").await.0, 404);
        assert_eq!(heard(&mac).await, accepted());

        let (status, done) = ask(&operator, &device_id, "revoke", "{\"reason\":\"sold\"}").await;
        assert_eq!(status, 200);
        assert_eq!(done, json!({
            "device_id": device_id, "changed": true, "revocation_epoch": 1,
            "identities_withdrawn": 1, "verdict": "contraindicated",
        }));
        let posture = scene.api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("revoked")));
        assert!(posture["revision"].as_u64() > before["revision"].as_u64());
        assert_eq!(heard(&mac).await, refused("revoked"));
        let update = token_update(&mac.spec(), scene.world.topic(), &[1; 32], "magic");
        assert_eq!(told(mac.check_in(&update, Signing::Own).await), refused("revoked"));
        let device = scene.api.device(&serial).await.expect("a device");
        assert_eq!(device["identity"]["state"], "revoked");
        let step = scene.step(&delivered.progress_id, "identity").await;
        assert_eq!((&step["standing"], &step["reason"]), (&json!("refused"), &json!("revoked")));
        let (_, again) = ask(&operator, &device_id, "revoke", "").await;
        assert_eq!((&again["changed"], &again["revocation_epoch"]), (&json!(false), &json!(1)));

        // A new enrollment is heard, and is the same Mac.
        mac.enroll(&scene.base_url).await.expect("enrols");
        let life = mac.live();
        eventually("it takes its place", || async {
            scene.api.device(&serial).await.expect("a device")["identity"]["state"] == "valid"
        }).await;
        let posture = scene.api.posture(&serial).await;
        assert_eq!(posture["device_id"], device_id.as_str());
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("revoked")));

        let (status, restored) = ask(&operator, &device_id, "restore", "").await;
        assert_eq!((status, &restored["changed"], &restored["revocation_epoch"]), (200, &json!(true), &json!(2)));
        scene.api.verdict(&serial, "affirming").await;
        let (_, again) = ask(&operator, &device_id, "restore", "").await;
        assert_eq!((&again["changed"], &again["revocation_epoch"]), (&json!(false), &json!(2)));
        drop(life);
        let events = scene.kept(&mac).await.events;
        let told: Vec<_> = events.iter().map(|one| &one.event)
            .filter(|event| ["device.revoked", "device.restored"].contains(&event.name.as_str()))
            .map(|event| (event.name.as_str(), &event.body["revocation_epoch"], &event.body["note"]))
            .collect();
        assert_eq!(told, [
            ("device.revoked", &json!(1), &json!("sold")),
            ("device.restored", &json!(2), &json!("")),
        ]);
    }
}

journey! {
    async fn the_command_revokes_where_it_may_and_says_what_to_do_where_not(backend: Backend) {
        let mut scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);
        let config = scene.config().to_str().expect("a path").to_owned();
        let run = |verb: &str, name: &str| {
            attestd(&["device", verb, name, "--config", &config, "--insecure-http", "--json", "--reason", "lost"])
        };
        let unknown = run("revoke", "C02NOBODY000");
        assert!(!unknown.status.success());
        if backend == Kind::Sqlite {
            let beside = run("revoke", &serial);
            let fault = String::from_utf8_lossy(&beside.stderr).into_owned();
            assert!(!beside.status.success() && fault.contains("operator's"), "{fault}");
            assert_eq!(heard(&mac).await, accepted());
            scene.stop().await;
        }
        let done = run("revoke", &serial);
        assert!(done.status.success(), "{done:?}");
        let shown: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!((&shown["changed"], &shown["verdict"]), (&json!(true), &json!("contraindicated")));
        if backend == Kind::Sqlite {
            scene.start().await;
        }
        assert_eq!(heard(&mac).await, refused("revoked"));
        // On PostgreSQL the server hears of it a few times a second.
        eventually("the server says so", || async {
            scene.api.posture(&serial).await["reasons"][0] == "revoked"
        }).await;
    }
}
