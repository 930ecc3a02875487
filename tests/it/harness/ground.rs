//! What servers stand on: set up by the real commands, once per process and kind, and copied from
//! then on. Keys cost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attestd_sim::WorldFiles;
use sea_orm::ConnectionTrait as _;
use tokio::sync::OnceCell;

use super::database::{self, MIGRATED};
use super::scene::{Backend, attestd, new_token, text};

/// The folder and the database of a server that never ran.
#[derive(Debug)]
pub struct Ground {
    files: Vec<Kept>,
    /// The name of a PostgreSQL database.
    template: Option<String>,
    /// Of a coordinator.
    pub token: String,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    mode: u32,
    content: Vec<u8>,
}

impl Ground {
    /// With a push certificate, where the operator has installed one.
    pub async fn of(backend: Backend, push: Option<&WorldFiles>) -> &'static Self {
        static GROUNDS: [OnceCell<Ground>; 4] = [const { OnceCell::const_new() }; 4];
        let first = if backend == Backend::Sqlite { 0 } else { 2 };
        let place = &GROUNDS[first + usize::from(push.is_some())];
        place.get_or_init(|| Self::make(backend, push)).await
    }

    async fn make(backend: Backend, push: Option<&WorldFiles>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = home.path().join("server");
        let url = "http://127.0.0.1:9";
        run(&["init", text(&folder), "--base-url", url, "--insecure-http"]);
        let template = match backend {
            Backend::Sqlite => None,
            Backend::PostgreSql => {
                let kind = if push.is_some() { "with" } else { "without" };
                Some(format!("ground_{kind}_push_certificate"))
            }
        };
        let listen = "listen = \"127.0.0.1:0\"";
        let mut body = format!("base_url = \"{url}\"\n[public]\n{listen}\n[internal]\n{listen}\n");
        if let Some(name) = &template {
            let url = database::copied(name, MIGRATED).await;
            body.push_str(&format!("[database]\nurl = \"{url}\"\n"));
        }
        if let Some(files) = push {
            let root = files.apns_root.display();
            body.push_str(&format!(
                "[apns]\nurl = \"https://localhost:9\"\nroot = \"{root}\"\n"
            ));
        }
        let config = folder.join("ground.toml");
        fs::write(&config, body).expect("a configuration");
        let configured = ["--insecure-http", "--config", text(&config)];
        if let Some(files) = push {
            let certificate = ["--certificate", text(&files.push_certificate)];
            let key = ["--key", text(&files.push_key)];
            run(&[
                &["push-cert", "install"][..],
                &configured,
                &certificate,
                &key,
            ]
            .concat());
        }
        let token = new_token(&config, "coordinator");
        fs::remove_file(&config).expect("it is there");
        if backend == Backend::Sqlite {
            forget_whose_it_is(&folder).await;
        }
        let mut files = Vec::new();
        keep(&folder, &folder, &mut files);
        Self {
            files,
            template,
            token,
        }
    }

    /// Lays it out in a folder that is not there yet. Returns the address of its database, where that
    /// is not in the folder.
    pub async fn lay_out(&self, folder: &Path) -> Option<String> {
        for kept in &self.files {
            let path = folder.join(&kept.path);
            let parent = path.parent().expect("a folder");
            fs::create_dir_all(parent).expect("a folder");
            fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).expect("a mode");
            fs::write(&path, &kept.content).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(kept.mode)).expect("a mode");
        }
        match &self.template {
            None => None,
            Some(template) => Some(database::copy_of(template).await),
        }
    }
}

/// A database belongs to the server that was set up on it, and copies are for servers of other names.
async fn forget_whose_it_is(folder: &Path) {
    let url = format!("sqlite://{}", folder.join("attestd.db").display());
    let database = sea_orm::Database::connect(url).await.expect("connects");
    let done = database
        .execute_unprepared("DELETE FROM service_meta WHERE name = 'server_id'")
        .await
        .expect("deletes");
    assert_eq!(done.rows_affected(), 1);
    database.close().await.expect("closes");
}

fn run(words: &[&str]) {
    let done = attestd(words);
    assert!(done.status.success(), "{done:?}");
}

fn keep(root: &Path, folder: &Path, files: &mut Vec<Kept>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let about = fs::metadata(&path).expect("it is there");
        if about.is_dir() {
            keep(root, &path, files);
            continue;
        }
        files.push(Kept {
            path: path.strip_prefix(root).expect("within it").to_owned(),
            mode: about.permissions().mode(),
            content: fs::read(&path).expect("a file"),
        });
    }
}
