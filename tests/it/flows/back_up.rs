//! An operator backs everything up while the server runs, and knows whether the file is whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::harness::scene::{Backend, Scene, attestd};

pub(super) fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Runs a command that is about this configuration, beside what else goes on.
pub(super) async fn command(config: &Path, words: &[&str]) -> Output {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["--insecure-http", "--config", text(config)].map(str::to_owned));
    let run = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        attestd(&words)
    });
    run.await.expect("no panic")
}

/// Backs a server up into a file of this name.
pub(super) async fn backed_up(scene: &Scene, name: &str) -> PathBuf {
    let file = scene.home.path().join(name);
    let done = command(scene.config(), &["backup", "--to", text(&file), "--json"]).await;
    assert!(done.status.success(), "{}", said(&done));
    file
}

pub(super) async fn verified(config: &Path, file: &Path) -> (Option<i32>, String) {
    let done = command(config, &["backup", "verify", text(file), "--json"]).await;
    (done.status.code(), said(&done))
}

journey! {
    async fn a_backup_is_sealed_private_and_says_what_it_holds(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        let file = backed_up(&scene, "one.backup").await;
        let mode = fs::metadata(&file).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let bytes = fs::read(&file).expect("read");
        assert!(bytes.starts_with(b"attestd backup 1\n"));
        for secret in [mac.serial(), mac.udid(), "PRIVATE KEY".to_owned()] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
        let (status, said) = verified(scene.config(), &file).await;
        assert_eq!(status, Some(0), "{said}");
        let told: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!((told["macs"].as_u64(), told["server_id"].as_str()), (Some(1), Some(scene.base_url.as_str())));
        assert!(told["elsewhere"].to_string().contains("master key"), "{told}");
        assert!(told["keys"].to_string().contains("device-ca.key"), "{told}");

        // Once more under the same name: the former one stays as it is.
        let again = command(scene.config(), &["backup", "--to", text(&file)]).await;
        assert_eq!(again.status.code(), Some(1));
        assert_eq!(fs::read(&file).expect("read"), bytes);
        // A person reads that the master key is not in it.
        let other = scene.home.path().join("two.backup");
        let told = command(scene.config(), &["backup", "--to", text(&other)]).await;
        assert!(self::said(&told).contains("Not in it"), "{}", self::said(&told));
        let drafts = fs::read_dir(scene.home.path()).expect("a folder");
        let drafts = drafts.filter(|it| text(&it.as_ref().expect("an entry").path()).contains("draft"));
        assert_eq!(drafts.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_was_changed_cut_off_or_is_not_ours_is_refused_for_what_it_is() {
    let scene = Scene::new(Backend::Sqlite).await;
    let file = backed_up(&scene, "whole.backup").await;
    let bytes = fs::read(&file).expect("read");
    let other = scene.home.path().join("other.backup");
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    let mut of_another_master = bytes.clone();
    of_another_master[18] ^= 1;
    for (bytes, why) in [
        (&changed[..], "was changed"),
        (&bytes[..bytes.len() - 7], "its end is missing"),
        (&of_another_master, "another master key"),
        (b"SQLite format 3\0", "no backup of attestd"),
        (b"attestd backup 2\n and more", "a newer one"),
    ] {
        fs::write(&other, bytes).expect("written");
        let (status, said) = verified(scene.config(), &other).await;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
}
