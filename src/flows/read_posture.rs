//! What is believed is read: by device, or the attempt under way.

use std::time::Duration;

use super::answers::Written;
use super::conclude::channel;
use super::read_binding::glance_at_mac;
use super::watch_clock::demand;
use super::{Context, Failure};
use crate::attestation::Anchor;
use crate::enrollment::{Enrollment, Identity, State};
use crate::ids::{DeviceId, SerialNumber, Udid, VerificationId};
use crate::posture::policy::Policy;
use crate::posture::{Channel, Posture, Verdict};
use crate::provider::SePublicKey;
use crate::publication::binding_v1::{Standing, is_joined};
use crate::publication::posture_v1::{Believed, PostureV1, Sources, relation_of};
use crate::publication::verification_v1::VerificationV1;
use crate::reason::Reason;
use crate::store::{Glimpse, MacGlance, Read, Refusal, Watched};
use crate::time::Timestamp;
use crate::verification::Verification;

/// Whoever waits looks again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A Mac as looked up.
#[derive(Debug)]
pub struct Found {
    pub enrollment: Enrollment,
    pub identity: Option<Identity>,
    pub last_seen: Option<Timestamp>,
}

/// How a Mac is named in a look-up.
#[derive(Debug, Clone)]
pub enum Name {
    Serial(SerialNumber),
    Udid(Udid),
    Device(DeviceId),
    /// A provider's Secure Enclave key: the Mac that its sessions stand on.
    Key(SePublicKey),
}

/// The Macs of that name; empty when there is none.
pub async fn find(ctx: &Context, name: &Name) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let tx = ctx.store.read().await?;
    let enrollments = match name {
        Name::Serial(serial) => tx.enrollments_by_serial(serial).await?,
        Name::Udid(udid) => tx.enrollments_by_udid(udid).await?,
        Name::Device(device_id) => tx.enrollment(device_id).await?.into_iter().collect(),
        Name::Key(key) => by_key(ctx, &tx, key).await?,
    };
    for enrollment in enrollments {
        let identity = tx.identity(enrollment.identity).await?;
        let last_seen = tx.last_seen(&enrollment.device_id).await?;
        found.push(Found {
            enrollment,
            identity,
            last_seen,
        });
    }
    Ok(found)
}

/// The Macs that live sessions of a key stand on, and not those that they merely claim.
async fn by_key(ctx: &Context, tx: &Read, key: &SePublicKey) -> Result<Vec<Enrollment>, Failure> {
    let mut found: Vec<Enrollment> = Vec::new();
    for session in tx.sessions_of_key(key.point()).await? {
        let Some(device_id) = &session.device_id else {
            continue;
        };
        if found.iter().any(|known| known.device_id == *device_id) {
            continue;
        }
        let mac = believed(&mut tx.glimpse(), device_id, ctx.clock.now()).await?;
        if mac.is_some_and(|mac| is_joined(&session, &mac, &ctx.policy)) {
            found.extend(tx.enrollment(device_id).await?);
        }
    }
    Ok(found)
}

/// The posture of a Mac as of now, with the provider session that stands on it.
///
/// # Errors
/// Also while the clock is not believed.
pub async fn read_posture(
    ctx: &Context,
    device_id: &DeviceId,
) -> Result<Option<PostureV1>, Failure> {
    demand(ctx)?;
    let glance = glance_at_mac(ctx, device_id).await?;
    Ok(glance.map(|glance| judge(ctx, &glance, ctx.clock.now())))
}

/// A posture as it is answered.
#[derive(Debug)]
pub struct Answer {
    pub revision: u64,
    /// Whether the verdict is the one this revision came with.
    pub is_as_revised: bool,
    /// As JSON.
    pub body: Vec<u8>,
}

/// As [`read_posture`], written, and perhaps remembered.
pub async fn answer_posture(
    ctx: &Context,
    device_id: &DeviceId,
) -> Result<Option<Answer>, Failure> {
    demand(ctx)?;
    let Some(glance) = glance_at_mac(ctx, device_id).await? else {
        return Ok(None);
    };
    let revision = glance.mac.posture.revision;
    let write = |glance: &MacGlance, now| {
        let posture = judge(ctx, glance, now);
        Written::new(&posture, posture.is_as_revised)
    };
    let answers = &ctx.answers.postures;
    let (body, is_as_revised) = answers.answer(device_id, glance, ctx.clock.now(), write)?;
    Ok(Some(Answer {
        revision,
        is_as_revised,
        body,
    }))
}

pub(super) fn judge(ctx: &Context, glance: &MacGlance, now: Timestamp) -> PostureV1 {
    judge_by(&ctx.policy, ctx.anchors.kind(), glance, now)
}

/// A Mac with the sessions about it, judged by this policy.
pub(super) fn judge_by(
    policy: &Policy,
    anchor: Anchor,
    glance: &MacGlance,
    now: Timestamp,
) -> PostureV1 {
    let best = best_session(policy, glance, now);
    PostureV1::new(&Sources {
        mac: &glance.mac,
        policy,
        anchor,
        session: best.and_then(|standing| standing.at(policy, now)),
        process: best.and_then(|standing| standing.process()),
        now,
    })
}

/// Of the sessions that are joined to a Mac, the one that stands furthest.
pub(super) fn best_session<'a>(
    policy: &Policy,
    glance: &'a MacGlance,
    now: Timestamp,
) -> Option<Standing<'a>> {
    let mac = &*glance.mac;
    let standings = glance.sessions.iter().map(|(session, release)| Standing {
        session,
        mac: Some(mac),
        release: *release,
    });
    standings
        .filter(|standing| is_joined(standing.session, mac, policy))
        .max_by_key(|standing| {
            let judged = standing.judge(policy, now);
            let is_routable = judged.routability.routable;
            (judged.trust.level, is_routable, standing.session.began_at)
        })
}

/// Everything about a Mac that is judged when somebody asks; `None` when there is no such Mac.
pub(super) async fn believed(
    stored: &mut Glimpse<'_>,
    device_id: &DeviceId,
    now: Timestamp,
) -> Result<Option<Believed>, Failure> {
    let Some(known) = stored.standpoint(device_id).await? else {
        return Ok(None);
    };
    let attempt = match (&known.state, &known.attempt) {
        (State::Enrolled, Some(verification)) => reasons(stored, verification).await?,
        _ => Vec::new(),
    };
    let (kind, ends) = known.identity.unzip();
    Ok(Some(Believed {
        device_id: device_id.clone(),
        relation: relation_of(known.state, known.contends, ends),
        channel: kind.map_or(Channel::Software, channel),
        serial: known.serial,
        posture: known
            .posture
            .unwrap_or_else(|| Posture::unknown(device_id.clone(), now)),
        attempt,
    }))
}

/// An attempt as of now.
pub async fn read_verification(
    ctx: &Context,
    verification_id: &VerificationId,
) -> Result<Option<VerificationV1>, Failure> {
    let tx = ctx.store.read().await?;
    match tx.verification(verification_id).await? {
        None => Ok(None),
        Some(verification) => describe(&tx, &verification).await.map(Some),
    }
}

/// An attempt in the state that a transaction sees.
pub(super) async fn describe(
    tx: &Read,
    verification: &Verification,
) -> Result<VerificationV1, Failure> {
    let attempt = reasons(&mut tx.glimpse(), verification).await?;
    // The verdict it ended with, whatever came later; an attempt that learnt nothing has none.
    let ended_with = verification
        .finished
        .as_ref()
        .and_then(|ended| ended.posture_revision);
    let verdict = match ended_with {
        Some(revision) => {
            let before = Some(revision.saturating_add(1));
            let history = tx
                .posture_history(&verification.device_id, before, 1)
                .await?;
            history
                .first()
                .map_or(Verdict::Unknown, |posture| posture.verdict)
        }
        None => Verdict::Unknown,
    };
    Ok(VerificationV1::new(verification, &attempt, verdict))
}

/// An attempt once it has ended, or as it is after `wait`.
pub async fn await_verification(
    ctx: &Context,
    verification_id: &VerificationId,
    wait: Duration,
) -> Result<Option<VerificationV1>, Failure> {
    let Some(verification) = read_verification(ctx, verification_id).await? else {
        return Ok(None);
    };
    let mut watch = ctx.store.watch(Watched::Device(&verification.device_id));
    let waiting = async {
        loop {
            let verification = read_verification(ctx, verification_id).await?;
            if verification
                .as_ref()
                .is_none_or(|v| v.finished_at.is_some())
            {
                return Ok::<_, Failure>(verification);
            }
            // A change made by another node is not announced here.
            let _ = tokio::time::timeout(LOOK_AGAIN, watch.changed()).await;
        }
    };
    match tokio::time::timeout(wait, waiting).await {
        Ok(ended) => ended,
        Err(_) => read_verification(ctx, verification_id).await,
    }
}

/// Lines of refusals that are looked at for one attempt. One of a kind is written per minute, so
/// this is many times what an attempt of ten minutes can have.
const REFUSALS: usize = 256;

/// Why an attempt has not brought everything: what was refused in the Mac's name while it was under
/// way, then what the attempt itself knows.
async fn reasons(
    stored: &mut Glimpse<'_>,
    verification: &Verification,
) -> Result<Vec<Reason>, Failure> {
    let since = verification.created_at;
    let refusals = stored
        .refusals_of(&verification.device_id, since, REFUSALS)
        .await?;
    Ok(causes(verification, &refusals))
}

/// `refusals` come the latest first, as the store gives them.
fn causes(verification: &Verification, refusals: &[Refusal]) -> Vec<Reason> {
    let until = verification.finished.as_ref().map(|finished| finished.at);
    let under_way =
        |at: Timestamp| at >= verification.created_at && until.is_none_or(|until| at <= until);
    let mut reasons: Vec<Reason> = Vec::new();
    // Oldest first: the cause stands in front.
    let refused = refusals
        .iter()
        .rev()
        // Of a line that joins several, the first and the last are known to the moment.
        .filter(|refusal| under_way(refusal.at) || under_way(refusal.last_at))
        .map(|refusal| refusal.reason)
        // An answer to another attempt, or a second one to this: no cause of anything.
        .filter(|reason| *reason != Reason::AnswerUnsolicited);
    for reason in refused.chain(verification.reasons()) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use crate::verification::{Finished, Kind, Priority, Request, State as Ended};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    /// An attempt from 100 s on.
    fn attempt() -> Verification {
        let entropy = SeededEntropy::new(7);
        let request = Request {
            kinds: vec![Kind::SecurityInfo],
            priority: Priority::First,
            occasion: "a test".to_owned(),
            patience: Duration::from_secs(600),
        };
        let id = VerificationId::new(at(100), &entropy);
        Verification::start(id, DeviceId::new(at(100), &entropy), &request, at(100))
    }

    fn refusal(reason: Reason, first: i64, last: i64) -> Refusal {
        Refusal {
            last_at: at(last),
            ..Refusal::once(None, reason, "connect", "", at(first))
        }
    }

    #[test]
    fn what_was_refused_counts_while_the_attempt_is_under_way() {
        let mut attempt = attempt();
        // The latest first, as the store has them.
        let refusals = [
            refusal(Reason::SerialMismatch, 190, 260),
            refusal(Reason::IdentityExpired, 201, 201),
            refusal(Reason::SignatureInvalid, 99, 201),
            refusal(Reason::RequestMalformed, 200, 200),
            refusal(Reason::IdentityMismatch, 150, 155),
            refusal(Reason::AnswerUnsolicited, 140, 140),
            refusal(Reason::Revoked, 60, 110),
            refusal(Reason::NotEnrolled, 100, 100),
            refusal(Reason::IdentityUnknown, 90, 99),
        ];
        let open = causes(&attempt, &refusals);
        assert_eq!(open.last(), Some(&Reason::SerialMismatch));
        assert!(open.contains(&Reason::IdentityExpired));
        assert!(!open.contains(&Reason::IdentityUnknown));
        assert!(!open.contains(&Reason::AnswerUnsolicited));

        for part in &mut attempt.parts {
            part.reason = Some(Reason::AnswerTimeout);
        }
        attempt.finished = Some(Finished {
            state: Ended::TimedOut,
            at: at(200),
            reasons: Vec::new(),
            posture_revision: None,
        });
        assert_eq!(
            causes(&attempt, &refusals),
            [
                Reason::NotEnrolled,
                Reason::Revoked,
                Reason::IdentityMismatch,
                Reason::RequestMalformed,
                Reason::SerialMismatch,
                Reason::AnswerTimeout,
            ]
        );
    }
}
