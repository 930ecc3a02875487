//! A push certificate that is not wanted is thrown away with its key, and so is a request that nothing came of.

use super::rotate_push_certificate::{NotTaken, found};
use crate::audit::{Entry, Verb, Who, Words};
use crate::ids::{PushCertificateId, PushRequestId};
use crate::push::Standing;
use crate::push::rotation::may_be_discarded;
use crate::store::{Store, StoreError};
use crate::time::Timestamp;

/// Why nothing is thrown away.
#[derive(Debug, thiserror::Error)]
pub enum NotDiscarded {
    #[error("there is no push certificate {0}; see `attestd push-cert list`")]
    Unknown(PushCertificateId),
    #[error("there is no open request {0}; see `attestd push-cert list`")]
    UnknownRequest(PushRequestId),
    #[error("Macs are pushed with it: take another into use first")]
    Active,
    #[error("it is the way back (`attestd push-cert rollback`), and stays")]
    Retired,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Throws a staged certificate away, its key and what Macs that tried it said. Another copy of the certificate can
/// be installed again only with its key.
pub async fn discard(
    store: &Store,
    id: &PushCertificateId,
    why: &str,
    who: &Who,
    now: Timestamp,
) -> Result<(), NotDiscarded> {
    let mut tx = store.write().await?;
    let one = match found(&tx, id).await {
        Ok(one) => one,
        Err(NotTaken::Store(fault)) => return Err(fault.into()),
        Err(_) => return Err(NotDiscarded::Unknown(id.clone())),
    };
    may_be_discarded(&one.held()).map_err(|standing| match standing {
        Standing::Retired => NotDiscarded::Retired,
        _ => NotDiscarded::Active,
    })?;
    tx.forget_canaries(id).await?;
    tx.forget_push_certificate(id).await?;
    let entry = Entry::new(who, Verb::PushCertificateDiscard, id, now)
        .before("standing", one.standing.as_str())
        .before("topic", &one.topic)
        .before("sha256", one.sha256)
        .before("not_after", one.not_after)
        .why(Words(why));
    tx.record(entry);
    tx.commit().await?;
    Ok(())
}

/// Throws a request and its key away. What Apple issued for it is of no use from then on.
pub async fn discard_request(
    store: &Store,
    id: &PushRequestId,
    why: &str,
    who: &Who,
    now: Timestamp,
) -> Result<(), NotDiscarded> {
    let mut tx = store.write().await?;
    if !tx.forget_push_request(id).await? {
        return Err(NotDiscarded::UnknownRequest(id.clone()));
    }
    let entry = Entry::new(who, Verb::PushCertificateDiscard, id, now).why(Words(why));
    tx.record(entry);
    tx.commit().await?;
    Ok(())
}
