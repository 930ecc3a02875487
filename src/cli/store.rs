//! The database, opened by a command beside a server that may be running.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::Configured;
use crate::app::{database_url, master_key};
use crate::config::Config;
use crate::entropy::{Entropy, OsEntropy};
use crate::keys::MasterSeal;
use crate::store::Store;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// What commands that change stored state work with.
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) now: Timestamp,
}

/// Runs an act on the database.
pub(super) fn with_desk<R>(
    configured: &Configured,
    act: impl AsyncFnOnce(&Desk) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let config = Config::load(&configured.config, configured.insecure_http)?;
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::default());
    let seal = Arc::new(MasterSeal::new(&master_key(&config)?, Arc::clone(&entropy)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let store = Store::open(&database_url(&config)?, seal)
            .await
            .context("the database cannot be opened; `attestd init` makes it")?;
        if !store.schema_is_current().await? {
            bail!("the database belongs to another version; start the server of this one first");
        }
        act(&Desk {
            store,
            entropy,
            now: SystemClock.now(),
        })
        .await
    })
}
