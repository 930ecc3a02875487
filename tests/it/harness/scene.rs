//! A server as an operator sets it up, and the simulated world around it.
//!
//! The service runs in this process on real sockets and a clock that the test moves; it is set up
//! by the real commands. Everything else goes over the wire.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use attestd::app::App;
use attestd::config::Config;
use attestd::flows::Context;
use attestd::time::{Clock as _, ManualClock, SystemClock, Timestamp};
use attestd_sim::certs::Issuer;
use attestd_sim::keys::{self, KeyKind};
use attestd_sim::{Authorities, Clock, Mac, MacSpec, World, WorldOptions};
use openssl::pkey::{PKey, Private};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::internal_api::InternalApi;

/// Which database the server stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    PostgreSql,
}

/// How the public listener is reached, beyond what every scene has.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublicSide<'a> {
    /// Further lines for the table `[public]`.
    pub lines: &'a str,
    /// TLS in the server itself, under a root that all Macs of the world trust.
    pub tls: bool,
}

/// A running server in its world.
#[derive(Debug)]
pub struct Scene {
    pub world: World,
    pub base_url: String,
    pub api: InternalApi,
    pub home: TempDir,
    /// The root of the server's TLS, PEM.
    pub tls_root: Option<Vec<u8>>,
    clock: Arc<ManualClock>,
    world_clock: Clock,
    config: PathBuf,
    server: Option<Running>,
}

#[derive(Debug)]
struct Running {
    ctx: Arc<Context>,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

/// The certificate authorities of every world in this process: made once, because keys cost.
fn authorities() -> Authorities {
    static AUTHORITIES: OnceLock<Authorities> = OnceLock::new();
    AUTHORITIES
        .get_or_init(|| {
            let topic = "com.apple.mgmt.External.0f0e0d0c-0b0a-4908-8706-050403020100";
            Authorities::new(Some(topic), SystemClock.now().millis()).expect("authorities")
        })
        .clone()
}

/// Keys for the first Macs of each world: made once, because worlds never meet.
fn macs_keys() -> &'static [PKey<Private>] {
    static KEYS: OnceLock<Vec<PKey<Private>>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let make = |_| keys::generate(KeyKind::Rsa2048).expect("a key");
        (0..8).map(make).collect()
    })
}

impl Scene {
    /// A server with a push certificate, a coordinator's token and no Macs.
    pub async fn new(backend: Backend) -> Self {
        Self::configured(backend, "").await
    }

    /// As [`Scene::new`], with further lines of configuration: whole tables such as
    /// `[verification]`.
    pub async fn configured(backend: Backend, tables: &str) -> Self {
        Self::prepared(backend, tables, true, PublicSide::default(), None).await
    }

    /// As [`Scene::configured`], where so many pushes leave within a second.
    pub async fn with_push_rate(backend: Backend, tables: &str, per_second: u32) -> Self {
        let mut scene = Self::configured(backend, tables).await;
        scene.stop().await;
        let body = std::fs::read_to_string(&scene.config).expect("a configuration");
        let line = format!("[apns]\npushes_per_second = {per_second}\n");
        std::fs::write(&scene.config, body.replace("[apns]\n", &line)).expect("a configuration");
        scene.start().await;
        scene
    }

    /// The internal listener has these further settings from now on.
    pub async fn reached_inside(&mut self, lines: &str) {
        self.stop().await;
        let body = std::fs::read_to_string(&self.config).expect("a configuration");
        let listen = "[internal]\nlisten = \"127.0.0.1:0\"\n";
        let body = body.replace(listen, &format!("{listen}{lines}"));
        std::fs::write(&self.config, body).expect("a configuration");
        self.start().await;
    }

    /// Another node on the same database, which serves nobody and does only what it is told to.
    pub async fn second_node(&self) -> Arc<Context> {
        let mut config = Config::load(&self.config, true).expect("a configuration");
        config.public.listen.set_port(0);
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let app = App::start_at(&config, clock).await.expect("starts");
        let ctx = app.context();
        attestd::flows::rotate_push_certificate::take_into_use(&ctx, 0)
            .await
            .expect("a push certificate");
        ctx
    }

    /// As [`Scene::new`], reached in another way.
    pub async fn reached(backend: Backend, public: PublicSide<'_>) -> Self {
        Self::prepared(backend, "", true, public, None).await
    }

    /// As [`Scene::new`], reached through a proxy on this port, which ends TLS with the certificate in
    /// the server's folder.
    pub async fn behind(backend: Backend, proxy: u16, lines: &str) -> Self {
        let public = PublicSide { lines, tls: false };
        Self::prepared(backend, "", true, public, Some(proxy)).await
    }

    /// As [`Scene::new`] before the operator has installed a push certificate.
    pub async fn without_push_certificate(backend: Backend) -> Self {
        Self::prepared(backend, "", false, PublicSide::default(), None).await
    }

    async fn prepared(
        backend: Backend,
        tables: &str,
        push_certificate: bool,
        public: PublicSide<'_>,
        proxy: Option<u16>,
    ) -> Self {
        let now = SystemClock.now();
        let world_clock = Clock::fixed(now.millis());
        let options = WorldOptions {
            authorities: Some(authorities()),
            clock: world_clock.clone(),
            ..WorldOptions::default()
        };
        let world = World::start(options).await.expect("a world");
        for key in macs_keys() {
            world.keys().add(key.clone());
        }
        let home = tempfile::tempdir().expect("a temporary folder");
        let files = world.write_files(home.path()).expect("the world's files");

        let port = free_port();
        let base_url = match proxy {
            Some(front) => format!("https://localhost:{front}"),
            None if public.tls => format!("https://localhost:{port}"),
            None => format!("http://127.0.0.1:{port}"),
        };
        let folder = home.path().join("server");
        let ground = Ground::of(backend, push_certificate.then_some(&files)).await;
        let database = ground.lay_out(&folder).await;
        let tls_root = (public.tls || proxy.is_some()).then(|| serve_tls(&folder, now.millis()));
        if let Some(root) = &tls_root {
            world.trust(root);
        }
        let tls_lines = if public.tls {
            "tls_certificate = \"tls.pem\"\ntls_key = \"tls.key\"\n"
        } else {
            ""
        };
        let database_table = match &database {
            None => String::new(),
            Some(url) => format!("[database]\nurl = \"{url}\"\n"),
        };
        let patience = if tables.contains("[verification]") {
            ""
        } else {
            "[verification]\npatience = \"10m\"\n"
        };
        let (tables, attestation) = match tables.split_once("[attestation]\n") {
            None => (tables.to_owned(), "hold = \"0s\"\n"),
            Some((before, rest)) => {
                let (own, after) = rest.split_at(rest.find("\n[").map_or(rest.len(), |at| at + 1));
                (format!("{before}{after}"), own)
            }
        };
        // Most stories are told with identities in software, as the Macs of all servers know them.
        let tables = match tables.split_once("[enrollment]\n") {
            None => format!("{tables}[enrollment]\nidentity = \"scep\"\n"),
            Some((_, own)) if own.contains("identity = ") => tables,
            Some((before, own)) => {
                format!("{before}[enrollment]\nidentity = \"scep\"\n{own}")
            }
        };
        let config = folder.join("scene.toml");
        let body = format!(
            "base_url = \"{base_url}\"\n\
             [public]\nlisten = \"127.0.0.1:{port}\"\nenroll_per_minute = 100000\n\
             scep_per_minute = 100000\nacme_per_minute = 100000\n{tls_lines}{}\n\
             [internal]\nlisten = \"127.0.0.1:0\"\n\
             [apns]\nurl = \"{}\"\nroot = \"{}\"\n\
             [attestation]\n{attestation}root = \"{}\"\n\
             {database_table}{patience}{tables}",
            public.lines,
            world.apns().url(),
            files.apns_root.display(),
            files.attestation_root.display(),
        );
        std::fs::write(&config, body).expect("a configuration");

        let mut scene = Self {
            world,
            base_url,
            api: InternalApi::nowhere(),
            home,
            tls_root,
            clock: Arc::new(ManualClock::at(now)),
            world_clock,
            config,
            server: None,
        };
        scene.start().await;
        scene.api.token.clone_from(&ground.token);
        scene
    }

    /// A new token of a role, as an operator makes one.
    pub fn token(&self, role: &str) -> String {
        new_token(&self.config, role)
    }

    /// Starts the server (again).
    pub async fn start(&mut self) {
        let config = Config::load(&self.config, true).expect("a configuration");
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let app = App::start_at(&config, clock)
            .await
            .expect("the server starts");
        let (_, internal) = app.addresses().expect("addresses");
        let scheme = match config.internal.tls_certificate {
            Some(_) => "https",
            None => "http",
        };
        self.api.url = format!("{scheme}://{internal}");
        let ctx = app.context();
        let stop = CancellationToken::new();
        let done = tokio::spawn(app.serve(stop.clone()));
        self.server = Some(Running { ctx, stop, done });
    }

    /// Stops the server as SIGTERM does.
    pub async fn stop(&mut self) {
        if let Some(Running { ctx, stop, done }) = self.server.take() {
            // Or the store would outlive the server, and with it the lock on a SQLite file.
            drop(ctx);
            stop.cancel();
            done.await.expect("the server stops");
        }
    }

    /// What the running server's flows work with: to run one that is due, and to look into the store.
    pub fn ctx(&self) -> &Arc<Context> {
        &self.server.as_ref().expect("the server runs").ctx
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The server is started by another configuration from now on.
    pub fn moves_to(&mut self, config: PathBuf) {
        self.config = config;
    }

    /// Now, for the server and for the world.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves time for the server and for the world.
    pub fn pass(&self, span: Duration) {
        self.clock.advance(span);
        self.world_clock
            .advance(i64::try_from(span.as_millis()).expect("a span of this century"));
    }

    /// Somebody sets the server's clock, and no time passes.
    pub fn set_clock(&self, to: Timestamp) {
        self.clock.jump(to);
    }

    /// A Mac that is not enrolled.
    pub fn mac(&self, spec: MacSpec) -> Mac {
        let mut spec = spec;
        spec.allow_http_loopback = true;
        Mac::new(spec, &self.world)
    }

    /// An honest Mac that is not enrolled.
    pub fn honest_mac(&self) -> Mac {
        self.mac(MacSpec::random().expect("a Mac"))
    }

    /// A Mac that enrols and then lives: it answers pushes. The life ends when it is dropped.
    pub async fn living_mac(&self, spec: MacSpec) -> (Mac, attestd_sim::Life) {
        let mac = self.mac(spec);
        mac.enroll(&self.base_url).await.expect("enrols");
        let life = mac.live();
        (mac, life)
    }

    /// The port of the public listener, whatever stands in front of it.
    pub fn public_port(&self) -> u16 {
        let config = Config::load(&self.config, true).expect("a configuration");
        config.public.listen.port()
    }

    /// A URL of the public listener.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
}

/// A new token of a role, as an operator makes one.
pub fn new_token(config: &Path, role: &str) -> String {
    let create = [
        "token",
        "create",
        "--insecure-http",
        "--config",
        text(config),
    ];
    let made = attestd(&[&create[..], &["--role", role, "--label", "test", "--json"]].concat());
    assert!(made.status.success(), "{made:?}");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    made["token"].as_str().expect("a token").to_owned()
}

/// Puts a TLS certificate for `localhost` into a server's folder, and its root, which it gives back.
fn serve_tls(folder: &Path, now_ms: i64) -> Vec<u8> {
    let issuer = Issuer::root("TLS root", "Simulated", KeyKind::P256, now_ms).expect("a root");
    let server = issuer.loopback_server(now_ms).expect("a certificate");
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.join(name), bytes);
    write("tls.pem", server.certificate_pem().expect("PEM")).expect("written");
    write("tls.key", server.key_pem().expect("PEM")).expect("written");
    let root = issuer.certificate_pem().expect("PEM");
    write("root.pem", root.clone()).expect("written");
    root
}

/// Runs the real command.
pub fn attestd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attestd"))
        .args(arguments)
        .output()
        .expect("attestd runs")
}

/// A port below those the system gives to connections, so that none of them takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    (0..20_000)
        .map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .filter_map(|offset| u16::try_from(10_000 + offset).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
