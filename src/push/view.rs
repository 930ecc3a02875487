//! Push certificates as people and programs read them: by command, and by the internal API.

use serde::Serialize;

use super::approval::Proposal;
use super::canary::Canary;
use super::rotation::{Held, Standing};
use crate::ids::{
    CertificateHash, DeviceId, PushCertificateId, PushProposalId, PushRequestId, Topic,
};
use crate::time::Timestamp;

/// Every push certificate, and every request that no certificate came for yet.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PushCertificatesV1 {
    /// The one that was installed or came into use last is the first.
    pub push_certificates: Vec<PushCertificateV1>,
    /// The newest first.
    pub requests: Vec<PushRequestV1>,
    /// What another person is to confirm.
    pub proposals: Vec<PushProposalV1>,
}

/// A push certificate.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PushCertificateV1 {
    pub push_certificate_id: PushCertificateId,
    /// The Macs that it is for: those that enrolled under it.
    pub topic: Topic,
    /// `staged`, `canary`, `active` or `retired`.
    pub state: &'static str,
    pub active: bool,
    pub sha256: CertificateHash,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Whole days until it ends; none after that.
    pub days_left: u64,
    /// Who renews it in Apple's portal, as far as an operator said.
    pub apple_account: Option<String>,
    pub installed_at: Timestamp,
    /// When it came into use last.
    pub activated_at: Option<Timestamp>,
    /// When another took its place.
    pub retired_at: Option<Timestamp>,
    /// Why it was taken into use though no Mac had tried it.
    pub untried_because: Option<String>,
}

/// A push certificate, its Macs, and those that try it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PushCertificateDetailsV1 {
    #[serde(flatten)]
    pub certificate: PushCertificateV1,
    pub issuer: String,
    pub common_name: Option<String>,
    /// Macs enrolled under its topic.
    pub macs: u64,
    pub canaries: Vec<CanaryV1>,
}

/// A Mac that tries a push certificate.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CanaryV1 {
    pub device_id: DeviceId,
    /// `waiting`, `sent`, `came` or `refused`.
    pub state: &'static str,
    /// Why no push was taken, or must be repeated: the name of an outcome, or `no_address`.
    pub outcome: Option<String>,
    pub asked_at: Timestamp,
    /// When the push that APNs took was sent.
    pub sent_at: Option<Timestamp>,
    /// When the Mac connected first after that.
    pub came_at: Option<Timestamp>,
}

/// A push certificate was asked for. Its private key is here, sealed, and never leaves.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PushRequestV1 {
    pub push_request_id: PushRequestId,
    pub apple_account: Option<String>,
    pub requested_at: Timestamp,
    /// PKCS #10, PEM: what a vendor signs.
    pub csr: String,
}

/// What one person wants done with a push certificate, and another is to confirm.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct PushProposalV1 {
    pub push_proposal_id: PushProposalId,
    /// `activate` or `rollback`.
    pub change: &'static str,
    /// In use afterwards.
    pub push_certificate_id: PushCertificateId,
    pub topic: Topic,
    /// Why no Mac had to try it first.
    pub untried_because: Option<String>,
    /// As the audit log shows who it was.
    pub proposed_by: String,
    pub proposed_at: Timestamp,
    /// Nobody can confirm it from then on.
    pub good_until: Timestamp,
}

impl From<Proposal> for PushProposalV1 {
    fn from(proposal: Proposal) -> Self {
        Self {
            push_proposal_id: proposal.push_proposal_id,
            change: proposal.change.as_str(),
            push_certificate_id: proposal.push_certificate_id,
            topic: proposal.topic,
            untried_because: proposal.untried_because,
            proposed_by: proposal.proposed_by,
            proposed_at: proposal.proposed_at,
            good_until: proposal.good_until,
        }
    }
}

/// What is known of a certificate besides what is decided by.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub apple_account: Option<String>,
    pub activated_at: Option<Timestamp>,
    pub untried_because: Option<String>,
}

impl PushCertificateV1 {
    /// As it is now.
    pub fn new(held: Held, told: Told, now: Timestamp) -> Self {
        Self {
            state: held.standing.as_str(),
            active: held.standing == Standing::Active,
            days_left: held.not_after.since(now).as_secs() / 86_400,
            push_certificate_id: held.push_certificate_id,
            topic: held.topic,
            sha256: held.sha256,
            not_before: held.not_before,
            not_after: held.not_after,
            apple_account: told.apple_account,
            installed_at: held.installed_at,
            activated_at: told.activated_at,
            retired_at: held.retired_at,
            untried_because: told.untried_because,
        }
    }
}

impl From<&Canary> for CanaryV1 {
    fn from(canary: &Canary) -> Self {
        Self {
            device_id: canary.device_id.clone(),
            state: canary.progress().as_str(),
            outcome: canary.refused.clone().or_else(|| canary.trouble.clone()),
            asked_at: canary.asked_at,
            sent_at: canary.sent_at,
            came_at: canary.came_at,
        }
    }
}
