//! Two claim one serial number: who holds it, who contends, and who takes whose place.

use attestd::enrollment::fleet::adopted;
use attestd::enrollment::ticket::Bounds;
use attestd::enrollment::{Identity as Record, IdentityKind, Protocol};
use attestd::ids::SerialNumber;
use attestd::pki::OwnedCertificate;
use attestd_sim::certs::Issuer;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::messages;
use attestd_sim::{Identity, Lie, Mac, MacSpec, Signing};
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::keys::rsa;
use crate::harness::public_side::{accepted, refused, step_of, told};
use crate::harness::scene::Scene;
use crate::harness::talk::{self, Asked};

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// Everybody who claims the serial number, the one that stands first.
async fn claimants(scene: &Scene, serial: &str) -> Vec<Value> {
    let path = format!("/internal/v1/devices?serial_number={serial}");
    let found = scene.api.json(&path).await;
    found["devices"].as_array().expect("a list").clone()
}

async fn posture(scene: &Scene, device: &Value) -> Value {
    let device_id = device["device_id"].as_str().expect("an id");
    scene
        .api
        .json(&format!("/internal/v1/devices/{device_id}/posture"))
        .await
}

/// A posture without what moves by itself.
async fn settled(scene: &Scene, device: &Value) -> Value {
    let mut posture = posture(scene, device).await;
    posture
        .as_object_mut()
        .expect("an object")
        .remove("evaluated_at");
    posture
}

/// A profile of the account, installed.
async fn install_by_account(scene: &Scene, mac: &Mac, account: &str) {
    let bounds = Bounds {
        serial: Some(SerialNumber::parse(&mac.serial()).expect("a serial number")),
        account: Some(account.to_owned()),
        se_public_key: None,
        protocol: Protocol::Scep,
    };
    let profile = scene.deliver_within(bounds).await;
    mac.install_profile(&profile).await.expect("enrols");
}

/// Whoever reads the internal API of everyone learns: who stands, who contends.
async fn stands_alone(scene: &Scene, serial: &str, device_id: &str, mac: &Mac) -> Value {
    let found = claimants(scene, serial).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0]["device_id"], device_id);
    assert_eq!(found[0]["udid"], mac.udid());
    assert_eq!(found[0]["contends_with"], Value::Null);
    found[0].clone()
}

/// The chain Apple would make of this Mac for this question.
fn chain(scene: &Scene, of: &MacSpec, asked: &Asked) -> [Vec<u8>; 2] {
    let key = generate(KeyKind::P384).expect("a key");
    let state = of.attested_state();
    let chain =
        scene
            .world
            .apple()
            .attest(&state, &key, asked.nonce.as_deref(), scene.now().millis());
    let chain = chain.expect("a chain");
    [chain.leaf, chain.intermediate]
}

/// Answers SecurityInfo and returns the question for an attestation.
async fn asked_for_attestation(mac: &Mac) -> Asked {
    let asked = talk::idle(mac).await.expect("a question");
    talk::report(mac, &asked).await.expect("a second question")
}

journey! {
    async fn a_stranger_who_copied_serial_and_udid_contends_and_the_holder_goes_on(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(4);
        let (alice, life) = scene.living_mac(spec()).await;
        let serial = alice.serial();
        scene.api.verdict(&serial, "affirming").await;
        let holder = claimants(&scene, &serial).await.remove(0);
        assert!(holder["serial_held_since"].is_string());
        let before = settled(&scene, &holder).await;
        drop(life);

        // By tickets that name the serial number and by one that names none; with Alice's UDID and
        // with another; with a Mac that is in a bad state, and shows another's chain.
        let mut strangers = Vec::new();
        for (open, same_udid) in [(false, true), (true, true), (false, false)] {
            let mut copied = MacSpec { boot: spec().with_sip_off().boot, ..alice.spec() };
            if !same_udid {
                copied.udid = spec().udid;
            }
            let mallory = scene.mac(copied.lying(Lie::RelaysAnotherMac(Box::new(spec().attested_state()))));
            let delivered = if open {
                scene.deliver("{}").await
            } else {
                scene.deliver_for(&serial).await
            };
            mallory.install_profile(&delivered.profile).await.expect("is accepted");
            let step = scene.step(&delivered.progress_id, "authenticated").await;
            assert_eq!((&step["standing"], &step["reason"]), (&json!("done"), &json!("pending_proof")));
            let life = mallory.live();
            strangers.push((mallory, life));
        }
        let found = claimants(&scene, &serial).await;
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], holder);
        for contender in &found[1..] {
            assert_eq!(contender["contends_with"], holder["device_id"]);
            eventually("it darkens itself", || async {
                posture(&scene, contender).await["verdict"] == "contraindicated"
            }).await;
        }
        // Nothing of it is about Alice, who is heard and asked as before.
        assert_eq!(settled(&scene, &holder).await, before);
        assert_eq!(told(alice.connect_with(&messages::idle(&alice.spec()), Signing::Own).await), accepted());
        let _life = alice.live();
        scene.api.verify(&serial, &["security_info"]).await;
        eventually("Alice answers", || async {
            settled(&scene, &holder).await["revision"].as_u64() > before["revision"].as_u64()
        }).await;
        assert_eq!(posture(&scene, &holder).await["verdict"], "affirming");
        // A contender leaves, and takes nothing with it.
        let (mallory, _life) = &strangers[0];
        mallory.remove_profile().await.expect("removed");
        assert_eq!(claimants(&scene, &serial).await[0]["enrollment_state"], "enrolled");
    }
}

journey! {
    async fn a_contender_that_is_only_good_is_not_trusted_before_its_proof(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (alice, life) = scene.living_mac(spec()).await;
        let serial = alice.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);
        // Alice's own chain, which anybody could read in the feed, shown by another Mac.
        let attested = scene.kept(&alice).await;
        let published = attested.posture.expect("a posture").attested.expect("a chain");
        let mallory = scene.mac(MacSpec { udid: spec().udid, ..alice.spec() });
        mallory.enroll(&scene.base_url).await.expect("is accepted");
        let question = asked_for_attestation(&mallory).await;
        let body = attested.evidence.iter().find(|one| one.evidence_id == published.evidence_id);
        let body: plist::Value = plist::from_bytes(&body.expect("kept").stored).expect("a plist");
        let responses = body.as_dictionary().and_then(|top| top["QueryResponses"].as_dictionary());
        let shown = responses.expect("responses")[attestd_sim::mac::ATTESTATION].as_array().expect("a chain");
        let shown: Vec<_> = shown.iter().map(|one| one.as_data().expect("DER").to_vec()).collect();
        talk::present(&mallory, &question, &shown).await;

        let found = claimants(&scene, &serial).await;
        assert_eq!((found.len(), &found[1]["contends_with"]), (2, &found[0]["device_id"]));
        let contender = posture(&scene, &found[1]).await;
        assert_eq!(contender["verdict"], "unknown");
        assert_eq!(contender["reasons"][0], "pending_proof");
        assert_eq!(contender["next_action"]["code"], "pending_proof");
        assert_eq!(contender["freshness"]["class"], "unrecognized");
        assert_eq!(posture(&scene, &found[0]).await["verdict"], "affirming");
    }
}

journey! {
    async fn apples_chain_on_its_own_channel_gives_a_contender_the_place(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let (mac, life) = scene.living_mac(spec()).await;
        let serial = mac.serial();
        let affirmed = scene.api.verdict(&serial, "affirming").await;
        let device_id = scene.api.device_id(&serial).await;
        drop(life);
        for new_udid in [false, true] {
            let former = mac.identity().expect("an identity");
            let pushed_to = mac.push_address().expect("an address").0;
            if new_udid {
                mac.change(|spec| spec.udid = MacSpec::random().expect("a Mac").udid);
            }
            let open = scene.api.verify(&serial, &["security_info"]).await;
            let escrow = messages::set_bootstrap_token(&mac.spec(), b"new");
            let delivered = scene.deliver_for(&serial).await;
            mac.install_profile(&delivered.profile).await.expect("enrols");
            assert_eq!(told(mac.check_in(&escrow, Signing::Own).await), accepted());
            let found = claimants(&scene, &serial).await;
            assert_eq!((found.len(), &found[0]["device_id"]), (2, &json!(device_id)));
            let contender = found[1]["device_id"].as_str().expect("an id").to_owned();
            let question = asked_for_attestation(&mac).await;
            assert_eq!(talk::present(&mac, &question, &chain(&scene, &mac.spec(), &question)).await, None);

            let device = stands_alone(&scene, &serial, &device_id, &mac).await;
            assert_eq!(device["enrollment_state"], "enrolled");
            let progress = scene.progress(&delivered.progress_id).await;
            assert_eq!(progress["state"], "done", "{progress:#}");
            assert_eq!(step_of(&progress, "authenticated")["reason"], Value::Null);
            let posture = scene.api.posture(&serial).await;
            assert_eq!((&posture["verdict"], &posture["freshness"]["class"]), (&json!("affirming"), &json!("fresh")));
            assert!(posture["revision"].as_u64() > affirmed["revision"].as_u64());
            let gone = scene.api.json(&format!("/internal/v1/devices/{contender}")).await;
            assert_eq!((&gone["enrollment_state"], &gone["contends_with"]), (&json!("superseded"), &json!(device_id)));
            let path = format!("/internal/v1/verifications/{}", open["verification_id"].as_str().expect("an id"));
            assert_eq!(scene.api.json(&path).await["state"], "superseded");

            // One certificate speaks for the Mac, at one address, and what it escrowed went with it.
            let idle = messages::idle(&mac.spec());
            assert_eq!(told(mac.connect_with(&idle, Signing::By(&former)).await), refused("not_enrolled"));
            let token = attestd_sim::plist_xml::dictionary([
                ("MessageType", "GetBootstrapToken".into()), ("UDID", mac.udid().into()),
            ]);
            let kept = mac.check_in(&token, Signing::Own).await.expect("an answer").plist().expect("a plist");
            assert_eq!(kept.as_dictionary().expect("a dictionary")["BootstrapToken"].as_data(), Some(&b"new"[..]));
            let pushes = scene.world.apns().seen_for(&pushed_to).len();
            let life = mac.live();
            let asked = scene.api.verify(&serial, &["security_info", "mda"]).await;
            let path = format!("/internal/v1/verifications/{}", asked["verification_id"].as_str().expect("an id"));
            eventually("it answers", || async {
                scene.api.json(&path).await["state"] == "answered"
            }).await;
            assert_eq!(scene.world.apns().seen_for(&pushed_to).len(), pushes);
            drop(life);
        }
        let events = scene.kept(&mac).await.events;
        let taken = events.iter().filter(|event| event.event.name == "device.taken_over");
        assert_eq!(taken.count(), 2);
    }
}

journey! {
    async fn negatives_of_a_proved_serial_survive_whoever_takes_the_place(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let mac = scene.mac(spec().with_sip_off());
        install_by_account(&scene, &mac, "alice").await;
        let life = mac.live();
        let serial = mac.serial();
        scene.api.first_reason(&serial, "sip_disabled").await;
        eventually("Apple proves the serial number", || async {
            scene.api.device(&serial).await.expect("a device")["serial_held_since"].is_string()
        }).await;
        drop(life);
        let device_id = scene.api.device_id(&serial).await;

        // At once, by a ticket of the same account: nothing is washed.
        install_by_account(&scene, &mac, "alice").await;
        stands_alone(&scene, &serial, &device_id, &mac).await;
        let again = scene.api.posture(&serial).await;
        assert_eq!((&again["verdict"], &again["reasons"][0]), (&json!("contraindicated"), &json!("sip_disabled")));

        // As a contender of another account, mended: what is asked for afterwards clears it.
        mac.change(|mended| mended.boot = MacSpec::random().expect("a Mac").boot);
        install_by_account(&scene, &mac, "bob").await;
        let found = claimants(&scene, &serial).await;
        assert_eq!(found[1]["contends_with"], device_id.as_str());
        assert_eq!(posture(&scene, &found[0]).await["verdict"], "contraindicated");
        let _life = mac.live();
        scene.api.verdict(&serial, "affirming").await;
        stands_alone(&scene, &serial, &device_id, &mac).await;
    }
}

journey! {
    async fn a_contenders_own_negatives_come_with_it(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (mac, life) = scene.living_mac(spec()).await;
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);
        mac.change(|broken| broken.filevault = false);
        mac.enroll(&scene.base_url).await.expect("enrols");
        let question = asked_for_attestation(&mac).await;
        assert_eq!(scene.api.posture(&serial).await["verdict"], "affirming", "not proved yet");
        talk::present(&mac, &question, &chain(&scene, &mac.spec(), &question)).await;
        let posture = scene.api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["reasons"][0]), (&json!("contraindicated"), &json!("filevault_off")));
    }
}

journey! {
    async fn what_nobody_proved_darkens_nobody_but_who_said_it(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let alice = scene.honest_mac();
        let serial = alice.serial();
        // First a stranger claims Alice's names, and says the worst of itself.
        let mallory = scene.mac(MacSpec { boot: spec().with_sip_off().boot, ..alice.spec() });
        mallory.enroll(&scene.base_url).await.expect("is accepted");
        let asked = talk::idle(&mallory).await.expect("a question");
        talk::report(&mallory, &asked).await;
        assert_eq!(scene.api.posture(&serial).await["reasons"][0], "sip_disabled");

        alice.enroll(&scene.base_url).await.expect("enrols");
        let posture = scene.api.posture(&serial).await;
        assert_eq!((&posture["verdict"], &posture["claims"]), (&json!("unknown"), &json!({})));
        let _life = alice.live();
        scene.api.verdict(&serial, "affirming").await;
        let idle = messages::idle(&mallory.spec());
        assert_eq!(told(mallory.connect_with(&idle, Signing::Own).await), refused("not_enrolled"));
    }
}

journey! {
    async fn the_first_to_prove_a_serial_holds_it_whoever_came_first(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let alice = scene.honest_mac();
        let serial = alice.serial();
        let mallory = scene.mac(MacSpec { udid: spec().udid, ..alice.spec() });
        mallory.enroll(&scene.base_url).await.expect("is accepted");
        alice.enroll(&scene.base_url).await.expect("enrols");
        let found = claimants(&scene, &serial).await;
        assert_eq!((found.len(), &found[1]["contends_with"]), (2, &Value::Null), "{found:#?}");

        let question = asked_for_attestation(&alice).await;
        talk::present(&alice, &question, &chain(&scene, &alice.spec(), &question)).await;
        let found = claimants(&scene, &serial).await;
        assert_eq!(found[0]["udid"], alice.udid());
        assert_eq!((&found[1]["udid"], &found[1]["contends_with"]), (&json!(mallory.udid()), &found[0]["device_id"]));
        assert_eq!(posture(&scene, &found[0]).await["verdict"], "affirming");
        let contender = posture(&scene, &found[1]).await;
        assert_eq!((&contender["verdict"], &contender["reasons"][0]), (&json!("unknown"), &json!("pending_proof")));
    }
}

journey! {
    async fn a_proof_that_was_not_followed_up_is_settled_later(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (mac, life) = scene.living_mac(spec()).await;
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);
        let device_id = scene.api.device_id(&serial).await;
        mac.enroll(&scene.base_url).await.expect("enrols");
        // The server ends between the proof and what follows from it.
        let contender = claimants(&scene, &serial).await.remove(1);
        let contender = attestd::ids::DeviceId::parse(contender["device_id"].as_str().expect("an id")).expect("an id");
        let proved = attestd::store::Changes { proved_at: Some(scene.now()), ..Default::default() };
        let store = &scene.ctx().store;
        store.exchange(&contender, None, None, move |_| (proved, ())).await.expect("is kept");
        assert_eq!(claimants(&scene, &serial).await.len(), 2);
        scene.sweep().await;
        stands_alone(&scene, &serial, &device_id, &mac).await;
        // What it had not answered is asked of it all the same.
        let _life = mac.live();
        scene.api.verdict(&serial, "affirming").await;
    }
}

journey! {
    async fn a_new_profile_renews_and_the_old_identity_is_heard_until_the_new_one_speaks(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let mac = scene.honest_mac();
        let by_key = async |key: &str| {
            let bounds = Bounds { se_public_key: Some(key.to_owned()), ..Bounds::default() };
            scene.deliver_within(bounds).await
        };
        mac.install_profile(&by_key("BPs").await).await.expect("enrols");
        let (old, former) = (mac.identity().expect("an identity"), mac.profile().expect("a profile"));
        let life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
        drop(life);
        let device_id = scene.api.device_id(&mac.serial()).await;

        let profile = by_key("BPs").await;
        let read = mac.read_profile(&profile).expect("a profile");
        assert_eq!((&read.identifier, &read.uuid), (&former.identifier, &former.uuid));
        let new = mac.identity_for(&read).await.expect("an identity");
        let idle = messages::idle(&mac.spec());
        assert_eq!(told(mac.connect_with(&idle, Signing::By(&new)).await), refused("not_enrolled"));
        assert_eq!(told(mac.connect_with(&idle, Signing::By(&old)).await), accepted());

        mac.install_profile_with(&profile, new).await.expect("enrols again");
        stands_alone(&scene, &mac.serial(), &device_id, &mac).await;
        assert_eq!(told(mac.connect_with(&idle, Signing::By(&old)).await), refused("not_enrolled"));
        // It begins anew, as every enrollment does.
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "unknown");
        let _life = mac.live();
        scene.api.verdict(&mac.serial(), "affirming").await;
    }
}

/// An identity as ACME device-attest-01 would have given it: Apple vouched for its serial number.
async fn attested_identity(scene: &Scene, serial: &str, key: usize) -> Identity {
    let now = scene.now();
    let ca = Issuer::root("An ACME authority", "Test", KeyKind::P256, now.millis());
    let year = 365 * 86_400_000;
    let made = ca.expect("an authority").client(
        &[(openssl::nid::Nid::COMMONNAME, serial)],
        rsa(key),
        now.millis() - year,
        now.millis() + year,
    );
    let made = made.expect("an identity");
    let der = made.certificate.to_der().expect("DER");
    let owned = OwnedCertificate::parse(der.clone()).expect("a certificate");
    let mut tx = scene.ctx().store.write().await.expect("begins");
    let record = Record {
        kind: IdentityKind::AcmeAttested,
        serial: SerialNumber::parse(serial).ok(),
        ..adopted(
            owned.hash(),
            der,
            (
                owned.certificate().not_before(),
                owned.certificate().not_after(),
            ),
            now,
        )
    };
    tx.insert_identity(&record).await.expect("is new");
    tx.commit().await.expect("commits");
    made
}

journey! {
    async fn an_identity_that_apple_attested_takes_the_place_at_once(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let (mac, life) = scene.living_mac(spec()).await;
        let serial = mac.serial();
        scene.api.verdict(&serial, "affirming").await;
        drop(life);
        let device_id = scene.api.device_id(&serial).await;
        let former = mac.identity().expect("an identity");
        let profile = scene.deliver("{}").await.profile;
        let attested = attested_identity(&scene, &serial, 11).await;
        mac.install_profile_with(&profile, attested).await.expect("enrols");
        stands_alone(&scene, &serial, &device_id, &mac).await;
        let idle = messages::idle(&mac.spec());
        assert_eq!(told(mac.connect_with(&idle, Signing::By(&former)).await), refused("not_enrolled"));
        let _life = mac.live();
        let posture = scene.api.verdict(&serial, "affirming").await;
        assert_eq!((&posture["device_id"], &posture["channel"]), (&json!(device_id), &json!("hardware_attested")));
    }
}

journey! {
    async fn an_identity_that_apple_attested_holds_its_serial_from_the_start(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let alice = scene.honest_mac();
        let serial = alice.serial();
        // A stranger came first, under both names, and a second one under the serial number.
        let first = scene.mac(alice.spec());
        first.enroll(&scene.base_url).await.expect("is accepted");
        let second = scene.mac(MacSpec { udid: spec().udid, ..alice.spec() });
        second.enroll(&scene.base_url).await.expect("is accepted");
        let attested = attested_identity(&scene, &serial, 11).await;
        let profile = scene.deliver("{}").await.profile;
        alice.install_profile_with(&profile, attested).await.expect("enrols");
        let found = claimants(&scene, &serial).await;
        assert_eq!(found.len(), 2, "{found:#?}");
        assert_eq!((&found[0]["udid"], &found[0]["identity"]["kind"]), (&json!(alice.udid()), &json!("acme_attested")));
        assert!(found[0]["serial_held_since"].is_string());
        assert_eq!(found[1]["contends_with"], found[0]["device_id"]);
        // Nobody attested gets it by a serial number that is not its own.
        let other = attested_identity(&scene, "SIM0000001", 12).await;
        let outcome = scene.mac(alice.spec()).install_profile_with(&profile, other).await;
        let refusal = outcome.expect_err("a refusal");
        assert_eq!(told(refusal.reply().cloned().ok_or(refusal)), refused("serial_mismatch"));
    }
}
