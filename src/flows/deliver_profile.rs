//! A Mac's profile is asked for: a ticket is made, put into the profile, and the profile signed.

use super::{Context, Failure};
use crate::enrollment::Ticket;
use crate::enrollment::profile::{SCEP_TEMPLATE, Slots, fill};
use crate::enrollment::ticket::Bounds;
use crate::enrollment::trace::{Entry, Step};
use crate::pki::cms::SignedDataBuilder;

/// A profile ready to be installed.
#[derive(Debug)]
pub struct Delivered {
    pub ticket: Ticket,
    /// CMS SignedData around the property list, DER.
    pub profile: Vec<u8>,
}

/// Makes a ticket within `bounds` (one use, one hour; its secret is not kept) and delivers a profile that holds its secret.
///
/// The profile names URLs from the configuration only, and the topic of the push certificate in
/// force: without one no Mac could ever be woken, so none is enrolled.
pub async fn deliver_profile(ctx: &Context, bounds: Bounds) -> Result<Delivered, Failure> {
    let now = ctx.clock.now();
    let certificates = ctx.store.read().await?.push_certificates().await?;
    let active = certificates
        .iter()
        .find(|certificate| certificate.standing == crate::store::Standing::Active)
        .ok_or(Failure::NoPushCertificate)?;
    let (ticket, secret) = Ticket::issue(bounds, now, ctx.entropy.as_ref());
    let slots = Slots {
        topic: &active.topic,
        challenge: &secret,
    };
    let unsigned = fill(SCEP_TEMPLATE, &ctx.settings.profile, &slots)?;
    let signer = &ctx.authorities.profile_signer;
    let mut message = SignedDataBuilder::attached(&unsigned).signing_time(now);
    for certificate in signer.chain.iter().skip(1) {
        message = message.enclose(&certificate.certificate());
    }
    let profile = message.sign(&signer.certificate()?.certificate(), signer.signer.as_ref())?;

    let mut tx = ctx.store.write().await?;
    tx.insert_ticket(&ticket).await?;
    tx.put_step(&ticket.ticket_id, &Entry::done(Step::Profile, now))
        .await?;
    tx.commit().await?;
    Ok(Delivered { ticket, profile })
}
