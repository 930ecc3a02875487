//! Whoever looks after the push certificate, with Apple's portal and the real commands.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use attestd_sim::Mac;
use attestd_sim::apns::{PushCertificate, PushSeen};
use attestd_sim::certs::fingerprint;
use serde_json::Value;

use super::inside::eventually;
use super::scene::{Scene, attestd};

const HOUR_MS: i64 = 60 * 60 * 1000;

/// At a server's command line.
#[derive(Debug)]
pub struct PushOfficer<'a>(pub &'a Scene);

/// What a command said.
#[derive(Debug)]
pub struct Said {
    output: Output,
}

impl PushOfficer<'_> {
    /// The certificate of the fleet, renewed in the portal twelve hours ago.
    pub fn renewed(&self) -> PushCertificate {
        self.issued_for(self.0.world.topic(), 12)
    }

    /// A certificate for a topic, issued so many hours ago: less than the day that the first of the
    /// world is old.
    pub fn issued_for(&self, topic: &str, hours_ago: i64) -> PushCertificate {
        let from = self.0.now().millis() - hours_ago * HOUR_MS;
        let authority = self.0.world.push_authority();
        authority.issue(topic, from).expect("issues")
    }

    /// `attestd push-cert …`, beside the running server.
    pub async fn says(&self, words: &[&str]) -> Said {
        let config = self.0.config().to_str().expect("UTF-8").to_owned();
        let mut arguments: Vec<String> = vec!["push-cert".to_owned()];
        arguments.extend(words.iter().map(ToString::to_string));
        arguments.extend(["--insecure-http", "--config"].map(str::to_owned));
        arguments.push(config);
        let run = move || {
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            attestd(&words)
        };
        let output = tokio::task::spawn_blocking(run).await.expect("runs");
        Said::of(output)
    }

    /// `push-cert install` of a certificate with its key.
    pub async fn installs(&self, certificate: &PushCertificate, more: &[&str]) -> Said {
        let identity = &certificate.identity;
        let file = self.keeps("push.pem", &identity.certificate_pem().expect("PEM"));
        let key = self.keeps("push.key", &identity.key_pem().expect("PEM"));
        let files = [
            "install",
            "--json",
            "--certificate",
            text(&file),
            "--key",
            text(&key),
        ];
        self.says(&[&files[..], more].concat()).await
    }

    /// Installs a certificate that must be taken, and says under which id.
    pub async fn has_installed(&self, certificate: &PushCertificate, more: &[&str]) -> String {
        let said = self.installs(certificate, more).await.json();
        said["push_certificate_id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// One certificate as `push-cert show` shows it.
    pub async fn sees(&self, id: &str) -> Value {
        self.says(&["show", id, "--json"]).await.json()
    }

    /// A file with this content.
    pub fn keeps(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.home.path().join(name);
        std::fs::write(&path, content).expect("writes");
        path
    }
}

impl Said {
    /// What a command that ended said.
    pub fn of(output: Output) -> Self {
        Self { output }
    }

    /// The JSON of a command that succeeded.
    pub fn json(&self) -> Value {
        assert!(self.output.status.success(), "{}", self.text());
        serde_json::from_slice(&self.output.stdout).expect("JSON")
    }

    /// The JSON of a command that ended without success.
    pub fn json_of_failure(&self) -> Value {
        assert_eq!(self.output.status.code(), Some(1), "{}", self.text());
        serde_json::from_slice(&self.output.stdout).expect("JSON")
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        let both = [&self.output.stdout[..], &self.output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// It must have been refused, with all of these words.
    pub fn refused(&self, words: &[&str]) {
        let text = self.text();
        assert_eq!(self.output.status.code(), Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

/// What APNs saw for the Mac's present token.
pub fn pushes_to(scene: &Scene, mac: &Mac) -> Vec<PushSeen> {
    let (token, _) = mac.push_address().expect("an address");
    scene.world.apns().seen_for(&token)
}

/// A Mac that enrolled and answers only when it connects by itself.
pub async fn quiet_mac(scene: &Scene) -> Mac {
    let mac = scene.honest_mac();
    mac.enroll(&scene.base_url).await.expect("enrols");
    eventually("the first push", async || {
        !pushes_to(scene, &mac).is_empty()
    })
    .await;
    mac.connect().await.expect("a session");
    mac
}

/// Waits until the server pushes with this certificate: it follows within seconds.
pub async fn takes_into_use(scene: &Scene, certificate: &PushCertificate) {
    let name = fingerprint(&certificate.identity.certificate).expect("a name");
    eventually("the server uses this certificate", async || {
        let states = scene.ctx().apns.state();
        states
            .iter()
            .any(|state| hex::encode(state.certificate.as_bytes()) == name)
    })
    .await;
}

/// Whether APNs took a push to the Mac that came with this certificate.
pub fn was_pushed_by(scene: &Scene, mac: &Mac, certificate: &PushCertificate) -> bool {
    let name = fingerprint(&certificate.identity.certificate).expect("a fingerprint");
    pushes_to(scene, mac)
        .iter()
        .any(|push| push.certificate == name && push.status == 200)
}

/// Longer than the push budget wants between two pushes to one Mac.
pub const LATER: Duration = Duration::from_secs(60 * 60);

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("UTF-8")
}
