//! Everything around the Macs: Apple's attestation and push doubles, one push certificate, a clock.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::x509::X509;
use tokio::sync::broadcast;

use crate::apns::{Apns, ApnsError, ApnsOptions, PushAuthority, PushBudget, PushCertificate};
use crate::apple::AttestationAuthority;
use crate::certs::{Identity, Issuer};
use crate::clock::Clock;
use crate::keys::{KeyKind, KeyPool};
use crate::mac::MacEvent;

/// How a world starts.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// The topic of the push certificate; a new one by default.
    pub topic: Option<String>,
    /// The push service's port; 0 takes a free one.
    pub apns_port: u16,
    pub push_budget: Option<PushBudget>,
    pub clock: Clock,
    /// Keeps the authorities here and finds them again, so that a server configured for this world
    /// still fits after a restart; also gets the files a server needs. See [`World::files`].
    pub folder: Option<PathBuf>,
}

/// Why a world cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    #[error(transparent)]
    Apns(#[from] ApnsError),
    #[error("keys and certificates cannot be made or read")]
    Crypto(#[from] ErrorStack),
    #[error("{path} cannot be used")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A running world. Clones are the same world; it stops when the last one, and the last Mac in it,
/// is dropped.
#[derive(Debug, Clone)]
pub struct World {
    apple: Arc<AttestationAuthority>,
    push_authority: Arc<PushAuthority>,
    push_certificate: Arc<PushCertificate>,
    apns: Apns,
    clock: Clock,
    keys: KeyPool,
    trust: Arc<Mutex<Vec<Vec<u8>>>>,
    events: broadcast::Sender<MacEvent>,
}

/// The files a server under test is configured with.
#[derive(Debug, Clone)]
pub struct WorldFiles {
    /// The root of the push service's server certificate.
    pub apns_root: PathBuf,
    pub push_certificate: PathBuf,
    pub push_key: PathBuf,
    /// The root to pin instead of Apple's.
    pub attestation_root: PathBuf,
}

impl World {
    /// Makes (or finds) the authorities and starts the push service.
    pub async fn start(options: WorldOptions) -> Result<Self, WorldError> {
        let now = Clock::system().now_ms();
        let folder = options.folder.as_deref();
        let apns_root = Issuer {
            identity: keep(folder, "apns-root", || {
                Ok(Issuer::root(
                    "SIMULATED Push Service Root",
                    "Simulated, not Apple",
                    KeyKind::P256,
                    now,
                )?
                .identity)
            })?,
        };
        let push_authority = PushAuthority::from_identity(keep(folder, "push-ca", || {
            Ok(PushAuthority::new(now)?.identity().clone())
        })?);
        let attestation = AttestationAuthority::new()?;
        let root = keep(folder, "attestation-root", || {
            Ok(attestation.parts().0.clone())
        })?;
        let sub_ca = keep(folder, "attestation-sub-ca", || {
            Ok(attestation.parts().1.clone())
        })?;
        let push_certificate = find_push_certificate(folder, &options, &push_authority, now)?;
        let apns_options = ApnsOptions {
            port: options.apns_port,
            budget: options.push_budget,
        };
        let apns = Apns::start(
            &apns_root,
            &push_authority,
            options.clock.clone(),
            apns_options,
        )
        .await?;
        let world = Self {
            apple: Arc::new(AttestationAuthority::from_parts(root, sub_ca)),
            push_authority: Arc::new(push_authority),
            push_certificate: Arc::new(push_certificate),
            apns,
            clock: options.clock,
            keys: KeyPool::default(),
            trust: Arc::default(),
            events: broadcast::channel(4096).0,
        };
        if let Some(folder) = folder {
            world.write_files(folder)?;
        }
        Ok(world)
    }

    /// Writes what a server needs into `folder`, which is made where it is missing.
    pub fn write_files(&self, folder: &Path) -> Result<WorldFiles, WorldError> {
        let files = Self::files(folder);
        write(&files.apns_root, self.apns.root_pem())?;
        write(
            &files.push_certificate,
            &self.push_certificate.identity.certificate_pem()?,
        )?;
        write(&files.push_key, &self.push_certificate.identity.key_pem()?)?;
        write(&files.attestation_root, &self.apple.root_pem()?)?;
        Ok(files)
    }

    /// Where [`World::write_files`] puts them.
    pub fn files(folder: &Path) -> WorldFiles {
        WorldFiles {
            apns_root: folder.join("apns-root.pem"),
            push_certificate: folder.join("push-cert.pem"),
            push_key: folder.join("push-key.pem"),
            attestation_root: folder.join("attestation-root.pem"),
        }
    }

    pub fn apple(&self) -> &AttestationAuthority {
        &self.apple
    }

    pub fn apns(&self) -> &Apns {
        &self.apns
    }

    /// Issues further push certificates: renewals, and ones with a wrong topic.
    pub fn push_authority(&self) -> &PushAuthority {
        &self.push_authority
    }

    pub fn push_certificate(&self) -> &PushCertificate {
        &self.push_certificate
    }

    pub fn topic(&self) -> &str {
        &self.push_certificate.topic
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn keys(&self) -> &KeyPool {
        &self.keys
    }

    /// All Macs of this world trust these roots (PEM, one or several) for TLS, as if an
    /// administrator had installed them; without any, the system's roots are used.
    pub fn trust(&self, pem: &[u8]) {
        self.trust
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(pem.to_vec());
    }

    pub(crate) fn trusted(&self) -> Vec<Vec<u8>> {
        self.trust
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What all Macs of this world do, as it happens. A reader that is slow misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<MacEvent> {
        self.events.subscribe()
    }

    pub(crate) fn publish(&self, event: MacEvent) {
        // Nobody listening is no failure.
        let _ = self.events.send(event);
    }
}

/// The push certificate of this folder, where it has one for the wanted topic and it is still valid.
fn find_push_certificate(
    folder: Option<&Path>,
    options: &WorldOptions,
    authority: &PushAuthority,
    now_ms: i64,
) -> Result<PushCertificate, WorldError> {
    let new_topic = || {
        options
            .topic
            .clone()
            .map_or_else(PushAuthority::new_topic, Ok)
    };
    let Some(folder) = folder else {
        return Ok(authority.issue(&new_topic()?, now_ms - crate::clock::DAY_MS)?);
    };
    let topic_file = folder.join("authorities").join("topic");
    let known = fs::read_to_string(&topic_file).ok();
    let topic = match (known, &options.topic) {
        (Some(known), None) => known.trim().to_owned(),
        _ => new_topic()?,
    };
    write(&topic_file, topic.as_bytes())?;
    Ok(authority.issue(&topic, now_ms - crate::clock::DAY_MS)?)
}

/// The identity kept under `name`, or a new one that is kept from now on.
fn keep(
    folder: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> Result<Identity, ErrorStack>,
) -> Result<Identity, WorldError> {
    let Some(folder) = folder else {
        return Ok(make()?);
    };
    let certificate_file = folder.join("authorities").join(format!("{name}.crt.pem"));
    let key_file = folder.join("authorities").join(format!("{name}.key.pem"));
    if let (Ok(certificate), Ok(key)) = (fs::read(&certificate_file), fs::read(&key_file)) {
        return Ok(Identity {
            key: PKey::private_key_from_pem(&key)?,
            certificate: X509::from_pem(&certificate)?,
        });
    }
    let made = make()?;
    write(&certificate_file, &made.certificate_pem()?)?;
    write(&key_file, &made.key_pem()?)?;
    Ok(made)
}

/// Writes a file for its owner's eyes only, with the folders above it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), WorldError> {
    let attempt = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?
            .write_all(bytes)
    };
    attempt().map_err(|source| WorldError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_world_started_again_in_its_folder_is_the_same_world() {
        let folder = tempfile::tempdir().unwrap();
        let options = WorldOptions {
            folder: Some(folder.path().to_owned()),
            ..WorldOptions::default()
        };
        let first = World::start(options.clone()).await.unwrap();
        let second = World::start(options).await.unwrap();
        assert_eq!(first.topic(), second.topic());
        assert_eq!(
            first.apple().root_pem().unwrap(),
            second.apple().root_pem().unwrap()
        );
        assert_eq!(first.apns().root_pem(), second.apns().root_pem());
        assert!(World::files(folder.path()).push_key.exists());
    }
}
