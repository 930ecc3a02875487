//! The yearly push certificate is renewed, tried by some Macs, used for all, and taken back
//! (apple-protocol 9.4).

use std::time::Duration;

use attestd::flows::rotate_push_certificate::take_into_use;
use attestd_sim::apns::PushCertificate;
use attestd_sim::certs::fingerprint;
use attestd_sim::{Mac, MacSpec};
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::push_officer::{
    LATER, PushOfficer, Said, pushes_to, quiet_mac, takes_into_use, was_pushed_by,
};
use crate::harness::scene::{Backend, Scene, attestd};

const MINUTE: Duration = Duration::from_secs(60);

/// Nothing here times out, and no push is put off for the budget.
const PATIENT: &str = "[verification]\npatience = \"10d\"\npushes_per_hour = 60\n";

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// Somebody asks the Mac something: it is pushed once, by this certificate, and comes.
async fn is_pushed_by(scene: &Scene, mac: &Mac, certificate: &PushCertificate) {
    let name = fingerprint(&certificate.identity.certificate).expect("a name");
    takes_into_use(scene, certificate).await;
    scene.pass(LATER);
    let before = pushes_to(scene, mac).len();
    scene.api.verify(&mac.serial(), &["security_info"]).await;
    eventually("a push", async || pushes_to(scene, mac).len() > before).await;
    let seen = pushes_to(scene, mac);
    let how: Vec<_> = seen[before..]
        .iter()
        .map(|push| (push.certificate.clone(), push.status))
        .collect();
    assert_eq!(how, [(name, 200)]);
    mac.connect().await.expect("a session");
}

journey! {
    async fn a_renewed_certificate_is_tried_by_a_mac_used_for_all_and_taken_back(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let (tester, _life) = scene.living_mac(spec()).await;
        let other = quiet_mac(&scene).await;
        let (former, renewed) = (scene.world.push_certificate().clone(), officer.renewed());

        let said = officer.installs(&renewed, &["--apple-account", "officer@example.org"]).await.json();
        assert_eq!((&said["state"], &said["active"]), (&json!("staged"), &json!(false)));
        let id = said["push_certificate_id"].as_str().expect("an id").to_owned();
        officer.says(&["activate", &id]).await.refused(&["no Mac has tried it", "push-cert canary"]);
        is_pushed_by(&scene, &other, &former).await;
        assert!(!was_pushed_by(&scene, &other, &renewed));

        // One Mac tries it; the others are pushed as before.
        scene.pass(MINUTE);
        let serial = tester.serial();
        let tried = officer.says(&["canary", &id, "--device", &serial, "--json"]).await.json();
        assert_eq!((&tried["came"], &tried["canaries"][0]["state"]), (&json!(1), &json!("came")));
        assert!(was_pushed_by(&scene, &tester, &renewed));
        assert_eq!(officer.sees(&id).await["state"], "canary");
        is_pushed_by(&scene, &other, &former).await;
        assert!(!was_pushed_by(&scene, &other, &renewed));

        // All are pushed by it, without a restart, and on the other node too.
        let second = match backend {
            Backend::PostgreSql => Some(scene.second_node().await),
            Backend::Sqlite => None,
        };
        let said = officer.says(&["activate", &id, "--json"]).await.json();
        assert_eq!((&said["state"], &said["apple_account"]), (&json!("active"), &json!("officer@example.org")));
        is_pushed_by(&scene, &other, &renewed).await;
        if let Some(second) = second {
            let before = second.apns.state()[0].certificate;
            take_into_use(&second, 1).await.expect("follows");
            assert_ne!(second.apns.state()[0].certificate, before);
        }
        officer.says(&["activate", &id]).await.refused(&["in use already"]);

        // And back: what was new is to be tried again.
        let back = officer.says(&["rollback", "--json"]).await.json();
        assert_ne!(back["push_certificate_id"], id.as_str());
        is_pushed_by(&scene, &other, &former).await;
        let staged = officer.sees(&id).await;
        assert_eq!((&staged["state"], &staged["canaries"]), (&json!("staged"), &json!([])));
        officer.says(&["activate", &id]).await.refused(&["no Mac has tried it"]);
        officer.says(&["rollback"]).await.refused(&["the first of its topic"]);
    }
}

journey! {
    async fn a_mac_that_sleeps_keeps_the_certificate_from_all_until_it_comes(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let (_tester, _life) = scene.living_mac(spec()).await;
        let sleeper = quiet_mac(&scene).await;
        let renewed = officer.renewed();
        let id = officer.has_installed(&renewed, &[]).await;
        scene.pass(MINUTE);
        let (serial, device) = (sleeper.serial(), scene.device_id(&sleeper).await);
        let tried = officer.says(&["canary", &id, "--device", &serial, "--wait", "4", "--json"]).await;
        tried.refused(&["0 of 1 Macs came"]);
        eventually("it was pushed", async || was_pushed_by(&scene, &sleeper, &renewed)).await;
        eventually("that is noted", async || {
            officer.sees(&id).await["canaries"][0]["state"] == "sent"
        }).await;
        officer.says(&["activate", &id]).await.refused(&["have come", device.as_str(), "--without-canary"]);

        // It wakes up, and nobody waits at a terminal.
        scene.pass(MINUTE);
        sleeper.connect().await.expect("a session");
        eventually("the server notes it", async || {
            officer.sees(&id).await["canaries"][0]["state"] == "came"
        }).await;
        assert!(officer.says(&["activate", &id]).await.text().contains("is in use"));
        assert_eq!(officer.sees(&id).await["untried_because"], json!(null));
    }
}

journey! {
    async fn who_cannot_wait_for_a_mac_says_why(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let id = officer.has_installed(&officer.renewed(), &[]).await;
        let reason = ["activate", &id, "--without-canary", "the old one was revoked"];
        let said = officer.says(&[&reason[..], &["--json"]].concat()).await.json();
        assert_eq!((&said["state"], &said["untried_because"]), (&json!("active"), &json!("the old one was revoked")));
        let list = officer.says(&["list", "--json"]).await.json();
        let states: Vec<_> = list["push_certificates"].as_array().expect("a list").iter()
            .map(|one| one["state"].clone()).collect();
        assert_eq!(states, [json!("active"), json!("retired")]);
        let shown = officer.says(&["show", &id]).await.text();
        assert!(shown.contains("the old one was revoked") && shown.contains(scene.world.topic()), "{shown}");
    }
}

journey! {
    async fn a_certificate_that_apns_refuses_is_found_out_by_one_mac_and_harms_nobody(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let mac = quiet_mac(&scene).await;
        let renewed = officer.renewed();
        scene.world.apns().revoke(&renewed.identity.certificate).expect("revoked");
        let id = officer.has_installed(&renewed, &[]).await;
        scene.pass(MINUTE);
        let serial = mac.serial();
        let tried = officer.says(&["canary", &id, "--device", &serial, "--json"]).await;
        let canary = &tried.json_of_failure()["canaries"][0];
        assert_eq!((&canary["state"], &canary["outcome"]), (&json!("refused"), &json!("certificate_fault")));
        officer.says(&["activate", &id]).await.refused(&["have come"]);
        // The one in use is not held back for it, and the Mac is not blamed.
        let status = scene.api.json("/internal/v1/status").await;
        assert_eq!(status["apns"][0]["on_hold_until"], json!(null));
        let device = scene.api.device(&serial).await.expect("a device");
        assert_eq!(device["push"]["state"], "ok");
        is_pushed_by(&scene, &mac, scene.world.push_certificate()).await;
    }
}

journey! {
    async fn only_macs_of_its_topic_try_a_certificate(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let mac = quiet_mac(&scene).await;
        let id = officer.has_installed(&officer.renewed(), &[]).await;
        let topic = "com.apple.mgmt.External.00000000-0000-4000-8000-000000000000";
        let other = officer.has_installed(&officer.issued_for(topic, 12), &["--new-fleet"]).await;
        let next = officer.has_installed(&officer.issued_for(topic, 6), &[]).await;
        let serial = mac.serial();
        for (certificate, device, words) in [
            (&next, serial.as_str(), &["is enrolled under topic", scene.world.topic()][..]),
            (&other, serial.as_str(), &["in use already"]),
            (&id, "C02NOBODY000", &["no Mac has the serial number"]),
            (&id, "dev_01J8ZQ4Z0000000000000000AB", &["is not enrolled"]),
        ] {
            let tried = ["canary", certificate, "--device", device, "--wait", "0"];
            officer.says(&tried).await.refused(words);
        }
        let nobody = "psh_01J8ZQ4Z0000000000000000AB";
        officer.says(&["activate", nobody]).await.refused(&["there is no push certificate"]);
    }
}

journey! {
    async fn another_topic_is_a_fleet_of_its_own_or_nothing(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let old = quiet_mac(&scene).await;
        let fleet = scene.world.topic().to_owned();
        let topic = "com.apple.mgmt.External.00000000-0000-4000-8000-000000000000";
        let other = officer.issued_for(topic, 10);
        officer.installs(&other, &[]).await.refused(&[topic, &fleet, "1 Macs", "--new-fleet"]);
        officer.installs(&officer.renewed(), &["--new-fleet"]).await.refused(&["is not: install it without"]);

        // Meant so: new Macs enrol under it, those that are there stay where they are.
        assert_eq!(officer.installs(&other, &["--new-fleet"]).await.json()["state"], "active");
        let new = quiet_mac(&scene).await;
        assert_eq!(new.profile().expect("a profile").mdm.topic, topic);
        assert_eq!(old.profile().expect("a profile").mdm.topic, fleet);
        is_pushed_by(&scene, &new, &other).await;
        is_pushed_by(&scene, &old, scene.world.push_certificate()).await;

        // Each is renewed for itself, and that changes nothing about who enrols where.
        officer.says(&["rollback"]).await.refused(&["several topics", topic, &fleet]);
        let id = officer.has_installed(&officer.renewed(), &[]).await;
        officer.says(&["activate", &id, "--without-canary", "a test"]).await;
        officer.says(&["rollback", "--topic", topic]).await.refused(&["the first of its topic"]);
        assert_eq!(officer.says(&["rollback", "--topic", &fleet, "--json"]).await.json()["topic"], fleet.as_str());
        let newest = quiet_mac(&scene).await;
        assert_eq!(newest.profile().expect("a profile").mdm.topic, topic);
        let third = officer.issued_for("com.apple.mgmt.External.third", 12);
        officer.installs(&third, &[]).await.refused(&[topic, &fleet, "3 Macs"]);
    }
}

journey! {
    async fn no_push_is_lost_while_certificates_change(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let mut macs = Vec::new();
        for _ in 0..6 {
            macs.push(quiet_mac(&scene).await);
        }
        let renewed = officer.renewed();
        let id = officer.has_installed(&renewed, &[]).await;
        scene.pass(LATER);
        scene.world.apns().add_latency(Duration::from_millis(400));
        for mac in &macs[..3] {
            scene.api.verify(&mac.serial(), &["security_info"]).await;
        }
        // Under way when the certificate changes, and after.
        officer.says(&["activate", &id, "--without-canary", "a test", "--json"]).await.json();
        for mac in &macs[3..] {
            scene.api.verify(&mac.serial(), &["security_info"]).await;
        }
        for mac in &macs {
            eventually("each is pushed", async || pushes_to(&scene, mac).len() >= 2).await;
            let seen: Vec<_> = pushes_to(&scene, mac).iter().map(|push| push.status).collect();
            assert_eq!(seen, [200, 200]);
        }
        macs[0].connect().await.expect("a session");
        is_pushed_by(&scene, &macs[0], &renewed).await;
    }
}

#[test]
fn where_pushes_go_to_apple_only_a_certificate_of_apples_is_installed() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let folder = folder.to_str().expect("UTF-8");
    let init = ["init", folder, "--base-url", "https://mdm.example.org"];
    assert!(attestd(&init).status.success());
    let config = format!("{folder}/attestd.toml");
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/apns/sim-push-certificate.pem"
    );
    let install = ["push-cert", "install", "--config", &config];
    let said = attestd(&[&install[..], &["--certificate", file]].concat());
    Said::of(said).refused(&["SIMULATED Push CA", "not by Apple", "identity.apple.com"]);
}
