//! A Mac asks for an identity by SCEP: a certificate is made, then the ticket in the request redeemed
//! and the issuance recorded, in one transaction, before the certificate leaves the house.

use super::authorities::Held;
use super::issue_identity::{Sought, issue_identity};
use super::poll_by_scep::poll_by_scep;
use super::refuse::{Refused, note};
use super::renew_by_scep::renew;
use super::{Context, Failure};
use crate::enrollment::trace::{Entry, Step};
use crate::enrollment::{Identity, IdentityKind, Protocol, Ticket};
use crate::entropy::draw;
use crate::ids::SecretHash;
use crate::pki::cms::Sealing;
use crate::pki::{Certificate, CertificateRequest};
use crate::reason::Reason;
use crate::scep::{self, Ask, Exchange, FailInfo, Opened, PkiMessage, Responder};
use crate::secret::Secret;
use crate::store::StoreError;
use crate::time::Timestamp;

/// Its name in metrics, and where refusals are kept.
pub const SURFACE: &str = "scep";

/// How a PKIOperation is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// A CertRep, to be sent with status 200 whatever it says.
    CertRep(Vec<u8>),
    /// The transaction could not even be read: no CertRep can be made.
    Refused(Reason),
}

/// Takes a PKIOperation.
pub async fn issue_by_scep(ctx: &Context, body: &[u8]) -> Result<Reply, Failure> {
    let now = ctx.clock.now();
    let der = match scep::read(body) {
        Ok(der) => der,
        Err(refused) => return Ok(unreadable(ctx, &refused, now)),
    };
    let message = match PkiMessage::parse(&der) {
        Ok(message) => message,
        Err(refused) => {
            let registration = &ctx.authorities.registration(now).held;
            let respondent = Respondent {
                ctx,
                registration,
                now,
            };
            return respondent.failure(&refused);
        }
    };
    // Whoever asked for the certificates a moment ago may have another than is given out now.
    let mut registrations = ctx.authorities.registrations(now);
    let addressed = registrations.find(|one| message.is_for(&one.held.certificate()));
    let registration = addressed.unwrap_or_else(|| ctx.authorities.registration(now));
    let respondent = Respondent {
        ctx,
        registration: &registration.held,
        now,
    };
    let certificate = registration.held.certificate();
    let opened = match message.open(&certificate, registration.decryptor.as_ref()) {
        Ok(opened) => opened,
        Err(refused) => return respondent.failure(&refused),
    };
    let issued = match opened.ask() {
        Ok(Ask::Issue(request)) => issue(ctx, &message, &request, now).await?,
        Ok(Ask::Renew(request)) => renew(ctx, &message, &request, now).await?,
        Ok(Ask::Poll { issuer, .. }) => match poll_by_scep(ctx, &message, &issuer).await? {
            Some(identity) => Ok(identity),
            None => Err((FailInfo::BadCertId, Reason::TicketUnknown)),
        },
        Err(cause) => return respondent.failure(&message.refused(cause)),
    };
    match issued {
        Ok(identity) => respondent.yes(&message, &opened, &identity),
        Err((fail_info, reason)) => respondent.no(message.exchange(), fail_info, reason),
    }
}

/// What a request came to.
pub(super) type Issued = Result<Identity, (FailInfo, Reason)>;

async fn issue(
    ctx: &Context,
    message: &PkiMessage<'_>,
    request: &CertificateRequest<'_>,
    now: Timestamp,
) -> Result<Issued, Failure> {
    let Some(challenge) = request.challenge() else {
        return Ok(Err((FailInfo::BadRequest, Reason::TicketUnknown)));
    };
    // The look-up is by hash: its time says nothing about the secret.
    let secret = SecretHash::of(challenge.as_bytes());
    let transaction_id = message.exchange().transaction_id();
    // A ticket for an attested identity buys no other.
    let ticket = ctx.store.ticket_by_secret(secret).await?;
    let Some(ticket) = ticket.filter(|ticket| ticket.protocol == Protocol::Scep) else {
        return Ok(Err((FailInfo::BadRequest, Reason::TicketUnknown)));
    };
    // The client did not get the answer the first time.
    if ticket.used_at.is_some()
        && let Some(identity) = issued_before(ctx, &ticket, transaction_id, request).await?
    {
        return Ok(Ok(identity));
    }
    // Told once, on the last try before; nothing is written or made for what comes after.
    if ctx.limits.is_exhausted(&ticket.ticket_id, now) {
        return Ok(Err((FailInfo::BadRequest, Reason::TicketExhausted)));
    }
    if let Err(reason) = ticket.open(now) {
        return Ok(Err(refuse(ctx, &ticket, reason, now).await?));
    }
    // Signed before the store's turn to write begins: nobody waits for a signature. Whoever loses
    // the race for the ticket has a certificate nobody ever sees.
    let identity = match make(ctx, &ticket, request, transaction_id, now)? {
        Ok(identity) => identity,
        // The ticket is not spent on a key that cannot have a certificate.
        Err(reason) => return Ok(Err(refuse(ctx, &ticket, reason, now).await?)),
    };
    let step = Entry::done(Step::Identity, now);
    match ctx
        .store
        .record_identity(&identity, &ticket, &step, now)
        .await
    {
        Ok(()) => {}
        // Somebody used it up since it was read: maybe this very request, sent twice. The progress
        // page tells of whoever was first.
        Err(StoreError::Conflict) => {
            let first = issued_before(ctx, &ticket, transaction_id, request).await?;
            return Ok(first.ok_or((FailInfo::BadRequest, Reason::TicketUsed)));
        }
        Err(error) => return Err(error.into()),
    }
    tracing::info!(ticket.id = ticket.ticket_id.as_str(), "identity issued");
    Ok(Ok(identity))
}

/// What was issued for the same key under the same transaction of a ticket.
async fn issued_before(
    ctx: &Context,
    ticket: &Ticket,
    transaction_id: &str,
    request: &CertificateRequest<'_>,
) -> Result<Option<Identity>, StoreError> {
    let tx = ctx.store.read().await?;
    let first = tx
        .identity_of_transaction(&ticket.ticket_id, transaction_id)
        .await?;
    Ok(first.filter(|identity| is_for_key(identity, request)))
}

fn make(
    ctx: &Context,
    ticket: &Ticket,
    request: &CertificateRequest<'_>,
    transaction_id: &str,
    now: Timestamp,
) -> Result<Result<Identity, Reason>, Failure> {
    let sought = Sought {
        kind: IdentityKind::Scep,
        ticket,
        serial: ticket.serial.clone(),
        key: &request.public_key(),
        transaction_id: Some(transaction_id),
    };
    issue_identity(ctx, &sought, now)
}

/// Writes the refusal where the owner of the ticket sees it.
async fn refuse(
    ctx: &Context,
    ticket: &Ticket,
    reason: Reason,
    now: Timestamp,
) -> Result<(FailInfo, Reason), StoreError> {
    let is_last = ctx.limits.refused(&ticket.ticket_id, now);
    let reason = if is_last {
        Reason::TicketExhausted
    } else {
        reason
    };
    if ticket.used_at.is_none() {
        let mut tx = ctx.store.write().await?;
        tx.put_step(
            &ticket.ticket_id,
            &Entry::refused(Step::Identity, reason, now),
        )
        .await?;
        tx.commit().await?;
    }
    Ok((fail_info(reason), reason))
}

/// What the client is told of a reason.
pub(super) fn fail_info(reason: Reason) -> FailInfo {
    match reason {
        Reason::KeyRejected => FailInfo::BadAlg,
        _ => FailInfo::BadRequest,
    }
}

/// Whether a certificate that was issued before is for the key that is asked for now.
pub(super) fn is_for_key(identity: &Identity, request: &CertificateRequest<'_>) -> bool {
    Certificate::parse(&identity.der)
        .is_ok_and(|certificate| certificate.spki() == request.public_key().spki())
}

/// Who answers: by the key that the client spoke to.
#[derive(Debug, Clone, Copy)]
struct Respondent<'a> {
    ctx: &'a Context,
    registration: &'a Held,
    now: Timestamp,
}

impl Respondent<'_> {
    fn responder(&self) -> Responder<'_> {
        let signer = self.registration.signer.as_ref();
        Responder::new(self.registration.certificate(), signer)
    }

    fn yes(
        &self,
        message: &PkiMessage<'_>,
        opened: &Opened,
        identity: &Identity,
    ) -> Result<Reply, Failure> {
        let ctx = self.ctx;
        let issued = Certificate::parse(&identity.der)?;
        let authority = ctx.authorities.issuer_of(&issued, self.now);
        let sealing = Sealing {
            cipher: opened.cipher(),
            key: Secret::new(draw(ctx.entropy.as_ref())),
            vector: draw(ctx.entropy.as_ref()),
        };
        let reply = self.responder().success(
            message.exchange(),
            message.signer(),
            &[issued, authority.certificate()],
            &sealing,
            &draw(ctx.entropy.as_ref()),
        )?;
        ctx.metrics.message("scep", message.message_type().name());
        Ok(Reply::CertRep(reply))
    }

    fn no(
        &self,
        exchange: &Exchange,
        fail_info: FailInfo,
        reason: Reason,
    ) -> Result<Reply, Failure> {
        note(
            self.ctx,
            line(reason, fail_info.name().to_owned(), self.now),
        );
        let nonce = draw(self.ctx.entropy.as_ref());
        let reply = self.responder();
        let reply = reply.failure(exchange, fail_info, reason.owner_text(), &nonce)?;
        Ok(Reply::CertRep(reply))
    }

    fn failure(&self, refused: &scep::Refused) -> Result<Reply, Failure> {
        let cause = &refused.cause;
        match &refused.exchange {
            Some(exchange) => self.no(exchange, cause.fail_info(), cause.reason()),
            None => Ok(unreadable(self.ctx, refused, self.now)),
        }
    }
}

fn unreadable(ctx: &Context, refused: &scep::Refused, now: Timestamp) -> Reply {
    let reason = refused.cause.reason();
    note(ctx, line(reason, refused.cause.to_string(), now));
    Reply::Refused(reason)
}

fn line(reason: Reason, detail: String, at: Timestamp) -> Refused {
    Refused {
        surface: SURFACE,
        reason,
        device_id: None,
        named: None,
        detail,
        at,
    }
}
