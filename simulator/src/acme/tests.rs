//! The client against written-down answers: a good run, and every rule broken once.

use std::time::{Duration, Instant};

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use serde_json::{Value, json};

use super::script::{Answer, Body, Script, Seen, good_run};
use super::*;
use crate::certs::Issuer;
use crate::clock::Clock;
use crate::keys::{self, KeyKind};

const IDENTIFIER: &str = "SIMQ4T2W7P";
const TOKEN: &str = "q1Vb0m3J7sQw2nXy8LrTzKc5dEfGhAiP";

fn issuer() -> Issuer {
    Issuer::root("CA", "Test", KeyKind::P256, Clock::system().now_ms()).unwrap()
}

fn good() -> Vec<Answer> {
    good_run(IDENTIFIER, TOKEN, &issuer())
}

fn quick() -> AcmeTiming {
    AcmeTiming {
        request: Duration::from_secs(20),
        pause: Duration::from_millis(30),
        whole: Duration::from_secs(60),
    }
}

fn http() -> reqwest::Client {
    let builder = reqwest::Client::builder();
    builder
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

fn settings() -> AcmeSettings {
    AcmeSettings {
        directory_url: String::new(),
        client_identifier: IDENTIFIER.into(),
        key: KeyForm::Ec(384),
        hardware_bound: true,
        attest: true,
        subject: vec![vec![("CN".into(), IDENTIFIER.into())]],
        alternative_names: Vec::new(),
        usage_flags: 1,
        extended_key_usage: Vec::new(),
    }
}

/// The whole run for this key, the challenge answered with `with`.
async fn run(
    script: &Script,
    timing: AcmeTiming,
    key: &PKey<Private>,
    with: &ChallengeAnswer,
) -> Result<X509, AcmeError> {
    let http = http();
    let mut run = AcmeRun::begin(&http, &script.directory(), timing, true).await?;
    let order = run.new_order(IDENTIFIER).await?;
    let challenge = run.authorization(&order).await?;
    assert_eq!(challenge.token, TOKEN);
    run.respond(&challenge, with).await?;
    let csr = settings().csr(key).unwrap();
    run.finalize(&order, &csr).await?;
    let url = run.order(&order).await?;
    run.certificate(&url, key).await
}

async fn run_with(answers: Vec<Answer>) -> (Script, Result<X509, AcmeError>) {
    let script = Script::start(answers).await;
    let key = keys::generate(KeyKind::P384).unwrap();
    let outcome = run(&script, quick(), &key, &ChallengeAnswer::Unattested).await;
    (script, outcome)
}

/// The run with one answer changed, which must fail at that very answer, and nothing be sent after.
async fn fault_of(index: usize, change: impl FnOnce(&mut Answer)) -> AcmeFault {
    let mut answers = good();
    change(&mut answers[index]);
    let (script, outcome) = run_with(answers).await;
    let error = outcome.expect_err("an error");
    let steps = [
        AcmeStep::Directory,
        AcmeStep::NewNonce,
        AcmeStep::NewAccount,
        AcmeStep::NewOrder,
        AcmeStep::Authorization,
        AcmeStep::Challenge,
        AcmeStep::Finalize,
        AcmeStep::Order,
        AcmeStep::Certificate,
    ];
    assert_eq!(error.step, steps[index], "{error:?}");
    assert_eq!(script.seen().len(), index + 1, "{error:?}");
    error.fault
}

fn status(found: &str) -> impl FnOnce(&mut Answer) {
    let found = found.to_owned();
    move |answer| answer.edit(|body| body["status"] = found.into())
}

fn remove(member: &'static str) -> impl FnOnce(&mut Answer) {
    move |answer| {
        answer.edit(|body| {
            body.as_object_mut().unwrap().remove(member).unwrap();
        })
    }
}

#[tokio::test]
async fn a_good_run_is_nine_requests_and_the_first_certificate_counts() {
    let (script, outcome) = run_with(good()).await;
    let certificate = outcome.unwrap();
    let public = script.csr().public_key().unwrap();
    assert!(certificate.public_key().unwrap().public_eq(&public));
    let paths: Vec<_> = script
        .seen()
        .iter()
        .map(|one| format!("{} {}", one.method, one.path))
        .collect();
    assert_eq!(
        paths,
        [
            "GET /directory",
            "HEAD /new-nonce",
            "POST /new-account",
            "POST /new-order",
            "POST /authz",
            "POST /challenge",
            "POST /finalize",
            "POST /order",
            "POST /cert",
        ]
    );
}

/// The shape of a request: everything but keys, nonces, signatures and what is unique to a run.
fn shape(method: &str, user_agent: &str, content_type: &str, jws: Option<&Value>) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let Some(jws) = jws else {
        return json!([method, user_agent, content_type]);
    };
    let members = |value: &Value| -> Vec<String> {
        let object = value.as_object();
        object.map_or_else(Vec::new, |all| all.keys().cloned().collect())
    };
    let decode = |member: &str| {
        URL_SAFE_NO_PAD
            .decode(jws[member].as_str().unwrap())
            .unwrap()
    };
    let protected: Value = serde_json::from_slice(&decode("protected")).unwrap();
    let payload = decode("payload");
    let payload: Value = serde_json::from_slice(&payload).unwrap_or(Value::Null);
    let told = match members(&payload).first().map(String::as_str) {
        Some("attObj" | "csr") => json!(members(&payload)),
        _ => payload,
    };
    json!([
        method,
        user_agent,
        content_type,
        members(jws),
        members(&protected),
        members(&protected["jwk"]),
        protected["alg"],
        told,
        decode("signature").len(),
    ])
}

#[tokio::test]
async fn every_request_of_the_transcript_is_made_in_its_shape() {
    let transcript = include_str!("../../fixtures/acme-transcript-good.json");
    // The server of the transcript becomes the listener.
    let transcript = transcript.replace("https://mdm.example.test/acme/e/1f6b2d", "{url}");
    let transcript: Value = serde_json::from_str(&transcript).unwrap();
    let steps = transcript["steps"].as_array().unwrap();
    let answers = steps.iter().map(|step| {
        let response = &step["response"];
        let headers = ["Replay-Nonce", "Location"]
            .into_iter()
            .filter_map(|name| Some((name, response["headers"][name].as_str()?.to_owned())));
        Answer {
            status: u16::try_from(response["status"].as_u64().unwrap()).unwrap(),
            headers: headers.collect(),
            body: Body::Text(match &response["body"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                body => body.to_string(),
            }),
        }
    });
    let script = Script::start(answers.collect()).await;
    let key = keys::generate(KeyKind::P384).unwrap();
    let chain = crate::apple::Chain {
        leaf: vec![1; 100],
        intermediate: vec![2; 100],
    };
    let with = ChallengeAnswer::Attested(chain);
    let outcome = run(&script, quick(), &key, &with).await;
    // The transcript's certificate is for the transcript's key.
    let error = outcome.expect_err("an error");
    assert!(matches!(error.fault, AcmeFault::OtherKey), "{error:?}");

    let ours: Vec<Value> = script
        .seen()
        .iter()
        .map(|seen: &Seen| {
            let jws = (!seen.body.is_empty()).then(|| seen.jws());
            let (agent, kind) = (seen.header("user-agent"), seen.header("content-type"));
            shape(&seen.method, agent, kind, jws.as_ref())
        })
        .collect();
    let theirs: Vec<Value> = steps
        .iter()
        .map(|step| {
            let request = &step["request"];
            let header = |name: &str| request["headers"][name].as_str().unwrap();
            let jws = request["body"].is_object().then_some(&request["body"]);
            let method = request["method"].as_str().unwrap();
            shape(method, header("User-Agent"), header("Content-Type"), jws)
        })
        .collect();
    assert_eq!(ours, theirs);
    // Each request used the nonce of the answer before it, and named its own URL.
    for (seen, before) in script.seen().iter().skip(2).zip(&steps[1..]) {
        let protected: Value = serde_json::from_str(&seen.decoded("protected")).unwrap();
        assert_eq!(
            protected["nonce"],
            before["response"]["headers"]["Replay-Nonce"]
        );
        assert_eq!(protected["url"], format!("{}{}", script.url, seen.path));
    }
}

#[tokio::test]
async fn each_run_has_a_key_of_its_own() {
    let jwk = async || {
        let (script, outcome) = run_with(good()).await;
        outcome.unwrap();
        script.seen()[2].decoded("protected")
    };
    assert_ne!(jwk().await, jwk().await);
}

#[tokio::test]
async fn every_answer_must_bring_a_nonce() {
    for index in 0..9 {
        let fault = fault_of(index, |answer| answer.without("Replay-Nonce")).await;
        assert!(
            matches!(fault, AcmeFault::NoReplayNonce { .. }),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn no_other_status_is_accepted_and_nothing_is_tried_again() {
    for index in 0..9 {
        for status in [202, 301, 400, 403, 500] {
            let fault = fault_of(index, |answer| answer.status = status).await;
            assert!(
                matches!(fault, AcmeFault::Refused { status: found, .. } if found == status),
                "{fault:?}"
            );
        }
    }
    // A nonce may come without content, and nothing else may.
    let fault = fault_of(4, |answer| answer.status = 204).await;
    assert!(
        matches!(fault, AcmeFault::Refused { status: 204, .. }),
        "{fault:?}"
    );
    let (_, outcome) = run_with({
        let mut answers = good();
        answers[1].status = 200;
        answers
    })
    .await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_bad_nonce_ends_the_run_and_its_problem_is_told() {
    let mut answers = good();
    answers[3].status = 400;
    answers[3].body = Body::Text(
        json!({ "type": "urn:ietf:params:acme:error:badNonce", "detail": "used" }).to_string(),
    );
    let (script, outcome) = run_with(answers).await;
    let error = crate::mac::MacError::from(outcome.expect_err("an error")).chain();
    assert_eq!(
        error,
        "no identity by ACME: newOrder: answered with status 400: \
         urn:ietf:params:acme:error:badNonce used"
    );
    assert_eq!(script.seen().len(), 4);
}

#[tokio::test]
async fn created_things_must_say_where_they_are() {
    for index in [2, 3] {
        let fault = fault_of(index, |answer| answer.without("Location")).await;
        assert!(matches!(fault, AcmeFault::NoLocation), "{fault:?}");
        // Also where they existed before: their URL is needed later.
        let fault = fault_of(index, |answer| {
            answer.status = 200;
            answer.without("Location");
        })
        .await;
        assert!(matches!(fault, AcmeFault::NoLocation), "{fault:?}");
    }
    let fault = fault_of(7, |answer| answer.status = 201).await;
    assert!(matches!(fault, AcmeFault::NoLocation), "{fault:?}");
}

#[tokio::test]
async fn what_the_client_needs_must_be_there() {
    for (index, member) in [
        (0, "newNonce"),
        (0, "newAccount"),
        (0, "newOrder"),
        (2, "orders"),
        (3, "authorizations"),
        (3, "finalize"),
        (5, "status"),
        (7, "certificate"),
    ] {
        let fault = fault_of(index, remove(member)).await;
        assert!(
            matches!(fault, AcmeFault::Missing(found) if found == member),
            "{fault:?}"
        );
    }
    for index in [0, 2, 3, 4, 5, 6, 7] {
        let fault = fault_of(index, |answer| answer.body = Body::Text("[]".into())).await;
        assert!(matches!(fault, AcmeFault::NotJson), "{fault:?}");
    }
    for index in [0, 2] {
        let fault = fault_of(index, |answer| {
            answer.edit(|body| {
                body["newNonce"] = "http://mdm.example.test/n".into();
                body["orders"] = "http://mdm.example.test/o".into();
            });
        })
        .await;
        assert!(matches!(fault, AcmeFault::BadUrl { .. }), "{fault:?}");
    }
}

#[tokio::test]
async fn each_status_must_be_the_one_of_its_step() {
    for (index, found) in [
        (2, "deactivated"),
        (3, "ready"),
        (3, "valid"),
        (4, "valid"),
        (5, "invalid"),
        (6, "invalid"),
        (7, "processing"),
        (7, "ready"),
    ] {
        let fault = fault_of(index, status(found)).await;
        assert!(
            matches!(fault, AcmeFault::OtherStatus { .. }),
            "{index} {fault:?}"
        );
    }
}

#[tokio::test]
async fn the_order_must_be_for_the_asked_identifier_and_offer_the_challenge() {
    let fault = fault_of(3, |answer| {
        answer.edit(|body| body["identifiers"][0]["value"] = "ANOTHER".into());
    })
    .await;
    assert!(matches!(fault, AcmeFault::OtherIdentifiers), "{fault:?}");
    let fault = fault_of(4, |answer| {
        answer.edit(|body| body["challenges"][1]["type"] = "dns-01".into());
    })
    .await;
    assert!(matches!(fault, AcmeFault::NoChallenge), "{fault:?}");
}

#[tokio::test]
async fn undecided_outcomes_are_waited_for_once_and_never_polled() {
    for (index, found) in [(5, "processing"), (5, "pending"), (6, "processing")] {
        let mut answers = good();
        status(found)(&mut answers[index]);
        let begun = Instant::now();
        let (script, outcome) = run_with(answers).await;
        outcome.unwrap();
        assert!(begun.elapsed() >= quick().pause);
        assert_eq!(script.seen().len(), 9);
    }
}

#[tokio::test]
async fn only_a_certificate_for_the_key_is_taken() {
    let other = issuer();
    let fault = fault_of(8, |answer| {
        let pem = String::from_utf8(other.certificate_pem().unwrap()).unwrap();
        answer.body = Body::Text(pem);
    })
    .await;
    assert!(matches!(fault, AcmeFault::OtherKey), "{fault:?}");
    let fault = fault_of(8, |answer| answer.body = Body::Text("{}".into())).await;
    assert!(matches!(fault, AcmeFault::NotACertificate), "{fault:?}");
}

#[tokio::test]
async fn a_silent_server_is_left_after_the_limit() {
    let second = Duration::from_secs(1);
    let mut silent = good();
    silent[4].body = Body::Never;
    let mut slow = good();
    status("processing")(&mut slow[5]);
    for (answers, timing, step) in [
        (
            silent,
            AcmeTiming {
                request: second,
                ..quick()
            },
            AcmeStep::Authorization,
        ),
        // The whole run has a limit too.
        (
            slow,
            AcmeTiming {
                pause: second,
                whole: second,
                ..quick()
            },
            AcmeStep::Finalize,
        ),
    ] {
        let script = Script::start(answers).await;
        let key = keys::generate(KeyKind::P256).unwrap();
        let outcome = run(&script, timing, &key, &ChallengeAnswer::Unattested).await;
        let error = outcome.expect_err("an error");
        assert_eq!(error.step, step);
        assert!(matches!(error.fault, AcmeFault::TimedOut), "{error:?}");
    }
    assert_eq!(AcmeTiming::default().request, Duration::from_secs(15));
}

#[tokio::test]
async fn a_directory_must_be_served_over_tls() {
    let http = http();
    let outcome = AcmeRun::begin(&http, "http://127.0.0.1:1/d", quick(), false).await;
    let error = outcome.expect_err("an error");
    assert!(matches!(error.fault, AcmeFault::BadUrl { .. }), "{error:?}");
}
