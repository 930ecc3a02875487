//! Nonces that are made from a head of the transparency log.

use super::*;
use crate::attestation::Scheme;
use crate::posture::key_binding::Proof;

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
const KEY: &str =
    "qKxKds4zZk81flmOxcOmQVYSL0xkeg88tLBfXd7ghhJ/QYjW5ZKBAzASJ0TPwseWv38jW61NESGDtGsJqdzJ9Q==";

impl Table {
    /// A Mac that Apple proved a week ago, whose provider's key is known.
    fn proved_with_key() -> Self {
        let mut table = Self::new();
        table.good_round();
        table.pass(8 * DAY);
        let now = table.now;
        let posture = table.posture.as_mut().expect("known");
        assert!(posture.prove_key(KEY, Proof::Operator, now));
        table.ask_again();
        table
    }

    /// The log has a head of so many seconds ago.
    fn head(&mut self, ago: i64) {
        self.beacon = Some(Arc::new(Beacon {
            origin: "mdm.example/log".to_owned(),
            size: 7,
            root: [9; 32],
            head_at: Timestamp::from_millis(self.now.millis() - ago * 1_000),
        }));
    }

    fn ask_for_attestation(&mut self) -> Minted {
        self.idle();
        self.acknowledge(good());
        self.ledger.last().expect("minted").clone()
    }
}

#[test]
fn a_nonce_is_made_from_the_newest_head_and_the_statement_counts_from_it() {
    let mut table = Table::proved_with_key();
    table.head(600);
    let head = table.beacon.clone().expect("a head");
    let minted = table.ask_for_attestation();
    assert_eq!(minted.scheme, Scheme::BeaconV2);
    assert_eq!(minted.inputs.beacon.as_ref(), Some(head.as_ref()));
    assert_eq!(head.nonce(KEY), Some(minted.nonce));
    table.acknowledge(table.chain(Some(&minted.nonce), "SIMQ4T2W7P"));
    assert_eq!(table.verdict(), Some(Verdict::Affirming));
    let posture = table.posture.as_ref().expect("known");
    let attested = posture.attested.as_ref().expect("believed");
    assert!(matches!(attested.freshness, Freshness::Fresh { .. }));
    assert_eq!(attested.freshness.minted_at(), Some(head.head_at));
    assert_eq!(attested.freshness.se_public_key(), Some(KEY));
    // Apple's week goes from when it made the statement, not from the head.
    let week = Duration::from_secs(7 * DAY);
    assert!(attested.renewable_from() >= Some(table.now.plus(week)));
}

#[test]
fn where_a_nonce_must_not_be_known_before_it_is_made_from_the_question() {
    type Change = fn(&mut Table);
    let cases: [(&str, Change); 8] = [
        ("there is no head", |table| table.beacon = None),
        ("the head is old", |table| table.head(30 * 60)),
        ("the head is of a time to come", |table| table.head(-1)),
        ("Apple said something since", |table| {
            let posture = table.posture.as_mut().expect("known");
            let attested = posture.attested.as_mut().expect("believed");
            let said_at = table.now.minus(Duration::from_secs(10));
            let Freshness::Fresh { minted_at, .. } = &mut attested.freshness else {
                panic!("a fresh one");
            };
            *minted_at = said_at;
            table.head(20);
        }),
        ("it is of before this enrollment", |table| {
            table.enrolled_at = table.now;
        }),
        ("the serial number is not proved", |table| {
            table.proved = false;
        }),
        ("another Mac has the place", |table| table.contends = true),
        ("no key is known", |table| {
            table.posture.as_mut().expect("known").keys.clear();
        }),
    ];
    for (why, change) in cases {
        let mut table = Table::proved_with_key();
        table.head(1);
        change(&mut table);
        let minted = table.ask_for_attestation();
        assert_eq!(minted.scheme, Scheme::TranscriptV1, "{why}");
        assert_eq!(minted.inputs.beacon, None, "{why}");
    }
}

#[test]
fn after_a_negative_a_statement_is_asked_for_that_cannot_be_older() {
    let mut table = Table::proved_with_key();
    table.idle();
    table.acknowledge(report(false));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    table.pass(HOUR);
    for (ago, scheme) in [
        (i64::try_from(HOUR).expect("small"), Scheme::TranscriptV1),
        (60, Scheme::BeaconV2),
    ] {
        table.ask_again();
        table.head(ago);
        assert_eq!(table.ask_for_attestation().scheme, scheme);
        table.pass(60);
    }
}
