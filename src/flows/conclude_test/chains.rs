//! Attestations: whose they are, how old, and what they are worth.

use super::*;

#[test]
fn the_chain_of_another_mac_is_held_against_this_one() {
    let mut table = Table::new();
    table.good_round();
    table.ask_again();
    table.pass(60);
    table.idle();
    table.acknowledge(good());
    let nonce = table.nonce();
    let decision = table.acknowledge(table.chain(Some(&nonce), "SIMOTHER01"));
    assert_eq!(decision.refused, Some(Reason::SerialMismatch));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    assert_eq!(
        table.changes.events[1].body["reasons"][0],
        "serial_mismatch"
    );
    assert!(table.changes.evidence[0].raw, "kept for who asks why");
}

#[test]
fn a_reply_that_names_another_mac_than_its_chain_is_held_against_this_one() {
    let mut table = Table::new();
    for (key, queried) in [
        (
            "serial",
            QueryResponses {
                serial_number: Some("SIMOTHER01".into()),
                ..Default::default()
            },
        ),
        (
            "udid",
            QueryResponses {
                provisioning_udid: Some("00006040-00FFEEDDCCBBAA1C".into()),
                ..Default::default()
            },
        ),
    ] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let nonce = table.nonce();
        let verified = table
            .evidence(Some(&nonce), "SIMQ4T2W7P", &table.apple)
            .map(Box::new);
        let decision = table.acknowledge(Content::Attestation { queried, verified });
        assert_eq!(decision.refused, Some(Reason::SerialMismatch), "{key}");
        table.pass(60);
    }
}

#[test]
fn a_chain_under_another_root_is_held_against_the_mac_and_an_old_date_is_not() {
    let mut table = Table::new();
    let other = AttestationAuthority::new().expect("OpenSSL");
    table.good_round();
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    let refused = table
        .evidence(Some(&table.nonce()), "SIMQ4T2W7P", &other)
        .expect_err("refused");
    let expired = Refusal::Chain(crate::pki::ChainRefusal::Expired(
        crate::pki::chain::Link::Leaf,
    ));
    for (refusal, verdict) in [
        (expired, Verdict::Affirming),
        (refused, Verdict::Contraindicated),
    ] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let queried = QueryResponses::default();
        let decision = table.acknowledge(Content::Attestation {
            queried,
            verified: Err(refusal),
        });
        assert_eq!(decision.refused, Some(Reason::ChainInvalid));
        assert_eq!(table.verdict(), Some(verdict));
    }
}

#[test]
fn no_attestation_is_unavailable_and_no_chain_in_its_place_is_held_against_the_mac() {
    let mut table = Table::new();
    table.idle();
    table.acknowledge(good());
    let decision = table.acknowledge(Content::NoAttestation);
    assert_eq!(decision.refused, Some(Reason::AttestationUnavailable));
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    table.acknowledge(Content::ChainMalformed);
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
}

#[test]
fn an_anonymous_chain_proves_nothing_and_is_held_against_nobody() {
    let mut table = Table::new();
    table.idle();
    table.acknowledge(good());
    let nonce = table.nonce();
    // Blank: no serial number is stated.
    let decision = table.acknowledge(table.chain(Some(&nonce), ""));
    assert_eq!(decision.refused, Some(Reason::FieldMissing));
    assert!(
        table
            .posture
            .as_ref()
            .is_some_and(|posture| posture.held.is_empty())
    );
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
}

#[test]
fn a_cached_chain_counts_with_the_age_of_its_nonce() {
    let mut table = Table::new();
    let begin = table.now;
    let nonce = table.good_round();
    table.pass(3 * 86_400);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    let decision = table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(decision.refused, Some(Reason::AttestationCached));
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
    let attested = table
        .posture
        .as_ref()
        .and_then(|posture| posture.attested.clone());
    let freshness = attested.expect("a chain").freshness;
    assert!(matches!(freshness, Freshness::CachedKnown { minted_at, .. } if minted_at == begin));

    table.pass(5 * 86_400);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(table.verdict(), Some(Verdict::Warning));
}

#[test]
fn a_nonce_of_nobody_dates_nothing() {
    let mut table = Table::new();
    for nonce in [Some(&[7; 32][..]), Some(&[7; 20]), None] {
        table.ask_again();
        table.idle();
        table.acknowledge(good());
        let decision = table.acknowledge(table.chain(nonce, "SIMQ4T2W7P"));
        assert_eq!(
            decision.refused,
            Some(Reason::NonceUnrecognized),
            "{nonce:?}"
        );
        assert_eq!(table.verdict(), Some(Verdict::Unknown));
    }
}

#[test]
fn after_sip_was_off_only_a_chain_asked_for_later_helps() {
    let mut table = Table::new();
    let nonce = table.good_round();
    table.pass(3_600);
    table.ask_again();
    table.idle();
    table.acknowledge(report(false));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    table.pass(3_600);
    table.ask_again();
    table.idle();
    table.acknowledge(good());
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(table.verdict(), Some(Verdict::Unknown));
    assert_eq!(
        table.changes.events[1].body["reasons"][0],
        "apple_rate_limit"
    );

    table.pass(7 * 86_400);
    table.ask_again();
    table.good_round();
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
}
