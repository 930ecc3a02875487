//! Identities: got by ACME, failed to be got, lied about, renewed, and brought along.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::x509::X509;

use super::tests::{property, scene};
use super::{FormerEnrollment, IdentityKind, Lie, Mac, MacError, MacKind, MacSpec, MacStep};
use super::{MdmPayload, ProfileError};
use crate::acme::script::{Answer, Script, good_run};
use crate::acme::{AcmeStep, AcmeTiming, attestation_object, freshness};
use crate::apple::oid;
use crate::certs::{Identity, Issuer};
use crate::clock::{Clock, DAY_MS};
use crate::keys::{self, KeyKind};
use crate::rehearsal::{Rehearsal, ScepMode, Seen};
use crate::scep::ScepError;
use crate::world::World;

const TOKEN: &str = "q1Vb0m3J7sQw2nXy8LrTzKc5dEfGhAiP";

struct Scene {
    server: Rehearsal,
    script: Script,
    mac: Mac,
}

fn issuer() -> Issuer {
    Issuer::root("CA", "Test", KeyKind::P256, Clock::system().now_ms()).unwrap()
}

/// A Mac, a server whose profile has an ACME payload, and its directory's answers.
async fn staged(spec: MacSpec, change: impl FnOnce(&mut Vec<Answer>)) -> Scene {
    let (world, server) = scene().await;
    let mut answers = good_run(&spec.serial, TOKEN, &issuer());
    change(&mut answers);
    let script = Script::start(answers).await;
    server.stage().acme = Some((script.directory(), spec.serial.clone()));
    let spec = MacSpec {
        allow_http_loopback: true,
        acme_timing: AcmeTiming {
            pause: Duration::ZERO,
            ..AcmeTiming::default()
        },
        ..spec
    };
    let mac = Mac::new(spec, &world);
    Scene {
        server,
        script,
        mac,
    }
}

impl Scene {
    async fn enroll(&self) -> Result<(), MacError> {
        self.mac.enroll(&self.server.url).await
    }

    /// What the challenges were answered with, oldest first.
    fn challenge_answers(&self) -> Vec<serde_json::Value> {
        let seen = self.script.seen();
        let to_challenge = seen.iter().filter(|one| one.path == "/challenge");
        to_challenge.map(|one| one.payload()).collect()
    }

    /// The certificates in the last answer.
    fn chain(&self) -> Vec<Vec<u8>> {
        let answer = self.challenge_answers().pop().unwrap();
        let object = URL_SAFE_NO_PAD
            .decode(answer["attObj"].as_str().unwrap())
            .unwrap();
        certificates_in(&object)
    }
}

fn certificates_in(object: &[u8]) -> Vec<Vec<u8>> {
    let empty = attestation_object(&[]);
    let (array, before) = empty.split_last().unwrap();
    assert_eq!(*array, 0x80);
    let rest = object.strip_prefix(before).unwrap();
    let (array, mut rest) = rest.split_first().unwrap();
    let mut found = Vec::new();
    for _ in 0..(array - 0x80) {
        // A certificate is long enough for a length of two bytes and not for more.
        assert_eq!(rest[0], 0x59);
        let length = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
        found.push(rest[3..3 + length].to_vec());
        rest = &rest[3 + length..];
    }
    assert!(rest.is_empty());
    found
}

fn key_of(certificate: &[u8]) -> Vec<u8> {
    let certificate = X509::from_der(certificate).unwrap();
    let public = certificate.public_key().unwrap();
    public.public_key_to_der().unwrap()
}

fn signers(messages: &[Seen]) -> Vec<Option<Vec<u8>>> {
    messages.iter().map(|one| one.signer.clone()).collect()
}

fn certificate(identity: &Identity) -> Option<Vec<u8>> {
    Some(identity.certificate.to_der().unwrap())
}

#[tokio::test]
async fn an_attested_key_becomes_the_identity_that_signs_everything() {
    let scene = staged(MacSpec::random().unwrap(), |_| {}).await;
    let mut events = scene.mac.events();
    scene.enroll().await.unwrap();
    let identity = scene.mac.identity().unwrap();
    assert_eq!(KeyKind::of(&identity.key), KeyKind::P384);
    assert_eq!(scene.mac.identity_kind(), Some(IdentityKind::Acme));
    let issued = std::iter::from_fn(|| events.try_recv().ok())
        .find(|event| matches!(event.step, MacStep::IdentityIssued { .. }));
    let issued = serde_json::to_value(issued.unwrap()).unwrap();
    assert_eq!(issued["kind"], "acme");

    let chain = scene.chain();
    let own = certificate(&identity).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(key_of(&chain[0]), key_of(&own));
    let serial = scene.mac.serial();
    let says = |dotted| property(&chain[0], dotted);
    assert_eq!(says(oid::FRESHNESS), Some(freshness(TOKEN).to_vec()));
    assert_eq!(says(oid::SERIAL_NUMBER), Some(serial.clone().into_bytes()));
    assert!(says(oid::SIP).is_some());
    let csr = scene.script.csr().to_text().unwrap();
    let csr = String::from_utf8(csr).unwrap();
    assert!(csr.contains(&format!("Mac {serial}")), "{csr}");
    assert!(csr.contains("ecdsa-with-SHA256"), "{csr}");

    scene.server.ask("C1", "SecurityInfo");
    scene.mac.connect().await.unwrap();
    let mut messages = scene.server.seen("/mdm/checkin");
    messages.extend(scene.server.seen("/mdm/connect"));
    assert_eq!(signers(&messages), vec![Some(own); 4]);
}

#[tokio::test]
async fn without_apple_an_error_goes_with_an_empty_chain_and_nothing_is_enrolled() {
    let spec = MacSpec::of_kind(MacKind::AppleUnreachable).unwrap();
    let refuse = |answers: &mut Vec<Answer>| {
        answers[5].edit(|body| body["status"] = "invalid".into());
    };
    let scene = staged(spec, refuse).await;
    let Err(MacError::Acme(error)) = scene.enroll().await else {
        panic!("enrolled")
    };
    assert_eq!(error.step, AcmeStep::Challenge);
    assert!(!scene.mac.is_enrolled() && scene.server.seen("/mdm/checkin").is_empty());
    assert_eq!(scene.script.seen().len(), 6);
    assert_eq!(scene.chain(), Vec::<Vec<u8>>::new());
    assert!(scene.challenge_answers()[0]["error"].is_string());
}

#[tokio::test]
async fn macs_that_cannot_bind_a_key_to_hardware_fail_before_they_ask() {
    for kind in [MacKind::Intel, MacKind::VirtualMachine, MacKind::Macos13] {
        let scene = staged(MacSpec::of_kind(kind).unwrap(), |_| {}).await;
        let refused = scene.enroll().await;
        assert!(
            matches!(
                refused,
                Err(MacError::Profile(ProfileError::NotOnThisMac {
                    key: "HardwareBound",
                    ..
                }))
            ),
            "{kind:?} {refused:?}"
        );
        assert!(!scene.mac.is_enrolled() && scene.script.seen().is_empty());
    }
    let old = MacSpec {
        os_version: "13.0.1".into(),
        ..MacSpec::of_kind(MacKind::Macos13).unwrap()
    };
    let scene = staged(old, |_| {}).await;
    let refused = scene.enroll().await.expect_err("a refusal").chain();
    assert!(refused.contains("macOS 13.1"), "{refused}");
}

#[tokio::test]
async fn a_t2_binds_its_key_and_attests_nothing() {
    let spec = MacSpec::of_kind(MacKind::IntelT2).unwrap();
    let scene = staged(spec, |_| {}).await;
    scene.enroll().await.unwrap();
    assert_eq!(scene.challenge_answers(), [serde_json::json!({})]);
}

#[tokio::test]
async fn each_lie_is_told_in_one_place_and_the_rest_is_right() {
    let other = MacSpec::random().unwrap();
    let lying = async |lie| {
        let scene = staged(MacSpec::random().unwrap().lying(lie), |_| {}).await;
        scene.enroll().await.unwrap();
        let leaf = scene.chain().remove(0);
        let own = certificate(&scene.mac.identity().unwrap()).unwrap();
        let says = |dotted| property(&leaf, dotted);
        (
            says(oid::SERIAL_NUMBER) == Some(scene.mac.serial().into_bytes()),
            says(oid::FRESHNESS) == Some(freshness(TOKEN).to_vec()),
            key_of(&leaf) == key_of(&own),
        )
    };
    let another = Lie::EnrollsWithAnothersStatement(Box::new(other.attested_state()));
    assert_eq!(lying(another).await, (false, true, true));
    assert_eq!(lying(Lie::AttestsAnotherToken).await, (true, false, true));
    assert_eq!(
        lying(Lie::FinalizesWithAnotherKey).await,
        (true, true, false)
    );
}

#[tokio::test]
async fn an_old_statement_is_replayed_with_its_key() {
    let spec = MacSpec::random().unwrap().lying(Lie::ReplaysOldStatement);
    let scene = staged(spec, |_| {}).await;
    scene.enroll().await.unwrap();
    let first = scene.chain();
    let serial = scene.mac.serial();
    scene
        .script
        .then(good_run(&serial, "another-token", &issuer()));
    scene.enroll().await.unwrap();
    assert_eq!(scene.chain(), first);
    let own = certificate(&scene.mac.identity().unwrap()).unwrap();
    assert_eq!(key_of(&first[0]), key_of(&own));
}

#[tokio::test]
async fn an_impostor_of_an_attested_mac_has_a_key_of_the_same_kind() {
    let spec = MacSpec::random()
        .unwrap()
        .lying(Lie::SignsWithWrongIdentity(None));
    let scene = staged(spec, |_| {}).await;
    scene.enroll().await.unwrap();
    scene.server.ask("C1", "SecurityInfo");
    scene.mac.connect().await.unwrap();
    let signers = signers(&scene.server.seen("/mdm/connect"));
    let own = certificate(&scene.mac.identity().unwrap());
    assert!(signers[0] == own && signers[1].is_some() && signers[1] != own);
    let impostor = X509::from_der(signers[1].as_ref().unwrap()).unwrap();
    assert_eq!(impostor.public_key().unwrap().bits(), 384);
}

#[tokio::test]
async fn a_server_that_knows_only_serials_is_asked_in_its_words() {
    let (world, server) = scene().await;
    server.stage().knows_only_serials = true;
    let spec = MacSpec {
        asks_for: Some(IdentityKind::Scep),
        ..MacSpec::of_kind(MacKind::VirtualMachine).unwrap()
    };
    let serial = spec.serial.clone();
    let mac = Mac::new(spec, &world);
    mac.enroll(&server.url).await.unwrap();
    assert_eq!(mac.identity_kind(), Some(IdentityKind::Scep));
    let whole = serde_json::json!({
        "serial_number": serial,
        "os_version": "26.6.2",
        "hardware": "virtual_machine",
        "identity": "scep",
    });
    let bare = serde_json::json!({ "serial_number": serial });
    assert_eq!(server.stage().enroll_seen, [whole, bare]);
}

#[tokio::test]
async fn a_second_profile_renews_the_identity_and_a_failed_one_leaves_the_first() {
    let scene = staged(MacSpec::random().unwrap(), |_| {}).await;
    scene.enroll().await.unwrap();
    let first = scene.mac.identity().unwrap();
    let serial = scene.mac.serial();
    let mut answers = good_run(&serial, TOKEN, &issuer());
    answers[7].status = 500;
    answers.truncate(8);
    scene.script.then(answers);
    assert!(matches!(scene.enroll().await, Err(MacError::Acme(_))));
    scene.mac.connect().await.unwrap();

    scene.script.then(good_run(&serial, TOKEN, &issuer()));
    scene.enroll().await.unwrap();
    scene.mac.connect().await.unwrap();
    let second = scene.mac.identity().unwrap();
    let (first, second) = (certificate(&first), certificate(&second));
    assert_ne!(first, second);
    let connects = signers(&scene.server.seen("/mdm/connect"));
    assert_eq!(connects, [first.clone(), second.clone()]);
    let told = scene.server.seen("/mdm/checkin");
    let told: Vec<_> = told.iter().map(|one| one.text("MessageType")).collect();
    assert_eq!(
        told,
        ["Authenticate", "TokenUpdate", "Authenticate", "TokenUpdate"]
    );
    assert_eq!(
        signers(&scene.server.seen("/mdm/checkin")),
        [first.clone(), first, second.clone(), second]
    );
}

#[tokio::test]
async fn a_renewal_that_changes_the_enrollment_is_refused_before_anything_is_asked() {
    let scene = staged(MacSpec::random().unwrap(), |_| {}).await;
    scene.enroll().await.unwrap();
    scene.server.stage().access_rights = 1041 | 2;
    let refused = scene.enroll().await;
    assert!(
        matches!(
            refused,
            Err(MacError::Profile(ProfileError::Immutable("AccessRights")))
        ),
        "{refused:?}"
    );
    assert!(scene.mac.is_enrolled());
    assert_eq!(scene.script.seen().len(), 9);
}

#[tokio::test]
async fn apples_cache_survives_a_renewal_only_where_it_is_told_to() {
    for keeps in [false, true] {
        let (world, server) = scene().await;
        let spec = MacSpec {
            keeps_attestation_on_renewal: keeps,
            ..MacSpec::random().unwrap()
        };
        let mac = Mac::new(spec, &world);
        for nonce in [1, 2] {
            mac.enroll(&server.url).await.unwrap();
            server.ask_attestation("A", plist::Value::Data(vec![nonce; 32]));
            mac.connect().await.unwrap();
        }
        let fresh = mac.exchanges().pop().unwrap().attestation.unwrap().1;
        assert_eq!(fresh, !keeps);
    }
}

#[tokio::test]
async fn a_renewal_by_scep_alone_is_told_by_the_next_request_only() {
    let (world, server) = scene().await;
    let mac = Mac::new(MacSpec::random().unwrap(), &world);
    mac.enroll(&server.url).await.unwrap();
    let first = mac.identity().unwrap();
    mac.renew_by_scep().await.unwrap();
    let second = mac.identity().unwrap();
    assert!(!second.key.public_eq(&first.key));
    assert_eq!(server.seen("/mdm/checkin").len(), 2);
    mac.connect().await.unwrap();
    let signers = signers(&server.seen("/mdm/connect"));
    assert_eq!(signers, [certificate(&second)]);
    // The old identity signed for it, and is in the message.
    let messages = server.stage().scep_seen.clone();
    let old = certificate(&first).unwrap();
    assert_eq!(messages.len(), 2);
    assert!(messages[1].windows(old.len()).any(|part| part == old));

    server.stage().scep = ScepMode::Refuse;
    assert!(matches!(mac.renew_by_scep().await, Err(MacError::Scep(_))));
    assert_eq!(certificate(&mac.identity().unwrap()), certificate(&second));
}

#[tokio::test]
async fn a_renewal_by_scep_needs_the_servers_word_and_an_rsa_identity() {
    let (world, server) = scene().await;
    let mac = Mac::new(MacSpec::random().unwrap(), &world);
    mac.enroll(&server.url).await.unwrap();
    server.stage().hides_renewal = true;
    let refused = mac.renew_by_scep().await;
    assert!(matches!(refused, Err(MacError::Scep(ScepError::NoRenewal))));

    let now = Clock::system().now_ms();
    let identity = Identity::from_foreign_ca("EC", KeyKind::P384, now).unwrap();
    let profile = server.profile();
    mac.install_profile_with(&profile, identity).await.unwrap();
    let refused = mac.renew_by_scep().await;
    assert!(matches!(
        refused,
        Err(MacError::Scep(ScepError::RenewedNotRsa))
    ));
}

fn former(server: &Rehearsal, world: &World, identity: Identity) -> FormerEnrollment {
    FormerEnrollment {
        mdm: MdmPayload {
            identifier: "com.example.former.mdm".into(),
            uuid: keys::random_uuid().unwrap(),
            topic: world.topic().to_owned(),
            server_url: format!("{}/mdm/connect", server.url),
            check_in_url: format!("{}/mdm/checkin", server.url),
            access_rights: 8191,
            sign_message: true,
            check_out_when_removed: false,
            capabilities: Vec::new(),
        },
        profile_identifier: "com.example.former".into(),
        profile_uuid: keys::random_uuid().unwrap(),
        identity,
        token: vec![7; 32],
        magic: "MAGIC".into(),
    }
}

#[tokio::test]
async fn a_mac_enrolled_elsewhere_only_idles_even_with_an_expired_identity() {
    let (world, server) = scene().await;
    let now = Clock::system().now_ms();
    for ends_ms in [now + 100 * DAY_MS, now - 3 * DAY_MS] {
        let key = keys::generate(KeyKind::P256).unwrap();
        let subject = [(openssl::nid::Nid::COMMONNAME, "former")];
        let issuer = world.former_device_ca();
        let identity = issuer.client(&subject, key, ends_ms - 365 * DAY_MS, ends_ms);
        let identity = identity.unwrap();
        let spec = MacSpec::random().unwrap();
        let former = former(&server, &world, identity.clone());
        let mac = Mac::enrolled_elsewhere(spec, &world, former).unwrap();
        assert_eq!(mac.push_address(), Some((vec![7; 32], "MAGIC".into())));
        server.ask("C1", "SecurityInfo");
        assert_eq!(mac.connect().await.unwrap().answered, 1);
        assert!(server.seen("/mdm/checkin").is_empty());
        let last = server.seen("/mdm/connect").pop().unwrap();
        assert_eq!(last.signer, certificate(&identity));
        // Another server's profile has no place beside the former one.
        let refused = mac.enroll(&server.url).await;
        assert!(matches!(
            refused,
            Err(MacError::Profile(ProfileError::ManagedAlready(_)))
        ));
    }
}

#[tokio::test]
async fn a_mac_with_an_expired_identity_enrolls_with_it_and_goes_on_signing() {
    let (world, server) = scene().await;
    let mac = Mac::new(MacSpec::of_kind(MacKind::ExpiredIdentity).unwrap(), &world);
    mac.enroll(&server.url).await.unwrap();
    mac.connect().await.unwrap();
    let identity = mac.identity().unwrap();
    let ca = world.former_device_ca();
    assert!(identity.certificate.verify(&ca.identity.key).unwrap());
    let now = openssl::asn1::Asn1Time::from_unix(Clock::system().now_seconds()).unwrap();
    assert!(identity.certificate.not_after() < &*now);
    assert_eq!(mac.identity_kind(), None);
    let signers = signers(&server.seen("/mdm/connect"));
    assert_eq!(signers, [certificate(&identity)]);
    assert!(server.stage().scep_seen.is_empty());
}
