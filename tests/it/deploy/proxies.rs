//! A fleet that is reached through a reverse proxy, set up as `deploy/` says.

use std::time::Duration;

use attestd_sim::mac::messages::idle;
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::{Identity, Mac, Signing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::Value;
use reqwest::{Client, Method, Version};

use crate::harness::public_side::{Answer, accepted, never_unenrolls, told};
use crate::harness::reverse_proxy::{Front, Kind, ReverseProxy};
use crate::harness::scene::{Backend, Scene, free_port};

const REPORT: &str = "application/x-apple-aspen-mdm";
/// As the files in `deploy/` say at their head.
const SAID: &str = "behind_proxy = true\ntrusted_proxies = [\"127.0.0.1\"]\n\
                      client_certificate_header = \"Client-Cert\"\n";

async fn proxied(kind: Kind, backend: Backend) -> (Scene, ReverseProxy) {
    let port = free_port();
    // And a limit that forged addresses would get around.
    let lines = format!("{SAID}feed_per_minute = 3\n");
    let scene = Scene::behind(backend, port, &lines)
        .await
        .with_ready_keys(2);
    let server = scene.home.path().join("server");
    let front = Front {
        port,
        behind: scene.public_port(),
        server: &server,
    };
    let proxy = ReverseProxy::start(kind, &front);
    (scene, proxy)
}

fn says_idle(mac: &Mac) -> Vec<u8> {
    write(
        &Value::Dictionary(idle(&mac.spec())),
        PlistStyle::CoreFoundation,
    )
    .expect("written")
}

/// Its certificate as RFC 9440 has it, and as nginx escapes it: whoever forges knows both.
fn forms(mac: &Mac) -> [String; 2] {
    let certificate = mac.identity().expect("an identity").certificate;
    let der = STANDARD.encode(certificate.to_der().expect("DER"));
    let pem = String::from_utf8(certificate.to_pem().expect("PEM")).expect("text");
    let escaped = [
        (" ", "%20"),
        ("\n", "%0A"),
        ("+", "%2B"),
        ("/", "%2F"),
        ("=", "%3D"),
    ]
    .iter()
    .fold(pem, |text, (from, to)| text.replace(from, to));
    [format!(":{der}:"), escaped]
}

/// Somebody on the internet: with a certificate of one's own or without, and in which HTTP.
fn client(scene: &Scene, shows: Option<&Identity>, version: Version) -> Client {
    let root = scene.tls_root.as_deref().expect("TLS");
    let root = reqwest::Certificate::from_pem(root).expect("a root");
    let mut client = Client::builder().no_proxy().tls_certs_only([root]);
    if let Some(identity) = shows {
        let certificate = identity.certificate.to_pem().expect("PEM");
        let key = identity.key.private_key_to_pem_pkcs8().expect("PEM");
        let both = reqwest::Identity::from_pem(&[certificate, key].concat()).expect("both");
        client = client.identity(both);
    }
    if version == Version::HTTP_11 {
        client = client.http1_only();
    }
    client.build().expect("a client")
}

/// Says Idle in the name of `mac`, unsigned, with these headers.
async fn claims(
    to: &str,
    client: &Client,
    mac: &Mac,
    headers: &[(&str, &str)],
) -> (Answer, Version) {
    let url = format!("{to}/mdm/connect");
    let mut request = client.put(url).header("content-type", REPORT);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request
        .body(says_idle(mac))
        .send()
        .await
        .expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    never_unenrolls(status);
    let version = response.version();
    let body = response.bytes().await.expect("a body").to_vec();
    (
        Answer {
            status,
            headers,
            body,
        },
        version,
    )
}

/// Says Idle over its own connection, which shows its certificate.
async fn says(scene: &Scene, mac: &Mac, signing: Signing<'_>) -> (u16, String) {
    let url = scene.url("/mdm/connect");
    let (status, text) = told(mac.signed_put(&url, REPORT, &says_idle(mac), signing).await);
    (status, if status == 200 { String::new() } else { text })
}

async fn a_fleet_is_served(kind: Kind, backend: Backend) {
    let (mut scene, proxy) = proxied(kind, backend).await;
    // Profile, SCEP, check-in, push, and signatures over bodies that nothing may touch on their way.
    let mac = scene.honest_mac();
    let delivered = scene.deliver_for(&mac.serial()).await;
    let path = format!("/v1/enrollments/{}", delivered.progress_id);
    let stream = scene
        .anybody(Method::GET, &path)
        .header("accept", "text/event-stream");
    let mut stream = stream.send().await.expect("an answer");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    // It goes on for minutes, and what is there already comes at once.
    let first = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await;
    assert!(first.expect("in time").expect("a piece").is_some());
    drop(stream);
    mac.install_profile(&delivered.profile)
        .await
        .expect("enrols");
    let life = mac.live();
    scene.api.verdict(&mac.serial(), "affirming").await;
    drop(life);

    assert_eq!(says(&scene, &mac, Signing::Own).await, accepted());
    // The certificate it showed the proxy is enough.
    assert_eq!(says(&scene, &mac, Signing::Unsigned).await, accepted());

    let other = scene.honest_mac();
    other.enroll(&scene.base_url).await.expect("enrols");
    let own = other.identity().expect("an identity");
    let direct = format!("http://127.0.0.1:{}", scene.public_port());
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let nobody = client(&scene, None, version);
        let somebody = client(&scene, Some(&own), version);
        for forged in forms(&mac) {
            for headers in [
                &[("Client-Cert", forged.as_str())][..],
                &[("client-cert", &forged), ("CLIENT-CERT", &forged)],
                &[("Client-Cert", &forged), ("X-Forwarded-For", "127.0.0.1")],
                &[("Client-Cert", &forged), ("Client-Cert-Chain", &forged)],
            ] {
                let (answer, spoken) = claims(&scene.base_url, &nobody, &mac, headers).await;
                assert_eq!(spoken, version);
                assert_eq!(answer.reason(), "signature_invalid", "{headers:?}");
                // Whoever has a certificate is that one, whatever else is said.
                let (answer, _) = claims(&scene.base_url, &somebody, &mac, headers).await;
                assert_eq!(answer.reason(), "identity_mismatch", "{headers:?}");
            }
            // Told by the proxy itself it would have counted.
            let headers = [("Client-Cert", forged.as_str())];
            let bare = Client::builder().no_proxy().build().expect("a client");
            let (answer, _) = claims(&direct, &bare, &mac, &headers).await;
            assert_eq!((answer.status, answer.reason().as_str()), (200, ""));
        }
        let (answer, _) = claims(&scene.base_url, &somebody, &other, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.reason());
    }

    // Nobody gets another share by another name.
    let mut answers = Vec::new();
    for host in 1..=4 {
        let request = scene.anybody(Method::GET, "/v1/providers/attestation");
        let request = request.header("x-forwarded-for", format!("192.0.2.{host}"));
        answers.push(scene.answer(request).await.status);
    }
    assert_eq!(answers, [200, 200, 200, 429], "{}", proxy.log());

    // More than any honest message ends at the proxy, and a server that is away unenrols nobody.
    let much = scene
        .anybody(Method::PUT, "/mdm/connect")
        .header("content-type", REPORT);
    let much = scene.answer(much.body(vec![b' '; 2 << 20])).await.status;
    // Caddy takes the connection it broke off for one that broke.
    assert_eq!(
        much,
        if matches!(kind, Kind::Caddy) {
            502
        } else {
            413
        }
    );
    scene.stop().await;
    let (away, _) = says(&scene, &mac, Signing::Own).await;
    assert!(matches!(away, 502..=504), "{away}");
    scene.start().await;
    assert_eq!(says(&scene, &mac, Signing::Own).await, accepted());
}

journey! {
    async fn through_caddy_a_fleet_is_served_and_what_outsiders_forge_is_stripped(backend: Backend) {
        a_fleet_is_served(Kind::Caddy, backend).await;
    }
}

journey! {
    async fn through_nginx_a_fleet_is_served_and_what_outsiders_forge_is_stripped(backend: Backend) {
        a_fleet_is_served(Kind::Nginx, backend).await;
    }
}

#[test]
fn the_files_say_what_goes_into_the_configuration() {
    for file in ["caddy/Caddyfile", "nginx/attestd.conf"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy")
            .join(file);
        let text = std::fs::read_to_string(path).expect("it ships");
        for line in SAID.lines() {
            assert!(text.contains(&format!("#   {line}\n")), "{file}: {line}");
        }
    }
}
