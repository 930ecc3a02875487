//! How the service is: whether it can work, and what it works with.

use super::{Context, Failure};
use crate::apns::TopicState;
use crate::store::{PushCertificate, Standing};

/// What the service works with.
#[derive(Debug)]
pub struct ServiceStatus {
    /// Name of the database kind.
    pub database: &'static str,
    /// The push certificate in use.
    pub push_certificate: Option<PushCertificate>,
    /// What the connection of each topic went through.
    pub apns: Vec<TopicState>,
}

/// What the service works with.
pub async fn read_status(ctx: &Context) -> Result<ServiceStatus, Failure> {
    let certificates = ctx.store.read().await?.push_certificates().await?;
    let active = certificates
        .into_iter()
        .find(|one| one.standing == Standing::Active);
    Ok(ServiceStatus {
        database: ctx.store.backend(),
        push_certificate: active,
        apns: ctx.apns.state(),
    })
}

/// Whether requests can be served now.
pub async fn is_ready(ctx: &Context) -> Result<(), Failure> {
    Ok(ctx.store.ping().await?)
}
