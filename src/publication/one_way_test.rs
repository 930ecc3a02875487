//! Every rule about time is one-way: an answer that is the same at two times, from the same sources,
//! is the same between. The memory of answers (`flows::answers`) rests on this, and so does the public
//! feed.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::binding_v1::Standing;
use super::feed::Judged;
use super::posture_v1::{Believed, PostureV1, Sources};
use crate::attestation::statement::SecureBoot;
use crate::attestation::{Anchor, Freshness, Statement};
use crate::entropy::SeededEntropy;
use crate::ids::{BindingId, DeviceId, EvidenceId, SerialNumber, SessionId};
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::posture::appraisal::Relation;
use crate::posture::key_binding::{KeyBinding, Proof};
use crate::posture::policy::{Policy, SHIPPED};
use crate::posture::trust::Level;
use crate::posture::{Attested, Channel, Occasion, Posture, Reported, Verdict};
use crate::provider::{Blob, Challenge, EncryptionKey, Registration, SePublicKey, Session};
use crate::time::Timestamp;

const KEY: &str =
    "HyhR1JzyYOuOE9lt+VeIpYjEz4Cc+9q1xA338zp6Pk2mLBt8yAKfeRA4taPviXNXFzJBYtYkpfARUk6QHiAkEg==";
const ENCRYPTION_KEY: &str = "ZJ5SnkNniPZOlo0R/Nq/lRlAdDpsEBdgeXKAJjRllG0=";
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds(1_790_847_007).plus(Duration::from_secs(seconds))
}

/// When everything happened that an answer may be made of, and what.
#[derive(Debug, Clone)]
struct Past {
    policy: usize,
    reported_at: Option<u64>,
    sip: bool,
    minted_at: Option<u64>,
    not_after: u64,
    names_key: bool,
    proved: bool,
    identity_ends: u64,
    last_good_at: Option<u64>,
    unbroken_since: Option<u64>,
    challenged_at: Option<u64>,
    time_outs: u32,
    ended_at: Option<u64>,
    continuity: bool,
}

impl Past {
    fn posture(&self) -> Posture {
        let device_id = DeviceId::new(at(0), &SeededEntropy::new(1));
        let mut posture = Posture::unknown(device_id, at(0));
        if self.proved {
            posture.prove_key(KEY, Proof::Ticket, at(0));
        }
        if let Some(minted_at) = self.minted_at.map(at) {
            let attested = Attested {
                occasion: Occasion::Mda,
                facts: Statement {
                    serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
                    sip_enabled: Some(true),
                    secure_boot: Some(SecureBoot::Full),
                    third_party_kexts: Some(false),
                    ..Statement::default()
                },
                freshness: Freshness::Fresh {
                    minted_at,
                    se_public_key: if self.names_key { KEY } else { "" }.to_owned(),
                },
                evidence_id: EvidenceId::of(b"chain"),
                observed_at: minted_at,
                issued_by: Some(minted_at),
                not_after: minted_at.plus(Duration::from_secs(self.not_after)),
            };
            posture.attest(attested, minted_at);
        }
        if let Some(observed_at) = self.reported_at.map(at) {
            let reported = Reported {
                facts: SecurityInfo {
                    sip_enabled: Some(self.sip),
                    secure_boot: Some(SecureBootLevel::Full),
                    filevault_enabled: Some(true),
                    authenticated_root: Some(true),
                    ..SecurityInfo::default()
                },
                evidence_id: EvidenceId::of(b"report"),
                asked_at: observed_at,
                observed_at,
                channel: Channel::HardwareAttested,
            };
            posture.report(reported, observed_at);
        }
        posture
    }

    fn session(&self, policy: &Policy) -> Session {
        let registration = Registration {
            key: SePublicKey::parse(KEY).expect("a key"),
            encryption_key: EncryptionKey::parse(ENCRYPTION_KEY).expect("a key"),
            provider_version: None,
            account: None,
            claimed_serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
            blob: b"{}".to_vec(),
            signature: String::new(),
        };
        let binding_id = BindingId::new(at(0), &SeededEntropy::new(2));
        let session_id = SessionId::parse("s").expect("a session");
        let mut session = Session::begin(session_id, binding_id, registration.judge(at(0)), at(0));
        session.blob_reasons = Vec::new();
        session.claimed_serial = SerialNumber::parse("SIMQ4T2W7P").ok();
        session.unbroken_since = self.unbroken_since.map(at);
        if let Some(issued_at) = self.challenged_at.map(at) {
            let challenge = Challenge::mint([3; 32], issued_at);
            let rules = policy.rules.challenge.rules();
            session
                .liveness
                .issue(challenge, &rules, issued_at)
                .expect("the first");
        }
        let mut liveness = serde_json::to_value(&session.liveness).expect("JSON");
        liveness["last_good_at"] = json!(self.last_good_at.map(at));
        liveness["time_outs"] = json!(self.time_outs);
        session.liveness = serde_json::from_value(liveness).expect("the same");
        if let Some(ended_at) = self.ended_at.map(at) {
            session.end(Some(Duration::from_secs(90)), ended_at);
        }
        session
    }

    fn lies_ahead_of(&self, now: u64) -> bool {
        let times = [
            self.reported_at,
            self.minted_at,
            self.last_good_at,
            self.unbroken_since,
            self.challenged_at,
            self.ended_at,
        ];
        times.into_iter().flatten().any(|at| at > now)
    }

    fn policy(&self) -> Policy {
        let mut policy = Policy::parse(SHIPPED[self.policy].1).expect("shipped");
        policy.rules.boot_continuity.enabled = self.continuity;
        policy
    }

    fn mac(&self) -> Believed {
        let posture = self.posture();
        Believed {
            device_id: posture.device_id.clone(),
            serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
            relation: Relation {
                enrolled: true,
                contends: false,
                identity_ends: Some(at(self.identity_ends)),
            },
            channel: Channel::HardwareAttested,
            posture,
            attempt: Vec::new(),
        }
    }

    /// What the feed says at these times, and what the internal API does; nothing of a session that has
    /// ended.
    fn shown<const N: usize>(&self, times: [u64; N]) -> Option<[(Judged, Value); N]> {
        let (policy, mac) = (self.policy(), self.mac());
        let session = self.session(&policy);
        let standing = Standing {
            session: &session,
            mac: Some(&mac),
            release: Ok(()),
        };
        let blob = include_bytes!("../../tests/fixtures/provider/blob.raw.json");
        let blob = Blob::parse(blob).expect("a blob");
        session.is_live().then(|| {
            times.map(at).map(|now| {
                let judged = Judged::at(standing, blob.unverified_report(), &policy, now);
                let binding = standing.publish(&policy, now);
                (judged, serde_json::to_value(binding).expect("JSON"))
            })
        })
    }

    /// Both answers as of these times, but for the time of the evaluation.
    fn answers<const N: usize>(&self, times: [u64; N]) -> [(Value, Value, bool); N] {
        let (policy, mac) = (self.policy(), self.mac());
        let session = self.session(&policy);
        let standing = Standing {
            session: &session,
            mac: Some(&mac),
            release: Ok(()),
        };
        times.map(at).map(|now| {
            let posture = PostureV1::new(&Sources {
                mac: &mac,
                policy: &policy,
                anchor: Anchor::Custom,
                session: standing.at(&policy, now),
                process: standing.process(),
                now,
            });
            let is_as_revised = posture.is_as_revised;
            let mut answers = [
                serde_json::to_value(&posture).expect("JSON"),
                serde_json::to_value(standing.publish(&policy, now)).expect("JSON"),
            ];
            for answer in &mut answers {
                answer["evaluated_at"] = Value::Null;
            }
            let [posture, binding] = answers;
            (posture, binding, is_as_revised)
        })
    }
}

fn past() -> impl Strategy<Value = Past> {
    let some_time = || proptest::option::weighted(0.8, 0..DAY);
    (
        (0..SHIPPED.len(), some_time(), any::<bool>(), some_time()),
        (DAY..20 * DAY, any::<bool>(), any::<bool>(), DAY..20 * DAY),
        (some_time(), some_time(), some_time(), 0_u32..4),
        (proptest::option::weighted(0.2, 0..2 * DAY), any::<bool>()),
    )
        .prop_map(|(readings, apple, challenges, (ended_at, continuity))| {
            let (policy, reported_at, sip, minted_at) = readings;
            let (not_after, names_key, proved, identity_ends) = apple;
            let (last_good_at, unbroken_since, challenged_at, time_outs) = challenges;
            Past {
                policy,
                reported_at,
                sip,
                minted_at,
                not_after,
                names_key,
                proved,
                identity_ends,
                last_good_at,
                unbroken_since,
                challenged_at,
                time_outs,
                ended_at,
                continuity,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_the_same_at_two_times_is_the_same_between(
        past in past(),
        from in DAY..21 * DAY,
        soon in any::<bool>(),
        span in 2..5 * DAY,
        share in 0..1_000_u64,
    ) {
        // Within minutes of what happened on the first day, or at any time of the three weeks.
        let (from, span) = if soon { (from % DAY + DAY / 2, span % (20 * MINUTE) + 2) } else { (from, span) };
        // What a wrong clock dated ahead comes to count, and ends later: minutes apart, and not within
        // the five seconds that an answer is remembered for.
        let span = if past.lies_ahead_of(from) { 5 } else { span };
        let between = from + span * share / 1_000;
        let [first, middle, last] = past.answers([from, between, from + span]);
        if first == last {
            prop_assert_eq!(middle, first);
        }
    }

    #[test]
    fn the_feed_says_what_the_internal_api_says(past in past(), now in 0..21 * DAY) {
        let Some([(judged, binding)]) = past.shown([now]) else { return Ok(()) };
        prop_assert_eq!(json!(judged.level), binding["trust_level"].clone());
        prop_assert_eq!(json!(judged.se_key_bound), binding["se_key_bound"].clone());
        prop_assert_eq!(json!(judged.routable), binding["routable"].clone());
        let is_joined = past.proved || SHIPPED[past.policy].0 == "darkbloom-2026";
        if is_joined {
            prop_assert_eq!(json!(judged.reasons), binding["reasons"].clone());
        } else {
            prop_assert_eq!(judged.verdict, Verdict::Unknown);
            prop_assert!(!judged.mdm_verified && !judged.mda_verified && !judged.acme_verified);
        }
        // Under the strict policy the level stands on all of it.
        if SHIPPED[past.policy].0 == "strict" && judged.level == Level::Hardware {
            prop_assert!(judged.mdm_verified && judged.mda_verified && judged.acme_verified);
        }
    }

    #[test]
    fn what_the_feed_says_for_a_while_holds_all_the_while(
        past in past(),
        from in 0..21 * DAY,
        span in 1..5 * DAY,
        share in 0..1_000_u64,
        soon in any::<bool>(),
    ) {
        // As long as a provider is not judged anew, or much longer.
        let span = if soon || past.lies_ahead_of(from) { 75 } else { span };
        let between = from + span * share / 1_000;
        let shown = past.shown([from, between, from + span]);
        let Some([(first, _), (middle, _), (last, _)]) = shown else { return Ok(()) };
        if first == last {
            prop_assert_eq!(&middle, &first);
        }
        let held = first.clone().and(last.clone());
        for judged in [&first, &last] {
            prop_assert!(held.level <= judged.level && held.status >= judged.status);
            prop_assert!(held.verdict != Verdict::Affirming || judged.verdict == Verdict::Affirming);
            prop_assert!(held.se_key_bound != KeyBinding::Bound || judged.se_key_bound == KeyBinding::Bound);
            for (held, said) in [
                (held.mdm_verified, judged.mdm_verified),
                (held.mda_verified, judged.mda_verified),
                (held.acme_verified, judged.acme_verified),
                (held.routable, judged.routable),
            ] {
                prop_assert!(said || !held);
            }
        }
        prop_assert_eq!(first.clone().and(first.clone()), first);
    }
}
