//! What trust demands: each demand of the strict policy taken away once, keys that change, and that
//! nothing but Apple's chain for this serial number ever gives `hardware`.

use std::time::Duration;

use proptest::prelude::*;

use super::appraisal::{Circumstances, Relation};
use super::key_binding::{KeyBinding, Proof, same_key};
use super::merge::Beginning;
use super::policy::{ADOPTED, DARKBLOOM_2026, Policy, STRICT};
use super::trust::{Alive, Level, Mac, Routability, Session, Trust, routability, trust};
use super::{Attested, Channel, Occasion, Posture, Reported, Verdict};
use crate::attestation::statement::SecureBoot;
use crate::attestation::{Freshness, Statement};
use crate::entropy::SeededEntropy;
use crate::ids::{DeviceId, EvidenceId, SerialNumber};
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::reason::Reason;
use crate::time::Timestamp;

const SERIAL: &str = "SIMQ4T2W7P";
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_790_847_007_000).plus(Duration::from_secs(seconds))
}

/// Any 64 bytes: whether a point is on the curve is not judged here.
fn key(of: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([of; 64])
}

fn serial(text: &str) -> SerialNumber {
    SerialNumber::parse(text).expect("valid")
}

fn posture() -> Posture {
    Posture::unknown(DeviceId::new(at(0), &SeededEntropy::new(1)), at(0))
}

fn chain(names: &str, minted_at: Timestamp, occasion: Occasion) -> Attested {
    Attested {
        occasion,
        facts: Statement {
            serial: Some(serial(SERIAL)),
            sip_enabled: Some(true),
            secure_boot: Some(SecureBoot::Full),
            third_party_kexts: Some(false),
            ..Statement::default()
        },
        freshness: Freshness::Fresh {
            minted_at,
            se_public_key: names.to_owned(),
        },
        evidence_id: EvidenceId::of(b"chain"),
        observed_at: minted_at,
        issued_by: None,
        not_after: minted_at.plus(Duration::from_secs(90 * DAY)),
    }
}

fn report(sip: bool, now: Timestamp) -> Reported {
    Reported {
        facts: SecurityInfo {
            sip_enabled: Some(sip),
            secure_boot: Some(SecureBootLevel::Full),
            filevault_enabled: Some(true),
            authenticated_root: Some(true),
            ..SecurityInfo::default()
        },
        evidence_id: EvidenceId::of(b"report"),
        asked_at: now,
        observed_at: now,
        channel: Channel::HardwareAttested,
    }
}

/// A Mac and a session on it; each test takes something away.
#[derive(Debug, Clone)]
struct Scene {
    posture: Posture,
    relation: Relation,
    channel: Channel,
    policy: Policy,
    session_key: String,
    claimed: Option<SerialNumber>,
    blob: Result<(), Reason>,
    alive: Alive,
    release: Result<(), Reason>,
    now: Timestamp,
}

impl Scene {
    fn good() -> Self {
        let mut posture = posture();
        posture.prove_key(&key(1), Proof::Ticket, at(0));
        posture.attest(chain(&key(1), at(0), Occasion::Mda), at(0));
        posture.report(report(true, at(0)), at(0));
        Self {
            posture,
            relation: Relation {
                enrolled: true,
                contends: false,
                identity_ends: Some(at(365 * DAY)),
            },
            channel: Channel::HardwareAttested,
            policy: Policy::parse(STRICT).expect("shipped"),
            session_key: key(1),
            claimed: Some(serial(SERIAL)),
            blob: Ok(()),
            alive: Alive {
                last_good_at: Some(at(0)),
                ended: None,
            },
            release: Ok(()),
            now: at(60),
        }
    }

    fn session(&self) -> Session<'_> {
        Session {
            se_public_key: &self.session_key,
            claimed_serial: self.claimed.as_ref(),
            blob: self.blob,
            alive: self.alive,
            release: self.release,
        }
    }

    fn trust(&self) -> Trust {
        let enrolled = serial(SERIAL);
        let mac = Mac {
            posture: &self.posture,
            circumstances: Circumstances {
                relation: self.relation,
                attempt: &[],
                now: self.now,
            },
            channel: self.channel,
            serial: Some(&enrolled),
        };
        trust(Some(mac), Some(self.session()), &self.policy)
    }

    fn routability(&self) -> Routability {
        routability(&self.trust(), self.session(), &self.policy, self.now)
    }
}

#[test]
fn a_mac_and_a_session_that_show_everything_are_trusted_until_the_earliest_end() {
    let scene = Scene::good();
    let trust = scene.trust();
    assert_eq!(trust.level, Level::Hardware);
    assert_eq!(trust.se_key_bound, KeyBinding::Bound);
    assert_eq!(trust.reasons, []);
    assert_eq!(trust.usable_until, Some(at(DAY)));
    let routability = scene.routability();
    assert!(routability.routable);
    assert_eq!(routability.reasons, []);
    assert_eq!(routability.routable_until, Some(at(6 * 60)));
}

#[test]
fn without_any_one_demand_there_is_no_hardware_and_the_reason_is_said() {
    type Without = (&'static str, fn(&mut Scene), Level, Reason);
    let cases: [Without; 13] = [
        (
            "an enrolled Mac",
            |s| s.relation.enrolled = false,
            Level::SelfSigned,
            Reason::NotEnrolled,
        ),
        (
            "a Mac that holds its serial number",
            |s| s.relation.contends = true,
            Level::SelfSigned,
            Reason::PendingProof,
        ),
        (
            "a living identity",
            |s| s.relation.identity_ends = Some(at(30)),
            Level::SelfSigned,
            Reason::IdentityExpired,
        ),
        (
            "an attested channel",
            |s| s.channel = Channel::Software,
            Level::SelfSigned,
            Reason::ChannelNotAttested,
        ),
        (
            "Apple's chain",
            |s| s.posture.attested = None,
            Level::SelfSigned,
            Reason::AwaitingPush,
        ),
        (
            "a young chain",
            |s| s.now = at(14 * DAY),
            Level::SelfSigned,
            Reason::AnswerTimeout,
        ),
        (
            "SecurityInfo",
            |s| s.posture.reported = None,
            Level::SelfSigned,
            Reason::AwaitingPush,
        ),
        (
            "SIP",
            |s| {
                s.posture.report(report(false, at(30)), at(30));
            },
            Level::SelfSigned,
            Reason::SipDisabled,
        ),
        (
            "SIP, by the provider's own word",
            |s| {
                s.posture.self_report_negative(Reason::SipDisabled, at(30));
            },
            Level::SelfSigned,
            Reason::SipDisabled,
        ),
        (
            "a proved key",
            |s| s.session_key = key(9),
            Level::SelfSigned,
            Reason::BindingUnproved,
        ),
        (
            "a key that is named",
            |s| s.posture.named = None,
            Level::SelfSigned,
            Reason::AppleRateLimit,
        ),
        (
            "the same serial number",
            |s| s.claimed = Some(serial("SIMOTHER99")),
            Level::SelfSigned,
            Reason::SerialMismatch,
        ),
        (
            "a good blob",
            |s| s.blob = Err(Reason::SignatureInvalid),
            Level::None,
            Reason::SignatureInvalid,
        ),
    ];
    for (what, take_away, level, reason) in cases {
        let mut scene = Scene::good();
        take_away(&mut scene);
        let trust = scene.trust();
        assert_eq!(trust.level, level, "{what}");
        assert!(
            trust.reasons.contains(&reason),
            "{what}: {:?}",
            trust.reasons
        );
        assert_eq!(trust.usable_until, None, "{what}");
        let routability = scene.routability();
        assert!(!routability.routable, "{what}");
        assert!(routability.reasons.contains(&reason), "{what}");
        assert_eq!(routability.routable_until, None, "{what}");
    }
}

#[test]
fn without_a_session_or_without_a_mac_little_is_reached() {
    let scene = Scene::good();
    let alone = trust(None, Some(scene.session()), &scene.policy);
    assert_eq!(alone.level, Level::SelfSigned);
    assert_eq!(alone.reasons, [Reason::DeviceNotFound]);
    let enrolled = serial(SERIAL);
    let mac = Mac {
        posture: &scene.posture,
        circumstances: Circumstances {
            relation: scene.relation,
            attempt: &[],
            now: scene.now,
        },
        channel: scene.channel,
        serial: Some(&enrolled),
    };
    let unused = trust(Some(mac), None, &scene.policy);
    assert_eq!(unused.level, Level::None);
    assert_eq!(unused.verdict, Verdict::Affirming);
    assert_eq!(unused.reasons, [Reason::ProviderNotBound]);
}

#[test]
fn what_changes_by_the_minute_ends_routing_and_not_the_level() {
    type Without = (&'static str, fn(&mut Scene), Reason);
    let cases: [Without; 5] = [
        (
            "a challenge answered lately",
            |s| s.now = at(6 * 60),
            Reason::ChallengeStale,
        ),
        (
            "any answer",
            |s| s.alive.last_good_at = None,
            Reason::ChallengeStale,
        ),
        (
            "good answers",
            |s| s.alive.ended = Some(Reason::SignatureInvalid),
            Reason::SignatureInvalid,
        ),
        (
            "a registered release",
            |s| s.release = Err(Reason::ReleaseUnknown),
            Reason::ReleaseUnknown,
        ),
        (
            "a release that stands",
            |s| s.release = Err(Reason::ReleaseRevoked),
            Reason::ReleaseRevoked,
        ),
    ];
    for (what, take_away, reason) in cases {
        let mut scene = Scene::good();
        take_away(&mut scene);
        assert_eq!(scene.trust().level, Level::Hardware, "{what}");
        let routability = scene.routability();
        assert_eq!(
            (routability.routable, routability.reasons),
            (false, vec![reason]),
            "{what}"
        );
    }
}

#[test]
fn a_contraindicated_mac_is_not_routable_however_low_the_floor() {
    let mut scene = Scene::good();
    scene.policy.rules.routing.floor = Level::None;
    scene.posture.report(report(false, at(30)), at(30));
    let routability = scene.routability();
    assert!(!routability.routable);
    assert_eq!(routability.reasons[0], Reason::SipDisabled);
}

#[test]
fn a_new_key_is_pending_until_apple_may_name_it() {
    let mut scene = Scene::good();
    scene.posture.prove_key(&key(2), Proof::Account, at(HOUR));
    scene.session_key = key(2);
    scene.now = at(2 * HOUR);
    scene.alive.last_good_at = Some(scene.now);
    let trust = scene.trust();
    assert_eq!(trust.level, Level::SelfSigned);
    assert_eq!(trust.se_key_bound, KeyBinding::Pending);
    assert_eq!(trust.eligible_at, Some(at(7 * DAY + 600)));
    // The key that was named is this Mac's still.
    scene.session_key = key(1);
    assert_eq!(scene.trust().se_key_bound, KeyBinding::Bound);
    // Apple names the new one.
    let later = at(7 * DAY + HOUR);
    scene
        .posture
        .attest(chain(&key(2), later, Occasion::Mda), later);
    scene.posture.report(report(true, later), later);
    scene.session_key = key(2);
    scene.now = later;
    assert_eq!(scene.trust().level, Level::Hardware);
    scene.session_key = key(1);
    assert_eq!(scene.trust().se_key_bound, KeyBinding::Pending);
}

#[test]
fn grades_of_a_key() {
    let policy = Policy::parse(STRICT).expect("shipped");
    let mut posture = posture();
    let grade = |posture: &Posture, of: u8, now| posture.grade_key(&key(of), &policy, now).grade;
    assert_eq!(grade(&posture, 1, at(0)), KeyBinding::None);
    posture.prove_key(&key(1), Proof::Operator, at(0));
    assert_eq!(grade(&posture, 1, at(0)), KeyBinding::Pending);
    // A statement that names no key leaves it pending, and takes the name from nobody.
    posture.attest(chain("", at(1), Occasion::Mda), at(1));
    assert_eq!(grade(&posture, 1, at(2)), KeyBinding::Pending);
    posture.attest(chain(&key(1), at(8 * DAY), Occasion::Mda), at(8 * DAY));
    assert_eq!(grade(&posture, 1, at(8 * DAY)), KeyBinding::Bound);
    posture.attest(chain("", at(16 * DAY), Occasion::Mda), at(16 * DAY));
    assert_eq!(grade(&posture, 1, at(16 * DAY)), KeyBinding::Bound);
    assert_eq!(grade(&posture, 1, at(22 * DAY)), KeyBinding::Stale);
    // A key nobody ever proved is named.
    posture.attest(chain(&key(7), at(23 * DAY), Occasion::Mda), at(23 * DAY));
    assert_eq!(grade(&posture, 1, at(23 * DAY)), KeyBinding::Mismatch);
    // After a new enrollment nothing is proved; what was, is not foreign all the same.
    let mut anew = posture.clone();
    anew.begin_anew(
        Beginning {
            statement: Some(chain(&key(1), at(24 * DAY), Occasion::Acme)),
            se_public_key: Some(key(3)),
        },
        &policy,
        at(24 * DAY),
    );
    assert_eq!(grade(&anew, 1, at(24 * DAY)), KeyBinding::None);
    assert_eq!(grade(&anew, 3, at(24 * DAY)), KeyBinding::Pending);
    // An identity's statement keeps Apple from nothing.
    assert_eq!(anew.eligible_at(), None);
}

#[test]
fn a_statement_dated_ahead_by_a_clock_that_was_wrong_binds_no_key() {
    let policy = Policy::parse(STRICT).expect("shipped");
    let mut posture = posture();
    posture.prove_key(&key(1), Proof::Operator, at(0));
    posture.attest(chain(&key(1), at(DAY), Occasion::Mda), at(DAY));
    let grade = |posture: &Posture, now| posture.grade_key(&key(1), &policy, now).grade;
    assert_eq!(grade(&posture, at(DAY - 10)), KeyBinding::Bound);
    assert_eq!(grade(&posture, at(DAY - 11)), KeyBinding::Stale);
    // What is named when the clock is right again stands in its place.
    posture.attest(chain(&key(1), at(100), Occasion::Acme), at(100));
    assert_eq!(grade(&posture, at(101)), KeyBinding::Bound);
}

#[test]
fn a_negative_voids_what_named_the_key() {
    let mut scene = Scene::good();
    scene.posture.report(report(false, at(HOUR)), at(HOUR));
    scene
        .posture
        .report(report(true, at(2 * HOUR)), at(2 * HOUR));
    scene.now = at(3 * HOUR);
    let trust = scene.trust();
    assert_eq!(trust.se_key_bound, KeyBinding::Stale);
    assert_eq!(trust.level, Level::SelfSigned);
    assert!(trust.reasons.contains(&Reason::AppleRateLimit));
}

#[test]
fn a_statement_made_with_the_identity_names_the_key_on_the_first_day() {
    let mut scene = Scene::good();
    scene.posture = posture();
    scene.posture.begin_anew(
        Beginning {
            statement: Some(chain(&key(1), at(0), Occasion::Acme)),
            se_public_key: Some(key(1)),
        },
        &scene.policy,
        at(0),
    );
    scene.posture.report(report(true, at(10)), at(10));
    assert_eq!(scene.trust().level, Level::Hardware);
}

#[test]
fn other_policies_give_hardware_for_less_and_say_so() {
    let mut scene = Scene::good();
    scene.channel = Channel::Software;
    assert_eq!(scene.trust().level, Level::SelfSigned);
    scene.policy = Policy::parse(ADOPTED).expect("shipped");
    assert_eq!(scene.trust().level, Level::Hardware);

    scene.posture = posture();
    scene.posture.report(report(true, at(0)), at(0));
    scene.session_key = key(9);
    assert_eq!(scene.trust().level, Level::SelfSigned);
    scene.policy = Policy::parse(DARKBLOOM_2026).expect("shipped");
    assert_eq!(scene.trust().level, Level::Hardware);
    // A session that names no serial number, or another, is joined to nothing.
    scene.claimed = None;
    assert_eq!(scene.trust().level, Level::SelfSigned);
}

#[test]
fn two_forms_of_a_point_are_one_key() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut long = vec![4];
    long.extend([1; 64]);
    assert!(same_key(&key(1), &STANDARD.encode(&long)));
    assert!(!same_key(&key(1), &key(2)));
    long[0] = 5;
    assert!(!same_key(&key(1), &STANDARD.encode(&long)));
    assert!(!same_key("not base64", "neither"));
}

/// Something that happens to a Mac or its session, other than Apple's chain for this serial number
/// with a nonce of this service.
#[derive(Debug, Clone)]
enum Happening {
    Report { sip: bool },
    Undated,
    Prove(u8),
    Negative,
    Anew { names: Option<u8> },
    Leave,
    Revoke,
    Restore,
}

fn happenings() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    let one = prop_oneof![
        any::<bool>().prop_map(|sip| Happening::Report { sip }),
        Just(Happening::Undated),
        (0u8..3).prop_map(Happening::Prove),
        Just(Happening::Negative),
        proptest::option::of(0u8..3).prop_map(|names| Happening::Anew { names }),
        Just(Happening::Leave),
        Just(Happening::Revoke),
        Just(Happening::Restore),
    ];
    proptest::collection::vec((0u64..20 * DAY, one), 0..24)
}

proptest! {
    /// DESIGN: no combination of evidence without a valid Apple chain for this serial yields
    /// `hardware`.
    #[test]
    fn nothing_without_apples_chain_is_ever_trusted_as_hardware(
        happenings in happenings(), key_of in 0u8..3, attested in any::<bool>(),
    ) {
        let mut scene = Scene::good();
        scene.posture = posture();
        scene.session_key = key(key_of);
        scene.channel = if attested { Channel::HardwareAttested } else { Channel::Software };
        for (seconds, happening) in happenings {
            let now = at(seconds);
            match happening {
                Happening::Report { sip } => {
                    scene.posture.report(report(sip, now), now);
                }
                Happening::Undated => {
                    let mut reading = chain("", now, Occasion::Mda);
                    reading.freshness = Freshness::Unrecognized;
                    scene.posture.attest(reading, now);
                }
                Happening::Prove(of) => {
                    scene.posture.prove_key(&key(of), Proof::Account, now);
                }
                Happening::Negative => {
                    scene.posture.self_report_negative(Reason::SecureBootReduced, now);
                }
                Happening::Anew { names } => {
                    let by = Beginning { statement: None, se_public_key: names.map(key) };
                    scene.posture.begin_anew(by, &scene.policy, now);
                }
                Happening::Leave => {
                    scene.posture.leave(&scene.policy, now);
                }
                Happening::Revoke => {
                    scene.posture.revoke(now);
                }
                Happening::Restore => {
                    scene.posture.restore();
                }
            }
            scene.now = now;
            scene.alive.last_good_at = Some(now);
            prop_assert!(scene.trust().level < Level::Hardware);
            prop_assert!(!scene.routability().routable);
        }
    }
}
