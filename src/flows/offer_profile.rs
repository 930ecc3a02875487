//! The enrollment page asks for a profile: a ticket is made now, and its profile when it is
//! fetched.
//!
//! A browser is sent on after a form, and fetches the profile by a second request, maybe twice. The
//! ticket's secret has to get from the one to the other, and this service does not keep it: so the
//! browser carries it, sealed under the master key, for this ticket only. Such a *claim* dies with
//! the ticket, and after [`WINDOW`]; any node can honour it, and there is nothing to tidy up. The
//! progress id beside it authorises nothing, as ever.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::deliver_profile::{
    Delivered, make, strangers_are_within_limits, ticket_made, topic, topic_in_force,
};
use super::{Context, Failure};
use crate::audit::Who;
use crate::enrollment::Ticket;
use crate::enrollment::ticket::{Bounds, is_progress_id};
use crate::enrollment::trace::{Entry, Standing, Step};
use crate::entropy::Entropy;
use crate::ids::{SecretHash, TicketId};
use crate::reason::Reason;
use crate::secret::{Sealer, Secret};
use crate::store::Store;
use crate::time::Timestamp;

/// How long after the ticket was made its profile can be fetched.
pub const WINDOW: Duration = Duration::from_secs(10 * 60);

/// Longest claim that is looked at; ours have 112 characters.
const MAX_CLAIM: usize = 200;

/// A profile that waits to be fetched.
#[derive(Debug)]
pub struct Offer {
    pub ticket_id: TicketId,
    pub progress_id: String,
    /// Until when the profile can be fetched.
    pub fetch_until: Timestamp,
    /// Until when it can be installed.
    pub expires_at: Timestamp,
    /// Whoever has it can fetch the profile; base64url characters.
    pub claim: Secret<String>,
}

/// Where an offer is taken up. All but the progress are good for whoever has them.
#[derive(Debug)]
pub struct Links {
    /// What is installed, in words, and the profile.
    pub page: Secret<String>,
    pub profile: Secret<String>,
    /// Authorises nothing.
    pub progress: String,
}

impl Links {
    /// The links of an offer of the server with this base URL.
    pub fn of(offer: &Offer, base_url: &str) -> Self {
        let (progress_id, claim) = (&offer.progress_id, offer.claim.expose());
        let page = format!("{base_url}/enroll/{progress_id}/{claim}");
        Self {
            profile: Secret::new(format!("{page}/profile")),
            page: Secret::new(page),
            progress: format!("{base_url}/v1/enrollments/{progress_id}"),
        }
    }
}

/// Makes a ticket within `bounds`, and a claim to its profile.
///
/// # Errors
/// `NoPushCertificate` and `TooManyProfiles`, as for a profile that is delivered at once.
pub async fn offer_profile(
    ctx: &Context,
    bounds: Bounds,
    ordered_by: Option<&Who>,
) -> Result<Offer, Failure> {
    let (sealer, entropy) = (ctx.sealer.as_ref(), ctx.entropy.as_ref());
    let now = ctx.clock.now();
    if ordered_by.is_none() {
        strangers_are_within_limits(ctx, &bounds, now)?;
    }
    offer(&ctx.store, sealer, entropy, bounds, ordered_by, now).await
}

/// As [`offer_profile`], beside the server that will hand the profile out.
///
/// # Errors
/// As [`offer_profile`].
pub async fn offer(
    store: &Store,
    sealer: &dyn Sealer,
    entropy: &dyn Entropy,
    bounds: Bounds,
    ordered_by: Option<&Who>,
    now: Timestamp,
) -> Result<Offer, Failure> {
    if topic_in_force(store).await?.is_none() {
        return Err(Failure::NoPushCertificate);
    }
    let (ticket, secret) = Ticket::issue(bounds, now, entropy);
    let sealed = sealer.seal(&place(&ticket.progress_id), secret.expose().as_bytes());

    let mut tx = store.write().await?;
    tx.insert_ticket(&ticket).await?;
    let waits = Entry::waiting(Step::Profile, None, now);
    tx.put_step(&ticket.ticket_id, &waits).await?;
    if let Some(who) = ordered_by {
        tx.record(ticket_made(who, &ticket));
    }
    tx.commit().await?;
    Ok(Offer {
        ticket_id: ticket.ticket_id,
        fetch_until: ticket.created_at.plus(WINDOW),
        expires_at: ticket.expires_at,
        progress_id: ticket.progress_id,
        claim: Secret::new(URL_SAFE_NO_PAD.encode(sealed)),
    })
}

/// The profile that was offered; the same for the same claim but for the time of its signature.
///
/// # Refusals
/// `ticket_unknown` for a claim that was not made for this ticket; `ticket_used`, `ticket_expired`.
pub async fn fetch_profile(
    ctx: &Context,
    progress_id: &str,
    claim: &str,
) -> Result<Result<Delivered, Reason>, Failure> {
    let now = ctx.clock.now();
    let (ticket, secret) = match admit(ctx, progress_id, claim).await? {
        Ok(admitted) => admitted,
        Err(reason) => return Ok(Err(reason)),
    };
    let topic = topic(ctx).await?.ok_or(Failure::NoPushCertificate)?;
    let profile = make(ctx, &topic, &ticket, &secret, now)?;

    let mut tx = ctx.store.write().await?;
    let steps = tx.steps(&ticket.ticket_id).await?;
    let is_noted = steps
        .iter()
        .any(|entry| entry.step == Step::Profile && entry.standing == Standing::Done);
    if !is_noted {
        let done = Entry::done(Step::Profile, now);
        tx.put_step(&ticket.ticket_id, &done).await?;
        tx.commit().await?;
    }
    Ok(Ok(Delivered { ticket, profile }))
}

/// Whether the profile can be fetched by this claim.
///
/// # Refusals
/// As for [`fetch_profile`].
pub async fn may_fetch(
    ctx: &Context,
    progress_id: &str,
    claim: &str,
) -> Result<Result<(), Reason>, Failure> {
    Ok(admit(ctx, progress_id, claim).await?.map(|_| ()))
}

async fn admit(
    ctx: &Context,
    progress_id: &str,
    claim: &str,
) -> Result<Result<(Ticket, Secret<String>), Reason>, Failure> {
    let Some(secret) = open(ctx, progress_id, claim) else {
        return Ok(Err(Reason::TicketUnknown));
    };
    let tx = ctx.store.read().await?;
    let hash = SecretHash::of(secret.expose().as_bytes());
    let Some(ticket) = tx.ticket_by_secret(hash).await? else {
        return Ok(Err(Reason::TicketUnknown));
    };
    let now = ctx.clock.now();
    if let Err(reason) = ticket.open(now) {
        return Ok(Err(reason));
    }
    if now >= ticket.created_at.plus(WINDOW) {
        return Ok(Err(Reason::TicketExpired));
    }
    Ok(Ok((ticket, secret)))
}

/// What the claim seals: nothing that was not sealed here, for this progress id.
fn open(ctx: &Context, progress_id: &str, claim: &str) -> Option<Secret<String>> {
    if !is_progress_id(progress_id) || claim.len() > MAX_CLAIM {
        return None;
    }
    let sealed = URL_SAFE_NO_PAD.decode(claim).ok()?;
    let plain = ctx.sealer.open(&place(progress_id), &sealed).ok()?;
    String::from_utf8(plain).ok().map(Secret::new)
}

fn place(progress_id: &str) -> String {
    format!("profile_claim.{progress_id}")
}
