//! A Mac proves itself by the certificate of its connection: in the server's own TLS, or as a proxy
//! passes it on. And others show certificates too.

use std::sync::Arc;
use std::time::Duration;

use attestd::ids::CertificateHash;
use attestd::verification::Kind;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::mac::messages::{idle, token_update};
use attestd_sim::mac::security_info;
use attestd_sim::plist_xml::{PlistStyle, write};
use attestd_sim::tls::{der, private_key, provider};
use attestd_sim::{Identity, Mac, MacSpec, Signing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::{Dictionary, Value};
use reqwest::Method;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::keys::rsa;
use crate::harness::public_side::{Answer, accepted, refused, told};
use crate::harness::scene::{PublicSide, Scene};
use crate::harness::talk;

const REPORT: &str = "application/x-apple-aspen-mdm";
const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";

/// The server ends TLS itself and asks for certificates.
const ASKING: PublicSide<'_> = PublicSide {
    lines: "client_certificates = true",
    tls: true,
};

fn xml(body: Dictionary) -> Vec<u8> {
    write(&Value::Dictionary(body), PlistStyle::CoreFoundation).expect("written")
}

async fn enrolled(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac
}

/// Says Idle in the name of `named` over the connection of `mac`.
async fn idles(scene: &Scene, mac: &Mac, named: &Mac, signing: Signing<'_>) -> (u16, String) {
    let body = xml(idle(&named.spec()));
    let reply = mac
        .signed_put(&scene.url("/mdm/connect"), REPORT, &body, signing)
        .await;
    let (status, text) = told(reply);
    (status, if status == 200 { String::new() } else { text })
}

journey! {
    async fn a_mac_that_shows_its_certificate_need_not_sign(backend: Backend) {
        let scene = Scene::reached(backend, ASKING).await.with_ready_keys(2);
        // Who signs as well says the same twice.
        let mac = enrolled(&scene).await;
        let (token, magic) = mac.push_address().expect("an address");
        let update = xml(token_update(&mac.spec(), scene.world.topic(), &token, &magic));
        let url = scene.url("/mdm/checkin");
        assert_eq!(told(mac.signed_put(&url, CHECK_IN, &update, Signing::Unsigned).await), accepted());

        let url = scene.url("/mdm/connect");
        let say = async |body: Dictionary| {
            let reply = mac.signed_put(&url, REPORT, &xml(body), Signing::Unsigned).await;
            talk::Asked::read(&reply.expect("an answer"))
        };
        let asked = say(idle(&mac.spec())).await.expect("a command");
        let info = security_info(&mac.spec());
        let attest = say(talk::acknowledgment(&mac, &asked.uuid, "SecurityInfo", info)).await;
        let attest = attest.expect("the attestation");
        let key = generate(KeyKind::P384).expect("a key");
        let state = mac.spec().attested_state();
        let (nonce, now) = (attest.nonce.as_deref(), scene.now().millis());
        let chain = scene.world.apple().attest(&state, &key, nonce, now).expect("a chain");
        let chain = [chain.leaf, chain.intermediate];
        assert_eq!(say(talk::presentation(&mac, &attest, &chain)).await, None);
        assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");

        // What was said is kept as it came, and nothing pretends that it was signed.
        let kept = scene.kept(&mac).await.evidence;
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|one| one.raw == (one.kind == Kind::Mda)), "{kept:?}");
        assert!(kept.iter().all(|one| one.signature.is_none()));

        // Over its own connection, but in the name of another, or with the signature of another.
        let other = enrolled(&scene).await;
        let posture = scene.api.posture(&mac.serial()).await["reasons"].clone();
        let whose = mac.identity().expect("an identity");
        for signing in [Signing::Unsigned, Signing::Own, Signing::By(&whose)] {
            let counted = scene.refusals("connect", "identity_mismatch").await;
            assert_eq!(idles(&scene, &other, &mac, signing).await, refused("identity_mismatch"));
            assert_eq!(scene.refusals("connect", "identity_mismatch").await, counted + 1);
        }
        assert_eq!(scene.api.posture(&mac.serial()).await["reasons"], posture);
        assert_eq!(idles(&scene, &mac, &mac, Signing::Unsigned).await, accepted());
    }
}

/// A connection with this certificate and key, whether or not they belong together.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A TLS client that shows the certificate of `identity`.
fn shows(
    scene: &Scene,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = scene.tls_root.as_deref().expect("TLS");
    roots
        .add(CertificateDer::from_pem_slice(root).expect("PEM"))
        .expect("a root");
    let provider = provider();
    let key = private_key(identity).expect("a key");
    let key = provider.key_provider.load_private_key(key).expect("a key");
    let certificate = der(&identity.certificate).expect("DER");
    let shown = Shows(Arc::new(CertifiedKey::new(vec![certificate], key)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(shown));
    TlsConnector::from(Arc::new(config))
}

/// Sends a request over a connection of its own; what came, and whether the session was an old one.
async fn speaks(
    scene: &Scene,
    as_whom: &TlsConnector,
    request: &[u8],
) -> std::io::Result<(String, bool)> {
    let address = scene.base_url.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = as_whom.connect(name, stream).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((String::from_utf8_lossy(&answer).into_owned(), resumed))
}

journey! {
    async fn a_certificate_is_worth_its_key_and_its_record(backend: Backend) {
        let scene = Scene::reached(backend, ASKING).await.with_ready_keys(1);
        let mac = enrolled(&scene).await;
        let own = mac.identity().expect("an identity");
        let body = xml(idle(&mac.spec()));
        let head = format!(
            "PUT /mdm/connect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {REPORT}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        let now = scene.now().millis();
        let stolen = Identity { key: rsa(3), certificate: own.certificate.clone() };
        let made = Identity::self_signed_with(rsa(3), &mac.serial(), now).expect("made");
        let curve = Identity::self_signed("a curve", KeyKind::P256, now).expect("made");
        let foreign = Identity::from_foreign_ca(&mac.serial(), KeyKind::default(), now).expect("made");
        for version in rustls::ALL_VERSIONS {
            let mac = shows(&scene, &own, version);
            // Also where a former session is taken up, in which nothing is shown again.
            for again in [false, true] {
                let (good, resumed) = speaks(&scene, &mac, &request).await.expect("an answer");
                assert!(good.starts_with("HTTP/1.1 200"), "{version:?} {good}");
                assert_eq!(resumed, again, "{version:?}");
            }
            // Without the key there is no connection at all.
            let stolen = speaks(&scene, &shows(&scene, &stolen, version), &request).await;
            assert!(stolen.is_err(), "{version:?} {stolen:?}");
            // Anybody may have a key of one's own: it was not issued here.
            for other in [&made, &curve, &foreign] {
                let other = shows(&scene, other, version);
                let (other, _) = speaks(&scene, &other, &request).await.expect("an answer");
                assert!(other.starts_with("HTTP/1.1 400"), "{version:?} {other}");
                assert!(other.ends_with("\r\n\r\nidentity_mismatch\n"), "{version:?} {other}");
            }
        }

        // Nothing shown, nothing signed; and a header says nothing where no proxy is named.
        let header = STANDARD.encode(own.certificate.to_der().expect("DER"));
        let request = scene.anybody(Method::PUT, "/mdm/connect").header("content-type", REPORT);
        let request = request.header("client-cert", format!(":{header}:")).body(body);
        let answer = scene.answer(request).await;
        assert_eq!((answer.status, answer.reason().as_str()), (400, "signature_invalid"));

        // Withdrawn, and expired: the handshake passes all the same, and the reason is told.
        let hash = CertificateHash::of(&own.certificate.to_der().expect("DER"));
        let late = enrolled(&scene).await;
        let mut tx = scene.ctx().store.write().await.expect("a store");
        assert!(tx.revoke_identity(hash, scene.now()).await.expect("withdrawn"));
        tx.commit().await.expect("committed");
        assert_eq!(idles(&scene, &mac, &mac, Signing::Unsigned).await, refused("revoked"));
        scene.pass(Duration::from_secs(6 * 365 * 86_400));
        assert_eq!(idles(&scene, &late, &late, Signing::Unsigned).await, refused("identity_expired"));
    }
}

/// Says Idle in the name of `mac`, signed or not, with these values of the proxy's header.
async fn through_a_proxy(scene: &Scene, mac: &Mac, signed: bool, values: &[&str]) -> Answer {
    let body = xml(idle(&mac.spec()));
    let mut request = scene
        .anybody(Method::PUT, "/mdm/connect")
        .header("content-type", REPORT);
    for value in values {
        request = request.header("X-Ssl-Client-Cert", *value);
    }
    if signed {
        let identity = mac.identity().expect("an identity");
        let style = attestd_sim::cms::SignatureStyle::default();
        let signature = attestd_sim::cms::mdm_signature(&identity, &body, &style);
        request = request.header("mdm-signature", signature.expect("signed"));
    }
    scene.answer(request.body(body)).await
}

/// The certificate of a Mac as RFC 9440, nginx, AWS, Envoy and HAProxy write it.
fn passed_on(mac: &Mac) -> [String; 5] {
    let certificate = mac.identity().expect("an identity").certificate;
    let der = STANDARD.encode(certificate.to_der().expect("DER"));
    let pem = String::from_utf8(certificate.to_pem().expect("PEM")).expect("text");
    let spaces = pem.replace(' ', "%20").replace('\n', "%0A");
    let escaped = spaces
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let envoy = format!("Hash=0123;Cert=\"{escaped}\";Subject=\"CN=a, b\"");
    [format!(":{der}:"), escaped, spaces, envoy, der]
}

const PROXIED: PublicSide<'_> = PublicSide {
    lines: "trusted_proxies = [\"127.0.0.1\"]\nclient_certificate_header = \"X-Ssl-Client-Cert\"",
    tls: false,
};

journey! {
    async fn a_proxy_that_is_named_passes_the_certificate_on(backend: Backend) {
        let scene = Scene::reached(backend, PROXIED).await.with_ready_keys(2);
        let (mac, other) = (enrolled(&scene).await, enrolled(&scene).await);
        for value in passed_on(&mac) {
            let answer = through_a_proxy(&scene, &mac, false, &[&value]).await;
            assert_eq!(answer.status, 200, "{value}: {}", answer.reason());
        }
        let own = passed_on(&mac)[0].clone();
        let others = passed_on(&other)[0].clone();
        let recorded = include_str!("../../fixtures/mdm/proxy-cert-headers.txt");
        let recorded = recorded.lines().find_map(|line| line.strip_prefix("Client-Cert: "));
        let recorded = recorded.expect("RFC 9440");
        let stranger = MacSpec::random().expect("a Mac");
        let stranger = scene.mac(stranger);
        for (whom, signed, values, status, reason) in [
            (&mac, true, &[own.as_str()][..], 200, ""),
            (&mac, true, &[""], 200, ""),
            (&mac, true, &[], 200, ""),
            (&mac, false, &[""], 400, "signature_invalid"),
            (&mac, false, &[], 400, "signature_invalid"),
            (&mac, false, &[&others], 400, "identity_mismatch"),
            (&mac, true, &[&others], 400, "identity_mismatch"),
            (&mac, false, &[recorded], 400, "identity_mismatch"),
            (&stranger, false, &[recorded], 400, "identity_unknown"),
            // Of a proxy that adds its own and leaves the client's, which one is whose?
            (&mac, false, &[&own, &own], 400, "request_malformed"),
            (&mac, true, &[&own, &own], 400, "request_malformed"),
            (&mac, false, &["CN=a Mac"], 400, "request_malformed"),
            (&mac, true, &["CN=a Mac"], 400, "request_malformed"),
        ] {
            let counted = scene.refusals("connect", reason).await;
            let answer = through_a_proxy(&scene, whom, signed, values).await;
            assert_eq!(answer.status, status, "{signed} {values:?} {}", answer.reason());
            if status != 200 {
                assert_eq!(answer.reason(), reason, "{signed} {values:?}");
                assert_eq!(scene.refusals("connect", reason).await, counted + 1);
            }
        }
    }
}

journey! {
    async fn whoever_is_no_proxy_passes_nothing_on(backend: Backend) {
        let lines = PROXIED.lines.replace("127.0.0.1", "192.0.2.0/24");
        let elsewhere = PublicSide { lines: &lines, tls: false };
        let scene = Scene::reached(backend, elsewhere).await.with_ready_keys(1);
        let mac = enrolled(&scene).await;
        for value in passed_on(&mac) {
            let answer = through_a_proxy(&scene, &mac, false, &[&value]).await;
            assert_eq!((answer.status, answer.reason().as_str()), (400, "signature_invalid"));
        }
        // Nor is what it says looked at.
        assert_eq!(through_a_proxy(&scene, &mac, true, &["rubbish"]).await.status, 200);
    }
}
