//! Whoever saved a reply checks it down to the root, and the feed with it, by both verifiers (docs/verify.md).

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::coordinate::{HELLO, coordinator, routed};
use crate::harness::plane::Plane;

/// Typed into a shell in this folder. Our own process serves meanwhile.
async fn typed(folder: &Path, line: &str) -> Output {
    let mut shell = tokio::process::Command::new("sh");
    let shell = shell.arg("-c").arg(line).current_dir(folder);
    shell.output().await.expect("a shell")
}

/// What an outsider trusts, from where they choose to have it.
async fn trust(plane: &Plane, folder: &Path) {
    let scene = &plane.scene;
    let keys = scene.anybody(reqwest::Method::GET, "/.well-known/jwks-history.json");
    let keys = scene.answer(keys).await.json();
    let root = scene.world.apple().root_pem().expect("a root");
    let der = openssl::x509::X509::from_pem(root.as_ref()).and_then(|root| root.to_der());
    let pin = hex::encode(openssl::sha::sha256(&der.expect("DER")));
    let log = scene.anybody(reqwest::Method::GET, "/log/verifier-key");
    let log = scene.answer(log).await.body;
    let log = String::from_utf8_lossy(&log);
    let trust = json!({
        "log_vkey": log.trim_end(), "witness_quorum": 0, "mda_root_sha256": pin, "mda_root_pem_file": "root.pem", "jwks": keys, "issuer": scene.base_url,
    });
    std::fs::write(folder.join("root.pem"), root).expect("written");
    std::fs::write(folder.join("trust.json"), trust.to_string()).expect("written");
}

/// Exit status and claims, where both verifiers find the same.
async fn checked(plane: &Plane, folder: &Path, words: &str) -> (Option<i32>, Vec<String>) {
    let at = plane.scene.now();
    let ours = env!("CARGO_BIN_EXE_attestd");
    let theirs = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify/response.py");
    let mut found = Vec::new();
    for program in [
        format!("{ours} verify"),
        format!("/usr/bin/python3 -B {theirs}"),
    ] {
        let said = typed(
            folder,
            &format!("{program} {words} --trust trust.json --at {at}"),
        )
        .await;
        let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        found.push((said.status.code(), claims(&answer)));
    }
    let theirs = found.pop();
    let ours = found.pop();
    assert_eq!(ours, theirs, "{words}");
    ours.expect("an answer")
}

fn claims(answer: &Value) -> Vec<String> {
    let providers = answer["providers"].as_array().into_iter().flatten();
    let findings = providers.map(|provider| &provider["findings"]);
    let findings = findings.chain([&answer["findings"]]);
    let findings = findings.filter_map(Value::as_array).flatten();
    findings
        .map(|finding| {
            let words = ["in", "claim", "standing", "by"].map(|name| finding[name].as_str());
            let words: Vec<_> = words.into_iter().flatten().collect();
            words.join(" ")
        })
        .collect()
}

const LISTED: [&str; 5] = [
    "listed asserted service",
    "registration proved se_key",
    "apple proved custom",
    "apple_posture proved custom",
    "key_named asserted service",
];

const DOWN_TO_THE_ROOT: [&str; 21] = [
    "reply signed proved se_key",
    "reply attested asserted coordinator",
    "feed listed asserted service",
    "feed registration proved se_key",
    "feed apple proved custom",
    "feed apple_posture proved custom",
    "feed key_named asserted service",
    "evidence same_key proved arithmetic",
    "evidence subject proved arithmetic",
    "evidence registration proved se_key",
    "evidence challenge proved se_key",
    "evidence status proved se_key",
    "evidence apple proved custom",
    "evidence key_named proved custom",
    "evidence apple_posture proved custom",
    "evidence security_info asserted service",
    "evidence ear proved service",
    "evidence sealed proved service",
    "evidence policy proved arithmetic",
    "evidence judgement asserted service",
    "evidence log proved log",
];

journey! {
    async fn a_saved_reply_and_the_feed_are_checked_down_to_the_root_by_both_verifiers(backend: Backend) {
        let plane = Plane::new(backend).await;
        let coordinator = coordinator(&plane, &plane.scene.api.url).await;
        routed(&plane, &coordinator, "s").await;
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        trust(&plane, folder).await;
        let url = coordinator.url();
        let streamed = HELLO.replace("{\"model", "{\"stream\":true,\"model");
        for (name, asked) in [("whole", HELLO), ("streamed", &streamed)] {
            let line = format!("curl -s -D {name}.headers -o {name}.body {url}/v1/chat/completions -d '{asked}'");
            assert!(typed(folder, &line).await.status.success());
        }
        plane.scene.pass(Duration::from_secs(5));
        let feed = format!("{url}/v1/providers/attestation");
        let of = |name: &str, feed: &str| format!("response --headers {name}.headers --body {name}.body --feed {feed}");
        for name in ["whole", "streamed"] {
            let (status, found) = checked(&plane, folder, &of(name, &feed)).await;
            assert_eq!((status, found), (Some(0), DOWN_TO_THE_ROOT.map(str::to_owned).to_vec()), "{name}");
        }
        let (status, found) = checked(&plane, folder, &format!("feed {feed}")).await;
        assert_eq!((status, found), (Some(0), LISTED.map(str::to_owned).to_vec()));
        let required = format!("{} verify {} --trust trust.json --at {} --require key_named --require sealed",
            env!("CARGO_BIN_EXE_attestd"), of("whole", &feed), plane.scene.now());
        assert!(typed(folder, &required).await.status.success());

        // Saved with it, for later. Without the evidence less is claimed, and what is wanted may be demanded.
        assert!(typed(folder, &format!("curl -s {feed} -o feed.json")).await.status.success());
        let (status, found) = checked(&plane, folder, &of("whole", "feed.json")).await;
        assert_eq!((status, found), (Some(0), DOWN_TO_THE_ROOT[..7].iter().map(|&it| it.to_owned()).collect()));
        let required = required.replace(&feed, "feed.json");
        assert_eq!(typed(folder, &required).await.status.code(), Some(1));

        // Another body under the same headers; the reply of the other request.
        let changed = "sed 's/Hello/Hallo/' whole.body > changed.body; cp whole.headers changed.headers; \
            cp streamed.body other.body; cp whole.headers other.headers";
        assert!(typed(folder, changed).await.status.success());
        for name in ["changed", "other"] {
            let (status, found) = checked(&plane, folder, &of(name, &feed)).await;
            assert_eq!((status, found[0].as_str()), (Some(1), "reply signed failed"), "{name}");
        }

        // A bundle is had from an address, too.
        let id = serde_json::from_slice::<Value>(&std::fs::read(folder.join("feed.json")).expect("saved")).expect("JSON");
        let id = id["providers"][0]["provider_id"].as_str().expect("an id").to_owned();
        let bundle = format!("{} verify bundle {url}/v1/evidence/{id} --trust trust.json --at {} --require apple_posture",
            env!("CARGO_BIN_EXE_attestd"), plane.scene.now());
        assert!(typed(folder, &bundle).await.status.success());

        // Who has gone is not listed: the signature still holds, and leads nowhere.
        coordinator.disconnect("s").await.expect("ends");
        plane.scene.pass(Duration::from_secs(20));
        let (status, found) = checked(&plane, folder, &of("whole", &feed)).await;
        assert_eq!((status, found), (Some(1), vec![
            DOWN_TO_THE_ROOT[0].to_owned(), DOWN_TO_THE_ROOT[1].to_owned(), "feed listed failed".to_owned(),
        ]));
    }
}

/// A server that says this to everybody.
async fn saying(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!(
        "http://{}/v1/providers/attestation",
        listener.local_addr().expect("it")
    );
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(&answer).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_url_leads_to_is_bounded_and_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let head =
        |status: &str, more: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}\r\n");
    let moved = saying(head("302 Found", "location: http://127.0.0.1:1/\r\n").into_bytes()).await;
    let gone = saying(head("404 Not Found", "content-length: 0\r\n").into_bytes()).await;
    let no_json =
        saying([head("200 OK", "content-length: 2\r\n").as_bytes(), b"<a"].concat()).await;
    let cut = saying([head("200 OK", "content-length: 200\r\n").as_bytes(), b"{"].concat()).await;
    let long = vec![b' '; 2 * 1024 * 1024];
    let endless = [head("200 OK", "").as_bytes(), b"{", &long].concat();
    let endless = saying(endless).await;
    let ours = env!("CARGO_BIN_EXE_attestd");
    for (what, url, why) in [
        ("feed", moved.as_str(), "answered with 302"),
        ("feed", &gone, "answered with 404"),
        ("feed", &no_json, "is not JSON"),
        ("feed", &cut, "the connection ended"),
        ("bundle", &endless, "more than is read"),
        ("feed", "http://127.0.0.1:1/", "no connection could be made"),
        ("feed", "http://192.0.2.1/", "for this machine only"),
        (
            "feed",
            "http://localhost.example.org/",
            "for this machine only",
        ),
        ("feed", "https://user@example.org/", "without user"),
        (
            "feed",
            "https://127.0.0.1:1/#part",
            "without user, password or fragment",
        ),
    ] {
        let said = typed(folder.path(), &format!("{ours} verify {what} '{url}'")).await;
        let told = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{url}: {told}");
        assert!(told.contains(why), "{url}: {told}");
    }
}

/// A block of commands of docs/verify.md, behind these words.
fn by_hand(behind: &str) -> String {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify.md");
    let document = std::fs::read_to_string(document).expect("a document");
    let (_, rest) = document.split_once(behind).expect(behind);
    let (_, rest) = rest.split_once("```sh\n").expect("a block");
    rest.split_once("\n```").expect("its end").0.to_owned()
}

journey! {
    async fn the_lines_of_the_document_check_a_reply_by_hand(backend: Backend) {
        let plane = Plane::new(backend).await;
        let coordinator = coordinator(&plane, &plane.scene.api.url).await;
        routed(&plane, &coordinator, "s").await;
        plane.scene.pass(Duration::from_secs(5));
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let root = plane.scene.world.apple().root_pem().expect("a root");
        std::fs::write(folder.join("apple_root.pem"), root).expect("written");

        let lines = by_hand("A reply, from its bytes to Apple's root");
        let lines = lines.replace("https://api.example.org", &coordinator.url());
        let done = typed(folder, &format!("set -e\n{lines}")).await;
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{done:?}");
        assert_eq!(said.matches("Verified OK").count(), 2, "{said}");
        for found in ["leaf.pem: OK", "the leaf names the key, and says that SIP is on"] {
            assert!(said.contains(found), "{found}: {said}");
        }

        let streamed = HELLO.replace("{\"model", "{\"stream\":true,\"model");
        let save = format!("curl -s -o body {}/v1/chat/completions -d '{streamed}'", coordinator.url());
        let lines = by_hand("Of a streamed reply what is signed");
        let done = typed(folder, &format!("set -e\n{save}\n{lines}")).await;
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "Verified OK", "{done:?}");
    }
}
