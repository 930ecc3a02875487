//! Many of something that is harmless alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::flows::issue_by_scep::{Client, assert_refused, issued};
use crate::harness::keys::rsa;
use crate::harness::process::Served;
use crate::harness::public_side::Answer;
use crate::harness::scene::{Backend, Scene};

/// An hour, as the limits by ticket and serial number have it.
const HOUR: Duration = Duration::from_secs(3600);
/// Refused requests of one ticket, and profiles for one serial number.
const SHARE: usize = 20;

/// A connection from this address of this machine.
async fn connects(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("bound");
    socket.connect(to).await.expect("connects")
}

/// Whether the other side has closed it.
async fn is_closed(mut stream: TcpStream) -> bool {
    let read = timeout(Duration::from_secs(10), stream.read_u8());
    read.await.is_ok_and(|read| read.is_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { ..limit }).expect("more files");
    let may = limit.current.unwrap_or(u64::MAX);
    assert!(
        may >= 15_000,
        "this machine lets nobody have {may} connections"
    );

    let mut scene = Scene::new(Backend::Sqlite).await;
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    scene.stop().await;
    let served = Served::start(scene.config());
    let mut held = Vec::new();
    for number in 0..10_000_u16 {
        // As many as an address may have; some begin a request, some a preface, most say nothing.
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number / 1_000).expect("few"));
        let mut stream = connects(from, served.public).await;
        let opening: &[u8] = match number % 4 {
            0 => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
            1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _ => b"",
        };
        stream.write_all(opening).await.expect("sent");
        held.push(stream);
    }
    assert!(is_closed(connects(Ipv4Addr::new(127, 0, 1, 0), served.public).await).await);

    // Macs are heard, and whoever asks inside is answered.
    mac.connect().await.expect("a session");
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("http://{}/internal/v1/status", served.internal);
    let status = client.get(url).bearer_auth(scene.token("viewer"));
    let status = status.send().await.expect("an answer");
    assert_eq!(status.status(), 200);
    // Each was there until now: whoever was quick enough is still waited for.
    let open = held
        .iter()
        .filter(|stream| stream.peer_addr().is_ok())
        .count();
    assert_eq!(open, held.len());
    drop(held);
    assert!(
        !served.log().contains("could not be accepted"),
        "{}",
        served.log()
    );
}

/// 429, and in how many seconds there is another try.
fn too_often(answer: &Answer) -> String {
    assert_eq!(answer.status, 429);
    answer.header("retry-after").to_owned()
}

journey! {
    async fn a_serial_number_has_its_share_of_profiles_and_nobody_is_kept_out(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (serial, other) = (scene.honest_mac().serial(), scene.honest_mac().serial());
        let body = json!({ "serial_number": serial }).to_string();
        let form = format!("serial_number={serial}&identity=automatic");
        let page = async || {
            let form = scene.anybody(Method::POST, "/enroll").body(form.clone());
            let form = form.header("content-type", "application/x-www-form-urlencoded");
            scene.answer(form).await
        };
        for _ in 1..SHARE {
            scene.deliver(&body).await;
        }
        assert_ne!(page().await.status, 429);
        assert_eq!(too_often(&scene.ask_for_profile(&body).await), "3600");
        let answer = page().await;
        assert_eq!(answer.status, 429);
        assert!(answer.text().contains("leave the serial number empty"), "{}", answer.text());

        // Whoever used that up keeps nobody away: neither another Mac, nor this one.
        scene.deliver_for(&other).await;
        scene.deliver("{}").await;
        let ticket = scene.api.request(Method::POST, "/internal/v1/tickets");
        let ticket = ticket.json(&json!({ "serial_number": serial })).send().await.expect("an answer");
        assert_eq!(ticket.status(), 201);
        scene.pass(HOUR);
        scene.deliver(&body).await;
    }
}

journey! {
    async fn a_ticket_is_refused_so_often_and_then_nothing_is_written_of_it(backend: Backend) {
        let scene = Scene::new(backend).await;
        let delivered = scene.deliver("{}").await;
        let (late, used) = (Client::of(&scene, &delivered.profile).await, Client::new(&scene).await);
        let first = issued(used.ask(rsa(0)).await);
        scene.pass(HOUR);
        for (client, reason) in [(&late, "ticket_expired"), (&used, "ticket_used")] {
            let before = scene.refusals("scep", "ticket_exhausted").await;
            for _ in 1..SHARE {
                assert_refused(&client.ask(rsa(1)).await, "2");
            }
            assert_eq!(scene.refusals("scep", reason).await, 19, "{reason}");
            for times in 1..=2 {
                assert_refused(&client.ask(rsa(1)).await, "2");
                assert_eq!(scene.refusals("scep", "ticket_exhausted").await, before + times);
            }
        }
        // Who has a certificate and did not hear of it gets it all the same.
        let again = issued(used.ask(rsa(0)).await);
        assert_eq!(first.to_der().expect("DER"), again.to_der().expect("DER"));
    }
}

journey! {
    async fn what_costs_has_a_limit_for_each_address(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        scene.stop().await;
        let settings = std::fs::read_to_string(scene.config()).expect("settings");
        let settings = settings.replace("_per_minute = 100000", "_per_minute = 2");
        let settings = settings.replace("[public]\n", "[public]\nfeed_per_minute = 2\nlog_per_minute = 2\n");
        std::fs::write(scene.config(), settings).expect("written");
        scene.start().await;
        for (method, path) in [
            (Method::POST, "/v1/enroll"),
            (Method::POST, "/scep?operation=PKIOperation"),
            (Method::GET, "/acme/nothing/directory"),
            (Method::GET, "/v1/providers/attestation"),
            (Method::GET, "/log/checkpoint"),
        ] {
            let mut limited = Vec::new();
            for _ in 0..3 {
                let answer = scene.answer(scene.anybody(method.clone(), path)).await;
                limited.push(answer.status == 429);
                assert_eq!(answer.status == 429, !answer.header("retry-after").is_empty(), "{path}");
            }
            assert_eq!(limited, [false, false, true], "{path}");
            // Another address has its own.
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.public_port()));
            let mut other = connects(Ipv4Addr::new(127, 0, 2, 1), to).await;
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            other.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            other.read_to_end(&mut answer).await.expect("an answer");
            assert!(!answer.starts_with(b"HTTP/1.1 429 "), "{path}");
        }
    }
}
