//! The keys of the service's own authority are followed by others, and no Mac enrols anew.

use std::time::Duration;

use attestd::ids::CertificateHash;
use attestd_sim::keys::{KeyKind, generate};
use attestd_sim::scep::CertRep;
use attestd_sim::{Mac, MacSpec};
use openssl::nid::Nid;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::issue_by_scep::Client;
use crate::harness::push_officer::Said;
use crate::harness::scene::{Scene, attestd};

/// Less than a ticket lasts.
const SOON: Duration = Duration::from_secs(10 * 60);

async fn keys(scene: &Scene, words: &[&str]) -> Said {
    let config = scene.config().to_str().expect("UTF-8").to_owned();
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    let run = move || {
        let words = ["keys"].into_iter().chain(words.iter().map(String::as_str));
        let more = ["--insecure-http", "--config", config.as_str()];
        attestd(&words.chain(more).collect::<Vec<_>>())
    };
    Said::of(tokio::task::spawn_blocking(run).await.expect("runs"))
}

/// Who issued the identity by which a Mac speaks.
async fn issuer(scene: &Scene, mac: &Mac) -> String {
    let device = scene.api.device(&mac.serial()).await.expect("a device");
    let sha256 = device["identity"]["sha256"]
        .as_str()
        .expect("a hash")
        .to_owned();
    let bytes = hex::decode(sha256).expect("hexadecimal");
    let hash = CertificateHash::from_bytes(bytes.try_into().expect("32 bytes"));
    let tx = scene.ctx().store.read().await.expect("reads");
    let identity = tx
        .identity(hash)
        .await
        .expect("answers")
        .expect("an identity");
    issuer_in(&X509::from_der(&identity.der).expect("a certificate"))
}

fn issuer_in(certificate: &X509) -> String {
    let mut names = certificate.issuer_name().entries_by_nid(Nid::COMMONNAME);
    let name = names.next().expect("a name").data().to_string();
    name.expect("UTF-8")
}

fn state<'a>(listed: &'a Value, key: &str) -> &'a Value {
    let list = listed["authorities"].as_array().expect("a list");
    let found = list.iter().find(|one| one["key"] == key);
    &found.expect(key)["state"]
}

async fn enrolled(scene: &Scene) -> Mac {
    let mac = scene.mac(MacSpec::random().expect("a Mac"));
    mac.enroll(&scene.base_url).await.expect("enrols");
    mac.connect().await.expect("a session");
    mac
}

journey! {
    async fn the_device_ca_is_followed_by_another_and_no_mac_enrols_anew(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        let old = enrolled(&scene).await;
        assert_eq!(issuer(&scene, &old).await, "attestd device CA");
        let made = keys(&scene, &["replace", "device-ca", "--in", "10m", "--json"]).await.json();
        assert_eq!(made["made"], json!(["device-ca.2", "registration-authority.2", "profile-signer.2"]));
        let twice = keys(&scene, &["replace", "device-ca"]).await;
        twice.refused(&["device-ca.2 was made before and waits for its time"]);
        let listed = keys(&scene, &["list", "--json"]).await.json();
        assert_eq!((state(&listed, "device-ca"), state(&listed, "device-ca.2")), (&json!("in force"), &json!("to come")));

        // Before its time it is known, and the former one goes on.
        scene.stop().await;
        scene.start().await;
        let between = enrolled(&scene).await;
        assert_eq!(issuer(&scene, &between).await, "attestd device CA");

        scene.pass(SOON + Duration::from_secs(1));
        let new = enrolled(&scene).await;
        assert_eq!(issuer(&scene, &new).await, "attestd device CA 2");
        for mac in [&old, &between, &new] {
            scene.api.verify(&mac.serial(), &["security_info"]).await;
            mac.connect().await.expect("a session");
            assert_eq!(scene.api.posture(&mac.serial()).await["verdict"], "affirming");
        }
        assert_eq!(scene.refused("identity_unknown").await, 0);
    }
}

journey! {
    async fn whoever_began_to_enrol_with_the_former_authority_ends_so(backend: Backend) {
        let mut scene = Scene::new(backend).await;
        keys(&scene, &["replace", "registration-authority", "--in", "10m", "--json"]).await.json();
        scene.stop().await;
        scene.start().await;
        // It has its profile and the certificates to which it speaks; then the next ones take over.
        let began = Client::new(&scene).await;
        scene.pass(SOON + Duration::from_secs(1));
        let begins = Client::new(&scene).await;
        assert_ne!(
            began.authority.signer.to_der().expect("DER"),
            begins.authority.signer.to_der().expect("DER"),
        );
        for client in [began, begins] {
            let temporary = client.temporary(generate(KeyKind::Rsa2048).expect("a key"));
            let request = client.request(&temporary);
            // Its reply is signed by the one it knows.
            let issued = match client.send(&request, &temporary).await {
                CertRep::Issued(certificate) => Some(certificate),
                _ => None,
            };
            let certificate = issued.expect("a certificate");
            assert_eq!(issuer_in(&certificate), "attestd device CA");
        }
    }
}
