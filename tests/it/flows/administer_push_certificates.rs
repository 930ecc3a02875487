//! An officer looks after the yearly push certificate by the internal API, with a token that is good for nothing
//! else, and no private key goes over the wire (apple-protocol 9.4).

use std::time::Duration;

use attestd_sim::MacSpec;
use attestd_sim::apns::{Portal, PushCertificate};
use attestd_sim::certs::Identity;
use reqwest::Method;
use serde_json::{Value, json};

use super::request_push_certificate::Vendor;
use crate::harness::inside::eventually;
use crate::harness::internal_api::InternalApi;
use crate::harness::push_officer::{
    PushOfficer, pushes_to, quiet_mac, takes_into_use, was_pushed_by,
};
use crate::harness::scene::{Scene, attestd};

pub(super) const ALL: &str = "/internal/v1/push-certificates";
const NOBODY: &str = "psh_01J8ZQ4Z0000000000000000AB";
const NOTHING: &str = "psr_01J8ZQ4Z0000000000000000AB";
const PATIENT: &str = "[verification]\npatience = \"10d\"\npushes_per_hour = 60\n";
const MINUTE: Duration = Duration::from_secs(60);

/// The status, and what was answered.
pub(super) async fn posts(api: &InternalApi, path: &str, body: Value) -> (u16, Value) {
    let request = api.request(Method::POST, &format!("{ALL}{path}"));
    let answer = request.json(&body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("text");
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// It must be refused, for this reason.
pub(super) async fn is_refused(api: &InternalApi, path: &str, body: Value, refusal: &str) {
    let (status, problem) = posts(api, path, body).await;
    assert_eq!(
        (status, &problem["type"], &problem["refusal"]),
        (
            409,
            &json!("/problems/push-certificate-refused"),
            &json!(refusal)
        ),
        "{path}: {problem}"
    );
}

/// What was done to it, by whom, the first first.
pub(super) fn told(scene: &Scene, subject: &str) -> Vec<Value> {
    let config = scene.config().to_str().expect("UTF-8");
    let listed = attestd(&[
        "audit",
        "list",
        "--json",
        "--subject",
        subject,
        "--insecure-http",
        "--config",
        config,
    ]);
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let entries = listed["entries"].as_array().expect("entries");
    entries.iter().map(|it| it["entry"].clone()).collect()
}

pub(super) fn words(entries: &[Value]) -> Vec<&str> {
    entries
        .iter()
        .map(|it| it["what"].as_str().expect("a word"))
        .collect()
}

/// What the portal makes of a request, for the fleet of the scene.
fn issued(scene: &Scene, vendor: &Vendor, csr: &str, hours_ago: i64) -> PushCertificate {
    let upload = vendor.signs(&PushOfficer(scene), csr).text();
    let portal = Portal {
        authority: scene.world.push_authority(),
        vendors: &vendor.root.identity.certificate,
    };
    let from = scene.now().millis() - hours_ago * 60 * 60 * 1000;
    let certificate = portal
        .issue(&upload, scene.world.topic(), from)
        .expect("issues");
    PushCertificate {
        topic: scene.world.topic().to_owned(),
        // Only its certificate is asked for.
        identity: Identity {
            key: vendor.identity.key.clone(),
            certificate,
        },
    }
}

fn pem(certificate: &PushCertificate) -> String {
    let pem = certificate.identity.certificate.to_pem().expect("PEM");
    String::from_utf8(pem).expect("text")
}

journey! {
    async fn an_officer_renews_the_certificate_with_a_token_and_without_a_key(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let api = scene.api.with_token(scene.token("push_cert_officer"));
        let (tester, _life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let other = quiet_mac(&scene).await;

        let (status, request) = posts(&api, "/requests", json!({ "apple_account": "officer@example.org" })).await;
        let csr = request["csr"].as_str().expect("a request");
        assert!(status == 201 && csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{request}");
        let vendor = Vendor::new(&scene, "MDM Vendor: Simulated");
        let renewed = issued(&scene, &vendor, csr, 12);
        let (status, staged) = posts(&api, "", json!({ "certificate": pem(&renewed) })).await;
        assert_eq!((status, &staged["state"], &staged["apple_account"]),
            (201, &json!("staged"), &json!("officer@example.org")), "{staged}");
        let id = staged["push_certificate_id"].as_str().expect("an id").to_owned();

        is_refused(&api, &format!("/{id}/activate"), json!({}), "not_tried").await;
        scene.pass(MINUTE);
        let (status, tried) = posts(&api, &format!("/{id}/canary"), json!({ "devices": [tester.serial()] })).await;
        assert_eq!((status, &tried["canaries"][0]["state"]), (202, &json!("waiting")), "{tried}");
        eventually("the Mac came", async || {
            api.json(&format!("{ALL}/{id}")).await["canaries"][0]["state"] == "came"
        }).await;
        assert!(was_pushed_by(&scene, &tester, &renewed) && !was_pushed_by(&scene, &other, &renewed));
        let (status, taken) = posts(&api, &format!("/{id}/activate"), json!({})).await;
        assert_eq!((status, &taken["state"], &taken["active"]), (200, &json!("active"), &json!(true)));
        is_refused(&api, &format!("/{id}/activate"), json!({}), "active").await;
        is_refused(&api, &format!("/{id}/discard"), json!({}), "active").await;
        let before = pushes_to(&scene, &other).len();
        scene.pass(60 * MINUTE);
        scene.api.verify(&other.serial(), &["security_info"]).await;
        eventually("a push", async || pushes_to(&scene, &other).len() > before).await;

        let (status, back) = posts(&api, "/rollback", json!({})).await;
        let former = back["push_certificate_id"].as_str().expect("an id").to_owned();
        assert!(status == 200 && former != id, "{back}");
        is_refused(&api, "/rollback", json!({}), "no_former").await;
        let listed = api.json(ALL).await;
        let states: Vec<_> = listed["push_certificates"].as_array().expect("a list").iter()
            .map(|one| one["state"].as_str().expect("a state")).collect();
        assert_eq!((states, &listed["requests"]), (vec!["active", "staged"], &json!([])));

        // Who did it, in the audit log: the officer's token.
        let of_renewed = told(&scene, &id);
        assert_eq!(words(&of_renewed), ["push_certificate.install", "push_certificate.canary", "push_certificate.activate"]);
        let macs = &of_renewed[1]["after"]["macs"];
        assert_eq!((macs, &of_renewed[2]["before"]["in_use"]), (&json!([scene.device_id(&tester).await]), &json!(former)));
        let back = told(&scene, &former).pop().expect("an entry");
        assert_eq!((&back["what"], &back["before"]["in_use"]), (&json!("push_certificate.rollback"), &json!(id)));
        for entry in of_renewed.iter().chain([&back]) {
            assert_eq!(entry["who"]["kind"], "token");
        }
    }
}

journey! {
    async fn what_is_not_wanted_is_thrown_away_with_its_key_and_changes_go_on(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let api = scene.api.with_token(scene.token("push_cert_officer"));
        let id = officer.has_installed(&officer.renewed(), &[]).await;
        let generation = async || {
            let tx = scene.ctx().store.read().await.expect("read");
            tx.push_certificate_generation().await.expect("read")
        };
        let before = generation().await;
        let (status, _) = posts(&api, &format!("/{id}/discard"), json!({ "reason": "issued for a test" })).await;
        assert_eq!(status, 204);
        assert_eq!(api.get(&format!("{ALL}/{id}")).await.status().as_u16(), 404);
        // Nodes that looked since see every further change.
        assert!(generation().await > before);
        let discarded = told(&scene, &id).pop().expect("an entry");
        assert_eq!((&discarded["what"], &discarded["why"], &discarded["before"]["standing"]),
            (&json!("push_certificate.discard"), &json!("issued for a test"), &json!("staged")));

        let next = officer.issued_for(scene.world.topic(), 6);
        let next_id = officer.has_installed(&next, &[]).await;
        officer.says(&["activate", &next_id, "--without-canary", "a test", "--json"]).await.json();
        takes_into_use(&scene, &next).await;
        let mac = quiet_mac(&scene).await;
        assert!(was_pushed_by(&scene, &mac, &next));
        // The one that was in use is the way back.
        let listed = api.json(ALL).await;
        let retired = listed["push_certificates"].as_array().expect("a list").iter().find(|one| one["state"] == "retired");
        let retired = retired.expect("the former one")["push_certificate_id"].as_str().expect("an id").to_owned();
        is_refused(&api, &format!("/{retired}/discard"), json!({}), "retired").await;
        officer.says(&["discard", &retired]).await.refused(&["the way back"]);
        officer.says(&["discard", &next_id]).await.refused(&["take another into use"]);
        officer.says(&["discard", NOBODY]).await.refused(&["there is no push certificate"]);

        // The same on the command line, and of requests.
        let other = officer.has_installed(&officer.issued_for(scene.world.topic(), 2), &[]).await;
        let said = officer.says(&["discard", &other, "--reason", "twice", "--json"]).await.json();
        assert_eq!(said["discarded"], other.as_str());
        officer.says(&["show", &other]).await.refused(&["there is no push certificate"]);
        officer.says(&["request"]).await;
        let open = api.json(ALL).await["requests"][0]["push_request_id"].as_str().expect("a request").to_owned();
        officer.says(&["discard", &open]).await;
        assert_eq!(api.json(ALL).await["requests"], json!([]));
        officer.says(&["discard", &open]).await.refused(&["no open request"]);
        let (_, request) = posts(&api, "/requests", json!({})).await;
        let open = request["push_request_id"].as_str().expect("an id").to_owned();
        assert_eq!(posts(&api, &format!("/requests/{open}/discard"), json!({})).await.0, 204);
        assert_eq!(posts(&api, &format!("/requests/{open}/discard"), json!({})).await.0, 404);
        assert_eq!(words(&told(&scene, &open)), ["push_certificate.request", "push_certificate.discard"]);
    }
}

journey! {
    async fn only_an_officer_changes_push_certificates_and_an_officer_nothing_else(backend: Backend) {
        let scene = Scene::new(backend).await;
        let changes = ["", "/requests", "/rollback", &format!("/{NOBODY}/canary"), &format!("/{NOBODY}/activate"),
            &format!("/{NOBODY}/discard"), &format!("/requests/{NOTHING}/discard")];
        for (role, reads) in [("viewer", 200), ("auditor", 200), ("operator", 200), ("coordinator", 403)] {
            let api = scene.api.with_token(scene.token(role));
            assert_eq!(api.get(ALL).await.status().as_u16(), reads, "{role}");
            let id = scene.api.with_token(scene.token("viewer")).json(ALL).await["push_certificates"][0]["push_certificate_id"]
                .as_str().expect("an id").to_owned();
            assert_eq!(api.get(&format!("{ALL}/{id}")).await.status().as_u16(), reads, "{role}");
            for change in changes {
                let (status, problem) = posts(&api, change, json!({})).await;
                assert_eq!((status, &problem["detail"]), (403, &json!("it takes the role push_cert_officer")), "{role} {change}");
            }
        }
        let nobody = scene.api.with_token("att_nobody".to_owned());
        assert_eq!(nobody.get(ALL).await.status().as_u16(), 401);
        assert_eq!(posts(&nobody, "/rollback", json!({})).await.0, 401);
        let officer = scene.api.with_token(scene.token("push_cert_officer"));
        for path in ["/internal/v1/devices?serial_number=C02XXXXXXXXX", "/internal/v1/audit", "/internal/v1/postures"] {
            assert_eq!(officer.get(path).await.status().as_u16(), 403, "{path}");
        }
        assert!(officer.get("/internal/v1/status").await.status().is_success());
        let ticket = officer.request(Method::POST, "/internal/v1/tickets").send().await.expect("an answer");
        assert_eq!(ticket.status().as_u16(), 403);
    }
}

journey! {
    async fn what_may_not_be_done_with_a_push_certificate_is_refused_with_a_reason_that_stays(backend: Backend) {
        let scene = Scene::configured(backend, PATIENT).await;
        let officer = PushOfficer(&scene);
        let api = scene.api.with_token(scene.token("push_cert_officer"));
        let renewed = officer.renewed();
        let key = String::from_utf8(renewed.identity.key_pem().expect("PEM")).expect("text");
        is_refused(&api, "", json!({ "certificate": pem(&renewed) + &key }), "private_key_sent").await;
        is_refused(&api, "", json!({ "certificate": pem(&renewed) }), "not_requested_here").await;
        is_refused(&api, "", json!({ "certificate": "none" }), "no_certificate").await;
        let vendor = Vendor::new(&scene, "MDM Vendor: Simulated");
        let (_, request) = posts(&api, "/requests", json!({})).await;
        let late = issued(&scene, &vendor, request["csr"].as_str().expect("a request"), 40);
        is_refused(&api, "", json!({ "certificate": pem(&late) }), "no_longer_valid_than_present").await;

        let id = officer.has_installed(&renewed, &[]).await;
        let tried = |devices: Value| json!({ "devices": devices });
        for (devices, refusal) in [
            (json!([]), "how_many"),
            (json!(vec!["C02NOBODY000"; 101]), "how_many"),
            (json!(["C02NOBODY000"]), "no_such_mac"),
            (json!(["no name at all"]), "no_such_mac"),
            (json!(["dev_01J8ZQ4Z0000000000000000AB"]), "not_enrolled"),
        ] {
            is_refused(&api, &format!("/{id}/canary"), tried(devices), refusal).await;
        }
        is_refused(&api, "/rollback", json!({}), "no_former").await;
        is_refused(&api, "/rollback", json!({ "topic": "com.apple.mgmt.External.other" }), "nothing_active").await;
        for (path, body) in [("/canary", tried(json!(["C02NOBODY000"]))), ("/activate", json!({})), ("/discard", json!({}))] {
            for nobody in [NOBODY, "x"] {
                let (status, problem) = posts(&api, &format!("/{nobody}{path}"), body.clone()).await;
                let expected = if (nobody, path) == (NOBODY, "/canary") { 409 } else { 404 };
                assert_eq!(status, expected, "{nobody}{path} {problem}");
            }
        }
        for (path, body) in [
            ("", json!({})), ("", json!([])), ("/requests", json!({ "common_name": "x".repeat(65) })),
            ("/requests", json!({ "more": 1 })), (&format!("/{id}/activate"), json!({ "without_canary": "a\nb" })),
            (&format!("/{id}/canary"), json!({})), ("/rollback", json!({ "topic": "" })),
        ] {
            assert_eq!(posts(&api, path, body.clone()).await.0, 400, "{path} {body}");
        }
        let large = json!({ "certificate": "x".repeat(70_000) });
        assert_eq!(posts(&api, "", large).await.0, 413);
    }
}
