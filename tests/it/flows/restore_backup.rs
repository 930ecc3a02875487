//! The machine is gone, and the service goes on elsewhere, from a backup.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestd::backup::{Manifest, Piece};
use attestd::entropy::OsEntropy;
use attestd::flows::back_up::{Beside, Pieces, back_up};
use attestd::keys::vault::{SealedReader, SealedWriter};
use attestd::keys::{MasterKey, MasterKeySource, MasterSeal};
use attestd::store::Store;
use attestd_sim::MacSpec;
use migrations::{Migrator, MigratorTrait as _};
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use super::back_up::{backed_up, command, said};
use super::publish_evidence::{checked, published};
use crate::harness::database;
use crate::harness::following::Following;
use crate::harness::plane::Plane;
use crate::harness::scene::{Backend, Scene};
use crate::harness::talk::{idle, report};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Another machine: the configuration and what it names, the master key, and an empty database of this
/// kind. Its configuration file.
async fn elsewhere(scene: &Scene, kind: Backend) -> PathBuf {
    let from = scene.config().parent().expect("a folder").to_owned();
    let folder = tempfile::tempdir_in(scene.home.path())
        .expect("a folder")
        .keep();
    for entry in fs::read_dir(&from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        if path.is_file() && !name.contains(".db") {
            fs::copy(&path, folder.join(name)).expect("copied");
        }
    }
    let config = folder.join("scene.toml");
    let text = fs::read_to_string(&config).expect("read");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| line != "[database]" && !line.starts_with("url = \"postgres"));
    if kind == Backend::PostgreSql {
        let url = database::empty().await;
        lines.extend(["[database]".to_owned(), format!("url = \"{url}\"")]);
    }
    fs::write(&config, lines.join("\n")).expect("written");
    config
}

async fn restored(config: &Path, file: &Path, more: &[&str]) -> Value {
    let words = ["restore", "--from", text(file), "--json"];
    let done = command(config, &[&words[..], more].concat()).await;
    assert!(done.status.success(), "{}", said(&done));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// A backup as somebody with the master key could have made it: its manifest changed, and the first rows there
/// so many times.
fn altered(
    file: &Path,
    master: &MasterKey,
    change: impl FnOnce(&mut Manifest),
    times: u64,
) -> PathBuf {
    let opened = fs::File::open(file).expect("opens");
    let sealed = SealedReader::begin(opened, master).expect("ours");
    let mut pieces = Pieces::begin(sealed).expect("a backup");
    let mut manifest = pieces.manifest().clone();
    change(&mut manifest);
    let mut rest = Vec::new();
    let mut repeated = false;
    while let Some(piece) = pieces.next_piece().expect("whole") {
        let (mut copies, mut more) = (1, 0);
        if let Piece::Rows { table, rows } = &piece
            && !repeated
        {
            (copies, more) = (times, u64::try_from(rows.len()).expect("few"));
            manifest.tables[*table].rows += more * (times - 1);
            repeated = true;
        }
        assert!(copies == 1 || more > 0);
        (0..copies).for_each(|_| rest.push(piece.clone()));
    }
    rest.insert(0, Piece::Manifest(Box::new(manifest)));
    rest.push(Piece::End);
    let sealed = SealedWriter::begin(Vec::new(), master, &OsEntropy::default()).expect("begins");
    let mut to = flate2::write::GzEncoder::new(sealed, flate2::Compression::fast());
    for piece in rest {
        to.write_all(&piece.encode().expect("short"))
            .expect("written");
    }
    let bytes = to
        .finish()
        .and_then(SealedWriter::finish)
        .expect("finished");
    let other = file.with_extension("altered");
    fs::write(&other, bytes).expect("written");
    other
}

/// What is believed, without the numbers that must have risen.
fn believed(mut posture: Value) -> Value {
    let members = posture.as_object_mut().expect("an object");
    for member in ["revision", "revocation_epoch"] {
        assert!(members.remove(member).is_some(), "{member}");
    }
    posture
}

journey! {
    async fn a_fleet_goes_on_elsewhere_from_a_backup_that_was_made_while_it_ran(backend: Backend) {
        let mut plane = Plane::new(backend).await;
        let (_, _life, _provider) = plane.routed().await;
        let scene = &plane.scene;
        let quiet = scene.honest_mac();
        quiet.enroll(&scene.base_url).await.expect("enrols");
        quiet.connect().await.expect("a session");
        // Asked, and not answered when the backup is made.
        let asked = scene.honest_mac();
        asked.enroll(&scene.base_url).await.expect("enrols");
        let question = idle(&asked).await.expect("a command");
        let unused = scene.mac(MacSpec::random().expect("a Mac"));
        let profile = scene.deliver_for(&unused.serial()).await.profile;
        let bundle = published(&plane).await;
        let before = scene.api.posture(&quiet.serial()).await;

        // Others do not stop meanwhile.
        let busy = scene.honest_mac();
        busy.enroll(&scene.base_url).await.expect("enrols");
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (stopped, worker) = (Arc::clone(&stop), busy.clone());
        let load = tokio::spawn(async move {
            let mut sessions = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                worker.connect().await.expect("a session, backup or not");
                sessions += 1;
            }
            sessions
        });
        let file = backed_up(scene, "fleet.backup").await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(load.await.expect("no panic") > 0);

        // What the backup does not know of: a ticket is used, an answer given, a Mac enrolled.
        unused.install_profile(&profile).await.expect("enrols");
        report(&asked, &question).await;
        let late = scene.honest_mac();
        late.enroll(&scene.base_url).await.expect("enrols");
        let last_cursor = Following::now(&scene.api).await.id;
        plane.scene.stop().await;

        let config = elsewhere(&plane.scene, backend).await;
        let done = restored(&config, &file, &["--log", "continue", "--reason", "the disk died"]).await;
        assert_eq!(done["tickets_voided"], 1, "{done}");
        plane.scene.moves_to(config);
        plane.scene.start().await;
        let scene = &plane.scene;

        // The same answers, of higher numbers.
        let after = scene.api.posture(&quiet.serial()).await;
        assert_eq!(believed(after.clone()), believed(before.clone()));
        for number in ["revision", "revocation_epoch"] {
            assert!(after[number].as_u64() > before[number].as_u64(), "{number}: {after}");
        }
        assert_eq!(checked(&plane, &bundle, &[]).await.0, Some(0), "a bundle of before");
        let anew = published(&plane).await;
        let (status, found) = checked(&plane, &anew, &[]).await;
        assert_eq!(status, Some(0), "{found:#}");
        // Macs go on.
        for mac in [&quiet, &busy, &asked] {
            mac.connect().await.expect("its identity is known");
        }
        // An answer to a question of before is no answer any more.
        report(&asked, &question).await;
        assert_eq!(scene.refused("answer_unsolicited").await, 1);
        // The ticket may have been used, and was.
        let other = scene.mac(MacSpec { serial: unused.serial(), ..MacSpec::random().expect("a Mac") });
        assert!(other.install_profile(&profile).await.is_err(), "used twice");
        // Nobody knows who enrolled since.
        assert!(late.connect().await.is_err());
        // Whoever followed is told to list everything, wherever it was, and what happened.
        for cursor in [1, last_cursor] {
            let mut following = Following::after(&scene.api, cursor).await;
            assert_eq!(following.next().await.expect("an event").name, "reset", "{cursor}");
        }
        let events = scene.ctx().store.events_after(0, 100_000).await.expect("events");
        let told: Vec<_> = events.iter().filter(|it| it.event.name == "service.restored").collect();
        assert_eq!((told.len(), &told[0].event.body["note"]), (1, &Value::from("the disk died")));
        assert!(told[0].seq > last_cursor + 1_000_000);
        plane.scene.stop().await;
    }
}

journey! {
    async fn a_backup_restores_into_the_other_kind_of_database(backend: Backend) {
        let mut scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        let before = scene.api.posture(&mac.serial()).await;
        let evidence = async |scene: &Scene| {
            let mut evidence = scene.kept(&mac).await.evidence;
            evidence.sort_by_key(|it| it.evidence_id.to_string());
            evidence
        };
        let kept = evidence(&scene).await;
        let file = backed_up(&scene, "moves.backup").await;
        scene.stop().await;
        let other = match backend {
            Backend::Sqlite => Backend::PostgreSql,
            Backend::PostgreSql => Backend::Sqlite,
        };
        let config = elsewhere(&scene, other).await;
        restored(&config, &file, &["--log", "anew"]).await;
        scene.moves_to(config);
        scene.start().await;
        assert_eq!(believed(scene.api.posture(&mac.serial()).await), believed(before));
        assert_eq!(evidence(&scene).await, kept);
        mac.connect().await.expect("its identity is known");
        scene.stop().await;
    }
}

journey! {
    async fn nothing_is_restored_where_something_stands_or_does_not_fit(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(1);
        let mac = scene.honest_mac();
        mac.enroll(&scene.base_url).await.expect("enrols");
        mac.connect().await.expect("a session");
        attestd::flows::tell_log::run_once(scene.ctx()).await.expect("logged");
        let file = backed_up(&scene, "fleet.backup").await;
        let refused = async |config: &Path, file: &Path, more: &[&str], words: &[&str]| {
            let done = command(config, &[&["restore", "--from", text(file)][..], more].concat()).await;
            let said = said(&done);
            assert_eq!(done.status.code(), Some(1), "{said}");
            for word in words {
                assert!(said.contains(word), "{word:?} is not in: {said}");
            }
        };
        // Where the server is, and runs.
        let here = scene.config().to_owned();
        refused(&here, &file, &["--log", "continue"], &["not empty", "enrollments (1)"]).await;
        let config = elsewhere(&scene, backend).await;
        let folder = config.parent().expect("a folder");
        let untouched = async || {
            assert!(!folder.join("keys").exists() && !folder.join("attestd.db").exists());
        };
        // Nobody said what becomes of the log.
        refused(&config, &file, &[], &["--log continue", "--log anew", "entries"]).await;
        untouched().await;
        // A file that is not whole.
        let bytes = fs::read(&file).expect("read");
        let cut = folder.join("cut.backup");
        fs::write(&cut, &bytes[..bytes.len() - 1]).expect("written");
        refused(&config, &cut, &["--log", "anew"], &["its end is missing"]).await;
        untouched().await;
        // Another service.
        let written = fs::read_to_string(&config).expect("read");
        let moved = folder.join("moved.toml");
        let other = written.replace(&scene.base_url, "http://127.0.0.1:9");
        fs::write(&moved, other).expect("written");
        refused(&moved, &file, &["--log", "anew"], &["base_url must stay"]).await;
        untouched().await;
        // Rows that cannot stand: it is noticed in the middle, and nothing is left of it.
        let master = MasterKeySource::File(folder.join("master.key"));
        let master = MasterKey::read(&master).expect("a master key");
        let broken = altered(&file, &master, |_| {}, 2);
        refused(&config, &broken, &["--log", "anew"], &["contradicts"]).await;
        untouched().await;
        // Other keys.
        fs::create_dir(folder.join("keys")).expect("made");
        fs::write(folder.join("keys/device-ca.key"), "another").expect("written");
        refused(&config, &file, &["--log", "anew"], &["other keys than the backup"]).await;
        fs::remove_dir_all(folder.join("keys")).expect("removed");
        // And then it is as if nothing had been tried; a second time it is not empty any more.
        restored(&config, &file, &["--log", "anew"]).await;
        refused(&config, &file, &["--log", "anew"], &["not empty"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_former_schema_is_brought_up_to_date_and_one_of_a_later_is_refused() {
    let scene = Scene::new(Backend::Sqlite).await;
    let config = elsewhere(&scene, Backend::Sqlite).await;
    let folder = config.parent().expect("a folder").to_owned();
    let master = MasterKeySource::File(folder.join("master.key"));
    let master = MasterKey::read(&master).expect("a master key");
    let entropy = Arc::new(OsEntropy::default());
    let of_schema = async |name: &str, sql: &str, steps: u32| -> PathBuf {
        let path = folder.join(format!("{name}.sqlite"));
        fs::write(&path, "").expect("made");
        let url = format!("sqlite://{}", path.display());
        let plain = sea_orm::Database::connect(&url).await.expect("connects");
        Migrator::up(&plain, Some(steps)).await.expect("migrates");
        plain.execute_unprepared(sql).await.expect(sql);
        plain.close().await.expect("closes");
        let seal = Arc::new(MasterSeal::new(&master, entropy.clone()));
        let store = Store::open(&url, seal).await.expect("opens");
        let beside = Beside {
            made_at: scene.now(),
            server_id: scene.base_url.clone(),
            keys: vec![("device-ca.key".to_owned(), b"sealed".to_vec())],
            elsewhere: Vec::new(),
        };
        let sealed = SealedWriter::begin(Vec::new(), &master, entropy.as_ref()).expect("begins");
        let (_, bytes) = back_up(&store, beside, sealed, &mut |_, _| {})
            .await
            .expect("written");
        let file = folder.join(format!("{name}.backup"));
        fs::write(&file, bytes).expect("written");
        file
    };
    let all = u32::try_from(Migrator::migrations().len()).expect("few");
    let present = of_schema("present", "SELECT 1", all).await;
    let later = altered(
        &present,
        &master,
        |manifest| manifest.schema.push("m9999_later".to_owned()),
        1,
    );
    let refused = command(&config, &["restore", "--from", text(&later)]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("does not know"),
        "{}",
        said(&refused)
    );

    let known = "INSERT INTO service_meta (name, value) VALUES ('kept', 'of before')";
    let former = of_schema("former", known, all - 2).await;
    restored(&config, &former, &[]).await;
    let url = format!("sqlite://{}", folder.join("attestd.db").display());
    let store = Store::open(&url, Arc::new(MasterSeal::new(&master, entropy))).await;
    let store = store.expect("opens");
    assert!(store.schema_is_current().await.expect("answers"));
    let tx = store.read().await.expect("reads");
    assert_eq!(
        tx.fact("kept").await.expect("answers").as_deref(),
        Some("of before")
    );
}
