//! The keys of the service's own authority, read from where they are kept.

use anyhow::Context as _;

use crate::ca::ProvedSigner;
use crate::flows::authorities::{Authorities, Held, Registration};
use crate::keys::{KeyKeeper, KeyName, KeyRole};

/// Every key that has its certificate; the first of a role must have one.
///
/// # Errors
/// A key that is missing, damaged, or not sealed under this master key.
pub fn held(keeper: &dyn KeyKeeper) -> anyhow::Result<Authorities> {
    let one = |key| -> anyhow::Result<Held> {
        let signer = ProvedSigner::prove(keeper.signer(key)?)
            .with_context(|| format!("{key} cannot be used"))?;
        Held::new(signer, keeper.certificates(key)?)
            .with_context(|| format!("{key} has no certificate"))
    };
    // Of those that followed the first, one without a certificate is one whose making was interrupted.
    let complete = |role| -> anyhow::Result<Vec<KeyName>> {
        let mut keys = keeper.keys(role)?;
        keys.retain(|key| key.generation == 1 || keeper.certificates(*key).is_ok());
        if keys.is_empty() {
            keys.push(KeyName::first(role));
        }
        Ok(keys)
    };
    let all_held =
        |role| -> anyhow::Result<Vec<Held>> { complete(role)?.into_iter().map(one).collect() };
    let registrations = complete(KeyRole::RegistrationAuthority)?.into_iter();
    let registrations = registrations.map(|key| {
        Ok(Registration {
            held: one(key)?,
            decryptor: keeper.decryptor(key)?,
        })
    });
    let registrations = registrations.collect::<anyhow::Result<_>>()?;
    let (device_cas, signers) = (
        all_held(KeyRole::DeviceCa)?,
        all_held(KeyRole::ProfileSigner)?,
    );
    Authorities::new(device_cas, registrations, signers).context("a key of the service is missing")
}
