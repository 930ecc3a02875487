//! A PostgreSQL cluster of its own: made in a temporary folder, reached over a socket in it, run by an
//! unprivileged user, and ended by a watching shell as soon as this process is gone, however it went.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// The one database in it.
const DATABASE: &str = "soak";

/// A running cluster with one empty database.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    /// Ends the cluster when its standard input closes: when this process ends.
    _watch: Child,
}

impl Cluster {
    /// Makes it. `fsync` is off: what outlives a power cut is proved by other tests.
    pub fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("attestd-soak-")
            .tempdir()?
            .keep();
        let root = is_root()?;
        if root {
            run(Command::new("chown").arg("postgres:").arg(&folder))?;
        }
        let data = folder.join("data");
        let (first, rest) = user(root);
        run(Command::new(first)
            .args(rest)
            .arg(programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"]))?;
        let log = fs::File::create(folder.join("log"))?;
        let watch = Command::new("sh")
            .arg("-c")
            .arg(
                "folder=$1; shift; \"$@\" & server=$!; read -r _; \
                 kill -QUIT $server; wait $server; rm -rf \"$folder\"",
            )
            .arg("watch")
            .arg(&folder)
            .arg(first)
            .args(rest)
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&folder)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=256MB"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("sh does not run")?;
        let cluster = Self {
            folder,
            _watch: watch,
        };
        cluster.make_database(&programs)?;
        Ok(cluster)
    }

    fn make_database(&self, programs: &Path) -> anyhow::Result<()> {
        for _ in 0..300 {
            let made = Command::new(programs.join("createdb"))
                .arg("-h")
                .arg(&self.folder)
                .args(["-U", "postgres", DATABASE])
                .output()?;
            if made.status.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        bail!("PostgreSQL does not start:\n{log}")
    }

    /// The address of its database.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/{DATABASE}?host={}",
            self.folder.display()
        )
    }
}

/// Where Debian puts the newest server programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let found = versions.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let programs = path.join("bin");
        programs
            .join("initdb")
            .exists()
            .then_some((version, programs))
    });
    let newest = found.max().map(|(_, programs)| programs);
    newest.context("PostgreSQL's server programs are missing: apt-get install postgresql")
}

fn is_root() -> anyhow::Result<bool> {
    Ok(Command::new("id").arg("-u").output()?.stdout.trim_ascii() == b"0")
}

/// PostgreSQL refuses to run as root.
fn user(root: bool) -> (&'static str, &'static [&'static str]) {
    if root {
        let postgres: &[&str] = &["--reuid=postgres", "--regid=postgres", "--clear-groups"];
        ("setpriv", postgres)
    } else {
        ("env", &[])
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}
