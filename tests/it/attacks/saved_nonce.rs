//! A question of a former enrollment is kept, with the statement Apple made for it while all was well,
//! to be shown when Apple would say something else.

use std::time::Duration;

use attestd_sim::{Lie, MacSpec};
use serde_json::json;

use super::{enroll_in_software, genuine_chain, reasons};
use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::talk;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Apple is asked at once, whether or not there is a provider's key to name.
const NO_HOLD: &str = "[attestation]\nhold = \"0s\"\n";

journey! {
    async fn a_statement_for_a_former_enrollments_nonce_is_dated_by_nothing(backend: Backend) {
        let plane = Plane::changed(backend, &[("release = true", "release = false")], NO_HOLD).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        enroll_in_software(&plane, &mac, Some(OWNER)).await;
        let asked = talk::idle(&mac).await.expect("a question");
        let question = talk::report(&mac, &asked).await.expect("the question to Apple");
        let saved = genuine_chain(&plane, &mac, &question);
        mac.remove_profile().await.expect("a CheckOut");

        // SIP is off since, the system says that it is on, and the profile is installed again.
        scene.pass(DAY);
        let spec = mac.spec().lying(Lie::SipOffButClaimsOn);
        mac.change(|it| *it = spec);
        enroll_in_software(&plane, &mac, Some(OWNER)).await;
        let asked = talk::idle(&mac).await.expect("a question");
        let again = talk::report(&mac, &asked).await.expect("the question to Apple");
        assert_ne!(again.nonce, question.nonce);
        talk::present(&mac, &again, &saved).await;
        let posture = api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], reasons(&posture)[0]), (&json!("unknown"), "nonce_unrecognized"));
        assert_eq!((&posture["freshness"]["class"], &posture["freshness"]["minted_at"]), (&json!("unrecognized"), &json!(null)));
        assert_eq!(posture["claims"]["sip#mda"]["age"], "undated");
        assert_eq!(api.device(&mac.serial()).await.expect("known")["serial_held_since"], json!(null));
    }
}

journey! {
    /// Where Apple proved the serial number anew, a nonce of before is known, and as old as it is.
    async fn what_a_former_enrollment_saved_is_as_old_as_its_nonce_and_undoes_no_negative(backend: Backend) {
        let plane = Plane::changed(backend, &[("release = true", "release = false")], NO_HOLD).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let mac = scene.honest_mac();
        plane.enroll(&mac, Some(OWNER), None).await;
        let asked = talk::idle(&mac).await.expect("a question");
        let question = talk::report(&mac, &asked).await.expect("the question to Apple");
        let saved = genuine_chain(&plane, &mac, &question);
        mac.remove_profile().await.expect("a CheckOut");

        // It enrols as it is, SIP off: Apple says so when it makes the identity.
        scene.pass(DAY);
        let off = MacSpec::random().expect("a Mac").with_sip_off().boot;
        mac.change(|spec| spec.boot = off);
        plane.enroll(&mac, Some(OWNER), None).await;
        api.first_reason(&mac.serial(), "sip_disabled").await;
        // What the system says of itself from here on, and what was saved, weigh nothing against it.
        scene.pass(DAY);
        let on = MacSpec::random().expect("a Mac").boot;
        mac.change(|spec| spec.boot = on);
        let asked = talk::idle(&mac).await.expect("a question");
        let again = talk::report(&mac, &asked).await.expect("the question to Apple");
        talk::present(&mac, &again, &saved).await;
        eventually("the saved statement was answered with", async || {
            scene.kept(&mac).await.evidence.len() >= 3
        }).await;
        let posture = api.posture(&mac.serial()).await;
        assert_eq!((&posture["verdict"], reasons(&posture)[0]), (&json!("contraindicated"), "sip_disabled"));
        let provider = plane.provider_on(&mac);
        let binding = super::answered(&plane, "s", &provider).await;
        assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")));
    }
}
