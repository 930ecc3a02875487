//! What subscribers are told: the names and bodies of events.

use serde_json::{Value, json};

use super::binding_v1::Judgement;
use crate::ids::{DeviceId, PushCertificateId, Topic};
use crate::posture::{Posture, Verdict};
use crate::provider::{Release, Session};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::time::watch::Trouble;
use crate::verification::Verification;

pub const POSTURE_CHANGED: &str = "posture.changed";
/// A verdict ends in ten minutes, unless newer evidence comes.
pub const POSTURE_EXPIRING: &str = "posture.expiring";
pub const VERIFICATION_FINISHED: &str = "verification.finished";
pub const DEVICE_ENROLLED: &str = "device.enrolled";
/// A contender was proved to be the Mac that holds the serial number, and took its place.
pub const DEVICE_TAKEN_OVER: &str = "device.taken_over";
/// An operator withdrew trust in the Mac, or gave it back.
pub const DEVICE_REVOKED: &str = "device.revoked";
pub const DEVICE_RESTORED: &str = "device.restored";
pub const DEVICE_CHECKED_OUT: &str = "device.checked_out";
/// A release of the provider software was registered or withdrawn. It is about no Mac.
pub const RELEASE_CHANGED: &str = "release.changed";

/// A provider session began, ended, was joined to its Mac, or began or ceased to be answered for.
pub const BINDING_CHANGED: &str = "binding.changed";
/// Two sessions that live, of different keys, claim one Mac.
pub const BINDING_CONFLICT: &str = "binding.conflict";
/// A challenge was not answered: the next is due at once.
pub const CHALLENGE_DUE: &str = "challenge.due";

/// The service cannot say whom it trusts, or cannot wake the Macs of a topic; or can again. It is about
/// no Mac.
pub const SERVICE_DEGRADED: &str = "service.degraded";
/// An operator said that the clock is right, whatever was seen before. It is about no Mac.
pub const SERVICE_CLOCK_ACCEPTED: &str = "service.clock_accepted";

/// A push certificate that is in use ends within so many days. It is about no Mac.
pub const SERVICE_PUSH_CERTIFICATE_EXPIRING: &str = "service.push_certificate_expiring";

/// The service was restored from a backup: what happened between the two times is not known. It is about
/// no Mac.
pub const SERVICE_RESTORED: &str = "service.restored";

/// Every name of an event that is stored.
pub const ALL: [&str; 16] = [
    POSTURE_CHANGED,
    POSTURE_EXPIRING,
    VERIFICATION_FINISHED,
    DEVICE_ENROLLED,
    DEVICE_TAKEN_OVER,
    DEVICE_REVOKED,
    DEVICE_RESTORED,
    DEVICE_CHECKED_OUT,
    RELEASE_CHANGED,
    BINDING_CHANGED,
    BINDING_CONFLICT,
    CHALLENGE_DUE,
    SERVICE_DEGRADED,
    SERVICE_CLOCK_ACCEPTED,
    SERVICE_PUSH_CERTIFICATE_EXPIRING,
    SERVICE_RESTORED,
];

/// What a reader knew is void: it lists everything again. Only ever said in a stream, never stored.
pub const RESET: &str = "reset";

/// Body of `posture.changed`.
pub fn posture_changed(posture: &Posture, previous: Verdict, reasons: &[Reason]) -> Value {
    json!({
        "device_id": posture.device_id,
        "revision": posture.revision,
        "verdict": posture.verdict,
        "previous": previous,
        "reasons": reasons,
        "revocation_epoch": posture.revocation_epoch,
    })
}

/// Body of `posture.changed` where the verdict before came to its end.
pub fn posture_ended(posture: &Posture, previous: Verdict, reasons: &[Reason]) -> Value {
    let mut body = posture_changed(posture, previous, reasons);
    if let Some(members) = body.as_object_mut() {
        members.insert("ended".to_owned(), true.into());
    }
    body
}

/// Body of `posture.expiring`.
pub fn posture_expiring(posture: &Posture, usable_until: Timestamp) -> Value {
    json!({
        "device_id": posture.device_id,
        "revision": posture.revision,
        "verdict": posture.verdict,
        "usable_until": usable_until,
    })
}

/// Body of `service.degraded`, for people in `detail`.
pub fn degraded(degraded: bool, cause: Option<&str>, detail: Option<&str>) -> Value {
    json!({ "degraded": degraded, "cause": cause, "detail": detail })
}

/// Body of `service.degraded` where the clock is not believed; `trouble` is none when it is over.
pub fn clock_degraded(trouble: Option<&Trouble>) -> Value {
    let detail = trouble.map(ToString::to_string);
    degraded(
        trouble.is_some(),
        trouble.map(Trouble::as_str),
        detail.as_deref(),
    )
}

/// Body of `service.degraded` where no Mac of a topic can be woken; when that is over, `cause` is what it
/// was.
pub fn pushes_degraded(topic: &Topic, is_degraded: bool, cause: Option<&str>) -> Value {
    let mut body = degraded(is_degraded, cause, None);
    if let Some(members) = body.as_object_mut() {
        members.insert("topic".to_owned(), topic.as_str().into());
    }
    body
}

/// A push certificate that ends soon.
#[derive(Debug)]
pub struct Expiring<'a> {
    pub push_certificate_id: &'a PushCertificateId,
    pub topic: &'a Topic,
    pub not_after: Timestamp,
    /// It ends within so many days.
    pub days: u64,
    /// How many Macs are enrolled under its topic.
    pub macs: u64,
    pub apple_account: Option<&'a str>,
}

/// Body of `service.push_certificate_expiring`.
pub fn push_certificate_expiring(expiring: &Expiring<'_>) -> Value {
    json!({
        "push_certificate_id": expiring.push_certificate_id,
        "topic": expiring.topic,
        "not_after": expiring.not_after,
        "days": expiring.days,
        "macs": expiring.macs,
        "apple_account": expiring.apple_account,
    })
}

/// Body of `service.restored`: `note` is what the operator said.
pub fn service_restored(backup_made_at: Timestamp, restored_at: Timestamp, note: &str) -> Value {
    json!({ "backup_made_at": backup_made_at, "restored_at": restored_at, "note": note })
}

/// Body of `service.clock_accepted`: `note` is what the operator said.
pub fn clock_accepted(at: Timestamp, note: &str) -> Value {
    json!({ "at": at, "note": note })
}

/// Body of `verification.finished`.
pub fn verification_finished(verification: &Verification) -> Value {
    let finished = verification.finished.as_ref();
    json!({
        "device_id": verification.device_id,
        "verification_id": verification.verification_id,
        "state": verification.state(),
        "reasons": finished.map(|finished| &finished.reasons),
        "posture_revision": finished.and_then(|finished| finished.posture_revision),
    })
}

/// Body of `device.enrolled` and `device.checked_out`.
pub fn device(device_id: &DeviceId) -> Value {
    json!({ "device_id": device_id })
}

/// Body of `device.taken_over`: `contender` is the id under which it was known before.
pub fn taken_over(device_id: &DeviceId, contender: &DeviceId) -> Value {
    json!({ "device_id": device_id, "contender": contender })
}

/// Body of `device.revoked` and `device.restored`: `note` is what the operator said.
pub fn revocation(device_id: &DeviceId, revocation_epoch: u64, note: &str) -> Value {
    json!({ "device_id": device_id, "revocation_epoch": revocation_epoch, "note": note })
}

/// Body of `release.changed`. Sessions that run it are routable, or not, from now on.
pub fn release_changed(release: &Release) -> Value {
    json!({
        "binary_hash": release.binary_hash,
        "platform": release.platform,
        "version": release.version,
        "standing": release.standing(),
    })
}

/// Body of `binding.changed`: what happened, and what the session amounts to since.
pub fn binding_changed(session: &Session, change: &str, judgement: &Judgement) -> Value {
    let Judgement { trust, routability } = judgement;
    json!({
        "session": session.session_id,
        "binding_id": session.binding_id,
        "device_id": session.device_id,
        "change": change,
        "routable": routability.routable,
        "trust_level": trust.level,
        "se_key_bound": trust.se_key_bound,
        "reasons": routability.reasons,
        "routable_until": routability.routable_until,
    })
}

/// Body of `binding.conflict`. It lowers nothing.
pub fn binding_conflict(device_id: &DeviceId, newcomer: &Session, other: &Session) -> Value {
    let side = |session: &Session| {
        json!({
            "session": session.session_id,
            "binding_id": session.binding_id,
            "se_public_key": session.key,
        })
    };
    json!({ "device_id": device_id, "newcomer": side(newcomer), "other": side(other) })
}

/// Body of `challenge.due`.
pub fn challenge_due(session: &Session, now: Timestamp) -> Value {
    json!({
        "session": session.session_id,
        "binding_id": session.binding_id,
        "device_id": session.device_id,
        "due_at": session.liveness.due_at(now),
        "time_outs": session.liveness.time_outs(now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn a_change_of_posture_has_the_members_that_subscribers_read() {
        let now = Timestamp::from_seconds(1_790_847_007);
        let device_id = DeviceId::new(now, &SeededEntropy::new(1));
        let mut posture = Posture::unknown(device_id.clone(), now);
        posture.verdict = Verdict::Contraindicated;
        posture.revision = 42;
        let reasons = [Reason::SipDisabled, Reason::EvidenceConflict];
        let body = posture_changed(&posture, Verdict::Affirming, &reasons);
        let expected = json!({
            "device_id": device_id, "revision": 42, "verdict": "contraindicated",
            "previous": "affirming", "reasons": ["sip_disabled", "evidence_conflict"],
            "revocation_epoch": 0,
        });
        assert_eq!(body, expected);
        assert_eq!(device(&device_id), json!({ "device_id": device_id }));
    }
}
