//! Releases of the provider software are registered, withdrawn and listed.
//!
//! A change here moves what is routable and nothing else: no posture is revised, and no Mac is asked
//! anything (coordinator-and-standards A.15: tying the proof of a Mac to the hash of a program left
//! 86 of 1,145 Macs).

use super::Failure;
use crate::audit::{Entry, Verb, Who, Words};
use crate::provider::release::{Registration, ReleaseRefusal};
use crate::provider::{BinaryHash, Platform, Release, Version};
use crate::publication::event;
pub use crate::store::ReleaseEntry;
use crate::store::{Event, ReleaseAction, Store, StoreError, Write};
use crate::time::Timestamp;

/// How often a change is decided again when somebody else changed the same release meanwhile.
const ATTEMPTS: usize = 3;

/// A release after something was asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub release: Release,
    /// False when it was so before; then nothing was done.
    pub changed: bool,
}

/// Which releases are withdrawn.
#[derive(Debug, Clone)]
pub enum Which {
    Hash(BinaryHash),
    /// Every program of this version; build metadata counts, so that nothing else is hit.
    Version(Version),
}

impl Which {
    fn names(&self, release: &Release) -> bool {
        match self {
            Self::Hash(hash) => release.binary_hash == *hash,
            Self::Version(version) => release.version.as_str() == version.as_str(),
        }
    }
}

/// The registry with all that was done to it.
#[derive(Debug, Clone)]
pub struct Registry {
    /// The first registered first, withdrawn ones among them.
    pub releases: Vec<Release>,
    pub history: Vec<ReleaseEntry>,
}

/// Registers a release. The same again changes nothing; `who` is kept with it.
///
/// # Refusals
/// As for [`Registration::register`]. A withdrawn program stays withdrawn: there is no way back, so
/// that no registration can undo a withdrawal unseen. A corrected program has another hash.
pub async fn register(
    store: &Store,
    registration: &Registration,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Done, ReleaseRefusal>, Failure> {
    for _ in 1..ATTEMPTS {
        match register_once(store, registration, who, now).await {
            Err(StoreError::Conflict) => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(register_once(store, registration, who, now).await?)
}

async fn register_once(
    store: &Store,
    registration: &Registration,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Done, ReleaseRefusal>, StoreError> {
    let mut tx = store.write().await?;
    let (hash, platform) = (&registration.binary_hash, &registration.platform);
    let known = tx.release(hash, platform).await?;
    let release = match (registration.clone().register(known.as_ref(), now), known) {
        (Err(refusal), _) => return Ok(Err(refusal)),
        (Ok(Some(release)), _) => release,
        (Ok(None), Some(release)) => {
            let changed = false;
            return Ok(Ok(Done { release, changed }));
        }
        (Ok(None), None) => return Err(StoreError::Conflict),
    };
    tx.insert_release(&release).await?;
    tell(&mut tx, &release, ReleaseAction::Registered, who, now).await?;
    tx.commit().await?;
    tracing::info!(%release.version, release.hash = %release.binary_hash, %who, "release registered");
    let changed = true;
    Ok(Ok(Done { release, changed }))
}

/// Withdraws releases for good. Those that were withdrawn before keep their time and reason.
///
/// # Refusals
/// `Unknown` when there is none of that name, `NoReason`.
pub async fn revoke(
    store: &Store,
    which: &Which,
    platform: &Platform,
    reason: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Vec<Done>, ReleaseRefusal>, Failure> {
    for _ in 1..ATTEMPTS {
        match revoke_once(store, which, platform, reason, who, now).await {
            Err(StoreError::Conflict) => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(revoke_once(store, which, platform, reason, who, now).await?)
}

async fn revoke_once(
    store: &Store,
    which: &Which,
    platform: &Platform,
    reason: &str,
    who: &Who,
    now: Timestamp,
) -> Result<Result<Vec<Done>, ReleaseRefusal>, StoreError> {
    let mut tx = store.write().await?;
    let mut withdrawn = Vec::new();
    for mut release in tx.releases().await? {
        if release.platform != *platform || !which.names(&release) {
            continue;
        }
        let changed = release.revoked.is_none();
        if let Err(refusal) = release.revoke(reason, now) {
            return Ok(Err(refusal));
        }
        if changed {
            tx.withdraw_release(&release).await?;
            tell(&mut tx, &release, ReleaseAction::Revoked, who, now).await?;
        }
        withdrawn.push(Done { release, changed });
    }
    if withdrawn.is_empty() {
        return Ok(Err(ReleaseRefusal::Unknown));
    }
    tx.commit().await?;
    for Done { release, .. } in withdrawn.iter().filter(|done| done.changed) {
        tracing::info!(%release.version, release.hash = %release.binary_hash, %who, "release withdrawn");
    }
    Ok(Ok(withdrawn))
}

/// Every release and everything that was done to it, as of one moment.
pub async fn registry(store: &Store) -> Result<Registry, Failure> {
    let tx = store.read().await?;
    Ok(Registry {
        releases: tx.releases().await?,
        history: tx.release_history().await?,
    })
}

/// Every release, and the generation of the registry this is; `None` while that is still `known`.
pub async fn releases_since(
    store: &Store,
    known: Option<i64>,
) -> Result<Option<(i64, Vec<Release>)>, Failure> {
    let tx = store.read().await?;
    let generation = tx.release_generation().await?;
    if known == Some(generation) {
        return Ok(None);
    }
    Ok(Some((generation, tx.releases().await?)))
}

async fn tell(
    tx: &mut Write,
    release: &Release,
    action: ReleaseAction,
    who: &Who,
    now: Timestamp,
) -> Result<(), StoreError> {
    let revoked = release.revoked.as_ref();
    tx.record_release(&ReleaseEntry {
        seq: 0,
        at: now,
        action,
        binary_hash: release.binary_hash,
        platform: release.platform.clone(),
        version: release.version.clone(),
        who: who.to_string(),
        why: revoked.map_or(String::new(), |revoked| revoked.reason.clone()),
    })
    .await?;
    let what = match action {
        ReleaseAction::Registered => Verb::ReleaseRegister,
        ReleaseAction::Revoked => Verb::ReleaseRevoke,
    };
    let mut entry = Entry::new(who, what, release.binary_hash, now)
        .after("version", Words(release.version.as_str()))
        .after("platform", Words(&release.platform.to_string()));
    if let Some(revoked) = revoked {
        entry = entry
            .before("revoked", false)
            .after("revoked", true)
            .why(Words(&revoked.reason));
    }
    tx.record(entry);
    let event = Event::new(event::RELEASE_CHANGED, now, event::release_changed(release));
    tx.append_event_about(None, &event).await
}
