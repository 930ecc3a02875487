//! An operator sets a server up, by the real commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use attestd_sim::certs::Issuer;
use attestd_sim::keys::KeyKind;
use attestd_sim::{Mac, MacSpec};
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use crate::harness::database;
use crate::harness::process::Served;
use crate::harness::scene::{Backend, Scene, attestd, free_port};

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr]
        .concat()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}

/// A refusal: this exit status, and all of these words.
fn refused(output: &Output, status: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(status), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// A data folder behind a proxy, and its configuration.
fn made(home: &Path) -> (PathBuf, PathBuf) {
    let folder = home.join("data");
    let output = attestd(&[
        "init",
        text(&folder),
        "--base-url",
        "https://mdm.example.org",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let config = folder.join("attestd.toml");
    (folder, config)
}

#[test]
fn init_makes_what_it_says_and_never_overwrites() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let arguments = [
        "init",
        text(&folder),
        "--base-url",
        "https://mdm.example.org",
    ];
    let output = attestd(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    for word in [
        "master.key",
        "keys",
        "attestd.db",
        "attestd.toml",
        "push-cert install",
        "token create",
        "serve --config",
    ] {
        assert!(said(&output).contains(word), "{word}");
    }
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("keys"))), (0o700, 0o700));
    let before = files(&folder);
    for path in before.keys() {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let master = fs::read_to_string(folder.join("master.key")).expect("a key");
    assert!(!said(&output).contains(master.trim()));

    refused(
        &attestd(&arguments),
        1,
        &["is there already", "nothing was changed"],
    );
    assert_eq!(files(&folder), before);
    // One of the files is enough to keep away.
    let half = home.path().join("half");
    fs::create_dir(&half).expect("a folder");
    fs::write(half.join("master.key"), "mine").expect("a file");
    refused(
        &attestd(&["init", text(&half), "--base-url", "https://mdm.example.org"]),
        1,
        &["master.key", "nothing was changed"],
    );
    assert_eq!(files(&half).len(), 1);
    // A URL that could not be served leaves nothing behind.
    let none = home.path().join("none");
    refused(
        &attestd(&["init", text(&none), "--base-url", "http://mdm.example.org"]),
        64,
        &["--insecure-http"],
    );
    assert!(!none.exists());
}

#[test]
fn what_cannot_be_served_safely_is_refused_with_what_to_do() {
    let home = tempfile::tempdir().expect("a folder");
    let (folder, config) = made(home.path());
    let good = fs::read_to_string(&config).expect("a configuration");
    let serve = ["serve", "--config", text(&config)];
    let check = ["check-config", "--config", text(&config)];
    assert!(attestd(&check).status.success());
    for (bad, words) in [
        (good.replace("data_dir", "data_dri"), &["data_dri"][..]),
        (
            format!("{good}[verification]\npatiense = \"1m\"\n"),
            &["patiense"],
        ),
        (
            good.replace("https://mdm.example.org", "http://mdm.example.org"),
            &["--insecure-http"],
        ),
        (
            good.replace("behind_proxy = true\n", ""),
            &["tls_certificate", "behind_proxy"],
        ),
        (
            good.replace("127.0.0.1:8444", "0.0.0.0:8444"),
            &["internal", "tls_certificate"],
        ),
        ("base_url = ".to_owned(), &["not well formed"]),
    ] {
        fs::write(&config, bad).expect("writes");
        refused(&attestd(&serve), 64, words);
        refused(&attestd(&check), 64, words);
    }
    refused(
        &attestd(&["serve", "--config", "/nowhere/attestd.toml"]),
        64,
        &["cannot be read"],
    );
    fs::write(&config, good).expect("writes");

    let master = folder.join("master.key");
    let strong = fs::read(&master).expect("a key");
    for (weak, mode, words) in [
        (
            &b"00".repeat(32)[..],
            0o600,
            &["must be random", "openssl rand"][..],
        ),
        (b"change-me", 0o600, &["32 bytes", "openssl rand"]),
        (&strong[..62], 0o600, &["32 bytes"]),
        (&strong[..], 0o644, &["0644", "0600"]),
    ] {
        fs::write(&master, weak).expect("writes");
        fs::set_permissions(&master, fs::Permissions::from_mode(mode)).expect("sets");
        refused(&attestd(&serve), 1, words);
        refused(&attestd(&check), 64, words);
    }
    fs::remove_file(&master).expect("removes");
    refused(
        &attestd(&serve),
        1,
        &["master key", "ATTESTD_MASTER_KEY_FILE"],
    );
}

#[test]
fn a_key_that_is_missing_keeps_the_service_from_starting() {
    let home = tempfile::tempdir().expect("a folder");
    let (folder, config) = made(home.path());
    for role in ["device-ca", "registration-authority", "profile-signer"] {
        for kind in ["key", "pem"] {
            let file = folder.join("keys").join(format!("{role}.{kind}"));
            let aside = home.path().join("aside");
            fs::rename(&file, &aside).expect("moves");
            refused(&attestd(&["serve", "--config", text(&config)]), 1, &[role]);
            fs::rename(&aside, &file).expect("moves");
        }
    }
}

#[test]
fn check_config_shows_no_secret() {
    let home = tempfile::tempdir().expect("a folder");
    let (folder, config) = made(home.path());
    let url = home.path().join("database-url");
    fs::write(
        &url,
        "postgres://attestd:CANARY-1@db.example.org/attestd?password=CANARY-2\n",
    )
    .expect("writes");
    let good = fs::read_to_string(&config).expect("a configuration");
    fs::write(
        &config,
        format!("{good}[database]\nurl_file = \"{}\"\n", text(&url)),
    )
    .expect("writes");
    let master = fs::read_to_string(folder.join("master.key")).expect("a key");
    for more in [&[][..], &["--json"]] {
        let output = attestd(&[&["check-config", "--config", text(&config)], more].concat());
        assert!(output.status.success(), "{}", said(&output));
        let said = said(&output);
        assert!(said.contains("db.example.org") && said.contains("https://mdm.example.org"));
        assert!(
            !said.contains("CANARY") && !said.contains(master.trim()),
            "{said}"
        );
    }
    // A password in the file itself is refused, and not repeated.
    let bad = format!("{good}[database]\nurl = \"postgres://a:CANARY-3@db/a\"\n");
    fs::write(&config, bad).expect("writes");
    let output = attestd(&["check-config", "--config", text(&config)]);
    refused(&output, 64, &["url_file"]);
    assert!(!said(&output).contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_fleets_own_push_certificate_is_installed() {
    let scene = Scene::new(Backend::Sqlite).await;
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    let now = scene.now().millis();
    let authority = scene.world.push_authority();
    let days = |count: i64| count * 24 * 60 * 60 * 1000;
    let path = |name: &str| scene.home.path().join(name);
    let install = |certificate: &[u8], key: &[u8]| {
        let (certificate_path, key_path) = (path("install.pem"), path("install.key"));
        fs::write(&certificate_path, certificate).expect("writes");
        fs::write(&key_path, key).expect("writes");
        attestd(&[
            "push-cert",
            "install",
            "--insecure-http",
            "--config",
            text(scene.config()),
            "--certificate",
            text(&certificate_path),
            "--key",
            text(&key_path),
        ])
    };
    let pems = |certificate: &attestd_sim::apns::PushCertificate| {
        let identity = &certificate.identity;
        (
            identity.certificate_pem().expect("PEM"),
            identity.key_pem().expect("PEM"),
        )
    };
    let topic = scene.world.topic().to_owned();
    let other_topic = "com.apple.mgmt.External.00000000-0000-4000-8000-000000000000";
    let (renewed, renewed_key) = pems(
        &authority
            .issue(&topic, now + 1000 - days(1))
            .expect("issues"),
    );
    let (expired, expired_key) = pems(&authority.issue(&topic, now - days(800)).expect("issues"));
    let (other, other_key) = pems(&authority.issue(other_topic, now).expect("issues"));
    let (same, same_key) = pems(scene.world.push_certificate());

    refused(&install(&renewed, &other_key), 1, &["key"]);
    refused(&install(&expired, &expired_key), 1, &["expired"]);
    refused(
        &install(&other, &other_key),
        1,
        &[other_topic, &topic, "1 Macs"],
    );
    refused(&install(&same, &same_key), 1, &["in use already"]);
    refused(&install(b"nonsense", &same_key), 1, &["push-cert"]);
    let key = String::from_utf8(renewed_key.clone()).expect("PEM");
    let status = attestd(&[
        "push-cert",
        "status",
        "--insecure-http",
        "--config",
        text(scene.config()),
        "--json",
    ]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(
        status["push_certificates"]
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    assert_eq!(status["push_certificates"][0]["topic"], topic.as_str());
    assert!(
        !status
            .to_string()
            .contains(key.lines().nth(1).expect("a line"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_listed_and_revoked_and_shown_once() {
    let scene = Scene::new(Backend::Sqlite).await;
    let token = |arguments: &[&str]| {
        let (what, rest) = arguments.split_first().expect("a command");
        attestd(
            &[
                &[
                    "token",
                    what,
                    "--insecure-http",
                    "--config",
                    text(scene.config()),
                ],
                rest,
            ]
            .concat(),
        )
    };
    let made = token(&[
        "create",
        "--role",
        "auditor",
        "--label",
        "the yearly audit",
        "--json",
    ]);
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let (secret, id) = (
        made["token"].as_str().expect("a token"),
        made["token_id"].as_str().expect("an id"),
    );
    let list = token(&["list", "--json"]);
    assert!(said(&list).contains(id) && said(&list).contains("the yearly audit"));
    assert!(!said(&list).contains(secret) && !said(&token(&["list"])).contains(secret));
    let db = fs::read(scene.home.path().join("server/attestd.db")).expect("a file");
    let wal = fs::read(scene.home.path().join("server/attestd.db-wal")).unwrap_or_default();
    for bytes in [db, wal] {
        assert!(
            !bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        );
    }
    assert!(token(&["revoke", id]).status.success());
    refused(&token(&["revoke", id]), 1, &["no valid token"]);
    refused(
        &token(&["create", "--role", "root", "--label", "x"]),
        2,
        &["coordinator", "viewer"],
    );
}

#[tokio::test]
async fn the_first_command_makes_the_tables_of_an_empty_postgresql_and_of_no_other_versions() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("server");
    let base_url = "https://mdm.example.org";
    let made = attestd(&["init", text(&folder), "--base-url", base_url]);
    assert!(made.status.success(), "{}", said(&made));
    let url = database::copied("first_steps", "template0").await;
    let config = folder.join("attestd.toml");
    let mut settings = fs::read_to_string(&config).expect("made");
    settings.push_str(&format!("\n[database]\nurl = \"{url}\"\n"));
    fs::write(&config, settings).expect("written");
    let token =
        |words: &[&str]| attestd(&[&["token"], words, &["--config", text(&config)]].concat());
    let label = ["create", "--role", "viewer", "--label", "the first"];
    assert!(token(&label).status.success(), "{}", said(&token(&label)));
    assert!(said(&token(&["list"])).contains("the first"));

    // What another version keeps there is not touched.
    let plain = sea_orm::Database::connect(&url).await.expect("connects");
    let forget = "DELETE FROM seaql_migrations WHERE version LIKE 'm0019%'";
    plain.execute_unprepared(forget).await.expect("forgotten");
    refused(
        &token(&["list"]),
        1,
        &["another version", "start the server"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_file_is_refused() {
    let scene = Scene::new(Backend::Sqlite).await;
    let output = attestd(&["serve", "--insecure-http", "--config", text(scene.config())]);
    refused(&output, 1, &["attestd serve", "another"]);
    assert_eq!(scene.api.get("/readyz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_ends_tls_itself() {
    // The world of a scene, and another server in it.
    let mut scene = Scene::new(Backend::Sqlite).await;
    scene.stop().await;
    let issuer =
        Issuer::root("TLS root", "Simulated", KeyKind::P256, scene.now().millis()).expect("a root");
    let server = issuer
        .loopback_server(scene.now().millis())
        .expect("a certificate");
    let folder = scene.home.path().join("tls");
    let base_url = format!("https://localhost:{}", free_port());
    let output = attestd(&["init", text(&folder), "--base-url", &base_url]);
    assert!(output.status.success(), "{}", said(&output));
    fs::write(
        folder.join("tls.pem"),
        server.certificate_pem().expect("PEM"),
    )
    .expect("writes");
    fs::write(folder.join("tls.key"), server.key_pem().expect("PEM")).expect("writes");
    let config = folder.join("tls.toml");
    let port = base_url.rsplit(':').next().expect("a port");
    let world = scene.home.path();
    fs::write(&config, format!(
        "base_url = \"{base_url}\"\n\
         [public]\nlisten = \"127.0.0.1:{port}\"\ntls_certificate = \"tls.pem\"\ntls_key = \"tls.key\"\n\
         [internal]\nlisten = \"127.0.0.1:0\"\ntls_certificate = \"tls.pem\"\ntls_key = \"tls.key\"\n\
         [apns]\nurl = \"{}\"\nroot = \"{}\"\n[attestation]\nhold = \"0s\"\nroot = \"{}\"\n",
        scene.world.apns().url(), text(&world.join("apns-root.pem")),
        text(&world.join("attestation-root.pem")))).expect("writes");
    let installed = attestd(&[
        "push-cert",
        "install",
        "--config",
        text(&config),
        "--certificate",
        text(&world.join("push-cert.pem")),
        "--key",
        text(&world.join("push-key.pem")),
    ]);
    assert!(installed.status.success(), "{}", said(&installed));
    let mut served = Served::start(&config);

    let root = issuer.certificate_pem().expect("PEM");
    let certificate = reqwest::Certificate::from_pem(&root).expect("a certificate");
    let client = || reqwest::Client::builder().tls_certs_only([certificate.clone()]);
    for (client, version) in [
        (client().http1_only(), reqwest::Version::HTTP_11),
        (client().http2_prior_knowledge(), reqwest::Version::HTTP_2),
        (client(), reqwest::Version::HTTP_2),
    ] {
        let client = client.build().expect("a client");
        for base in [
            base_url.clone(),
            format!("https://localhost:{}", served.internal.port()),
        ] {
            let answer = client
                .get(format!("{base}/healthz"))
                .send()
                .await
                .expect("an answer");
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        }
    }
    let in_clear = base_url.replace("https", "http");
    let answer = reqwest::get(format!("{in_clear}/healthz")).await;
    assert!(answer.is_err(), "only TLS is spoken: {answer:?}");

    scene.world.trust(&root);
    let mac = Mac::new(MacSpec::random().expect("a Mac"), &scene.world);
    mac.enroll(&base_url).await.expect("enrols");
    assert_eq!(mac.connect().await.expect("a session").answered, 2);
    assert_eq!(served.terminate(), Some(0));
}

#[test]
fn a_server_without_its_keys_leaves_their_place_to_them() {
    let home = tempfile::tempdir().expect("a folder");
    let (folder, config) = made(home.path());
    let (keys, away) = (folder.join("keys"), folder.join("away"));
    fs::rename(&keys, &away).expect("moved");
    let output = attestd(&["serve", "--config", text(&config)]);
    refused(&output, 1, &["the folder of keys cannot be used"]);
    assert!(!keys.exists(), "an empty one would take them in");
    fs::rename(&away, &keys).expect("moved back");
    assert!(keys.join("device-ca.key").is_file());
}
