//! Everything secret comes under another master key, while the server runs and Macs speak.

use std::fs;
use std::path::PathBuf;

use attestd::app::database_url;
use attestd::audit::Who;
use attestd::config::Config;
use attestd::entropy::OsEntropy;
use attestd::flows::hand_over_master_key::begin;
use attestd::keys::MasterKey;
use attestd_sim::{Mac, MacSpec};
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::process::Served;
use crate::harness::push_officer::{LATER, Said, pushes_to};
use crate::harness::scene::{Backend, Scene, attestd};

/// `attestd …`, beside the server.
async fn says(scene: &Scene, words: &[&str]) -> Said {
    let config = scene.config().to_str().expect("UTF-8").to_owned();
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    let run = move || {
        let words = words.iter().map(String::as_str);
        let more = ["--insecure-http", "--config", config.as_str()];
        attestd(&words.chain(more).collect::<Vec<_>>())
    };
    Said::of(tokio::task::spawn_blocking(run).await.expect("runs"))
}

fn file(scene: &Scene, name: &str) -> PathBuf {
    scene.config().with_file_name(name)
}

/// The name of the master key in a file, as sealed values bear it.
fn name_in(scene: &Scene, file_name: &str) -> String {
    let text = fs::read(file(scene, file_name)).expect("a key");
    MasterKey::parse(&text).expect("a key").name()
}

/// The id of a master key in every table and file, wherever it stands behind the mark of sealed values: in
/// bytes, and in hexadecimal. Looks at all columns, not at those that the server knows as sealed.
async fn sealed_under(scene: &Scene, key: &str) -> Vec<String> {
    let config = Config::load(scene.config(), true).expect("a configuration");
    let url = database_url(&config).expect("a database");
    let connection = sea_orm::Database::connect(&url).await.expect("connects");
    let backend = connection.get_database_backend();
    let is_sqlite = backend == sea_orm::DatabaseBackend::Sqlite;
    let tables = if is_sqlite {
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    } else {
        "SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = 'public'"
    };
    let mark = format!("4154534401{key}");
    let mut found = Vec::new();
    let names = Statement::from_string(backend, tables);
    for row in connection.query_all_raw(names).await.expect("tables") {
        let table: String = row.try_get_by_index(0).expect("a name");
        let columns = if is_sqlite {
            format!("SELECT name FROM pragma_table_info('{table}')")
        } else {
            format!(
                "SELECT CAST(column_name AS TEXT) FROM information_schema.columns WHERE table_name = '{table}'"
            )
        };
        let columns = Statement::from_string(backend, columns);
        for row in connection.query_all_raw(columns).await.expect("columns") {
            let column: String = row.try_get_by_index(0).expect("a name");
            let condition = if is_sqlite {
                format!(
                    "hex({column}) LIKE '%{}%' OR lower({column}) LIKE '%{mark}%'",
                    mark.to_uppercase()
                )
            } else {
                // Bytes read as text begin with \x and are hexadecimal.
                format!("CAST({column} AS TEXT) LIKE '%{mark}%'")
            };
            let sql = format!("SELECT COUNT(*) FROM {table} WHERE {condition}");
            let counted = connection
                .query_one_raw(Statement::from_string(backend, sql))
                .await;
            let count: i64 = counted
                .expect("counts")
                .expect("a row")
                .try_get_by_index(0)
                .expect("a number");
            if count > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
    }
    let mark = hex::decode(mark).expect("hexadecimal");
    for entry in fs::read_dir(file(scene, "keys")).expect("keys") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("reads");
        if bytes.windows(mark.len()).any(|part| part == mark) {
            found.push(
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
            );
        }
    }
    found.sort();
    found
}

/// The Mac is woken by a push: its address opened.
async fn is_woken(scene: &Scene, mac: &Mac) {
    scene.pass(LATER);
    let before = pushes_to(scene, mac).len();
    scene.api.verify(&mac.serial(), &["security_info"]).await;
    eventually("a push", async || {
        scene.sweep().await;
        pushes_to(scene, mac).len() > before
    })
    .await;
}

fn total(values: &Value, which: &str) -> u64 {
    let columns = values.as_array().expect("columns");
    columns
        .iter()
        .map(|one| one[which].as_u64().expect("a number"))
        .sum()
}

journey! {
    async fn everything_comes_under_another_master_key_while_macs_speak(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let (mac, life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let serial = mac.serial();
        eventually("a verdict", async || scene.api.posture(&serial).await["verdict"] == "affirming").await;
        let url = ["webhook", "add", "pager", "https://hooks.example.org/a"];
        let added = says(&scene, &url).await.text();
        assert!(added.contains("whsec_"), "{added}");
        let former = name_in(&scene, "master.key");
        let held = sealed_under(&scene, &former).await;
        for place in ["enrollments.push_sealed", "push_certificates.key_sealed", "result_keys.key_sealed",
            "service_meta.value", "webhooks.sealed", "device-ca.key"] {
            assert!(held.contains(&place.to_owned()), "{place} is not in {held:?}");
        }
        let status = says(&scene, &["secrets", "status", "--json"]).await.json();
        assert_eq!((&status["master_key"], &status["rotation"]), (&json!(former), &Value::Null));
        assert_eq!(total(&status["values"], "former"), 0);
        says(&scene, &["secrets", "finish"]).await.refused(&["no other master key is on its way"]);

        let rotated = says(&scene, &["secrets", "rotate", "--json"]).await.json();
        let new = name_in(&scene, "master.key");
        assert_eq!((&rotated["from"], &rotated["to"]), (&json!(former), &json!(new)));
        assert_eq!((&rotated["keys_sealed_anew"], &rotated["former_left"]), (&json!(3), &json!(0)));
        assert_eq!(name_in(&scene, "master.key.former"), former);
        assert!(!file(&scene, "master.key.next").exists());
        // What leads from one key to the other is all that is left of the former.
        assert_eq!(sealed_under(&scene, &former).await, ["service_meta.value"]);
        assert_eq!(total(&rotated["values"], "present"), total(&status["values"], "present"));
        // The server that ran through it wakes its Macs, and keeps new secrets under the new key.
        is_woken(&scene, &mac).await;
        drop(life);
        let (second, second_life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        drop(second_life);
        assert_eq!(sealed_under(&scene, &former).await, ["service_meta.value"]);

        // Until it is finished a server starts with either key.
        for key in ["master.key.former", "master.key"] {
            scene.stop().await;
            let present = fs::read(file(&scene, "master.key")).expect("a key");
            let tried = fs::read(file(&scene, key)).expect("a key");
            fs::write(file(&scene, "master.key"), tried).expect("put in its place");
            scene.start().await;
            is_woken(&scene, &second).await;
            if key == "master.key.former" {
                let early = says(&scene, &["secrets", "finish"]).await;
                early.refused(&["still the former one", &new]);
            }
            fs::write(file(&scene, "master.key"), present).expect("put back");
        }
        let finished = says(&scene, &["secrets", "finish", "--json"]).await.json();
        assert_eq!((&finished["from"], &finished["finished"]), (&json!(former), &json!(true)));
        assert_eq!(sealed_under(&scene, &former).await, Vec::<String>::new());
        scene.stop().await;
        scene.start().await;
        is_woken(&scene, &mac).await;
        assert_eq!(scene.api.posture(&serial).await["device_id"], scene.api.device_id(&serial).await);

        // And with the former key nothing starts any more.
        scene.stop().await;
        fs::copy(file(&scene, "master.key.former"), file(&scene, "master.key")).expect("copied");
        let serve = ["serve", "--insecure-http", "--config", scene.config().to_str().expect("UTF-8")];
        Said::of(attestd(&serve)).refused(&["under another master key"]);
    }
}

journey! {
    async fn a_rotation_that_was_interrupted_goes_on(backend: Backend) {
        let scene = Scene::new(backend).await;
        let (mac, _life) = scene.living_mac(MacSpec::random().expect("a Mac")).await;
        let former = name_in(&scene, "master.key");
        let same = file(&scene, "master.key");
        let same = ["secrets", "rotate", "--new-key", same.to_str().expect("UTF-8")];
        says(&scene, &same).await.refused(&["both are the same key"]);
        // The command ended just after it had begun: the new key is nowhere but in the database.
        let new = MasterKey::make(&OsEntropy::default());
        let ctx = scene.ctx();
        begin(&ctx.store, &ctx.sealer, &new, &Who::Service, scene.now()).await.expect("begun");
        let status = says(&scene, &["secrets", "status", "--json"]).await.json();
        assert_eq!((&status["rotation"]["to"], &status["rotation"]["phase"]), (&json!(new.name()), &json!("opening")));
        let early = says(&scene, &["secrets", "finish"]).await;
        early.refused(&["still the former one"]);

        let rotated = says(&scene, &["secrets", "rotate", "--json"]).await.json();
        assert_eq!((&rotated["from"], &rotated["to"]), (&json!(former), &json!(new.name())));
        assert_eq!(name_in(&scene, "master.key"), new.name());
        is_woken(&scene, &mac).await;
        // Once more changes nothing.
        let again = says(&scene, &["secrets", "rotate", "--json"]).await.json();
        assert_eq!((&again["keys_sealed_anew"], &again["former_left"]), (&json!(0), &json!(0)));
        says(&scene, &["secrets", "finish", "--json"]).await.json();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_follows_who_has_neither_key() {
    let mut scene = Scene::new(Backend::Sqlite).await;
    let ctx = scene.ctx();
    let new = MasterKey::make(&OsEntropy::default());
    begin(&ctx.store, &ctx.sealer, &new, &Who::Service, scene.now())
        .await
        .expect("begun");
    scene.stop().await;
    let other = MasterKey::make(&OsEntropy::default());
    fs::write(file(&scene, "master.key"), other.text().expose()).expect("written");
    let serve = [
        "serve",
        "--insecure-http",
        "--config",
        scene.config().to_str().expect("UTF-8"),
    ];
    Said::of(attestd(&serve)).refused(&["give this node one of those"]);
    // The new one will do, before anything is sealed under it.
    fs::write(file(&scene, "master.key"), new.text().expose()).expect("written");
    Served::start(scene.config()).kill();
}
