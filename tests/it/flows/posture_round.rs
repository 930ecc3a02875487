//! The main job once, end to end: profile, identity, check-in, push, signed reply, Apple chain,
//! verdict, internal API.

use attestd_sim::{Lie, MacSpec};

use crate::harness::scene::Scene;

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

journey! {
    async fn an_honest_mac_is_affirmed_by_two_kinds_of_evidence(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, _life) = scene.living_mac(spec()).await;
        let serial = mac.spec().serial;

        let posture = scene.api.verdict(&serial, "affirming").await;
        assert_eq!(posture["trust_level"], "none");
        assert_eq!(posture["reasons"], serde_json::json!(["provider_not_bound", "channel_not_attested"]));
        assert_eq!(posture["anchor"], "custom");
        assert_eq!(posture["channel"], "software");
        assert_eq!(posture["freshness"]["class"], "fresh");
        let claims = &posture["claims"];
        assert_eq!(claims["sip"]["assurance"], "device_reported");
        assert_eq!(claims["sip#mda"]["assurance"], "apple_signed");
        assert_eq!(claims["sip#mda"]["value"], true);
        assert_eq!(claims["secure_boot#mda"]["raw"], "Full Security");
        assert_eq!(claims["third_party_kexts"]["value"], false);
        assert_eq!(claims["filevault"]["value"], true);
        assert_eq!(claims["serial_number"]["value"], serial.as_str());
    }
}

journey! {
    async fn a_mac_that_denies_what_apple_says_is_contraindicated_cause_first(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, _life) = scene.living_mac(spec().lying(Lie::SipOffButClaimsOn)).await;
        let posture = scene.api.verdict(&mac.spec().serial, "contraindicated").await;
        let reasons: Vec<_> =
            posture["reasons"].as_array().expect("a list").iter().filter_map(|r| r.as_str()).collect();
        assert_eq!(reasons[0], "sip_disabled");
        assert!(reasons.contains(&"evidence_conflict"));
    }
}

journey! {
    async fn another_macs_genuine_chain_is_a_serial_mismatch(backend: Backend) {
        let scene = Scene::new(backend).await;
        let other = spec().attested_state();
        let (mac, _life) = scene.living_mac(spec().lying(Lie::RelaysAnotherMac(Box::new(other)))).await;
        let posture = scene.api.verdict(&mac.spec().serial, "contraindicated").await;
        assert_eq!(posture["reasons"][0], "serial_mismatch");
    }
}

journey! {
    async fn a_foreign_signature_never_darkens_the_mac_it_names(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, _life) = scene.living_mac(spec().lying(Lie::SignsWithWrongIdentity(None))).await;
        let posture = scene.api.first_reason(&mac.spec().serial, "identity_mismatch").await;
        assert_eq!(posture["verdict"], "unknown");
        assert_eq!(posture["claims"], serde_json::json!({}));
    }
}
