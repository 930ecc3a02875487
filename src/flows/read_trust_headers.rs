//! The coordinator says in the headers of a reply which provider made it, and how far that is trusted.
//! What this service knows of that is told here; signature and hash are the provider's to make.

use super::read_binding::{glance_at_mac, registered};
use super::read_posture::best_session;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::ids::{DeviceId, SessionId};
use crate::publication::binding_v1::Standing;
use crate::publication::feed::{Judged, ProviderId, Verification};
use crate::publication::trust_headers::{Authorization, TrustHeaders};
use crate::time::Timestamp;

/// What is to be told of a Mac, or that it cannot be.
#[derive(Debug)]
pub enum Outcome {
    Told(Box<Told>),
    NoDevice,
    /// Nor one of this name about this Mac.
    NoSession,
}

/// What the headers of a reply say, if the request is sent now.
#[derive(Debug)]
pub struct Told {
    /// `None` where no session is joined to the Mac.
    pub session: Option<SessionId>,
    pub headers: TrustHeaders,
    pub evaluated_at: Timestamp,
    /// Until when they say the same, if nothing new happens; only while attested.
    pub routable_until: Option<Timestamp>,
}

/// Of this session about the Mac; without one, of the joined session that stands furthest.
///
/// # Errors
/// Also while the clock is not believed.
pub async fn read_trust_headers(
    ctx: &Context,
    device_id: &DeviceId,
    session_id: Option<&SessionId>,
) -> Result<Outcome, Failure> {
    demand(ctx)?;
    let Some(glance) = glance_at_mac(ctx, device_id).await? else {
        return Ok(Outcome::NoDevice);
    };
    let now = ctx.clock.now();
    let standing = match session_id {
        None => best_session(&ctx.policy, &glance, now),
        Some(named) => {
            let mut sessions = glance.sessions.iter();
            let found = sessions.find(|(session, _)| session.session_id == *named);
            let Some((session, release)) = found else {
                return Ok(Outcome::NoSession);
            };
            Some(Standing {
                session,
                mac: Some(&glance.mac),
                release: *release,
            })
        }
    };
    let mut told = Told {
        session: None,
        headers: TrustHeaders::of_nobody(),
        evaluated_at: now,
        routable_until: None,
    };
    if let Some(standing) = standing {
        told.session = Some(standing.session.session_id.clone());
        describe(ctx, standing, &mut told).await?;
    }
    Ok(Outcome::Told(Box::new(told)))
}

async fn describe(ctx: &Context, standing: Standing<'_>, told: &mut Told) -> Result<(), Failure> {
    let (session, now) = (standing.session, told.evaluated_at);
    let judgement = standing.judge(&ctx.policy, now);
    let headers = &mut told.headers;
    headers.attested = judgement.routability.routable;
    headers.level = judgement.trust.level;
    told.routable_until = judgement.routability.routable_until;
    // Of a key that has not spoken itself nothing is said in its name.
    if !session.has_spoken() {
        return Ok(());
    }
    let Some(signed) = registered(ctx, session).await? else {
        return Ok(());
    };
    let report = signed.report;
    let judged = Judged::at(standing, &report, &ctx.policy, now);
    let verification = Verification::of(&judged);
    headers.key = Some(session.key.clone());
    headers.encrypted = true;
    let provider_id = ProviderId::of(&ctx.settings.server_id, &session.key.point());
    headers.provider_id = Some(provider_id.to_string());
    headers.secure_enclave = Some(report.secure_enclave_available);
    headers.chip = Some(report.chip_name);
    headers.model = Some(report.hardware_model);
    headers.mda_verified = judged.mda_verified;
    headers.verification = serde_json::to_string(&verification).ok();
    headers.authorization = Some(match verification.is_verified() {
        true => Authorization::Legacy,
        false => Authorization::None,
    });
    Ok(())
}
