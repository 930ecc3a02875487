//! Whoever reads logs, metrics, errors and what commands print finds no secret there: secrets are planted,
//! and looked for in everything that is said, at the most talkative level.

use std::collections::BTreeMap;
use std::fs;

use attestd_sim::MacSpec;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::Method;

use crate::harness::inside::eventually;
use crate::harness::process::Served;
use crate::harness::push_officer::Said;
use crate::harness::scene::{Backend, Scene, attestd};

/// Secrets by their names.
#[derive(Default)]
struct Planted(BTreeMap<&'static str, Vec<u8>>);

impl Planted {
    fn plant(&mut self, name: &'static str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= 16, "{name} is too short to be looked for");
        self.0.insert(name, secret.to_vec());
    }

    /// The names of those that `said` holds, in whatever form they may have got there.
    fn in_what_was(&self, said: &str) -> Vec<&'static str> {
        let lower = said.to_lowercase();
        let holds = |secret: &[u8]| {
            // The end of base64 hangs on what follows; its beginning does not.
            let base64 = |text: String| said.contains(&text[..text.len() - 4]);
            let debug = secret.iter().map(u8::to_string).collect::<Vec<_>>();
            said.as_bytes()
                .windows(secret.len())
                .any(|part| part == secret)
                || lower.contains(&hex::encode(secret))
                || base64(STANDARD.encode(secret))
                || base64(STANDARD_NO_PAD.encode(secret))
                || base64(URL_SAFE_NO_PAD.encode(secret))
                || said.contains(&debug.join(", "))
        };
        let found = self.0.iter().filter(|(_, secret)| holds(secret));
        found.map(|(name, _)| *name).collect()
    }
}

/// `attestd …` for this server, with its standard output and its errors.
async fn says(scene: &Scene, words: &[&str]) -> String {
    let config = scene.config().to_str().expect("UTF-8").to_owned();
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    let run = move || {
        let words = words.iter().map(String::as_str);
        let more = ["--insecure-http", "--config", config.as_str()];
        attestd(&words.chain(more).collect::<Vec<_>>())
    };
    let output = tokio::task::spawn_blocking(run).await.expect("runs");
    Said::of(output).text()
}

#[test]
fn what_is_looked_for_is_found_in_any_form() {
    let mut planted = Planted::default();
    let secret = b"a secret, in bytes!\xff\x00";
    planted.plant("it", secret);
    for said in [
        hex::encode(secret),
        hex::encode_upper(secret),
        format!("x{}y", STANDARD.encode(secret)),
        format!("{:?}", secret),
        URL_SAFE_NO_PAD.encode([&secret[..], b"more"].concat()),
    ] {
        assert_eq!(planted.in_what_was(&said), ["it"], "{said}");
    }
    assert!(planted.in_what_was("a secret, in bytes?").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_is_told() {
    let tables = "[log]\nlevel = \"trace\"\n";
    let mut scene = Scene::configured(Backend::Sqlite, tables).await;
    let mut planted = Planted::default();
    let folder = scene.config().parent().expect("a folder").to_owned();
    let master = fs::read_to_string(folder.join("master.key")).expect("a key");
    planted.plant("master key, as it is written", master.trim());
    planted.plant(
        "master key",
        hex::decode(master.trim()).expect("hexadecimal"),
    );
    planted.plant("coordinator's token", &scene.api.token);
    let operator = scene.token("operator");
    planted.plant("operator's token", &operator);
    let added = says(
        &scene,
        &[
            "webhook",
            "add",
            "pager",
            "https://hooks.example.org/planted-path-4711",
        ],
    )
    .await;
    let secret = added
        .split_whitespace()
        .find(|word| word.starts_with("whsec_"));
    planted.plant("webhook's secret", secret.expect("shown once"));
    planted.plant("webhook's address", "hooks.example.org/planted-path-4711");
    scene.stop().await;

    let mut server = Served::start(scene.config());
    scene.api.url = format!("http://{}", server.internal);
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    let (token, magic) = mac.push_address().expect("an address");
    planted.plant("push token", token);
    planted.plant("PushMagic", magic);
    let profile = mac.profile().expect("a profile");
    let settings = profile.identity.scep().expect("SCEP");
    planted.plant("ticket", settings.challenge.as_ref().expect("a challenge"));
    let key = mac.identity().expect("an identity").key;
    planted.plant("Mac's key", key.private_key_to_pkcs8().expect("PKCS #8"));
    let serial = mac.serial();
    scene.api.verify(&serial, &["security_info"]).await;
    eventually("the push went out", async || {
        let metrics = scene.api.get("/metrics").await.text().await.expect("text");
        metrics.contains("attestd_pushes_total{outcome=\"accepted\"}")
    })
    .await;
    // What is wrong is refused, and what was sent is not repeated.
    let wrong = "att_planted-but-never-issued-token-0815";
    planted.plant("token that is none", wrong);
    let stranger = scene.api.with_token(wrong.to_owned());
    let mut said = Vec::new();
    let by_operator = scene.api.with_token(operator);
    let device_id = by_operator.device_id(&serial).await;
    for path in [
        "/metrics".to_owned(),
        "/readyz".to_owned(),
        "/internal/v1/status".to_owned(),
        format!("/internal/v1/devices/{device_id}"),
        format!("/internal/v1/devices/{device_id}/posture"),
        format!("/internal/v1/devices/{device_id}/verifications"),
        "/internal/v1/postures".to_owned(),
        "/internal/v1/audit".to_owned(),
    ] {
        said.push(by_operator.get(&path).await.text().await.expect("text"));
        said.push(stranger.get(&path).await.text().await.expect("text"));
    }
    let planted_body = "{\"claim\": \"planted-in-a-body-that-is-no-good\"}";
    planted.plant("body of a bad request", "planted-in-a-body-that-is-no-good");
    for path in [
        "/mdm/checkin",
        "/mdm/connect",
        "/scep?operation=PKIOperation",
        "/v1/enroll",
    ] {
        let method = if path.starts_with("/mdm") {
            Method::PUT
        } else {
            Method::POST
        };
        let request = reqwest::Client::new().request(method, scene.url(path));
        let answer = request.body(planted_body).send().await.expect("an answer");
        said.push(answer.text().await.expect("text"));
    }
    let mut shown = Vec::new();
    for words in [
        &["check-config"][..],
        &["token", "list"],
        &["webhook", "list"],
        &["push-cert", "list"],
        &["keys", "list"],
        &["secrets", "status"],
        &["receiver", "list"],
    ] {
        shown.push(says(&scene, words).await);
        shown.push(says(&scene, &[words, &["--json"]].concat()).await);
    }

    // It holds all of that in memory when it comes to its end, and no file of that is left behind.
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core = core.expect("a limit").split_whitespace().nth(4);
    assert!(matches!(core, Some("0" | "1")), "{limits}");
    assert!(!server.abort(), "it left a core dump");
    said.push(server.log());
    assert!(
        server.log().contains("TRACE"),
        "nothing was told at that level"
    );
    // To whoever may run commands, webhooks are listed by their addresses.
    let known = "hooks.example.org/planted-path-4711";
    said.extend(shown.iter().map(|text| text.replace(known, "")));
    for text in &said {
        let found = planted.in_what_was(text);
        let beginning: String = text.chars().take(200).collect();
        assert!(found.is_empty(), "{found:?} in: {beginning}");
    }
}
