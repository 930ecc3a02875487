//! The keys this service signs with, held from start-up.
//!
//! Of each there may be several: one is in force, by the date of its certificate; what comes is known
//! before it is used, so that nodes can be given it in turn; and former ones stay known for what they
//! signed, and for who began to speak with them.

use std::sync::Arc;

use crate::ca::ProvedSigner;
use crate::pki::{Certificate, Decryptor, OwnedCertificate};
use crate::time::Timestamp;

/// A key and its certificate chain.
#[derive(Debug)]
pub struct Held {
    pub signer: ProvedSigner,
    certificate: OwnedCertificate,
    /// When it begins to be in force.
    from: Timestamp,
    /// The certificates above it, its issuer's first.
    pub above: Vec<OwnedCertificate>,
}

/// A key that speaks SCEP.
#[derive(Debug)]
pub struct Registration {
    pub held: Held,
    pub decryptor: Arc<dyn Decryptor>,
}

/// Every key. None of the lists is empty; the first that was made stands first.
#[derive(Debug)]
pub struct Authorities {
    device_cas: Vec<Held>,
    registrations: Vec<Registration>,
    profile_signers: Vec<Held>,
}

impl Held {
    /// A key and its chain, leaf first; `None` where there is no leaf.
    pub fn new(signer: ProvedSigner, chain: Vec<OwnedCertificate>) -> Option<Self> {
        let mut chain = chain.into_iter();
        let certificate = chain.next()?;
        Some(Self {
            signer,
            from: certificate.certificate().not_before(),
            certificate,
            above: chain.collect(),
        })
    }

    /// The certificate of the key.
    pub fn certificate(&self) -> Certificate<'_> {
        self.certificate.certificate()
    }
}

impl Authorities {
    /// `None` where one of the lists is empty.
    pub fn new(
        device_cas: Vec<Held>,
        registrations: Vec<Registration>,
        profile_signers: Vec<Held>,
    ) -> Option<Self> {
        let complete =
            !device_cas.is_empty() && !registrations.is_empty() && !profile_signers.is_empty();
        complete.then_some(Self {
            device_cas,
            registrations,
            profile_signers,
        })
    }

    /// Issues identities.
    pub fn device_ca(&self, now: Timestamp) -> &Held {
        in_force(&self.device_cas, now, |held| held)
    }

    /// Is given out to SCEP clients.
    pub fn registration(&self, now: Timestamp) -> &Registration {
        in_force(&self.registrations, now, |one| &one.held)
    }

    /// Signs profiles.
    pub fn profile_signer(&self, now: Timestamp) -> &Held {
        in_force(&self.profile_signers, now, |held| held)
    }

    /// Each that issued identities, issues them or will.
    pub fn device_cas(&self) -> impl Iterator<Item = &Held> {
        self.device_cas.iter()
    }

    /// The last that was made of each, by its name in metrics: when it ends, another is due.
    pub fn newest(&self) -> impl IntoIterator<Item = (&'static str, &Held)> {
        let registration = self.registrations.last().map(|one| &one.held);
        [
            ("device_ca", self.device_cas.last()),
            ("registration_authority", registration),
            ("profile_signer", self.profile_signers.last()),
        ]
        .into_iter()
        .filter_map(|(name, held)| Some((name, held?)))
    }

    /// Each to which SCEP clients may speak, the one they should first.
    pub fn registrations(&self, now: Timestamp) -> impl Iterator<Item = &Registration> {
        let first = self.registration(now);
        let others = self.registrations.iter().rev();
        let others = others.filter(move |one| !std::ptr::eq(*one, first));
        std::iter::once(first).chain(others)
    }

    /// Who issued an identity; where none of ours did, whoever issues now.
    pub fn issuer_of(&self, identity: &Certificate<'_>, now: Timestamp) -> &Held {
        if let [only] = self.device_cas.as_slice() {
            return only;
        }
        let issuer = identity.issuer();
        let ours = self.device_cas.iter().rev();
        let mut ours = ours.filter(|held| held.certificate().subject().as_der() == issuer.as_der());
        ours.next().unwrap_or_else(|| self.device_ca(now))
    }

    /// Whether a SCEP client may name it as the issuer of what it asks for.
    pub fn is_named(&self, subject: &[u8]) -> bool {
        let registrations = self.registrations.iter().map(|one| &one.held);
        let mut known = self.device_cas.iter().chain(registrations);
        known.any(|held| held.certificate().subject().as_der() == subject)
    }
}

/// The last whose time has come; where the clock says that none has, the first.
fn in_force<T>(generations: &[T], now: Timestamp, held: impl Fn(&T) -> &Held) -> &T {
    let begun = |one: &&T| held(one).from <= now;
    generations
        .iter()
        .rev()
        .find(begun)
        .unwrap_or(&generations[0])
}
