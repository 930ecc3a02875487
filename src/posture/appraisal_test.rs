//! Stories of one Mac, told as events: what was learnt when, and what it amounts to afterwards.
//!
//! `tests/vectors/appraisal.json` names the rule behind each row: "C.3" is the table of freshness
//! and fail-closed rules of the coordinator's documents, the sentences are the service's own.

use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;

use super::appraisal::{Appraisal, Circumstances, Relation, appraise};
use super::claim::{Age, claims};
use super::merge::Beginning;
use super::policy::{Policy, STRICT};
use super::{Attested, Channel, Occasion, Posture, Reported, Verdict, issued_by};
use crate::attestation::statement::SecureBoot;
use crate::attestation::{Freshness, Statement};
use crate::entropy::SeededEntropy;
use crate::ids::{DeviceId, EvidenceId, SerialNumber};
use crate::mdm::security_info::{SecureBootLevel, SecurityInfo};
use crate::reason::Reason;
use crate::time::{Span, Timestamp};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    title: String,
    rule: String,
    events: Vec<Told>,
    judge: Span,
    #[serde(default = "yes")]
    enrolled: bool,
    #[serde(default)]
    attempt: Vec<Reason>,
    expect: Outcome,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    at: Span,
    /// When SecurityInfo was asked for; at once when absent.
    asked: Option<Span>,
    security_info: Option<Report>,
    /// When the nonce was handed over; at once when absent.
    minted: Option<Span>,
    mda: Option<Attestation>,
    #[serde(default)]
    freshness: Class,
    not_after: Option<Span>,
    hold: Option<Reason>,
    #[serde(default)]
    begin_anew: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    #[default]
    Fresh,
    Cached,
    Unrecognized,
    Absent,
}

/// A good reading, unless said otherwise; `null` is unknown.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Report {
    sip: Option<bool>,
    boot: Option<SecureBootLevel>,
    filevault: Option<bool>,
    authenticated_root: Option<bool>,
}

/// As [`Report`].
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attestation {
    sip: Option<bool>,
    boot: Option<SecureBoot>,
    kexts: Option<bool>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    verdict: Verdict,
    reasons: Vec<Reason>,
    usable_until: Option<Span>,
}

fn yes() -> bool {
    true
}

impl Default for Report {
    fn default() -> Self {
        Self {
            sip: Some(true),
            boot: Some(SecureBootLevel::Full),
            filevault: Some(true),
            authenticated_root: Some(true),
        }
    }
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            sip: Some(true),
            boot: Some(SecureBoot::Full),
            kexts: Some(false),
        }
    }
}

const BEGIN: i64 = 1_790_847_007_000;

fn at(span: Span) -> Timestamp {
    Timestamp::from_millis(BEGIN).plus(span.0)
}

fn strict() -> Policy {
    Policy::parse(STRICT).expect("shipped")
}

fn new_posture() -> Posture {
    let begin = Timestamp::from_millis(BEGIN);
    Posture::unknown(DeviceId::new(begin, &SeededEntropy::new(1)), begin)
}

fn reported(report: Report, asked_at: Timestamp, observed_at: Timestamp) -> Reported {
    Reported {
        facts: SecurityInfo {
            sip_enabled: report.sip,
            secure_boot: report.boot,
            filevault_enabled: report.filevault,
            authenticated_root: report.authenticated_root,
            ..SecurityInfo::default()
        },
        evidence_id: EvidenceId::of(b"report"),
        asked_at,
        observed_at,
        channel: Channel::Software,
    }
}

fn attested(
    stated: Attestation,
    class: Class,
    minted_at: Timestamp,
    observed_at: Timestamp,
) -> Attested {
    let se_public_key = String::new();
    Attested {
        occasion: Occasion::Mda,
        facts: Statement {
            serial: SerialNumber::parse("SIMQ4T2W7P").ok(),
            sip_enabled: stated.sip,
            secure_boot: stated.boot,
            third_party_kexts: stated.kexts,
            ..Statement::default()
        },
        freshness: match class {
            Class::Fresh => Freshness::Fresh {
                minted_at,
                se_public_key,
            },
            Class::Cached => Freshness::CachedKnown {
                minted_at,
                se_public_key,
            },
            Class::Unrecognized => Freshness::Unrecognized,
            Class::Absent => Freshness::Absent,
        },
        evidence_id: EvidenceId::of(b"chain"),
        observed_at,
        issued_by: Some(issued_by(minted_at, minted_at, observed_at)),
        not_after: observed_at.plus(Duration::from_secs(90 * 86_400)),
    }
}

fn take_in(posture: &mut Posture, told: &Told, policy: &Policy) {
    let now = at(told.at);
    if let Some(report) = told.security_info {
        posture.report(reported(report, told.asked.map_or(now, at), now), now);
    }
    if let Some(stated) = told.mda {
        let mut reading = attested(stated, told.freshness, told.minted.map_or(now, at), now);
        if let Some(span) = told.not_after {
            reading.not_after = at(span);
        }
        posture.attest(reading, now);
    }
    if let Some(reason) = told.hold {
        posture.hold(reason, None, now);
    }
    if told.begin_anew {
        posture.begin_anew(Beginning::default(), policy, now);
    }
}

fn judged(posture: &Posture, enrolled: bool, attempt: &[Reason], now: Timestamp) -> Appraisal {
    appraise(
        posture,
        &strict(),
        Circumstances {
            relation: Relation {
                enrolled,
                ..Relation::NONE
            },
            attempt,
            now,
        },
    )
}

#[test]
fn every_story_ends_as_the_rules_say() {
    let stories = include_str!("../../tests/vectors/appraisal.json");
    let stories: Vec<Story> = serde_json::from_str(stories).expect("stories");
    let policy = strict();
    let mut wrong = Vec::new();
    for story in &stories {
        let mut posture = new_posture();
        for told in &story.events {
            take_in(&mut posture, told, &policy);
        }
        let found = judged(&posture, story.enrolled, &story.attempt, at(story.judge));
        let expected = Appraisal {
            verdict: story.expect.verdict,
            reasons: story.expect.reasons.clone(),
            usable_until: story.expect.usable_until.map(at),
        };
        if found != expected {
            wrong.push(format!(
                "{} ({}):\n    {found:?}\n    {expected:?}",
                story.title, story.rule
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        stories.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_negative_claim_counts_and_what_it_voids_says_why_it_does_not() {
    let begin = Timestamp::from_millis(BEGIN);
    let later = begin.plus(Duration::from_secs(3_600));
    let mut posture = new_posture();
    posture.attest(
        attested(Attestation::default(), Class::Fresh, begin, begin),
        begin,
    );
    let off = Report {
        sip: Some(false),
        ..Report::default()
    };
    posture.report(reported(off, begin, later), later);
    let claims = claims(&posture, &strict(), None, later);
    assert_eq!(claims["sip"].reason, None);
    assert_eq!(claims["sip#mda"].reason, Some(Reason::AppleRateLimit));
    assert_eq!(claims["sip"].age, Age::Fresh);
    assert_eq!(claims["sip#mda"].age, Age::Voided);
    assert_eq!(claims["recovery_lock"].reason, Some(Reason::FieldMissing));
    let expires_at = claims["sip"].expires_at.expect("a date");
    assert_eq!(expires_at, later.plus(Duration::from_secs(86_400)));
    assert_eq!(
        claims["sip#mda"].expires_at,
        Some(begin.plus(Duration::from_secs(14 * 86_400)))
    );
}

#[test]
fn a_claim_ages_by_itself() {
    let begin = Timestamp::from_millis(BEGIN);
    let hours = |n: u64| begin.plus(Duration::from_secs(3_600 * n));
    let mut posture = new_posture();
    posture.attest(
        attested(Attestation::default(), Class::Fresh, begin, begin),
        begin,
    );
    posture.report(reported(Report::default(), begin, begin), begin);
    let age = |name: &str, now| claims(&posture, &strict(), None, now)[name].age;
    for (name, hour, expected) in [
        ("sip", 1, Age::Fresh),
        ("sip", 2, Age::Stale),
        ("sip", 23, Age::Stale),
        ("sip", 24, Age::Expired),
        ("sip#mda", 7 * 24 - 1, Age::Fresh),
        ("sip#mda", 7 * 24, Age::Stale),
        ("sip#mda", 14 * 24, Age::Expired),
    ] {
        assert_eq!(age(name, hours(hour)), expected, "{name} after {hour} h");
    }
    let mut undated = new_posture();
    let reading = attested(Attestation::default(), Class::Unrecognized, begin, begin);
    undated.attest(reading, begin);
    let claims = claims(&undated, &strict(), None, begin);
    assert_eq!(claims["sip#mda"].age, Age::Undated);
}

#[test]
fn a_chain_without_a_serial_number_never_affirms() {
    let begin = Timestamp::from_millis(BEGIN);
    let mut posture = new_posture();
    let mut reading = attested(Attestation::default(), Class::Fresh, begin, begin);
    reading.facts.serial = None;
    posture.attest(reading, begin);
    posture.report(reported(Report::default(), begin, begin), begin);
    let found = judged(&posture, true, &[], begin);
    assert_eq!(found.reasons, [Reason::FieldMissing]);
}

#[test]
fn a_clock_set_back_gives_no_voided_evidence_back() {
    let minutes = |n: u64| Timestamp::from_millis(BEGIN).plus(Duration::from_secs(60 * n));
    let mut posture = new_posture();
    let off = Report {
        sip: Some(false),
        ..Report::default()
    };
    posture.report(reported(off, minutes(60), minutes(60)), minutes(60));
    posture.report(reported(off, minutes(10), minutes(10)), minutes(10));
    assert_eq!(posture.void_before, Some(minutes(60)));
}

fn maybe<T: Clone + std::fmt::Debug + 'static>(
    values: &[T],
) -> impl Strategy<Value = Option<T>> + use<T> {
    proptest::option::weighted(0.8, proptest::sample::select(values.to_vec()))
}

fn any_report() -> impl Strategy<Value = Report> {
    let levels = [
        SecureBootLevel::Full,
        SecureBootLevel::Full,
        SecureBootLevel::Medium,
        SecureBootLevel::Off,
        SecureBootLevel::NotSupported,
    ];
    let flags = [true, true, true, false];
    (maybe(&flags), maybe(&levels), maybe(&flags), maybe(&flags)).prop_map(
        |(sip, boot, filevault, authenticated_root)| Report {
            sip,
            boot,
            filevault,
            authenticated_root,
        },
    )
}

fn any_attestation() -> impl Strategy<Value = Attestation> {
    let levels = [
        SecureBoot::Full,
        SecureBoot::Full,
        SecureBoot::Reduced,
        SecureBoot::Permissive,
    ];
    (
        maybe(&[true, true, false]),
        maybe(&levels),
        maybe(&[false, false, true]),
    )
        .prop_map(|(sip, boot, kexts)| Attestation { sip, boot, kexts })
}

/// What can reach a posture; minutes ago it was asked for.
#[derive(Debug, Clone)]
enum Step {
    Report(Report, u64),
    Attest(Attestation, Class, u64),
    Hold(Reason),
    BeginAnew,
    Wait(u64),
}

fn without_a_chain() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any_report(), 0..40_u64).prop_map(|(report, ago)| Step::Report(report, ago)),
        Just(Step::Report(Report::default(), 0)),
        proptest::sample::select(Reason::ALL).prop_map(Step::Hold),
        Just(Step::BeginAnew),
        (0..40_000_u64).prop_map(Step::Wait),
        // A chain that nothing of ours dates.
        (
            any_attestation(),
            proptest::sample::select(vec![Class::Unrecognized, Class::Absent])
        )
            .prop_map(|(stated, class)| Step::Attest(stated, class, 0)),
    ]
}

fn anything() -> impl Strategy<Value = Step> {
    let classes = vec![Class::Fresh, Class::Fresh, Class::Cached];
    prop_oneof![
        2 => without_a_chain(),
        1 => (any_attestation(), proptest::sample::select(classes.clone()), 0..20_000_u64)
            .prop_map(|(stated, class, ago)| Step::Attest(stated, class, ago)),
        2 => (proptest::sample::select(classes), 0..30_u64)
            .prop_map(|(class, ago)| Step::Attest(Attestation::default(), class, ago)),
        2 => (0..30_u64).prop_map(|ago| Step::Report(Report::default(), ago)),
        1 => (0..60_u64).prop_map(Step::Wait),
    ]
}

fn go(posture: &mut Posture, step: &Step, now: &mut Timestamp, policy: &Policy) {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    match step {
        Step::Report(report, ago) => {
            posture.report(reported(*report, now.minus(minutes(*ago)), *now), *now);
        }
        Step::Attest(stated, class, ago) => {
            posture.attest(
                attested(*stated, *class, now.minus(minutes(*ago)), *now),
                *now,
            );
        }
        Step::Hold(reason) => posture.hold(*reason, None, *now),
        Step::BeginAnew => {
            posture.begin_anew(Beginning::default(), policy, *now);
        }
        Step::Wait(n) => *now = now.plus(minutes(*n)),
    }
}

proptest! {
    #[test]
    fn nothing_without_an_accepted_apple_chain_ever_affirms(
        steps in proptest::collection::vec(without_a_chain(), 0..30),
        enrolled in any::<bool>(),
    ) {
        let (policy, mut posture) = (strict(), new_posture());
        let mut now = Timestamp::from_millis(BEGIN);
        for step in &steps {
            go(&mut posture, step, &mut now, &policy);
            let verdict = judged(&posture, enrolled, &[], now).verdict;
            prop_assert!(!matches!(verdict, Verdict::Affirming | Verdict::Warning), "{step:?}");
        }
    }

    /// After a negative on SIP, Secure Boot or kernel extensions, whatever else is said: good again
    /// only with a good chain minted, and a report asked for, when the negative was known.
    #[test]
    fn trust_comes_back_only_with_evidence_asked_for_afterwards(
        steps in proptest::collection::vec(anything(), 0..30),
    ) {
        let (policy, mut posture) = (strict(), new_posture());
        let mut now = Timestamp::from_millis(BEGIN);
        let mut negative_at = None;
        for step in &steps {
            go(&mut posture, step, &mut now, &policy);
            let negative = match step {
                Step::Report(report, ago) => reported(*report, now.minus(Duration::from_secs(60 * *ago)), now)
                    .facts
                    .contradicts_full_security(),
                Step::Attest(stated, class, _) => {
                    attested(*stated, *class, now, now).facts.contradicts_full_security()
                }
                _ => false,
            };
            if negative {
                negative_at = Some(now);
                prop_assert_eq!(judged(&posture, true, &[], now).verdict, Verdict::Contraindicated);
            }
            if judged(&posture, true, &[], now).verdict == Verdict::Affirming {
                let attested = posture.attested.as_ref().expect("a chain");
                let reported = posture.reported.as_ref().expect("a report");
                prop_assert!(attested.freshness.minted_at() >= negative_at);
                prop_assert!(Some(reported.asked_at) >= negative_at);
            }
        }
    }

    /// A verdict ends when it says, by the clock of whoever reads it, and not before.
    #[test]
    fn a_verdict_lasts_until_its_stored_time(
        steps in proptest::collection::vec(anything(), 0..30),
        share in 0.0..1.0_f64,
    ) {
        let (policy, mut posture) = (strict(), new_posture());
        let mut now = Timestamp::from_millis(BEGIN);
        for step in &steps {
            go(&mut posture, step, &mut now, &policy);
        }
        let found = judged(&posture, true, &[], now);
        let good = matches!(found.verdict, Verdict::Affirming | Verdict::Warning);
        prop_assert_eq!(good, found.usable_until.is_some());
        prop_assert_eq!(found.verdict == Verdict::Affirming, found.reasons.is_empty());
        if let Some(until) = found.usable_until {
            let before = now.plus(until.minus(Duration::from_millis(1)).since(now).mul_f64(share));
            prop_assert_eq!(&judged(&posture, true, &[], before), &found);
            prop_assert_eq!(judged(&posture, true, &[], until).verdict, Verdict::Unknown);
        }
    }
}

#[test]
fn a_take_over_keeps_the_negatives_of_both_and_the_positives_of_the_newcomer() {
    let (policy, begin) = (strict(), Timestamp::from_millis(BEGIN));
    let later = |minutes: u64| begin.plus(Duration::from_secs(60 * minutes));
    let good = |at| attested(Attestation::default(), Class::Fresh, at, at);

    // The holder was good once, and a chain of it was bad later.
    let mut holder = new_posture();
    holder.attest(good(begin), begin);
    holder.report(reported(Report::default(), begin, begin), begin);
    holder.hold(Reason::ChainInvalid, None, later(1));
    holder.revocation_epoch = 3;
    let mut newcomer = new_posture();
    newcomer.report(reported(Report::default(), later(5), later(5)), later(5));
    let mut proved = newcomer.clone();
    proved.attest(good(later(6)), later(6));
    let mut taken = holder.clone();
    taken.take_over(proved.clone(), later(7));
    assert_eq!(
        judged(&taken, true, &[], later(7)).verdict,
        Verdict::Affirming
    );
    assert_eq!(
        (taken.revocation_epoch, &taken.attested),
        (3, &proved.attested)
    );

    // What the newcomer held against itself after its proof counts here, too.
    proved.hold(Reason::SignatureInvalid, None, later(8));
    let mut taken = holder.clone();
    taken.take_over(proved, later(9));
    assert_eq!(
        judged(&taken, true, &[], later(9)).reasons,
        [Reason::SignatureInvalid]
    );

    // A withdrawal is an operator's, whoever comes.
    let mut revoked = holder.clone();
    assert!(revoked.revoke(later(2)) && !revoked.revoke(later(2)));
    newcomer.attest(good(later(6)), later(6));
    revoked.take_over(newcomer, later(7));
    assert_eq!(
        judged(&revoked, true, &[], later(7)).reasons,
        [Reason::Revoked]
    );
    assert!(revoked.restore() && !revoked.restore());
    assert_eq!(revoked.revocation_epoch, 5);

    // Displaced, nothing of it is left but what readers count by.
    let (revision, epoch) = (holder.revision, holder.revocation_epoch);
    holder.begin_afresh(Beginning::default(), &policy, later(10));
    assert_eq!(
        (holder.revision, holder.revocation_epoch),
        (revision + 1, epoch)
    );
    assert_eq!(
        (&holder.reported, &holder.attested, &holder.void_before),
        (&None, &None, &None)
    );
    assert!(holder.held.is_empty());
}

#[test]
fn whoever_contends_or_is_not_heard_any_more_is_not_trusted() {
    let begin = Timestamp::from_millis(BEGIN);
    let mut posture = new_posture();
    posture.attest(
        attested(Attestation::default(), Class::Fresh, begin, begin),
        begin,
    );
    posture.report(reported(Report::default(), begin, begin), begin);
    let judge = |contends, identity_ends, now| {
        let relation = Relation {
            enrolled: true,
            contends,
            identity_ends,
        };
        appraise(
            &posture,
            &strict(),
            Circumstances {
                relation,
                attempt: &[],
                now,
            },
        )
    };
    let ends = begin.plus(Duration::from_secs(3_600));
    assert_eq!(judge(false, Some(ends), begin).usable_until, Some(ends));
    assert_eq!(
        judge(false, Some(ends), ends).reasons,
        [Reason::IdentityExpired]
    );
    assert_eq!(judge(false, Some(ends), ends).verdict, Verdict::Unknown);
    assert_eq!(judge(true, None, begin).reasons, [Reason::PendingProof]);
    assert_eq!(judge(true, None, begin).verdict, Verdict::Unknown);
}
