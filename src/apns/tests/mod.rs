//! The client against a server that speaks real HTTP/2 with mutual TLS.

mod double;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use double::{Authority, Double, Manner, Reply, now};
use futures_util::future::join_all;

use super::*;
use crate::entropy::OsEntropy;
use crate::push::outcome::Passing;
use crate::push::{ApnsReason, Expiration};
use crate::time::ManualClock;

const TOPIC: &str = "com.apple.mgmt.External.0f0e0d0c";
const MAGIC: &str = "canary-magic-6F3C2B1A";

fn settings(port: u16, authority: &Authority) -> ApnsSettings {
    ApnsSettings {
        endpoint: Endpoint::parse(&format!("https://127.0.0.1:{port}")).expect("an endpoint"),
        extra_roots: Some(authority.pem()),
        deadline: Duration::from_secs(20),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(100),
        ..ApnsSettings::default()
    }
}

fn client(settings: ApnsSettings) -> Arc<Apns> {
    let clock = Arc::new(ManualClock::at(now()));
    let apns = Apns::new(settings, clock, Arc::new(OsEntropy::default())).expect("a client");
    Arc::new(apns)
}

/// A client with a certificate for [`TOPIC`].
fn ready(settings: ApnsSettings, authority: &Authority) -> Arc<Apns> {
    let apns = client(settings);
    let (certificate, key) = authority.pusher(TOPIC);
    assert_eq!(
        apns.install(&certificate, &key, 1).expect("installed"),
        Installed::First
    );
    apns
}

fn wake(token: u16) -> Wake {
    let mut bytes = vec![0xab; 32];
    bytes[..2].copy_from_slice(&token.to_be_bytes());
    Wake::new(
        Topic::parse(TOPIC).expect("a topic"),
        &Secret::new(bytes),
        &Secret::new(MAGIC.to_owned()),
        Expiration::Until(Timestamp::from_seconds(1_800_604_800)),
    )
    .expect("a push")
}

fn id(number: u16) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

async fn send(apns: &Apns, number: u16) -> PushOutcome {
    apns.send(&wake(number), id(number)).await
}

async fn send_all(apns: &Arc<Apns>, count: u16) -> Vec<PushOutcome> {
    let tasks = (0..count).map(|number| {
        let apns = Arc::clone(apns);
        tokio::spawn(async move { send(&apns, number).await })
    });
    join_all(tasks)
        .await
        .into_iter()
        .map(|joined| joined.expect("ran"))
        .collect()
}

fn assert_all_accepted(outcomes: &[PushOutcome], double: &Double) {
    let bad: Vec<_> = outcomes
        .iter()
        .filter(|outcome| **outcome != PushOutcome::Accepted)
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {}: {:?}",
        bad.len(),
        outcomes.len(),
        bad.first()
    );
    // Every push arrived, and every repetition bore the id of the first attempt.
    let mut ids = HashMap::new();
    for seen in double.seen() {
        let id = seen.headers["apns-id"].clone();
        assert_eq!(*ids.entry(seen.path.clone()).or_insert(id.clone()), id);
    }
    assert_eq!(ids.len(), outcomes.len());
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), outcomes.len());
}

fn state(apns: &Apns) -> TopicState {
    apns.state().remove(0)
}

#[tokio::test]
async fn a_push_has_exactly_the_headers_and_body_apple_asks_for() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |_| Reply::ok()).await;
    let apns = ready(settings(double.port, &authority), &authority);
    assert_eq!(send(&apns, 0x1234).await, PushOutcome::Accepted);
    let seen = double.seen().remove(0);
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.path, format!("/3/device/1234{}", "ab".repeat(30)));
    assert_eq!(seen.body, format!(r#"{{"mdm":"{MAGIC}"}}"#));
    let headers: HashMap<_, _> = seen
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
        .collect();
    let length = seen.body.len().to_string();
    let expected = HashMap::from([
        ("apns-topic", TOPIC),
        ("apns-push-type", "mdm"),
        ("apns-priority", "10"),
        ("apns-expiration", "1800604800"),
        ("apns-id", "00000000-0000-0000-0000-000000001235"),
        ("content-length", length.as_str()),
    ]);
    assert_eq!(headers, expected);
    let state = state(&apns);
    assert_eq!(state.last_success, Some(now()));
    assert_eq!(
        (state.connections, state.in_flight, state.last_fault),
        (1, 0, None)
    );
}

#[tokio::test]
async fn a_thousand_pushes_at_once_share_one_connection() {
    let authority = Authority::new();
    let slow = |_: &double::Seen| Reply {
        after: Duration::from_millis(20),
        ..Reply::ok()
    };
    let double = Double::start(&authority, Manner::default(), slow).await;
    let one = ApnsSettings {
        connections: 1,
        ..settings(double.port, &authority)
    };
    let apns = ready(one, &authority);
    let outcomes = send_all(&apns, 1000).await;
    assert_all_accepted(&outcomes, &double);
    assert_eq!(double.connections(), 1);
    assert_eq!(double.seen().len(), 1000, "none was sent twice");
}

#[tokio::test]
async fn a_low_stream_limit_is_kept_and_a_second_connection_helps() {
    let authority = Authority::new();
    let manner = Manner {
        streams: 5,
        ..Manner::default()
    };
    let slow = |_: &double::Seen| Reply {
        after: Duration::from_millis(5),
        ..Reply::ok()
    };
    let double = Double::start(&authority, manner, slow).await;
    let two = ApnsSettings {
        connections: 2,
        ..settings(double.port, &authority)
    };
    let apns = ready(two, &authority);
    assert_all_accepted(&send_all(&apns, 1).await, &double);
    double.seen.lock().expect("not poisoned").clear();
    assert_all_accepted(&send_all(&apns, 300).await, &double);
    assert_eq!(double.connections(), 2);
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_says_goodbye_again_and_again() {
    let authority = Authority::new();
    let manner = Manner {
        goaway_after: Some(200),
        ..Manner::default()
    };
    let double = Double::start(&authority, manner, |_| Reply::ok()).await;
    let apns = ready(settings(double.port, &authority), &authority);
    let outcomes = send_all(&apns, 2000).await;
    assert_all_accepted(&outcomes, &double);
    assert!(double.connections() > 1);
}

#[tokio::test]
async fn nothing_is_lost_when_connections_are_cut_without_a_word() {
    let authority = Authority::new();
    let manner = Manner {
        cut_after: Some(300),
        ..Manner::default()
    };
    let double = Double::start(&authority, manner, |_| Reply::ok()).await;
    let patient = ApnsSettings {
        attempts: 10,
        ..settings(double.port, &authority)
    };
    let apns = ready(patient, &authority);
    assert_all_accepted(&send_all(&apns, 1000).await, &double);
    assert!(double.connections() > 1);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_and_ends_the_use_of_its_connection() {
    let authority = Authority::new();
    let manner = Manner {
        refuse_every: Some(3),
        ..Manner::default()
    };
    let double = Double::start(&authority, manner, |_| Reply::ok()).await;
    let apns = ready(settings(double.port, &authority), &authority);
    for number in 0..6 {
        assert_eq!(send(&apns, number).await, PushOutcome::Accepted);
    }
    assert_eq!(double.seen().len(), 6);
    assert_eq!(double.connections(), 3);
}

#[tokio::test]
async fn each_answer_has_its_meaning_and_blames_no_other_mac() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |seen| {
        match seen.path.get(10..14).expect("a token") {
            "0001" => Reply::with(400, r#"{"reason":"BadDeviceToken"}"#),
            "0002" => Reply::with(
                410,
                r#"{"reason":"Unregistered","timestamp":1799999999000}"#,
            ),
            "0003" => Reply::with(429, r#"{"reason":"TooManyRequests"}"#),
            "0004" => Reply::with(503, r#"{"reason":"ServiceUnavailable"}"#),
            "0005" => Reply::with(400, r#"{"reason":"BadPriority"}"#),
            "0006" => Reply::with(500, "<html>"),
            "0007" => Reply::with(400, r#"{"reason":"DeviceTokenNotForTopic"}"#),
            _ => Reply::ok(),
        }
    })
    .await;
    let apns = ready(settings(double.port, &authority), &authority);
    let since = Some(Timestamp::from_seconds(1_799_999_999));
    let expected = [
        PushOutcome::Accepted,
        PushOutcome::TokenRefused,
        PushOutcome::TokenDead { since },
        PushOutcome::Throttled,
        PushOutcome::RetryLater(Passing::Answered(503)),
        PushOutcome::OurFault {
            status: 400,
            reason: ApnsReason::BadPriority,
        },
        PushOutcome::RetryLater(Passing::Answered(500)),
        PushOutcome::TokenForeign,
        PushOutcome::Accepted,
    ];
    for (number, expected) in (0..).zip(expected) {
        assert_eq!(send(&apns, number).await, expected);
    }
    assert_eq!(double.connections(), 1);
    assert_eq!(state(&apns).on_hold_until, None);
}

#[tokio::test]
async fn a_connection_that_is_shutting_down_is_left_at_once() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |seen| {
        match seen.connection {
            1 => Reply::with(503, r#"{"reason":"Shutdown"}"#),
            _ => Reply::ok(),
        }
    })
    .await;
    let apns = ready(settings(double.port, &authority), &authority);
    assert_eq!(send(&apns, 1).await, PushOutcome::Accepted);
    assert_eq!(double.connections(), 2);
}

#[tokio::test]
async fn a_fault_of_the_certificate_holds_the_topic_until_a_probe_is_taken() {
    let authority = Authority::new();
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let double = Double::start(&authority, Manner::default(), {
        let healed = Arc::clone(&healed);
        move |_| match healed.load(Ordering::SeqCst) {
            false => Reply::with(403, r#"{"reason":"BadCertificate"}"#),
            true => Reply::ok(),
        }
    })
    .await;
    let short = ApnsSettings {
        hold_min: Duration::from_millis(300),
        ..settings(double.port, &authority)
    };
    let apns = ready(short, &authority);
    let fault =
        PushOutcome::CertificateFault(CertificateFault::Refused(ApnsReason::BadCertificate));
    let held = PushOutcome::RetryLater(Passing::OnHold);
    assert_eq!(send(&apns, 1).await, fault);
    for number in 2..50 {
        assert_eq!(send(&apns, number).await, held);
    }
    assert_eq!(double.seen().len(), 1);
    assert!(state(&apns).on_hold_until.is_some());
    assert_eq!(state(&apns).last_fault, Some((now(), fault)));
    healed.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(send(&apns, 1).await, PushOutcome::Accepted);
    assert_eq!(send(&apns, 2).await, PushOutcome::Accepted);
    assert_eq!(state(&apns).on_hold_until, None);
}

#[tokio::test]
async fn a_certificate_refused_in_the_handshake_holds_the_topic_and_a_new_one_frees_it() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |_| Reply::ok()).await;
    double.distrusts.store(true, Ordering::SeqCst);
    let apns = ready(settings(double.port, &authority), &authority);
    let fault = PushOutcome::CertificateFault(CertificateFault::Handshake);
    assert_eq!(send(&apns, 1).await, fault);
    assert_eq!(
        send(&apns, 2).await,
        PushOutcome::RetryLater(Passing::OnHold)
    );
    double.distrusts.store(false, Ordering::SeqCst);
    let (certificate, key) = authority.pusher(TOPIC);
    assert_eq!(
        apns.install(&certificate, &key, 2).expect("installed"),
        Installed::Replaced
    );
    assert_eq!(send(&apns, 3).await, PushOutcome::Accepted);
}

#[tokio::test]
async fn a_certificate_is_replaced_while_pushes_run() {
    let authority = Authority::new();
    let slow = |_: &double::Seen| Reply {
        after: Duration::from_millis(200),
        ..Reply::ok()
    };
    let double = Double::start(&authority, Manner::default(), slow).await;
    let apns = ready(settings(double.port, &authority), &authority);
    let first = state(&apns).certificate;
    let running = tokio::spawn({
        let apns = Arc::clone(&apns);
        async move { send_all(&apns, 100).await }
    });
    tokio::time::sleep(Duration::from_millis(120)).await;
    let (certificate, key) = authority.pusher(TOPIC);
    assert_eq!(
        apns.install(&certificate, &key, 2).expect("installed"),
        Installed::Replaced
    );
    assert_eq!(
        apns.install(&certificate, &key, 2).expect("known"),
        Installed::Kept
    );
    assert_eq!(send(&apns, 500).await, PushOutcome::Accepted);
    assert!(
        running
            .await
            .expect("ran")
            .iter()
            .all(|outcome| *outcome == PushOutcome::Accepted)
    );
    let seen = double.seen();
    assert_eq!(seen.len(), 101, "none was sent twice");
    let last = seen
        .iter()
        .find(|seen| seen.path.starts_with("/3/device/01f4"))
        .expect("sent");
    assert_eq!(last.certificate, *state(&apns).certificate.as_bytes());
    assert_ne!(state(&apns).certificate, first);
    assert_eq!(state(&apns).generation, 2);
}

#[tokio::test]
async fn a_server_under_another_root_gets_no_push() {
    let (authority, other) = (Authority::new(), Authority::new());
    let double = Double::start(&authority, Manner::default(), |_| Reply::ok()).await;
    let apns = ready(settings(double.port, &other), &authority);
    let outcome = send(&apns, 1).await;
    assert_eq!(outcome, PushOutcome::RetryLater(Passing::UntrustedServer));
    assert_eq!(state(&apns).last_fault, Some((now(), outcome)));
    let public = ApnsSettings {
        extra_roots: None,
        ..settings(double.port, &other)
    };
    let apns = ready(public, &authority);
    assert_eq!(
        send(&apns, 1).await,
        PushOutcome::RetryLater(Passing::UntrustedServer)
    );
    assert!(double.seen().is_empty());
}

#[tokio::test]
async fn a_slow_server_meets_the_deadline_and_its_connection_is_left() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |seen| Reply {
        after: Duration::from_secs(if seen.connection == 1 { 3600 } else { 0 }),
        ..Reply::ok()
    })
    .await;
    let hasty = ApnsSettings {
        deadline: Duration::from_millis(500),
        ..settings(double.port, &authority)
    };
    let apns = ready(hasty, &authority);
    let begun = Instant::now();
    assert_eq!(
        send(&apns, 1).await,
        PushOutcome::RetryLater(Passing::Deadline)
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(send(&apns, 2).await, PushOutcome::Accepted);
    assert_eq!(double.connections(), 2);
}

#[tokio::test]
async fn nobody_there_is_told_soon_and_connections_are_not_hammered() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |_| Reply::ok()).await;
    let port = double.port;
    drop(double);
    let calm = ApnsSettings {
        reconnect_min: Duration::from_mins(10),
        reconnect_max: Duration::from_mins(10),
        ..settings(port, &authority)
    };
    let apns = ready(calm, &authority);
    let begun = Instant::now();
    for outcome in send_all(&apns, 100).await {
        assert_eq!(outcome, PushOutcome::RetryLater(Passing::Unreachable));
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        state(&apns).on_hold_until,
        None,
        "the certificate is not to blame"
    );
}

#[tokio::test]
async fn a_topic_without_certificate_or_withdrawn_sends_nothing() {
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |_| Reply::ok()).await;
    let apns = client(settings(double.port, &authority));
    let absent = PushOutcome::CertificateFault(CertificateFault::Absent);
    assert_eq!(send(&apns, 1).await, absent);
    let (certificate, key) = authority.pusher(TOPIC);
    apns.install(&certificate, &key, 1).expect("installed");
    assert_eq!(send(&apns, 1).await, PushOutcome::Accepted);
    apns.withdraw(certificate.topic());
    assert_eq!(send(&apns, 1).await, absent);
    assert!(apns.state().is_empty());
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_not_installed() {
    let authority = Authority::new();
    let apns = client(settings(1, &authority));
    let (certificate, _) = authority.pusher(TOPIC);
    let (_, other) = authority.pusher(TOPIC);
    assert!(matches!(
        apns.install(&certificate, &other, 1),
        Err(ApnsError::Unusable(_))
    ));
    assert!(apns.state().is_empty());
}

#[tokio::test]
async fn neither_log_nor_debug_shows_token_or_magic() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let authority = Authority::new();
    let double = Double::start(&authority, Manner::default(), |seen| {
        match seen.connection {
            1 => Reply::with(403, r#"{"reason":"BadCertificate"}"#),
            _ => Reply::ok(),
        }
    })
    .await;
    let apns = ready(settings(double.port, &authority), &authority);
    send(&apns, 1).await;
    let (certificate, key) = authority.pusher(TOPIC);
    apns.install(&certificate, &key, 2).expect("installed");
    assert_eq!(send(&apns, 1).await, PushOutcome::Accepted);
    let logged = log.text();
    assert!(
        logged.contains("pushes held") && logged.contains("h2::"),
        "{logged}"
    );
    for shown in [logged, format!("{apns:?} {:?}", wake(1))] {
        assert!(
            !shown.contains(MAGIC) && !shown.contains("ababab"),
            "{shown}"
        );
    }
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
