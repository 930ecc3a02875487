//! The keys of the service's own authority are made, and followed by others.
//!
//! A key that follows is in force from the date of its certificate, so that every node has it before one of
//! them signs by it. No Mac enrols anew: who speaks for a Mac was recorded when its certificate was
//! issued, not by whom. The registration authority and the profile signer have certificates of the device
//! CA, and follow with it.

use std::time::Duration;

use crate::audit::{Entry, Verb, Who, Words};
use crate::ca::{CertificateKind, CertificateProfile, IssuanceError, Issuer, prepare};
use crate::entropy::{Entropy, draw};
use crate::keys::{KeyError, KeyKeeper, KeyName, KeyRole};
use crate::pki::{OwnedCertificate, PkiError, PublicKey};
use crate::store::Write;
use crate::time::Timestamp;

/// The device CA outlives every identity it issues by far; a Mac must enrol anew when it ends.
const CA_VALIDITY: Duration = Duration::from_secs(25 * 365 * 24 * 60 * 60);
/// Keys that can be replaced without touching a Mac.
const SIGNER_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Under an authority that ends sooner none is made any more.
const WORTHWHILE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The first keys are in force at once, on nodes whose clocks are behind too.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// Why a key is not made.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("a certificate of {0} cannot be made")]
    Certificate(KeyName, #[source] IssuanceError),
    #[error("a key of ours cannot be read")]
    Unreadable(#[from] PkiError),
    #[error("{0} was made before and waits for its time, {1}")]
    UnderWay(KeyName, Timestamp),
    #[error("{0} ends at {1}: replace the device CA, and this one with it")]
    IssuerEnds(KeyName, Timestamp),
    #[error("there is no {0} to be replaced; `attestd init` makes the first")]
    None(KeyRole),
}

/// What makes keys.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    pub keeper: &'a dyn KeyKeeper,
    /// Stands in the certificates.
    pub organization: &'a str,
    pub entropy: &'a dyn Entropy,
    pub now: Timestamp,
}

/// When a new key is in force.
#[derive(Debug, Clone, Copy)]
struct Term {
    from: Timestamp,
    backdated: Duration,
}

/// Makes the first key of each role.
///
/// # Errors
/// Where one is there already, or cannot be made.
pub fn begin(maker: &Maker<'_>) -> Result<(), Unmade> {
    let term = Term {
        from: maker.now,
        backdated: BACKDATED,
    };
    let [authority, registration, signer] = KeyRole::ALL.map(KeyName::first);
    maker.make_authority(authority, term)?;
    maker.make_below(registration, authority, term)?;
    maker.make_below(signer, authority, term)
}

/// Makes the key that follows in this role, in force from `from`; with the device CA, those of the others, too.
/// Says which were made.
///
/// # Errors
/// Where the last one is not in force yet, or one cannot be made.
pub fn replace(maker: &Maker<'_>, role: KeyRole, from: Timestamp) -> Result<Vec<KeyName>, Unmade> {
    let term = Term {
        from,
        backdated: Duration::ZERO,
    };
    let roles: &[KeyRole] = match role {
        KeyRole::DeviceCa => &KeyRole::ALL,
        KeyRole::RegistrationAuthority | KeyRole::ProfileSigner => &[role],
    };
    let mut made = Vec::with_capacity(roles.len());
    for role in roles {
        made.push(maker.next(*role)?);
    }
    let authority = match made.first() {
        Some(key) if key.role == KeyRole::DeviceCa => *key,
        _ => maker.last(KeyRole::DeviceCa)?,
    };
    for key in &made {
        match key.role {
            KeyRole::DeviceCa => maker.make_authority(*key, term)?,
            _ => maker.make_below(*key, authority, term)?,
        }
    }
    Ok(made)
}

/// Tells the audit log which keys were made. Files are no part of a transaction: it is told after they are
/// there.
pub fn tell(tx: &mut Write, who: &Who, made: &[KeyName], from: Timestamp, now: Timestamp) {
    for key in made {
        let former = KeyName {
            generation: key.generation.saturating_sub(1),
            ..*key
        };
        let entry = Entry::new(who, Verb::AuthorityReplace, Words(key.role.name()), now)
            .before("key", Words(&former.to_string()))
            .after("key", Words(&key.to_string()))
            .after("in_force_from", from);
        tx.record(entry);
    }
}

impl Maker<'_> {
    /// The newest key of a role that has its certificate.
    fn last(&self, role: KeyRole) -> Result<KeyName, Unmade> {
        let keys = self.keeper.keys(role)?;
        let complete = |key: &&KeyName| self.keeper.certificates(**key).is_ok();
        let last = keys.iter().rev().find(complete).copied();
        last.ok_or(Unmade::None(role))
    }

    /// The name of the key that follows. What was begun and not ended is left alone.
    fn next(&self, role: KeyRole) -> Result<KeyName, Unmade> {
        let last = self.last(role)?;
        let chain = self.keeper.certificates(last)?;
        if let Some(leaf) = chain.first() {
            let from = leaf.certificate().not_before();
            if from.is_to_come(self.now) {
                return Err(Unmade::UnderWay(last, from));
            }
        }
        let newest = self.keeper.keys(role)?.last().copied();
        Ok(newest.unwrap_or(last).next())
    }

    fn make_authority(&self, key: KeyName, term: Term) -> Result<(), Unmade> {
        self.keeper.generate(key, key.role.usual_kind())?;
        let certificate = self.certify(key, key, Issuer::Itself, term, CA_VALIDITY)?;
        Ok(self.keeper.keep_certificates(key, &[certificate])?)
    }

    fn make_below(&self, key: KeyName, authority: KeyName, term: Term) -> Result<(), Unmade> {
        let issuers = self.keeper.certificates(authority)?;
        let issuer = issuers.first().ok_or(Unmade::None(authority.role))?.clone();
        self.keeper.generate(key, key.role.usual_kind())?;
        let by = issuer.certificate();
        let left = by.not_after().since(term.from);
        if left < WORTHWHILE {
            return Err(Unmade::IssuerEnds(authority, by.not_after()));
        }
        let validity = SIGNER_VALIDITY.min(left);
        let issuer_of = Issuer::Authority(&by);
        let certificate = self.certify(key, authority, issuer_of, term, validity)?;
        Ok(self
            .keeper
            .keep_certificates(key, &[certificate, issuer.clone()])?)
    }

    fn certify(
        &self,
        key: KeyName,
        authority: KeyName,
        issuer: Issuer<'_>,
        term: Term,
        validity: Duration,
    ) -> Result<OwnedCertificate, Unmade> {
        let (kind, name) = match key.role {
            KeyRole::DeviceCa => (CertificateKind::DeviceAuthority, "attestd device CA"),
            KeyRole::RegistrationAuthority => (
                CertificateKind::RegistrationAuthority,
                "attestd registration authority",
            ),
            KeyRole::ProfileSigner => (CertificateKind::ProfileSigner, "attestd profile signer"),
        };
        let profile = CertificateProfile {
            kind,
            // Each has a name of its own: by its name a certificate says who issued it.
            common_name: match key.generation {
                1 => name.to_owned(),
                generation => format!("{name} {generation}"),
            },
            organization: self.organization.to_owned(),
            validity,
            backdated: term.backdated,
        };
        let public = self.keeper.public_key(key)?;
        let signer = self.keeper.signer(authority)?;
        let prepared = prepare(
            &profile,
            &PublicKey::parse(&public)?,
            issuer,
            signer.algorithm(),
            term.from,
            draw(self.entropy),
        );
        prepared
            .and_then(|prepared| prepared.sign(signer.as_ref()))
            .map_err(|error| Unmade::Certificate(key, error))
    }
}
