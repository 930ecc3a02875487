//! A Mac asks for an attested identity by ACME: honest clients of two makes, and everybody else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use attestd::enrollment::Protocol;
use attestd::enrollment::ticket::Bounds;
use attestd::flows::deliver_profile::deliver_profile;
use attestd_sim::acme::{
    AcmeError, AcmeFault, AcmeRun, AcmeStep, AcmeTiming, ChallengeAnswer, attestation_object,
    freshness,
};
use attestd_sim::apple::Chain;
use attestd_sim::cms::SignatureDigest;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::{Lie, Mac, MacError, MacKind, MacSpec};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::scene::{Backend, Scene};

const ATTESTED: &str = "[enrollment]\nidentity = \"acme\"\n";

/// A server whose profiles ask for attested identities.
async fn scene(backend: Backend) -> Scene {
    Scene::configured(backend, ATTESTED).await
}

fn spec() -> MacSpec {
    MacSpec::random().expect("a Mac")
}

/// A Mac that lies so, and the end its enrolment comes to.
async fn refused(scene: &Scene, lie: Lie) -> (AcmeStep, String) {
    let mac = scene.mac(spec().lying(lie));
    let error = mac.enroll(&scene.base_url).await.expect_err("no identity");
    broken_off(&error)
}

/// Where a run broke off, and the problem it met.
fn broken_off(error: &MacError) -> (AcmeStep, String) {
    let broken = match error {
        MacError::Acme(broken) => Some(broken),
        _ => None,
    };
    let AcmeError { step, fault } = broken.expect("an ACME run that broke off");
    match fault {
        AcmeFault::Refused { problem, .. } => (*step, problem.clone()),
        other => (*step, other.to_string()),
    }
}

journey! {
    async fn an_attested_key_becomes_the_identity_and_apples_first_word(backend: Backend) {
        let scene = scene(backend).await;
        let delivered = scene.deliver("{}").await;
        let mac = scene.mac(spec());
        mac.install_profile(&delivered.profile).await.expect("enrols");
        assert_eq!(scene.step(&delivered.progress_id, "identity").await["standing"], "done");

        // Before the Mac was asked anything, Apple's statement about its key speaks for it.
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["channel"], "hardware_attested");
        assert_eq!(posture["freshness"]["class"], "fresh");
        assert_eq!(posture["claims"]["sip#mda"]["source"], "acme");
        assert_eq!(posture["claims"]["sip#mda"]["assurance"], "apple_signed");
        assert_eq!(posture["claims"]["serial_number"]["value"], mac.serial());
        assert_eq!(posture["verdict"], "unknown", "SecurityInfo is not there yet");

        let _life = mac.live();
        let posture = scene.api.verdict(&mac.serial(), "affirming").await;
        assert_eq!(posture["reasons"], json!(["provider_not_bound"]));
        assert_eq!(posture["claims"]["sip"]["channel"], "hardware_attested");
        eventually("the Mac is asked for an attestation of its own", async || {
            let posture = scene.api.posture(&mac.serial()).await;
            posture["claims"]["sip#mda"]["source"] == "mda"
        })
        .await;
    }
}

journey! {
    async fn a_statement_that_says_sip_is_off_counts_from_the_first_day(backend: Backend) {
        let scene = scene(backend).await;
        let mac = scene.mac(spec().lying(Lie::SipOffButClaimsOn));
        mac.enroll(&scene.base_url).await.expect("enrols");
        let posture = scene.api.posture(&mac.serial()).await;
        assert_eq!(posture["verdict"], "contraindicated");
        assert_eq!(posture["reasons"][0], "sip_disabled");
        assert_eq!(posture["claims"]["sip#mda"]["source"], "acme");
    }
}

journey! {
    async fn a_ticket_that_names_a_key_has_it_named_in_apples_statement(backend: Backend) {
        let scene = scene(backend).await;
        let bounds = Bounds {
            se_public_key: Some("BKeyOfTheProvider".to_owned()),
            protocol: Protocol::Acme,
            ..Bounds::default()
        };
        let delivered = deliver_profile(scene.ctx(), bounds, None).await.expect("a profile");
        let mac = scene.mac(spec());
        mac.install_profile(&delivered.profile).await.expect("enrols");
        let posture = scene.kept(&mac).await.posture.expect("a posture");
        let attested = posture.attested.expect("Apple's statement");
        let stated = serde_json::to_value(&attested.freshness).expect("JSON");
        assert_eq!(stated["se_public_key"], "BKeyOfTheProvider");

        // The commitment can be recomputed from what is kept, down to the code in Apple's leaf.
        let tx = scene.ctx().store.read().await.expect("a store");
        let device_id = scene.device_id(&mac).await;
        let identity = tx.identities_of(&device_id).await.expect("identities").remove(0);
        let key = tx.attested_key(identity.certificate).await.expect("a look-up").expect("attested");
        assert_eq!(key.token.se_public_key, "BKeyOfTheProvider");
        assert_eq!(attested.evidence_id, key.evidence().id());
        let leaf = X509::from_der(&key.evidence().certificates[0]).expect("a certificate");
        let code = freshness(&key.token.token());
        assert!(leaf.to_der().expect("DER").windows(32).any(|bytes| bytes == code));
    }
}

journey! {
    async fn nothing_but_this_macs_own_new_statement_buys_an_identity(backend: Backend) {
        let scene = scene(backend).await;
        let another = spec().attested_state();
        for (lie, step, problem) in [
            (Lie::EnrollsWithAnothersStatement(Box::new(another)), AcmeStep::Challenge, "badAttestationStatement"),
            (Lie::AttestsAnotherToken, AcmeStep::Challenge, "badAttestationStatement"),
            (Lie::FinalizesWithAnotherKey, AcmeStep::Finalize, "badCSR"),
        ] {
            let told = refused(&scene, lie.clone()).await;
            assert_eq!(told.0, step, "{lie:?}");
            assert!(told.1.contains(problem), "{lie:?}: {}", told.1);
        }
        // Apple gave none: the client says so with an empty chain.
        let cut_off = scene.mac(MacSpec { reaches_apple: false, ..spec() });
        let error = cut_off.enroll(&scene.base_url).await.expect_err("no identity");
        let (step, problem) = broken_off(&error);
        assert_eq!(step, AcmeStep::Challenge);
        assert!(problem.contains("badAttestationStatement"), "{problem}");
        assert_eq!(scene.refusals("acme", "serial_mismatch").await, 1);
        assert_eq!(scene.refusals("acme", "attestation_unavailable").await, 1);
    }
}

journey! {
    async fn a_copied_profile_is_good_for_its_own_mac_only_and_once(backend: Backend) {
        let scene = scene(backend).await;
        let (owner, other) = (scene.mac(spec()), scene.mac(spec()));
        let delivered = scene.deliver_for(&owner.serial()).await;
        let error = other.install_profile(&delivered.profile).await.expect_err("not its own");
        assert_eq!(broken_off(&error).0, AcmeStep::Challenge);
        let step = scene.step(&delivered.progress_id, "identity").await;
        assert_eq!(step["reason"], "serial_mismatch");

        // What went wrong for a stranger does not spend the owner's ticket.
        owner.install_profile(&delivered.profile).await.expect("enrols");
        let error = owner.install_profile(&delivered.profile).await.expect_err("used up");
        let (step, problem) = broken_off(&error);
        assert_eq!(step, AcmeStep::NewAccount);
        assert!(problem.contains("unauthorized"), "{problem}");
        let step = scene.step(&delivered.progress_id, "identity").await;
        assert_eq!(step["standing"], "done", "the owner has the last word");
    }
}

journey! {
    async fn the_attested_serial_number_is_the_one_a_mac_must_claim(backend: Backend) {
        let scene = scene(backend).await;
        // An open ticket: Apple's word decides whose identity it is.
        let profile = scene.deliver("{}").await.profile;
        let honest = scene.mac(spec());
        let identity = honest
            .identity_for(&honest.read_profile(&profile).expect("a profile"))
            .await
            .expect("an identity");
        let impostor = scene.mac(spec());
        impostor.install_profile_with(&profile, identity).await.expect_err("another Mac's identity");
        assert_eq!(scene.refusals("check_in", "serial_mismatch").await, 1);
    }
}

journey! {
    async fn a_mac_that_cannot_attest_gets_a_software_identity(backend: Backend) {
        let scene = scene(backend).await;
        for kind in [MacKind::Intel, MacKind::VirtualMachine, MacKind::Macos13] {
            let mac = scene.mac(MacSpec::of_kind(kind).expect("a Mac"));
            mac.enroll(&scene.base_url).await.expect("enrols");
            let posture = scene.api.posture(&mac.serial()).await;
            assert_eq!(posture["channel"], "software", "{kind:?}");
            let reasons = posture["reasons"].as_array().expect("reasons");
            assert!(reasons.contains(&json!("channel_not_attested")), "{kind:?}");
        }
    }
}

journey! {
    async fn a_ticket_for_an_attested_identity_buys_no_other(backend: Backend) {
        let scene = scene(backend).await;
        let delivered = scene.deliver("{}").await;
        let secret = secret_of(&scene, &delivered.profile);
        // The same words as a SCEP challenge.
        assert!(!super::issue_by_scep::buys_an_identity(&scene, &secret).await);
        assert_eq!(scene.refusals("scep", "ticket_unknown").await, 1);
        // And the secret of a ticket for SCEP opens no directory.
        let scep = scene.deliver("{\"identity\":\"scep\"}").await;
        let challenge = super::issue_by_scep::scene_challenge(&scene, &scep.profile);
        let (status, _) = raw(&scene, Method::GET, &format!("/acme/{challenge}/directory")).await;
        assert_eq!(status, 404);
    }
}

/// Whatever a stranger gets, it carries a nonce and says what it is.
async fn raw(scene: &Scene, method: Method, path: &str) -> (u16, Value) {
    let answer = scene.anybody(method, path).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    assert!(headers.contains_key("replay-nonce"), "{path}");
    assert_eq!(headers["cache-control"], "no-store", "{path}");
    let body = answer.bytes().await.expect("a body");
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status >= 400 {
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{path}"
        );
        assert_eq!(value["status"], status);
    }
    (status, value)
}

journey! {
    async fn every_answer_brings_a_nonce_refusals_too(backend: Backend) {
        let scene = scene(backend).await;
        let secret = secret_of(&scene, &scene.deliver("{}").await.profile);
        for (method, path, status) in [
            (Method::GET, format!("/acme/{secret}/directory"), 200),
            (Method::HEAD, format!("/acme/{secret}/new-nonce"), 200),
            (Method::GET, format!("/acme/{secret}/new-nonce"), 204),
            (Method::GET, format!("/acme/{secret}/order/1"), 405),
            (Method::PUT, format!("/acme/{secret}/new-order"), 405),
            (Method::POST, format!("/acme/{secret}/directory"), 415),
            (Method::POST, format!("/acme/{secret}/new-account"), 415),
            (Method::GET, format!("/acme/{secret}/revoke-cert"), 404),
            (Method::GET, "/acme/nobody/directory".to_owned(), 404),
            (Method::GET, "/acme/nobody/new-nonce".to_owned(), 404),
        ] {
            let (told, _) = raw(&scene, method.clone(), &path).await;
            assert_eq!(told, status, "{method} {path}");
        }
        let request = scene
            .anybody(Method::POST, &format!("/acme/{secret}/new-account"))
            .header("content-type", "application/jose+json")
            .body(vec![b'x'; 200_000]);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 413);
        assert!(answer.headers().contains_key("replay-nonce"));
    }
}

journey! {
    async fn an_abandoned_order_ends_with_its_ticket_and_is_forgotten(backend: Backend) {
        let scene = scene(backend).await;
        let (http, url, identifier) = client(&scene, "{}").await;
        let mut run = AcmeRun::begin(&http, &url, AcmeTiming::default(), true).await.expect("begins");
        let order = run.new_order(&identifier).await.expect("an order");
        scene.pass(Duration::from_secs(60 * 60));
        let error = run.authorization(&order).await.expect_err("too late");
        assert_eq!(error.step, AcmeStep::Authorization);
        scene.sweep().await;
        let tx = scene.ctx().store.read().await.expect("a store");
        assert!(!tx.has_ended_acme_directories(scene.now()).await.expect("a look-up"));
        drop(tx);
        let again = AcmeRun::begin(&http, &url, AcmeTiming::default(), true).await;
        let error = again.expect_err("the ticket ended");
        assert_eq!(error.step, AcmeStep::NewAccount, "{error:?}");
    }
}

journey! {
    async fn two_finalize_at_once_and_one_certificate_is_made(backend: Backend) {
        let scene = scene(backend).await;
        let mac = scene.mac(spec());
        let (http, url, identifier) = client(&scene, "{}").await;
        let mut runs = Vec::new();
        for _ in 0..2 {
            let key = generate(KeyKind::P384).expect("a key");
            let mut run = AcmeRun::begin(&http, &url, AcmeTiming::default(), true).await.expect("begins");
            let order = run.new_order(&identifier).await.expect("an order");
            let challenge = run.authorization(&order).await.expect("a challenge");
            let answer = ChallengeAnswer::Attested(chain(&scene, &mac, &key, &challenge.token));
            run.respond(&challenge, &answer).await.expect("valid");
            runs.push((run, order, csr(&key)));
        }
        let (mut second, mut first) = (runs.remove(1), runs.remove(0));
        let (one, other) = tokio::join!(
            first.0.finalize(&first.1, &first.2),
            second.0.finalize(&second.1, &second.2),
        );
        assert_eq!([&one, &other].iter().filter(|end| end.is_ok()).count(), 1, "{one:?} {other:?}");
        let winner = if one.is_ok() { &mut first } else { &mut second };
        winner.0.order(&winner.1).await.expect("valid");
    }
}

journey! {
    async fn a_client_library_of_another_make_gets_a_certificate(backend: Backend) {
        let scene = scene(backend).await;
        let mac = scene.mac(spec());
        let key = generate(KeyKind::P384).expect("a key");
        let (_, url, identifier) = client(&scene, "{}").await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/acme_client.py");
        let mut child = Command::new("/usr/bin/python3")
            .args([script, &url, &identifier])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut input = child.stdin.take().expect("an input");
        let lines = BufReader::new(child.stdout.take().expect("an output")).lines();
        let (steps, refusals, pem) = tokio::task::block_in_place(|| {
            let (mut steps, mut refusals, mut pem) = (Vec::new(), Vec::new(), None);
            for line in lines {
                let said: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
                steps.push(said["step"].as_str().expect("a step").to_owned());
                match said["step"].as_str() {
                    Some("token") => {
                        let token = said["token"].as_str().expect("a token");
                        let chain = chain(&scene, &mac, &key, token);
                        let object = attestation_object(&[&chain.leaf, &chain.intermediate]);
                        let made = json!({
                            "attObj": URL_SAFE_NO_PAD.encode(object),
                            "csr": URL_SAFE_NO_PAD.encode(csr(&key)),
                        });
                        writeln!(input, "{made}").expect("written");
                    }
                    Some("refused") => refusals.push(said["kind"].as_str().expect("a kind").to_owned()),
                    Some("certificate") => pem = said["pem"].as_str().map(str::to_owned),
                    _ => {}
                }
            }
            (steps, refusals, pem)
        });
        let ended = child.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(steps.last().map(String::as_str), Some("done"));
        assert_eq!(
            refusals,
            [
                "accountDoesNotExist", "unsupportedIdentifier", "rejectedIdentifier", "badNonce",
                "orderNotReady", "unauthorized", "unauthorized",
            ]
        );
        let chain = X509::stack_from_pem(pem.expect("a certificate").as_bytes()).expect("PEM");
        assert_eq!(chain.len(), 2);
        assert!(chain[0].public_key().expect("a key").public_eq(&key));
        assert!(chain[0].verify(&chain[1].public_key().expect("a key")).expect("checked"));
    }
}

/// An HTTP client, the directory of a new profile, and the identifier it is for.
pub async fn client(scene: &Scene, request: &str) -> (reqwest::Client, String, String) {
    let profile = scene.deliver(request).await.profile;
    let (url, identifier) = directory(scene, &profile);
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    (http, url, identifier)
}

/// What a profile says of its directory.
fn directory(scene: &Scene, profile: &[u8]) -> (String, String) {
    let reader = scene.honest_mac();
    let profile = reader.read_profile(profile).expect("a profile");
    let settings = profile.identity.acme().expect("an ACME payload");
    (
        settings.directory_url.clone(),
        settings.client_identifier.clone(),
    )
}

fn secret_of(scene: &Scene, profile: &[u8]) -> String {
    let (url, _) = directory(scene, profile);
    let rest = url
        .strip_prefix(&scene.url("/acme/"))
        .expect("our directory");
    rest.strip_suffix("/directory")
        .expect("a directory")
        .to_owned()
}

/// Apple's statement about this Mac and this key, for this token.
pub fn chain(scene: &Scene, mac: &Mac, key: &PKey<Private>, token: &str) -> Chain {
    let state = mac.spec().attested_state();
    let now = scene.world.clock().now_ms();
    let apple = scene.world.apple();
    let chain = apple.attest(&state, key, Some(&freshness(token)), now);
    chain.expect("Apple attests")
}

pub fn csr(key: &PKey<Private>) -> Vec<u8> {
    attestd_sim::csr::request(key, &Vec::new(), Vec::new(), SignatureDigest::Sha256)
        .expect("a request")
}
