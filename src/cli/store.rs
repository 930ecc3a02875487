//! The database, opened by a command beside a server that may be running.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::Configured;
use super::operator::operator;
use crate::app::{anchors, database_url, master_key, policy, settings};
use crate::attestation::Anchor;
use crate::audit::Who;
use crate::config::Config;
use crate::enrollment::Protocol;
use crate::enrollment::profile::Constants;
use crate::entropy::{Entropy, OsEntropy};
use crate::flows::hand_over_master_key::follow;
use crate::keys::MasterSeal;
use crate::posture::policy::Policy;
use crate::push::approval::Approval;
use crate::store::{Store, StoreError};
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::verification::agenda::Rules;

/// What commands that change stored state work with.
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) sealer: Arc<MasterSeal>,
    pub(super) base_url: String,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) policy: Policy,
    /// Whose root attestations are to lead to.
    pub(super) anchor: Anchor,
    pub(super) rules: Arc<Rules>,
    /// The identity of a profile where nothing speaks for another.
    pub(super) identity: Protocol,
    /// What profiles of this server say.
    pub(super) profiles: Constants,
    pub(super) attestation_hold: Duration,
    /// Pushes go to Apple's own service.
    pub(super) apples_apns: bool,
    /// Whether another person must confirm that a push certificate comes into use.
    pub(super) approval: Approval,
    /// Where receivers of shared signals reach it, if any do.
    pub(super) signals_url: Option<String>,
    /// Who runs the command.
    pub(super) who: Who,
    pub(super) now: Timestamp,
}

/// Runs an act on the database that is not about a Mac: beside a server that may be running.
pub(super) fn with_desk<R>(
    configured: &Configured,
    act: impl AsyncFnOnce(&Desk) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    at_desk(configured, false, act)
}

/// Runs an act on the database that is about Macs: beside servers on PostgreSQL, alone on SQLite,
/// where a running server knows its Macs by heart.
pub(super) fn with_owner_desk<R>(
    configured: &Configured,
    act: impl AsyncFnOnce(&Desk) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    at_desk(configured, true, act)
}

fn at_desk<R>(
    configured: &Configured,
    owner: bool,
    act: impl AsyncFnOnce(&Desk) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let config = Config::load(&configured.config, configured.insecure_http)?;
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::default());
    let seal = Arc::new(MasterSeal::new(&master_key(&config)?, Arc::clone(&entropy)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let url = database_url(&config)?;
        let opened = if owner {
            Store::open_exclusive(&url, seal.clone()).await
        } else {
            Store::open(&url, seal.clone()).await
        };
        let store = match opened {
            Err(StoreError::InUse(_)) => bail!(
                "the server runs and keeps its Macs in memory: stop it first, or ask it with an \
                 operator's token on http(s)://{}",
                config.internal.listen
            ),
            opened => opened.context("the database cannot be opened; `attestd init` makes it")?,
        };
        // A PostgreSQL that somebody made a moment ago, for the first steps that `--help` names.
        if store.is_new().await? {
            store
                .migrate()
                .await
                .context("the tables cannot be made in the database")?;
        } else if !store.schema_is_current().await? {
            bail!("the database belongs to another version; start the server of this one first");
        }
        follow(&store, &seal).await?;
        let policy = policy(&config)?;
        let settings = settings(&config, &policy)?;
        store.keep_agendas_by((*settings.rules).clone());
        act(&Desk {
            store,
            sealer: seal,
            base_url: config.base_url.clone(),
            entropy,
            policy,
            anchor: anchors(&config)?.kind(),
            rules: Arc::clone(&settings.rules),
            identity: config.enrollment.identity,
            profiles: settings.profile,
            attestation_hold: config.attestation.hold.0,
            apples_apns: settings.apples_apns,
            approval: settings.approval,
            signals_url: config.shared_signals.url.clone(),
            who: operator(),
            now: SystemClock.now(),
        })
        .await
    })
}
