//! Secrets of the service itself: each drawn once for a database, the same on every node for ever.

use super::Failure;
use crate::entropy::{Entropy, draw};
use crate::secret::{Sealer, Secret};
use crate::store::{Store, StoreError};

/// The secret of this name, which is drawn where there is none yet.
///
/// # Errors
/// When it cannot be read, or opened.
pub async fn service_secret(
    store: &Store,
    sealer: &dyn Sealer,
    entropy: &dyn Entropy,
    name: &str,
) -> Result<Secret<[u8; 32]>, Failure> {
    const UNREADABLE: Failure = Failure::Inconsistent("a secret of the service is none");
    let drawn: [u8; 32] = draw(entropy);
    let sealed = hex::encode(sealer.seal(name, &drawn));
    let mut tx = store.write().await?;
    let stands = tx.state_fact(name, &sealed).await?;
    tx.commit().await?;
    let bytes = hex::decode(stands).map_err(|_| UNREADABLE)?;
    let opened = sealer.open(name, &bytes);
    let opened = opened.map_err(|source| StoreError::Unsealable {
        table: "service_meta",
        id: name.to_owned(),
        source,
    })?;
    let secret: [u8; 32] = opened.try_into().map_err(|_| UNREADABLE)?;
    Ok(Secret::new(secret))
}
