//! Who sent this message? First line of every check-in and report.
//!
//! A Mac proves itself by `Mdm-Signature` over the body, by the certificate of its TLS connection,
//! or by both, and then they must be one identity. Either way the certificate is looked up by its
//! hash, before any cryptography, so that a stranger costs a parse and a look-up. A certificate is
//! known only if its issuance was recorded here; which Mac it speaks for was bound at Authenticate,
//! or when it was issued to renew another, never later. A TLS handshake proves possession of a key
//! and no more: whether the certificate is still good is judged here, for both.

use std::sync::Arc;

use super::refuse::{Refused, note};
use super::renew_by_scep::take_effect;
use super::{Context, Failure};
use crate::enrollment::fleet::{adopted, awaits_certificate};
use crate::enrollment::{Identity, IdentityKind};
use crate::ids::{CertificateHash, DeviceId, Udid};
use crate::mdm::{Sender, plist, signature};
use crate::pki::cms::{self, SignedData};
use crate::pki::{Certificate, ChainShape, verify_chain};
use crate::reason::Reason;
use crate::store::{Known, Speaker};
use crate::time::Timestamp;

/// How the speaker proved itself, as it arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proof<'a> {
    /// The value of `Mdm-Signature`.
    pub signature: Option<&'a [u8]>,
    /// The certificate whose key the TLS handshake proved possession of: here, or at a proxy that
    /// is configured to say so. Nothing else about it is proved.
    pub certificate: Option<CertificateHash>,
}

/// A message whose speaker proved itself, and what it is here.
#[derive(Debug)]
pub struct Identified {
    pub certificate: CertificateHash,
    pub signer: Signer,
    /// The CMS message from the header, to be kept with evidence; `None` where only the connection
    /// speaks for the message.
    pub signature: Option<Vec<u8>>,
}

/// What a signer is.
#[derive(Debug)]
pub enum Signer {
    /// The current identity of an enrolled Mac.
    Bound(Arc<Speaker>),
    /// Issued here, not the current identity of any Mac.
    Issued(Box<Identity>),
}

/// Verifies the proof, a signature over the exact body, and finds out whose it is.
///
/// # Refusals
/// `signature_invalid`: no proof, no CMS with one signer, content attached, or not over this body.
/// `identity_unknown`: the certificate was not issued here; `identity_mismatch` if the body names a
/// Mac known here all the same, or if signature and connection are of two identities.
/// `identity_expired`, `revoked`.
pub async fn identify(
    ctx: &Context,
    surface: &'static str,
    proof: Proof<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<Result<Identified, Reason>, Failure> {
    match examine(ctx, proof, body, now).await? {
        Ok(identified) => Ok(Ok(identified)),
        Err(Unidentified {
            reason,
            device_id,
            named,
            detail,
        }) => {
            note(
                ctx,
                Refused {
                    surface,
                    reason,
                    device_id,
                    named,
                    detail,
                    at: now,
                },
            );
            Ok(Err(reason))
        }
    }
}

/// Why nobody was identified, and whom it is about.
struct Unidentified {
    reason: Reason,
    /// The Mac whose own identity signed.
    device_id: Option<DeviceId>,
    /// The Mac in whose name a foreign identity signed.
    named: Option<Udid>,
    detail: String,
}

impl Unidentified {
    /// Without the name of any Mac: a message like this can be made by anyone, of anyone.
    fn unsigned(detail: impl ToString) -> Self {
        let (reason, detail) = (Reason::SignatureInvalid, detail.to_string());
        Self {
            reason,
            device_id: None,
            named: None,
            detail,
        }
    }

    /// The connection of one identity carries the signature of another. It names no Mac either:
    /// whoever has an identity can send a message that it saw another sign.
    fn two_identities() -> Self {
        Self {
            reason: Reason::IdentityMismatch,
            device_id: None,
            named: None,
            detail: "the connection is another identity's than the signature".to_owned(),
        }
    }

    /// Under the name of a Mac that is enrolled with another identity, a foreign signature is a
    /// mismatch; the Mac it names stays as it is.
    async fn stranger(ctx: &Context, body: &[u8]) -> Result<Self, Failure> {
        let named = match named(body) {
            Some(udid) if is_known(ctx, &udid).await? => Some(udid),
            _ => None,
        };
        let reason = match named {
            Some(_) => Reason::IdentityMismatch,
            None => Reason::IdentityUnknown,
        };
        let detail = "the signer's certificate was not issued here".to_owned();
        Ok(Self {
            reason,
            device_id: None,
            named,
            detail,
        })
    }
}

type Examined = Result<Identified, Unidentified>;

/// A certificate that is known here and whose holder speaks.
struct Proved {
    certificate: CertificateHash,
    known: Known,
    signature: Option<Vec<u8>>,
}

async fn prove(
    ctx: &Context,
    proof: Proof<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<Result<Proved, Unidentified>, Failure> {
    let Some(header) = proof.signature else {
        let Some(certificate) = proof.certificate else {
            let nothing = "no Mdm-Signature, and no certificate in its place";
            return Ok(Err(Unidentified::unsigned(nothing)));
        };
        return Ok(match ctx.store.identify(certificate).await? {
            Some(known) => Ok(Proved {
                certificate,
                known,
                signature: None,
            }),
            None => Err(Unidentified::stranger(ctx, body).await?),
        });
    };
    let message = match signature::decode(header) {
        Ok(message) => message,
        Err(refused) => return Ok(Err(Unidentified::unsigned(refused))),
    };
    let known;
    let certificate;
    {
        let der = match cms::read(&message, signature::MAX_MESSAGE) {
            Ok(der) => der,
            Err(refused) => return Ok(Err(Unidentified::unsigned(refused))),
        };
        let signed = match SignedData::parse(&der) {
            Ok(signed) => signed,
            Err(refused) => return Ok(Err(Unidentified::unsigned(refused))),
        };
        certificate = signed.signer().hash();
        if proof.certificate.is_some_and(|other| other != certificate) {
            return Ok(Err(Unidentified::two_identities()));
        }
        let found = ctx.store.identify(certificate).await?;
        if found.is_none() && !may_be_adopted(ctx, signed.signer(), body, now) {
            return Ok(Err(Unidentified::stranger(ctx, body).await?));
        }
        let verified = signed.require_detached().and_then(|()| signed.verify(body));
        if let Err(refused) = verified {
            return Ok(Err(Unidentified::unsigned(refused)));
        }
        known = match found {
            None => Known::Issued(adopt(ctx, signed.signer(), now).await?),
            Some(Known::Bound(speaker))
                if awaits_certificate(speaker.identity_kind, speaker.not_after) =>
            {
                complete(ctx, &speaker, signed.signer()).await?
            }
            Some(known) => known,
        };
    }
    Ok(Ok(Proved {
        certificate,
        known,
        signature: Some(message),
    }))
}

async fn examine(
    ctx: &Context,
    proof: Proof<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<Examined, Failure> {
    let Proved {
        certificate,
        known,
        signature,
    } = match prove(ctx, proof, body, now).await? {
        Ok(proved) => proved,
        Err(unidentified) => return Ok(Err(unidentified)),
    };
    let (signer, usable) = match known {
        Known::Bound(speaker) => {
            let usable = speaker.usable(now);
            (Signer::Bound(speaker), usable)
        }
        Known::Issued(identity) => {
            let usable = identity.usable(now);
            (Signer::Issued(identity), usable)
        }
    };
    if let Err(reason) = usable {
        let device_id = match &signer {
            Signer::Bound(speaker) => Some(speaker.device_id.clone()),
            Signer::Issued(_) => None,
        };
        let detail = "the signer's certificate is not usable".to_owned();
        return Ok(Err(Unidentified {
            reason,
            device_id,
            named: None,
            detail,
        }));
    }
    let signer = match signer {
        Signer::Issued(identity) => renewed(ctx, identity, body).await?,
        bound @ Signer::Bound(_) => bound,
    };
    Ok(Ok(Identified {
        certificate,
        signer,
        signature,
    }))
}

/// Whether a certificate nobody knows may say Authenticate all the same: an authority of a former
/// server issued it, and such authorities are adopted here.
fn may_be_adopted(ctx: &Context, signer: &Certificate<'_>, body: &[u8], now: Timestamp) -> bool {
    let Some(anchors) = &ctx.settings.adopted_cas else {
        return false;
    };
    let says_authenticate = plist::read_dictionary(body)
        .is_ok_and(|top| top.string("MessageType") == Ok(Some("Authenticate")));
    says_authenticate
        && verify_chain(
            signer,
            &[],
            anchors,
            now,
            ChainShape::Direct,
            &ctx.intermediates,
        )
        .is_ok()
}

/// Records such a certificate as if it had been issued here, to nobody yet.
async fn adopt(
    ctx: &Context,
    signer: &Certificate<'_>,
    now: Timestamp,
) -> Result<Box<Identity>, Failure> {
    let dates = (signer.not_before(), signer.not_after());
    let identity = adopted(signer.hash(), signer.as_der().to_vec(), dates, now);
    let mut tx = ctx.store.write().await?;
    if let Some(known) = tx.identity(identity.certificate).await? {
        // The same message, sent twice at once.
        return Ok(Box::new(known));
    }
    tx.insert_identity(&identity).await?;
    tx.commit().await?;
    tracing::info!(%identity.certificate, "an identity was adopted");
    Ok(Box::new(identity))
}

/// The certificate of which the hash was imported comes with its first message; from now on its own
/// dates count.
async fn complete(
    ctx: &Context,
    speaker: &Arc<Speaker>,
    signer: &Certificate<'_>,
) -> Result<Known, Failure> {
    let mut tx = ctx.store.write().await?;
    tx.complete_identity(signer, &speaker.device_id).await?;
    tx.commit().await?;
    let known = ctx.store.identify(signer.hash()).await?;
    known.ok_or(Failure::Inconsistent("a bound identity without its record"))
}

/// An identity issued to renew another takes its place with its first message.
async fn renewed(ctx: &Context, identity: Box<Identity>, body: &[u8]) -> Result<Signer, Failure> {
    if identity.renews.is_some()
        && let Some(udid) = named(body)
        && take_effect(ctx, &identity, &udid).await?
        && let Some(Known::Bound(speaker)) = ctx.store.identify(identity.certificate).await?
    {
        return Ok(Signer::Bound(speaker));
    }
    Ok(Signer::Issued(identity))
}

async fn is_known(ctx: &Context, udid: &Udid) -> Result<bool, Failure> {
    Ok(ctx
        .store
        .read()
        .await?
        .enrollment_by_udid(udid)
        .await?
        .is_some())
}

/// The Mac a body names, whoever signed it.
fn named(body: &[u8]) -> Option<Udid> {
    let top = plist::read_dictionary(body).ok()?;
    Udid::parse(top.string("UDID").ok()??).ok()
}

impl Identified {
    /// The Mac the signer speaks for, if the message is in that Mac's name.
    ///
    /// # Refusals
    /// `identity_mismatch`: the message names another Mac. `not_enrolled`: the certificate speaks
    /// for no Mac (TokenUpdate before Authenticate, or a former identity).
    pub fn speaker_for(&self, sender: &Sender) -> Result<&Arc<Speaker>, Reason> {
        match &self.signer {
            Signer::Bound(speaker) if speaker.udid == sender.udid => Ok(speaker),
            Signer::Bound(_) => Err(Reason::IdentityMismatch),
            Signer::Issued(_) => Err(Reason::NotEnrolled),
        }
    }

    /// How the identity came to be.
    pub fn kind(&self) -> IdentityKind {
        match &self.signer {
            Signer::Bound(speaker) => speaker.identity_kind,
            Signer::Issued(identity) => identity.kind,
        }
    }
}
