//! A Mac's journeys, against the rehearsal server.

use std::sync::LazyLock;

use openssl::x509::X509;
use plist::Value;

use super::{CONNECT, Loss, Mac, MacError, MacSpec, MacStep, Signing, messages};
use crate::apple::oid;
use crate::authorities::Authorities;
use crate::clock::{Clock, DAY_MS};
use crate::rehearsal::{Rehearsal, ScepMode, Seen, eventually};
use crate::scep::ScepError;
use crate::world::{World, WorldOptions};

static AUTHORITIES: LazyLock<Authorities> =
    LazyLock::new(|| Authorities::new(None, Clock::system().now_ms()).unwrap());

pub(super) async fn scene() -> (World, Rehearsal) {
    let options = WorldOptions {
        authorities: Some(AUTHORITIES.clone()),
        ..WorldOptions::default()
    };
    let world = World::start(options).await.unwrap();
    let server = Rehearsal::start(world.topic()).await;
    world.trust(&server.root_pem);
    (world, server)
}

pub(super) async fn enrolled(spec: MacSpec, world: &World, server: &Rehearsal) -> Mac {
    let mac = Mac::new(spec, world);
    mac.enroll(&server.url).await.unwrap();
    mac
}

/// A push as the server under test would send it.
async fn push(world: &World, mac: &Mac) -> u16 {
    let (token, magic) = mac.push_address().unwrap();
    push_to(world, &token, &magic).await
}

async fn push_to(world: &World, token: &[u8], magic: &str) -> u16 {
    let identity = &world.push_certificate().identity;
    let pem = [
        identity.key_pem().unwrap(),
        identity.certificate_pem().unwrap(),
    ]
    .concat();
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(world.apns().root_pem()).unwrap()])
        .identity(reqwest::Identity::from_pem(&pem).unwrap())
        .no_proxy()
        .build()
        .unwrap();
    let request = client
        .post(format!(
            "{}/3/device/{}",
            world.apns().url(),
            hex::encode(token)
        ))
        .header("apns-topic", world.topic())
        .body(serde_json::json!({ "mdm": magic }).to_string());
    request.send().await.unwrap().status().as_u16()
}

pub(super) fn chain_in(reply: &Seen) -> Vec<Vec<u8>> {
    let body = reply.plist();
    let responses = body.get("QueryResponses").unwrap().as_dictionary().unwrap();
    let chain = responses
        .get("DevicePropertiesAttestation")
        .and_then(Value::as_array);
    chain
        .map(|all| {
            all.iter()
                .map(|one| one.as_data().unwrap().to_vec())
                .collect()
        })
        .unwrap_or_default()
}

/// The bytes of one attested property.
pub(super) fn property(leaf: &[u8], dotted: &str) -> Option<Vec<u8>> {
    crate::certs::extension_value(&X509::from_der(leaf).unwrap(), dotted).unwrap()
}

#[tokio::test]
async fn enrollment_goes_in_order_and_every_message_is_signed() {
    let (world, server) = scene().await;
    server.stage().capabilities = vec![
        "com.apple.mdm.bootstraptoken",
        "com.apple.mdm.per-user-connections",
    ];
    let spec = MacSpec {
        user_channel: true,
        ..MacSpec::random().unwrap()
    };
    let mac = enrolled(spec, &world, &server).await;
    let seen = server.seen("/mdm/checkin");
    let order: Vec<_> = seen.iter().map(|one| one.text("MessageType")).collect();
    assert_eq!(
        order,
        [
            "Authenticate",
            "SetBootstrapToken",
            "TokenUpdate",
            "TokenUpdate"
        ]
    );
    let own = mac.identity().unwrap().certificate;
    assert!(own.verify(&server.device_ca.identity.key).unwrap());
    assert!(
        seen.iter()
            .all(|one| one.signer == Some(own.to_der().unwrap()))
    );
    assert_eq!(seen[0].text("SerialNumber"), mac.serial());
    let tokens: Vec<_> = seen[2..]
        .iter()
        .map(|one| one.plist().get("Token").unwrap().clone())
        .collect();
    assert_ne!(tokens[0], tokens[1], "the user channel has its own token");
}

#[tokio::test]
async fn a_push_brings_a_session_until_an_empty_answer() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    let _life = mac.live();
    server.ask("C1", "SecurityInfo");
    server.ask_attestation("C2", Value::Data(vec![0xa7; 32]));
    let (token, _) = mac.push_address().unwrap();
    assert_eq!(push_to(&world, &token, "a foreign magic").await, 200);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(
        server.seen("/mdm/connect").is_empty(),
        "only its own PushMagic moves a Mac"
    );
    assert_eq!(push(&world, &mac).await, 200);
    eventually("three messages", || server.seen("/mdm/connect").len() == 3).await;
    let seen = server.seen("/mdm/connect");
    let statuses: Vec<_> = seen
        .iter()
        .map(|one| (one.text("Status"), one.text("CommandUUID")))
        .collect();
    let expected = [("Idle", ""), ("Acknowledged", "C1"), ("Acknowledged", "C2")];
    assert_eq!(
        statuses,
        expected.map(|(status, uuid)| (status.to_owned(), uuid.to_owned()))
    );
    let chain = chain_in(&seen[2]);
    assert_eq!(chain.len(), 2);
    assert_eq!(property(&chain[0], oid::FRESHNESS), Some(vec![0xa7; 32]));
    assert_eq!(
        property(&chain[0], oid::SERIAL_NUMBER),
        Some(mac.serial().into_bytes())
    );
    eventually("the record", || {
        mac.exchanges()
            .iter()
            .all(|one| one.acknowledged == Some(200))
    })
    .await;
    assert_eq!(mac.exchanges()[1].nonce, Some(vec![0xa7; 32]));
}

#[tokio::test]
async fn results_come_again_until_the_server_has_them() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    server.ask("C1", "SecurityInfo");
    mac.lose(Loss::BeforeSending);
    assert!(matches!(mac.connect().await, Err(MacError::Lost)));
    mac.lose(Loss::AfterSending);
    assert!(matches!(mac.connect().await, Err(MacError::Lost)));
    server.stage().forced.push_back((503, ""));
    assert!(matches!(mac.connect().await, Err(MacError::Refused { .. })));
    assert_eq!(mac.connect().await.unwrap().answered, 1);
    let results: Vec<_> = server
        .seen("/mdm/connect")
        .into_iter()
        .filter(|one| one.text("CommandUUID") == "C1")
        .collect();
    assert_eq!(results.len(), 3);
    assert!(results.windows(2).all(|pair| pair[0].body == pair[1].body));
    assert_eq!(
        (
            mac.exchanges()[0].sends,
            mac.connect().await.unwrap().answered
        ),
        (3, 0)
    );
}

#[tokio::test]
async fn in_power_nap_it_answers_not_now_and_polls_by_itself_afterwards() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    let _life = mac.live();
    mac.power_nap(true);
    server.ask("C1", "SecurityInfo");
    push(&world, &mac).await;
    eventually("NotNow", || {
        server
            .seen("/mdm/connect")
            .iter()
            .any(|one| one.text("Status") == "NotNow")
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.ask("C1", "SecurityInfo");
    mac.power_nap(false);
    eventually("polls", || {
        server
            .seen("/mdm/connect")
            .iter()
            .any(|one| one.text("Status") == "Acknowledged")
    })
    .await;
}

#[tokio::test]
async fn rights_and_formats_are_enforced_as_macos_does() {
    let (world, server) = scene().await;
    server.stage().access_rights = 1;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    server.ask("C1", "SecurityInfo");
    server.ask_attestation("C2", Value::Data(vec![1; 32]));
    server.ask_attestation("C3", Value::Data(vec![1; 33]));
    server.ask_attestation("C4", "a string".into());
    server.ask("C5", "DeviceInformation");
    server.ask("C6", "EraseDevice");
    server.ask("C7", "CertificateList");
    assert_eq!(mac.connect().await.unwrap().answered, 7);
    let statuses: Vec<_> = mac.exchanges().into_iter().map(|one| one.status).collect();
    let malformed = "CommandFormatError";
    assert_eq!(
        statuses,
        [
            "Error",
            "Acknowledged",
            malformed,
            malformed,
            malformed,
            "Error",
            "Acknowledged"
        ]
        .map(str::to_owned)
    );
    let replies = server.seen("/mdm/connect");
    let responses = replies[2].plist();
    let responses = responses
        .get("QueryResponses")
        .unwrap()
        .as_dictionary()
        .unwrap();
    assert!(
        !responses.contains_key("SerialNumber")
            && !responses.contains_key("DevicePropertiesAttestation")
    );
}

#[tokio::test]
async fn macs_without_attestation_leave_the_key_out() {
    let (world, server) = scene().await;
    for change in [
        |spec: &mut MacSpec| spec.apple_silicon = false,
        |spec: &mut MacSpec| spec.os_version = "13.7".into(),
        |spec: &mut MacSpec| spec.reaches_apple = false,
    ] {
        let mut spec = MacSpec::random().unwrap();
        change(&mut spec);
        let mac = enrolled(spec, &world, &server).await;
        server.ask_attestation("C1", Value::Data(vec![1; 32]));
        mac.connect().await.unwrap();
        let reply = server.seen("/mdm/connect").pop().unwrap();
        assert_eq!(
            (reply.text("Status").as_str(), chain_in(&reply).len()),
            ("Acknowledged", 0)
        );
    }
}

#[tokio::test]
async fn re_enrollment_attests_at_once_and_the_old_token_dies() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    let ask = |nonce: u8| server.ask_attestation("A", Value::Data(vec![nonce; 32]));
    let last = || {
        let chain = chain_in(&server.seen("/mdm/connect").pop().unwrap());
        property(&chain[0], oid::FRESHNESS).unwrap()[0]
    };
    for (nonce, expected) in [(1, 1), (2, 1)] {
        ask(nonce);
        mac.connect().await.unwrap();
        assert_eq!(last(), expected, "within seven days the old chain comes");
    }
    let (old_token, _) = mac.push_address().unwrap();
    mac.enroll(&server.url).await.unwrap();
    ask(3);
    mac.connect().await.unwrap();
    assert_eq!(last(), 3);
    assert_eq!(push_to(&world, &old_token, "m").await, 410);
    let (old_token, _) = mac.push_address().unwrap();
    mac.rotate_token().await.unwrap();
    assert_eq!(
        (
            push_to(&world, &old_token, "m").await,
            push(&world, &mac).await
        ),
        (410, 200)
    );
}

#[tokio::test]
async fn it_unenrolls_on_apples_403_and_checks_out_on_removal() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    server.stage().forced.push_back((403, "go away"));
    assert!(mac.connect().await.is_err() && mac.is_enrolled());
    server
        .stage()
        .forced
        .push_back((403, r#"{"code":"com.apple.unrecognized.device"}"#));
    assert!(mac.connect().await.unwrap().unenrolled && !mac.is_enrolled());
    mac.enroll(&server.url).await.unwrap();
    assert_eq!(mac.remove_profile().await.unwrap().unwrap().status, 200);
    assert_eq!(
        server
            .seen("/mdm/checkin")
            .pop()
            .unwrap()
            .text("MessageType"),
        "CheckOut"
    );
    assert!(matches!(mac.connect().await, Err(MacError::NotEnrolled)));
}

#[tokio::test]
async fn failed_enrollments_leave_nothing_behind_and_are_told_once() {
    let (world, server) = scene().await;
    let mac = Mac::new(MacSpec::random().unwrap(), &world);
    let mut events = mac.events();
    for (mode, expected) in [
        (ScepMode::Refuse, "Refused"),
        (ScepMode::Foreign, "ForeignSigner"),
        (ScepMode::Broken, "NotOk"),
    ] {
        server.stage().scep = mode;
        let Err(MacError::Scep(error)) = mac.enroll(&server.url).await else {
            panic!("{mode:?}")
        };
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert!(!matches!(error, ScepError::Crypto(_)));
        let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok())
            .map(|event| event.step)
            .collect();
        assert!(
            matches!(
                &told[..],
                [
                    MacStep::ProfileReceived { .. },
                    MacStep::EnrollmentFailed { .. }
                ]
            ),
            "{told:?}"
        );
    }
    server.stage().scep = ScepMode::PendingOnce;
    server.stage().forced.push_back((500, ""));
    assert!(matches!(
        mac.enroll(&server.url).await,
        Err(MacError::Refused {
            step: "Authenticate",
            ..
        })
    ));
    assert!(!mac.is_enrolled() && mac.push_address().is_none());
    mac.change(|spec| spec.aborts_after_authenticate = true);
    assert!(matches!(
        mac.enroll(&server.url).await,
        Err(MacError::RolledBack)
    ));
    assert_eq!(
        server
            .seen("/mdm/checkin")
            .pop()
            .unwrap()
            .text("MessageType"),
        "Authenticate"
    );
    mac.change(|spec| spec.aborts_after_authenticate = false);
    mac.enroll(&server.url).await.unwrap();
    mac.repeat_token_update().await.unwrap();
    let seen = server.seen("/mdm/checkin");
    let [.., first, second] = &seen[..] else {
        panic!("too few")
    };
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn messages_can_be_sent_by_hand_under_any_signature() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    let other = enrolled(MacSpec::random().unwrap(), &world, &server)
        .await
        .identity()
        .unwrap();
    let idle = messages::idle(&mac.spec());
    for signing in [
        Signing::Own,
        Signing::By(&other),
        Signing::Header("AAAA"),
        Signing::Unsigned,
    ] {
        assert_eq!(mac.connect_with(&idle, signing).await.unwrap().status, 200);
    }
    let own = mac.identity().unwrap().certificate.to_der().unwrap();
    let signers: Vec<_> = server
        .seen("/mdm/connect")
        .into_iter()
        .map(|one| one.signer)
        .collect();
    assert_eq!(
        signers,
        [
            Some(own),
            Some(other.certificate.to_der().unwrap()),
            None,
            None
        ]
    );
}

#[tokio::test]
async fn redirects_are_followed_with_the_whole_message_but_never_to_plain_http() {
    let (world, server) = scene().await;
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    let put = async |path: &str| {
        let url = format!("{}{path}", server.url);
        mac.signed_put(&url, CONNECT, b"the body", Signing::Own)
            .await
    };
    assert_eq!(put("/moved").await.unwrap().status, 200);
    let seen = server.seen("/mdm/connect").pop().unwrap();
    assert!(&*seen.body == b"the body" && seen.signer.is_some());
    assert!(matches!(put("/downgrade").await, Err(MacError::BadUrl(_))));
}

#[tokio::test]
async fn servers_under_an_unknown_root_are_refused() {
    let (_, server) = scene().await;
    let (elsewhere, other) = scene().await;
    let mac = Mac::new(MacSpec::random().unwrap(), &elsewhere);
    assert!(matches!(
        mac.enroll(&server.url).await,
        Err(MacError::Unreachable(_))
    ));
    mac.enroll(&other.url).await.unwrap();
}

#[tokio::test]
async fn a_world_in_another_time_works_and_seven_days_pass_when_told() {
    let clock = Clock::fixed(1_790_847_007_000);
    let options = WorldOptions {
        clock: clock.clone(),
        ..WorldOptions::default()
    };
    let world = World::start(options).await.unwrap();
    let server = Rehearsal::start(world.topic()).await;
    world.trust(&server.root_pem);
    let mac = enrolled(MacSpec::random().unwrap(), &world, &server).await;
    assert_eq!(push(&world, &mac).await, 200);
    for (nonce, days, fresh) in [(1, 0, true), (2, 6, false), (3, 2, true)] {
        clock.advance(days * DAY_MS);
        server.ask_attestation("A", Value::Data(vec![nonce; 32]));
        mac.connect().await.unwrap();
        let exchange = mac.exchanges().pop().unwrap();
        assert_eq!(
            exchange.attestation.map(|(_, fresh)| fresh),
            Some(fresh),
            "nonce {nonce}"
        );
    }
    clock.advance(400 * DAY_MS);
    assert_eq!(
        push(&world, &mac).await,
        403,
        "the push certificate has expired"
    );
}
