//! SIP is switched off, the provider's client is patched and answers every challenge as before, and the
//! Mac shows the chain of when SIP was on, again and again, past the seven days after which Apple would
//! make another.

use std::time::Duration;

use attestd_sim::{Lie, Mac, MacSpec, Provider};
use serde_json::{Value, json};

use super::{answered, reasons, routed};
use crate::harness::plane::Plane;
use crate::harness::talk;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From now on the Mac answers Apple's question with the first chain it ever got.
fn replays(mac: &Mac) {
    mac.change(|spec| spec.lie = Some(Lie::ReplaysOldChain));
}

/// Its system tells what is so: SIP is off.
fn sip_off(mac: &Mac) {
    let off = MacSpec::random().expect("a Mac").with_sip_off().boot;
    mac.change(|spec| spec.boot = off);
}

/// SIP is on again; or the system says so, while the chain is an old one.
fn says_sip_on(mac: &Mac) {
    let on = MacSpec::random().expect("a Mac").boot;
    mac.change(|spec| spec.boot = on);
}

/// Some days later the Mac is asked for both kinds, and answers what it will.
async fn asked_after(plane: &Plane, mac: &Mac, days: u32) {
    plane.scene.pass(days * DAY);
    plane
        .scene
        .api
        .verify(&mac.serial(), &["security_info", "mda"])
        .await;
    assert_eq!(mac.connect().await.expect("a session").answered, 2);
}

/// The session of the patched client, and what is believed of its Mac.
async fn seen(plane: &Plane, mac: &Mac, client: &Provider) -> (Value, Value) {
    let binding = answered(plane, "s", client).await;
    (binding, plane.scene.api.posture(&mac.serial()).await)
}

/// Apple is asked in earnest, and trust is back.
async fn comes_back_by_newer_evidence(plane: &Plane, mac: &Mac, client: &Provider, days: u32) {
    mac.change(|spec| spec.lie = None);
    says_sip_on(mac);
    asked_after(plane, mac, days).await;
    let binding = routed(plane, "s", client).await;
    assert_eq!(
        (&binding["routable"], &binding["trust_level"]),
        (&json!(true), &json!("hardware"))
    );
    let posture = plane.scene.api.posture(&mac.serial()).await;
    assert_eq!(posture["freshness"]["minted_at"], json!(plane.scene.now()));
}

journey! {
    async fn sip_off_that_the_system_tells_is_not_undone_by_the_old_chain(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life, client) = plane.routed().await;
        drop(life);
        replays(&mac);
        sip_off(&mac);
        plane.scene.pass(DAY);
        plane.scene.api.verify(&mac.serial(), &["security_info"]).await;
        mac.connect().await.expect("a session");
        let (binding, posture) = seen(&plane, &mac, &client).await;
        assert_eq!(posture["verdict"], "contraindicated");
        assert_eq!(reasons(&posture)[..2], ["sip_disabled", "secure_boot_off"]);
        assert!(reasons(&posture).contains(&"evidence_conflict"), "{posture:#}");
        assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));

        // Then the system is patched, too: all say that all is well, with the chain of then.
        says_sip_on(&mac);
        for days in [7, 1, 3, 10] {
            asked_after(&plane, &mac, days).await;
            let (binding, posture) = seen(&plane, &mac, &client).await;
            assert_eq!(posture["claims"]["sip"]["age"], "fresh");
            assert_eq!((&posture["freshness"]["class"], &posture["claims"]["sip#mda"]["age"]), (&json!("cached_known"), &json!("voided")));
            assert_eq!((&posture["verdict"], reasons(&posture)[0]), (&json!("unknown"), "attestation_withheld"));
            assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));
        }
        comes_back_by_newer_evidence(&plane, &mac, &client, 1).await;
    }
}

journey! {
    async fn sip_off_about_which_the_system_is_silent_ends_trust_within_a_day(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life, client) = plane.routed().await;
        drop(life);
        replays(&mac);
        sip_off(&mac);
        let made_at = plane.scene.api.posture(&mac.serial()).await["freshness"]["minted_at"].clone();
        for days in [1, 7, 3] {
            plane.scene.pass(days * DAY);
            plane.scene.api.verify(&mac.serial(), &["security_info", "mda"]).await;
            // SecurityInfo cannot be had. Where Apple's statement is asked for, the old one comes.
            let asked = talk::idle(&mac).await.expect("a question");
            assert_eq!(asked.kind, "SecurityInfo");
            if talk::answer(&mac, &asked, "Error").await.is_some() {
                mac.connect().await.expect("a session");
            }
            let (binding, posture) = seen(&plane, &mac, &client).await;
            assert_eq!((&posture["verdict"], &posture["claims"]["sip"]["age"]), (&json!("unknown"), &json!("expired")));
            assert_eq!(posture["freshness"]["minted_at"], made_at);
            assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));
        }
        assert_eq!(plane.scene.api.posture(&mac.serial()).await["freshness"]["class"], "cached_known");
        // At last the system tells.
        mac.connect().await.expect("a session");
        plane.scene.pass(DAY);
        plane.scene.api.verify(&mac.serial(), &["security_info"]).await;
        mac.connect().await.expect("a session");
        let (_, posture) = seen(&plane, &mac, &client).await;
        assert_eq!((&posture["verdict"], reasons(&posture)[0]), (&json!("contraindicated"), "sip_disabled"));
        comes_back_by_newer_evidence(&plane, &mac, &client, 1).await;
    }
}

journey! {
    /// Whoever lies in everything lives on what Apple once said: for fourteen days, the last seven of
    /// them under a warning, and not an hour longer.
    async fn an_old_chain_carries_a_liar_for_its_fourteen_days_and_never_again(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (mac, life, client) = plane.routed().await;
        drop(life);
        replays(&mac);
        asked_after(&plane, &mac, 8).await;
        let (binding, posture) = seen(&plane, &mac, &client).await;
        assert_eq!((&posture["verdict"], reasons(&posture)), (&json!("warning"), vec!["attestation_withheld"]));
        assert_eq!(reasons(&binding), [""; 0]);
        for days in [6, 1, 7] {
            asked_after(&plane, &mac, days).await;
            let (binding, posture) = seen(&plane, &mac, &client).await;
            assert_eq!((&posture["verdict"], &posture["freshness"]["class"]), (&json!("unknown"), &json!("cached_known")));
            assert_eq!(posture["claims"]["sip#mda"]["age"], "expired");
            assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));
        }
        comes_back_by_newer_evidence(&plane, &mac, &client, 1).await;
    }
}
