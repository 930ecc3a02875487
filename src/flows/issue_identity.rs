//! The certificate of a Mac: made alike, whichever protocol asked for it.

use super::{Context, Failure};
use crate::ca::{CertificateKind, CertificateProfile, IssuanceError, Issuer, prepare};
use crate::enrollment::{Identity, IdentityKind, Ticket};
use crate::entropy::draw;
use crate::ids::SerialNumber;
use crate::pki::{OwnedCertificate, PublicKey};
use crate::reason::Reason;
use crate::time::Timestamp;

/// Clocks of Macs may be behind by this much.
const BACKDATED: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// A certificate that a ticket is redeemed for.
#[derive(Debug)]
pub(super) struct Sought<'a> {
    pub(super) kind: IdentityKind,
    pub(super) ticket: &'a Ticket,
    /// The only Mac it may speak for, where one is known: the ticket's, or the one Apple named.
    pub(super) serial: Option<SerialNumber>,
    pub(super) key: &'a PublicKey<'a>,
    pub(super) transaction_id: Option<&'a str>,
}

/// Makes an identity for whoever has a ticket. Nothing is recorded yet.
///
/// # Refusals
/// As [`certify`].
pub(super) fn issue_identity(
    ctx: &Context,
    sought: &Sought<'_>,
    now: Timestamp,
) -> Result<Result<Identity, Reason>, Failure> {
    let common_name = match &sought.serial {
        Some(serial) => serial.to_string(),
        None => sought.ticket.ticket_id.to_string(),
    };
    let certificate = match certify(ctx, common_name, sought.key, now)? {
        Ok(certificate) => certificate,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(Identity {
        certificate: certificate.hash(),
        der: certificate.as_der().to_vec(),
        kind: sought.kind,
        ticket_id: Some(sought.ticket.ticket_id.clone()),
        serial: sought.serial.clone(),
        device_id: None,
        issued_at: now,
        not_before: certificate.certificate().not_before(),
        not_after: certificate.certificate().not_after(),
        revoked_at: None,
        transaction_id: sought.transaction_id.map(str::to_owned),
        renews: None,
    }))
}

/// A device identity certificate for a key; nothing else in it is the client's wish.
///
/// # Refusals
/// `key_rejected`; `service_degraded` for a fault of ours.
pub(super) fn certify(
    ctx: &Context,
    common_name: String,
    key: &PublicKey<'_>,
    now: Timestamp,
) -> Result<Result<OwnedCertificate, Reason>, Failure> {
    let authority = ctx.authorities.device_ca(now);
    let profile = CertificateProfile {
        kind: CertificateKind::DeviceIdentity,
        common_name,
        organization: ctx.settings.profile.organization.clone(),
        validity: ctx.settings.identity_lifetime,
        backdated: BACKDATED,
    };
    let prepared = prepare(
        &profile,
        key,
        Issuer::Authority(&authority.certificate()),
        authority.signer.algorithm(),
        now,
        draw(ctx.entropy.as_ref()),
    );
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(IssuanceError::KeyRejected) => return Ok(Err(Reason::KeyRejected)),
        Err(error) => {
            tracing::error!(%error, "an identity could not be prepared");
            return Ok(Err(Reason::ServiceDegraded));
        }
    };
    match prepared.sign_by_proved(&authority.signer) {
        Ok(certificate) => Ok(Ok(certificate)),
        Err(error) => {
            tracing::error!(%error, "an identity could not be signed");
            Ok(Err(Reason::ServiceDegraded))
        }
    }
}
