//! A Mac renews its identity by SCEP (RFC 8894 section 3.3.1.2): the old one signs for the new one.
//!
//! The new certificate is bound to the same Mac when it is issued. The old one speaks until the new
//! one does for the first time: a Mac that never got the answer has lost nothing.

use super::issue_by_scep::{Issued, fail_info, is_for_key};
use super::issue_identity::certify;
use super::{Context, Failure};
use crate::enrollment::{Identity, IdentityKind, State};
use crate::ids::Udid;
use crate::pki::CertificateRequest;
use crate::reason::Reason;
use crate::scep::{FailInfo, PkiMessage};
use crate::store::{Known, Speaker};
use crate::time::Timestamp;

/// Issues a certificate to the Mac whose identity signed the request.
///
/// # Refusals
/// `identity_unknown`: the signer was not issued here. `identity_mismatch`: it is not the identity a
/// Mac is enrolled with, not yet or not any more. `identity_expired`, `revoked`, `not_enrolled`,
/// `key_rejected`.
pub(super) async fn renew(
    ctx: &Context,
    message: &PkiMessage<'_>,
    request: &CertificateRequest<'_>,
    now: Timestamp,
) -> Result<Issued, Failure> {
    let signer = message.signer().hash();
    let no = |reason| Ok(Err((FailInfo::BadRequest, reason)));
    let speaker = match ctx.store.identify(signer).await? {
        Some(Known::Bound(speaker)) => speaker,
        Some(Known::Issued(identity)) => {
            let reason = identity.usable(now).err();
            return no(reason.unwrap_or(Reason::IdentityMismatch));
        }
        None => return no(Reason::IdentityUnknown),
    };
    if let Err(reason) = may_renew(&speaker, now) {
        return no(reason);
    }
    let transaction_id = message.exchange().transaction_id();
    let former = {
        let tx = ctx.store.read().await?;
        let made = tx.renewal_of_transaction(signer, transaction_id).await?;
        if let Some(identity) = made.filter(|identity| is_for_key(identity, request)) {
            // The client did not get the answer the first time.
            return Ok(Ok(identity));
        }
        tx.identity(signer).await?
    };
    let Some(former) = former else {
        return Err(Failure::Inconsistent("a bound identity without its record"));
    };
    let common_name = match &former.serial {
        Some(serial) => serial.to_string(),
        None => speaker.device_id.to_string(),
    };
    let certificate = match certify(ctx, common_name, &request.public_key(), now)? {
        Ok(certificate) => certificate,
        Err(reason) => return Ok(Err((fail_info(reason), reason))),
    };
    let identity = Identity {
        certificate: certificate.hash(),
        der: certificate.as_der().to_vec(),
        kind: IdentityKind::Scep,
        ticket_id: None,
        serial: former.serial,
        device_id: Some(speaker.device_id.clone()),
        issued_at: now,
        not_before: certificate.certificate().not_before(),
        not_after: certificate.certificate().not_after(),
        revoked_at: None,
        transaction_id: Some(transaction_id.to_owned()),
        renews: Some(signer),
    };
    let mut tx = ctx.store.write().await?;
    // Looked at again: it may have been withdrawn, or replaced, while this was signed.
    let enrollment = tx.enrollment(&speaker.device_id).await?;
    let still = tx.identity(signer).await?;
    let stands = enrollment.is_some_and(|enrollment| {
        enrollment.identity == signer && enrollment.state != State::CheckedOut
    });
    let withdrawn = still.is_none_or(|identity| identity.revoked_at.is_some());
    if withdrawn || !stands {
        let reason = if withdrawn {
            Reason::Revoked
        } else {
            Reason::IdentityMismatch
        };
        return no(reason);
    }
    tx.insert_identity(&identity).await?;
    tx.commit().await?;
    tracing::info!(device.id = speaker.device_id.as_str(), "identity renewed");
    Ok(Ok(identity))
}

fn may_renew(speaker: &Speaker, now: Timestamp) -> Result<(), Reason> {
    speaker.usable(now)?;
    match speaker.state {
        State::Pending | State::Enrolled => Ok(()),
        State::CheckedOut | State::Superseded => Err(Reason::NotEnrolled),
    }
}

/// The renewed identity speaks for the first time, in the name of `udid`: from now on it is the one
/// that speaks. False when it may not, because the one it renews is not the Mac's any more, or the
/// message names another Mac.
pub(super) async fn take_effect(
    ctx: &Context,
    identity: &Identity,
    udid: &Udid,
) -> Result<bool, Failure> {
    let (Some(device_id), Some(_)) = (&identity.device_id, identity.renews) else {
        return Ok(false);
    };
    let mut tx = ctx.store.write().await?;
    let Some(mut enrollment) = tx.enrollment(device_id).await? else {
        return Ok(false);
    };
    if !enrollment.hears(identity) || enrollment.udid != *udid {
        return Ok(false);
    }
    enrollment.identity = identity.certificate;
    tx.save_enrollment(&enrollment).await?;
    tx.commit().await?;
    tracing::info!(device.id = device_id.as_str(), "a renewed identity speaks");
    Ok(true)
}
