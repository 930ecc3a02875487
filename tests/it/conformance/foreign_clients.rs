//! Clients nobody here wrote: messages signed by the `openssl` program and by Python's
//! `cryptography`, certificates shown by Python's `ssl`, certificates asked for by strongSwan.

use std::path::{Path, PathBuf};
use std::process::Command;

use attestd::enrollment::Identity as Issued;
use attestd::ids::CertificateHash;
use attestd_sim::keys::KeyKind;
use attestd_sim::mac::messages::{authenticate, idle, token_update};
use attestd_sim::mac::security_info;
use attestd_sim::{Identity, MacSpec, Signing};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use plist::{Dictionary, Value};
use serde_json::{Value as Json, json};

use crate::flows::check_in::Newcomer;
use crate::flows::issue_by_scep::scene_challenge;
use crate::harness::keys::rsa;
use crate::harness::public_side::{accepted, refused, told};
use crate::harness::scene::{PublicSide, Scene};
use crate::harness::talk::{Asked, acknowledgment};

const CHECK_IN: &str = "application/x-apple-aspen-mdm-checkin";
const REPORT: &str = "application/x-apple-aspen-mdm";

fn xml(body: Dictionary) -> Vec<u8> {
    let mut bytes = Vec::new();
    Value::Dictionary(body)
        .to_writer_xml(&mut bytes)
        .expect("written");
    bytes
}

/// Runs a program of other hands.
async fn run(mut command: Command, package: &str) -> Vec<u8> {
    let run = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("joined");
    let run = run.unwrap_or_else(|fault| unreachable!("{fault}: apt-get install {package}"));
    assert!(
        run.status.success(),
        "is {package} installed? {}",
        String::from_utf8_lossy(&run.stderr)
    );
    run.stdout
}

/// Certificate and key as files.
fn files(scene: &Scene, name: &str, identity: &Identity) -> [PathBuf; 2] {
    let write = |what: &str, bytes: Vec<u8>| {
        let path = scene.home.path().join(format!("{name}.{what}"));
        std::fs::write(&path, bytes).expect("written");
        path
    };
    [
        write("pem", identity.certificate_pem().expect("PEM")),
        write("key", identity.key_pem().expect("PEM")),
    ]
}

/// `openssl` signs a body with the identity in these files.
async fn openssl(
    scene: &Scene,
    program: &str,
    options: &[&str],
    by: &[PathBuf; 2],
    body: &[u8],
) -> String {
    let file = scene.home.path().join("body");
    std::fs::write(&file, body).expect("written");
    let mut command = Command::new("openssl");
    command
        .args([program, "-sign", "-binary", "-outform", "DER", "-in"])
        .arg(file);
    command
        .arg("-signer")
        .arg(&by[0])
        .arg("-inkey")
        .arg(&by[1])
        .args(options);
    STANDARD.encode(run(command, "openssl").await)
}

/// An identity with a P-256 or P-384 key that was issued here, for the Mac that has `like`: what
/// ACME gives and SCEP cannot.
async fn with_curve(scene: &Scene, kind: KeyKind, like: &Newcomer) -> Identity {
    let (serial, now) = (like.mac.serial(), scene.now().millis());
    let identity = Identity::self_signed(&serial, kind, now).expect("made");
    let hash =
        |identity: &Identity| CertificateHash::of(&identity.certificate.to_der().expect("DER"));
    let mut tx = scene.ctx().store.write().await.expect("a store");
    let known = tx
        .identity(hash(&like.identity))
        .await
        .expect("read")
        .expect("issued");
    let record = Issued {
        certificate: hash(&identity),
        der: identity.certificate.to_der().expect("DER"),
        transaction_id: None,
        ..known
    };
    tx.insert_identity(&record).await.expect("recorded");
    tx.commit().await.expect("committed");
    identity
}

/// What `openssl cms` can vary that a Mac could.
const FORMS: [&[&str]; 7] = [
    &["-md", "sha256"],
    &["-md", "sha256", "-noattr"],
    &["-md", "sha1"],
    &["-md", "sha1", "-noattr"],
    &["-md", "sha384", "-nosmimecap"],
    &["-md", "sha512"],
    &["-md", "sha256", "-certfile", "CA"],
];

journey! {
    async fn a_mac_whose_messages_openssl_signs_is_asked_and_believed(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(3);
        let p256 = KeyKind::P256;
        for curve in [None, Some(p256), Some(KeyKind::P384)] {
            let mac = Newcomer::new(&scene).await;
            let (spec, topic) = (mac.spec(), scene.world.topic());
            let identity = match curve {
                None => mac.identity.clone(),
                Some(kind) => with_curve(&scene, kind, &mac).await,
            };
            let by = files(&scene, "signer", &identity);
            let says = async |kind: &str, body: Dictionary, program: &str, options: &[&str]| {
                let body = xml(body);
                let header = openssl(&scene, program, options, &by, &body).await;
                let path = if kind == CHECK_IN { "/mdm/checkin" } else { "/mdm/connect" };
                mac.mac.signed_put(&scene.url(path), kind, &body, Signing::Header(&header)).await
            };
            let _inbox = scene.world.apns().register(&[7; 32], topic);
            let hello = authenticate(&spec, topic, 1041);
            assert_eq!(told(says(CHECK_IN, hello, "cms", FORMS[0]).await), accepted());
            let ca = Identity::self_signed("an authority", p256, scene.now().millis());
            let [ca, _] = files(&scene, "ca", &ca.expect("made"));
            let ca = ca.to_str().expect("UTF-8");
            for form in FORMS {
                let form: Vec<_> = form.iter().map(|word| if *word == "CA" { ca } else { word }).collect();
                let update = token_update(&spec, topic, &[7; 32], "magic");
                assert_eq!(told(says(CHECK_IN, update, "cms", &form).await), accepted(), "{curve:?} {form:?}");
            }
            let update = token_update(&spec, topic, &[7; 32], "magic");
            assert_eq!(told(says(CHECK_IN, update, "smime", &["-md", "sha1"]).await), accepted());

            if curve.is_none() {
                // By subjectKeyIdentifier, which our certificates have.
                let update = token_update(&spec, topic, &[7; 32], "magic");
                assert_eq!(told(says(CHECK_IN, update, "cms", &["-keyid"]).await), accepted());
            }

            let asked = says(REPORT, idle(&spec), "cms", FORMS[3]).await.expect("an answer");
            let asked = Asked::read(&asked).expect("a command");
            let answer = acknowledgment(&mac.mac, &asked.uuid, "SecurityInfo", security_info(&spec));
            let next = says(REPORT, answer, "cms", FORMS[1]).await.expect("an answer");
            assert_eq!(Asked::read(&next).expect("a command").kind, "DeviceInformation");
            let posture = scene.api.posture(&spec.serial).await;
            assert_eq!(posture["claims"]["sip"]["value"], true);
        }
    }
}

journey! {
    async fn what_openssl_can_make_and_no_mac_sends_is_refused(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        let (mac, other) = (Newcomer::new(&scene).await, Newcomer::new(&scene).await);
        mac.joins(&scene, &[7; 32]).await;
        let by = files(&scene, "own", &mac.identity);
        let others = files(&scene, "other", &other.identity);
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (certificate, key) = (path(&others[0]), path(&others[1]));
        let body = xml(idle(&mac.spec()));
        for (options, over) in [
            (&["-nodetach"][..], &body),
            // In BER, with the content attached whatever else is said.
            (&["-stream"], &body),
            (&["-stream", "-noattr"], &body),
            (&["-nocerts"], &body),
            (&["-signer", &certificate, "-inkey", &key], &body),
            (&["-keyopt", "rsa_padding_mode:pss"], &body),
            (&["-md", "md5"], &body),
            (&["-md", "sha224"], &body),
            (&["-econtent_type", "1.2.840.113549.1.9.16.1.4"], &body),
            (&[], &b"another body".to_vec()),
            (&["-noattr"], &b"another body".to_vec()),
        ] {
            let header = openssl(&scene, "cms", options, &by, over).await;
            let url = scene.url("/mdm/connect");
            let answer = mac.mac.signed_put(&url, REPORT, &body, Signing::Header(&header)).await;
            assert_eq!(told(answer), refused("signature_invalid"), "{options:?}");
        }
        assert_eq!(scene.refusals("connect", "signature_invalid").await, 11);
    }
}

/// Runs the Mac in Python and gives back what it was answered.
async fn in_python(scene: &Scene, spec: &MacSpec, by: [PathBuf; 2]) -> Json {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/foreign/mac.py");
    // Debian's own interpreter, which has Debian's packages.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(&scene.base_url).args(by);
    command.args([scene.world.topic(), &spec.udid, &spec.serial]);
    if let Some(root) = &scene.tls_root {
        let file = scene.home.path().join("root.pem");
        std::fs::write(&file, root).expect("written");
        command.arg(file);
    }
    let said = run(command, "python3-cryptography").await;
    serde_json::from_slice(&said).expect("JSON")
}

fn assert_heard(answered: &Json) {
    assert_eq!(answered["Authenticate"], json!([200, ""]));
    let updates = answered["TokenUpdate"].as_array().expect("a list");
    assert_eq!(updates.len(), 24);
    for (number, update) in updates.iter().enumerate() {
        assert_eq!(*update, json!([200, ""]), "{number}");
    }
    assert_eq!(answered["Idle"], json!([200, "SecurityInfo"]));
    assert_eq!(answered["Acknowledged"], json!([200, "DeviceInformation"]));
}

journey! {
    async fn a_mac_in_python_signs_what_it_says(backend: Backend) {
        let scene = Scene::new(backend).await.with_ready_keys(2);
        for curve in [None, Some(KeyKind::P256)] {
            let mac = Newcomer::new(&scene).await;
            let identity = match curve {
                None => mac.identity.clone(),
                Some(kind) => with_curve(&scene, kind, &mac).await,
            };
            let by = files(&scene, "python", &identity);
            assert_heard(&in_python(&scene, &mac.spec(), by).await);
            let posture = scene.api.posture(&mac.mac.serial()).await;
            assert_eq!(posture["claims"]["filevault"]["value"], true, "{posture:#}");
        }
    }
}

journey! {
    async fn a_mac_in_python_shows_its_certificate_and_signs_nothing(backend: Backend) {
        let asking = PublicSide { lines: "client_certificates = true", tls: true };
        let scene = Scene::reached(backend, asking).await.with_ready_keys(1);
        let mac = Newcomer::new(&scene).await;
        let by = files(&scene, "python", &mac.identity);
        assert_heard(&in_python(&scene, &mac.spec(), by).await);
    }
}

journey! {
    /// Every digest and cipher that strongSwan knows and we take; what we do not take it is told.
    async fn strongswan_gets_a_certificate_with_every_digest_and_cipher(backend: Backend) {
        let scene = Scene::new(backend).await;
        let folder = scene.home.path().join("strongswan");
        std::fs::create_dir(&folder).expect("a folder");
        let pem = rsa(0).private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(folder.join("key.pem"), pem).expect("written");
        let url = scene.url("/scep");
        let pki = async |arguments: &[&str]| {
            let mut command = Command::new("pki");
            command.args(arguments).args(["--url", &url, "--outform", "pem"]).current_dir(&folder);
            run(command, "strongswan-pki").await
        };
        pki(&["--scepca", "--caout", "ca.pem", "--raout", "ra.pem"]).await;
        for digest in ["sha256", "sha384", "sha512"] {
            for cipher in ["aes", "des3"] {
                let delivered = scene.deliver("{}").await;
                let challenge = scene_challenge(&scene, &delivered.profile);
                let with = ["--in", "key.pem", "--password", &challenge, "--dn", "CN=strongSwan"];
                let authority = ["--cacert-enc", "ra.pem", "--cacert-sig", "ra.pem", "--cacert", "ca.pem"];
                let how = ["--digest", digest, "--cipher", cipher];
                let got = pki(&[&["--scep"], &with[..], &authority[..], &how[..]].concat()).await;
                let certificate = X509::from_pem(&got).expect("a certificate");
                let own = certificate.public_key().expect("a key");
                assert!(own.public_eq(&rsa(0)), "{digest} {cipher}");
            }
        }
    }
}
