//! The historic coordinator asks as it asked MicroMDM, and is told as MicroMDM told it
//! (coordinator-and-standards A.7, A.8, A.14, A.15).

use std::process::Command;
use std::time::Duration;

use attestd::attestation::Scheme;
use attestd::config::Config;
use attestd::ids::{CommandUuid, EvidenceId, sha256};
use attestd::posture::policy::STRICT;
use attestd::verification::Kind;
use attestd_sim::{Mac, MacSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::old_coordinator::{KEY, OldCoordinator, TOKEN, Told, attestation};
use crate::harness::receiver::Reply;
use crate::harness::scene::{Scene, attestd};
use crate::harness::talk;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The audit's example: a key as text, and what the coordinator makes of it.
const SE_KEY: &str =
    "qKxKds4zZk81flmOxcOmQVYSL0xkeg88tLBfXd7ghhJ/QYjW5ZKBAzASJ0TPwseWv38jW61NESGDtGsJqdzJ9Q==";

/// Macs are proved by Apple when they enrol, and their first attestation waits for a key.
const ATTESTED: &str = "[enrollment]\nidentity = \"acme\"\n[attestation]\nhold = \"24h\"\n";

/// As `uuid.New().String()` writes it.
fn name(number: u8) -> String {
    format!("0e0f2b52-70a5-4da0-a6e0-0a6d9a1c1b{number:02x}")
}

/// A Mac that owes nothing (but an attestation that is held) and says nothing by itself.
async fn quiet_mac(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    let (token, _) = mac.push_address().expect("an address");
    eventually("it is pushed", async || {
        scene.world.apns().seen_for(&token).len() == 1
    })
    .await;
    mac.connect().await.expect("a session");
    scene.pass(2 * MINUTE);
    mac
}

fn pushes(scene: &Scene, mac: &Mac) -> usize {
    let (token, _) = mac.push_address().expect("an address");
    scene.world.apns().seen_for(&token).len()
}

/// How often Apple made a statement for a Mac since it enrolled.
fn statements(mac: &Mac) -> usize {
    let made = |it: &attestd_sim::mac::Exchange| matches!(&it.attestation, Some((_, true)));
    mac.exchanges().iter().filter(|it| made(it)).count()
}

async fn outcome(scene: &Scene, name: &str) -> Option<String> {
    let name = CommandUuid::parse(name).expect("a name");
    let tx = scene.ctx().store.read().await.expect("a store");
    tx.relayed_outcome(&name).await.expect("answers")
}

journey! {
    async fn the_old_coordinator_verifies_a_mac_as_it_always_did(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, "").await;
        let mac = quiet_mac(&scene).await;
        let device = old.look_up(&mac.serial()).await.expect("known");
        assert_eq!(device["udid"], mac.udid());
        assert_eq!(device["enrollment_status"], true);
        assert!(device["last_seen"].as_str().expect("a time").ends_with('Z'));
        assert_eq!(device.as_object().expect("an object").len(), 4);
        for unknown in ["SIMNOBODY1", "", "no serial at all", "' OR 1=1"] {
            assert_eq!(old.look_up(unknown).await, None);
        }

        let _life = mac.live();
        let before = pushes(&scene, &mac);
        let asked = old.security_info(&mac.udid()).await;
        let told = old.told(&asked).await;
        assert_eq!(told.0.header("x-webhook-token"), TOKEN);
        assert_eq!(told.0.header("content-type"), "application/json");
        let event = told.event();
        assert_eq!((&event["udid"], &event["status"]), (&json!(mac.udid()), &json!("Acknowledged")));
        assert!(told.names(&asked), "the reply bears the name that was answered");
        assert_eq!(told.sip_and_secure_boot(), (true, "full".to_owned()));
        // Byte for byte what the Mac said, and what the verdict was made of.
        let said = mac.exchanges().last().expect("an exchange").reply.clone();
        assert_eq!(told.reply(), said);
        let kept = scene.kept(&mac).await;
        let reported = kept.posture.expect("known").reported.expect("reported");
        assert_eq!(reported.evidence_id, EvidenceId::of(&said));
        assert_eq!(pushes(&scene, &mac), before + 1, "one push");
        eventually("it is written down", async || outcome(&scene, &asked).await.as_deref() == Some("told")).await;
    }
}

journey! {
    async fn its_attestation_takes_the_one_slot_with_its_own_nonce(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, ATTESTED).await;
        let mac = quiet_mac(&scene).await;
        assert_eq!(statements(&mac), 0, "the first is held");
        let nonce = sha256(SE_KEY.as_bytes());
        let (status, answer) = old.attest(&mac.udid(), &name(1), Some(&nonce)).await;
        assert_eq!(status, 201, "{answer}");
        assert_eq!(answer["payload"], json!({
            "udid": mac.udid(), "command_uuid": name(1), "command": { "request_type": "DeviceInformation" },
        }));
        let pushed = old.push(&mac.udid()).await;
        assert_eq!(pushed.status(), 200);
        let pushed: Value = pushed.json().await.expect("JSON");
        assert_eq!(pushed["status"], "success");
        assert!(!pushed["push_notification_id"].as_str().expect("a name").is_empty());
        mac.connect().await.expect("a session");
        let told = old.told(&name(1)).await;
        assert!(told.names(&name(1)) && told.repeats(&nonce));
        assert_eq!(told.chain().len(), 2);
        assert_eq!((statements(&mac), pushes(&scene, &mac)), (1, 2));

        // It is in the ledger with its scheme.
        let device_id = scene.device_id(&mac).await;
        let tx = scene.ctx().store.read().await.expect("a store");
        let minted = tx.ledger_entry(&device_id, nonce).await.expect("answers").expect("recorded");
        drop(tx);
        assert_eq!((minted.scheme, minted.inputs.se_public_key.as_str()), (Scheme::LegacySeSha256, ""));
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "affirming");

        // A second within seven days is answered from what is stored: nobody is woken, Apple is not asked.
        scene.pass(DAY);
        let (said, before) = (told.reply(), pushes(&scene, &mac));
        for (number, nonce) in [(2, Some(&nonce[..])), (3, Some(&[9; 32][..])), (4, None)] {
            let (status, _) = old.attest(&mac.udid(), &name(number), nonce).await;
            assert_eq!(status, 201);
            assert_eq!(old.told(&name(number)).await.reply(), said);
        }
        let queries = json!(["DevicePropertiesAttestation"]);
        let (status, answer) = old.command(&json!({
            "udid": mac.udid(), "request_type": "DeviceInformation", "queries": queries,
        })).await;
        assert_eq!(status, 201);
        let given = answer["payload"]["command_uuid"].as_str().expect("a name");
        assert_eq!(old.told(given).await.reply(), said);
        assert_eq!((statements(&mac), pushes(&scene, &mac)), (1, before));

        // After seven days the same nonce is not asked with again: macOS would only repeat itself.
        scene.pass(7 * DAY);
        let (status, _) = old.attest(&mac.udid(), &name(5), Some(&nonce)).await;
        assert_eq!((status, old.told(&name(5)).await.reply()), (201, said));
        // Another is, and it is Apple's next statement.
        let (status, _) = old.attest(&mac.udid(), &name(6), Some(&[9; 32])).await;
        assert_eq!(status, 201);
        mac.connect().await.expect("a session");
        assert!(old.told(&name(6)).await.repeats(&[9; 32]));
        assert_eq!(statements(&mac), 2);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
    }
}

journey! {
    async fn what_is_out_already_is_joined_and_asked_once(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, "").await;
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let info = talk::idle(&mac).await.expect("a question");
        // One question, one name, whoever asks how often.
        for _ in 0..3 {
            assert_eq!(old.security_info(&mac.udid()).await, info.uuid);
        }
        let ours = talk::report(&mac, &info).await.expect("the question to Apple");
        assert!(old.told(&info.uuid).await.names(&info.uuid));

        let attest = json!({
            "udid": mac.udid(), "request_type": "DeviceInformation",
            "queries": ["DevicePropertiesAttestation"],
        });
        let (_, answer) = old.command(&attest).await;
        assert_eq!(answer["payload"]["command_uuid"], ours.uuid);
        let (status, answer) = old.attest(&mac.udid(), &name(1), Some(&[9; 32])).await;
        assert_eq!((status, &answer["payload"]["command_uuid"]), (201, &json!(name(1))));
        let before = scene.kept(&mac).await.verifications.len();
        let chain = scene.world.apple().attest(
            &mac.spec().attested_state(),
            &attestd_sim::keys::generate(attestd_sim::keys::KeyKind::P384).expect("a key"),
            ours.nonce.as_deref(),
            scene.now().millis(),
        ).expect("a chain");
        let next = talk::present(&mac, &ours, &[chain.leaf, chain.intermediate]).await;
        assert_eq!(next, None, "it is not asked again");
        let (first, second) = (old.told(&ours.uuid).await, old.told(&name(1)).await);
        assert_eq!(first.reply(), second.reply());
        assert!(first.names(&ours.uuid) && first.repeats(ours.nonce.as_deref().expect("a nonce")));
        assert_eq!(scene.kept(&mac).await.verifications.len(), before);
        scene.api.verdict(&mac.serial(), "affirming").await;
    }
}

journey! {
    async fn a_mac_that_apple_has_not_proved_is_asked_with_a_nonce_of_ours(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, "").await;
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        let nonce = sha256(SE_KEY.as_bytes());
        let (status, _) = old.attest(&mac.udid(), &name(1), Some(&nonce)).await;
        assert_eq!(status, 201);
        let info = talk::idle(&mac).await.expect("a question");
        let question = talk::report(&mac, &info).await.expect("the question to Apple");
        assert_eq!(question.uuid, name(1), "under the coordinator's name");
        assert_ne!(question.nonce.as_deref(), Some(&nonce[..]));
        mac.connect().await.expect("a session");
        // The hand-over got lost: it was asked again, with another nonce and so by another name; the
        // coordinator is told by its own.
        let told = old.told(&name(1)).await;
        assert!(!told.repeats(&nonce));
        assert_eq!(told.chain().len(), 2);
        scene.api.verdict(&mac.serial(), "affirming").await;
    }
}

journey! {
    async fn not_now_is_waited_out_and_an_error_is_told(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, "").await;
        let mac = quiet_mac(&scene).await;
        let asked = old.security_info(&mac.udid()).await;
        let question = talk::idle(&mac).await.expect("a question");
        assert_eq!(question.uuid, asked);
        assert_eq!(talk::answer(&mac, &question, "NotNow").await, None);
        assert_eq!(old.security_info(&mac.udid()).await, asked, "it is the same question");
        scene.pass(MINUTE);
        let question = talk::idle(&mac).await.expect("again");
        assert_eq!(question.uuid, asked);
        talk::answer(&mac, &question, "Error").await;
        let told = old.told(&asked).await;
        assert_eq!(told.event()["status"], "Error");
        assert!(told.names(&asked));
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming", "an error demotes nobody");
    }
}

journey! {
    async fn only_what_was_verified_is_told(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, ATTESTED).await;
        let (mac, other) = (quiet_mac(&scene).await, MacSpec::random().expect("a Mac"));
        let (status, _) = old.attest(&mac.udid(), &name(1), Some(&[9; 32])).await;
        assert_eq!(status, 201);
        let question = talk::idle(&mac).await.expect("a question");
        assert_eq!((question.uuid.as_str(), question.nonce.as_deref()), (name(1).as_str(), Some(&[9; 32][..])));
        // What nobody asked for, and what somebody else says, is told to nobody.
        let unasked = talk::acknowledgment(&mac, &name(9), "SecurityInfo", plist::Dictionary::new());
        talk::say(&mac, &unasked).await;
        let stranger = quiet_mac(&scene).await;
        let mut forged = talk::acknowledgment(&stranger, &name(1), "SecurityInfo", plist::Dictionary::new());
        forged.insert("UDID".to_owned(), mac.udid().into());
        let _ = stranger.connect_with(&forged, attestd_sim::Signing::Own).await.expect("an answer");
        // Another Mac's chain.
        let key = attestd_sim::keys::generate(attestd_sim::keys::KeyKind::P384).expect("a key");
        let (state, now) = (other.attested_state(), scene.now().millis());
        let chain = scene.world.apple().attest(&state, &key, Some(&[9; 32]), now).expect("a chain");
        talk::present(&mac, &question, &[chain.leaf, chain.intermediate]).await;
        scene.api.verdict(&mac.serial(), "contraindicated").await;
        assert_eq!(outcome(&scene, &name(1)).await.as_deref(), Some("serial_mismatch"));
        assert_eq!(old.receiver.received().len(), 0);
    }
}

journey! {
    async fn the_push_budget_is_one_for_all_who_ask(backend: Backend) {
        let budget = "[verification]\npatience = \"10m\"\npushes_per_hour = 1\n";
        let (old, scene) = OldCoordinator::with_server(backend, budget).await;
        let mac = quiet_mac(&scene).await;
        let idle: Value = old.push(&mac.udid()).await.json().await.expect("JSON");
        assert_eq!(idle["status"], "nothing to ask");
        let asked = old.security_info(&mac.udid()).await;
        let refused = old.push(&mac.udid()).await;
        assert_eq!(refused.status(), 429);
        let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        assert!((3_000..=3_600).contains(&wait), "{wait}");
        let refused: Value = refused.json().await.expect("JSON");
        assert_eq!(refused["reason"], "push_throttled");
        assert!(refused["error"].as_str().expect("a text").contains("woken often enough"));
        assert_eq!(scene.refused("push_throttled").await, 1);
        assert_eq!(pushes(&scene, &mac), 1, "nobody wakes it");
        eventually("it is written down that it waits for its budget", async || {
            let kept = scene.kept(&mac).await.verifications;
            kept[0].part(Kind::SecurityInfo).expect("asked").woken_from.is_some()
        }).await;
        // Whoever comes by itself is asked all the same.
        mac.connect().await.expect("a session");
        assert!(old.told(&asked).await.names(&asked));
    }
}

journey! {
    async fn who_asks_for_what_apple_will_not_make_yet_is_told_when_to_come_again(backend: Backend) {
        // Apple's leaf begins a day before it is issued. By a policy that lets it count for little more than a week, it
        // is too old before Apple makes another.
        let folder = tempfile::tempdir().expect("a folder");
        let (file, mut policy) = (folder.path().join("policy.toml"), STRICT.to_owned());
        for (from, to) in [("usable_for = \"14d\"", "usable_for = \"169h\""), ("spread = \"12h\"", "spread = \"1m\"")] {
            assert!(policy.contains(from), "{from}");
            policy = policy.replace(from, to);
        }
        std::fs::write(&file, policy).expect("written");
        let tables = format!("{ATTESTED}[policy]\nfile = \"{}\"\n", file.display());
        let (old, scene) = OldCoordinator::with_server(backend, &tables).await;
        let mac = quiet_mac(&scene).await;
        let (status, _) = old.attest(&mac.udid(), &name(1), Some(&[9; 32])).await;
        assert_eq!(status, 201);
        mac.connect().await.expect("a session");
        assert!(old.told(&name(1)).await.repeats(&[9; 32]));

        scene.pass(6 * DAY + DAY / 2);
        let raw = format!("/v1/commands/{}", mac.udid());
        let asked = old.request(Method::POST, &raw).header("Content-Type", "application/xml");
        let refused = asked.body(attestation(&name(2), Some(&[8; 32]))).send().await.expect("an answer");
        assert_eq!(refused.status(), 429);
        let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
        let wait = Duration::from_secs(wait);
        assert!((DAY / 4..=DAY).contains(&wait), "{wait:?}");
        let refused: Value = refused.json().await.expect("JSON");
        assert_eq!(refused["reason"], "apple_rate_limit");
        assert!(!refused["error"].as_str().expect("a text").is_empty());
        // The other call, which has no nonce, is told the same, and each is counted.
        let queries = json!(["DevicePropertiesAttestation"]);
        let (status, answer) = old.command(&json!({
            "udid": mac.udid(), "request_type": "DeviceInformation", "queries": queries,
        })).await;
        assert_eq!((status, &answer["reason"]), (429, &json!("apple_rate_limit")));
        assert_eq!(scene.refused("apple_rate_limit").await, 2);
        mac.connect().await.expect("a session");
        assert_eq!(statements(&mac), 1, "Apple is not asked");
        assert_eq!(outcome(&scene, &name(2)).await, None, "nobody waits for it");

        // Who comes again then is answered with Apple's next statement.
        scene.pass(wait + MINUTE);
        let (status, _) = old.attest(&mac.udid(), &name(3), Some(&[8; 32])).await;
        assert_eq!(status, 201);
        mac.connect().await.expect("a session");
        assert!(old.told(&name(3)).await.repeats(&[8; 32]));
        assert_eq!(statements(&mac), 2);
    }
}

journey! {
    async fn what_cannot_be_asked_is_refused_with_a_reason(backend: Backend) {
        let (mut old, scene) = OldCoordinator::with_server(backend, "").await;
        let mac = quiet_mac(&scene).await;
        let (udid, nobody) = (mac.udid(), "5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D");
        let info = |udid: &str| json!({ "udid": udid, "request_type": "SecurityInfo" });
        let typed = |request_type: &str| json!({ "udid": udid, "request_type": request_type });
        for (body, status, reason) in [
            (typed("EraseDevice"), 403, "message_unsupported"),
            (typed("DeviceLock"), 403, "message_unsupported"),
            (typed("DeviceInformation"), 403, "message_unsupported"),
            (json!({ "udid": udid, "request_type": "InstallProfile", "payload": "AAAA" }), 400, "request_malformed"),
            (json!({ "udid": udid, "request_type": "DeviceInformation", "queries": ["DeviceName"] }), 403, "message_unsupported"),
            (info(nobody), 404, "device_not_found"),
            (info("no UDID"), 404, "device_not_found"),
            (json!([udid]), 400, "request_malformed"),
            (json!({ "request_type": "SecurityInfo" }), 400, "request_malformed"),
            (json!({ "udid": udid, "request_type": "x".repeat(70_000) }), 413, "request_too_large"),
        ] {
            let (got, answer) = old.command(&body).await;
            assert_eq!((got, &answer["reason"]), (status, &json!(reason)), "{answer}");
            assert!(answer["error"].as_str().expect("a text").ends_with('.'));
        }
        let plain = attestation(&name(1), Some(&[9; 32]));
        for (body, status, reason) in [
            (plain.replace("DeviceInformation", "EraseDevice"), 403, "message_unsupported"),
            (attestation(&name(1), Some(&[9; 31])), 400, "request_malformed"),
            (attestation("no-name", None), 400, "request_malformed"),
            (plain[..200].to_owned(), 400, "request_malformed"),
            (" ".repeat(70_000), 413, "request_too_large"),
        ] {
            let (got, answer) = old.raw(&udid, body).await;
            assert_eq!((got, &answer["reason"]), (status, &json!(reason)), "{answer}");
        }
        let (status, answer) = old.raw(nobody, plain.clone()).await;
        assert_eq!((status, &answer["reason"]), (404, &json!("device_not_found")));
        assert_eq!(old.push(nobody).await.status(), 404);
        // A name that is another command's.
        let taken = mac.exchanges()[0].command_uuid.clone();
        let (status, answer) = old.attest(&udid, &taken.to_lowercase(), None).await;
        assert_eq!((status, &answer["reason"]), (409, &json!("nonce_unusable")));
        for body in [json!({}), json!({ "serial_number": 7 }), json!([]), json!({ "filter_serial": vec!["A"; 17] })] {
            let answer = old.request(reqwest::Method::POST, "/v1/devices").json(&body).send().await.expect("an answer");
            assert_eq!(answer.status(), 400, "the fleet is given to nobody");
        }
        assert_eq!(statements(&mac), 1);

        // Without the key there is nothing, and it opens nothing else.
        for (user, key) in [("micromdm", "eigeninference-micromdm-api"), ("micromdm", ""), ("admin", KEY)] {
            let path = format!("{}/v1/devices", old.url);
            let request = reqwest::Client::new().post(&path).basic_auth(user, Some(key));
            let answer = request.json(&json!({ "serial_number": mac.serial() })).send().await.expect("an answer");
            assert_eq!(answer.status(), 401);
            assert!(answer.headers()["www-authenticate"].to_str().expect("text").starts_with("Basic"));
            let answer: Value = answer.json().await.expect("JSON");
            assert_eq!(answer["reason"], "unauthorized");
        }
        let bearer = scene.api.request(reqwest::Method::GET, &format!("/micromdm/push/{udid}"));
        assert_eq!(bearer.send().await.expect("an answer").status(), 401);
        let status = reqwest::Client::new().get(format!("{}/internal/v1/status", scene.api.url));
        let status = status.basic_auth("micromdm", Some(KEY)).send().await.expect("an answer");
        assert_eq!(status.status(), 401);
        assert_eq!(reqwest::get(scene.url("/micromdm/v1/devices")).await.expect("an answer").status(), 404);

        // More than one coordinator has channels for wait no longer.
        for number in 0..16 {
            let (status, answer) = old.attest(&udid, &name(100 + number), Some(&[9; 32])).await;
            assert_eq!(status, 201, "{answer}");
        }
        mac.remove_profile().await.expect("a CheckOut");
        let (status, answer) = old.command(&info(&udid)).await;
        assert_eq!((status, &answer["reason"]), (409, &json!("not_enrolled")));
        let device = old.look_up(&mac.serial()).await.expect("known");
        assert_eq!(device["enrollment_status"], false);
        old.key.push('x');
        assert_eq!(old.push(&udid).await.status(), 401);
    }
}

journey! {
    async fn a_mac_that_is_asked_by_too_many_names_is_not_asked_by_more(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, ATTESTED).await;
        let mac = quiet_mac(&scene).await;
        for number in 0..16 {
            let (status, answer) = old.attest(&mac.udid(), &name(number), Some(&[9; 32])).await;
            assert_eq!(status, 201, "{answer}");
        }
        let (status, answer) = old.attest(&mac.udid(), &name(16), Some(&[9; 32])).await;
        assert_eq!((status, &answer["reason"]), (429, &json!("service_degraded")));
        // The same again is no other.
        let (status, _) = old.attest(&mac.udid(), &name(3), Some(&[9; 32])).await;
        assert_eq!(status, 201);
        mac.connect().await.expect("a session");
        for number in 0..16 {
            assert!(old.told(&name(number)).await.names(&name(15)), "one reply, which bears the last name");
        }
        assert_eq!(statements(&mac), 1);
    }
}

journey! {
    async fn an_answer_is_told_until_it_is_taken_through_a_restart_and_kept_by_nobody(backend: Backend) {
        let (mut old, mut scene) = OldCoordinator::with_server(backend, "").await;
        let mac = quiet_mac(&scene).await;
        // What a reply may hold that is nobody's business.
        mac.change(|spec| spec.recovery_key_cms = Some(b"the owner's recovery key".to_vec()));
        let secret = STANDARD.encode("the owner's recovery key");
        old.receiver.reply(|_| Reply::Status(503));
        let asked = old.security_info(&mac.udid()).await;
        mac.connect().await.expect("a session");
        let told = old.receiver.count(1).await.remove(0);
        assert!(String::from_utf8_lossy(&Told(told).reply()).contains(&secret));
        scene.stop().await;
        let server = scene.config().parent().expect("a folder");
        for file in std::fs::read_dir(server).expect("a folder") {
            let file = file.expect("an entry").path();
            let kept = std::fs::read(&file).unwrap_or_default();
            let found = kept.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!found, "in clear in {}", file.display());
        }
        old.receiver.reply(|_| Reply::Status(200));
        scene.pass(MINUTE);
        scene.start().await;
        old.points_at(&scene);
        old.receiver.count(2).await;
        let told = old.all_told(&asked);
        assert_eq!(told[0].0.raw, told[1].0.raw, "the same message");
        eventually("it is written down", async || outcome(&scene, &asked).await.as_deref() == Some("told")).await;
        let name = CommandUuid::parse(&asked).expect("a name");
        let tx = scene.ctx().store.read().await.expect("a store");
        assert_eq!(tx.relayed(&name).await.expect("answers").expect("known").answer, None);
        drop(tx);

        // Whoever does not take it within the half hour is not told any more.
        old.receiver.reply(|_| Reply::Status(401));
        let asked = old.security_info(&mac.udid()).await;
        mac.connect().await.expect("a session");
        old.receiver.count(3).await;
        // Not before it was put off: time that passes while it is told would end it at once.
        let put_off = async || scene.counted("attestd_webhook_messages_total", &["relay_put_off"]).await >= 1;
        eventually("it is put off", put_off).await;
        scene.pass(31 * MINUTE);
        eventually("it is given up", async || outcome(&scene, &asked).await.as_deref() == Some("given_up")).await;
        scene.pass(DAY);
        attestd::flows::relay_answer::tidy(scene.ctx()).await.expect("tidies");
        assert_eq!(outcome(&scene, &asked).await, None);
    }
}

journey! {
    async fn a_webhook_on_a_private_network_is_not_reached_unless_allowed(backend: Backend) {
        let mut old = OldCoordinator::new().await;
        // By address it is refused before anything starts.
        let webhook = format!("https://{}/v1/mdm/webhook", old.receiver.address);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = format!(
            "base_url = \"https://mdm.example.org\"\n[public]\nlisten = \"127.0.0.1:0\"\nbehind_proxy = true\n\
             [internal]\nlisten = \"127.0.0.1:0\"\n{}", old.table_with(&webhook, false)
        );
        std::fs::write(file.path(), text).expect("written");
        let refusal = Config::load(file.path(), false).expect_err("private").to_string();
        assert!(refusal.contains("micromdm.allow_private"), "{refusal}");
        // By name it is found out when it is looked up, and nothing is sent.
        let webhook = format!("https://localhost:{}/v1/mdm/webhook", old.receiver.address.port());
        let scene = Scene::configured(backend, &old.table_with(&webhook, false)).await;
        old.points_at(&scene);
        let mac = quiet_mac(&scene).await;
        let asked = old.security_info(&mac.udid()).await;
        mac.connect().await.expect("a session");
        eventually("it was tried", async || {
            scene.counted("attestd_webhook_messages_total", &["relay_put_off"]).await >= 1
        }).await;
        assert_eq!((old.receiver.received().len(), outcome(&scene, &asked).await), (0, None));
    }
}

journey! {
    async fn it_is_off_unless_it_is_set_up(backend: Backend) {
        let mut old = OldCoordinator::new().await;
        let scene = Scene::new(backend).await;
        old.points_at(&scene);
        assert_eq!(old.push("5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D").await.status(), 404);
        // A key as it was once shipped to everybody is no key.
        let folder = tempfile::tempdir().expect("a folder");
        let config = std::fs::read_to_string(scene.config()).expect("a configuration");
        let file = scene.config().with_file_name("old.toml");
        std::fs::write(folder.path().join("key"), "eigeninference-micromdm-api").expect("written");
        let table = format!("[micromdm]\nkey_file = \"{}\"\nwebhook = \"https://c.example.org/v1/mdm/webhook\"\n",
            folder.path().join("key").display());
        std::fs::write(&file, format!("{config}{table}")).expect("written");
        let checked = attestd(&["check-config", "--insecure-http", "--config", file.to_str().expect("a path")]);
        assert_eq!(checked.status.code(), Some(64), "{checked:?}");
        assert!(String::from_utf8_lossy(&checked.stderr).contains("micromdm.key_file"));
    }
}

journey! {
    /// With another client than ours, as an operator tries it out.
    async fn curl_walks_through_all_of_it(backend: Backend) {
        let (old, scene) = OldCoordinator::with_server(backend, ATTESTED).await;
        let mac = quiet_mac(&scene).await;
        let curl = |path: &str, rest: &[&str]| {
            let user = format!("micromdm:{KEY}");
            let url = format!("{}{path}", old.url);
            let ran = Command::new("curl").args(["-sS", "-f", "-u", &user, &url]).args(rest).output();
            let ran = ran.expect("curl runs");
            assert!(ran.status.success(), "{ran:?}");
            serde_json::from_slice::<Value>(&ran.stdout).expect("JSON")
        };
        let serial = json!({ "serial_number": mac.serial() }).to_string();
        let found = curl("/v1/devices", &["-d", &serial]);
        let udid = found["devices"][0]["udid"].as_str().expect("a UDID").to_owned();
        let body = json!({ "udid": udid, "request_type": "SecurityInfo" }).to_string();
        let asked = curl("/v1/commands", &["-H", "Content-Type: application/json", "-d", &body]);
        let asked = asked["payload"]["command_uuid"].as_str().expect("a name").to_owned();
        let command = attestation(&name(1), Some(&sha256(SE_KEY.as_bytes())));
        let raw = ["-H", "Content-Type: application/xml", "--data-binary", &command];
        curl(&format!("/v1/commands/{udid}"), &raw);
        assert_eq!(curl(&format!("/push/{udid}"), &[])["status"], "success");
        let session = mac.connect().await.expect("a session");
        assert_eq!(session.answered, 2);
        assert!(old.told(&asked).await.names(&asked));
        assert!(old.told(&name(1)).await.names(&name(1)));
    }
}
