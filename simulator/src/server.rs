//! The server that is shown or stormed: initialised, configured for the simulated world, started.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use attestd_sim::certs::Issuer;
use attestd_sim::coordinator::Api;
use attestd_sim::keys::KeyKind;
use attestd_sim::{Identity, World, WorldFiles, WorldOptions};
use serde_json::Value;
use tokio::process::{Child, Command};

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Mutex<Child>,
    pub(crate) attestd: PathBuf,
    config: String,
    /// As a coordinator.
    pub(crate) api: Api,
    pub(crate) base_url: String,
    pub(crate) internal_url: String,
    /// The root of its TLS, PEM.
    pub(crate) tls_root: Vec<u8>,
}

/// Longest time from start to the first answer.
const START: Duration = Duration::from_secs(30);

impl Server {
    /// Starts Apple's doubles and a server for them, in this folder; with this database, or an embedded one.
    pub(crate) async fn with_world(
        attestd: &Path,
        folder: &Path,
        database_url: Option<&str>,
    ) -> Result<(World, Self)> {
        let world_folder = folder.join("world");
        let options = WorldOptions {
            folder: Some(world_folder.clone()),
            ..WorldOptions::default()
        };
        let world = World::start(options)
            .await
            .context("starting Apple's doubles")?;
        let files = world
            .write_files(&world_folder)
            .context("writing the world's files")?;
        let now_ms = world.clock().now_ms();
        let root = Issuer::root("SIMULATED TLS root", "Simulated", KeyKind::P256, now_ms)?;
        let tls = root.loopback_server(now_ms)?;
        let tls_root = root.certificate_pem()?;
        world.trust(&tls_root);
        let database =
            database_url.map_or(String::new(), |url| format!("[database]\nurl = {url:?}\n"));
        let place = (folder, database.as_str());
        let server = Self::start(attestd, place, &world, &files, &tls_root, &tls).await?;
        Ok((world, server))
    }

    async fn start(
        attestd: &Path,
        (folder, database): (&Path, &str),
        world: &World,
        files: &WorldFiles,
        tls_root: &[u8],
        tls: &Identity,
    ) -> Result<Self> {
        let (public, internal) = (free_port()?, free_port()?);
        let base_url = format!("https://localhost:{public}");
        let internal_url = format!("http://127.0.0.1:{internal}");
        let home = folder.join("server");
        run(
            attestd,
            &["init", text(&home)?, "--base-url", &base_url, "--json"],
        )
        .await?;

        std::fs::write(home.join("tls.pem"), tls.certificate_pem()?)?;
        std::fs::write(home.join("tls.key"), tls.key_pem()?)?;
        std::fs::write(home.join("tls-root.pem"), tls_root)?;
        let config = home.join("server.toml");
        let quoted = |path: &Path| Ok::<_, anyhow::Error>(format!("{:?}", text(path)?));
        std::fs::write(
            &config,
            format!(
                "base_url = {base_url:?}\n\
                 [public]\n\
                 listen = \"127.0.0.1:{public}\"\n\
                 tls_certificate = \"tls.pem\"\n\
                 tls_key = \"tls.key\"\n\
                 tls_root = \"tls-root.pem\"\n\
                 # All Macs come from one address.\n\
                 enroll_per_minute = 10000\n\
                 scep_per_minute = 10000\n\
                 acme_per_minute = 100000\n\
                 [internal]\n\
                 listen = \"127.0.0.1:{internal}\"\n\
                 [enrollment]\n\
                 organization = \"Simulated fleet\"\n\
                 [apns]\n\
                 url = {:?}\n\
                 root = {}\n\
                 [attestation]\n\
                 # Every Mac asks by its provider's key: nothing to wait for.\n\
                 hold = \"0s\"\n\
                 root = {}\n\
                 {database}\
                 [log]\n\
                 level = \"info\"\n",
                world.apns().url(),
                quoted(&std::path::absolute(&files.apns_root)?)?,
                quoted(&std::path::absolute(&files.attestation_root)?)?,
            ),
        )
        .context("writing the configuration")?;
        let config = text(&config)?;
        let (certificate, key) = (text(&files.push_certificate)?, text(&files.push_key)?);
        let install = ["push-cert", "install", "--config", config];
        run(
            attestd,
            &[&install[..], &["--certificate", certificate, "--key", key]].concat(),
        )
        .await?;
        let token = coordinator_token(attestd, config).await?;

        // The program that all providers run.
        let program = "a1".repeat(32);
        let add = ["release", "add", "--config", config, "--version", "0.8.16"];
        run(
            attestd,
            &[&add[..], &["--binary-hash", &program, "--json"]].concat(),
        )
        .await?;

        let log = std::fs::File::create(home.join("log.txt"))?;
        let child = Command::new(attestd)
            .args(["serve", "--config", config])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", attestd.display()))?;
        let server = Self {
            child: Mutex::new(child),
            attestd: attestd.to_owned(),
            config: config.to_owned(),
            api: Api::new(&internal_url, &token),
            base_url,
            internal_url,
            tls_root: tls_root.to_vec(),
        };
        server.ready(&home.join("log.txt")).await?;
        Ok(server)
    }

    async fn ready(&self, log: &Path) -> Result<()> {
        let until = std::time::Instant::now() + START;
        while std::time::Instant::now() < until && self.is_running() {
            let answer = reqwest::get(format!("{}/readyz", self.internal_url)).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "the server did not start:\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        )
    }

    /// The internal API as one more coordinator.
    pub(crate) async fn another(&self) -> Result<Api> {
        let token = coordinator_token(&self.attestd, &self.config).await?;
        Ok(Api::new(&self.internal_url, &token))
    }

    pub(crate) fn is_running(&self) -> bool {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    /// The posture of the Mac with this serial number, once there is such a Mac.
    pub(crate) async fn posture(&self, serial: &str) -> Result<Option<Value>> {
        let path = format!("/internal/v1/devices?serial_number={serial}");
        let found = self.api.get(&path).await?;
        let Some(device_id) = found["devices"][0]["device_id"].as_str() else {
            return Ok(None);
        };
        let path = format!("/internal/v1/devices/{device_id}/posture");
        Ok(Some(self.api.get(&path).await?))
    }

    /// How a person asks the same.
    pub(crate) fn curl_lines(&self, serial: &str) -> Vec<String> {
        let (url, token) = (&self.internal_url, self.api.token());
        vec![
            format!("TOKEN={token}"),
            format!(
                "DEVICE=$(curl -s -H \"Authorization: Bearer $TOKEN\" \
                 '{url}/internal/v1/devices?serial_number={serial}' \
                 | grep -o 'dev_[0-9A-Z]*' | head -n 1)"
            ),
            format!(
                "curl -s -H \"Authorization: Bearer $TOKEN\" \
                 {url}/internal/v1/devices/$DEVICE/posture"
            ),
        ]
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(&self) -> Result<()> {
        let pid = {
            let child = self
                .child
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            child.id()
        };
        let Some(pid) = pid else { return Ok(()) };
        // A polite end: requests in flight are answered, and what is soft is written.
        Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .await?;
        for _ in 0..600 {
            if !self.is_running() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the server did not stop")
    }
}

async fn coordinator_token(attestd: &Path, config: &str) -> Result<String> {
    let create = ["token", "create", "--config", config];
    let create = [
        &create[..],
        &["--role", "coordinator", "--label", "simulator", "--json"],
    ];
    let token = run(attestd, &create.concat()).await?;
    let token: Value = serde_json::from_slice(&token).context("reading the token")?;
    let token = token["token"].as_str().context("reading the token")?;
    Ok(token.to_owned())
}

async fn run(attestd: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(attestd)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("running {}", attestd.display()))?;
    if !output.status.success() {
        bail!(
            "{} {}: {}",
            attestd.display(),
            arguments.first().unwrap_or(&""),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// A port nobody listens on now.
fn free_port() -> Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    Ok(socket.local_addr()?.port())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no UTF-8 path", PathBuf::from(path).display()))
}
