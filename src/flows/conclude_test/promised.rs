//! Names that a coordinator was promised, and nonces of its own.

use super::*;
use crate::attestation::Scheme;
use crate::ids::sha256;
use crate::mdm::foreign::Spelled;
use crate::posture::key_binding::Proof;
use crate::store::Relay;
use crate::verification::Promised;

const DAY: u64 = 24 * 60 * 60;
const KEY: &str =
    "qKxKds4zZk81flmOxcOmQVYSL0xkeg88tLBfXd7ghhJ/QYjW5ZKBAzASJ0TPwseWv38jW61NESGDtGsJqdzJ9Q==";

fn name(number: u8) -> CommandUuid {
    CommandUuid::parse(&format!("0e0f2b52-70a5-4da0-a6e0-0a6d9a1c1b{number:02x}")).expect("a name")
}

/// As the Go coordinator writes it.
fn spelled(number: u8) -> Spelled {
    Spelled::parse(&name(number).as_str().to_lowercase()).expect("a name")
}

impl Table {
    /// A Mac that Apple proved a week ago, and that is asked for an attestation on behalf of a
    /// coordinator.
    fn relaying(nonce: Option<[u8; 32]>) -> Self {
        let mut table = Self::new();
        table.relays = true;
        table.good_round();
        table.pass(8 * DAY);
        table.ask_again();
        table.promise(Kind::Mda, 1, nonce);
        table
    }

    fn promise(&mut self, kind: Kind, number: u8, nonce: Option<[u8; 32]>) {
        let promised = Promised {
            name: spelled(number),
            nonce,
            used: false,
        };
        self.verification.promise(kind, promised);
    }

    /// Brings the Mac to the question that Apple answers.
    fn reach_attestation(&mut self) {
        self.idle();
        self.acknowledge(good());
    }

    fn told(&self) -> Vec<String> {
        let told = self.changes.relays.iter().map(|relay| match relay {
            Relay::Asked { asked, .. } => format!("asked {asked}"),
            Relay::Answered { asked, status, .. } => format!("{status} {asked}"),
            Relay::Withheld { asked, reason, .. } => format!("{reason} {asked}"),
        });
        told.collect()
    }
}

#[test]
fn a_promised_name_is_borne_by_the_question_and_again_after_not_now() {
    let mut table = Table::new();
    table.relays = true;
    table.promise(Kind::SecurityInfo, 7, None);
    assert!(holds(&table.idle(), &spelled(7).to_string()));
    assert_eq!(table.told(), [format!("asked {}", name(7))]);
    table.answer(&name(7), Status::NotNow(name(7)), Content::None);
    assert_eq!(table.told(), [""; 0], "it is not the answer yet");
    table.pass(60);
    assert!(holds(&table.idle(), &spelled(7).to_string()));
    let decision = table.answer(&name(7), Status::Acknowledged(name(7)), good());
    assert_eq!(decision.refused, None);
    assert_eq!(table.told()[0], format!("Acknowledged {}", name(7)));
    // It is over with it.
    let again = table.answer(&name(7), Status::Acknowledged(name(7)), good());
    assert_eq!(again.refused, Some(Reason::AnswerUnsolicited));
    assert!(!table.told().concat().contains("Acknowledged"));
}

#[test]
fn a_coordinators_nonce_is_asked_with_recorded_once_and_dated_by_apple() {
    let nonce = sha256(KEY.as_bytes());
    let mut table = Table::relaying(Some(nonce));
    table.reach_attestation();
    assert_eq!((table.asked(), table.nonce()), (name(1), nonce));
    let minted = table.ledger.last().expect("recorded").clone();
    assert_eq!(minted.scheme, Scheme::LegacySeSha256);
    assert_eq!(
        minted.inputs.se_public_key, "",
        "nobody here knows of what key it is"
    );
    // The hand-over got lost: the same question again, and the ledger has the first.
    let before = table.ledger.len();
    table.pass(60);
    assert!(holds(&table.idle(), &spelled(1).to_string()));
    assert_eq!(table.ledger.len(), before);

    let decision = table.acknowledge(table.chain(Some(&nonce), "SIMQ4T2W7P"));
    assert_eq!(
        (decision.refused, table.verdict()),
        (None, Some(Verdict::Affirming))
    );
    assert_eq!(table.told()[0], format!("Acknowledged {}", name(1)));
    let attested = table
        .posture
        .as_ref()
        .and_then(|it| it.attested.clone())
        .expect("believed");
    let age = table
        .now
        .since(attested.freshness.minted_at().expect("dated"));
    // Apple's leaf begins a day before it is issued.
    assert_eq!(age.as_secs().div_euclid(3_600), 24);
    assert!(matches!(attested.freshness, Freshness::Fresh { .. }));
}

#[test]
fn a_coordinators_nonce_names_a_key_only_if_it_was_made_from_one_that_is_this_macs() {
    let mut table = Table::relaying(Some(sha256(KEY.as_bytes())));
    let now = table.now;
    let posture = table.posture.as_mut().expect("known");
    assert!(posture.prove_key(KEY, Proof::Operator, now));
    table.reach_attestation();
    assert_eq!(
        table.ledger.last().expect("recorded").inputs.se_public_key,
        KEY
    );
}

#[test]
fn whoever_copied_a_chain_gains_nothing_by_a_nonce_that_was_known() {
    let nonce = sha256(KEY.as_bytes());
    for contends in [false, true] {
        let mut table = Table::new();
        table.relays = true;
        table.contends = contends;
        table.promise(Kind::Mda, 1, Some(nonce));
        // What was published of another, or made before this Mac ever enrolled.
        let copied = table.chain(Some(&nonce), "SIMQ4T2W7P");
        table.reach_attestation();
        assert_eq!(table.asked(), name(1), "the name is kept");
        assert_ne!(table.nonce(), nonce, "the nonce is ours");
        let decision = table.acknowledge(copied);
        assert_eq!(decision.refused, Some(Reason::NonceUnrecognized));
        assert!(!table.proved && table.changes.proved_at.is_none());
        assert_ne!(table.verdict(), Some(Verdict::Affirming));
    }
}

#[test]
fn a_statement_of_before_a_negative_is_not_renewed_by_a_nonce_that_was_known() {
    let nonce = sha256(KEY.as_bytes());
    let mut table = Table::relaying(Some(nonce));
    // Made while all was well, and kept to be shown later.
    let saved = table.chain(Some(&nonce), "SIMQ4T2W7P");
    table.idle();
    table.acknowledge(report(false));
    assert_eq!(table.verdict(), Some(Verdict::Contraindicated));
    assert_ne!(
        table.nonce(),
        nonce,
        "so soon after a negative it would only spoil Apple's next statement"
    );

    table.pass(2 * DAY);
    table.ask_again();
    table.promise(Kind::Mda, 2, Some(nonce));
    table.reach_attestation();
    assert_eq!(table.nonce(), nonce);
    table.acknowledge(saved);
    let attested = table
        .posture
        .as_ref()
        .and_then(|it| it.attested.clone())
        .expect("read");
    let void = table
        .posture
        .as_ref()
        .and_then(|it| it.void_before)
        .expect("a negative");
    assert!(
        attested.freshness.minted_at().expect("dated") < void,
        "it is as old as it is"
    );
    assert_ne!(table.verdict(), Some(Verdict::Affirming));
}

#[test]
fn a_nonce_of_ours_is_never_asked_with_twice_under_one_name() {
    let mut table = Table::relaying(None);
    table.reach_attestation();
    assert_eq!(table.asked(), name(1));
    let first = table.nonce();
    table.pass(60);
    table.idle();
    assert_ne!((table.asked(), table.nonce()), (name(1), first));
    assert_eq!(
        table.told(),
        [format!("asked {}", table.asked())],
        "whoever waits, waits for this"
    );
    let last = table.ledger.last().expect("recorded");
    assert_eq!(last.inputs.clone().mint(), *last);
}

#[test]
fn what_is_false_is_not_passed_on_and_an_error_is() {
    for (content, expected) in [
        (Content::ChainMalformed, "chain_invalid"),
        (Content::Malformed, "answer_malformed"),
        (Content::NoAttestation, "Acknowledged"),
    ] {
        let mut table = Table::relaying(None);
        table.reach_attestation();
        table.acknowledge(content);
        assert_eq!(table.told(), [format!("{expected} {}", name(1))]);
    }
    let mut table = Table::relaying(None);
    table.reach_attestation();
    let another = table.chain(Some(&table.nonce()), "ANOTHER0001");
    table.acknowledge(another);
    assert_eq!(table.told(), [format!("serial_mismatch {}", name(1))]);

    let mut table = Table::relaying(None);
    table.reach_attestation();
    table.answer(&name(1), Status::Error(name(1), Vec::new()), Content::None);
    assert_eq!(table.told()[0], format!("Error {}", name(1)));
    // Another identity's word is nobody's.
    let mut table = Table::relaying(None);
    table.reach_attestation();
    let stranger = CertificateHash::of(b"another identity");
    let answer = Status::Acknowledged(name(1));
    table.answer_by(stranger, &name(1), answer, good());
    assert!(
        !table
            .told()
            .iter()
            .any(|told| told.contains("Acknowledged"))
    );
}
