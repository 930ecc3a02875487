//! Macs with providers on them: what most stories of sessions begin with.

use attestd::enrollment::Protocol;
use attestd::enrollment::ticket::Bounds;
use attestd::ids::SerialNumber;
use attestd::posture::policy::STRICT;
use attestd_sim::{Life, Mac, MacSpec, Provider};
use serde_json::Value;
use tempfile::TempDir;

use super::scene::{Backend, Scene};

/// The owner of most Macs.
pub const OWNER: &str = "acct-owner";

/// A server that judges by the strict policy, with these changes, and gives attested identities.
pub struct Plane {
    pub scene: Scene,
    _policy: TempDir,
}

impl Plane {
    /// Every program is released here; see [`Plane::changed`].
    pub async fn new(backend: Backend) -> Self {
        Self::changed(backend, &[("release = true", "release = false")], "").await
    }

    /// The strict policy with these replacements, and further tables of configuration.
    pub async fn changed(backend: Backend, changes: &[(&str, &str)], tables: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("policy.toml");
        let mut policy = STRICT.to_owned();
        for (from, to) in changes {
            assert!(policy.contains(from), "{from}");
            policy = policy.replace(from, to);
        }
        std::fs::write(&file, policy).expect("written");
        // As by default: otherwise Apple may be asked before there is a key to name.
        let hold = if tables.contains("hold = ") {
            ""
        } else {
            "[attestation]\nhold = \"24h\"\n"
        };
        let tables = format!(
            "{hold}{tables}[policy]\nfile = \"{}\"\n[enrollment]\nidentity = \"acme\"\n",
            file.display()
        );
        Self {
            scene: Scene::configured(backend, &tables).await,
            _policy: folder,
        }
    }

    /// A Mac of this account, enrolled with an attested identity, that lives.
    pub async fn mac_of(&self, account: Option<&str>) -> (Mac, Life) {
        self.mac_within(account, None).await
    }

    /// As [`Plane::mac_of`], by a ticket that names a provider's key, too.
    pub async fn mac_within(&self, account: Option<&str>, key: Option<&str>) -> (Mac, Life) {
        let mac = self.scene.mac(MacSpec::random().expect("a Mac"));
        self.enroll(&mac, account, key).await;
        let life = mac.live();
        (mac, life)
    }

    /// Enrols a Mac (again) by a ticket of this account that names this key.
    pub async fn enroll(&self, mac: &Mac, account: Option<&str>, key: Option<&str>) {
        let bounds = Bounds {
            serial: Some(SerialNumber::parse(&mac.serial()).expect("a serial number")),
            account: account.map(str::to_owned),
            se_public_key: key.map(str::to_owned),
            protocol: Protocol::Acme,
        };
        let profile = self.scene.deliver_within(bounds).await;
        mac.install_profile(&profile).await.expect("enrols");
    }

    /// A Mac of [`OWNER`] that is trusted, with its session `s` answered for and routed to.
    pub async fn routed(&self) -> (Mac, Life, Provider) {
        let (mac, life) = self.mac_of(Some(OWNER)).await;
        let provider = self.provider_on(&mac);
        let api = &self.scene.api;
        api.bound("s", &provider, Some(OWNER)).await;
        self.once("s", "hardware", |it| it["trust_level"] == "hardware")
            .await;
        assert_eq!(api.challenge("s", &provider).await["routable"], true);
        (mac, life, provider)
    }

    /// The provider software on a Mac.
    pub fn provider_on(&self, mac: &Mac) -> Provider {
        Provider::new(&mac.serial(), self.scene.world.clock()).expect("a provider")
    }

    /// The binding once it is as wanted.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn once(&self, session: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let binding = self.scene.api.binding(session).await;
            if wanted(&binding) {
                return binding;
            }
            assert!(
                std::time::Instant::now() < until,
                "never {what}: {binding:#}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// The names of a Mac's events, and what those of bindings say changed.
    pub async fn told(&self, mac: &Mac) -> Vec<String> {
        let events = self.scene.kept(mac).await.events.into_iter();
        events
            .map(|event| match event.event.body["change"].as_str() {
                Some(change) => format!("{} {change}", event.event.name),
                None => event.event.name,
            })
            .collect()
    }
}
