//! A push certificate is asked for: the key is made here, and never leaves.

use crate::audit::{Entry, Verb, Who, Words};
use crate::entropy::Entropy;
use crate::ids::PushRequestId;
use crate::keys::{KeyError, KeyKind, KeyPair};
use crate::pki::{Name, PkiError, Signer as _, csr, name, oid};
use crate::store::{PushRequest, Store, StoreError};
use crate::time::Timestamp;

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum NotRequested {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the making of the key was interrupted")]
    Interrupted,
    #[error("the request cannot be made")]
    Request(#[from] PkiError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a key, keeps it sealed, and gives the PKCS #10 request for it. The names in it are for
/// people: Apple puts names of its own into the certificate (apple-protocol 9.4).
pub async fn request(
    store: &Store,
    entropy: &dyn Entropy,
    common_name: &str,
    apple_account: Option<String>,
    who: &Who,
    now: Timestamp,
) -> Result<PushRequest, NotRequested> {
    // Some tenths of a second of work.
    let made = tokio::task::spawn_blocking(|| KeyPair::generate(KeyKind::Rsa2048)).await;
    let key = made.map_err(|_| NotRequested::Interrupted)??;
    let subject = name::compose(&[(oid::COMMON_NAME, common_name)]);
    let csr = csr::build(&Name::parse(&subject)?, &key)?;
    let request = PushRequest {
        push_request_id: PushRequestId::new(now, entropy),
        apple_account,
        spki: key.public_key_spki().to_vec(),
        csr,
        private_key: key.pkcs8().clone(),
        requested_at: now,
    };
    let mut tx = store.write().await?;
    tx.insert_push_request(&request).await?;
    let entry = Entry::new(
        who,
        Verb::PushCertificateRequest,
        &request.push_request_id,
        now,
    )
    .after("common_name", Words(common_name))
    .after("apple_account", request.apple_account.as_deref().map(Words));
    tx.record(entry);
    tx.commit().await?;
    Ok(request)
}
