//! A program that is no Mac speaks for a clean one: its owner has the clean Mac answer our question to
//! Apple (under another MDM server, say) and hands the genuine chain in. Everything Apple signs is true
//! then, except that nothing of it is about the machine that speaks. What stops it is the channel: the
//! key that signs what a Mac says must be one that Apple attested, and that key cannot leave its Mac.

use std::time::Duration;

use attestd_sim::mac::messages;
use attestd_sim::{Identity, Lie, MacError, MacSpec, Signing};
use serde_json::json;

use super::{answered, enroll_in_software, reasons, routed};
use crate::harness::plane::{OWNER, Plane};
use crate::harness::public_side::{refused, told};

/// The program: it names the clean Mac's serial number, says that all is well, and has the clean Mac
/// attest whatever it is asked.
fn program(clean: &MacSpec) -> MacSpec {
    let other = MacSpec::random().expect("a Mac");
    let relayed = Lie::RelaysAnotherMac(Box::new(clean.attested_state()));
    MacSpec {
        udid: other.udid,
        ..clean.clone()
    }
    .lying(relayed)
}

journey! {
    async fn a_clean_macs_chain_relayed_by_a_program_is_no_hardware(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let clean = MacSpec::random().expect("a Mac");
        let program = scene.mac(program(&clean));
        enroll_in_software(&plane, &program, Some(OWNER)).await;
        let life = program.live();
        let provider = plane.provider_on(&program);
        api.bound("s", &provider, Some(OWNER)).await;
        // All that Apple and the "system" say is good, new, and names this key.
        let binding = plane.once("s", "named", |it| it["se_key_bound"] == "bound").await;
        let posture = api.verdict(&clean.serial, "affirming").await;
        assert_eq!((&posture["freshness"]["class"], &posture["channel"]), (&json!("fresh"), &json!("software")));
        assert_eq!((&binding["trust_level"], reasons(&binding)[0]), (&json!("self_signed"), "channel_not_attested"));
        let binding = answered(&plane, "s", &provider).await;
        assert_eq!((&binding["routable"], reasons(&binding)), (&json!(false), vec!["channel_not_attested"]));
        assert_eq!((&binding["trust_level"], &binding["routable_until"]), (&json!("self_signed"), &json!(null)));
        drop(life);
    }
}

journey! {
    /// What a policy gives up that asks for no attested channel: nothing else stops a relay.
    async fn where_no_attested_channel_is_asked_for_a_relay_is_as_good_as_a_mac(backend: Backend) {
        let changes = [("release = true", "release = false"), ("attested_channel = true", "attested_channel = false")];
        let plane = Plane::changed(backend, &changes, "").await;
        let clean = MacSpec::random().expect("a Mac");
        let program = plane.scene.mac(program(&clean));
        enroll_in_software(&plane, &program, Some(OWNER)).await;
        let life = program.live();
        let binding = routed(&plane, "s", &plane.provider_on(&program)).await;
        assert_eq!((&binding["routable"], &binding["residence_proved"]), (&json!(true), &json!(false)));
        let posture = plane.scene.api.posture(&clean.serial).await;
        assert_eq!(posture["channel"], "software");
        drop(life);
    }
}

journey! {
    async fn a_program_gets_no_attested_identity_of_a_clean_mac(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let (clean, life, _) = plane.routed().await;
        drop(life);
        // Apple's statement is about a key in the clean Mac's Secure Enclave; the program has another.
        let program = scene.mac(program(&clean.spec()).lying(Lie::FinalizesWithAnotherKey));
        let delivered = scene.deliver_for(&clean.serial()).await;
        let refusal = program.install_profile(&delivered.profile).await.expect_err("no identity");
        assert!(matches!(&refusal, MacError::Acme(_)) && refusal.chain().contains("badCSR"), "{}", refusal.chain());
        // Nor does the certificate help, which is no secret, without its key.
        let own = attestd_sim::keys::generate(attestd_sim::keys::KeyKind::P384).expect("a key");
        let identity = clean.identity().expect("an identity");
        let borrowed = Identity { key: own, ..identity };
        let idle = messages::idle(&clean.spec());
        let outcome = clean.connect_with(&idle, Signing::By(&borrowed)).await;
        assert_eq!(told(outcome), refused("signature_invalid"));
        assert_eq!(scene.api.binding("s").await["routable"], true);
    }
}

journey! {
    async fn a_program_in_a_clean_macs_place_has_its_proof_and_not_its_trust(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (clean, life, provider) = plane.routed().await;
        drop(life);
        let program = scene.mac(program(&clean.spec()));
        enroll_in_software(&plane, &program, Some(OWNER)).await;
        let life = program.live();
        api.challenge("s", &provider).await;
        let binding = plane.once("s", "spoken for by the program", |it| it["routable"] == false).await;
        assert_ne!(binding["trust_level"], "hardware");
        plane.once("s", "not attested", |it| reasons(it).contains(&"channel_not_attested")).await;
        drop(life);
        // The clean Mac itself is known by its key again, and the program by nothing. It has been woken
        // twice within the hour, as often as may be.
        scene.pass(Duration::from_secs(3600));
        plane.enroll(&clean, Some(OWNER), None).await;
        let life = clean.live();
        let binding = routed(&plane, "s", &provider).await;
        assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(true), &json!("hardware")));
        let idle = messages::idle(&program.spec());
        assert_eq!(told(program.connect_with(&idle, Signing::Own).await), refused("not_enrolled"));
        drop(life);
    }
}
