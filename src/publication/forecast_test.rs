//! What another policy would change, Mac by Mac and demand by demand.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::forecast::{Change, Demand, Seen, Subject, Summary};
use super::posture_v1::Believed;
use crate::attestation::statement::SecureBoot;
use crate::attestation::{Freshness, Statement};
use crate::entropy::SeededEntropy;
use crate::ids::{BindingId, DeviceId, EvidenceId, SerialNumber, SessionId};
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::posture::appraisal::Relation;
use crate::posture::key_binding::{KeyBinding, Proof};
use crate::posture::policy::{ADOPTED, DARKBLOOM_2026, Policy, STRICT};
use crate::posture::trust::Level;
use crate::posture::{Attested, Channel, Occasion, Posture, Reported, Verdict};
use crate::provider::session::Registration;
use crate::provider::{EncryptionKey, SePublicKey, Session};
use crate::reason::Reason;
use crate::time::Timestamp;

pub(super) const DAY: u64 = 24 * 3_600;

/// The generator of P-256: a point like any.
pub(super) fn key() -> String {
    let point = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                 4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    STANDARD.encode(hex::decode(point).expect("hexadecimal"))
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_790_847_007).plus(Duration::from_secs(seconds))
}

pub(super) fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("shipped")
}

fn serial() -> SerialNumber {
    SerialNumber::parse("SIMQ4T2W7P").expect("well formed")
}

/// A Mac in good order with an attested channel, its key named by Apple.
pub(super) fn good() -> Subject {
    let device_id = DeviceId::new(at(0), &SeededEntropy::new(1));
    let mut posture = Posture::unknown(device_id.clone(), at(0));
    posture.prove_key(&key(), Proof::Ticket, at(0));
    let statement = Attested {
        occasion: Occasion::Mda,
        facts: Statement {
            serial: Some(serial()),
            sip_enabled: Some(true),
            secure_boot: Some(SecureBoot::Full),
            third_party_kexts: Some(false),
            ..Statement::default()
        },
        freshness: Freshness::Fresh {
            minted_at: at(0),
            se_public_key: key(),
        },
        evidence_id: EvidenceId::of(b"chain"),
        observed_at: at(0),
        issued_by: None,
        not_after: at(90 * DAY),
    };
    posture.attest(statement, at(0));
    let mac = Believed {
        device_id,
        serial: Some(serial()),
        relation: Relation {
            enrolled: true,
            contends: false,
            identity_ends: Some(at(365 * DAY)),
        },
        channel: Channel::HardwareAttested,
        posture,
        attempt: Vec::new(),
    };
    let mut subject = Subject {
        mac,
        sessions: Vec::new(),
    };
    report(&mut subject, Some(true), 0);
    subject
}

pub(super) fn report(subject: &mut Subject, filevault: Option<bool>, seconds: u64) {
    let report = Reported {
        facts: SecurityInfo {
            sip_enabled: Some(true),
            secure_boot: Some(SecureBootLevel::Full),
            filevault_enabled: filevault,
            authenticated_root: Some(true),
            ..SecurityInfo::default()
        },
        evidence_id: EvidenceId::of(b"report"),
        asked_at: at(seconds),
        observed_at: at(seconds),
        channel: subject.mac.channel,
    };
    subject.mac.posture.report(report, at(seconds));
}

/// A session of the Mac's key, its blob good and its challenge answered at 60 s.
fn session() -> Seen {
    let registration = Registration {
        key: SePublicKey::parse(&key()).expect("a key"),
        encryption_key: EncryptionKey::parse(&STANDARD.encode([7; 32])).expect("a key"),
        provider_version: None,
        account: None,
        claimed_serial: Some(serial()),
        blob: b"{}".to_vec(),
        signature: String::new(),
    };
    let session_id = SessionId::parse("session-1").expect("well formed");
    let binding_id = BindingId::new(at(0), &SeededEntropy::new(2));
    let mut session = Session::begin(session_id, binding_id, registration.judge(at(0)), at(0));
    // What its blob is worth is told elsewhere.
    session.blob_reasons.clear();
    session.liveness = serde_json::from_value(json!({
        "last_good_at": at(60), "counted_up_to": null, "time_outs": 0, "outstanding": null,
        "due_at": at(360), "refused": null, "reported_bad": null,
    }))
    .expect("its form");
    Seen {
        session,
        release: None,
    }
}

fn change(subject: &Subject, from: &str, to: &str, seconds: u64) -> Change {
    subject
        .compare(&policy(from), &policy(to), at(seconds))
        .change
}

fn demand<'a>(demands: &'a [Demand], name: &str) -> &'a Demand {
    let found = demands.iter().find(|demand| demand.demand == name);
    found.expect(name)
}

#[test]
fn who_meets_everything_is_the_same_under_every_policy() {
    let mut subject = good();
    let outlook = subject.outlook(&policy(STRICT), at(60));
    assert_eq!(
        (outlook.verdict, outlook.trust_level),
        (Verdict::Affirming, Level::Hardware)
    );
    assert!(
        outlook.routable && outlook.se_key_bound == KeyBinding::Bound,
        "{outlook:?}"
    );
    assert_eq!(change(&subject, STRICT, STRICT, 60), Change::Same);
    assert_eq!(change(&subject, STRICT, ADOPTED, 60), Change::Same);
    subject.sessions.push(session());
    assert_eq!(change(&subject, ADOPTED, STRICT, 60), Change::Same);
    let compared = subject.compare(&policy(STRICT), &policy(STRICT), at(60));
    assert!(!compared.session_assumed && compared.in_force.routable);
}

#[test]
fn each_demand_that_is_taken_away_helps_whom_it_kept_down() {
    let mut software = good();
    software.mac.channel = Channel::Software;
    let mut unproved = good();
    unproved.mac.posture.keys.clear();
    let mut unattested = good();
    unattested.mac.posture.attested = None;
    unattested.mac.posture.named = None;
    let mut unencrypted = good();
    report(&mut unencrypted, Some(false), 1);
    for (subject, to, name, reason) in [
        (
            software,
            ADOPTED,
            "hardware.attested_channel",
            Reason::ChannelNotAttested,
        ),
        (
            unproved,
            DARKBLOOM_2026,
            "hardware.session",
            Reason::BindingUnproved,
        ),
        (
            unattested,
            DARKBLOOM_2026,
            "require.apple_chain",
            Reason::AwaitingPush,
        ),
        (
            unencrypted,
            DARKBLOOM_2026,
            "require.filevault",
            Reason::FilevaultOff,
        ),
    ] {
        assert_eq!(change(&subject, STRICT, to, 60), Change::Better, "{name}");
        assert_eq!(change(&subject, to, STRICT, 60), Change::Worse, "{name}");
        let why = subject.explain(&policy(STRICT), &policy(to), at(60));
        let demand = demand(&why.demands, name);
        assert!(
            demand.in_force.demanded && !demand.checked.demanded,
            "{name}"
        );
        assert_eq!(demand.in_force.met, Some(false), "{name}");
        assert_eq!(demand.in_force.reasons, [reason], "{name}");
        // What is not demanded is told all the same.
        assert_eq!(demand.checked.met, Some(false), "{name}");
    }
}

#[test]
fn a_demand_is_explained_by_itself() {
    let subject = good();
    let why = subject.explain(&policy(STRICT), &policy(ADOPTED), at(60));
    for demand in &why.demands {
        let expected = (demand.demand != "routing.release").then_some(true);
        assert_eq!(demand.in_force.met, expected, "{}", demand.demand);
        assert!(demand.in_force.reasons.is_empty());
    }
    // A definite negative decides before what is missing is looked at.
    let mut dark = good();
    dark.mac.posture.attested = None;
    dark.mac.posture.revoke(at(1));
    let why = dark.explain(&policy(STRICT), &policy(ADOPTED), at(60));
    assert_eq!(
        demand(&why.demands, "require.apple_chain").in_force.met,
        None
    );
    assert_eq!(
        demand(&why.demands, "hardware.attested_channel")
            .in_force
            .met,
        Some(true)
    );

    let mut ran = good();
    ran.sessions = vec![Seen {
        release: Some(Reason::ReleaseRevoked),
        ..session()
    }];
    let why = ran.explain(&policy(STRICT), &policy(DARKBLOOM_2026), at(60));
    let release = demand(&why.demands, "routing.release");
    assert_eq!(
        (release.in_force.met, release.checked.demanded),
        (Some(false), false)
    );
    assert_eq!(release.in_force.reasons, [Reason::ReleaseRevoked]);
    assert_eq!(change(&ran, STRICT, DARKBLOOM_2026, 60), Change::Better);
    // A Mac is as good as the best session on it.
    ran.sessions.push(session());
    assert_eq!(change(&ran, STRICT, DARKBLOOM_2026, 60), Change::Same);
}

#[test]
fn clocks_that_differ_show_as_ages_and_ends() {
    let mut subject = good();
    report(&mut subject, Some(true), 16 * DAY);
    let now = 16 * DAY + 60;
    let why = subject.explain(&policy(STRICT), &policy(DARKBLOOM_2026), at(now));
    let sip = &why.claims["sip#mda"];
    assert_eq!(sip.in_force.expires_at, Some(at(14 * DAY)));
    assert_eq!(sip.checked.expires_at, Some(at(21 * DAY)));
    assert_eq!(
        json!([sip.in_force.age, sip.checked.age]),
        json!(["expired", "stale"])
    );

    // Only the end moves: that is worth a line, and is no loss.
    let longer = STRICT.replace("usable_for = \"24h\"", "usable_for = \"20h\"");
    let subject = good();
    assert_eq!(change(&subject, STRICT, &longer, 60), Change::Otherwise);
}

#[test]
fn totals_count_every_mac_under_both_policies() {
    let mut software = good();
    software.mac.channel = Channel::Software;
    let mut dark = good();
    dark.mac.posture.revoke(at(1));
    let mut summary = Summary::default();
    for subject in [good(), good(), software, dark] {
        summary.add(&subject.compare(&policy(ADOPTED), &policy(STRICT), at(60)));
    }
    assert_eq!(
        (
            summary.devices,
            summary.worse,
            summary.better,
            summary.otherwise,
            summary.same
        ),
        (4, 1, 0, 0, 3)
    );
    assert_eq!(
        (summary.routable.in_force, summary.routable.checked),
        (3, 2)
    );
    let hardware = summary.trust_levels["hardware"];
    assert_eq!((hardware.in_force, hardware.checked), (3, 2));
    let level = summary.trust_levels["self_signed"];
    assert_eq!((level.in_force, level.checked), (1, 2));
    assert_eq!(summary.verdicts["contraindicated"].checked, 1);
    assert_eq!(summary.reasons["channel_not_attested"].in_force, 0);
    assert_eq!(summary.reasons["channel_not_attested"].checked, 1);
}

#[test]
fn a_mac_reads_back_from_a_snapshot() {
    let mut subject = good();
    subject.sessions.push(session());
    let line = serde_json::to_string(&subject).expect("JSON");
    let read: Subject = serde_json::from_str(&line).expect("reads");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), line);
    let strict = policy(STRICT);
    assert_eq!(
        read.compare(&strict, &strict, at(70)),
        subject.compare(&strict, &strict, at(70))
    );
}
