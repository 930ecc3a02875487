//! A Mac asks for an attested identity by ACME: each request is decided by the ticket's directory
//! and kept, and the certificate is recorded, before anything is answered.

use super::issue_identity::{Sought, issue_identity};
use super::refuse::{Refused, note};
use super::{Context, Failure};
use crate::acme::{Act, Issue, Method, Refusal, Reply, Request, Terms, identifier, read};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{IdentityKind, Protocol, Ticket};
use crate::entropy::draw;
use crate::ids::SecretHash;
use crate::pki::{Certificate, PublicKey};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::store::{AttestedIssuance, OpenDirectory, StoreError};
use crate::time::Timestamp;

/// Its name in metrics, and where refusals are kept.
pub const SURFACE: &str = "acme";

/// Two requests under one ticket at once: the later one looks again this often.
const TRIES: usize = 4;

/// What is asked under a ticket's secret.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Something read without a signature.
    Read(Method, crate::acme::Route),
    /// A signed request.
    Post(Request<'a>),
    /// Something that could not even be read.
    Unreadable(Refusal),
}

/// A reply, and the nonce that goes with it.
#[derive(Debug)]
pub struct Answer {
    pub reply: Reply,
    /// The Replay-Nonce header: on everything, refusals too (RFC 8555 section 6.5), because Apple's
    /// client takes its next one from there.
    pub nonce: String,
}

/// The URL below which the directory of a ticket is.
pub fn base(server_id: &str, secret: &str) -> String {
    format!("{server_id}/acme/{secret}")
}

/// What goes into the profile of a ticket as ClientIdentifier: the serial number it is bound to, or
/// a code that only this profile knows.
pub fn client_identifier(ticket: &Ticket, secret: &str) -> Secret<String> {
    Secret::new(match &ticket.serial {
        Some(serial) => serial.to_string(),
        None => identifier(secret),
    })
}

/// Answers a request under `…/acme/<secret>/`.
pub async fn issue_by_acme(
    ctx: &Context,
    secret: &str,
    asked: Asked<'_>,
) -> Result<Answer, Failure> {
    let now = ctx.clock.now();
    let base = base(&ctx.settings.server_id, secret);
    let nonce = ctx.acme_nonces.mint(&base, now, draw(ctx.entropy.as_ref()));
    let mut tries = 0;
    let reply = loop {
        tries += 1;
        match answer(ctx, secret, &base, asked, now).await {
            Err(Failure::Store(StoreError::Conflict)) if tries < TRIES => {}
            reply => break reply?,
        }
    };
    if let Some(refused) = &reply.refused {
        note(
            ctx,
            Refused {
                surface: SURFACE,
                reason: refused.reason,
                device_id: None,
                named: None,
                detail: refused.detail.clone(),
                at: now,
            },
        );
    }
    Ok(Answer { reply, nonce })
}

async fn answer(
    ctx: &Context,
    secret: &str,
    base: &str,
    asked: Asked<'_>,
    now: Timestamp,
) -> Result<Reply, Failure> {
    let request = match asked {
        Asked::Unreadable(refusal) => return Ok(Reply::refusing(&refusal, base)),
        Asked::Read(..) => None,
        Asked::Post(request) => Some(request),
    };
    // The look-up is by hash: its time says nothing about the secret.
    let found = ctx
        .store
        .acme_directory(SecretHash::of(secret.as_bytes()))
        .await?
        // The secret of a ticket for SCEP opens no directory.
        .filter(|open| open.ticket.protocol == Protocol::Acme);
    let Some(mut open) = found else {
        return Ok(Reply::refusing(&Refusal::NotFound, base));
    };
    let Some(request) = request else {
        return Ok(match asked {
            Asked::Read(method, route) => read(method, route, base),
            Asked::Post(_) | Asked::Unreadable(_) => {
                return Err(Failure::Inconsistent("a request that is nothing"));
            }
        });
    };
    let identifier = client_identifier(&open.ticket, secret);
    let ticket = open.ticket.clone();
    let terms = Terms {
        base,
        identifier: identifier.expose(),
        serial: ticket.serial.as_ref(),
        se_public_key: ticket.se_public_key.as_deref(),
        open: ticket.open(now),
        expires_at: ticket.expires_at,
        anchors: &ctx.anchors,
        known: &ctx.intermediates,
        nonce_key: &ctx.acme_nonces,
        now,
    };
    let outcome = open.directory.post(&request, &terms, ctx.entropy.as_ref());
    match outcome.act {
        Act::Issue(issue) => end_order(ctx, open, *issue, &terms).await,
        Act::Attested(_, reply) => {
            ctx.store.save_acme_directory(open, None).await?;
            Ok(reply)
        }
        Act::Answer(reply) => {
            let step = refused_step(&ticket, &reply, now).filter(|_| outcome.admitted);
            if outcome.changed || step.is_some() {
                ctx.store.save_acme_directory(open, step.as_ref()).await?;
            }
            Ok(reply)
        }
    }
}

/// What the owner sees of a refusal. Of a ticket that was used, the one who used it has the word.
fn refused_step(ticket: &Ticket, reply: &Reply, now: Timestamp) -> Option<Entry> {
    let refused = reply.refused.as_ref()?;
    (ticket.used_at.is_none() && refused.reason != Reason::NonceUnusable)
        .then(|| Entry::refused(Step::Identity, refused.reason, now))
}

/// Makes the certificate of an order, and records it with the end of the order.
async fn end_order(
    ctx: &Context,
    mut open: OpenDirectory,
    issue: Issue,
    terms: &Terms<'_>,
) -> Result<Reply, Failure> {
    let now = terms.now;
    let key = PublicKey::parse(&issue.attested.spki)?;
    let sought = Sought {
        kind: IdentityKind::AcmeAttested,
        ticket: &open.ticket,
        serial: Some(issue.attested.serial.clone()),
        key: &key,
        transaction_id: None,
    };
    let identity = match issue_identity(ctx, &sought, now)? {
        Ok(identity) => identity,
        Err(reason) => {
            let reply = open.directory.not_issued(issue.order, reason, terms);
            let step = Entry::refused(Step::Identity, reason, now);
            ctx.store.save_acme_directory(open, Some(&step)).await?;
            return Ok(reply);
        }
    };
    let leaf = Certificate::parse(&identity.der)?;
    let authority = ctx.authorities.issuer_of(&leaf, now);
    let reply = open
        .directory
        .issued(issue.order, &leaf, &authority.certificate(), terms);
    let issuance = AttestedIssuance {
        identity: &identity,
        attested: &issue.attested,
        step: &Entry::done(Step::Identity, now),
        now,
    };
    let ticket_id = open.ticket.ticket_id.clone();
    ctx.store.record_attested_identity(open, &issuance).await?;
    tracing::info!(ticket.id = ticket_id.as_str(), "attested identity issued");
    Ok(reply)
}
