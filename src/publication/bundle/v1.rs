//! A bundle as it is written. What each part proves is in `docs/verify.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::attestation::freshness;
use crate::ids::{CommandUuid, DeviceId};
use crate::posture::Channel;
use crate::publication::feed::Disclosure;
use crate::time::Timestamp;

/// Says of what form a bundle is.
pub const PROFILE: &str = "tag:attestd,2026:evidence-bundle#1";

/// Everything but the result, which seals it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct BundleV1 {
    bundle_version: u8,
    profile: &'static str,
    pub generated_at: Timestamp,
    pub subject: String,
    pub subject_opening: Opening,
    pub se_public_key: String,
    pub disclosure: Disclosure,
    /// Always false: nothing here proves that the key lives in the Mac.
    residence_proved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_info: Option<SecurityInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mda: Option<Mda>,
    /// Only with a result that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What the registry says of the program that the provider says it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
}

/// What opens the subject.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = SubjectOpening)]
pub struct Opening {
    pub salt_b64: String,
    pub definition: &'static str,
}

/// The blob a session began with.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleRegistration)]
pub struct Registration {
    pub attestation_raw_b64: String,
    pub signature_b64: String,
    pub encryption_public_key: String,
}

/// The last challenge that was answered well.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleChallenge)]
pub struct Challenge {
    pub nonce: String,
    pub timestamp: String,
    pub signature_b64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_raw_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_signature_b64: Option<String>,
    /// By this service's clock, or the coordinator's word.
    pub received_at: Timestamp,
}

/// The last SecurityInfo, as macOS reported it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleSecurityInfo)]
pub struct SecurityInfo {
    pub command_uuid: CommandUuid,
    pub sent_at: Timestamp,
    pub observed_at: Timestamp,
    /// Always `device_reported`.
    pub assurance: &'static str,
    /// Whose key signed the reply.
    pub channel: Channel,
    /// SHA-256 of the reply as it was received, hexadecimal.
    pub reply_sha256: String,
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
}

/// A statement of Apple's.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleMda)]
pub struct Mda {
    /// Leaf first, standard base64 of DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_b64: Option<Vec<String>>,
    /// In place of the chain: of the certificates one after the other, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_sha256: Option<String>,
    pub nonce: Nonce,
    pub command_uuid: CommandUuid,
    pub observed_at: Timestamp,
}

/// From what the nonce was made, so that anybody can make it again.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleNonce)]
pub struct Nonce {
    pub scheme: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<NonceInputs>,
    /// With `beacon-v2`: the last entry of the log whose head is among the inputs, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_entry_b64: Option<String>,
    /// That this entry is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlog_proof: Option<String>,
}

/// The inputs; the last four with `beacon-v2` only.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct NonceInputs {
    /// This service's canonical name.
    pub server_id: String,
    pub device_id: DeviceId,
    pub command_uuid: CommandUuid,
    pub minted_at: Timestamp,
    /// The provider's Secure Enclave key as the base64 text it was given in; empty when none.
    pub se_public_key: String,
    /// The name of the transparency log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// How many entries it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The root of these, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// When the last of them was added, as that says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_at: Option<Timestamp>,
}

impl From<freshness::NonceInputs> for NonceInputs {
    fn from(inputs: freshness::NonceInputs) -> Self {
        let head = inputs.beacon;
        Self {
            server_id: inputs.server_id,
            device_id: inputs.device_id,
            command_uuid: inputs.command_uuid,
            minted_at: inputs.minted_at,
            se_public_key: inputs.se_public_key,
            size: head.as_ref().map(|head| head.size),
            root: head.as_ref().map(|head| STANDARD.encode(head.root)),
            head_at: head.as_ref().map(|head| head.head_at),
            origin: head.map(|head| head.origin),
        }
    }
}

/// An entry of the transparency log, and the proof that it is in it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleLogged)]
pub struct Logged {
    pub log_entry_b64: String,
    /// Under a head that is newer than the entry, and older than the result.
    pub tlog_proof: String,
}

/// The policy that judged.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundlePolicy)]
pub struct Policy {
    pub id: String,
    pub sha256: String,
    pub url: String,
    pub text: String,
}

/// A release that was registered, and the proof that it was logged.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = BundleRelease)]
pub struct Release {
    pub version: String,
    pub platform: String,
    /// Hexadecimal.
    pub binary_hash: String,
    pub url: String,
    #[serde(flatten)]
    pub logged: Logged,
}

/// What every bundle has.
#[derive(Debug)]
pub struct Head {
    pub generated_at: Timestamp,
    pub subject: String,
    pub subject_opening: Opening,
    pub se_public_key: String,
    pub disclosure: Disclosure,
}

impl BundleV1 {
    /// A bundle without evidence.
    pub fn new(head: Head) -> Self {
        Self {
            bundle_version: 1,
            profile: PROFILE,
            generated_at: head.generated_at,
            subject: head.subject,
            subject_opening: head.subject_opening,
            se_public_key: head.se_public_key,
            disclosure: head.disclosure,
            residence_proved: false,
            registration: None,
            challenge: None,
            security_info: None,
            mda: None,
            policy: None,
            release: None,
        }
    }
}

/// A bundle as it is sent: with the result that seals it, where there is one, and the proof that the result
/// stands in the log.
#[derive(Debug, Clone, Copy)]
pub struct SealedV1;

impl ToSchema for SealedV1 {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((BundleV1::name().into_owned(), BundleV1::schema()));
        BundleV1::schemas(schemas);
    }
}

impl PartialSchema for SealedV1 {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str| crate::json::text_schema(about);
        let seal = ObjectBuilder::new()
            .property("ear", text("An Attestation Result (EAR), a compact JWS."))
            .property(
                "log_entry_b64",
                text("The entry of the log that is the result."),
            )
            .property("tlog_proof", text("C2SP tlog-proof of the entry."));
        AllOfBuilder::new()
            .item(Ref::from_schema_name(BundleV1::name()))
            .item(seal)
            .into()
    }
}
