//! A Mac that was seen in a bad state enrols again, to begin with a clean sheet.

use std::time::Duration;

use attestd_sim::{Lie, MacError, MacSpec};
use serde_json::json;

use super::{answered, enroll_in_software, reasons, routed};
use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};

journey! {
    async fn a_new_enrollment_washes_no_negative_whatever_it_enrols_with(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, provider) = plane.routed().await;
        scene.pass(Duration::from_secs(3600));
        let spec = mac.spec().with_sip_off();
        mac.change(|it| *it = spec);
        api.verify(&mac.serial(), &["security_info"]).await;
        api.first_reason(&mac.serial(), "sip_disabled").await;
        drop(life);

        // With the statement that Apple made when all was well: it is for another token.
        scene.pass(Duration::from_secs(3600));
        mac.change(|spec| spec.lie = Some(Lie::ReplaysOldStatement));
        let delivered = scene.deliver_for(&mac.serial()).await;
        let refusal = mac.install_profile(&delivered.profile).await.expect_err("no identity");
        assert!(matches!(refusal, MacError::Acme(_)), "{}", refusal.chain());
        // With a key in software, of the same account, of another, of none; then with a new identity,
        // for which Apple says how it is. The system claims each time that all is well.
        let lying = mac.spec().lying(Lie::SipOffButClaimsOn);
        mac.change(|spec| *spec = lying);
        for round in 0..4 {
            scene.pass(Duration::from_secs(3600));
            match round {
                0 => enroll_in_software(&plane, &mac, Some(OWNER)).await,
                1 => enroll_in_software(&plane, &mac, Some("acct-other")).await,
                2 => enroll_in_software(&plane, &mac, None).await,
                _ => plane.enroll(&mac, Some(OWNER), None).await,
            }
            mac.connect().await.expect("a session");
            let binding = answered(&plane, "s", &provider).await;
            assert_eq!((&binding["routable"], &binding["trust_level"]), (&json!(false), &json!("self_signed")), "{round}");
            let posture = api.posture(&mac.serial()).await;
            assert_eq!((&posture["verdict"], reasons(&posture)[0]), (&json!("contraindicated"), "sip_disabled"), "{round}");
        }

        // Mended, and asked afterwards.
        scene.pass(Duration::from_secs(3600));
        let on = MacSpec::random().expect("a Mac").boot;
        mac.change(|spec| (spec.lie, spec.boot) = (None, on));
        mac.remove_profile().await.expect("a CheckOut");
        plane.enroll(&mac, Some(OWNER), None).await;
        let life = mac.live();
        let binding = routed(&plane, "s", &provider).await;
        assert_eq!(binding["routable"], true);
        eventually("nothing is held", async || api.posture(&mac.serial()).await["reasons"] == json!([])).await;
        drop(life);
    }
}
