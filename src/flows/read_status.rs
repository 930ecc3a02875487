//! How the service is: whether it can work, and what it works with.

use std::time::Duration;

use super::watch_clock::{demand, trouble};
use super::{Context, Failure};
use crate::apns::TopicState;
use crate::push::Standing;
use crate::store::PushCertificate;
use crate::time::watch::Trouble;

/// What the service works with.
#[derive(Debug)]
pub struct ServiceStatus {
    /// Name of the database kind.
    pub database: &'static str,
    /// The push certificate in use; of several, the one that ends first.
    pub push_certificate: Option<PushCertificate>,
    /// What the connection of each topic went through.
    pub apns: Vec<TopicState>,
    pub identities: Identities,
    /// Why the clock is not believed.
    pub clock: Option<Trouble>,
}

/// How many enrolled Macs are not heard any more, and how many will not be soon, unless their owners
/// install a new profile.
#[derive(Debug, Clone, Copy)]
pub struct Identities {
    pub expired: u64,
    /// Within [`SOON`], the expired ones not among them.
    pub expiring: u64,
}

/// How long before its end an identity is counted as expiring: time for owners to be told, and to
/// install a profile.
pub const SOON: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// What the service works with.
pub async fn read_status(ctx: &Context) -> Result<ServiceStatus, Failure> {
    let certificates = ctx.store.read().await?.push_certificates().await?;
    let active = certificates
        .into_iter()
        .filter(|one| one.standing == Standing::Active)
        .min_by_key(|one| one.not_after);
    Ok(ServiceStatus {
        database: ctx.store.backend(),
        push_certificate: active,
        apns: ctx.apns.state(),
        identities: count_identities(ctx).await?,
        clock: trouble(ctx),
    })
}

/// Counts identities that ended or are about to, for the status and for the metrics.
pub async fn count_identities(ctx: &Context) -> Result<Identities, Failure> {
    let now = ctx.clock.now();
    let tx = ctx.store.read().await?;
    let expired = tx.identities_ending(now).await?;
    let expiring = tx.identities_ending(now.plus(SOON)).await?;
    let counted = Identities {
        expired,
        expiring: expiring.saturating_sub(expired),
    };
    ctx.metrics.identities(counted.expired, counted.expiring);
    Ok(counted)
}

/// Whether requests can be served now.
pub async fn is_ready(ctx: &Context) -> Result<(), Failure> {
    demand(ctx)?;
    Ok(ctx.store.ping().await?)
}
