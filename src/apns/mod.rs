//! The APNs client: pushes over HTTP/2 with mutual TLS, one long-lived connection per topic.
//!
//! - Nothing is lost to a connection that ends: what APNs did not answer is sent again on a new
//!   connection, a few times, with the same `apns-id`.
//! - A session that ended, was told to end, or belongs to a replaced certificate takes no new push.
//! - Connections are opened rarely: one at a time, backing off; APNs takes rapid reconnecting for
//!   abuse.
//! - A fault of the certificate puts its topic on hold and blames no Mac; one push probes now and then.
//! - A certificate is replaced while pushes run.
//! - No token and no PushMagic is logged, here or in the libraries below, at any level.
//!
//! Sources: Apple, *Sending notification requests to APNs*; RFC 9113; apple-protocol section 9.

mod backoff;
mod circuit;
mod line;
mod reach;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use crate::entropy::Entropy;
use crate::ids::{CertificateHash, Topic};
use crate::push::outcome::CertificateFault;
use crate::push::{AcceptedPushCertificate, PushOutcome, Wake};
use crate::secret::Secret;
use crate::time::{Clock, Timestamp};
use line::Line;
pub use reach::{Unreached, reach};
pub use settings::{ApnsSettings, Endpoint};
use tls::Roots;

/// The client. One per process; cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Apns {
    context: Arc<Context>,
    lines: RwLock<HashMap<Topic, Arc<Line>>>,
}

/// What every line needs.
#[derive(Debug)]
struct Context {
    settings: ApnsSettings,
    roots: Roots,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// A certificate that is tried: its pushes go over a connection of their own, beside those of the
/// certificate in use. Ends when dropped; pushes under way end then.
#[derive(Debug)]
pub struct TrialLine(Arc<Line>);

/// What became of [`Apns::install`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// The first certificate of its topic.
    First,
    /// It takes the place of an older generation. Pushes under way end on the old connection; later
    /// ones use a new one.
    Replaced,
    /// This generation, or a newer one, is in use already; nothing changed.
    Kept,
}

/// How a topic stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    pub topic: Topic,
    /// The generation in use.
    pub generation: u64,
    /// The certificate in use.
    pub certificate: CertificateHash,
    /// When it expires.
    pub not_after: Timestamp,
    /// Open connections.
    pub connections: usize,
    /// Pushes sent and not answered.
    pub in_flight: usize,
    /// When APNs last took a push.
    pub last_success: Option<Timestamp>,
    /// The last outcome that was no answer about one Mac, and when. Kept after things went well
    /// again: compare with [`TopicState::last_success`].
    pub last_fault: Option<(Timestamp, PushOutcome)>,
    /// Pushes are held back for a certificate or topic fault: since when, and for which, as of the last
    /// push that was sent all the same to find out.
    pub stopped: Option<(Timestamp, PushOutcome)>,
    /// Until the next probe.
    pub on_hold_until: Option<Timestamp>,
}

/// Why the client cannot be made, or a certificate not be installed.
#[derive(Debug, thiserror::Error)]
pub enum ApnsError {
    #[error("the APNs endpoint must be https://host or https://host:port")]
    Endpoint,
    #[error("the extra root certificates for APNs cannot be read")]
    ExtraRoots,
    #[error("the push certificate and its key do not fit together for TLS")]
    Unusable(#[source] rustls::Error),
}

impl Apns {
    /// A client without certificates. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ApnsError::ExtraRoots`].
    pub fn new(
        settings: ApnsSettings,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ApnsError> {
        let roots = Roots::new(settings.extra_roots.as_deref())?;
        Ok(Self {
            context: Arc::new(Context {
                settings,
                roots,
                clock,
                entropy,
            }),
            lines: RwLock::default(),
        })
    }

    /// Puts a certificate to use for its topic, with its private key (PKCS #8, DER). `generation`
    /// grows with every replacement; an older one never replaces a newer one.
    ///
    /// # Errors
    /// [`ApnsError::Unusable`]; what was in use stays in use.
    pub fn install(
        &self,
        certificate: &AcceptedPushCertificate,
        key: &Secret<Vec<u8>>,
        generation: u64,
    ) -> Result<Installed, ApnsError> {
        let credentials = tls::Credentials::new(certificate, key, generation, &self.context.roots)?;
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(certificate.topic()) {
            return Ok(line.replace(credentials));
        }
        let line = Line::new(Arc::clone(&self.context), credentials);
        lines.insert(certificate.topic().clone(), Arc::new(line));
        Ok(Installed::First)
    }

    /// A certificate to try, with its private key (PKCS #8, DER). What is in use for its topic is not
    /// touched, and a fault of this one holds nobody else back.
    ///
    /// # Errors
    /// [`ApnsError::Unusable`].
    pub fn trial(
        &self,
        certificate: &AcceptedPushCertificate,
        key: &Secret<Vec<u8>>,
    ) -> Result<TrialLine, ApnsError> {
        let credentials = tls::Credentials::new(certificate, key, 0, &self.context.roots)?;
        let line = Line::new(Arc::clone(&self.context), credentials);
        Ok(TrialLine(Arc::new(line)))
    }

    /// Takes a topic out of use; pushes under way end.
    pub fn withdraw(&self, topic: &Topic) {
        let line = self
            .lines
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(topic);
        if let Some(line) = line {
            line.close();
        }
    }

    /// Sends one push and waits for what becomes of it, at most [`ApnsSettings::deadline`]. `id` is
    /// the `apns-id`: it names the push in every attempt.
    pub async fn send(&self, wake: &Wake, id: Uuid) -> PushOutcome {
        let line = self
            .lines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(wake.topic())
            .cloned();
        match line {
            Some(line) => line.send(wake, id).await,
            None => PushOutcome::CertificateFault(CertificateFault::Absent),
        }
    }

    /// How every topic stands, in the order of their names.
    pub fn state(&self) -> Vec<TopicState> {
        let lines: Vec<_> = self
            .lines
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        let mut states: Vec<_> = lines.iter().map(|line| line.state()).collect();
        states.sort_by(|a, b| a.topic.cmp(&b.topic));
        states
    }
}

impl TrialLine {
    /// As [`Apns::send`]; the push must be for the topic of the certificate.
    pub async fn send(&self, wake: &Wake, id: Uuid) -> PushOutcome {
        self.0.send(wake, id).await
    }
}

impl Drop for TrialLine {
    fn drop(&mut self) {
        self.0.close();
    }
}
