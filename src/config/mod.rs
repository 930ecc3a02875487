//! Settings: one TOML file, every member known, every value checked before a port is bound.
//!
//! Secrets are never in the file: it names files. Paths are relative to the folder the
//! configuration file is in.

mod clients;
mod defaults;
mod files;
mod log;
mod micromdm;
mod oidc;
mod proxied;
mod push_certificates;
mod retention;
mod shared_signals;
mod telemetry;
mod transparency;
mod unusable;
mod url;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::clients::Client;
pub use self::log::{Log, LogFormat};
pub use self::micromdm::MicroMdm;
pub use self::oidc::Oidc;
pub use self::push_certificates::{Activation, PushCertificates};
pub use self::retention::Retention;
pub use self::shared_signals::SharedSignals;
pub use self::telemetry::Telemetry;
pub use self::transparency::{Transparency, Witness};
pub use self::unusable::Unusable;
pub(crate) use self::url::check_base_url;
use self::url::has_password;
use crate::enrollment::Protocol;
use crate::network::Network;
use crate::posture::policy::shipped;
use crate::publication::feed::Disclosure;
use crate::time::Span;

/// The file as written. Unknown members are refused: a misspelt setting must not vanish.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Canonical URL of the public listener, `https://host[:port]`, no path. Everything a Mac is
    /// told derives from it, never from a Host header. It can never change for an enrolled Mac.
    pub base_url: String,
    /// Folder of keys, database and lock.
    #[serde(default = "defaults::data_dir")]
    pub data_dir: PathBuf,
    #[serde(default)]
    pub database: Database,
    pub public: Public,
    pub internal: Internal,
    #[serde(default)]
    pub secrets: Secrets,
    #[serde(default)]
    pub enrollment: Enrollment,
    #[serde(default)]
    pub pki: Pki,
    #[serde(default)]
    pub apns: Apns,
    #[serde(default)]
    pub push_certificates: PushCertificates,
    #[serde(default)]
    pub attestation: Attestation,
    #[serde(default)]
    pub verification: Verification,
    #[serde(default)]
    pub retention: Retention,
    #[serde(default)]
    pub policy: PolicyFile,
    #[serde(default)]
    pub releases: Releases,
    #[serde(default)]
    pub feed: Feed,
    /// For a coordinator that was written for MicroMDM. Absent: off.
    pub micromdm: Option<MicroMdm>,
    #[serde(default)]
    pub shared_signals: SharedSignals,
    #[serde(default)]
    pub transparency: Transparency,
    #[serde(default)]
    pub telemetry: Telemetry,
    #[serde(default)]
    pub log: Log,
}

/// Where state is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://user@host/name`; absent: embedded SQLite in `data_dir`. A password belongs into
    /// `url_file`.
    pub url: Option<String>,
    /// A file whose one line is the URL.
    pub url_file: Option<PathBuf>,
}

/// The listener Macs and the world reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Public {
    pub listen: SocketAddr,
    /// PEM chain and key for TLS in the server itself.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// TLS ends at a reverse proxy in front; needed when there is no `tls_certificate`, so that
    /// nobody serves in clear by accident. Client addresses are then read from X-Forwarded-For.
    #[serde(default)]
    pub behind_proxy: bool,
    /// Where the proxies in front are. What they add to a request is then believed of nobody else.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// The header in which those proxies pass on the certificate a client showed them.
    pub client_certificate_header: Option<String>,
    /// Ask for client certificates in the TLS of this server: another proof than `Mdm-Signature`.
    #[serde(default)]
    pub client_certificates: bool,
    /// A private TLS root to put into profiles, PEM; only for a server certificate no public
    /// authority issued.
    pub tls_root: Option<PathBuf>,
    /// Profiles one client address may ask for in a minute.
    #[serde(default = "defaults::enroll_per_minute")]
    pub enroll_per_minute: u32,
    /// SCEP requests one client address may make in a minute.
    #[serde(default = "defaults::scep_per_minute")]
    pub scep_per_minute: u32,
    /// ACME requests one client address may make in a minute; an issuance takes nine.
    #[serde(default = "defaults::acme_per_minute")]
    pub acme_per_minute: u32,
    /// Connections one client address may have open; more are closed at once.
    #[serde(default = "defaults::connections_per_address")]
    pub connections_per_address: u32,
    /// How often one client address may read the public feed in a minute.
    #[serde(default = "defaults::feed_per_minute")]
    pub feed_per_minute: u32,
    /// How often one client address may read a part of the transparency log in a minute.
    #[serde(default = "defaults::log_per_minute")]
    pub log_per_minute: u32,
}

/// The listener of coordinator and operators; never the public one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    pub listen: SocketAddr,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Authorities of clients that need no token, PEM. TLS ends in this server then.
    #[serde(default)]
    pub client_roots: Vec<PathBuf>,
    /// What each of them may do.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// The OpenID provider whose access tokens let somebody in. Absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
}

/// Where secrets are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// File of the master key. Absent: `$ATTESTD_MASTER_KEY_FILE`, the systemd credential
    /// `master-key`, or `data_dir/master.key`.
    pub master_key_file: Option<PathBuf>,
}

/// What profiles say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrollment {
    /// Shown to the owner when the profile is installed.
    pub organization: String,
    /// Prefix of the payload identifiers; absent: derived from `base_url`. Constant for a fleet.
    pub identifier: Option<String>,
    /// How long a device identity is valid. Long, because a server that asks for read-only rights
    /// cannot push a renewed profile.
    pub identity_lifetime: Span,
    /// The identity of a profile where the request does not say what the Mac can do: `acme`, a
    /// Secure Enclave key that Apple attests (Apple silicon, macOS 14), or `scep`.
    pub identity: Protocol,
    /// What the profiles of a former server said, where this one adopts its Macs.
    pub adopted: AdoptedProfile,
}

/// Identifiers and UUIDs of an adopted fleet's profiles, as they are on its Macs: a new profile with
/// others would not replace the old one. Absent: this server's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdoptedProfile {
    pub identity_identifier: Option<String>,
    pub mdm_identifier: Option<String>,
    pub profile_uuid: Option<String>,
    pub identity_uuid: Option<String>,
    pub mdm_uuid: Option<String>,
}

/// Certificate authorities besides this server's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pki {
    /// Authorities of former servers, PEM: identities they issued may say Authenticate here.
    pub adopted_cas: Vec<PathBuf>,
}

/// Apple's push service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Apns {
    pub url: String,
    /// A root certificate for another endpoint than Apple's, PEM.
    pub root: Option<PathBuf>,
    /// At most so many pushes leave this node within any second.
    pub pushes_per_second: NonZeroU32,
}

/// Apple's attestation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attestation {
    /// The first attestation waits this long for a provider key to name. `0s`: it does not wait.
    pub hold: Span,
    /// A root instead of Apple's pinned one, PEM: for simulated Macs. Every result says so.
    pub root: Option<PathBuf>,
    /// What the nonces are made from.
    pub nonce_scheme: NonceScheme,
}

/// What the nonces are made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NonceScheme {
    /// The name and the time of the question.
    #[default]
    #[serde(rename = "transcript-v1")]
    TranscriptV1,
    /// The newest head of the transparency log: that the nonce was not known before need not be believed of
    /// this service. Of Macs that have not proved their serial number yet as before.
    #[serde(rename = "beacon-v2")]
    BeaconV2,
}

/// How evidence is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verification {
    /// How long a Mac may take to answer before the attempt counts as timed out.
    pub patience: Span,
    /// How often one Mac is woken within any hour, whatever for. More than two or three do not get
    /// through to it.
    pub pushes_per_hour: NonZeroU32,
    /// How many Macs wait to be woken at most. Whoever asks for more is told to come again later.
    pub queue: NonZeroU32,
}

/// Which policy judges.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// A policy that ships with the server: `strict`, `adopted` or `darkbloom-2026`. Absent, and no
    /// file either: `strict`.
    pub name: Option<String>,
    /// A policy of your own.
    pub file: Option<PathBuf>,
}

/// Who registers releases of the provider software, besides operators.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Releases {
    /// A file of one bearer key of at least 32 characters, mode 0600: the key of a build machine, as
    /// former coordinators had one. It registers releases and does nothing else. Absent: there is none.
    pub key_file: Option<PathBuf>,
}

/// What everybody may read of the providers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Feed {
    /// `full`: everything an outsider needs to check it. `redacted`: nothing that a serial number can be
    /// had from, and therefore neither Apple's chains nor the providers' signed words.
    pub disclosure: Disclosure,
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path, insecure_http: bool) -> Result<Self, Unusable> {
        let text = std::fs::read_to_string(path).map_err(|cause| Unusable::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let mut config = Self::parse(&text, insecure_http)?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Reads and checks the text of a configuration file; paths stay as written.
    pub fn parse(text: &str, insecure_http: bool) -> Result<Self, Unusable> {
        let config: Self =
            toml::from_str(text).map_err(|cause| Unusable::Malformed(Box::new(cause)))?;
        config.check(insecure_http)?;
        Ok(config)
    }

    fn check(&self, insecure_http: bool) -> Result<(), Unusable> {
        check_base_url(&self.base_url, insecure_http)?;
        let both = |certificate: &Option<PathBuf>, key: &Option<PathBuf>, what| {
            if certificate.is_some() == key.is_some() {
                Ok(())
            } else {
                Err(Unusable::HalfTls(what))
            }
        };
        both(&self.public.tls_certificate, &self.public.tls_key, "public")?;
        both(
            &self.internal.tls_certificate,
            &self.internal.tls_key,
            "internal",
        )?;
        let in_clear = self.public.tls_certificate.is_none() && !self.public.behind_proxy;
        if in_clear && !(insecure_http && self.public.listen.ip().is_loopback()) {
            return Err(Unusable::NoTls);
        }
        if self.internal.tls_certificate.is_none() && !self.internal.listen.ip().is_loopback() {
            return Err(Unusable::InternalInClear(self.internal.listen));
        }
        if self.public.listen == self.internal.listen && self.public.listen.port() != 0 {
            return Err(Unusable::SameListener(self.public.listen));
        }
        self.public.check_certificates()?;
        self.internal.check_clients()?;
        if let Some(oidc) = &self.internal.oidc {
            oidc.check()?;
        }
        if let Some(micromdm) = &self.micromdm {
            micromdm.check()?;
        }
        self.shared_signals.check(insecure_http)?;
        self.push_certificates.check()?;
        self.retention.check()?;
        self.transparency.check()?;
        let by_log = self.attestation.nonce_scheme == NonceScheme::BeaconV2;
        if by_log && !self.transparency.enabled {
            return Err(Unusable::NoncesWithoutLog);
        }
        for (span, name) in [
            (
                self.enrollment.identity_lifetime,
                "enrollment.identity_lifetime",
            ),
            (self.verification.patience, "verification.patience"),
        ] {
            if span.0.is_zero() {
                return Err(Unusable::Zero(name));
            }
        }
        let public = &self.public;
        for (limit, name) in [
            (public.enroll_per_minute, "public.enroll_per_minute"),
            (public.scep_per_minute, "public.scep_per_minute"),
            (public.acme_per_minute, "public.acme_per_minute"),
            (
                public.connections_per_address,
                "public.connections_per_address",
            ),
            (public.feed_per_minute, "public.feed_per_minute"),
            (public.log_per_minute, "public.log_per_minute"),
        ] {
            if limit == 0 {
                return Err(Unusable::Zero(name));
            }
        }
        for (name, is, most, why) in [
            (
                "verification.pushes_per_hour",
                self.verification.pushes_per_hour,
                60,
                "a Mac that was woken within the last minute is about to connect",
            ),
            (
                "verification.queue",
                self.verification.queue,
                1_000_000,
                "it is kept in memory",
            ),
            (
                "apns.pushes_per_second",
                self.apns.pushes_per_second,
                20_000,
                "one connection to APNs does not take more",
            ),
        ] {
            let is = is.get();
            if is > most {
                return Err(Unusable::TooMany {
                    name,
                    is,
                    most,
                    why,
                });
            }
        }
        match (&self.database.url, &self.database.url_file) {
            (Some(_), Some(_)) => return Err(Unusable::TwoDatabases),
            (Some(url), None) if has_password(url) => return Err(Unusable::PasswordInFile),
            _ => {}
        }
        match (&self.policy.name, &self.policy.file) {
            (Some(_), Some(_)) => return Err(Unusable::TwoPolicies),
            (Some(name), None) if shipped(name).is_none() => {
                return Err(Unusable::PolicyName(name.clone()));
            }
            _ => {}
        }
        let adopted = &self.enrollment.adopted;
        for identifier in [
            &self.enrollment.identifier,
            &adopted.identity_identifier,
            &adopted.mdm_identifier,
            &adopted.profile_uuid,
            &adopted.identity_uuid,
            &adopted.mdm_uuid,
        ]
        .into_iter()
        .flatten()
        {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
            if identifier.is_empty() || identifier.len() > 100 || !identifier.bytes().all(plain) {
                return Err(Unusable::Identifier(identifier.clone()));
            }
        }
        Ok(())
    }

    /// The prefix of payload identifiers: configured, or the host of `base_url` in reverse.
    pub fn payload_identifier(&self) -> String {
        if let Some(identifier) = &self.enrollment.identifier {
            return identifier.clone();
        }
        let host = self.base_url.split("://").nth(1).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let mut labels: Vec<_> = host.split('.').collect();
        labels.reverse();
        format!("{}.attestd", labels.join("."))
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
