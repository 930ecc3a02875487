//! Anybody reads the public feed, and can check it; whoever asks how often, it is made once.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::time::Duration;

use attestd::flows::bind_provider;
use attestd::ids::SessionId;
use attestd::publication::feed::reader::{Entry, Feed};
use attestd_sim::Provider;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::sign::Verifier;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};
use crate::harness::public_side::Answer;
use crate::harness::scene::{Backend, Scene, attestd};

const PATH: &str = "/v1/providers/attestation";
/// After this the feed is looked through again.
const RENEWED: Duration = Duration::from_secs(5);
/// For so long it may be told on.
const KEPT: Duration = Duration::from_secs(15);

async fn get(scene: &Scene, path: &str) -> Answer {
    scene.answer(scene.anybody(Method::GET, path)).await
}

/// The feed as it is now, read as JSON and by the one reader.
async fn feed(scene: &Scene) -> (Value, Feed) {
    scene.pass(RENEWED);
    let answer = get(scene, PATH).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let read = Feed::read(&answer.body).expect("a feed");
    (answer.json(), read)
}

/// The only provider of it.
async fn only(scene: &Scene) -> (Value, Entry) {
    let (json, mut read) = feed(scene).await;
    assert_eq!(read.providers.len(), 1, "{json:#}");
    (json["providers"][0].clone(), read.providers.remove(0))
}

/// Whether the blob of an entry is signed by its key, judged by OpenSSL.
fn is_signed(entry: &Entry) -> bool {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let mut octets = STANDARD.decode(&entry.se_public_key).expect("base64");
    if octets.len() == 64 {
        octets.insert(0, 4);
    }
    let mut context = BigNumContext::new().expect("a context");
    let point = EcPoint::from_bytes(&group, &octets, &mut context).expect("a point");
    let key = EcKey::from_public_key(&group, &point).expect("a key");
    let key = PKey::from_ec_key(key).expect("a key");
    let mut verifier = Verifier::new(MessageDigest::sha256(), &key).expect("a verifier");
    let signature = entry.signature_b64.as_ref().expect("a signature");
    let signature = STANDARD.decode(signature).expect("base64");
    let raw = entry.attestation_raw.as_ref().expect("a blob");
    verifier
        .verify_oneshot(&signature, raw)
        .expect("a signature")
}

journey! {
    async fn anybody_reads_what_is_known_of_a_provider_and_checks_it(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (none, _) = feed(scene).await;
        assert_eq!(none["providers"], Value::Null, "as the historic coordinator had it");
        let names: Vec<_> = none.as_object().expect("an object").keys().collect();
        assert_eq!(names, ["providers", "apple_root_ca_url", "apple_enterprise_root_ca", "verification_instructions",
            "anchor", "disclosure", "policy_id", "policy_waives"]);
        assert_eq!((&none["anchor"], &none["disclosure"]), (&json!("custom"), &json!("full")));

        let (mac, life, provider) = plane.routed().await;
        drop(life);
        let registered = provider.binding_request(Some(OWNER)).expect("a request");
        assert_eq!(api.bind("s", &registered).await.0, 200);
        let (shown, entry) = only(scene).await;
        let (binding, posture) = (api.binding("s").await, api.posture(&mac.serial()).await);
        for (name, value) in [
            ("serial_number", json!(mac.serial())), ("mda_serial", json!(mac.serial())),
            ("trust_level", json!("hardware")), ("status", json!("online")), ("se_key_bound", json!("bound")),
            ("posture_verdict", json!("affirming")), ("reasons", json!([])), ("models", Value::Null),
            ("se_public_key", json!(provider.public_key().expect("a key"))),
            ("usable_until", posture["usable_until"].clone()), ("residence_proved", json!(false)),
            ("mda_os_version", posture["claims"]["os_version"]["value"].clone()),
            ("mda_sepos_version", posture["claims"]["sepos_version"]["value"].clone()),
            ("nonce_scheme", json!("transcript-v1")), ("app_attest_authorized", json!(false)),
            ("verification", json!({ "app_attest": { "state": "unsupported" }, "legacy": { "state": "verified" } })),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        for (name, other) in [("trust_level", &binding), ("se_key_bound", &binding), ("reasons", &binding)] {
            assert_eq!(shown[name], other[name], "{name}");
        }
        for name in ["mdm_verified", "mda_verified", "acme_verified", "secure_enclave", "sip_enabled", "secure_boot_enabled"] {
            assert_eq!(shown[name], true, "{name}");
        }
        // What nobody here knows is not said.
        assert!(shown.get("memory_gb").is_none() && shown.get("gpu_cores").is_none());
        let device_id = api.device_id(&mac.serial()).await;
        assert!(!shown.to_string().contains(&device_id));

        // The word of the provider, byte for byte; and Apple's, to the root.
for name in ["attestation_raw_b64", "signature_b64"] {
            assert_eq!(shown[name], registered[name], "{name}");
        }
        assert!(is_signed(&entry));
        let chain = entry.mda_cert_chain.as_ref().expect("a chain");
        let files: Vec<_> = chain.iter().enumerate().map(|(number, der)| {
            let file = scene.home.path().join(format!("{number}.der"));
            std::fs::write(&file, der).expect("written");
            file.display().to_string()
        }).collect();
        let root = std::fs::read_to_string(scene.config()).expect("a configuration");
        let root = root.lines().filter_map(|line| line.strip_prefix("root = \"")).next_back().expect("a root");
        let verified = attestd(&["verify", "mda", &files[0], &files[1], "--root", root.trim_end_matches('"'),
            "--serial", &mac.serial(), "--at", &scene.now().to_string(), "--json"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let verified: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
        assert_eq!(shown["mda_leaf_not_before"], verified["not_before"]);

        // By its name alone.
        let id = &entry.provider_id;
        assert_eq!(shown["evidence_url"], json!(format!("{}/v1/evidence/{id}", scene.base_url)));
        let about = get(scene, &format!("/v1/providers/{id}/attestation")).await;
        assert_eq!((about.status, about.json()["providers"].clone()), (200, json!([shown])));
        for nobody in ["6f0c0f5e-2b5e-8a41-9f1a-000000000001", &device_id, &mac.serial(), "s"] {
            let answer = get(scene, &format!("/v1/providers/{nobody}/attestation")).await;
            assert_eq!((answer.status, &answer.json()["type"]), (404, &json!("/problems/provider-not-found")));
        }

        // Another process of the same provider is the same provider.
        let mut again = provider.clone();
        again.restart().expect("restarts");
        api.bound("s2", &again, Some(OWNER)).await;
        assert_eq!(only(scene).await.1.provider_id, *id);
        assert_eq!(api.unbind("s", "").await, 204);
        assert_eq!(only(scene).await.1.provider_id, *id);
        assert_eq!(api.unbind("s2", "?resumable_for=90").await, 204);
        assert_eq!(feed(scene).await.0["providers"], Value::Null);
    }
}

/// Every text in it, and what it decodes to.
fn texts(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::String(text) => {
            found.extend(STANDARD.decode(text));
            found.push(text.clone().into_bytes());
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn says(value: &Value, secret: &str) -> bool {
    let mut found = Vec::new();
    texts(value, &mut found);
    let is_in = |text: &Vec<u8>| {
        text.windows(secret.len())
            .any(|part| part == secret.as_bytes())
    };
    found.iter().any(is_in)
}

journey! {
    async fn a_redacted_feed_has_nothing_that_a_serial_number_can_be_had_from(backend: Backend) {
        let no_release = [("release = true", "release = false")];
        let plane = Plane::changed(backend, &no_release, "[feed]\ndisclosure = \"redacted\"\n").await;
        let scene = &plane.scene;
        let (mac, life, provider) = plane.routed().await;
        drop(life);
        let (shown, entry) = only(scene).await;
        for secret in [mac.serial(), mac.udid(), mac.spec().provisioning_udid, scene.api.device_id(&mac.serial()).await] {
            assert!(!says(&shown, &secret), "{secret}");
        }
        assert!(entry.serial_number.is_none() && entry.mda_cert_chain.is_none());
        // With a signature over everything else, a serial number could be guessed.
        assert!(entry.attestation_raw.is_none() && entry.signature_b64.is_none());
        // What is said all the same.
        assert!(entry.mdm_verified && entry.mda_verified && entry.acme_verified);
        assert_eq!(entry.se_public_key, provider.public_key().expect("a key"));
        for name in ["mda_os_version", "mda_sepos_version", "nonce_scheme", "mda_leaf_not_before", "evidence_url"] {
            assert!(shown[name].is_string(), "{name}");
        }
        let about = get(scene, &format!("/v1/providers/{}/attestation", entry.provider_id)).await;
        assert_eq!((about.json()["providers"][0].clone(), about.json()["disclosure"].clone()), (shown, json!("redacted")));
    }
}

journey! {
    async fn a_thousand_readers_cost_one_look(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let settings = std::fs::read_to_string(scene.config()).expect("a configuration");
        assert!(!settings.contains("feed_per_minute"), "the usual limit");
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        let looks = async || scene.counted("attestd_feed_renewals_total", &[]).await;
        assert_eq!(looks().await, 0, "nobody asked");

        // One address has its share of that.
        let client = Client::builder().no_proxy().build().expect("a client");
        let url = scene.url(PATH);
        let request = || client.get(&url).send();
        let mut answers = [0, 0];
        for _ in 0..10 {
            let burst = futures_util::future::join_all((0..100).map(|_| request())).await;
            for answer in burst {
                let status = answer.expect("an answer").status().as_u16();
                answers[0] += u32::from(status == 200);
                answers[1] += u32::from(status == 429);
            }
        }
        assert!(answers[0] >= 52 && answers[0] <= 70 && answers[0] + answers[1] == 1_000, "{answers:?}");
        assert_eq!(looks().await, 1);
    }
}

/// Without the limit for one address.
async fn unlimited(backend: Backend) -> Plane {
    let mut plane = Plane::new(backend).await;
    let settings = std::fs::read_to_string(plane.scene.config()).expect("a configuration");
    let settings = settings.replace("[public]\n", "[public]\nfeed_per_minute = 1000000\n");
    std::fs::write(plane.scene.config(), settings).expect("written");
    plane.scene.stop().await;
    plane.scene.start().await;
    plane
}

journey! {
    async fn what_has_not_changed_is_neither_made_nor_sent_again(backend: Backend) {
        let plane = unlimited(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, provider) = plane.routed().await;
        drop(life);
        let looks = async || scene.counted("attestd_feed_renewals_total", &[]).await;
        let client = Client::builder().no_proxy().build().expect("a client");
        let ask = async |headers: &[(&str, &str)]| {
            let request = client.get(scene.url(PATH));
            let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
            scene.answer(request).await
        };
        let plain = ask(&[]).await;
        assert_eq!((plain.status, plain.header("content-type"), plain.header("content-encoding")), (200, "application/json", ""));
        assert_eq!((plain.header("cache-control"), plain.header("vary")), ("public, max-age=10", "accept-encoding"));
        assert_eq!(plain.header("access-control-allow-origin"), "*");
        assert_eq!(plain.header("content-length"), plain.body.len().to_string());
        let packed = ask(&[("accept-encoding", "br, gzip;q=0.8")]).await;
        assert_eq!((packed.status, packed.header("content-encoding"), packed.header("vary")), (200, "gzip", "accept-encoding"));
        let mut unpacked = Vec::new();
        GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(unpacked == plain.body && packed.body.len() < plain.body.len());
        assert_ne!(plain.header("etag"), packed.header("etag"), "two codings, two strong tags");
        let tag = plain.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 30, "{tag}");

        let burst = (0..1_000).map(|number| {
            let tag = if number % 2 == 0 { tag.as_str() } else { "\"another\"" };
            client.get(scene.url(PATH)).header("if-none-match", tag).send()
        });
        let mut codes = BTreeSet::new();
        let mut places = 0;
        for answer in futures_util::StreamExt::collect::<Vec<_>>(
            futures_util::StreamExt::buffer_unordered(futures_util::stream::iter(burst), 6)).await {
            let answer = answer.expect("an answer");
            codes.insert(answer.status().as_u16());
            if answer.status() == 304 {
                assert_eq!(answer.headers()["etag"], tag.as_str());
                places += 1;
            } else {
                assert!(answer.bytes().await.expect("a body") == plain.body);
            }
        }
        assert_eq!((codes, places), (BTreeSet::from([200, 304]), 500));
        assert_eq!(looks().await, 1, "for a thousand readers");

        // Time goes on, challenges are answered, and nothing of that is to be read.
        for _ in 0..3 {
            scene.pass(Duration::from_secs(60));
            assert_eq!(api.challenge("s", &provider).await["routable"], true);
            assert_eq!(ask(&[("if-none-match", &format!("\"x\", {tag}"))]).await.status, 304);
        }
        assert_eq!(looks().await, 4);
        // What changes is there after five seconds.
        mac.connect().await.expect("a session");
        let mut liar = provider.clone();
        liar.truth.sip_enabled = false;
        api.challenge("s", &liar).await;
        assert_eq!(ask(&[("if-none-match", &tag)]).await.status, 304);
        scene.pass(RENEWED);
        let changed = ask(&[("if-none-match", &tag)]).await;
        assert_eq!(changed.status, 200);
        let shown = &changed.json()["providers"][0];
        let binding = api.binding("s").await;
        for name in ["trust_level", "se_key_bound", "reasons"] {
            assert_eq!(shown[name], binding[name], "{name}");
        }
        assert_eq!((&shown["status"], &shown["posture_verdict"], &shown["sip_enabled"]),
            (&json!("untrusted"), &json!("contraindicated"), &json!(false)));
        for name in ["mdm_verified", "mda_verified", "acme_verified"] {
            assert_eq!(shown[name], false, "{name}");
        }
        assert!(shown.get("mda_cert_chain_b64").is_none() && shown.get("mda_os_version").is_none());
        assert!(shown["attestation_raw_b64"].is_string());
    }
}

journey! {
    async fn what_ends_is_not_told_on(backend: Backend) {
        let plane = unlimited(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (_mac, life, provider) = plane.routed().await;
        drop(life);
        let (shown, entry) = only(scene).await;
        let until = entry.usable_until.expect("an end");
        assert_eq!(shown["usable_until"], json!(until.to_string()));
        // Silence: first the session, then what is known of the Mac.
        scene.pass(Duration::from_secs(7 * 60));
        let (shown, _) = only(scene).await;
        assert_eq!((&shown["status"], &shown["trust_level"]), (&json!("offline"), &json!("hardware")));
        assert_eq!((&shown["reasons"], &shown["verification"]["legacy"]["state"]), (&json!(["challenge_stale"]), &json!("offline")));
        api.challenge("s", &provider).await;

        // While somebody may still be shown it, it must hold.
        scene.pass(until.since(scene.now()).checked_sub(2 * KEPT).expect("later"));
        api.challenge("s", &provider).await;
        let mut worse = 0;
        while scene.now() < until.plus(KEPT) {
            let (shown, _) = only(scene).await;
            let binding = api.binding("s").await;
            let ends = scene.now().plus(KEPT) >= until;
            assert_eq!(shown["trust_level"] == "hardware", !ends, "{}", scene.now());
            assert_eq!(shown["usable_until"].is_string(), !ends);
            assert_eq!(binding["trust_level"] == "hardware", scene.now() < until);
            if scene.now() >= until || !ends {
                for name in ["trust_level", "se_key_bound", "reasons"] {
                    assert_eq!(shown[name], binding[name], "{name}");
                }
            } else {
                worse += 1;
            }
            assert_eq!(shown["mdm_verified"], json!(!ends));
        }
        assert!((1..=3).contains(&worse), "{worse}");
    }
}

journey! {
    async fn a_session_that_only_claims_a_mac_shows_nothing_of_it(backend: Backend) {
        let plane = Plane::new(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let (mac, life, owner) = plane.routed().await;
        drop(life);
        let mut stranger = plane.provider_on(&mac);
        api.bound("stranger", &stranger, Some("acct-stranger")).await;
        // A copied blob is not the word of the process that sends it.
        let mut copied = owner.binding_request(Some("acct-stranger")).expect("a request");
        stranger.restart().expect("restarts");
        copied["encryption_public_key"] = json!(stranger.encryption_key());
        assert_eq!(api.bind("copied", &copied).await.0, 200);

        let (json, read) = feed(scene).await;
        assert_eq!(read.providers.len(), 2, "{json:#}");
        let key = stranger.public_key().expect("a key");
        let all = json["providers"].as_array().expect("a list");
        let of = |key: &str| all.iter().find(|it| it["se_public_key"] == key).expect("a provider");
        let shown = of(&key);
        for (name, value) in [
            ("trust_level", json!("self_signed")), ("se_key_bound", json!("none")), ("posture_verdict", json!("unknown")),
            ("mdm_verified", json!(false)), ("mda_verified", json!(false)), ("acme_verified", json!(false)),
            ("usable_until", Value::Null), ("posture_observed_at", Value::Null),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        assert!(shown["reasons"].as_array().expect("a list").contains(&json!("binding_unproved")));
        for name in ["serial_number", "mda_cert_chain_b64", "mda_serial", "mda_udid", "mda_os_version", "nonce_scheme"] {
            assert!(shown.get(name).is_none(), "{name}");
        }
        let owners = of(&owner.public_key().expect("a key"));
        assert_eq!((&owners["trust_level"], &owners["se_key_bound"]), (&json!("hardware"), &json!("bound")));

        // An operator who withdraws the Mac changes its owner's entry only.
        let before = shown.clone();
        let operator = api.with_token(scene.token("operator"));
        let path = format!("/internal/v1/devices/{}/revoke", api.device_id(&mac.serial()).await);
        let (status, answer) = operator.ask(Method::POST, &path, &json!({ "reason": "lost" })).await;
        assert_eq!(status, 200, "{answer}");
        let (json, _) = feed(scene).await;
        let all = json["providers"].as_array().expect("a list");
        let of = |key: &str| all.iter().find(|it| it["se_public_key"] == key).expect("a provider");
        assert_eq!(*of(&key), before);
        let owners = of(&owner.public_key().expect("a key"));
        assert_eq!((&owners["status"], &owners["verification"]["legacy"]["state"]), (&json!("untrusted"), &json!("revoked")));
        assert_eq!((&owners["trust_level"], &owners["mda_verified"]), (&json!("self_signed"), &json!(false)));
    }
}

journey! {
    async fn nothing_is_published_by_a_clock_that_is_not_believed(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let (_mac, life, _provider) = plane.routed().await;
        drop(life);
        let (_, entry) = only(scene).await;
        let now = scene.now();
        scene.set_clock(now.minus(Duration::from_secs(3_600)));
        for path in [PATH.to_owned(), format!("/v1/providers/{}/attestation", entry.provider_id)] {
            let answer = get(scene, &path).await;
            assert_eq!((answer.status, &answer.json()["type"]), (503, &json!("/problems/service-degraded")), "{path}");
        }
        scene.set_clock(now);
        assert_eq!(only(scene).await.1.provider_id, entry.provider_id);
    }
}

journey! {
    async fn of_many_providers_only_those_are_written_of_whom_something_is_new(backend: Backend) {
        const MANY: u64 = 60;
        let plane = unlimited(backend).await;
        let (scene, api) = (&plane.scene, &plane.scene.api);
        let written = async || scene.counted("attestd_feed_entries_written_total", &[]).await;
        let mut providers = Vec::new();
        for number in 0..MANY {
            let serial = format!("FXSYNTH{number:04}");
            let provider = Provider::new(&serial, scene.world.clock()).expect("a provider");
            api.bound(&format!("ws-{number}"), &provider, None).await;
            providers.push(provider);
        }
        let (json, read) = feed(scene).await;
        assert_eq!((read.providers.len() as u64, written().await), (MANY, MANY));
        let ids: Vec<_> = read.providers.iter().map(|it| &it.provider_id).collect();
        assert!(ids.is_sorted(), "in an order that tells nothing");
        for (entry, shown) in read.providers.iter().zip(json["providers"].as_array().expect("a list")) {
            assert!(is_signed(entry));
            assert_eq!((shown["trust_level"].clone(), shown["posture_verdict"].clone()), (json!("self_signed"), json!("unknown")));
            assert_eq!(shown["reasons"][0], "device_not_found");
        }
        // Some answer, one begins anew, one goes.
        for (number, provider) in providers.iter().enumerate().take(9) {
            api.challenge(&format!("ws-{number}"), provider).await;
        }
        feed(scene).await;
        let answered = written().await;
        assert!(answered <= MANY + 9, "{answered}");
        providers[7].restart().expect("restarts");
        api.bound("ws-7", &providers[7], None).await;
        assert_eq!(api.unbind("ws-8", "").await, 204);
        assert_eq!(feed(scene).await.1.providers.len() as u64, MANY - 1);
        assert_eq!(written().await, answered + 1);
        for _ in 0..3 {
            feed(scene).await;
        }
        assert_eq!(written().await, answered + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_what_another_server_changes_is_shown() {
    let plane = unlimited(Backend::PostgreSql).await;
    let scene = &plane.scene;
    let (_mac, life, _provider) = plane.routed().await;
    drop(life);
    assert_eq!(only(scene).await.1.status, "online");
    let other = scene.second_node().await;
    let session_id = SessionId::parse("s").expect("a session");
    let ended = bind_provider::end(&other, &session_id, None).await;
    assert!(ended.expect("ends"));
    eventually("nobody is shown", || async {
        feed(scene).await.1.providers.is_empty()
    })
    .await;
}

#[test]
fn the_feed_is_configured_and_a_misspelt_word_keeps_the_service_from_starting() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("server");
    let folder = folder.to_str().expect("a path");
    let made = attestd(&["init", folder, "--base-url", "https://mdm.example.org"]);
    assert!(made.status.success(), "{made:?}");
    let file = format!("{folder}/attestd.toml");
    let settings = std::fs::read_to_string(&file).expect("a configuration");
    for (further, is_usable) in [
        ("[feed]\ndisclosure = \"redacted\"\n", true),
        ("[feed]\n", true),
        ("[feed]\ndisclosure = \"Redacted\"\n", false),
        ("[feed]\ndisclose = \"redacted\"\n", false),
    ] {
        std::fs::write(&file, format!("{settings}\n{further}")).expect("written");
        let checked = attestd(&["check-config", "--config", &file]);
        assert_eq!(checked.status.success(), is_usable, "{further} {checked:?}");
    }
}
