//! A Mac asks for work and brings answers (apple-protocol 3, 5).

use std::time::Duration;

use attestd::attestation::NonceInputs;
use attestd::ids::CommandUuid;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::{messages, security_info};
use attestd_sim::{Loss, Mac, MacSpec};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::Value;
use serde_json::json;

use crate::harness::inside::eventually;
use crate::harness::scene::Scene;
use crate::harness::talk::{self, Asked, acknowledge, answer, idle, report};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// A Mac that enrolled and says nothing by itself.
async fn silent_mac(scene: &Scene, spec: MacSpec) -> Mac {
    let mac = scene.mac(spec);
    mac.enroll(&scene.base_url).await.expect("enrols");
    // What is kept stands still from here on.
    eventually("the push is written down", async || {
        let kept = scene.kept(&mac).await;
        kept.verifications[0].last_pushed_at().is_some()
    })
    .await;
    mac
}

/// A Mac that answered everything it was asked at enrolment.
async fn attested_mac(scene: &Scene, spec: MacSpec) -> Mac {
    let mac = silent_mac(scene, spec).await;
    let session = mac.connect().await.expect("a session");
    assert_eq!(session.answered, 2);
    mac
}

fn uuid_of(text: &str) -> CommandUuid {
    CommandUuid::parse(text).expect("a UUID")
}

journey! {
    async fn a_session_asks_what_is_owed_in_the_documented_bytes_and_then_nothing(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene, spec()).await;
        let exchanges = mac.exchanges();
        let (info, attest) = (&exchanges[0], &exchanges[1]);

        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \
            \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
            <plist version=\"1.0\">";
        let squeezed = |bytes: &[u8]| -> String {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            let body = text.strip_prefix(head).expect("Apple's heading").to_owned();
            body.chars().filter(|c| !c.is_whitespace()).collect()
        };
        assert_eq!(squeezed(&info.command), format!(
            "<dict><key>Command</key><dict><key>RequestType</key><string>SecurityInfo</string></dict>\
             <key>CommandUUID</key><string>{}</string></dict></plist>", info.command_uuid));
        let nonce = attest.nonce.clone().expect("a nonce");
        assert_eq!(nonce.len(), 32);
        assert_eq!(squeezed(&attest.command), format!(
            "<dict><key>Command</key><dict><key>DeviceAttestationNonce</key><data>{}</data>\
             <key>Queries</key><array><string>SerialNumber</string><string>ProvisioningUDID</string>\
             <string>OSVersion</string><string>BuildVersion</string>\
             <string>DevicePropertiesAttestation</string></array>\
             <key>RequestType</key><string>DeviceInformation</string></dict>\
             <key>CommandUUID</key><string>{}</string></dict></plist>",
            STANDARD.encode(&nonce), attest.command_uuid));
        assert_ne!(info.command_uuid, attest.command_uuid);

        let before = scene.kept(&mac).await;
        let nothing = talk::say(&mac, &messages::idle(&mac.spec())).await;
        assert_eq!((nothing.status, nothing.body.len()), (200, 0));
        assert_eq!(scene.kept(&mac).await, before);
    }
}

journey! {
    async fn not_now_ends_the_session_and_is_asked_again_under_a_new_name(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let first = idle(&mac).await.expect("a command");
        assert_eq!(answer(&mac, &first, "NotNow").await, None);
        let again = idle(&mac).await.expect("a command");
        assert_eq!(again.kind, "SecurityInfo");
        assert_ne!(again.uuid, first.uuid);

        let attest = report(&mac, &again).await.expect("the attestation");
        assert_eq!(answer(&mac, &attest, "NotNow").await, None);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "unknown");
        assert_eq!(posture["reasons"][0], "not_now");
        let anew = idle(&mac).await.expect("a command");
        assert_eq!(anew.kind, "DeviceInformation");
        assert!(anew.uuid != attest.uuid && anew.nonce != attest.nonce);
        let again = scene.api.posture(&mac.serial()).await;
        assert_eq!(again["revision"], posture["revision"]);
    }
}

journey! {
    async fn errors_end_a_command_and_say_nothing_about_the_mac(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let first = idle(&mac).await.expect("a command");
        let mut body = messages::status_reply(&mac.spec(), &first.uuid, "Error");
        body.insert("ErrorChain".into(), messages::error_chain(12_007, "Not authorized."));
        let second = Asked::read(&talk::say(&mac, &body).await).expect("the other kind");
        assert_eq!(second.kind, "DeviceInformation");
        assert_eq!(answer(&mac, &second, "CommandFormatError").await, None);
        assert_eq!(idle(&mac).await, None);

        let kept = scene.kept(&mac).await;
        assert_eq!((kept.posture, kept.evidence.len()), (None, 0));
        assert_eq!(kept.verifications[0].state(), attestd::verification::State::Failed);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["revision"]), (&json!("unknown"), &json!(0)));
        assert_eq!(posture["reasons"][0], "command_error");
        assert_eq!(scene.refused("command_error").await, 2);
    }
}

journey! {
    async fn what_was_not_asked_changes_nothing(backend: Backend) {
        let scene = Scene::new(backend).await;
        let other = silent_mac(&scene, spec()).await;
        let foreign = idle(&other).await.expect("a command of the other Mac");
        let mac = attested_mac(&scene, spec()).await;
        mac.change(|spec| spec.boot.sip_enabled = false);
        let before = (scene.kept(&mac).await, scene.kept(&other).await);

        let spec = mac.spec();
        let unknown = "00000001-0000-4000-8000-000000000001".to_owned();
        let repeated = mac.exchanges()[0].command_uuid.clone();
        for uuid in [unknown, foreign.uuid.clone(), repeated] {
            let body = talk::acknowledgment(&mac, &uuid, "SecurityInfo", security_info(&spec));
            let reply = talk::say(&mac, &body).await;
            assert_eq!((reply.status, reply.body.len()), (200, 0));
        }
        for status in ["NotNow", "Error", "CommandFormatError"] {
            assert_eq!(answer(&mac, &foreign, status).await, None);
        }
        assert_eq!(scene.refused("answer_unsolicited").await, 6);
        assert_eq!((scene.kept(&mac).await, scene.kept(&other).await), before);
        // The other Mac's command is still its own to answer.
        assert!(report(&other, &foreign).await.is_some());
        assert_eq!(scene.api.posture(&other.serial()).await["claims"]["sip"]["value"], true);
    }
}

journey! {
    async fn the_same_result_twice_counts_once(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene, spec()).await;
        let before = scene.kept(&mac).await;
        assert_eq!(before.evidence.len(), 2);
        for exchange in mac.exchanges() {
            let reply = mac.replay(&exchange).await.expect("an answer");
            assert_eq!((reply.status, reply.body.len()), (200, 0));
        }
        assert_eq!(scene.kept(&mac).await, before);
        assert_eq!(scene.refused("answer_unsolicited").await, 2);
    }
}

journey! {
    async fn a_result_sent_again_after_a_lost_connection_lands_once(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        mac.lose(Loss::AfterSending);
        mac.connect().await.expect_err("the connection is lost");
        mac.lose(Loss::BeforeSending);
        mac.connect().await.expect_err("and lost again");
        mac.connect().await.expect("a session");
        let kept = scene.kept(&mac).await;
        assert_eq!(kept.evidence.len(), 2);
        assert_eq!(kept.posture.expect("a posture").revision, 2);
        let changes = kept.events.iter().filter(|event| event.event.name == "posture.changed");
        assert_eq!(changes.count(), 2);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
    }
}

journey! {
    async fn a_late_answer_counts_for_half_an_hour(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let asked = idle(&mac).await.expect("a command");
        scene.pass(11 * MINUTE);
        scene.sweep().await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["reasons"][0], "answer_timeout");

        scene.pass(18 * MINUTE);
        assert_eq!(report(&mac, &asked).await, None);
        let kept = scene.kept(&mac).await;
        assert_eq!(kept.posture.expect("a posture").revision, 1);
        let timed_out = &kept.verifications[0];
        assert_eq!(timed_out.state(), attestd::verification::State::TimedOut);
        assert_eq!(kept.events.last().expect("events").event.name, "posture.changed");

        scene.api.verify(&mac.serial(), &["security_info"]).await;
        let asked = idle(&mac).await.expect("a command");
        scene.pass(31 * MINUTE);
        let before = scene.kept(&mac).await.evidence;
        mac.change(|spec| spec.boot.sip_enabled = false);
        report(&mac, &asked).await;
        assert_eq!(scene.refused("answer_unsolicited").await, 1);
        let after = scene.kept(&mac).await;
        assert_eq!((after.evidence, after.posture.expect("a posture").revision), (before, 1));
    }
}

journey! {
    async fn the_nonce_is_made_at_hand_over_and_published_with_its_inputs(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        scene.pass(3 * MINUTE);
        let asked = idle(&mac).await.expect("a command");
        let attest = report(&mac, &asked).await.expect("the attestation");
        // Lost on the way: the next one has a name and a nonce of its own.
        scene.pass(2 * MINUTE);
        let attest = {
            let again = idle(&mac).await.expect("a command");
            assert!(again.uuid != attest.uuid && again.nonce != attest.nonce);
            again
        };
        let handed_over_at = scene.now();
        let nonce = attest.nonce.clone().expect("a nonce");
        scene.pass(MINUTE);
        let key = generate(KeyKind::P384).expect("a key");
        let state = mac.spec().attested_state();
        let chain = scene.world.apple()
            .attest(&state, &key, Some(&nonce), scene.now().millis()).expect("a chain");
        talk::present(&mac, &attest, &[chain.leaf, chain.intermediate]).await;

        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["freshness"]["class"], "fresh");
        assert_eq!(posture["freshness"]["minted_at"], handed_over_at.to_string());
        let inputs = NonceInputs {
            server_id: scene.base_url.clone(),
            device_id: scene.device_id(&mac).await,
            command_uuid: uuid_of(&attest.uuid),
            minted_at: handed_over_at,
            se_public_key: String::new(),
            beacon: None,
        };
        assert_eq!(inputs.mint().nonce.as_slice(), nonce);
    }
}

journey! {
    async fn a_mac_that_loses_every_command_is_not_asked_for_ever(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let mut kinds = Vec::new();
        while let Some(asked) = idle(&mac).await {
            kinds.push(asked.kind);
            assert!(kinds.len() <= 10, "no end of commands: {kinds:?}");
        }
        assert_eq!(kinds.len(), 10);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]),
            (&json!("unknown"), &json!("command_error")));
    }
}

journey! {
    async fn what_the_mac_admits_is_held_against_it(backend: Backend) {
        let scene = Scene::new(backend).await;
        for (spec, reason) in [
            (spec().with_sip_off(), "sip_disabled"),
            (spec().with_reduced_security(), "secure_boot_reduced"),
        ] {
            let mac = silent_mac(&scene, spec).await;
            let asked = idle(&mac).await.expect("a command");
            report(&mac, &asked).await;
            // Its own word is enough, before Apple's.
            let posture = scene.api.posture(&mac.serial()).await;
            assert_eq!(posture["verdict"], "contraindicated");
            assert_eq!(posture["reasons"][0], reason);
            assert_eq!(posture["usable_until"], json!(null));
        }
    }
}

journey! {
    async fn a_mac_apple_cannot_attest_stays_unknown(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = attested_mac(&scene, MacSpec { apple_silicon: false, ..spec() }).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "unknown");
        assert_eq!(posture["reasons"][0], "attestation_unavailable");
        assert_eq!(posture["claims"]["sip"]["value"], true);
        assert_eq!(posture["freshness"], json!(null));
    }
}

journey! {
    async fn a_cached_chain_is_as_old_as_its_own_nonce(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let asked = idle(&mac).await.expect("a command");
        let attest = report(&mac, &asked).await.expect("the attestation");
        // Apple makes a chain for it, and the Mac's answer is lost on the way.
        let (made_at, key) = (scene.now(), generate(KeyKind::P384).expect("a key"));
        let chain = scene.world.apple()
            .attest(&mac.spec().attested_state(), &key, attest.nonce.as_deref(), made_at.millis())
            .expect("a chain");
        let chain = [chain.leaf, chain.intermediate];
        scene.pass(3 * DAY);
        let asked = idle(&mac).await.expect("asked again");
        let again = report(&mac, &asked).await.expect("the attestation");
        assert_ne!(again.nonce, attest.nonce);
        talk::present(&mac, &again, &chain).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "affirming");
        assert_eq!(posture["freshness"]["class"], "cached_known");
        assert_eq!(posture["freshness"]["minted_at"], json!(made_at));
        assert_eq!(posture["claims"]["sip#mda"]["expires_at"], json!(made_at.plus(14 * DAY)));
        // Whoever asks for another before Apple makes one is told when that is.
        let early = scene.api.verify(&mac.serial(), &["mda"]).await;
        assert_eq!((&early["state"], &early["kinds"]["mda"]["reason"]),
            (&json!("failed"), &json!("apple_rate_limit")));
        // Nobody saw it before: it may have been made up to a day after it was asked for.
        let renewable = made_at.plus(8 * DAY + 10 * MINUTE);
        assert_eq!(early["kinds"]["mda"]["not_before"], json!(renewable));

        // The same chain once Apple would have made another is held back by somebody.
        scene.pass(5 * DAY + 11 * MINUTE);
        let asked = idle(&mac).await.expect("asked again");
        let again = report(&mac, &asked).await.expect("the attestation");
        talk::present(&mac, &again, &chain).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]),
            (&json!("warning"), &json!("attestation_withheld")));
    }
}

journey! {
    /// Apple's seven days go from when it answered. Whoever asks seven days after the question gets the
    /// same answer again, and would take an honest Mac for one that holds something back.
    async fn apple_is_asked_again_when_it_surely_answers_anew(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let asked = idle(&mac).await.expect("a command");
        let attest = report(&mac, &asked).await.expect("the attestation");
        let asked_at = scene.now();
        scene.pass(20 * MINUTE);
        let key = generate(KeyKind::P384).expect("a key");
        let chain = async |attest: &Asked| {
            let state = mac.spec().attested_state();
            let made = scene.world.apple().attest(&state, &key, attest.nonce.as_deref(), scene.now().millis());
            let made = made.expect("a chain");
            [made.leaf, made.intermediate]
        };
        let first = chain(&attest).await;
        talk::present(&mac, &attest, &first).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["freshness"]["class"], &posture["freshness"]["minted_at"]), (&json!("fresh"), &json!(asked_at)));
        let renewable = scene.now().plus(7 * DAY + 10 * MINUTE);
        let early = scene.api.verify(&mac.serial(), &["mda"]).await;
        assert_eq!(early["kinds"]["mda"]["not_before"], json!(renewable));

        scene.pass(7 * DAY + 10 * MINUTE - Duration::from_millis(1));
        let asked = idle(&mac).await.expect("asked again");
        assert_eq!(report(&mac, &asked).await, None, "not yet");
        scene.pass(Duration::from_millis(1));
        let again = idle(&mac).await.expect("asked again");
        assert_eq!(again.kind, "DeviceInformation");
        talk::present(&mac, &again, &chain(&again).await).await;
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], &posture["freshness"]["class"]), (&json!("affirming"), &json!("fresh")));
        assert_eq!(posture["reasons"][0], "provider_not_bound");
    }
}

journey! {
    async fn a_chain_for_a_nonce_nobody_gave_proves_no_freshness(backend: Backend) {
        let scene = Scene::new(backend).await;
        for nonce in [Some([9; 32]), None] {
            let mac = silent_mac(&scene, spec()).await;
            let asked = idle(&mac).await.expect("a command");
            let attest = report(&mac, &asked).await.expect("the attestation");
            let key = generate(KeyKind::P384).expect("a key");
            let nonce = nonce.as_ref().map(|nonce| nonce.as_slice());
            let chain = scene.world.apple()
                .attest(&mac.spec().attested_state(), &key, nonce, scene.now().millis())
                .expect("a chain");
            talk::present(&mac, &attest, &[chain.leaf, chain.intermediate]).await;
            let posture = scene.api.posture(&mac.serial()).await;
            assert_eq!((&posture["verdict"], &posture["reasons"][0]),
                (&json!("unknown"), &json!("nonce_unrecognized")));
            assert_eq!(posture["claims"]["sip#mda"]["expires_at"], json!(null));
        }
    }
}

journey! {
    async fn a_malformed_answer_is_no_answer(backend: Backend) {
        let scene = Scene::new(backend).await;
        let mac = silent_mac(&scene, spec()).await;
        let asked = idle(&mac).await.expect("a command");
        let mut info = security_info(&mac.spec());
        info.insert("SystemIntegrityProtectionEnabled".into(), Value::String("true".into()));
        let next = acknowledge(&mac, &asked, "SecurityInfo", info).await.expect("the other kind");
        assert_eq!(next.kind, "DeviceInformation");
        // The answer to another question is none either.
        let info = security_info(&mac.spec());
        assert_eq!(acknowledge(&mac, &next, "SecurityInfo", info).await, None);
        let kept = scene.kept(&mac).await;
        assert_eq!((kept.posture, kept.evidence.len()), (None, 0));
        assert_eq!(scene.refused("answer_malformed").await, 2);
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["reasons"][0], "answer_malformed");
    }
}

const ESCROW: &[u8] = b"CANARY-OF-THE-RECOVERY-KEY";
const APPLICATION: &str = "org.canary.secret-habit";

journey! {
    async fn secret_and_personal_members_are_kept_nowhere(backend: Backend) {
        let scene = Scene::new(backend).await;
        let spec = MacSpec {
            recovery_key_cms: Some(ESCROW.to_vec()),
            firewall_applications: vec![APPLICATION.to_owned()],
            ..spec()
        };
        let mac = attested_mac(&scene, spec).await;
        let encoded = STANDARD.encode(ESCROW);
        let canaries = [ESCROW, APPLICATION.as_bytes(), &encoded.as_bytes()[..24]];
        let is_clean = |what: &str, bytes: &[u8]| {
            for canary in canaries {
                let found = bytes.windows(canary.len()).any(|window| window == canary);
                assert!(!found, "{what} holds {}", String::from_utf8_lossy(canary));
            }
        };
        // The canaries were said.
        let said = &mac.exchanges()[0].reply;
        assert!(said.windows(APPLICATION.len()).any(|window| window == APPLICATION.as_bytes()));

        let kept = scene.kept(&mac).await;
        for evidence in &kept.evidence {
            is_clean("evidence", &evidence.stored);
        }
        is_clean("what is kept", format!("{kept:?}").as_bytes());
        let device = scene.api.device(&mac.serial()).await.expect("a device");
        let posture = scene.api.posture(&mac.serial()).await;
        is_clean("an answer", format!("{device}{posture}").as_bytes());
        let folder = scene.home.path().join("server");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                files += 1;
                is_clean(&path.display().to_string(), &std::fs::read(&path).expect("a file"));
            }
        }
        assert!(files >= 3, "the data folder was looked through");
    }
}

journey! {
    async fn an_answer_of_another_identity_is_a_mismatch_and_the_command_stays_open(
        backend: Backend
    ) {
        let scene = Scene::new(backend).await;
        let (mac, other) = (silent_mac(&scene, spec()).await, silent_mac(&scene, spec()).await);
        let asked = idle(&mac).await.expect("a command");
        let body = talk::acknowledgment(&mac, &asked.uuid, "SecurityInfo",
            security_info(&mac.spec().with_sip_off()));
        let identity = other.identity().expect("an identity");
        let reply = mac.connect_with(&body, attestd_sim::Signing::By(&identity)).await;
        assert_eq!(reply.expect("an answer").status, 400);
        eventually("the mismatch is told", async || {
            let posture = scene.api.posture(&mac.serial()).await;
            posture["reasons"][0] == "identity_mismatch" && posture["verdict"] == "unknown"
        }).await;
        assert!(report(&mac, &asked).await.is_some());
        assert_eq!(scene.api.posture(&mac.serial()).await["claims"]["sip"]["value"], true);
    }
}
