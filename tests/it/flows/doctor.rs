//! An operator asks whether the service can work on this machine, and is told what to do where it cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use attestd_sim::certs::Issuer;
use attestd_sim::keys::KeyKind;
use serde_json::{Value, json};

use crate::harness::scene::{PublicSide, Scene, attestd, free_port};

/// By TLS of its own, under a root that Macs are told to trust.
const BY_TLS: PublicSide<'_> = PublicSide {
    lines: "tls_root = \"root.pem\"",
    tls: true,
};

/// What `attestd doctor` says of a configuration: its exit status and its checks.
struct Told {
    code: Option<i32>,
    said: Value,
}

impl Told {
    /// The first check of this name.
    fn of(&self, check: &str) -> (&str, &str, &str) {
        let checks = self.said["checks"].as_array().expect("checks");
        let found = checks
            .iter()
            .find(|one| one["check"] == check)
            .expect(check);
        let text = |name: &str| found[name].as_str().expect("text");
        (text("standing"), text("found"), text("do"))
    }

    /// Whether this check alone is a fault, says so, and says what to do.
    #[track_caller]
    fn is_fault(&self, check: &str, words: &str) {
        let (standing, found, todo) = self.of(check);
        assert!(
            standing == "fault" && found.contains(words) && !todo.is_empty(),
            "{}",
            self.said
        );
        assert_eq!((self.code, &self.said["worst"]), (Some(1), &json!("fault")));
        let checks = self.said["checks"].as_array().expect("checks");
        let faults = checks.iter().filter(|one| one["standing"] == "fault");
        assert_eq!(faults.count(), 1, "{}", self.said);
    }
}

struct Patient<'a> {
    scene: &'a Scene,
    settings: String,
    folder: PathBuf,
}

impl<'a> Patient<'a> {
    fn new(scene: &'a Scene) -> Self {
        let settings = fs::read_to_string(scene.config()).expect("a configuration");
        let folder = scene.config().parent().expect("a folder").to_owned();
        Self {
            scene,
            settings,
            folder,
        }
    }

    fn looks(&self, config: &std::path::Path) -> Told {
        let (config, at) = (
            config.to_str().expect("a path"),
            self.scene.now().to_string(),
        );
        let words = [
            "doctor",
            "--json",
            "--insecure-http",
            "--config",
            config,
            "--at",
            &at,
        ];
        let output = attestd(&words);
        let fault = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = serde_json::from_slice(&output.stdout);
        Told {
            code: output.status.code(),
            said: said.expect(&fault),
        }
    }

    /// With other settings than it has.
    fn with(&self, from: &str, to: &str) -> Told {
        assert!(
            self.settings.contains(from),
            "{from} is not in {}",
            self.settings
        );
        let other = self.folder.join("other.toml");
        fs::write(&other, self.settings.replace(from, to)).expect("written");
        self.looks(&other)
    }

    fn as_it_is(&self) -> Told {
        self.looks(self.scene.config())
    }
}

journey! {
    async fn a_service_that_is_well_is_found_well_and_each_fault_says_what_to_do(backend: Backend) {
        let scene = Scene::reached(backend, BY_TLS).await;
        let patient = Patient::new(&scene);
        let keys = patient.folder.join("keys");
        let mode = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        };

        // Beside the running server.
        let well = patient.as_it_is();
        assert_eq!((well.code, &well.said["worst"]), (Some(0), &json!("ok")), "{}", well.said);
        for check in ["configuration", "master_key", "disk", "keys", "device_ca", "registration_authority", "profile_signer", "tls",
            "apns", "database", "clock", "master_key_handover", "push_certificates", "identities", "receivers"] {
            assert_eq!(well.of(check).0, "ok", "{check}");
        }
        for check in ["time_server", "backup"] {
            let (standing, why, _) = well.of(check);
            assert!(standing == "not_checked" && !why.is_empty(), "{check}");
        }

        // The certificate of the listener, as Macs judge it.
        patient.with("base_url = \"https://localhost:", "base_url = \"https://elsewhere.example.org:").is_fault("tls", "not valid for name");
        patient.with("tls_root = \"root.pem\"", "").is_fault("tls", "UnknownIssuer");
        let long_ago = scene.now().millis() - 10 * 365 * 86_400_000;
        let issuer = Issuer::root("TLS root", "Simulated", KeyKind::P256, long_ago).expect("a root");
        let server = issuer.loopback_server(long_ago).expect("a certificate");
        for (name, bytes) in [
            ("old.pem", server.certificate_pem()),
            ("old.key", server.key_pem()),
            ("old-root.pem", issuer.certificate_pem()),
        ] {
            fs::write(patient.folder.join(name), bytes.expect("PEM")).expect("written");
        }
        let old = "tls_certificate = \"old.pem\"\ntls_key = \"old.key\"\n";
        let present = "tls_certificate = \"tls.pem\"\ntls_key = \"tls.key\"\n";
        patient.with(present, old).is_fault("tls", "expired");
        patient.with("tls_key = \"tls.key\"", "tls_key = \"old.key\"").is_fault("tls", "do not fit together");
        let proxied = patient.with(present, "behind_proxy = true\n");
        assert_eq!((proxied.code, proxied.of("tls").0), (Some(0), "not_checked"), "{}", proxied.said);

        // The way to Apple.
        let apns = scene.world.apns().url();
        let nobody = format!("https://localhost:{}", free_port());
        patient.with(&apns, &nobody).is_fault("apns", "no connection to localhost");
        let line = patient.settings.lines().skip_while(|line| *line != "[apns]").find(|line| line.starts_with("root = "));
        patient.with(&format!("{}\n", line.expect("a root")), "").is_fault("apns", "not trusted");

        // Keys that others can use.
        mode(&keys, 0o777);
        patient.as_it_is().is_fault("keys", "set it to 0700");
        mode(&keys, 0o700);
        let key = keys.join("device-ca.key");
        mode(&key, 0o644);
        patient.as_it_is().is_fault("keys", "set it to 0600");
        mode(&key, 0o600);

        // The database is away; what is asked of it is not said to be well.
        let away = format!("[database]\nurl = \"postgres://attestd@127.0.0.1:{}/attestd\"\n[apns]\n", free_port());
        let without: String = match patient.settings.split_once("[database]\n") {
            None => patient.settings.clone(),
            Some((before, rest)) => format!("{before}{}", rest.split_once('\n').map_or("", |(_, rest)| rest)),
        };
        let away = Patient { settings: without, scene: &scene, folder: patient.folder.clone() }.with("[apns]\n", &away);
        away.is_fault("database", "");
        assert_eq!((away.of("clock").0, away.of("push_certificates").0), ("not_checked", "not_checked"));

        // The device CA ends before what it is to issue.
        let told = patient.with("identity = \"scep\"\n", "identity = \"scep\"\nidentity_lifetime = \"9400d\"\n");
        let (standing, _, todo) = told.of("device_ca");
        assert!(told.code == Some(3) && standing == "warning" && todo.contains("keys replace"), "{}", told.said);

        // Nothing else is looked at by a configuration that cannot be used.
        let told = patient.with("[internal]", "[internally]");
        assert_eq!((told.code, told.said["checks"].as_array().map(Vec::len)), (Some(64), Some(1)));
        assert_eq!(told.of("configuration").0, "fault");

        // People read it too.
        let config = scene.config().to_str().expect("a path");
        let shown = attestd(&["doctor", "--insecure-http", "--config", config]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        for word in ["push_certificates", "not checked", "how it stands", "TLS and HTTP/2"] {
            assert!(shown.contains(word), "{word} is not in {shown}");
        }
    }
}

journey! {
    async fn a_service_without_a_push_certificate_is_told_how_to_get_one(backend: Backend) {
        let scene = Scene::without_push_certificate(backend).await;
        let told = Patient::new(&scene).as_it_is();
        told.is_fault("push_certificates", "none is in use");
        // In clear, on a loopback address: not for Macs of others.
        assert_eq!(told.of("tls").0, "warning");
    }
}
