//! The yearly push certificate: installed by an operator, taken into use without a restart.

use super::{Context, Failure};
use crate::entropy::Entropy;
use crate::ids::{PushCertificateId, Topic};
use crate::keys::KeyPair;
use crate::pki::{Signer as _, pem};
use crate::push::certificate::{PushCertificate, PushCertificateRefusal};
use crate::push::key::read_private_key;
use crate::secret::Secret;
use crate::store::{self, Standing, Store, StoreError};
use crate::time::Timestamp;

/// Why a certificate is not installed.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    #[error(transparent)]
    Refused(#[from] PushCertificateRefusal),
    #[error("the private key is not usable: RSA of at least 2048 bits is needed")]
    Key,
    #[error(
        "the certificate is for topic {candidate}, but this fleet is enrolled under {active}. \
         A topic can never change: {macs} Macs would have to enrol again by hand. Renew the \
         certificate in Apple's portal on the row it was made in, under the same Apple Account"
    )]
    OtherTopic {
        active: Topic,
        candidate: Topic,
        macs: usize,
    },
    #[error("the certificate in use is valid for longer, until {0}; nothing was changed")]
    NoLonger(Timestamp),
    #[error("this very certificate is in use already")]
    InUse,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks and stores a push certificate; running servers take it into use within seconds.
pub async fn install(
    store: &Store,
    entropy: &dyn Entropy,
    certificate_pem: &[u8],
    key_pem: &[u8],
    now: Timestamp,
) -> Result<store::PushCertificate, NotInstalled> {
    let key = read_private_key(key_pem)?;
    let pair = KeyPair::read(Secret::new(key.expose().clone())).map_err(|_| NotInstalled::Key)?;
    let accepted = PushCertificate::read(certificate_pem)?.accept(pair.public_key_spki(), now)?;
    let certificate = accepted.certificate();

    let mut tx = store.write().await?;
    for active in tx.push_certificates().await? {
        if active.standing != Standing::Active {
            continue;
        }
        if active.topic != *certificate.topic() {
            let macs = count_under(&tx, &active.topic).await?;
            let candidate = certificate.topic().clone();
            return Err(NotInstalled::OtherTopic {
                active: active.topic,
                candidate,
                macs,
            });
        }
        if active.sha256 == certificate.hash() {
            return Err(NotInstalled::InUse);
        }
        if active.not_after > certificate.not_after() {
            return Err(NotInstalled::NoLonger(active.not_after));
        }
    }
    let chain: String = certificate
        .chain()
        .iter()
        .map(|link| pem::to_pem(&link.certificate()))
        .collect();
    let installed = store::PushCertificate {
        push_certificate_id: PushCertificateId::new(now, entropy),
        topic: certificate.topic().clone(),
        standing: Standing::Active,
        chain,
        private_key: key,
        sha256: certificate.hash(),
        not_before: certificate.not_before(),
        not_after: certificate.not_after(),
        installed_at: now,
    };
    tx.install_push_certificate(&installed).await?;
    tx.commit().await?;
    Ok(installed)
}

async fn count_under(tx: &store::Read, topic: &Topic) -> Result<usize, StoreError> {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = tx.enrollments(after.as_ref(), 500).await?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some(last.device_id.clone());
        count += page
            .iter()
            .filter(|enrollment| enrollment.topic == *topic)
            .count();
    }
}

/// Runs once: takes what was installed since into use. `generation` is what is in use; returns what
/// is in use afterwards.
pub async fn take_into_use(ctx: &Context, generation: i64) -> Result<i64, Failure> {
    let tx = ctx.store.read().await?;
    let newest = tx.push_certificate_generation().await?;
    if newest == generation {
        return Ok(generation);
    }
    let now = ctx.clock.now();
    let certificates = tx.push_certificates().await?;
    drop(tx);
    for certificate in certificates
        .iter()
        .filter(|c| c.standing == Standing::Active)
    {
        ctx.metrics
            .push_certificate_not_after
            .set(certificate.not_after.seconds());
        match accept(certificate, now) {
            Ok(accepted) => {
                let number = u64::try_from(newest).unwrap_or(0);
                match ctx
                    .apns
                    .install(&accepted, &certificate.private_key, number)
                {
                    Ok(_) => tracing::info!(
                        topic = certificate.topic.as_str(),
                        not_after = %certificate.not_after,
                        "push certificate in use"
                    ),
                    Err(error) => tracing::error!(%error, "the push certificate cannot be used"),
                }
            }
            Err(error) => tracing::error!(%error, "the push certificate cannot be used"),
        }
    }
    Ok(newest)
}

fn accept(
    stored: &store::PushCertificate,
    now: Timestamp,
) -> Result<crate::push::certificate::AcceptedPushCertificate, NotInstalled> {
    let pair = KeyPair::read(Secret::new(stored.private_key.expose().clone()))
        .map_err(|_| NotInstalled::Key)?;
    Ok(PushCertificate::read(stored.chain.as_bytes())?.accept(pair.public_key_spki(), now)?)
}
