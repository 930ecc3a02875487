use std::time::Duration;

use serde_json::{Value, json};

use super::challenge::{Asked, Challenge, Response, StatusSignature};
use super::session::{LONGEST_GAP, Registered, Registration, Session};
use super::test_provider::{K, Provider};
use super::{EncryptionKey, Version};
use crate::entropy::SeededEntropy;
use crate::ids::{BindingId, SerialNumber, SessionId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Shortly after [`Provider::blob`] was made.
fn now() -> Timestamp {
    Timestamp::parse("2026-09-20T12:00:00Z").expect("a time")
}

fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

fn registration(provider: &Provider, change: impl FnOnce(&mut Value)) -> Registration {
    let mut blob = provider.blob();
    change(&mut blob);
    let blob = blob.to_string().into_bytes();
    Registration {
        key: provider.key(),
        encryption_key: EncryptionKey::parse(K).expect("a key"),
        provider_version: None,
        account: Some("a".to_owned()),
        claimed_serial: None,
        signature: provider.sign(&blob),
        blob,
    }
}

fn binding_id(number: u64) -> BindingId {
    BindingId::new(now(), &SeededEntropy::new(number))
}

fn begin(registration: Registration) -> Session {
    let session_id = SessionId::parse("s-1").expect("a session");
    Session::begin(session_id, binding_id(1), registration.judge(now()), now())
}

#[test]
fn a_session_is_what_its_blob_is_worth() {
    let provider = Provider::new();
    let session = begin(registration(&provider, |_| {}));
    assert!(session.blob_reasons.is_empty() && session.has_spoken() && session.is_live());
    let claimed = session.claimed_serial.as_ref().map(SerialNumber::as_str);
    assert_eq!(claimed, Some("SIMQ4T2W7P"));
    assert_eq!(session.binaries().collect::<Vec<_>>(), [None]);

    let off = registration(&provider, |blob| blob["sipEnabled"] = json!(false)).judge(now());
    assert_eq!(off.negatives(), [Reason::SipDisabled]);
    // Without a good signature nothing was said: neither good nor bad.
    let mut forged = registration(&provider, |blob| blob["sipEnabled"] = json!(false));
    forged.signature = Provider::new().sign(&forged.blob);
    let forged = forged.judge(now());
    assert!(forged.negatives().is_empty());
    let forged = Session::begin(
        SessionId::parse("s").expect("a session"),
        binding_id(2),
        forged,
        now(),
    );
    assert_eq!(forged.blob_reasons, [Reason::SignatureInvalid]);
    assert!(!forged.has_spoken());
}

#[test]
fn a_copied_blob_is_not_the_word_of_this_process() {
    let provider = Provider::new();
    let copied = |change: fn(&mut Registration)| {
        let mut copy = registration(&provider, |blob| blob["sipEnabled"] = json!(false));
        change(&mut copy);
        copy
    };
    // For another K; and later, by whoever says that its software is old.
    let other = copied(|it| {
        let k = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        it.encryption_key = EncryptionKey::parse(k).expect("a key");
    });
    let judged = other.judge(now());
    assert!(judged.negatives().is_empty());
    let old = copied(|it| it.provider_version = Version::parse("0.8.14").ok());
    let judged = old.judge(later(600));
    assert!(judged.negatives().is_empty(), "an old word counts once");
    let session_id = SessionId::parse("s").expect("a session");
    let session = Session::begin(session_id, binding_id(1), judged, later(600));
    assert_eq!(session.blob_reasons, [Reason::SipDisabled]);
}

#[test]
fn the_same_words_again_are_nothing_new() {
    let provider = Provider::new();
    let first = registration(&provider, |_| {});
    let mut session = begin(first.clone());
    assert!(session.is_registered_by(&first));
    let before = session.clone();
    let done = session.register(binding_id(2), first.clone().judge(now()), now());
    assert_eq!(done, Ok(Registered::Same));
    assert_eq!(session.binding_id, before.binding_id);

    let renewed = registration(&provider, |blob| blob["osVersion"] = json!("Version 27"));
    let done = session.register(binding_id(2), renewed.judge(now()), later(5));
    assert_eq!(done, Ok(Registered::Renewed));
    assert!(session.shows_restart_since(&before));
    assert_eq!(
        (&session.binding_id, session.began_at),
        (&before.binding_id, before.began_at)
    );

    let mut replaced = first.clone();
    replaced.encryption_key =
        EncryptionKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key");
    let done = session.register(binding_id(3), replaced.judge(now()), later(6));
    assert_eq!(done, Ok(Registered::Replaced));
    assert_eq!(
        (&session.binding_id, session.began_at),
        (&binding_id(3), later(6))
    );

    // The same point by another text is another key to name.
    let mut other_text = first;
    other_text.key = provider.key_65();
    let done = session.register(binding_id(4), other_text.judge(now()), later(7));
    assert_eq!(done, Ok(Registered::Replaced));
}

#[test]
fn a_session_does_not_change_hands() {
    let provider = Provider::new();
    let mut session = begin(registration(&provider, |_| {}));
    let of = |account: Option<&str>| {
        let mut registration = registration(&provider, |_| {});
        registration.account = account.map(str::to_owned);
        registration.judge(now())
    };
    assert!(
        session
            .register(binding_id(2), of(Some("b")), now())
            .is_err()
    );
    assert!(session.register(binding_id(2), of(None), now()).is_err());
    assert!(session.end(Some(Duration::from_secs(90)), now()));
    assert!(!session.end(None, later(1)), "once");
    assert!(
        session
            .register(binding_id(2), of(Some("b")), later(89))
            .is_err()
    );
    assert_eq!(
        session.register(binding_id(2), of(Some("b")), later(90)),
        Ok(Registered::Replaced)
    );
}

#[test]
fn an_ended_session_is_taken_up_again_for_two_minutes_at_most() {
    let provider = Provider::new();
    let first = registration(&provider, |_| {});
    let mut session = begin(first.clone());
    assert!(session.end(Some(Duration::from_secs(9000)), now()));
    assert!(!session.is_live() && !session.is_registered_by(&first));
    let until = now().plus(LONGEST_GAP);
    assert!(session.is_known(until.minus(Duration::from_millis(1))) && !session.is_known(until));
    let resumed = session.register(binding_id(2), first.clone().judge(now()), later(119));
    assert_eq!(
        (resumed, &session.binding_id),
        (Ok(Registered::Resumed), &binding_id(1))
    );
    assert!(session.is_live());
    assert!(session.end(Some(Duration::ZERO), now()));
    assert!(!session.is_known(now()));
    let again = session.register(binding_id(2), first.judge(now()), now());
    assert_eq!(again, Ok(Registered::Replaced));
}

#[test]
fn coordinator_and_blob_must_not_claim_different_macs() {
    let provider = Provider::new();
    let mut other = registration(&provider, |_| {});
    other.claimed_serial = SerialNumber::parse("FXSYNTH0009").ok();
    let session = begin(other);
    assert_eq!(session.claimed_serial, None);
    assert_eq!(session.blob_reasons, [Reason::SerialMismatch]);
    let mut only_one = registration(&provider, |blob| {
        blob.as_object_mut()
            .expect("members")
            .remove("serialNumber");
    });
    only_one.claimed_serial = SerialNumber::parse("FXSYNTH0009").ok();
    assert_eq!(
        begin(only_one.clone()).claimed_serial,
        only_one.claimed_serial
    );
}

#[test]
fn another_program_than_the_registered_one_is_remembered_until_it_is_gone() {
    let provider = Provider::new();
    let hash = "a1".repeat(32);
    let mut session = begin(registration(&provider, |blob| {
        blob["binaryHash"] = json!("a1".repeat(32));
    }));
    let challenge = Challenge::mint([7; 32], now());
    let mut says = |hash: &str| {
        let frame = provider.answer(&challenge, json!({ "binary_hash": hash }));
        let response = Response::parse(frame.to_string().as_bytes()).expect("an answer");
        let answer = response.verify(&Asked {
            challenge: &challenge,
            key: &provider.key(),
            encryption_key: None,
            status_signature: StatusSignature::Required,
            answer_within: Duration::from_secs(30),
            received_at: now(),
        });
        session.hear(&answer.expect("good"));
        session
            .binaries()
            .map(|it| it.map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(says(&hash), [Some(hash.clone())]);
    let other = "b2".repeat(32);
    assert_eq!(says(&other), [Some(hash.clone()), Some(other)]);
    assert_eq!(says(&hash), [Some(hash)]);
}

#[test]
fn a_rival_is_met_once() {
    let provider = Provider::new();
    let mut session = begin(registration(&provider, |_| {}));
    let rival = Provider::new().key().point();
    assert!(session.meets(rival) && !session.meets(rival));
    for _ in 0..16 {
        assert!(session.meets(Provider::new().key().point()));
    }
    assert!(session.meets(rival), "the oldest is forgotten");
    let stored = serde_json::to_string(&session).expect("JSON");
    let read: Session = serde_json::from_str(&stored).expect("reads back");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), stored);
}

/// By this a session is found silent, and by this it is asked again before it is ended for that.
#[test]
fn a_session_was_heard_of_when_it_began_or_registered_again() {
    let provider = Provider::new();
    let mut session = begin(registration(&provider, |_| {}));
    // The blob is half a minute older than the session.
    assert_eq!(session.heard_of_at(), now());
    let again = registration(&provider, |blob| {
        blob["timestamp"] = json!("2026-09-20T12:05:00Z");
    });
    let done = session.register(binding_id(2), again.judge(later(300)), later(300));
    assert!(done.is_ok());
    assert!(session.heard_of_at() >= later(300));
}
