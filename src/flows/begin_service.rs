//! The service begins on a database: it belongs to this server, and it is judged by this policy from now on.

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::posture::policy::Policy;
use crate::store::Store;
use crate::time::Timestamp;

/// The fact that is the base URL of a database's server.
const SERVER_ID: &str = "server_id";
/// The fact that is the SHA-256 of the policy that a server began with last.
const POLICY_IN_USE: &str = "policy_in_use";

/// A database belongs to another server.
#[derive(Debug, thiserror::Error)]
#[error(
    "this database belongs to {known}, but base_url is {server_id}: an enrolled Mac can never change its \
     server's URL, so base_url must stay what it was"
)]
pub struct OtherServer {
    known: String,
    server_id: String,
}

/// A database belongs to one server: nonces and profiles are made in its name.
///
/// # Errors
/// When it cannot be read or stored.
pub async fn claim_database(
    store: &Store,
    server_id: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Result<(), OtherServer>, Failure> {
    let mut tx = store.write().await?;
    match tx.fact(SERVER_ID).await? {
        Some(known) if known == server_id => {}
        Some(known) => {
            let server_id = server_id.to_owned();
            return Ok(Err(OtherServer { known, server_id }));
        }
        None => {
            tx.set_fact(SERVER_ID, server_id).await?;
            tx.record(Entry::new(who, Verb::ServerBegin, Words(server_id), now));
            tx.commit().await?;
        }
    }
    Ok(Ok(()))
}

/// Keeps the text of the policy that Macs are judged by, and tells the audit log where it is another than
/// before. Who wrote the configuration is known to nobody here.
///
/// # Errors
/// When it cannot be stored.
pub async fn use_policy(store: &Store, policy: &Policy, now: Timestamp) -> Result<(), Failure> {
    let mut tx = store.write().await?;
    tx.keep_policy(policy, now).await?;
    let before = tx.fact_to_change(POLICY_IN_USE).await?;
    if before.as_ref() != Some(&policy.sha256) {
        tx.set_fact(POLICY_IN_USE, &policy.sha256).await?;
        let entry = Entry::new(&Who::Service, Verb::PolicyUse, Words(&policy.id), now)
            .before("sha256", before.as_deref().map(Words))
            .after("sha256", Words(&policy.sha256))
            .why(Words("the configuration names it"));
        tx.record(entry);
    }
    Ok(tx.commit().await?)
}
