//! Fresh databases of both kinds.
//!
//! SQLite databases are files in a temporary folder. The PostgreSQL cluster is our own: made once
//! per run in a temporary folder, reached over a socket in it, run by an unprivileged user, and
//! ended by a watching shell as soon as this process is gone, however it went.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use attestd::secret::{Sealer, Unsealable};
use attestd::store::Store;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use tempfile::TempDir;

/// A migrated, empty database and the address of it.
#[derive(Debug)]
pub struct Database {
    pub url: String,
    pub store: Store,
    folder: Option<TempDir>,
}

impl Database {
    /// A new SQLite file.
    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("attestd.db").display());
        let store = Store::open_exclusive(&url, sealer()).await.expect("opens");
        store.migrate().await.expect("migrates");
        Self {
            url,
            store,
            folder: Some(folder),
        }
    }

    /// A new database in the cluster of this run.
    pub async fn postgresql() -> Self {
        let url = copy_of(MIGRATED).await;
        let store = Store::open_exclusive(&url, sealer()).await.expect("opens");
        Self {
            url,
            store,
            folder: None,
        }
    }

    /// A database without a schema, of the same kind.
    pub async fn empty_sibling(&self) -> Self {
        let (url, folder) = match &self.folder {
            Some(_) => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let url = format!("sqlite://{}", folder.path().join("empty.db").display());
                (url, Some(folder))
            }
            None => {
                let cluster = Cluster::of_this_run();
                let name = format!("{}_empty", self.url_name());
                cluster.execute(&format!("CREATE DATABASE {name}")).await;
                (cluster.url(&name), None)
            }
        };
        let store = Store::open_exclusive(&url, sealer()).await.expect("opens");
        Self { url, store, folder }
    }

    /// A second store on the same database: on PostgreSQL another node, on SQLite a command line
    /// beside the server.
    pub async fn beside(&self) -> Store {
        Store::open(&self.url, sealer()).await.expect("opens")
    }

    /// A plain connection, to look behind the store's back.
    pub async fn plain(&self) -> DatabaseConnection {
        sea_orm::Database::connect(&self.url)
            .await
            .expect("connects")
    }

    /// The folder of a SQLite database.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    /// Closes the store and keeps the folder.
    pub fn keep_folder(self) -> Option<TempDir> {
        self.folder
    }

    fn url_name(&self) -> &str {
        let end = self.url.rsplit('/').find(|part| part.starts_with("test_"));
        end.and_then(|part| part.split('?').next())
            .expect("a database of this harness")
    }
}

/// The database every other one is a copy of: all migrations, nothing else.
pub const MIGRATED: &str = "migrated";

/// A new copy of a PostgreSQL database that nobody is connected to; its address.
pub async fn copy_of(template: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::SeqCst));
    copied(&name, template).await
}

/// As [`copy_of`], under a name.
pub async fn copied(name: &str, template: &str) -> String {
    let cluster = Cluster::of_this_run();
    cluster
        .execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
        .await;
    cluster.url(name)
}

/// A new PostgreSQL database with nothing in it; its address.
pub async fn empty() -> String {
    copy_of("template0").await
}

/// A sealer for tests: it hides the plain text from a look at the file and knows its context, and
/// is no encryption.
pub fn sealer() -> Arc<dyn Sealer> {
    Arc::new(Scrambler)
}

#[derive(Debug)]
struct Scrambler;

impl Sealer for Scrambler {
    fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let mut sealed = attestd::ids::sha256(context.as_bytes()).to_vec();
        sealed.extend(plain.iter().map(|byte| byte ^ 0xa5));
        sealed
    }

    fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (place, rest) = sealed.split_at_checked(32).ok_or(Unsealable)?;
        if place != attestd::ids::sha256(context.as_bytes()) {
            return Err(Unsealable);
        }
        Ok(rest.iter().map(|byte| byte ^ 0xa5).collect())
    }
}

/// A PostgreSQL cluster.
#[derive(Debug)]
struct Cluster {
    folder: PathBuf,
    /// Ends the cluster when its standard input closes: when this process ends.
    _watch: Child,
}

impl Cluster {
    fn of_this_run() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let start = thread::spawn(Self::start);
            start.join().expect("a PostgreSQL cluster")
        })
    }

    fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new()
            .prefix("attestd-postgresql-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let root = is_root();
        if root {
            run(Command::new("chown").arg("postgres:").arg(&folder));
        }
        let data = folder.join("data");
        run(as_the_database_user(programs.join("initdb"), root)
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=postgres", "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"]));

        let log = fs::File::create(folder.join("log")).expect("a log file");
        let watch = Command::new("sh")
            .arg("-c")
            .arg(
                "folder=$1; shift; \"$@\" & server=$!; read -r _; \
                 kill -QUIT $server; wait $server; rm -rf \"$folder\"",
            )
            .arg("watch")
            .arg(&folder)
            .args(database_user(root))
            .arg(programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&folder)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            // It would look into hundreds of databases in turn, none of which lives for long.
            .args(["-c", "autovacuum=off", "-c", "full_page_writes=off"])
            .args(["-c", "max_connections=600", "-c", "shared_buffers=64MB"])
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            // Ctrl-C is for the tests; the watch sees that they end.
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let cluster = Self {
            folder,
            _watch: watch,
        };
        cluster.wait_until_ready(&programs);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(cluster.make_template());
        cluster
    }

    fn wait_until_ready(&self, programs: &Path) {
        let answers = || {
            let status = Command::new(programs.join("pg_isready"))
                .arg("-q")
                .arg("-h")
                .arg(&self.folder)
                .args(["-U", "postgres"])
                .status();
            status.is_ok_and(|status| status.success())
        };
        let ready = (0..300).any(|attempt| {
            if attempt > 0 {
                thread::sleep(Duration::from_millis(100));
            }
            answers()
        });
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(ready, "PostgreSQL does not start:\n{log}");
    }

    async fn make_template(&self) {
        self.execute(&format!("CREATE DATABASE {MIGRATED}")).await;
        let store = Store::open(&self.url(MIGRATED), sealer())
            .await
            .expect("opens");
        store.migrate().await.expect("migrates");
    }

    async fn execute(&self, sql: &str) {
        let connection = sea_orm::Database::connect(self.url("postgres"))
            .await
            .expect("the cluster answers");
        connection.execute_unprepared(sql).await.expect(sql);
        connection.close().await.expect("closes");
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost/{database}?host={}",
            self.folder.display()
        )
    }
}

/// Where Debian puts the newest server programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            programs
                .join("initdb")
                .exists()
                .then_some((version, programs))
        })
        .max()
        .map(|(_, programs)| programs)
        .expect("PostgreSQL's server programs are missing: apt-get install postgresql")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    id.stdout.trim_ascii() == b"0"
}

/// PostgreSQL refuses to run as root.
fn database_user(root: bool) -> &'static [&'static str] {
    if root {
        &[
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]
    } else {
        &["env"]
    }
}

fn as_the_database_user(program: PathBuf, root: bool) -> Command {
    let (first, rest) = database_user(root).split_first().expect("not empty");
    let mut command = Command::new(first);
    command.args(rest).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("runs");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
