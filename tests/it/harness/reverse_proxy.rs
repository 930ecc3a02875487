//! A reverse proxy of Debian, with the file that ships in `deploy/`: only addresses and paths are replaced.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// User and group `nobody` on Debian: whoever a fault of the proxy would give away.
const NOBODY: u32 = 65_534;

/// Which one.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Caddy,
    Nginx,
}

/// What one stands in front of.
#[derive(Debug)]
pub struct Front<'a> {
    /// Where it is reached.
    pub port: u16,
    /// The port of attestd's public listener.
    pub behind: u16,
    /// attestd's folder: TLS certificate and key of the host, and the device authority.
    pub server: &'a Path,
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct ReverseProxy {
    child: Child,
    home: TempDir,
}

impl ReverseProxy {
    /// Starts it as an unprivileged user, and waits until it takes connections.
    ///
    /// # Panics
    /// When it ends instead; with what it said.
    pub fn start(kind: Kind, front: &Front<'_>) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let file = |name: &str| home.path().join(name);
        for (from, name) in [
            ("tls.pem", "tls.pem"),
            ("tls.key", "tls.key"),
            ("keys/device-ca.pem", "device-ca.pem"),
        ] {
            fs::copy(front.server.join(from), file(name)).expect("a copy");
        }
        let mut command = match kind {
            Kind::Caddy => caddy(front, home.path()),
            Kind::Nginx => nginx(front, home.path()),
        };
        belongs_to_anybody(home.path());
        // Who runs tests as root has not to trust a proxy with it.
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let log = fs::File::create(file("log")).expect("a file");
        let child = command
            .current_dir(home.path())
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the proxy is installed: ./dev test installs it");
        let mut proxy = Self { child, home };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", front.port)).is_err() {
            let ended = proxy.child.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < until,
                "{kind:?} does not serve: {}",
                proxy.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        // nginx' workers end with their master when it is asked, not when it is killed.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    let own = fs::metadata("/proc/self").expect("Linux");
    std::os::unix::fs::MetadataExt::uid(&own) == 0
}

/// Only what the test laid out: copies of keys that are nobody's.
fn belongs_to_anybody(folder: &Path) {
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(folder, 0o777);
    for entry in fs::read_dir(folder).expect("a folder") {
        open(&entry.expect("an entry").path(), 0o666);
    }
}

/// The file that ships, with each of these replaced.
fn shipped(name: &str, changes: &[(&str, String)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name);
    let mut text = fs::read_to_string(path).expect("it ships");
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).expect("written");
    path
}

fn caddy(front: &Front<'_>, home: &Path) -> Command {
    let own = home.display();
    let text = shipped(
        "caddy/Caddyfile",
        &[
            // The port of its administration is one for all, and port 80 is not for nobody.
            (
                "\n{\n",
                "\n{\n\tadmin off\n\tauto_https disable_redirects\n".to_owned(),
            ),
            (
                "\nmdm.example.org {",
                format!("\nlocalhost:{} {{", front.port),
            ),
            (
                "\ttls {\n",
                format!("\ttls {own}/tls.pem {own}/tls.key {{\n"),
            ),
            (
                "/etc/caddy/attestd-device-ca.pem",
                format!("{own}/device-ca.pem"),
            ),
            ("127.0.0.1:8443 {", format!("127.0.0.1:{} {{", front.behind)),
        ],
    );
    let config = write(home.join("Caddyfile"), &text);
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(config);
    command
}

fn nginx(front: &Front<'_>, home: &Path) -> Command {
    let own = home.display();
    let text = shipped(
        "nginx/attestd.conf",
        &[
            ("    listen [::]:443 ssl http2;\n", String::new()),
            ("    listen [::]:80;\n", String::new()),
            ("listen 443 ", format!("listen 127.0.0.1:{} ", front.port)),
            ("listen 80;", format!("listen unix:{own}/redirect;")),
            (
                "server_name mdm.example.org;",
                "server_name localhost;".to_owned(),
            ),
            ("/etc/ssl/attestd/fullchain.pem", format!("{own}/tls.pem")),
            ("/etc/ssl/attestd/privkey.pem", format!("{own}/tls.key")),
            (
                "/etc/nginx/attestd-device-ca.pem",
                format!("{own}/device-ca.pem"),
            ),
            ("127.0.0.1:8443;", format!("127.0.0.1:{};", front.behind)),
        ],
    );
    write(home.join("attestd.conf"), &text);
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {own}/{what};\n"))
        .collect();
    let around = format!(
        "daemon off;\npid {own}/pid;\nerror_log stderr notice;\nworker_processes 1;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n{temporary}  include {own}/attestd.conf;\n}}\n"
    );
    let config = write(home.join("nginx.conf"), &around);
    // Debian has it where only root's path leads.
    let mut command = Command::new("/usr/sbin/nginx");
    command
        .arg("-p")
        .arg(home)
        .args(["-e", "stderr", "-c"])
        .arg(config);
    command
}
