//! A Mac's profile is asked for: a ticket is made, put into the profile, and the profile signed.

use super::issue_by_acme::{base as acme_base, client_identifier};
use super::restore_backup::restored_at;
use super::{Context, Failure};
use crate::acme::Route;
use crate::audit::{self, Verb, Who, Words};
use crate::enrollment::profile::{IdentitySlots, Slots, fill};
use crate::enrollment::ticket::Bounds;
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{Protocol, Ticket};
use crate::ids::Topic;
use crate::pki::cms::SignedDataBuilder;
use crate::provider::CLOCK_SKEW;
use crate::provider::enroll_request::Once;
use crate::push::rotation::enrolling;
use crate::reason::Reason;
use crate::secret::Secret;
use crate::store::{PushCertificate, Store};
use crate::time::Timestamp;

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
/// force: without one no Mac could ever be woken, so none is enrolled. `ordered_by` had it made for somebody
/// else; nobody did where a Mac asks for itself.
///
/// # Errors
/// `TooManyProfiles`: strangers had as many made for this serial number as may be.
pub async fn deliver_profile(
    ctx: &Context,
    bounds: Bounds,
    ordered_by: Option<&Who>,
) -> Result<Delivered, Failure> {
    let delivered = deliver(ctx, bounds, None, ordered_by).await?;
    delivered.ok_or(Failure::Inconsistent("a profile was refused to nobody"))
}

/// As [`deliver_profile`], for a request that is granted once: it is remembered in the step that
/// keeps the ticket.
///
/// # Refusals
/// `nonce_unusable` for one that was granted before, or may have been: by the server that this one was
/// restored from.
pub async fn deliver_profile_once(
    ctx: &Context,
    bounds: Bounds,
    once: &Once,
) -> Result<Result<Delivered, Reason>, Failure> {
    // Found here, it costs no signature; found again below, where only one of two can be first.
    let tx = ctx.store.read().await?;
    let granted = tx.enroll_request_granted(&once.name).await?;
    let restored_at = restored_at(&tx).await?;
    drop(tx);
    // Whoever signs may be ahead by as much as it may be late.
    let unknown_until = restored_at.map(|at| at.plus(CLOCK_SKEW).plus(CLOCK_SKEW));
    if granted || unknown_until.is_some_and(|unknown| once.until <= unknown) {
        return Ok(Err(Reason::NonceUnusable));
    }
    let delivered = deliver(ctx, bounds, Some(once), None).await?;
    Ok(delivered.ok_or(Reason::NonceUnusable))
}

/// `None` when the request was granted before.
async fn deliver(
    ctx: &Context,
    bounds: Bounds,
    once: Option<&Once>,
    ordered_by: Option<&Who>,
) -> Result<Option<Delivered>, Failure> {
    let now = ctx.clock.now();
    if ordered_by.is_none() {
        strangers_are_within_limits(ctx, &bounds, now)?;
    }
    let topic = topic(ctx).await?.ok_or(Failure::NoPushCertificate)?;
    let (ticket, secret) = Ticket::issue(bounds, now, ctx.entropy.as_ref());
    let profile = make(ctx, &topic, &ticket, &secret, now)?;

    let mut tx = ctx.store.write().await?;
    if let Some(Once { name, until }) = once
        && !tx.grant_enroll_request(name, *until, now).await?
    {
        return Ok(None);
    }
    tx.insert_ticket(&ticket).await?;
    tx.put_step(&ticket.ticket_id, &Entry::done(Step::Profile, now))
        .await?;
    if let Some(who) = ordered_by {
        tx.record(ticket_made(who, &ticket));
    }
    tx.commit().await?;
    Ok(Some(Delivered { ticket, profile }))
}

/// Whether somebody nobody knows may have a profile within these bounds; counted if so.
///
/// # Errors
/// `TooManyProfiles`.
pub(super) fn strangers_are_within_limits(
    ctx: &Context,
    bounds: &Bounds,
    now: Timestamp,
) -> Result<(), Failure> {
    let by_claim = bounds
        .serial
        .as_ref()
        .filter(|_| bounds.se_public_key.is_none());
    match by_claim {
        Some(serial) if !ctx.limits.allow_profile(serial, now) => Err(Failure::TooManyProfiles),
        _ => Ok(()),
    }
}

/// What the audit log tells of a ticket that somebody had made for somebody else.
pub(super) fn ticket_made(who: &Who, ticket: &Ticket) -> audit::Entry {
    audit::Entry::new(
        who,
        Verb::TicketCreate,
        &ticket.ticket_id,
        ticket.created_at,
    )
    .after("account", ticket.account.as_deref().map(Words))
    .after("names_a_serial_number", ticket.serial.is_some())
    .after("names_a_key", ticket.se_public_key.is_some())
    .after("expires_at", ticket.expires_at)
}

/// The topic under which Macs enrol.
pub(super) async fn topic(ctx: &Context) -> Result<Option<Topic>, Failure> {
    topic_in_force(&ctx.store).await
}

/// As [`topic`], of a store.
pub(super) async fn topic_in_force(store: &Store) -> Result<Option<Topic>, Failure> {
    let certificates = store.read().await?.push_certificates().await?;
    let held: Vec<_> = certificates.iter().map(PushCertificate::held).collect();
    Ok(enrolling(&held).cloned())
}

/// The signed profile of a ticket with this secret.
pub(super) fn make(
    ctx: &Context,
    topic: &Topic,
    ticket: &Ticket,
    secret: &Secret<String>,
    now: Timestamp,
) -> Result<Vec<u8>, Failure> {
    let base = acme_base(&ctx.settings.server_id, secret.expose());
    let directory_url = Secret::new(Route::Directory.url(&base));
    let client_identifier = client_identifier(ticket, secret.expose());
    let slots = Slots {
        topic,
        identity: match ticket.protocol {
            Protocol::Scep => IdentitySlots::Scep { challenge: secret },
            Protocol::Acme => IdentitySlots::Acme {
                directory_url: &directory_url,
                client_identifier: &client_identifier,
            },
        },
    };
    let unsigned = fill(&ctx.settings.profile, &slots)?;
    let signer = ctx.authorities.profile_signer(now);
    let mut message = SignedDataBuilder::attached(&unsigned).signing_time(now);
    for certificate in &signer.above {
        message = message.enclose(&certificate.certificate());
    }
    Ok(message.sign(&signer.certificate(), signer.signer.as_ref())?)
}
