//! A Mac asks for an identity by SCEP: honest clients of several makes, and everybody else.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use attestd_sim::Identity;
use attestd_sim::certs::fingerprint;
use attestd_sim::cms::SignatureDigest;
use attestd_sim::keys::{KeyKind, generate, random_uuid};
use attestd_sim::scep::{
    Authority, Capabilities, CertRep, Cipher, PkiMessage, ScepClient, ScepSettings, csr, pkcs_req,
    pkcs_req_around, read_cert_rep,
};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;
use reqwest::Method;

use crate::harness::keys::rsa;
use crate::harness::scene::Scene;

/// What every honest client has learned before its first request.
pub struct Client {
    http: reqwest::Client,
    pub settings: ScepSettings,
    pub authority: Authority,
    pub capabilities: Capabilities,
    pub clock: attestd_sim::Clock,
}

impl Client {
    /// A client with a new ticket.
    pub async fn new(scene: &Scene) -> Self {
        let delivered = scene.deliver("{}").await;
        Self::of(scene, &delivered.profile).await
    }

    /// A client with the ticket in this profile.
    pub async fn of(scene: &Scene, profile: &[u8]) -> Self {
        Self::with(scene, Some(scene_challenge(scene, profile))).await
    }

    async fn with(scene: &Scene, challenge: Option<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let settings = ScepSettings {
            url: scene.url("/scep"),
            challenge,
            ..ScepSettings::default()
        };
        let clock = scene.world.clock().clone();
        let client = ScepClient {
            http: &http,
            settings: &settings,
            clock: &clock,
        };
        let authority = client.authority().await.expect("GetCACert");
        let capabilities = client.capabilities().await.expect("GetCACaps");
        Self {
            http,
            settings,
            authority,
            capabilities,
            clock,
        }
    }

    /// The temporary certificate of a key.
    pub fn temporary(&self, key: PKey<Private>) -> Identity {
        let name = random_uuid().expect("a name");
        Identity::self_signed_with(key, &name, self.clock.now_ms()).expect("a certificate")
    }

    pub fn request(&self, temporary: &Identity) -> PkiMessage {
        let now = self.clock.now_seconds();
        pkcs_req(
            temporary,
            &self.settings,
            &self.authority,
            self.capabilities,
            now,
        )
        .expect("a request")
    }

    /// A request around these bytes.
    pub fn around(&self, inside: &[u8], transaction_id: &str, temporary: &Identity) -> PkiMessage {
        let (authority, now) = (&self.authority, self.clock.now_seconds());
        pkcs_req_around(
            inside,
            transaction_id,
            temporary,
            authority,
            self.capabilities,
            now,
        )
        .expect("a request")
    }

    pub async fn send(&self, message: &PkiMessage, temporary: &Identity) -> CertRep {
        let Self {
            http,
            settings,
            clock,
            ..
        } = self;
        let client = ScepClient {
            http,
            settings,
            clock,
        };
        let reply = client
            .operation(message, self.capabilities)
            .await
            .expect("status 200");
        read_cert_rep(&reply, &self.authority.signer, temporary).expect("a CertRep")
    }

    pub async fn ask(&self, key: PKey<Private>) -> CertRep {
        let temporary = self.temporary(key);
        self.send(&self.request(&temporary), &temporary).await
    }
}

/// The secret of the ticket in a profile.
pub fn scene_challenge(scene: &Scene, profile: &[u8]) -> String {
    let profile = scene.honest_mac().read_profile(profile).expect("a profile");
    let settings = profile.identity.scep().expect("a SCEP payload");
    settings.challenge.clone().expect("a challenge")
}

/// Whether a request with this challenge gets a certificate.
pub async fn buys_an_identity(scene: &Scene, challenge: &str) -> bool {
    let client = Client::with(scene, Some(challenge.to_owned())).await;
    matches!(client.ask(rsa(0)).await, CertRep::Issued(_))
}

pub fn issued(reply: CertRep) -> X509 {
    let issued = match reply {
        CertRep::Issued(certificate) => Ok(*certificate),
        refused => Err(refused),
    };
    issued.expect("a certificate")
}

#[track_caller]
pub fn assert_refused(reply: &CertRep, fail_info: &str) {
    assert!(
        matches!(reply, CertRep::Refused(code) if code == fail_info),
        "{reply:?}"
    );
}

const BAD_ALG: &str = "0";
const BAD_MESSAGE_CHECK: &str = "1";
const BAD_REQUEST: &str = "2";

journey! {
    async fn capabilities_and_certificates_are_given_in_the_exact_form(backend: Backend) {
        let scene = Scene::new(backend).await;
        let get = async |query: &str| {
            scene.answer(scene.anybody(Method::GET, &format!("/scep?{query}"))).await
        };
        let capabilities = get("operation=GetCACaps").await;
        assert_eq!(capabilities.status, 200);
        assert_eq!(capabilities.header("content-type"), "text/plain");
        let text = String::from_utf8(capabilities.body).expect("text");
        assert!(!text.contains('\r') && text.ends_with('\n'), "{text:?}");
        for word in ["AES", "POSTPKIOperation", "SCEPStandard", "SHA-256"] {
            assert!(text.split('\n').any(|line| line == word), "{word}");
        }
        for query in ["operation=GetCACert", "operation=GetCACert&message=anything"] {
            let authority = get(query).await;
            assert_eq!(authority.header("content-type"), "application/x-x509-ca-ra-cert");
            let read = Authority::from_answer("application/x-x509-ca-ra-cert", &authority.body);
            let read = read.expect("an authority");
            assert_eq!(read.recipient.public_key().expect("a key").id(), openssl::pkey::Id::RSA);
        }

        // What is no operation, is refused without a CertRep, and counted.
        for (query, reason) in [
            ("", "message_unsupported"),
            ("operation=GetNextCACert", "message_unsupported"),
            ("operation=getcacaps", "message_unsupported"),
            ("operation=GetCACaps&operation=GetCACert", "request_malformed"),
            ("operation=PKIOperation", "request_malformed"),
            ("operation=PKIOperation&message=%21%21", "request_malformed"),
            ("operation=PKIOperation&message=AAAA", "request_malformed"),
        ] {
            let before = scene.refusals("scep", reason).await;
            let answer = get(query).await;
            assert_eq!((answer.status, answer.reason().as_str()), (400, reason), "{query}");
            assert_eq!(scene.refusals("scep", reason).await, before + 1, "{query}");
        }
        for (query, body, status, reason) in [
            ("operation=GetCACaps", Vec::new(), 400, "message_unsupported"),
            ("operation=PKIOperation", Vec::new(), 400, "request_malformed"),
            ("operation=PKIOperation", b"<plist/>".to_vec(), 400, "request_malformed"),
            ("operation=PKIOperation", vec![0x30; 60_000], 400, "request_malformed"),
            ("operation=PKIOperation", vec![0x30; 70_000], 413, "request_too_large"),
        ] {
            let before = scene.refusals("scep", reason).await;
            let request = scene.anybody(Method::POST, &format!("/scep?{query}")).body(body);
            let answer = scene.answer(request).await;
            assert_eq!((answer.status, answer.reason().as_str()), (status, reason), "{query}");
            assert_eq!(scene.refusals("scep", reason).await, before + 1, "{query}");
        }
    }
}

journey! {
    async fn post_get_and_old_algorithms_lead_to_an_identity(backend: Backend) {
        let scene = Scene::new(backend).await;
        let old = Capabilities {
            cipher: Cipher::TripleDesCbc,
            digest: SignatureDigest::Sha1,
            post: false,
        };
        for capabilities in [None, Some(old), Some(Capabilities { post: true, ..old })] {
            let mut client = Client::new(&scene).await;
            client.capabilities = capabilities.unwrap_or(client.capabilities);
            let certificate = issued(client.ask(rsa(0)).await);
            let authority = client.authority.ca.public_key().expect("a key");
            assert!(certificate.verify(&authority).expect("verified"), "{capabilities:?}");
        }
    }
}

journey! {
    async fn what_the_request_wishes_for_is_not_what_the_certificate_says(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let key = rsa(0);
        let file = |name: &str| scene.home.path().join(name);
        // A request by OpenSSL itself that wants to be an authority for everything.
        let wishes = format!(
            "[req]\nprompt = no\ndistinguished_name = name\nattributes = more\n\
             req_extensions = wishes\n[name]\nCN = evil.example\nO = Apple Inc.\n\
             [more]\nchallengePassword = {}\n\
             [wishes]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = keyCertSign,cRLSign\n\
             extendedKeyUsage = serverAuth\nsubjectAltName = DNS:evil.example\n",
            client.settings.challenge.as_deref().expect("a challenge")
        );
        std::fs::write(file("wishes.cnf"), wishes).expect("written");
        let pem = key.private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(file("key.pem"), pem).expect("written");
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            let run = command.args(arguments).current_dir(scene.home.path()).output();
            let run = run.expect("openssl runs");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            run.stdout
        };
        let with = ["-config", "wishes.cnf", "-key", "key.pem", "-outform", "DER"];
        let request = openssl(&[&["req", "-new", "-sha256"], &with[..]].concat());
        let temporary = client.temporary(key);
        let message = client.around(&request, "wishes", &temporary);
        let certificate = issued(client.send(&message, &temporary).await);

        let pem = certificate.to_pem().expect("PEM");
        std::fs::write(file("issued.pem"), pem).expect("written");
        let shown = openssl(&["x509", "-in", "issued.pem", "-noout", "-text"]);
        let shown = String::from_utf8(shown).expect("text");
        for wanted in [
            "Digital Signature, Key Encipherment",
            "TLS Web Client Authentication",
            "X509v3 Authority Key Identifier",
            "X509v3 Subject Key Identifier",
            "Version: 3",
        ] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        for unwanted in ["evil", "Apple", "CA:TRUE", "Certificate Sign", "Server Auth", "DNS:"] {
            assert!(!shown.contains(unwanted), "{unwanted}: {shown}");
        }
        let serial = certificate.serial_number().to_bn().expect("a number");
        assert!((64..=160).contains(&serial.num_bits()), "{serial}");
        let now = scene.now().millis() / 1000;
        let at = |seconds| openssl::asn1::Asn1Time::from_unix(seconds).expect("a time");
        assert!(certificate.not_before() < at(now - 60));
        assert!(certificate.not_after() > at(now + 4 * 365 * 86_400));
        std::fs::write(file("ca.pem"), client.authority.ca.to_pem().expect("PEM")).expect("written");
        openssl(&["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca.pem", "issued.pem"]);
    }
}

journey! {
    async fn a_ticket_for_one_serial_number_names_it_in_the_certificate(backend: Backend) {
        let scene = Scene::new(backend).await;
        let delivered = scene.deliver_for("C02XL3FHJG5J").await;
        let challenge = scene_challenge(&scene, &delivered.profile);
        let client = Client::with(&scene, Some(challenge)).await;
        let certificate = issued(client.ask(rsa(0)).await);
        let name = certificate.subject_name().entries_by_nid(openssl::nid::Nid::COMMONNAME).next();
        assert_eq!(name.expect("a name").data().as_slice(), b"C02XL3FHJG5J");
    }
}

journey! {
    async fn only_an_unused_ticket_within_its_hour_buys_an_identity(backend: Backend) {
        let scene = Scene::new(backend).await;
        let used = Client::new(&scene).await;
        let first = issued(used.ask(rsa(0)).await);
        let late = Client::new(&scene).await;
        let long = "A".repeat(5000);
        for (challenge, reason) in [
            (None, "ticket_unknown"),
            (Some(""), "ticket_unknown"),
            (Some("micromdm"), "ticket_unknown"),
            (Some(long.as_str()), "ticket_unknown"),
            (used.settings.challenge.as_deref(), "ticket_used"),
        ] {
            let client = Client::with(&scene, challenge.map(str::to_owned)).await;
            let before = scene.refusals("scep", reason).await;
            assert_refused(&client.ask(rsa(1)).await, BAD_REQUEST);
            assert_eq!(scene.refusals("scep", reason).await, before + 1, "{challenge:?}");
        }
        // The key that was served gets what it was given, and another key nothing.
        let again = issued(used.ask(rsa(0)).await);
        assert_eq!(first.to_der().expect("DER"), again.to_der().expect("DER"));

        scene.pass(Duration::from_secs(3600));
        assert_refused(&late.ask(rsa(1)).await, BAD_REQUEST);
        assert_eq!(scene.refusals("scep", "ticket_expired").await, 1);
    }
}

journey! {
    async fn keys_of_other_kinds_are_refused_and_do_not_spend_the_ticket(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let small = PKey::from_rsa(Rsa::generate(1024).expect("a key")).expect("a key");
        let curve = generate(KeyKind::P256).expect("a key");
        for key in [small, curve] {
            let before = scene.refusals("scep", "key_rejected").await;
            assert_refused(&client.ask(key).await, BAD_ALG);
            assert_eq!(scene.refusals("scep", "key_rejected").await, before + 1);
        }
        issued(client.ask(rsa(0)).await);
    }
}

journey! {
    async fn a_message_that_is_not_whole_is_refused_by_a_cert_rep(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let other = client.temporary(rsa(1));
        let request = csr(&temporary.key, &client.settings, SignatureDigest::Sha256);
        let request = request.expect("a request");

        let mut damaged = client.request(&temporary);
        *damaged.der.last_mut().expect("a signature") ^= 1;
        let mut tampered = client.request(&temporary);
        tamper_with_envelope(&mut tampered.der);
        let mut forged = request.clone();
        *forged.last_mut().expect("a signature") ^= 1;
        let foreign = Authority { recipient: other.certificate.clone(), ..client.authority.clone() };
        let now = client.clock.now_seconds();
        let for_another =
            pkcs_req_around(&request, "foreign", &temporary, &foreign, client.capabilities, now);

        for (what, message, signer, fail_info, reason) in [
            ("damaged", damaged, &temporary, BAD_MESSAGE_CHECK, "signature_invalid"),
            ("tampered", tampered, &temporary, BAD_MESSAGE_CHECK, "signature_invalid"),
            (
                "sealed for another",
                for_another.expect("a request"),
                &temporary,
                BAD_MESSAGE_CHECK,
                "request_malformed",
            ),
            (
                "rubbish inside",
                client.around(b"not a request", "rubbish", &temporary),
                &temporary,
                BAD_MESSAGE_CHECK,
                "request_malformed",
            ),
            (
                "without proof of possession",
                client.around(&forged, "forged", &temporary),
                &temporary,
                BAD_MESSAGE_CHECK,
                "signature_invalid",
            ),
            (
                "signed by another key",
                client.around(&request, "other", &other),
                &other,
                BAD_REQUEST,
                "request_malformed",
            ),
        ] {
            let before = scene.refusals("scep", reason).await;
            let reply = client.send(&message, signer).await;
            assert!(matches!(&reply, CertRep::Refused(code) if code == fail_info), "{what}: {reply:?}");
            assert_eq!(scene.refusals("scep", reason).await, before + 1, "{what}");
        }
        // None of it has spent the ticket.
        issued(client.ask(rsa(0)).await);
    }
}

/// Changes one octet of the encrypted content. id-data names the outer content, then the inner one.
fn tamper_with_envelope(message: &mut [u8]) {
    let name = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    let mut found = message
        .windows(name.len())
        .enumerate()
        .filter(|(_, part)| *part == name);
    let inside = found.nth(1).expect("encryptedContentInfo").0 + 80;
    message[inside] ^= 1;
}

journey! {
    async fn the_same_transaction_again_brings_the_same_certificate(backend: Backend) {
        let scene = Scene::new(backend).await;
        let client = Client::new(&scene).await;
        let temporary = client.temporary(rsa(0));
        let message = client.request(&temporary);
        // The answer was lost, and several retries are under way.
        let retries = (0..5).map(|_| client.send(&message, &temporary));
        let all = futures_util::future::join_all(retries).await;
        let all: HashSet<_> =
            all.into_iter().map(|reply| fingerprint(&issued(reply)).expect("a hash")).collect();
        assert_eq!(all.len(), 1);
        scene.pass(Duration::from_secs(2 * 3600));
        let later = fingerprint(&issued(client.send(&message, &temporary).await));
        assert!(all.contains(&later.expect("a hash")));

        // Its name with another key is another request, and the ticket is used.
        let other = client.temporary(rsa(1));
        let request = csr(&other.key, &client.settings, SignatureDigest::Sha256).expect("a request");
        let taken_over = client.around(&request, &message.transaction_id, &other);
        assert_refused(&client.send(&taken_over, &other).await, BAD_REQUEST);
        assert_eq!(scene.refusals("scep", "ticket_used").await, 1);
    }
}

journey! {
    async fn of_twenty_clients_with_one_ticket_one_gets_a_certificate(backend: Backend) {
        let scene = Scene::new(backend).await;
        let delivered = scene.deliver("{}").await;
        let challenge = scene_challenge(&scene, &delivered.profile);
        let client = Client::with(&scene, Some(challenge)).await;
        let thieves: Vec<_> = (0..20)
            .map(|number| {
                let temporary = client.temporary(rsa(number % 2));
                let digest = SignatureDigest::Sha256;
                let request = csr(&temporary.key, &client.settings, digest).expect("a request");
                (client.around(&request, &format!("thief {number}"), &temporary), temporary)
            })
            .collect();
        let race = thieves.iter().map(|(message, temporary)| client.send(message, temporary));
        let replies = futures_util::future::join_all(race).await;
        let won = replies.iter().filter(|reply| matches!(reply, CertRep::Issued(_))).count();
        assert_eq!(won, 1, "{replies:?}");
        assert_eq!(scene.refusals("scep", "ticket_used").await, 19);
        // The losers do not spoil what the owner is told of the winner.
        assert_eq!(scene.step(&delivered.progress_id, "identity").await["standing"], "done");
    }
}

journey! {
    async fn a_client_of_another_make_gets_a_certificate(backend: Backend) {
        let scene = Scene::new(backend).await;
        let delivered = scene.deliver("{}").await;
        let challenge = scene_challenge(&scene, &delivered.profile);
        let folder = scene.home.path().join("strongswan");
        std::fs::create_dir(&folder).expect("a folder");
        let pem = rsa(0).private_key_to_pem_pkcs8().expect("PEM");
        std::fs::write(folder.join("key.pem"), pem).expect("written");
        let url = scene.url("/scep");
        let pki = async |arguments: &[&str]| {
            let mut command = Command::new("pki");
            command.args(arguments).args(["--url", &url, "--outform", "pem"]).current_dir(&folder);
            let run = tokio::task::spawn_blocking(move || command.output()).await.expect("joined");
            let run = run.expect("strongSwan's client is needed: apt-get install strongswan-pki");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            run.stdout
        };
        pki(&["--scepca", "--caout", "ca.pem", "--raout", "ra.pem"]).await;
        let with = ["--in", "key.pem", "--password", &challenge, "--dn", "CN=strongSwan"];
        let authority = ["--cacert-enc", "ra.pem", "--cacert-sig", "ra.pem", "--cacert", "ca.pem"];
        let got = pki(&[&["--scep"], &with[..], &authority[..]].concat()).await;
        let certificate = X509::from_pem(&got).expect("a certificate");
        assert!(certificate.public_key().expect("a key").public_eq(&rsa(0)));
        let authority = std::fs::read(folder.join("ca.pem")).expect("read");
        let authority = X509::from_pem(&authority).expect("a certificate");
        assert!(certificate.verify(&authority.public_key().expect("a key")).expect("verified"));
        assert_eq!(scene.step(&delivered.progress_id, "identity").await["standing"], "done");
    }
}
