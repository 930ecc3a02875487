//! Challenges, their answers, and what is no answer to them.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::challenge::{
    AnswerRefusal, Asked, Challenge, FinishedExchange, MAX_RESPONSE, Response, StatusSignature,
    VerifiedAnswer,
};
use super::encryption_key::EncryptionKey;
use super::members::Malformed;
use super::se_key::SePublicKey;
use super::signature::BadSignature;
use super::test_provider::{CHALLENGE, K, Provider, SE_KEY};
use crate::reason::Reason;
use crate::time::Timestamp;

const WITHIN: Duration = Duration::from_secs(30);

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

fn parse(answer: &Value) -> Result<Response, Malformed> {
    Response::parse(answer.to_string().as_bytes())
}

struct Scene {
    provider: Provider,
    challenge: Challenge,
    key: SePublicKey,
    k: EncryptionKey,
    policy: StatusSignature,
    received_at: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let provider = Provider::new();
        let minted = time("2026-09-20T11:59:58.250Z");
        Self {
            key: provider.key(),
            provider,
            challenge: Challenge::mint([7; 32], minted),
            k: EncryptionKey::parse(K).expect("a key"),
            policy: StatusSignature::Required,
            received_at: minted.plus(Duration::from_secs(1)),
        }
    }

    fn answer(&self, changes: Value) -> Value {
        self.provider.answer(&self.challenge, changes)
    }

    fn verify(&self, answer: &Value) -> Result<VerifiedAnswer, AnswerRefusal> {
        parse(answer)?.verify(&Asked {
            challenge: &self.challenge,
            key: &self.key,
            encryption_key: Some(&self.k),
            status_signature: self.policy,
            answer_within: WITHIN,
            received_at: self.received_at,
        })
    }
}

fn fixture() -> (Value, FinishedExchange) {
    let exchange: Value = serde_json::from_str(CHALLENGE).expect("JSON");
    let request = &exchange["request"];
    let text = |name: &str| request[name].as_str().expect("text");
    let finished = FinishedExchange {
        challenge: Challenge::retell(text("nonce"), text("timestamp")).expect("a challenge"),
        response: parse(&exchange["response"]).expect("an answer"),
        received_at: time("2026-09-20T11:59:59Z"),
    };
    (exchange, finished)
}

#[test]
fn a_challenge_is_32_random_bytes_and_whole_seconds() {
    let challenge = Challenge::mint([7; 32], time("2026-09-20T11:59:58.250Z"));
    assert_eq!(
        challenge.to_json(),
        json!({
            "type": "attestation_challenge",
            "nonce": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "timestamp": "2026-09-20T11:59:58Z",
        })
    );
    assert_eq!(challenge.issued_at(), time("2026-09-20T11:59:58.250Z"));
    let stored = serde_json::to_string(&challenge).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Challenge>(&stored).ok(),
        Some(challenge)
    );
}

#[test]
fn the_exchange_of_the_fixture_is_good() {
    let (exchange, finished) = fixture();
    let key = SePublicKey::parse(SE_KEY).expect("a key");
    let k = EncryptionKey::parse(K).expect("a key");
    let now = time("2026-09-20T12:00:00Z");
    let answer = finished
        .verify(&key, Some(&k), StatusSignature::Required, WITHIN, now)
        .expect("good");
    assert!(answer.is_status_signed());
    assert_eq!(answer.negatives(), []);
    assert_eq!(answer.status().canonical(), exchange["status_canonical"]);
    assert_eq!(answer.received_at(), time("2026-09-20T11:59:59Z"));
}

#[test]
fn an_answer_is_by_this_key_to_this_challenge() {
    let scene = Scene::new();
    let good = scene.answer(json!({}));
    assert!(scene.verify(&good).is_ok());
    // The same key by its other text.
    let by_its_65_bytes = Scene {
        key: scene.provider.key_65(),
        ..Scene::new()
    };
    assert!(by_its_65_bytes.verify(&good).is_ok());

    let other_key = Scene {
        key: Provider::new().key(),
        ..Scene::new()
    };
    assert_eq!(
        other_key.verify(&good),
        Err(AnswerRefusal::BadSignature(BadSignature))
    );
    let other_nonce = Scene {
        challenge: Challenge::mint([8; 32], scene.challenge.issued_at()),
        ..Scene::new()
    };
    let refused = other_nonce.verify(&good).expect_err("refused");
    assert_eq!(refused, AnswerRefusal::OtherNonce);
    assert_eq!(refused.reason(), Reason::ChallengeMismatch);
    // The nonce again, a minute later: the timestamp is signed too.
    let again = Challenge::mint([7; 32], scene.challenge.issued_at().plus(WITHIN * 2));
    let received_at = again.issued_at();
    let again = Scene {
        challenge: again,
        key: scene.provider.key(),
        received_at,
        ..Scene::new()
    };
    assert_eq!(
        again.verify(&good),
        Err(AnswerRefusal::BadSignature(BadSignature))
    );
    let mut of_another = good.clone();
    of_another["public_key"] = json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let refused = scene.verify(&of_another).expect_err("refused");
    assert_eq!(refused, AnswerRefusal::OtherKey);
    assert_eq!(refused.reason(), Reason::KeyMismatch);
    let mut unnamed = good;
    unnamed["public_key"] = Value::Null;
    assert!(scene.verify(&unnamed).is_ok());
}

#[test]
fn what_is_said_of_the_mac_is_signed() {
    let mut scene = Scene::new();
    let good = scene.answer(json!({}));
    for (name, value) in [
        ("sip_enabled", json!(false)),
        ("secure_boot_enabled", Value::Null),
        ("hypervisor_active", json!(false)),
        ("binary_hash", json!("b2".repeat(32))),
        ("model_hashes", json!({})),
    ] {
        let mut changed = good.clone();
        changed[name] = value;
        let refused = scene.verify(&changed).expect_err(name);
        assert_eq!(refused, AnswerRefusal::BadStatusSignature(BadSignature));
        assert_eq!(refused.reason(), Reason::SignatureInvalid);
    }
    // The signature over nonce and timestamp is none over the status.
    let mut swapped = good.clone();
    swapped["status_signature"] = good["signature"].clone();
    let refused = Err(AnswerRefusal::BadStatusSignature(BadSignature));
    assert_eq!(scene.verify(&swapped), refused);
    for empty in [Value::Null, json!("")] {
        let mut unsigned = good.clone();
        unsigned["status_signature"] = empty;
        let refused = scene.verify(&unsigned).expect_err("required");
        assert_eq!(refused, AnswerRefusal::StatusUnsigned);
        assert_eq!(refused.reason(), Reason::FieldMissing);
        scene.policy = StatusSignature::Optional;
        let answer = scene.verify(&unsigned).expect("optional");
        assert!(!answer.is_status_signed());
        // A bad one is bad where none is needed.
        assert!(matches!(
            scene.verify(&swapped),
            Err(AnswerRefusal::BadStatusSignature(_))
        ));
        let mut torn = good.clone();
        torn["status_signature"] = json!("AAAA");
        assert!(matches!(
            scene.verify(&torn),
            Err(AnswerRefusal::StatusSignature(_))
        ));
        scene.policy = StatusSignature::Required;
    }
}

#[test]
fn a_provider_can_speak_against_its_own_mac() {
    let scene = Scene::new();
    for (changes, negatives) in [
        (json!({"sip_enabled": false}), vec![Reason::SipDisabled]),
        (
            json!({"secure_boot_enabled": false}),
            vec![Reason::SecureBootOff],
        ),
        (
            json!({"secure_boot_enabled": false, "sip_enabled": false}),
            vec![Reason::SipDisabled, Reason::SecureBootOff],
        ),
        (json!({"secure_boot_enabled": null}), vec![]),
        (json!({"rdma_disabled": false}), vec![]),
        (json!({"hypervisor_active": true}), vec![]),
    ] {
        let answer = scene
            .verify(&scene.answer(changes))
            .expect("by the right key");
        assert_eq!(answer.negatives(), negatives);
    }
}

#[test]
fn an_answer_has_the_form_it_must_have_and_newer_members_count_for_nothing() {
    let scene = Scene::new();
    let good = scene.answer(json!({}));
    let mut newer = good.clone();
    newer["gpu_attested"] = json!({"sip_enabled": false});
    assert!(scene.verify(&newer).is_ok());

    for name in ["nonce", "signature", "sip_enabled", "rdma_disabled"] {
        let mut without = good.clone();
        without[name] = Value::Null;
        let refused = scene.verify(&without).expect_err(name);
        assert_eq!(refused, Malformed::Missing(name).into());
        assert_eq!(refused.reason(), Reason::FieldMissing);
    }
    for (name, value) in [
        ("type", json!("attestation_challenge")),
        ("sip_enabled", json!("true")),
        ("rdma_disabled", json!(1)),
        ("model_hashes", json!([])),
        ("template_hashes", json!({"a": 1})),
        ("binary_hash", json!(7)),
        ("signature", json!([])),
    ] {
        let mut wrong = good.clone();
        wrong[name] = value;
        assert_eq!(parse(&wrong).err(), Some(Malformed::Form(name)));
    }
    let text = good.to_string();
    for bad in [
        text.replacen('{', "{\"sip_enabled\":true,", 1),
        text.replacen('{', "{\"Sip_Enabled\":true,", 1),
        text.replace(
            "\"A.Model\":\"01\"",
            "\"A.Model\":\"01\",\"A.Model\":\"02\"",
        ),
        format!("[{text}]"),
    ] {
        let refused = Response::parse(bad.as_bytes()).err();
        assert!(refused.is_some_and(|refusal| refusal.reason() == Reason::AnswerMalformed));
    }
    let large = text.replace("b/model", &"m".repeat(MAX_RESPONSE));
    let refused = Response::parse(large.as_bytes()).err();
    assert_eq!(refused, Some(Malformed::TooLarge(MAX_RESPONSE)));
}

#[test]
fn an_answer_after_thirty_seconds_is_none() {
    let mut scene = Scene::new();
    let good = scene.answer(json!({}));
    scene.received_at = scene.challenge.issued_at().plus(WITHIN);
    assert!(scene.verify(&good).is_ok());
    scene.received_at = scene.received_at.plus(Duration::from_millis(1));
    let refused = scene.verify(&good).expect_err("late");
    assert_eq!(refused, AnswerRefusal::Late);
    assert_eq!(refused.reason(), Reason::AnswerTimeout);
}

#[test]
fn the_coordinators_times_must_be_possible() {
    let key = SePublicKey::parse(SE_KEY).expect("a key");
    let verify = |received_at: &str, now: &str| {
        let finished = FinishedExchange {
            received_at: time(received_at),
            ..fixture().1
        };
        finished.verify(&key, None, StatusSignature::Required, WITHIN, time(now))
    };
    // Its clock is a minute ahead of ours: the answer is not of the future for that.
    let ahead = verify("2026-09-20T12:00:00Z", "2026-09-20T11:59:00Z").expect("good");
    assert_eq!(ahead.received_at(), time("2026-09-20T11:59:00Z"));
    // Of yesterday: good, and as old as it is.
    let old = verify("2026-09-20T12:00:00Z", "2026-09-21T12:00:00Z").expect("good");
    assert_eq!(old.received_at(), time("2026-09-20T12:00:00Z"));
    for (received_at, now, refusal) in [
        // Before it was asked.
        (
            "2026-09-20T11:59:57Z",
            "2026-09-20T12:00:00Z",
            AnswerRefusal::Untimely,
        ),
        // Of a time that lies ahead.
        (
            "2026-09-20T12:00:00Z",
            "2026-09-20T11:57:59Z",
            AnswerRefusal::Untimely,
        ),
        (
            "2026-09-20T12:00:29Z",
            "2026-09-20T12:00:30Z",
            AnswerRefusal::Late,
        ),
    ] {
        assert_eq!(
            verify(received_at, now),
            Err(refusal),
            "{received_at} at {now}"
        );
    }
    assert_eq!(
        AnswerRefusal::Untimely.reason(),
        Reason::TimestampOutOfWindow
    );
}

#[test]
fn a_retold_challenge_says_where_its_nonce_ends() {
    let nonce = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    assert!(Challenge::retell(nonce, "2026-09-20T11:59:58Z").is_ok());
    for (nonce, timestamp, fault) in [
        // The nonce could lend characters to the timestamp.
        (&format!("{nonce}2")[..], "026-09-20T11:59:58Z", "nonce"),
        ("", "2026-09-20T11:59:58Z", "nonce"),
        ("BwcHBwcHBwcHBwcHBwcHBw==", "2026-09-20T11:59:58Z", "nonce"),
        (nonce, "2026-09-20", "timestamp"),
        (nonce, "", "timestamp"),
    ] {
        let refused = Challenge::retell(nonce, timestamp).err();
        assert_eq!(refused, Some(Malformed::Form(fault)), "{nonce} {timestamp}");
    }
}

proptest! {
    #[test]
    fn no_single_changed_byte_of_an_answer_is_taken_for_another(at in 0_usize..2_000, bit in 0..8) {
        let (exchange, finished) = fixture();
        let mut bytes = exchange["response"].to_string().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        let key = SePublicKey::parse(SE_KEY).expect("a key");
        let k = EncryptionKey::parse(K).expect("a key");
        let good = finished.response.clone();
        let verify = |response| {
            FinishedExchange { response, ..finished.clone() }.verify(
                &key,
                Some(&k),
                StatusSignature::Required,
                WITHIN,
                time("2026-09-20T12:00:00Z"),
            )
        };
        // A name that is not signed may become one that nobody knows; what is said stays the same.
        if let Ok(response) = Response::parse(&bytes)
            && let Ok(answer) = verify(response)
        {
            prop_assert_eq!(Ok(answer), verify(good));
        }
    }
}
