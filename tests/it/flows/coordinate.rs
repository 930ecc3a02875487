//! Somebody asks a coordinator for a completion, saves the reply, and checks who made it; the coordinator
//! follows what this service tells, and sends nothing to who is not trusted.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attestd::ids::sha256;
use attestd::publication::trust_headers::TrustHeaders;
use attestd_sim::coordinator::Api;
use attestd_sim::{Coordinator, CoordinatorOptions, Mac, ProviderLie};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::harness::inside::eventually;
use crate::harness::plane::{OWNER, Plane};

/// The second line of the public page, with another scheme, host and port.
const PAGE: &str = r#"curl -i https://api.darkbloom.dev/v1/chat/completions \
  -H "Authorization: Bearer $DARKBLOOM_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model":"mlx-community/gemma-4-26b-a4b-it-8bit","messages":[{"role":"user","content":"Hello"}]}'"#;

pub(super) async fn coordinator(plane: &Plane, internal_url: &str) -> Coordinator {
    let scene = &plane.scene;
    let options = CoordinatorOptions {
        api: Api::new(internal_url, &scene.api.token),
        public_url: scene.base_url.clone(),
        public_root: scene.tls_root.clone(),
        clock: scene.world.clock().clone(),
        port: 0,
    };
    Coordinator::start(options).await.expect("starts")
}

/// A Mac of [`OWNER`], attested, whose provider is connected and sent requests.
pub(super) async fn routed(plane: &Plane, coordinator: &Coordinator, session: &str) -> Mac {
    let (mac, life) = plane.mac_of(Some(OWNER)).await;
    let provider = plane.provider_on(&mac);
    let connected = coordinator.connect(session, provider, Some(OWNER)).await;
    connected.expect("connects");
    plane
        .once(session, "routable", |it| it["routable"] == true)
        .await;
    drop(life);
    caught_up(plane, coordinator).await;
    mac
}

/// What is printed when this is typed into a shell.
async fn shell(folder: &Path, line: &str) -> String {
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(line).current_dir(folder);
    let ended = shell.output().await.expect("a shell");
    assert!(ended.status.success(), "{line}: {ended:?}");
    String::from_utf8(ended.stdout).expect("text")
}

async fn ask(coordinator: &Coordinator, body: &str) -> reqwest::Response {
    let url = format!("{}/v1/chat/completions", coordinator.url());
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    client
        .post(url)
        .body(body.to_owned())
        .send()
        .await
        .expect("an answer")
}

pub(super) const HELLO: &str = r#"{"model":"any","messages":[{"role":"user","content":"Hello"}]}"#;

/// Status, and what it says of who answered.
async fn hello(coordinator: &Coordinator) -> (u16, String) {
    let answer = ask(coordinator, HELLO).await;
    let attested = answer
        .headers()
        .get("x-provider-attested")
        .expect("always told");
    (
        answer.status().as_u16(),
        attested.to_str().expect("text").to_owned(),
    )
}

async fn once_it_says(coordinator: &Coordinator, status: u16, attested: &str) {
    let wanted = (status, attested.to_owned());
    eventually(attested, async || hello(coordinator).await == wanted).await;
}

journey! {
    async fn the_two_lines_of_the_public_page_work_and_openssl_verifies_what_they_bring(backend: Backend) {
        let plane = Plane::new(backend).await;
        let coordinator = coordinator(&plane, &plane.scene.api.url).await;
        let mac = routed(&plane, &coordinator, "s").await;
        let folder = tempfile::tempdir().expect("a folder");
        let line = PAGE.replace("https://api.darkbloom.dev", &coordinator.url());
        let shown = shell(folder.path(), &line).await;
        for promised in ["x-provider-attested: true\r\n", "x-provider-trust-level: hardware\r\n", "x-se-signature: M",
            "x-response-hash: sha256:", "x-se-public-key: MFkwEwYHKoZIzj0C"] {
            assert!(shown.contains(promised), "{promised}: {shown}");
        }

        // Saved, it is checked with nothing of ours.
        let line = line.replace("curl -i", "curl -s --dump-header headers --output body");
        let checked = "value() { grep -i \"^$1:\" headers | tr -d '\\r' | cut -d' ' -f2-; }\n\
            value x-se-public-key | base64 -d > key.der; value x-se-signature | base64 -d > body.sig\n\
            sha256sum body | cut -c 1-64; value x-response-hash\n\
            openssl dgst -sha256 -keyform DER -verify key.der -signature body.sig body";
        let said = shell(folder.path(), &format!("{line}\n{checked}")).await;
        let said: Vec<_> = said.lines().collect();
        assert_eq!((format!("sha256:{}", said[0]).as_str(), said[2]), (said[1], "Verified OK"));
        let body = std::fs::read(folder.path().join("body")).expect("saved");
        let reply: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(reply["choices"][0]["message"]["content"], json!("No model runs here. You said: Hello"));
        let saved = std::fs::read(folder.path().join("headers")).expect("saved");
        let headers = TrustHeaders::read(&saved).expect("headers");
        assert!(headers.verify(&body).is_ok() && headers.verify(b"another").is_err());

        // The first line: blobs, keys and chains of all providers, on the same origin, without anybody's leave.
        plane.scene.pass(Duration::from_secs(5));
        let line = format!("curl -s {}/v1/providers/attestation", coordinator.url());
        let feed: Value = serde_json::from_str(&shell(folder.path(), &line).await).expect("JSON");
        let listed = &feed["providers"][0];
        assert_eq!(listed["serial_number"], json!(mac.serial()));
        for member in ["attestation_raw_b64", "signature_b64", "se_public_key", "mda_cert_chain_b64"] {
            assert!(listed.get(member).is_some(), "{member}");
        }
        let id = headers.provider_id.expect("an id");
        assert_eq!(listed["provider_id"], json!(id));
        // What is passed on comes as it was sent: it is kept by its name, and may be compressed.
        let passed = format!("curl -s --compressed -o bundle -D told {}/v1/evidence/{id}", coordinator.url());
        shell(folder.path(), &passed).await;
        let told = std::fs::read_to_string(folder.path().join("told")).expect("saved");
        assert!(told.contains("content-digest: sha-256=") && told.contains("etag: "), "{told}");
    }
}

journey! {
    async fn a_streamed_reply_ends_with_its_signature_in_trailers_and_in_a_last_event(backend: Backend) {
        let plane = Plane::new(backend).await;
        let coordinator = coordinator(&plane, &plane.scene.api.url).await;
        routed(&plane, &coordinator, "s").await;
        let streamed = HELLO.replace("{\"model", "{\"stream\":true,\"model");
        let folder = tempfile::tempdir().expect("a folder");
        // HTTP/1.1 brings trailers to who says that it reads them; HTTP/2 to everybody.
        for (how, are_there) in [("-H 'TE: trailers'", true), ("", false), ("--http2-prior-knowledge", true)] {
            let line = format!(
                "curl -sN {how} --dump-header headers --output body {}/v1/chat/completions -d '{streamed}'",
                coordinator.url(),
            );
            shell(folder.path(), &line).await;
            let saved = std::fs::read_to_string(folder.path().join("headers")).expect("saved");
            let body = std::fs::read_to_string(folder.path().join("body")).expect("saved");
            let (before, trailers) = saved.split_once("\r\n\r\n").expect("headers and an empty line");
            let (before, trailers) = (before.to_lowercase(), trailers.to_lowercase());
            assert!(before.contains("trailer: x-se-signature, x-response-hash"), "{before}");
            assert!(before.contains("x-se-public-key: ") && !before.contains("\r\nx-se-signature: "), "{before}");
            assert_eq!(trailers.contains("x-se-signature: ") && trailers.contains("x-response-hash: "), are_there, "{how}");
            let headers = TrustHeaders::read(saved.as_bytes()).expect("headers");
            let verified = headers.verify(body.as_bytes()).expect("signed");
            // Everything before the last event but one, which holds nothing but the signature.
            let (covered, seal) = body.split_once("data: {\"choices\":[],\"se_signature\":").expect("a seal");
            assert_eq!(verified.covered, covered.as_bytes());
            assert!(seal.ends_with("}\n\ndata: [DONE]\n\n"), "{seal}");
            assert!(covered.matches("chat.completion.chunk").count() > 4, "{covered}");
            let hash = hex::encode(sha256(covered.as_bytes()));
            assert!(seal.contains(&format!("\"response_hash\":\"sha256:{hash}\"")), "{seal}");
            assert!(headers.verify(body.replacen("Hello", "Hallo", 1).as_bytes()).is_err());

            // By hand.
            let checked = "python3 -c 'import sys\n\
                body = open(\"body\", \"rb\").read()\n\
                at = body.rindex(b\"data: {\\\"choices\\\":[],\\\"se_signature\\\":\")\n\
                open(\"covered\", \"wb\").write(body[:at])'\n\
                grep -i '^x-se-public-key:' headers | tr -d '\\r' | cut -d' ' -f2- | base64 -d > key.der\n\
                tail -n 4 body | grep -o '\"se_signature\":\"[^\"]*' | cut -d'\"' -f4 | base64 -d > body.sig\n\
                openssl dgst -sha256 -keyform DER -verify key.der -signature body.sig covered";
            assert_eq!(shell(folder.path(), checked).await.trim(), "Verified OK");
        }
    }
}

journey! {
    async fn who_is_not_trusted_any_more_is_sent_nothing_as_soon_as_the_service_says_so(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let coordinator = coordinator(&plane, &scene.api.url).await;
        // Nobody is there: an answer, and nobody's.
        assert_eq!(hello(&coordinator).await, (503, "false".to_owned()));
        let mac = routed(&plane, &coordinator, "s").await;

        // An operator withdraws the trust: the coordinator hears of it, and asked nothing.
        revoke(&plane, &mac).await;
        once_it_says(&coordinator, 503, "false").await;

        // A second provider signs with another key than it names: it is trusted, and its reply is not.
        let other = routed(&plane, &coordinator, "t").await;
        coordinator.change("t", |provider| provider.lie = Some(ProviderLie::OtherKey)).expect("there");
        eventually("a reply that is not passed on", async || hello(&coordinator).await == (502, "false".to_owned())).await;
        coordinator.change("t", |provider| provider.lie = None).expect("there");

        // Five minutes later every provider is challenged by itself. This one says that SIP is off.
        let before = scene.api.binding("t").await["last_good_at"].clone();
        scene.pass(Duration::from_secs(5 * 60));
        eventually("challenged anew", async || scene.api.binding("t").await["last_good_at"] != before).await;
        coordinator.change("t", |provider| provider.truth.sip_enabled = false).expect("there");
        scene.pass(Duration::from_secs(5 * 60));
        plane.once("t", "not routable", |it| it["routable"] == false).await;
        let told = scene.api.binding("t").await;
        assert_eq!(told["reasons"][0], json!("sip_disabled"), "{told:#}");
        eventually("nothing sent to it", async || coordinator.binding("t").is_some_and(|it| it["routable"] == false)).await;
        drop(other);
    }
}

/// The coordinator has heard everything there is to hear, and sends requests.
async fn caught_up(plane: &Plane, coordinator: &Coordinator) {
    let store = &plane.scene.ctx().store;
    eventually("everything heard", async || {
        let events = store.events_after(0, 1000).await.expect("events");
        events
            .last()
            .is_none_or(|last| last.seq <= coordinator.heard())
    })
    .await;
    once_it_says(coordinator, 200, "true").await;
}

/// An operator withdraws the trust in a Mac.
async fn revoke(plane: &Plane, mac: &Mac) {
    let operator = plane.scene.api.with_token(plane.scene.token("operator"));
    let device_id = operator.device_id(&mac.serial()).await;
    let path = format!("/internal/v1/devices/{device_id}/revoke");
    let (status, told) = operator
        .ask(Method::POST, &path, &json!({ "reason": "lost" }))
        .await;
    assert_eq!(status, 200, "{told:#}");
}

/// A way to the internal API that can be cut.
struct Way {
    url: String,
    open: Arc<AtomicBool>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Way {
    async fn to(internal_url: &str) -> Self {
        let there = internal_url
            .strip_prefix("http://")
            .expect("http")
            .to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let open = Arc::new(AtomicBool::new(true));
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let (is_open, is_cut) = (Arc::clone(&open), Arc::clone(&cut));
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let (there, cut) = (there.clone(), is_cut.lock().expect("a lock").clone());
                tokio::spawn(cut.run_until_cancelled_owned(async move {
                    let mut there = TcpStream::connect(there).await.expect("the server");
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                }));
            }
        });
        Self { url, open, cut }
    }

    fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.cut.lock().expect("a lock").cancel();
    }

    fn open(&self) {
        *self.cut.lock().expect("a lock") = CancellationToken::new();
        self.open.store(true, Ordering::SeqCst);
    }
}

journey! {
    async fn a_coordinator_that_was_cut_off_misses_nothing_and_trusts_nobody_for_longer_than_it_was_told(backend: Backend) {
        let plane = Plane::new(backend).await;
        let scene = &plane.scene;
        let way = Way::to(&scene.api.url).await;
        let coordinator = coordinator(&plane, &way.url).await;
        let mac = routed(&plane, &coordinator, "s").await;

        // What it was told counts on, and ends by itself.
        way.close();
        assert_eq!(hello(&coordinator).await, (200, "true".to_owned()));
        scene.pass(Duration::from_secs(7 * 60));
        assert_eq!(hello(&coordinator).await, (503, "false".to_owned()));
        way.open();
        once_it_says(&coordinator, 200, "true").await;
        caught_up(&plane, &coordinator).await;

        // What happened meanwhile is heard of afterwards.
        way.close();
        revoke(&plane, &mac).await;
        assert_eq!(hello(&coordinator).await, (200, "true".to_owned()), "nobody could tell it");
        way.open();
        once_it_says(&coordinator, 503, "false").await;
    }
}

journey! {
    async fn a_request_that_is_none_is_answered_and_nobodys(backend: Backend) {
        let plane = Plane::new(backend).await;
        let coordinator = coordinator(&plane, &plane.scene.api.url).await;
        let long = format!("\"{}\"", "x".repeat(1024 * 1024));
        for (body, status) in [
            ("", 400), ("[]", 400), ("{", 400), ("null", 400), (r#"{"model":"m"}"#, 400),
            (r#"{"model":"m","messages":[]}"#, 400), (r#"{"model":1,"messages":[{}]}"#, 400),
            (r#"{"model":"m","messages":[{}],"stream":"yes"}"#, 400), (&long, 413),
        ] {
            let answer = ask(&coordinator, body).await;
            assert_eq!(answer.status().as_u16(), status, "{body:.40}");
            assert_eq!(answer.headers()["x-provider-attested"], "false", "{body:.40}");
            let error: Value = answer.json().await.expect("JSON");
            assert!(error["error"]["message"].is_string(), "{error}");
        }
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        for (method, path, status) in [
            (Method::GET, "/v1/chat/completions", 405), (Method::POST, "/v1/providers/attestation", 405),
            (Method::GET, "/", 404), (Method::GET, "/internal/v1/status", 404), (Method::GET, "/v1/enroll", 404),
            (Method::GET, "/v1/providers/../../internal/v1/status", 404),
        ] {
            let answer = client.request(method, format!("{}{path}", coordinator.url())).send().await;
            assert_eq!(answer.expect("an answer").status().as_u16(), status, "{path}");
        }
        let curl = Command::new("curl").args(["-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"])
            .arg(format!("{}/v1/providers/../../internal/v1/status", coordinator.url())).output().expect("curl");
        assert_eq!(String::from_utf8_lossy(&curl.stdout), "404");
    }
}
