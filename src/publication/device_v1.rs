//! `GET /internal/v1/devices/{id}`: a Mac as it is enrolled.

use serde::Serialize;

use crate::enrollment::{Enrollment, Hardware, Identity, IdentityKind, State as EnrollmentState};
use crate::ids::{CertificateHash, DeviceId, SerialNumber, Udid};
use crate::posture::Verdict;
use crate::posture::trust::Level;
use crate::reason::Reason;
use crate::time::Timestamp;

/// A Mac, as it is enrolled.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct DeviceV1<'a> {
    pub device_id: &'a DeviceId,
    pub serial_number: Option<&'a SerialNumber>,
    pub udid: &'a Udid,
    pub enrolled: bool,
    pub enrollment_state: EnrollmentState,
    /// Always `device`.
    pub enrollment_channel: &'static str,
    /// The Mac that stands where this one would.
    pub contends_with: Option<&'a DeviceId>,
    pub serial_held_since: Option<Timestamp>,
    pub identity: Option<IdentityV1<'a>>,
    pub hardware: &'a Hardware,
    pub authenticated_at: Timestamp,
    pub enrolled_at: Option<Timestamp>,
    pub last_seen: Option<Timestamp>,
    pub push: PushV1,
}

/// The certificate that speaks for it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct IdentityV1<'a> {
    pub kind: IdentityKind,
    /// `valid`, or the reason why it is not.
    pub state: &'static str,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub sha256: &'a CertificateHash,
}

/// Whether it can be woken.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct PushV1 {
    /// `ok`, `token_invalid` or `none`.
    pub state: &'static str,
}

impl<'a> DeviceV1<'a> {
    /// The Mac as of `now`.
    pub fn new(
        enrollment: &'a Enrollment,
        identity: Option<&'a Identity>,
        last_seen: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let push = match &enrollment.push {
            Some(address) if address.dead_since.is_none() => "ok",
            Some(_) => "token_invalid",
            None => "none",
        };
        Self {
            device_id: &enrollment.device_id,
            serial_number: enrollment.serial.as_ref(),
            udid: &enrollment.udid,
            enrolled: enrollment.state == EnrollmentState::Enrolled,
            enrollment_state: enrollment.state,
            enrollment_channel: "device",
            contends_with: enrollment.contends_with.as_ref(),
            serial_held_since: enrollment.serial_held_since(),
            identity: identity.map(|identity| IdentityV1 {
                kind: identity.kind,
                state: match identity.usable(now) {
                    Ok(()) => "valid",
                    Err(reason) => reason.code(),
                },
                not_before: identity.not_before,
                not_after: identity.not_after,
                sha256: &identity.certificate,
            }),
            hardware: &enrollment.hardware,
            authenticated_at: enrollment.authenticated_at,
            enrolled_at: enrollment.enrolled_at,
            last_seen,
            push: PushV1 { state: push },
        }
    }
}

/// A Mac in a list: as it is enrolled, and what is believed of it.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceLineV1<'a> {
    #[serde(flatten)]
    pub device: DeviceV1<'a>,
    pub verdict: Verdict,
    pub trust_level: Level,
    pub usable_until: Option<Timestamp>,
    /// Cause first.
    pub reasons: &'a [Reason],
}
