//! How long the coordinator waits for a posture, alone and while strangers flood the public listener.
//!
//! On the wall's clock, with flooders and server on one machine: what the server does is not told from what
//! the flooders take from it, so the figure is an upper bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attestd_sim::mac::IdentityKind;
use attestd_sim::{World, WorldOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::fleet::Fleet;
use super::report::Report;
use super::server::Server;

/// Connections of strangers at a time, each from one of a few addresses.
const FLOODERS: u16 = 200;
const ASKED: usize = 5_000;
/// Issue and design: p99 of a posture under a flood.
const GOAL: f64 = 10_000.0;

/// What strangers ask for: what costs a signature and a write, what costs a parse, what is read from memory, and
/// what is not there.
const ASKED_FOR: [&str; 4] = [
    "POST /v1/enroll HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "PUT /mdm/connect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n<plist/>\n",
    "GET /v1/providers/attestation HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /acme/nothing/directory HTTP/1.1\r\nHost: localhost\r\n\r\n",
];

pub async fn run(report: &mut Report) {
    let world = World::start(WorldOptions::default())
        .await
        .expect("a world");
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(&world, home.path());
    server.ready().await;
    let fleet = Fleet::enroll(&world, &server.base_url, 8, IdentityKind::Scep).await;
    let device_id = server.device_id(fleet.first_serial()).await;
    server.settle().await;
    let posture = format!(
        "GET /internal/v1/devices/{device_id}/posture HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        server.token
    );

    eprintln!("nobody floods …");
    let alone = waits(&server, &posture).await;
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let flooders: Vec<_> = (0..FLOODERS)
        .map(|number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let said = ASKED_FOR[usize::from(number) % ASKED_FOR.len()];
            let from = Ipv4Addr::new(127, 0, 3, u8::try_from(number).unwrap_or(0));
            tokio::spawn(flood(from, server.public, said, stop, answered))
        })
        .collect();
    eprintln!("{FLOODERS} flood …");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, before) = (Instant::now(), answered.load(Ordering::Relaxed));
    let flooded = waits(&server, &posture).await;
    let requests = answered.load(Ordering::Relaxed) - before;
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    let rate = requests as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for flooder in flooders {
        flooder.await.expect("floods");
    }
    eprintln!("{rate:.0} requests of strangers were answered a second");
    for (when, waits) in [("nobody floods", alone), ("strangers flood", flooded)] {
        report.figure(
            &format!("waiting for a posture, {when}, p50"),
            share(&waits, 50),
        );
        report.held(
            &format!("waiting for a posture, {when}, p99"),
            share(&waits, 99),
            1_000.0,
            "ms",
            GOAL / 1_000.0,
        );
    }
}

/// Asks over and over, as often as it is answered.
async fn flood(
    from: Ipv4Addr,
    server: SocketAddr,
    said: &'static str,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 16 << 10];
    while !stop.load(Ordering::Relaxed) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((from, 0))).expect("bound");
        let Ok(mut stream) = socket.connect(server).await else {
            continue;
        };
        while !stop.load(Ordering::Relaxed) && stream.write_all(said.as_bytes()).await.is_ok() {
            match stream.read(&mut buffer).await {
                Ok(1..) => answered.fetch_add(1, Ordering::Relaxed),
                _ => break,
            };
        }
    }
}

/// How long each answer took, in microseconds, the shortest first: one after the other on one connection.
async fn waits(server: &Server, posture: &str) -> Vec<f64> {
    let address = server.internal.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket option");
    let mut buffer = vec![0; 16 << 10];
    let mut waits = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let asked = Instant::now();
        stream.write_all(posture.as_bytes()).await.expect("sent");
        let read = stream.read(&mut buffer).await.expect("an answer");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200 "));
        waits.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    waits.sort_by(f64::total_cmp);
    waits
}

fn share(waits: &[f64], percent: usize) -> f64 {
    waits[(waits.len() - 1) * percent / 100]
}
