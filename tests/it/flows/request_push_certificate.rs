//! A push certificate is asked for: request, vendor, Apple's portal, and back (apple-protocol 9.4).

use attestd_sim::apns::{Portal, PortalRefusal};
use attestd_sim::certs::{Identity, Issuer};
use attestd_sim::keys::{self, KeyKind};
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::PKey;
use openssl::x509::X509;
use serde_json::json;

use crate::harness::push_officer::{PushOfficer, Said, was_pushed_by};
use crate::harness::scene::{Backend, Scene};

/// An MDM vendor, and the authority above it.
pub(super) struct Vendor {
    pub(super) root: Issuer,
    pub(super) identity: Identity,
}

impl Vendor {
    pub(super) fn new(scene: &Scene, name: &str) -> Self {
        let now = scene.now().millis();
        let root = Issuer::root(
            "SIMULATED root",
            "Simulated, not Apple",
            KeyKind::Rsa2048,
            now,
        );
        let root = root.expect("a root");
        let key = keys::generate(KeyKind::Rsa2048).expect("a key");
        let identity = root.client(
            &[(Nid::COMMONNAME, name)],
            key,
            now - 1000,
            now + 86_400_000,
        );
        Self {
            root,
            identity: identity.expect("a certificate"),
        }
    }

    /// `push-cert vendor-sign`: the vendor has no server.
    pub(super) fn signs(&self, officer: &PushOfficer<'_>, csr: &str) -> Said {
        let pem = |bytes: Result<Vec<u8>, _>| bytes.expect("PEM");
        let files = [
            ("--csr", officer.keeps("customer.csr", csr.as_bytes())),
            (
                "--vendor-certificate",
                officer.keeps("vendor.pem", &pem(self.identity.certificate_pem())),
            ),
            (
                "--vendor-key",
                officer.keeps("vendor.key", &pem(self.identity.key_pem())),
            ),
            (
                "--chain",
                officer.keeps("chain.pem", &pem(self.root.certificate_pem())),
            ),
        ];
        let mut words = vec!["push-cert", "vendor-sign"];
        for (name, path) in &files {
            words.extend([*name, path.to_str().expect("UTF-8")]);
        }
        Said::of(crate::harness::scene::attestd(&words))
    }
}

journey! {
    async fn the_key_never_leaves_from_request_to_use(backend: Backend) {
        let scene = Scene::new(backend).await;
        let officer = PushOfficer(&scene);
        let (mac, _life) = scene.living_mac(attestd_sim::MacSpec::random().expect("a Mac")).await;
        let asked = officer.says(&["request", "--apple-account", "officer@example.org"]).await;
        let csr = asked.text();
        assert!(csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----"), "{csr}");
        let vendor = Vendor::new(&scene, "MDM Vendor: Simulated");
        let upload = vendor.signs(&officer, &csr).text();

        let portal = Portal {
            authority: scene.world.push_authority(),
            vendors: &vendor.root.identity.certificate,
        };
        let from = scene.now().millis() - 43_200_000;
        let certificate = portal.issue(&upload, scene.world.topic(), from).expect("issues");
        // What somebody else requested is not taken without its key.
        let strange = officer.renewed();
        let strange = officer.keeps("strange.pem", &strange.identity.certificate_pem().expect("PEM"));
        let install = ["install", "--json", "--certificate"];
        let other = [&install[..], &[strange.to_str().expect("UTF-8")]].concat();
        officer.says(&other).await.refused(&["its private key is not here", "--key"]);

        let file = officer.keeps("issued.pem", &certificate.to_pem().expect("PEM"));
        let own = [&install[..], &[file.to_str().expect("UTF-8")]].concat();
        let listed = officer.says(&["list", "--json"]).await.json();
        assert_eq!(listed["requests"].as_array().expect("a list").len(), 1);
        let installed = officer.says(&own).await.json();
        assert_eq!((&installed["state"], &installed["apple_account"]), (&json!("staged"), &json!("officer@example.org")));
        let listed = officer.says(&["list", "--json"]).await.json();
        assert_eq!(listed["requests"], json!([]));

        let id = installed["push_certificate_id"].as_str().expect("an id");
        scene.pass(std::time::Duration::from_secs(60));
        let serial = mac.serial();
        let tried = officer.says(&["canary", id, "--device", &serial, "--json"]).await.json();
        assert_eq!(tried["came"], 1);
        let issued = attestd_sim::apns::PushCertificate {
            topic: scene.world.topic().to_owned(),
            // Only its certificate is asked for.
            identity: Identity { key: vendor.identity.key.clone(), certificate },
        };
        assert!(was_pushed_by(&scene, &mac, &issued));
        officer.says(&["activate", id, "--json"]).await.json();
    }
}

journey! {
    async fn a_certificate_and_its_key_come_in_one_file(backend: Backend) {
        let scene = Scene::new(backend).await;
        let officer = PushOfficer(&scene);
        let renewed = officer.renewed();
        let identity = &renewed.identity;
        let bundle = Pkcs12::builder()
            .name("push")
            .pkey(&identity.key)
            .cert(&identity.certificate)
            .build2("canary-word")
            .and_then(|made| made.to_der())
            .expect("a file");
        let path = |name: &str, content: &[u8]| {
            officer.keeps(name, content).to_str().expect("UTF-8").to_owned()
        };
        let (p12, good, bad) = (path("push.p12", &bundle), path("good", b"canary-word\n"), path("bad", b"other\n"));
        let import = ["import", "--json", "--certificate", p12.as_str()];
        officer.says(&import).await.refused(&["--password-file"]);
        let wrong = officer.says(&[&import[..], &["--password-file", bad.as_str()]].concat()).await;
        wrong.refused(&["the password does not open"]);
        let taken = officer.says(&[&import[..], &["--password-file", good.as_str()]].concat()).await;
        assert_eq!(taken.json()["state"], "staged");
        assert!(!taken.text().contains("canary-word"));

        // The same in PEM, one after the other, is known already.
        let both = [identity.certificate_pem().expect("PEM"), identity.key_pem().expect("PEM")].concat();
        let both = path("both.pem", &both);
        officer.says(&["install", "--certificate", &both]).await.refused(&["is here already", "staged"]);
        let encrypted = PKey::private_key_from_pem(&identity.key_pem().expect("PEM"))
            .and_then(|key| key.private_key_to_pem_pkcs8_passphrase(openssl::symm::Cipher::aes_256_cbc(), b"x"))
            .expect("PEM");
        let both = path("both.pem", &[identity.certificate_pem().expect("PEM"), encrypted].concat());
        officer.says(&["install", "--certificate", &both]).await.refused(&["is encrypted"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vendor_signs_nothing_that_the_portal_would_refuse() {
    let scene = Scene::new(Backend::Sqlite).await;
    let officer = PushOfficer(&scene);
    let csr = officer.says(&["request"]).await.text();
    let vendor = Vendor::new(&scene, "MDM Vendor: Simulated");
    let nobody = Vendor::new(&scene, "Somebody");
    nobody
        .signs(&officer, &csr)
        .refused(&["is no MDM vendor's certificate", "MDM CSR"]);
    let mixed = Vendor {
        root: nobody.root,
        identity: vendor.identity.clone(),
    };
    mixed
        .signs(&officer, &csr)
        .refused(&["was not signed by the certificate after it"]);
    vendor
        .signs(&officer, "nothing")
        .refused(&["holds no certificate request"]);

    // And the portal of the simulated world looks, too.
    let upload = vendor.signs(&officer, &csr).text();
    let portal = |vendors: &X509, upload: &str| {
        let authority = scene.world.push_authority();
        let portal = Portal { authority, vendors };
        portal.issue(upload, scene.world.topic(), scene.now().millis())
    };
    let other = Vendor::new(&scene, "MDM Vendor: Other");
    assert!(matches!(
        portal(&other.root.identity.certificate, &upload),
        Err(PortalRefusal::Chain)
    ));
    assert!(matches!(
        portal(&vendor.root.identity.certificate, "bm90aGluZw=="),
        Err(PortalRefusal::NotAnUpload)
    ));
    assert!(portal(&vendor.root.identity.certificate, &upload).is_ok());
}
