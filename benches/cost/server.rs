//! Requests to a real server process on SQLite: CPU of the server per request.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use attestd_sim::mac::IdentityKind;
use attestd_sim::{World, WorldOptions};
use serde_json::{Value, json};

use super::fleet::{Fleet, Prepared};
use super::primitives::Yardstick;
use super::report::Report;

/// Connections that send at the same time.
const AT_ONCE: usize = 64;
const IDLES: usize = 20_000;
/// Macs with attested identities.
const ATTESTED: usize = 64;
const ROUNDS: usize = 3;

pub async fn run(report: &mut Report, Yardstick(r): Yardstick, macs: usize) {
    let world = World::start(WorldOptions::default())
        .await
        .expect("a world");
    let home = tempfile::tempdir().expect("a folder");
    let server = Server::start(&world, home.path());
    server.ready().await;
    eprintln!("enrolling {macs} Macs …");
    let fleet = Fleet::enroll(&world, &server.base_url, macs, IdentityKind::Scep).await;

    // Enrolment owes every Mac both questions: answer them, so that nothing is owed.
    eprintln!("first round …");
    server.settle().await;
    let commands = fleet.send(server.public, &fleet.idles(), AT_ONCE).await;
    let answers = fleet.answers(&world, &commands);
    let (cost, commands) = server
        .cost(fleet.send(server.public, &answers, AT_ONCE))
        .await;
    let handed_over = per(cost, macs);
    let answers = fleet.answers(&world, &commands);
    let (cost, _) = server
        .cost(fleet.send(server.public, &answers, AT_ONCE))
        .await;
    let attestation = per(cost, macs);

    eprintln!("Idle …");
    let idles: Vec<Prepared> = fleet.idles().into_iter().cycle().take(IDLES).collect();
    fleet.send(server.public, &fleet.idles(), AT_ONCE).await;
    let (cost, replies) = server
        .cost(fleet.send(server.public, &idles, AT_ONCE))
        .await;
    assert!(replies.iter().all(Vec::is_empty), "nothing is owed");
    let idle = per(cost, IDLES);

    eprintln!("Idle, attested identities …");
    let attested = Fleet::enroll(&world, &server.base_url, ATTESTED, IdentityKind::Acme).await;
    server.settle().await;
    // What enrolment owes is handed over once, and waits for an answer from then on.
    attested
        .send(server.public, &attested.idles(), ATTESTED)
        .await;
    let idles: Vec<Prepared> = attested.idles().into_iter().cycle().take(IDLES).collect();
    let (cost, replies) = server
        .cost(attested.send(server.public, &idles, AT_ONCE))
        .await;
    let owed = replies.iter().filter(|reply| !reply.is_empty()).count();
    eprintln!("{owed} of {IDLES} were given a command");
    let attested_idle = per(cost, IDLES);

    eprintln!("SecurityInfo …");
    let mut answered = Vec::new();
    for _ in 0..ROUNDS {
        server.ask_all(&fleet, &["security_info"]).await;
        server.settle().await;
        let commands = fleet.send(server.public, &fleet.idles(), AT_ONCE).await;
        let answers = fleet.answers(&world, &commands);
        let (cost, replies) = server
            .cost(fleet.send(server.public, &answers, AT_ONCE))
            .await;
        assert!(replies.iter().all(Vec::is_empty), "nothing is owed");
        answered.push(per(cost, macs));
    }
    answered.sort_by(f64::total_cmp);

    report.held(
        "connect, Idle, signed, keep-alive, SQLite",
        idle,
        r,
        "R",
        4.8,
    );
    report.held(
        "Acknowledged SecurityInfo, stored, judged, published, durable, SQLite",
        answered[ROUNDS / 2],
        r,
        "R",
        17.0,
    );
    report.figure(
        "connect, Idle, signed by an attested P-384 key, a command waiting, SQLite",
        attested_idle,
    );
    report.figure("the same, and the attestation handed over", handed_over);
    report.figure(
        "Acknowledged attestation, verified, judged, durable, SQLite",
        attestation,
    );
    super::routing::run(report, &server, &fleet).await;
    report.figure("resident memory, kB", server.resident_kilobytes());
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
pub fn per(cost: Duration, count: usize) -> f64 {
    cost.as_secs_f64() * 1e6 / count as f64
}

pub struct Server {
    child: Child,
    pub base_url: String,
    pub internal: String,
    pub public: SocketAddr,
    pub token: String,
    client: reqwest::Client,
}

impl Server {
    pub fn start(world: &World, home: &Path) -> Self {
        let (public, internal) = (free_port(), free_port());
        let base_url = format!("http://127.0.0.1:{public}");
        let folder = home.join("server");
        let files = world.write_files(home).expect("files");
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        attestd(&[
            "init",
            &path(&folder),
            "--base-url",
            &base_url,
            "--insecure-http",
        ]);
        let config = folder.join("bench.toml");
        let text = format!(
            "base_url = \"{base_url}\"\n\
             [public]\nlisten = \"127.0.0.1:{public}\"\n\
             enroll_per_minute = 1000000\nscep_per_minute = 1000000\nacme_per_minute = 1000000\n\
             [internal]\nlisten = \"127.0.0.1:{internal}\"\n\
             [apns]\npushes_per_second = 20000\nurl = \"{}\"\nroot = \"{}\"\n\
             [attestation]\nhold = \"0s\"\nroot = \"{}\"\n\
             [verification]\npatience = \"1h\"\npushes_per_hour = 60\nqueue = 1000000\n[log]\nlevel = \"warn\"\n",
            world.apns().url(),
            files.apns_root.display(),
            files.attestation_root.display(),
        );
        std::fs::write(&config, text).expect("a configuration");
        let config = path(&config);
        let certificate = path(&files.push_certificate);
        let key = path(&files.push_key);
        attestd(&[
            "push-cert",
            "install",
            "--insecure-http",
            "--config",
            &config,
            "--certificate",
            &certificate,
            "--key",
            &key,
        ]);
        let made = attestd(&[
            "token",
            "create",
            "--insecure-http",
            "--config",
            &config,
            "--role",
            "coordinator",
            "--label",
            "bench",
            "--json",
        ]);
        let made: Value = serde_json::from_slice(&made).expect("JSON");
        let child = Command::new(env!("CARGO_BIN_EXE_attestd"))
            .args(["serve", "--insecure-http", "--config", &config])
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self {
            child,
            base_url,
            internal: format!("http://127.0.0.1:{internal}"),
            public: SocketAddr::from((Ipv4Addr::LOCALHOST, public)),
            token: made["token"].as_str().expect("a token").to_owned(),
            client: reqwest::Client::new(),
        }
    }

    pub async fn ready(&self) {
        for _ in 0..600 {
            let answer = self
                .client
                .get(format!("{}/readyz", self.internal))
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not start");
    }

    /// How the service names a Mac.
    pub async fn device_id(&self, serial: &str) -> String {
        let url = format!(
            "{}/internal/v1/devices?serial_number={serial}",
            self.internal
        );
        let request = self.client.get(url).bearer_auth(&self.token);
        let found: Value = request
            .send()
            .await
            .expect("found")
            .json()
            .await
            .expect("JSON");
        let device_id = found["devices"][0]["device_id"].as_str();
        device_id.expect("a name").to_owned()
    }

    async fn ask_all(&self, fleet: &Fleet, kinds: &[&str]) {
        for serial in fleet.serials() {
            let body = json!({ "device_id": self.device_id(serial).await, "kinds": kinds });
            let url = format!("{}/internal/v1/verifications", self.internal);
            let asked = self
                .client
                .post(url)
                .bearer_auth(&self.token)
                .json(&body)
                .send()
                .await;
            assert_eq!(asked.expect("asked").status(), 202);
        }
    }

    /// The JSON of a successful PUT.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let request = self.client.put(format!("{}{path}", self.internal));
        let answer = request.bearer_auth(&self.token).json(body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    /// Waits until the server has nothing to do: pushes sent, queues empty.
    pub async fn settle(&self) {
        loop {
            let before = self.cpu();
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.cpu() - before < Duration::from_millis(10) {
                return;
            }
        }
    }

    /// What `work` costs the server, and what it gives.
    pub async fn cost<T>(&self, work: impl Future<Output = T>) -> (Duration, T) {
        let before = self.cpu();
        let result = work.await;
        (self.cpu() - before, result)
    }

    /// CPU time of every thread the server has.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("threads");
        let nanoseconds = tasks
            .filter_map(|task| {
                let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
                stat.split(' ').next()?.parse::<u64>().ok()
            })
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    fn resident_kilobytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("the server runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .and_then(|text| text.parse().ok())
            .expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn attestd(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_attestd"))
        .args(arguments)
        .output()
        .expect("attestd runs");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

pub fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.local_addr().expect("an address").port()
}
