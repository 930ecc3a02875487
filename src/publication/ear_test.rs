//! What a result says of Macs in good and bad order.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::ear::{Ear, LIFETIME, Sources, Status, Vector};
use super::forecast::Subject;
use super::forecast_test::{DAY, at, good, policy, report};
use super::posture_v1::{self, PostureV1};
use crate::attestation::Anchor;
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::posture::policy::{ADOPTED, DARKBLOOM_2026, STRICT};
use crate::posture::{Posture, Reported, Verdict};
use crate::reason::Reason;
use crate::time::Timestamp;

fn posture(mac: &Subject, rules: &str, now: Timestamp) -> PostureV1 {
    PostureV1::new(&posture_v1::Sources {
        mac: &mac.mac,
        policy: &policy(rules),
        anchor: Anchor::Custom,
        session: None,
        process: None,
        now,
    })
}

fn ear(posture: &PostureV1) -> Option<Ear> {
    Ear::new(Sources {
        posture,
        issuer: "https://mdm.example.org",
        subject: "subject",
        jti: "res_1".to_owned(),
        version: "1.2.3",
        policy: "https://mdm.example.org/v1/policies/00".to_owned(),
        nonce: Some(b"their nonce"),
        freshness: Some([7; 32]),
        seal: None,
    })
}

fn vector(mac: &Subject, rules: &str, now: Timestamp) -> (Status, Value) {
    let ear = ear(&posture(mac, rules, now)).expect("was appraised");
    let device = &ear.submods["device"];
    assert_eq!(device.ear_status, ear.ear_status);
    (
        ear.ear_status,
        serde_json::to_value(device.ear_trustworthiness_vector).expect("JSON"),
    )
}

fn bad(mac: &mut Subject, facts: SecurityInfo, seconds: u64) {
    let report = Reported {
        facts,
        evidence_id: crate::ids::EvidenceId::of(b"bad"),
        asked_at: at(seconds),
        observed_at: at(seconds),
        channel: mac.mac.channel,
    };
    mac.mac.posture.report(report, at(seconds));
}

#[test]
fn a_mac_in_good_order_is_affirmed_for_as_long_as_the_result_rests_on_anything() {
    let mac = good();
    let shown = posture(&mac, STRICT, at(60));
    let ear = ear(&shown).expect("was appraised");
    assert_eq!(ear.eat_profile, "tag:ietf.org,2026:rats/ear#04");
    assert_eq!(ear.iat, at(60).seconds());
    assert_eq!(ear.exp, at(60).plus(LIFETIME).seconds());
    assert_eq!(
        ear.ear_verifier_id.build,
        "attestd 1.2.3 (not Apple's root)"
    );
    let shown = serde_json::to_value(&ear).expect("JSON");
    assert_eq!(shown["eat_nonce"], "dGhlaXIgbm9uY2U");
    let device = &shown["submods"]["device"];
    assert_eq!(
        device["ear_trustworthiness_vector"],
        json!({
            "instance-identity": 2, "configuration": 2, "file-system": 2, "hardware": 2,
            "storage-opaque": 2,
        })
    );
    assert_eq!(device["attestd"]["anchor"], "custom");
    assert_eq!(device["attestd"]["se_key_bound"], "bound");
    let read: Ear = serde_json::from_value(shown).expect("reads back");
    assert_eq!(read, ear);

    // SecurityInfo ends a day after it was reported.
    let late = posture(&mac, STRICT, at(DAY - 60));
    let exp = self::ear(&late).expect("was appraised").exp;
    assert_eq!(exp, at(DAY).seconds());
}

#[test]
fn what_is_only_reported_is_a_lesser_configuration_and_names_nobody() {
    let mut mac = good();
    mac.mac.posture.attested = None;
    mac.mac.posture.named = None;
    let (status, vector) = vector(&mac, DARKBLOOM_2026, at(60));
    assert_eq!(status, Status::Affirming);
    assert_eq!(
        vector,
        json!({ "configuration": 3, "file-system": 2, "storage-opaque": 2 })
    );
}

#[test]
fn what_is_bad_is_contraindicated() {
    let facts = |sip, boot, root| SecurityInfo {
        sip_enabled: Some(sip),
        secure_boot: Some(boot),
        authenticated_root: Some(root),
        filevault_enabled: Some(true),
        ..SecurityInfo::default()
    };
    for facts in [
        facts(false, SecureBootLevel::Full, true),
        facts(true, SecureBootLevel::Medium, true),
        facts(true, SecureBootLevel::Off, true),
    ] {
        let mut mac = good();
        bad(&mut mac, facts, 60);
        let (status, vector) = vector(&mac, STRICT, at(120));
        assert_eq!(
            (status, &vector["configuration"]),
            (Status::Contraindicated, &json!(96))
        );
    }
    for (reason, identity) in [
        (Reason::Revoked, 96),
        (Reason::SerialMismatch, 96),
        (Reason::ChainInvalid, 99),
    ] {
        let mut mac = good();
        mac.mac.posture.hold(reason, None, at(60));
        let (status, vector) = vector(&mac, STRICT, at(120));
        assert_eq!(
            (status, &vector["instance-identity"]),
            (Status::Contraindicated, &json!(identity)),
            "{reason:?}"
        );
    }
}

#[test]
fn what_has_ended_is_not_affirmed_and_what_never_was_has_no_result() {
    let (status, vector) = vector(&good(), STRICT, at(2 * DAY));
    assert_eq!(status, Status::None);
    assert_eq!(vector["configuration"], 36);
    assert_eq!(vector.get("file-system"), None, "{vector}");

    let mut nobody = good();
    nobody.mac.posture = Posture::unknown(nobody.mac.device_id.clone(), at(0));
    assert_eq!(ear(&posture(&nobody, STRICT, at(60))), None);
}

#[test]
fn tiers_of_the_draft() {
    for (value, status) in [
        (0, Status::None),
        (1, Status::None),
        (-1, Status::None),
        (2, Status::Affirming),
        (31, Status::Affirming),
        (-32, Status::Affirming),
        (32, Status::Warning),
        (95, Status::Warning),
        (-33, Status::Warning),
        (-96, Status::Warning),
        (96, Status::Contraindicated),
        (127, Status::Contraindicated),
        (-97, Status::Contraindicated),
        (-128, Status::Contraindicated),
    ] {
        assert_eq!(Status::of_value(value), status, "{value}");
    }
    assert_eq!(Vector::default().worst(), Status::None);
}

proptest! {
    /// The rule of the draft: a status is no better than the worst of its vector; and no result
    /// outlasts what it rests on.
    #[test]
    fn no_status_is_better_than_its_vector(
        (sip, boot, filevault, root) in (any::<Option<bool>>(), 0..4_u8, any::<Option<bool>>(), any::<Option<bool>>()),
        (attested, named, held) in (any::<bool>(), any::<bool>(), 0..5_usize),
        rules in prop::sample::select(vec![STRICT, ADOPTED, DARKBLOOM_2026]),
        after in 0..40 * DAY,
    ) {
        let mut mac = good();
        if !attested {
            mac.mac.posture.attested = None;
        }
        if !named {
            mac.mac.posture.named = None;
        }
        let secure_boot = [
            SecureBootLevel::Full, SecureBootLevel::Medium, SecureBootLevel::Off, SecureBootLevel::NotSupported,
        ][usize::from(boot)];
        bad(&mut mac, SecurityInfo {
            sip_enabled: sip,
            secure_boot: Some(secure_boot),
            filevault_enabled: filevault,
            authenticated_root: root,
            ..SecurityInfo::default()
        }, 60);
        let reasons = [Reason::Revoked, Reason::SerialMismatch, Reason::ChainInvalid, Reason::EvidenceConflict];
        if let Some(reason) = reasons.get(held) {
            mac.mac.posture.hold(*reason, None, at(90));
        }
        let now = at(120).plus(Duration::from_secs(after));
        let shown = posture(&mac, rules, now);
        let result = ear(&shown).expect("was appraised");
        let worst = result.submods["device"].ear_trustworthiness_vector.worst();
        if result.ear_status == Status::Affirming {
            prop_assert_eq!(worst, Status::Affirming);
        } else if result.ear_status != Status::None {
            prop_assert!(result.ear_status >= worst, "{:?} {:?}", result.ear_status, worst);
            prop_assert!(worst >= Status::Warning);
        }
        if shown.verdict == Verdict::Affirming {
            let end = shown.usable_until.expect("ends");
            prop_assert!(result.exp <= end.seconds());
        }
        prop_assert!(result.iat <= result.exp);
        // A key that nobody names is never an identity.
        if !named {
            prop_assert_ne!(result.submods["device"].ear_trustworthiness_vector.instance_identity, Some(2));
        }
    }
}

#[test]
fn a_later_report_makes_a_mac_whole_again() {
    let mut mac = good();
    bad(
        &mut mac,
        SecurityInfo {
            sip_enabled: Some(false),
            ..SecurityInfo::default()
        },
        60,
    );
    report(&mut mac, Some(true), 3_600);
    let (status, _) = vector(&mac, DARKBLOOM_2026, at(3_700));
    assert_eq!(status, Status::Affirming);
}
