//! The thirteen end-to-end cases of NanoMDM's `test/e2e`, restated over HTTP for a service that
//! can only ask, and the cases that are missing there.
//!
//! Where that suite enqueues commands of any kind, the two questions of this service stand for
//! them: SecurityInfo first, then the attestation.

use std::process::Output;
use std::time::Duration;

use attestd_sim::certs::fingerprint;
use attestd_sim::cms::SignatureStyle;
use attestd_sim::mac::messages::{authenticate, check_out, set_bootstrap_token, token_update};
use attestd_sim::mac::security_info;
use attestd_sim::{MacSpec, Signing};
use serde_json::{Value as Json, json};

use super::{pushes, silent_mac};
use crate::flows::check_in::{Newcomer, bare};
use crate::harness::inside::eventually;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::{Scene, attestd};
use crate::harness::talk::{acknowledgment, answer, idle, report};

const RIGHTS: i64 = 1041;
const DAY: Duration = Duration::from_secs(86_400);

journey! {
    /// 1, pushcert: a renewed pair is stored and read back while the server runs. Different: it comes
    /// into use when an operator says so, and the pair that is here is refused.
    async fn case_1_a_push_certificate_is_stored_and_read_back(backend: Backend) {
        let scene = Scene::new(backend).await;
        let topic = scene.world.topic();
        let from = scene.now().millis() - 43_200_000;
        let renewed = scene.world.push_authority().issue(topic, from).expect("issues");
        let write = |name: &str, bytes: Vec<u8>| {
            let path = scene.home.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            path.to_str().expect("UTF-8").to_owned()
        };
        let certificate = write("renewed.pem", renewed.identity.certificate_pem().expect("PEM"));
        let key = write("renewed.key", renewed.identity.key_pem().expect("PEM"));
        let config = scene.config().to_str().expect("UTF-8");
        let push_cert = |arguments: &[&str]| -> Output {
            let common = ["--insecure-http", "--json", "--config", config];
            attestd(&[&["push-cert"], arguments, &common[..]].concat())
        };
        let files = ["install", "--certificate", &certificate, "--key", &key];
        let installed = push_cert(&files);
        assert!(installed.status.success());
        let installed: Json = serde_json::from_slice(&installed.stdout).expect("JSON");
        assert_eq!(installed["state"], "staged");
        let id = installed["push_certificate_id"].as_str().expect("an id");
        assert!(push_cert(&["activate", id, "--without-canary", "a test"]).status.success());
        let status = push_cert(&["status"]);
        let status: Json = serde_json::from_slice(&status.stdout).expect("JSON");
        let list = status["push_certificates"].as_array().expect("a list");
        let active: Vec<_> = list.iter().filter(|one| one["active"] == true).collect();
        let hash = fingerprint(&renewed.identity.certificate).expect("a hash");
        assert_eq!(active.len(), 1);
        let shown = active[0]["sha256"].as_str().expect("a hash");
        assert_eq!(shown.replace(':', "").to_lowercase(), hash.replace(':', "").to_lowercase());
        assert!(!push_cert(&files).status.success());
    }
}

journey! {
    /// 2, certauth, and 3, certauth-retro: an identity is bound at Authenticate and never later. The
    /// retroactive binding of case 3 is refused by design: any identity could take any UDID.
    async fn case_2_and_3_an_identity_is_bound_at_authenticate_only(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let mac = Newcomer::new(&scene).await;
        let (spec, topic) = (mac.spec(), scene.world.topic());
        let update = token_update(&spec, topic, &[7; 32], "magic");
        for _ in 0..2 {
            assert_eq!(mac.says(&scene, &update).await, refused("not_enrolled"));
        }
        mac.joins(&scene, &[7; 32]).await;
        // Another identity of ours, for the same Mac.
        let swapped = Newcomer::with(scene.mac(spec.clone()), scene.deliver_for(&spec.serial).await).await;
        for _ in 0..2 {
            assert_eq!(swapped.says(&scene, &update).await, refused("not_enrolled"));
        }
        assert_eq!(mac.says(&scene, &update).await, accepted());
    }
}

journey! {
    /// 4, invalid-pushinfo: what is not known is an empty result or a plain "not found".
    async fn case_4_an_unknown_mac_is_no_fault(backend: Backend) {
        let scene = Scene::new(backend).await;
        assert_eq!(scene.api.device("C02XL3FHJG5J").await, None);
        let answer = scene.api.get("/internal/v1/devices/INVALID").await;
        assert_eq!(answer.status().as_u16(), 404);
    }
}

journey! {
    /// 5, enroll: one address, with the topic, token and magic that were sent.
    async fn case_5_the_address_is_the_one_that_was_sent(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        mac.joins(&scene, &[8; 32]).await;
        eventually("a push", async || !scene.world.apns().seen().is_empty()).await;
        let seen = scene.world.apns().seen();
        assert_eq!(seen.len(), scene.world.apns().seen_for(&[8; 32]).len());
        let payload: Json = serde_json::from_slice(&seen[0].body).expect("JSON");
        assert_eq!(payload, json!({ "mdm": "magic" }));
        assert_eq!(seen[0].headers["apns-topic"], scene.world.topic());
    }
}

journey! {
    /// 6, tally, which counts TokenUpdates: there is no such counter. A second one enrols nobody a
    /// second time.
    async fn case_6_a_second_token_update_is_no_second_enrollment(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let enrolled = async || {
            let events = scene.kept(&mac).await.events;
            events.iter().filter(|event| event.event.name == "device.enrolled").count()
        };
        assert_eq!(enrolled().await, 1);
        let (token, magic) = mac.push_address().expect("an address");
        let update = token_update(&mac.spec(), scene.world.topic(), &token, &magic);
        assert_eq!(told(mac.check_in(&update, Signing::Own).await), accepted());
        assert_eq!(enrolled().await, 1);
    }
}

journey! {
    /// 7, bstoken, and 8, re-enroll: the token comes back as it was set, and a new enrollment begins
    /// without one, and without what was asked before.
    async fn case_7_and_8_a_new_enrollment_begins_clean(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        for token in [&[7; 32], &[8; 32]] {
            mac.joins(&scene, token).await;
            assert_eq!(mac.bootstrap_token(&scene).await, None);
            let escrow = set_bootstrap_token(&mac.spec(), b"hello world");
            assert_eq!(mac.says(&scene, &escrow).await, accepted());
            let kept = mac.bootstrap_token(&scene).await;
            assert_eq!(kept.as_deref(), Some(&b"hello world"[..]));
        }
    }
}

journey! {
    /// 9, clear-queue, and 12, queue/clear: nothing here clears a queue but Authenticate and
    /// CheckOut, and they do.
    async fn case_9_and_12_a_queue_is_cleared_by_joining_and_leaving(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let mac = silent_mac(&scene).await;
        let asked = idle(&mac).await.expect("a command");
        let hello = authenticate(&mac.spec(), scene.world.topic(), RIGHTS);
        assert_eq!(told(mac.check_in(&hello, Signing::Own).await), accepted());
        assert_eq!(idle(&mac).await, None);
        assert_eq!(report(&mac, &asked).await, None);
        assert_eq!(scene.kept(&mac).await.evidence, []);

        let other = silent_mac(&scene).await;
        let asked = idle(&other).await.expect("a command");
        let goodbye = check_out(&other.spec(), scene.world.topic());
        assert_eq!(told(other.check_in(&goodbye, Signing::Own).await), accepted());
        assert_eq!(idle(&other).await, None);
        assert_eq!(report(&other, &asked).await, None);
        assert_eq!(scene.kept(&other).await.evidence, []);
    }
}

journey! {
    /// 10, queue/basic: each answer brings the next command, the last one nothing.
    async fn case_10_commands_come_in_order_one_at_a_time(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        mac.connect().await.expect("a session");
        assert_eq!(idle(&mac).await, None);
        // Apple makes another statement after seven days.
        scene.pass(Duration::from_secs(8 * 86_400));
        scene.api.verify(&mac.serial(), &["security_info", "mda"]).await;
        let first = idle(&mac).await.expect("the first");
        assert_eq!(first.kind, "SecurityInfo");
        let second = report(&mac, &first).await.expect("the second");
        assert_eq!(second.kind, "DeviceInformation");
        assert_eq!(answer(&mac, &second, "Acknowledged").await, None);
        assert_eq!(idle(&mac).await, None);
    }
}

journey! {
    /// 11, queue/notnow: an empty answer to NotNow, and the command at the next Idle.
    async fn case_11_not_now_is_answered_with_nothing(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        mac.connect().await.expect("a session");
        assert_eq!(idle(&mac).await, None);
        scene.pass(Duration::from_secs(120));
        scene.api.verify(&mac.serial(), &["security_info"]).await;
        let asked = idle(&mac).await.expect("a command");
        assert_eq!(answer(&mac, &asked, "NotNow").await, None);
        let again = idle(&mac).await.expect("a command");
        assert_eq!(again.kind, asked.kind);
        assert_eq!(report(&mac, &again).await, None);
        assert_eq!(idle(&mac).await, None);
    }
}

// Case 13, migrate, is refused: nothing here gives out what a Mac said at its enrollment.

journey! {
    /// Missing there: two devices of one serial number. Neither sees or answers what the other is
    /// asked.
    async fn two_macs_that_claim_one_serial_number_stay_two(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let first = silent_mac(&scene).await;
        let mut spec = MacSpec::random().expect("a Mac");
        spec.serial = first.serial();
        let twin = Newcomer::with(scene.mac(spec), scene.deliver("{}").await).await;
        twin.joins(&scene, &[2; 32]).await;
        let of_first = idle(&first).await.expect("a command");
        let lie = security_info(&twin.spec().with_sip_off());
        let lie = acknowledgment(&twin.mac, &of_first.uuid, "SecurityInfo", lie);
        let mut bytes = Vec::new();
        plist::Value::Dictionary(lie).to_writer_xml(&mut bytes).expect("written");
        let url = scene.url("/mdm/connect");
        let kind = "application/x-apple-aspen-mdm";
        let reply = twin.mac.signed_put(&url, kind, &bytes, Signing::By(&twin.identity)).await;
        assert_eq!(reply.expect("an answer").status, 200);
        assert_eq!(scene.refused("answer_unsolicited").await, 1);
        // The first is still asked, and believed of itself.
        assert!(report(&first, &of_first).await.is_some());
        let tx = scene.ctx().store.read().await.expect("a store");
        let udid = attestd::ids::Udid::parse(&first.udid()).expect("a UDID");
        let enrollment = tx.enrollment_by_udid(&udid).await.expect("read").expect("enrolled");
        let evidence = tx.evidence_of(&enrollment.device_id, 10).await.expect("read");
        assert_eq!(evidence.len(), 1);
        let udid = attestd::ids::Udid::parse(&twin.spec().udid).expect("a UDID");
        let enrollment = tx.enrollment_by_udid(&udid).await.expect("read").expect("enrolled");
        let evidence = tx.evidence_of(&enrollment.device_id, 10).await.expect("read");
        assert_eq!(evidence, []);
    }
}

journey! {
    /// Missing there: an expired identity, and clocks that differ. The time a Mac writes into its
    /// signature is not judged: its clock is its own, and its certificate is judged by ours.
    async fn a_clock_that_differs_keeps_nobody_out_and_an_expired_identity_does(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let identity = mac.identity().expect("an identity");
        let now = scene.now().millis() / 1000;
        let (token, magic) = mac.push_address().expect("an address");
        let update = token_update(&mac.spec(), scene.world.topic(), &token, &magic);
        for skew in [-3 * 86_400, -300, 0, 300, 3 * 86_400] {
            let style = SignatureStyle { signing_time: Some(now + skew), ..SignatureStyle::default() };
            let signing = Signing::ByInStyle(&identity, &style);
            assert_eq!(told(mac.check_in(&update, signing).await), accepted(), "{skew}");
        }
        scene.pass(6 * 365 * DAY);
        let answer = told(mac.check_in(&update, Signing::Own).await);
        assert_eq!(answer, refused("identity_expired"));
    }
}

journey! {
    /// Missing there: 3 MB, and an encoding the signature is not over.
    async fn what_is_too_large_or_encoded_is_refused(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let url = scene.url("/mdm/connect");
        let kind = "application/x-apple-aspen-mdm";
        let large = vec![b' '; 3 << 20];
        let reply = told(mac.signed_put(&url, kind, &large, Signing::Own).await);
        assert_eq!(reply, (413, "request_too_large".to_owned()));
        let request = scene.anybody(reqwest::Method::PUT, "/mdm/connect").header("content-type", kind);
        let request = request.header("mdm-signature", "AAAA").header("content-encoding", "gzip");
        let answer = scene.answer(request.body(vec![0x1f, 0x8b, 8, 0])).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "body_encoded"));
        // Encoded without saying so, it is no property list.
        let reply = told(mac.signed_put(&url, kind, &[0x1f, 0x8b, 8, 0], Signing::Own).await);
        assert_eq!(reply, refused("request_malformed"));
    }
}

journey! {
    /// Missing there, and lost by others: a question asked while the Mac is connected. None is lost,
    /// none is asked twice.
    async fn a_question_asked_while_the_mac_is_connected_is_not_lost(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        mac.connect().await.expect("a session");
        for _ in 0..10 {
            scene.pass(Duration::from_secs(120));
            let serial = mac.serial();
            let (asked, session, again) = tokio::join!(
                scene.api.verify(&serial, &["security_info"]),
                mac.connect(),
                scene.api.verify(&serial, &["security_info"]),
            );
            let during = session.expect("a session").answered;
            let after = mac.connect().await.expect("a session").answered;
            assert!((1..=2).contains(&(during + after)), "{during} {after}");
            assert_eq!(idle(&mac).await, None);
            for verification in [asked, again] {
                let verification_id = verification["verification_id"].as_str().expect("an id");
                let path = format!("/internal/v1/verifications/{verification_id}");
                assert_eq!(scene.api.json(&path).await["state"], "answered");
            }
        }
    }
}

journey! {
    /// Missing there: a Mac that left is not pushed to.
    async fn a_mac_that_checked_out_is_not_pushed_to(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = silent_mac(&scene).await;
        let goodbye = check_out(&mac.spec(), scene.world.topic());
        assert_eq!(told(mac.check_in(&goodbye, Signing::Own).await), accepted());
        let body = json!({ "device_id": scene.api.device_id(&mac.serial()).await });
        let request = scene.api.request(reqwest::Method::POST, "/internal/v1/verifications");
        let answer = request.json(&body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 409);
        scene.sweep().await;
        assert_eq!(pushes(&scene, &mac), 1);
        let escrow = bare("GetBootstrapToken", &mac.spec());
        assert_eq!(told(mac.check_in(&escrow, Signing::Own).await), refused("not_enrolled"));
    }
}
