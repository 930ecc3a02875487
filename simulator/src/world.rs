//! Everything around the Macs: Apple's attestation and push doubles, one push certificate, a clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use tokio::sync::broadcast;

use crate::apns::{Apns, ApnsError, ApnsOptions, PushAuthority, PushBudget, PushCertificate};
use crate::apple::AttestationAuthority;
use crate::authorities::{Authorities, WorldFiles};
use crate::certs::Issuer;
use crate::clock::Clock;
use crate::keys::KeyPool;
use crate::mac::MacEvent;

/// How a world starts.
#[derive(Debug, Clone, Default)]
pub struct WorldOptions {
    /// The authorities; by default those of `folder`, or new ones.
    pub authorities: Option<Authorities>,
    /// Where authorities are kept and found again, so that a server configured for this world still
    /// fits after a restart; also gets the files a server needs ([`WorldFiles`]).
    pub folder: Option<PathBuf>,
    /// The topic of the push certificate, where one is made; a new one by default.
    pub topic: Option<String>,
    /// The push service's port; 0 takes a free one.
    pub apns_port: u16,
    pub push_budget: Option<PushBudget>,
    pub clock: Clock,
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
    authorities: Arc<Authorities>,
    apns: Apns,
    clock: Clock,
    keys: KeyPool,
    trust: Arc<Mutex<Vec<Vec<u8>>>>,
    events: broadcast::Sender<MacEvent>,
}

impl World {
    /// Makes (or finds) the authorities and starts the push service.
    pub async fn start(options: WorldOptions) -> Result<Self, WorldError> {
        let authorities = match (options.authorities, &options.folder) {
            (Some(given), None) => given,
            (Some(given), Some(folder)) => {
                given.write_files(folder)?;
                given
            }
            (None, Some(folder)) => Authorities::in_folder(folder, options.topic.as_deref())?,
            (None, None) => Authorities::new(options.topic.as_deref(), options.clock.now_ms())?,
        };
        let apns_options = ApnsOptions {
            port: options.apns_port,
            budget: options.push_budget,
        };
        let (root, push) = (&authorities.apns_root, &authorities.push_authority);
        let apns = Apns::start(root, push, options.clock.clone(), apns_options).await?;
        Ok(Self {
            authorities: Arc::new(authorities),
            apns,
            clock: options.clock,
            keys: KeyPool::default(),
            trust: Arc::default(),
            events: broadcast::channel(4096).0,
        })
    }

    /// Writes what a server needs into `folder`, which is made where it is missing.
    pub fn write_files(&self, folder: &Path) -> Result<WorldFiles, WorldError> {
        self.authorities.write_files(folder)
    }

    /// The attestation double, also for chains made by hand.
    pub fn apple(&self) -> &AttestationAuthority {
        &self.authorities.apple
    }

    /// The push double: faults, sleeping tokens, what was pushed.
    pub fn apns(&self) -> &Apns {
        &self.apns
    }

    /// Issues further push certificates: renewals, and ones with a wrong topic.
    pub fn push_authority(&self) -> &PushAuthority {
        &self.authorities.push_authority
    }

    /// The push certificate a server of this world is configured with.
    pub fn push_certificate(&self) -> &PushCertificate {
        &self.authorities.push_certificate
    }

    /// The device CA of a server the Macs were enrolled at before.
    pub fn former_device_ca(&self) -> &Issuer {
        &self.authorities.former_device_ca
    }

    /// The topic of that certificate.
    pub fn topic(&self) -> &str {
        &self.authorities.push_certificate.topic
    }

    /// The time of this world.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The keys of identities to come.
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
