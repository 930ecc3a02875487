//! What no honest Mac sends, correctly signed by one: each refused with its reason, counted, and
//! nothing else changed. And what looks odd and is honest all the same.

use std::time::Duration;

use attestd::app::database_url;
use attestd::config::Config;
use attestd::reason::Reason;
use attestd::time::Timestamp;
use attestd_sim::mac::messages::{authenticate, idle, token_update};
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::{Mac, Signing};
use plist::{Dictionary, Value};
use reqwest::{Body, Method};
use sea_orm::ConnectionTrait as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::inside::eventually;
use crate::harness::public_side::{accepted, never_unenrolls, refused, told};
use crate::harness::scene::Scene;

const REPORT: &str = "application/x-apple-aspen-mdm";
const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";

async fn enrolled(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac
}

fn xml(body: Dictionary) -> Vec<u8> {
    write(&Value::Dictionary(body), PlistStyle::CoreFoundation).expect("written")
}

/// Puts a body under the Mac's own signature.
async fn put(scene: &Scene, mac: &Mac, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    told(
        mac.signed_put(&scene.url(path), kind, body, Signing::Own)
            .await,
    )
}

/// Property lists that are none, or not what they seem, for the Mac of this UDID.
fn malformed(udid: &str) -> Vec<(&'static str, Vec<u8>)> {
    let whole = |inside: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\"><dict>\
             <key>UDID</key><string>{udid}</string>{inside}</dict></plist>"
        )
    };
    let idle = "<key>Status</key><string>Idle</string>\
                <key>MessageType</key><string>CheckOut</string>";
    let nested = "<array>".repeat(5_000) + &"</array>".repeat(5_000);
    let entity = "<!DOCTYPE plist [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>";
    let with_entity = whole("<key>Status</key><string>&b;</string>");
    let with_entity = with_entity.replacen("<plist", &format!("{entity}<plist"), 1);
    let mut cut = whole(idle).into_bytes();
    cut.truncate(cut.len() / 2);
    let mut binary = Vec::new();
    plist::Value::Dictionary(Dictionary::new())
        .to_writer_binary(&mut binary)
        .expect("written");
    let mut cut_binary = binary.clone();
    cut_binary.truncate(binary.len() - 5);
    // A binary array that contains itself: offset table and trailer point at the one object.
    let mut circle = b"bplist00\xa1\x00\x08".to_vec();
    circle.extend([0, 0, 0, 0, 0, 0, 1, 1]);
    circle.extend([
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
    ]);
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    vec![
        ("empty", Vec::new()),
        ("no property list", b"Status=Idle".to_vec()),
        (
            "JSON",
            format!("{{\"UDID\":\"{udid}\",\"Status\":\"Idle\"}}").into_bytes(),
        ),
        ("cut short", cut),
        (
            "two of them",
            [whole(idle), whole(idle)].concat().into_bytes(),
        ),
        ("a key twice", whole(&format!("{idle}{idle}")).into_bytes()),
        (
            "UDID twice",
            whole(&format!("{idle}<key>UDID</key><string>{udid}</string>")).into_bytes(),
        ),
        (
            "nested deeply",
            whole(&format!("{idle}<key>x</key>{nested}")).into_bytes(),
        ),
        ("with entities", with_entity.into_bytes()),
        (
            "no dictionary",
            b"<plist version=\"1.0\"><array/></plist>".to_vec(),
        ),
        (
            "no UDID",
            b"<plist><dict><key>Status</key><string>Idle</string></dict></plist>".to_vec(),
        ),
        (
            "another type",
            whole(
                "<key>Status</key><integer>1</integer>\
                                <key>MessageType</key><true/>",
            )
            .into_bytes(),
        ),
        ("an empty binary one", binary),
        ("a binary one cut short", cut_binary),
        ("a binary one in a circle", circle),
        ("compressed", gzip),
        (
            "not UTF-8",
            b"<plist><dict><key>Status</key><string>\xff\xfe</string></dict></plist>".to_vec(),
        ),
    ]
}

journey! {
    async fn bodies_that_are_no_message_are_refused_and_counted(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = enrolled(&scene).await;
        let before = scene.api.device(&mac.serial()).await;
        for (surface, path, kind) in
            [("connect", "/mdm/connect", REPORT), ("check_in", "/mdm/checkin", CHECK_IN)]
        {
            for (what, body) in malformed(&mac.udid()) {
                let counted = scene.refusals(surface, "request_malformed").await;
                let answer = put(&scene, &mac, path, kind, &body).await;
                assert_eq!(answer, refused("request_malformed"), "{surface}: {what}");
                let now = scene.refusals(surface, "request_malformed").await;
                assert_eq!(now, counted + 1, "{surface}: {what}");
            }
        }
        assert_eq!(scene.api.device(&mac.serial()).await, before);
    }
}

journey! {
    async fn requests_that_no_flow_takes_are_refused_and_counted(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = enrolled(&scene).await;
        let body = xml(idle(&mac.spec()));

        // Whoever sends far too much can read the refusal all the same, whatever it is for.
        let large = vec![b' '; 3 << 20];
        for (kind, body) in [
            ("text/xml", &body),
            ("text/xml", &large),
            ("", &body),
            ("application/json", &body),
            ("application/x-apple-aspen-mdm-checkinn", &body),
        ] {
            let counted = scene.refusals("mdm", "message_unsupported").await;
            let answer = put(&scene, &mac, "/mdm/connect", kind, body).await;
            assert_eq!(answer, refused("message_unsupported"), "{kind}");
            assert_eq!(scene.refusals("mdm", "message_unsupported").await, counted + 1, "{kind}");
        }

        let largest = vec![b' '; 512 << 10];
        let larger = vec![b' '; (512 << 10) + 1];
        for (surface, kind) in [("connect", REPORT), ("check_in", CHECK_IN)] {
            for (body, status, reason) in [
                (&largest, 400, "request_malformed"),
                (&larger, 413, "request_too_large"),
                (&large, 413, "request_too_large"),
            ] {
                let counted = scene.refusals(surface, reason).await;
                let answer = put(&scene, &mac, "/mdm/connect", kind, body).await;
                assert_eq!((answer.0, answer.1.as_str()), (status, reason));
                assert_eq!(scene.refusals(surface, reason).await, counted + 1);
            }
        }

        // The headers are looked at first: what they refuse is not measured.
        let unsigned = scene.anybody(Method::PUT, "/mdm/connect").header("content-type", REPORT);
        let answer = scene.answer(unsigned.body(large)).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "signature_invalid"));
        assert_eq!(scene.refusals("connect", "signature_invalid").await, 1);

        // Two signatures: whoever looked at the first must not be fooled by the second.
        let request = scene.anybody(Method::PUT, "/mdm/connect").header("content-type", REPORT);
        let request = request.header("mdm-signature", "AAAA").header("mdm-signature", "BBBB");
        let answer = scene.answer(request.body(body.clone())).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "signature_invalid"));
        assert_eq!(scene.refusals("connect", "signature_invalid").await, 2);

        for (method, path, status) in [
            (Method::GET, "/mdm/connect", 405),
            (Method::POST, "/mdm/checkin", 405),
            (Method::DELETE, "/v1/enroll", 405),
            (Method::PUT, "/scep", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/mdm", 405),
            (Method::PUT, "/mdm/connect/", 404),
            (Method::GET, "/../etc/passwd", 404),
            // The internal side is on another listener, and nothing of it is on this one.
            (Method::GET, "/metrics", 404),
            (Method::GET, "/readyz", 404),
            (Method::GET, "/internal/v1/status", 404),
            (Method::GET, "/internal/v1/devices?serial_number=C02XL3FHJG5J", 404),
        ] {
            let labels = ["listener=\"public\"".to_owned(), format!("status=\"{status}\"")];
            let labels = [labels[0].as_str(), labels[1].as_str()];
            let counter = "attestd_http_requests_total";
            let counted = scene.counted(counter, &labels).await;
            let request = scene.anybody(method.clone(), path);
            let answer = scene.answer(request.bearer_auth(&scene.api.token)).await;
            assert_eq!(answer.status, status, "{method} {path}");
            assert_eq!(scene.counted(counter, &labels).await, counted + 1, "{method} {path}");
        }
    }
}

journey! {
    async fn what_is_odd_and_honest_is_accepted(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.change(|spec| spec.plist_style = PlistStyle::Binary);
        mac.enroll(&scene.base_url).await.expect("enrols in binary");
        let (token, magic) = mac.push_address().expect("an address");
        let update = token_update(&mac.spec(), scene.world.topic(), &token, &magic);
        for style in [PlistStyle::Binary, PlistStyle::Minified, PlistStyle::OddWhitespace] {
            let body = write(&Value::Dictionary(update.clone()), style).expect("written");
            for kind in [CHECK_IN, "Application/X-Apple-Aspen-MDM-CheckIn ; charset=UTF-8"] {
                let answer = put(&scene, &mac, "/mdm/connect", kind, &body).await;
                assert_eq!(answer, accepted(), "{style:?} {kind}");
            }
        }

        // A body in pieces, without a length, from a slow sender.
        let identity = mac.identity().expect("an identity");
        let body = xml(update);
        let style = attestd_sim::cms::SignatureStyle::default();
        let signature = attestd_sim::cms::mdm_signature(&identity, &body, &style).expect("signed");
        let pieces: Vec<_> = body.chunks(100).map(<[u8]>::to_vec).collect();
        let trickle = futures_util::stream::unfold(pieces.into_iter(), |mut rest| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            rest.next().map(|piece| (Ok::<_, std::io::Error>(piece), rest))
        });
        let request = scene.anybody(Method::PUT, "/mdm/checkin").header("content-type", CHECK_IN);
        let request = request.header("mdm-signature", &signature).body(Body::wrap_stream(trickle));
        assert_eq!(scene.answer(request).await.status, 200);

        // Nothing is unpacked, and nothing is taken that says it would have to be.
        let encoded = |encoding| {
            let request = scene.anybody(Method::PUT, "/mdm/checkin").header("content-type", CHECK_IN);
            let request = request.header("mdm-signature", &signature).body(body.clone());
            request.header("content-encoding", encoding)
        };
        assert_eq!(scene.answer(encoded("identity")).await.status, 200);
        for encoding in ["gzip", "deflate", "aes128gcm"] {
            let answer = scene.answer(encoded(encoding)).await;
            assert_eq!((answer.status, answer.reason().as_str()), (400, "body_encoded"));
        }
        assert_eq!(scene.refusals("check_in", "body_encoded").await, 3);

        // Headers of 9 KB that mean nothing here.
        let request = scene.anybody(Method::PUT, "/mdm/checkin").header("content-type", CHECK_IN);
        let request = request.header("mdm-signature", &signature).header("cookie", "c".repeat(9_000));
        assert_eq!(scene.answer(request.body(body)).await.status, 200);
    }
}

journey! {
    async fn a_refusal_that_could_not_be_audited_is_audited_later(backend: Backend) {
        let scene = Scene::new(backend).await;
        let config = Config::load(scene.config(), true).expect("a configuration");
        let url = database_url(&config).expect("a URL");
        let connection = sea_orm::Database::connect(url).await.expect("connects");
        connection.execute_unprepared("ALTER TABLE refusals RENAME TO gone").await.expect("renames");
        let failures = async || scene.counted("attestd_worker_failures_total", &[]).await;
        let before = failures().await;
        let request = scene.anybody(Method::PUT, "/mdm/connect").header("content-type", "text/xml");
        assert_eq!(scene.answer(request).await.status, 400);
        eventually("keeping fails", async || failures().await > before).await;
        connection.execute_unprepared("ALTER TABLE gone RENAME TO refusals").await.expect("renames");
        eventually("it is made up for", async || {
            let tx = scene.ctx().store.read().await.expect("a store");
            let counts = tx.refusal_counts(Timestamp::from_millis(0)).await.expect("counts");
            counts == [(Reason::MessageUnsupported, 1)]
        }).await;
        assert_eq!(scene.counted("attestd_refusals_not_kept_total", &[]).await, 0);
    }
}

/// Sends bytes as they are and reads until the server has nothing more to say.
async fn raw(scene: &Scene, bytes: &[u8]) -> String {
    let address = scene.base_url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // The server may have answered and closed before all of it is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

journey! {
    async fn what_is_no_http_gets_no_further(backend: Backend) {
        let scene = Scene::new(backend).await;
        let put = "PUT /mdm/connect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let mac = format!("Content-Type: {REPORT}\r\nMdm-Signature: AAAA\r\n");
        let many = "x: y\r\n".repeat(200);
        let huge = format!("x: {}\r\n", "y".repeat(1 << 20));
        for (what, request, statuses) in [
            ("many headers", format!("{put}{many}\r\n"), &[431][..]),
            // The answer may be lost where the server closes before all was sent.
            ("a header of 1 MB", format!("{put}{huge}\r\n"), &[431, 0]),
            (
                "two lengths",
                format!("{put}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
                &[400],
            ),
            (
                "a length that is none",
                format!("{put}Content-Length: -1\r\n\r\n"),
                &[400],
            ),
            (
                "chunks of a kind that is none",
                format!("{put}{mac}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
                &[400],
            ),
            ("no HTTP at all", "\x16\x03\x01\x02\x00\x01".to_owned() + &"\0".repeat(64), &[400, 0]),
        ] {
            let answer = raw(&scene, request.as_bytes()).await;
            let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"));
            never_unenrolls(status);
            assert!(statuses.contains(&status), "{what}: {answer:?}");
        }
        // The broken chunks were a body that broke off, and counted as such.
        assert_eq!(scene.refusals("connect", "request_malformed").await, 1);
        // And it still serves.
        assert_eq!(scene.answer(scene.anybody(Method::GET, "/healthz")).await.status, 200);
    }
}

journey! {
    async fn what_a_database_cannot_store_is_no_fault_of_the_service(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = enrolled(&scene).await;
        // A binary property list can carry NUL, which PostgreSQL has no place for.
        let mut hello = authenticate(&mac.spec(), scene.world.topic(), 1041);
        hello.insert("ModelName".to_owned(), "Mac\0mini".into());
        hello.insert("OSVersion".to_owned(), "26\0".into());
        let body = write(&Value::Dictionary(hello.clone()), PlistStyle::Binary).expect("written");
        assert_eq!(put(&scene, &mac, "/mdm/checkin", CHECK_IN, &body).await, accepted());
        let device = scene.api.device(&mac.serial()).await.expect("a device");
        assert_eq!(device["hardware"]["model_name"], "Macmini");
        for key in ["UDID", "SerialNumber", "Topic"] {
            let mut spoilt = hello.clone();
            let value = spoilt.get(key).and_then(Value::as_string).expect("text").to_owned() + "\0";
            spoilt.insert(key.to_owned(), value.into());
            let body = write(&Value::Dictionary(spoilt), PlistStyle::Binary).expect("written");
            let answer = put(&scene, &mac, "/mdm/checkin", CHECK_IN, &body).await;
            assert_eq!(answer, refused("request_malformed"), "{key}");
        }
        let (token, _) = mac.push_address().expect("an address");
        let update = token_update(&mac.spec(), scene.world.topic(), &token, "ma\0gic");
        let body = write(&Value::Dictionary(update), PlistStyle::Binary).expect("written");
        assert_eq!(put(&scene, &mac, "/mdm/checkin", CHECK_IN, &body).await, accepted());
    }
}
